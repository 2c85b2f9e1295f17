"""What DeOldify's generator learns from: the critic, and the features of VGG16 (Simonyan and Zisserman 2015).

Both see sRGB pictures (B, 3, H, W) normalized with ImageNet's mean and deviation.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from colorbench.harness.networks import read_state
from colorbench_deoldify.layers import SelfAttention, scaled, spectral

LAYERS = {22: 20.0, 32: 70.0, 42: 10.0}  # the last ReLU of VGG16's third, fourth and fifth stage, and their weights
DROPPED = 0.15  # share of the channels


class Critic(nn.Module):
    """-> logits: (B, 1, 13, 13) at 256 px, one from 64 px down.

    A stage halves the picture; the release's three need 64 px, so that smaller training images get fewer.
    """

    def __init__(self, width: float, size: int) -> None:
        super().__init__()
        channels = scaled(256, width)
        layers: list[nn.Module] = [*_judge(3, channels, kernel=4, stride=2), nn.Dropout2d(DROPPED / 2)]
        for stage in range(max(0, min(3, int(math.log2(size)) - 3))):
            layers += [*_judge(channels, channels, kernel=3, stride=1), nn.Dropout2d(DROPPED)]
            layers += _judge(channels, 2 * channels, kernel=4, stride=2)
            if stage == 0:
                layers.append(SelfAttention(2 * channels))
            channels *= 2
        layers += _judge(channels, channels, kernel=3, stride=1)
        layers.append(spectral(nn.Conv2d(channels, 1, 4, bias=False)))
        self.layers = nn.Sequential(*layers)

    def forward(self, picture: Tensor) -> Tensor:
        return self.layers(picture).float()


class Features(nn.Module):
    """The weighted L1 distances of three maps of VGG16 with batch normalization.

    `weights` is a file of torchvision's VGG16-BN. Without one the features are random, the same in every run, with
    their channels multiplied by `width`. The kernels are constants: they follow the module to its device, but are
    neither parameters nor state. Raises UserError or ValueError if the file holds no such network.
    """

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

    def forward(self, picture: Tensor, truth: Tensor) -> Tensor:
        """-> a scalar. No gradient reaches `truth`."""
        with torch.no_grad():
            wanted = self._maps(truth)
        errors = [
            weight * F.l1_loss(seen, due)
            for weight, seen, due in zip(LAYERS.values(), self._maps(picture), wanted, strict=True)
        ]
        return torch.stack(errors).sum()

    def _maps(self, x: Tensor) -> list[Tensor]:
        """The float32 maps of `LAYERS`, at H/4, H/8 and H/16."""
        maps = []
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in LAYERS:
                maps.append(x.float())
        return maps


def _judge(inputs: int, outputs: int, kernel: int, stride: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2)
    return spectral(conv), nn.LeakyReLU(0.2, inplace=True)


def _vgg16_bn(width: float) -> nn.Sequential:
    """Without the last pooling. Its batch normalization always uses the statistics of the file."""
    layers: list[nn.Module] = []
    inputs = 3
    for stage in ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)):
        for channels in (max(8, round(count * width)) for count in stage):
            conv = nn.Conv2d(inputs, channels, 3, padding=1)
            layers += [conv, FrozenBatchNorm2d(channels), nn.ReLU(inplace=True)]
            inputs = channels
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers[:-1])


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
