"""Area under the curve of ab errors, after Zhang, Isola and Efros, "Colorful Image Colorization", ECCV 2016.

From the paper (section 3.1): the share of pixels whose predicted ab is within a distance of the true ab, for distances
of 0 to 150; the area under that curve, as a share of the largest; rebalanced, each pixel weighted by the inverse of its
color's probability (equation 4 with lambda 0), colors being a grid of 10 in ab whose frequencies in the training images
are smoothed by a Gaussian of 5. No code of the authors was found.

Ours: distances in steps of 1, joined by straight lines, as others compute it; a color is the nearest point of the grid,
its neighbors do not share it; the grid covers all of ab, not the 313 points of the paper; a color not seen in training
counts as much as the rarest that was.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

FARTHEST = 150  # the largest distance
BIN, EDGE = 10, 11  # Lab units; bins to each side of 0, which hold all colors of sRGB
SIGMA, REACH = 5, 2  # Lab units; bins after which the Gaussian is cut off
SIDE = 2 * EDGE + 1


def auc(predicted: Tensor, truth: Tensor) -> Tensor:
    """The area of each image, 0..1, float64 (B,); `predicted` and `truth` are Lab (B, 3, H, W)."""
    return _areas(predicted, truth).mean(dim=(1, 2), dtype=torch.float64)


def weighted_auc(predicted: Tensor, truth: Tensor, probabilities: np.ndarray) -> Tensor:
    """Of each image the sum of weighted areas and of weights, float64 (B, 2); `probabilities` are by bin."""
    by_bin = torch.from_numpy(1 / probabilities).to(truth.device)
    weights = by_bin.index_select(0, _bins(truth).flatten()).view(truth[:, 0].shape)
    return torch.stack([(_areas(predicted, truth) * weights).sum((1, 2)), weights.sum((1, 2))], dim=1)


def color_probabilities(batches: Iterator[Tensor]) -> np.ndarray:
    """The smoothed probability of each bin, float64 (529,), of Lab pictures in batches (B, 3, H, W)."""
    counts = sum(torch.bincount(_bins(batch).flatten(), minlength=SIDE**2) for batch in batches)
    assert isinstance(counts, Tensor)
    grid = counts.reshape(1, 1, SIDE, SIDE).double()
    steps = torch.arange(-REACH, REACH + 1, dtype=torch.float64) * BIN
    kernel = torch.exp(-(steps[:, None] ** 2 + steps[None, :] ** 2) / (2 * SIGMA**2))
    smooth = torch.nn.functional.conv2d(grid, kernel[None, None], padding=REACH)
    smooth = smooth.clamp(min=smooth[grid > 0].min())
    return (smooth / smooth.sum()).flatten().numpy()


def _areas(predicted: Tensor, truth: Tensor) -> Tensor:
    """Of each pixel the area under the curve of its own error, 0..1: (B, H, W)."""
    a, b = (predicted[:, 1:] - truth[:, 1:]).unbind(1)
    error = torch.hypot(a, b)
    # The thresholds that it is within, the first and the last of which count half.
    within = (FARTHEST + 0.5 - error.ceil()).clamp(min=0)
    return within.clamp(max=FARTHEST) / FARTHEST


def _bins(lab: Tensor) -> Tensor:
    """The bin of each pixel's color: int32 (B, H, W)."""
    a, b = (lab[:, 1:] / BIN).add_(0.5).floor_().clamp_(-EDGE, EDGE).unbind(1)
    return ((a + EDGE) * SIDE + (b + EDGE)).int()
