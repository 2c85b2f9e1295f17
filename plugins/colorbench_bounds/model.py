"""The floor: a constant color, none at all or the mean of the training images. The bounds: some of the true ab."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from colorbench.color import lab_to_rgb
from colorbench.contract import Batch, Update

MOST_PIXELS = 64  # to a side, on which the best constant is sought: every second at 128 px, every fourth at 256 px
STEPS = 6  # of Gauss-Newton, from the mean ab; on faces, three come within 0.001 of the least MSE
PROBE = 0.5  # Lab units, over which slopes are measured


class Grey(nn.Module):
    """ab = 0 everywhere."""

    def forward(self, L: Tensor) -> Tensor:
        return L.new_zeros(L.shape[0], 2, *L.shape[2:])

    def updates(self, batch: Batch) -> Iterator[Update]:
        yield from ()


class MeanColor(nn.Module):
    """The mean ab over every pixel of the training images: the constant with the least squared ab error.

    Its state is a sum and a pixel count; until it has counted it is grey.
    """

    measured = ("total", "pixels")
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

    def measure(self, batches: Iterator[Batch]) -> None:
        self.total.zero_()
        self.pixels.zero_()
        for batch in batches:
            self.total += batch.ab.sum(dim=(0, 2, 3), dtype=torch.float64)
            self.pixels += batch.ab[:, 0].numel()

    def updates(self, batch: Batch) -> Iterator[Update]:
        yield from ()


class BestConstant(nn.Module):
    """The one ab by which an image has the least MSE in clipped RGB, found by damped Gauss-Newton from its mean ab."""

    def forward(self, L: Tensor, ab: Tensor) -> Tensor:
        stride = -(-max(L.shape[2:]) // MOST_PIXELS)
        # In float64, so that an image has the same constant alone and in a batch.
        best = self._best(L[..., ::stride, ::stride].double(), ab[..., ::stride, ::stride].double())
        return best.float().expand(-1, -1, *L.shape[2:])

    def updates(self, batch: Batch) -> Iterator[Update]:
        yield from ()

    def _best(self, L: Tensor, ab: Tensor) -> Tensor:
        """The constants (B, 2, 1, 1)."""
        truth, best = lab_to_rgb(torch.cat((L, ab), dim=1)), ab.mean((2, 3), keepdim=True)
        probes = PROBE * torch.eye(2).to(L)[:, None, :, None, None]
        damping = L.new_ones(len(L), 1, 1, 1)

        def errors(constant: Tensor) -> Tensor:  # (B, 2, 1, 1) -> (B, values)
            return (lab_to_rgb(torch.cat((L, constant.expand_as(ab)), dim=1)) - truth).flatten(1)

        here = errors(best)
        for _ in range(STEPS):
            slopes = torch.stack([(errors(best + probe) - here) / PROBE for probe in probes], dim=1)  # (B, 2, values)
            square = slopes @ slopes.mT
            # Black has no slope: there the step is 0.
            square += (1e-6 * square.diagonal(dim1=1, dim2=2).sum(1) + 1e-12)[:, None, None] * torch.eye(2).to(square)
            step = torch.linalg.solve(square, slopes @ here[..., None])[..., None]
            tried = best - damping * step
            there = errors(tried)
            better = (there.square().sum(1) < here.square().sum(1))[:, None, None, None]
            best, here = torch.where(better, tried, best), torch.where(better[..., 0, 0], there, here)
            damping = torch.where(better, 1.0, damping / 2)
        return best


class TrueAb(nn.Module):
    """The true ab as the means over a grid of `side` x `side`, enlarged again between their centers."""

    def __init__(self, side: int, size: int) -> None:
        super().__init__()
        self.side = side
        self.notes = (f"images of {size} px have no more: it is the truth itself",) if size <= side else ()

    def forward(self, L: Tensor, ab: Tensor) -> Tensor:
        if min(L.shape[2:]) <= self.side:
            return ab
        return interpolate(adaptive_avg_pool2d(ab, self.side), L.shape[2:], mode="bilinear", align_corners=False)

    def updates(self, batch: Batch) -> Iterator[Update]:
        yield from ()
