"""Layers under spectral normalization, and the critic that is made of them, as in fastai 1.0 and DDColor.

T. Miyato, T. Kataoka, M. Koyama, Y. Yoshida: Spectral Normalization for Generative Adversarial Networks, ICLR 2018.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


def scaled(channels: int, width: float) -> int:
    """Channels at a width, a multiple of 8."""
    return 8 * max(1, round(channels * width / 8))


def initialized(layer: nn.Conv1d | nn.Conv2d, alike: int = 1) -> nn.Conv1d | nn.Conv2d:
    """He et al. 2015 for the kernel, 0 for the bias. `alike` outputs in a row start from one kernel."""
    kernel = layer.weight.detach()
    layer.weight.data = nn.init.kaiming_normal_(kernel[::alike].clone()).repeat_interleave(alike, dim=0)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def spectral(layer: nn.Conv1d | nn.Conv2d, alike: int = 1) -> nn.Module:
    """The initialized layer with its kernel divided by its largest singular value."""
    return spectral_norm(initialized(layer, alike))


class SelfAttention(nn.Module):
    """H. Zhang, I. Goodfellow, D. Metaxas, A. Odena: Self-Attention Generative Adversarial Networks, ICML 2019.

    (B, C, H, W) -> the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        few = max(1, channels // 8)
        self.query, self.key, self.value = (
            spectral(nn.Conv1d(channels, count, 1, bias=False)) for count in (few, few, channels)
        )
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        query, key, value = (layer(flat).mT for layer in (self.query, self.key, self.value))  # (B, H * W, channels)
        seen = F.scaled_dot_product_attention(key, query, value, scale=1.0)  # each place asks by its key, as released
        return x + self.gamma * seen.mT.reshape(x.shape)


class Critic(nn.Module):
    """A picture (B, 3, H, W) -> logits: (B, 1, 13, 13) at 256 px, one from 64 px down.

    A stage halves the picture; the published three need 64 px, so that smaller training images get fewer. `dropped` is
    the share of channels that dropout leaves out, half of it after the first layer.
    """

    def __init__(self, channels: int, size: int, activation: Callable[[], nn.Module], dropped: float = 0.0) -> None:
        super().__init__()

        def judge(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
            conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2)
            return [spectral(conv), activation()]

        layers = [*judge(3, channels, kernel=4, stride=2), nn.Dropout2d(dropped / 2)]
        for stage in range(max(0, min(3, int(math.log2(size)) - 3))):
            layers += [*judge(channels, channels, kernel=3, stride=1), nn.Dropout2d(dropped)]
            layers += judge(channels, 2 * channels, kernel=4, stride=2)
            if stage == 0:
                layers.append(SelfAttention(2 * channels))
            channels *= 2
        layers += judge(channels, channels, kernel=3, stride=1)
        layers.append(spectral(nn.Conv2d(channels, 1, 4, bias=False)))
        self.layers = nn.Sequential(*layers)

    def forward(self, picture: Tensor) -> Tensor:
        return self.layers(picture).float()
