"""Terms per image, float64 (B,) each, of the ab of the predicted and the true picture, in squared Lab units."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from colorbench.metrics.pair import Pair

GRID = 64  # pixels to a side that are looked at, or fewer: sorting all would take longer than all scores
LINES = 8  # directions, evenly spread over half a turn


def palette(pair: Pair) -> dict[str, Tensor]:
    """ab_squared_error: mean squared distance pixel by pixel; palette_squared_distance: of the sorted palettes.

    Over evenly spread directions the squared projection of a vector is half its squared length in the mean. Twice the
    mean of the one-dimensional distances is therefore at most the squared error, which pairs the same points otherwise.
    """
    step = max(1, math.ceil(max(pair.truth.shape[2:]) / GRID))
    guessed, true = (
        torch.stack([plane[:, ::step, ::step].flatten(1) for plane in planes[1:]], dim=-1).double()
        for planes in pair.lab
    )  # (B, N, 2)
    angles = torch.arange(LINES, dtype=torch.float64, device=true.device) * math.pi / LINES
    lines = torch.stack((angles.cos(), angles.sin()))  # (2, LINES)
    apart = (guessed @ lines).sort(1).values - (true @ lines).sort(1).values
    return {
        "ab_squared_error": (guessed - true).square().sum(-1).mean(1),
        "palette_squared_distance": 2 * apart.square().mean((1, 2)),
    }
