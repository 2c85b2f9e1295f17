"""The floor: a constant color, none at all or the mean of the training images. The bounds: some of the true ab."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from colorbench.color import lab_to_rgb
from colorbench.contract import Batch, Update

MOST_PIXELS = 64  # to a side, on which the best constant is sought: every second at 128 px, every fourth at 256 px
STEPS = 10  # of Gauss-Newton, from the mean ab; half as many come within 0.01 of the least MSE
PROBE = 0.5  # Lab units, over which slopes are measured


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


class BestConstant(nn.Module):
    """The one ab by which an image has the least MSE in clipped RGB, found by damped Gauss-Newton from its mean ab."""

    def forward(self, L: Tensor, ab: Tensor) -> Tensor:
        step = -(-max(L.shape[2:]) // MOST_PIXELS)
        alone = zip(L[..., ::step, ::step].split(1), ab[..., ::step, ::step].split(1), strict=True)
        best = torch.cat([self._best(*image) for image in alone])
        return best.expand(-1, -1, *L.shape[2:])

    def updates(self, batch: Batch) -> Iterator[Update]:
        yield from ()

    def _best(self, L: Tensor, ab: Tensor) -> Tensor:
        """The ab (1, 2, 1, 1) of one image."""
        truth, best = lab_to_rgb(torch.cat((L, ab), dim=1)), ab.mean((2, 3), keepdim=True)
        probes = PROBE * torch.eye(2, device=L.device)[:, :, None, None]

        def error(constants: Tensor) -> Tensor:  # (K, 2, 1, 1) -> (K, values), all at once
            lab = torch.cat((L.expand(len(constants), *L.shape[1:]), constants.expand(-1, -1, *L.shape[2:])), dim=1)
            return (lab_to_rgb(lab) - truth).flatten(1)

        damping = 1.0
        for _ in range(STEPS):
            here, *moved = error(torch.cat((best, best + probes)))
            slopes = (torch.stack(moved) - here) / PROBE  # (2, values)
            square = slopes @ slopes.T
            square = square + 1e-6 * square.trace() * torch.eye(2, device=L.device)  # black has no slope
            if not square.any():
                break
            step = torch.linalg.solve(square, slopes @ here)[None, :, None, None]
            tried = best - damping * step
            if error(tried).square().sum() < here.square().sum():
                best, damping = tried, 1.0
            else:
                damping /= 2
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
