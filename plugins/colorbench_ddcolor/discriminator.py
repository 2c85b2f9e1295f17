"""The discriminator that DDColor is trained against, and the layer that both of them are made of.

T. Miyato, T. Kataoka, M. Koyama, Y. Yoshida: Spectral Normalization for Generative Adversarial Networks, ICLR 2018.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class Discriminator(nn.Module):
    """sRGB (B, 3, H, W) in 0..1 -> logits: (B, 1, 13, 13) at 256 px, one from 64 px down.

    A stage halves the picture; the authors' three need 64 px, so that smaller training images get fewer.
    """

    def __init__(self, width: float, size: int) -> None:
        super().__init__()
        channels = scaled(64, width)
        layers: list[nn.Module] = [*_judge(3, channels, kernel=4, stride=2)]
        for stage in range(min(3, int(math.log2(size)) - 3)):
            layers += _judge(channels, channels, kernel=3, stride=1)
            layers += _judge(channels, 2 * channels, kernel=4, stride=2)
            if stage == 0:
                layers.append(SelfAttention(2 * channels))
            channels *= 2
        layers += _judge(channels, channels, kernel=3, stride=1)
        layers.append(spectral(nn.Conv2d(channels, 1, 4, bias=False)))
        self.layers = nn.Sequential(*layers)

    def forward(self, rgb: Tensor) -> Tensor:
        return self.layers(rgb).float()


class SelfAttention(nn.Module):
    """Zhang et al. 2019, "Self-Attention Generative Adversarial Networks": (B, C, H, W) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        counts = (channels // 8, channels // 8, channels)
        self.query, self.key, self.value = (spectral(nn.Conv1d(channels, count, 1, bias=False)) for count in counts)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        query, key, value = (layer(flat).mT for layer in (self.query, self.key, self.value))  # (B, H * W, channels)
        seen = F.scaled_dot_product_attention(key, query, value, scale=1.0)  # each place asks by its key, as released
        return x + self.gamma * seen.mT.reshape(x.shape)


def scaled(channels: int, width: float) -> int:
    """Channels at a width, a multiple of 8."""
    return 8 * max(1, round(channels * width / 8))


def spectral(layer: nn.Conv1d | nn.Conv2d, alike: int = 1) -> nn.Module:
    """The layer with its kernel divided by its largest singular value. `alike` outputs in a row start from one kernel.

    He et al. 2015 for the kernel, 0 for the bias.
    """
    kernel = layer.weight.detach()
    layer.weight.data = nn.init.kaiming_normal_(kernel[::alike].clone()).repeat_interleave(alike, dim=0)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return spectral_norm(layer)


def _judge(inputs: int, outputs: int, kernel: int, stride: int) -> tuple[nn.Module, ...]:
    return spectral(nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2)), nn.ReLU(inplace=True)
