"""Maps of torchvision's VGG16 (Simonyan and Zisserman 2015), by which losses compare pictures."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from colorbench.harness.networks import read_state

STAGES = (64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)  # channels; pooling after each


class ImageNet(nn.Module):
    """sRGB (B, 3, H, W) in 0..1 -> the same with ImageNet's mean and deviation taken out, as torchvision trains."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)

    def forward(self, rgb: Tensor) -> Tensor:
        return (rgb - self.mean) / self.std

    def undone(self, normalized: Tensor) -> Tensor:
        """Back in 0..1, where it was."""
        return normalized * self.std + self.mean


class Features(nn.Module):
    """The maps after some layers of VGG16, numbered as torchvision numbers its `features`.

    `weights` is a file of torchvision's. Without one the features are random, the same in every run, with their
    channels multiplied by `width`. Batch normalization, if there is any, always uses the statistics of the file. The
    kernels are constants: they follow the module to its device, but are neither parameters nor state. Raises UserError
    or ValueError if the file holds no such network.
    """

    def __init__(self, taken: Collection[int], weights: Path | None, width: float, batch_norm: bool = False) -> None:
        super().__init__()
        self.taken = taken
        with torch.random.fork_rng(devices=[]):  # a first initialization, which is replaced, draws nothing
            self.layers = _vgg16(1 if weights else width, batch_norm)[: max(taken) + 1]
        if weights:
            _read(self.layers, weights, "VGG16-BN" if batch_norm else "VGG16")
        else:
            _randomize(self.layers)
        for layer in self.layers:
            for name, tensor in [*layer.named_parameters(), *layer.named_buffers()]:
                delattr(layer, name)
                layer.register_buffer(name, tensor.detach(), persistent=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Normalized (B, 3, H, W), see `ImageNet` -> a float32 map after each layer that is taken."""
        maps = []
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in self.taken:
                maps.append(x.float().clone())  # the ReLU that may follow is in place
        return maps


class FeatureLoss(nn.Module):
    """The weighted L1 distance of two pictures in maps of VGG16 with batch normalization; `layers` are their weights.

    `weights` and `width` as for `Features`.
    """

    def __init__(self, layers: Mapping[int, float], weights: Path | None, width: float) -> None:
        super().__init__()
        self.weights, self.features = [*layers.values()], Features(layers, weights, width, batch_norm=True)

    def forward(self, picture: Tensor, truth: Tensor) -> Tensor:
        """Both normalized (B, 3, H, W) -> a scalar. No gradient reaches `truth`."""
        with torch.no_grad():
            wanted = self.features(truth)
        seen = zip(self.weights, self.features(picture), wanted, strict=True)
        return torch.stack([weight * F.l1_loss(one, due) for weight, one, due in seen]).sum()


def _vgg16(width: float, batch_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    inputs = 3
    for stage in STAGES:
        for channels in (max(8, round(count * width)) for count in stage):
            layers.append(nn.Conv2d(inputs, channels, 3, padding=1))
            layers += [FrozenBatchNorm2d(channels)] if batch_norm else []
            layers.append(nn.ReLU(inplace=True))
            inputs = channels
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def _read(layers: nn.Sequential, file: Path, name: str) -> None:
    state = read_state(file)
    try:
        layers.load_state_dict({key: state[f"features.{key}"] for key in layers.state_dict()})
    except (LookupError, RuntimeError) as error:
        raise ValueError(f"{file} holds no {name} weights of torchvision ({type(error).__name__})") from error


@torch.no_grad()
def _randomize(layers: nn.Sequential) -> None:
    """He et al. 2015, so that the maps of all layers are of one magnitude; each normalization leaves them as is."""
    generator = torch.Generator().manual_seed(16)  # its own, and fixed: every run is scored by the same features
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            kernel = torch.randn(layer.weight.shape, generator=generator)
            layer.weight.copy_(kernel * (2 / (9 * layer.in_channels)) ** 0.5)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
