"""The bounds: a constant color, either none at all or the mean of the training images."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from colorbench.contract import Batch, Update


class Grey(nn.Module):
    """ab = 0 everywhere."""

    def forward(self, L: Tensor) -> Tensor:
        return L.new_zeros(L.shape[0], 2, *L.shape[2:])

    def updates(self, batch: Batch) -> Iterator[Update]:
        yield from ()


class MeanColor(nn.Module):
    """The mean ab over every pixel seen in training: the constant with the least squared ab error.

    It learns by counting, not by gradient. Its state is a sum and a pixel count; until then it is grey.
    """

    total: Tensor
    pixels: Tensor

    def __init__(self) -> None:
        super().__init__()
        # float64: float32 cannot count past 2^24 pixels, which are 256 images of 256 px.
        self.register_buffer("total", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("pixels", torch.zeros((), dtype=torch.float64))

    def forward(self, L: Tensor) -> Tensor:
        mean = (self.total / self.pixels.clamp_min(1)).float()
        return mean[None, :, None, None].expand(L.shape[0], 2, *L.shape[2:])

    def updates(self, batch: Batch) -> Iterator[Update]:
        if self.training:
            self.total += batch.ab.sum(dim=(0, 2, 3), dtype=torch.float64)
            self.pixels += batch.ab[:, 0].numel()
        yield from ()
