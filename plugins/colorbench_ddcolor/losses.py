"""The losses of DDColor on sRGB pictures (B, 3, H, W) in 0..1, beside the L1 error of ab."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from colorbench.harness.networks import read_state

SATURATION = 1.2  # of the true pictures that the perceptual and the adversarial loss compare with
IMAGES = 4  # of a batch on each of the authors' GPUs, over which they sum the colorfulness loss
LAYERS = {0: 0.0625, 7: 0.125, 14: 0.25, 24: 0.5, 34: 1.0}  # conv1_1, conv2_1, ... conv5_1, and their weights


def saturated(rgb: Tensor) -> Tensor:
    """A picture moved away from its own grey, by `SATURATION`."""
    red, green, blue = rgb.split(1, dim=1)
    grey = 0.2989 * red + 0.587 * green + 0.114 * blue  # ITU-R BT.601, as torchvision has it
    return (grey + SATURATION * (rgb - grey)).clamp(0, 1)


def colorfulness_error(rgb: Tensor) -> Tensor:
    """1 - the colorfulness of Hasler and Süsstrunk 2003, summed as over the authors' batch."""
    red, green, blue = rgb.flatten(2).unbind(dim=1)  # (B, H * W)
    opponents = torch.stack(((red - green).abs(), ((red + green) / 2 - blue).abs()), dim=1)
    # Grey pictures have a gradient, too.
    deviation = (opponents.var(dim=2).sum(dim=1) + 1e-12).sqrt()
    mean = (opponents.mean(dim=2).square().sum(dim=1) + 1e-12).sqrt()
    return IMAGES * (1 - deviation - 0.3 * mean).mean()


class Perceptual(nn.Module):
    """The weighted L1 distance of five maps of VGG16 (Simonyan and Zisserman 2015) with batch normalization.

    `weights` is a file of torchvision's VGG16-BN. Without one the features are random, the same in every run, with
    their channels multiplied by `width`. The kernels are constants: they follow the module to its device, but are
    neither parameters nor state. Raises UserError or ValueError if the file holds no such network.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: Path | None, width: float) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # a first initialization, which is replaced, draws nothing
            self.layers = _vgg16_bn(1 if weights else width)
        if weights:
            _read(self.layers, weights)
        else:
            _randomize(self.layers)
        for layer in self.layers:
            for name, tensor in [*layer.named_parameters(), *layer.named_buffers()]:
                delattr(layer, name)
                layer.register_buffer(name, tensor.detach(), persistent=False)
        # ImageNet's mean and deviation in RGB, with which torchvision trained
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)

    def forward(self, rgb: Tensor, truth: Tensor) -> Tensor:
        """-> a scalar. No gradient reaches `truth`."""
        with torch.no_grad():
            wanted = self._maps(truth)
        errors = [
            weight * F.l1_loss(seen, due)
            for weight, seen, due in zip(LAYERS.values(), self._maps(rgb), wanted, strict=True)
        ]
        return torch.stack(errors).sum()

    def _maps(self, rgb: Tensor) -> list[Tensor]:
        """The float32 maps of `LAYERS`, the k-th at H / 2^(k - 1): each before its normalization and ReLU."""
        x, maps = (rgb - self.mean) / self.std, []
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in LAYERS:
                # What follows is in place.
                maps.append(x.float().clone())
        return maps


def _vgg16_bn(width: float) -> nn.Sequential:
    """Up to conv5_1. Its batch normalization always uses the statistics of the file."""
    layers: list[nn.Module] = []
    inputs = 3
    for stage in ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512)):
        for channels in (max(8, round(count * width)) for count in stage):
            conv = nn.Conv2d(inputs, channels, 3, padding=1)
            layers += [conv, FrozenBatchNorm2d(channels), nn.ReLU(inplace=True)]
            inputs = channels
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Conv2d(inputs, inputs, 3, padding=1))


def _read(layers: nn.Sequential, file: Path) -> None:
    state = read_state(file)
    try:
        layers.load_state_dict({name: state[f"features.{name}"] for name in layers.state_dict()})
    except (LookupError, RuntimeError) as error:
        raise ValueError(f"{file} holds no VGG16-BN weights of torchvision ({type(error).__name__})") from error


@torch.no_grad()
def _randomize(layers: nn.Sequential) -> None:
    """He et al. 2015, so that the maps of all layers are of one magnitude; each normalization leaves them as is."""
    generator = torch.Generator().manual_seed(16)  # its own, and fixed: every run is scored by the same features
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            kernel = torch.randn(layer.weight.shape, generator=generator)
            layer.weight.copy_(kernel * (2 / (9 * layer.in_channels)) ** 0.5)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
