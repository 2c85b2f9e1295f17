"""The layers that both the generator and the critic are made of, as in fastai 1.0.

T. Miyato, T. Kataoka, M. Koyama, Y. Yoshida: Spectral Normalization for Generative Adversarial Networks, ICLR 2018.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


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


def scaled(channels: int, width: float) -> int:
    """Channels at a width, a multiple of 8."""
    return 8 * max(1, round(channels * width / 8))


def spectral(layer: nn.Conv1d | nn.Conv2d) -> nn.Module:
    """The layer with its kernel divided by its largest singular value, initialized as below."""
    return spectral_norm(initialized(layer))


def initialized(layer: nn.Conv1d | nn.Conv2d) -> nn.Conv1d | nn.Conv2d:
    """He et al. 2015 for the kernel, 0 for the bias."""
    nn.init.kaiming_normal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
