"""The frozen classifier: C. Szegedy, S. Ioffe, V. Vanhoucke, A. Alemi: Inception-v4, Inception-ResNet and the Impact
of Residual Connections on Learning, AAAI 2017. The network is timm's `inception_resnet_v2`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colorbench.color import lab_to_rgb
from colorbench.harness.networks import misfit, read_state

CLASSES = 1001  # of ImageNet, and before them one for the background
SMALLEST = 75  # px: from a smaller image the network's strides leave nothing
PUBLISHED, PUBLISHED_OF = 299, 224  # px: the side of its input, and of the image that is colorized


class Extractor(nn.Module):
    """L (B, 1, H, W) in 0..100 -> the classifier's logits, float32 (B, 1001).

    `source` is a file of the classifier's weights, or "random" for fixed random ones, the same in every run, with the
    channels multiplied by `width`; None leaves them to be loaded. The weights are buffers, since they never learn, and
    are saved with the model's if they came from a file. The input has a side of 299 px for a `size` of 224 px or more,
    as published; the same share of a smaller size, but at least 75 px.
    """

    def __init__(self, source: Path | Literal["random"] | None, width: float, size: int) -> None:
        super().__init__()
        self.side = min(PUBLISHED, max(SMALLEST, round(size * PUBLISHED / PUBLISHED_OF)))
        self.classifier = timm.create_model("inception_resnet_v2", num_classes=CLASSES, device="meta")
        for module in self.classifier.modules():
            if isinstance(module, nn.BatchNorm2d):  # its statistics are constants, and it counts no batches
                module.track_running_stats, module.num_batches_tracked = False, None
        if source == "random":
            _narrow(self.classifier, max(1, round(16 * width)) / 16)
        self.classifier.to_empty(device="cpu")
        if source == "random":
            _randomize(self.classifier)
        elif source is None:
            _zero(self.classifier)
        else:
            _read(self.classifier, source)
        _freeze(self.classifier, saved=source != "random")
        self.eval()

    def train(self, mode: bool = True) -> Extractor:
        return super().train(False)  # its BatchNorms keep their statistics

    @torch.no_grad()
    def forward(self, L: Tensor) -> Tensor:
        grey = lab_to_rgb(torch.cat((L, torch.zeros_like(L), torch.zeros_like(L)), dim=1))  # sRGB in 0..1
        grey = F.interpolate(2 * grey - 1, (self.side, self.side), mode="bilinear", antialias=True)
        return self.classifier(grey).float()


def _narrow(network: nn.Module, factor: float) -> None:
    """Multiply all channels but the input's and the classes' by a number of sixteenths: each is a multiple of 16."""
    for name, tensor in network.state_dict(keep_vars=True).items():
        outputs, *inputs = tensor.shape[:2]
        kept = [outputs if name.startswith("classif.") else round(factor * outputs)]
        kept += [count if count == 3 else round(factor * count) for count in inputs]
        tensor.data = tensor.data[tuple(map(slice, kept))]


@torch.no_grad()
def _randomize(network: nn.Module) -> None:
    """He et al. 2015, so that images differ in the logits as much as trained ones let them; torch's own vanish."""
    generator = torch.Generator().manual_seed(16)  # its own, and fixed: every run sees by the same features
    for name, tensor in network.state_dict().items():
        if tensor.ndim > 1:  # a kernel
            kernel = torch.randn(tensor.shape, generator=generator)
            tensor.copy_(kernel * (2 / kernel[0].numel()) ** 0.5)
        else:  # a scale or variance, or a bias or mean
            tensor.fill_(name.endswith(("bn.weight", "running_var")))


@torch.no_grad()
def _zero(network: nn.Module) -> None:
    for tensor in network.state_dict().values():
        tensor.zero_()


def _read(network: nn.Module, file: Path) -> None:
    """Fill the network from a file, with or without the class of the background.

    Raises UserError or ValueError if the file holds no weights of it.
    """
    # Files by others, from which timm's code descends, call the last layer `last_linear`.
    state = {key.replace("last_linear.", "classif."): tensor for key, tensor in read_state(file).items()}
    state = {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}
    for key in ("classif.weight", "classif.bias"):
        if key in state and state[key].shape[:1] == (CLASSES - 1,):  # a background that is never seen
            state[key] = torch.cat((torch.zeros_like(state[key][:1]), state[key]))
    if why := misfit(state, network.state_dict()):
        raise ValueError(f"{file} holds no weights of timm's inception_resnet_v2: {why}")
    if broken := [key for key, tensor in state.items() if not tensor.isfinite().all()]:
        raise ValueError(f"{file} holds values that are not finite in {broken[0]}; give weights of a sound training")
    network.load_state_dict(state)


def _freeze(network: nn.Module, saved: bool) -> None:
    """Make constants of all parameters and statistics, which are saved with the model or not."""
    for module in network.modules():
        constants = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
        for name, tensor in constants.items():
            delattr(module, name)
            module.register_buffer(name, tensor.detach(), persistent=saved)
