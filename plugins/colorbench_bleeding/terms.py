"""Terms per image, float64 (B,) each, from the ab of the predicted and the true picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from colorbench.metrics.pair import Pair, mean

SIDE = 256  # the side that distances are given for
NEAR, FAR, ZONE = 2, 8, 3  # from the edge to where its sides are compared, and how far it reaches
STRONGEST = 0.05  # share of the pixels that can be edges
LEAST = 10.0  # Lab units of difference


def edges(pair: Pair) -> dict[str, Tensor]:
    """edge_share, edge_error and the same of the interior: share of the pixels, and their squared distance in ab.

    edge_near_squared, edge_near_product: over the edges, the squared length of the true difference in ab between their
    sides, and its dot product with the predicted one; edge_far_... the same farther from the edge. All divided by the
    number of pixels, and 0 without edges.
    """
    guessed, true = (torch.stack(planes[1:], dim=1) for planes in pair.lab)  # (B, 2, H, W)
    near, far, zone = (max(least, round(each * true.shape[-1] / SIDE)) for each, least in zip(
        (NEAR, FAR, ZONE), (1, 2, 1), strict=True
    ))  # fmt: skip
    squared = (guessed - true).square().sum(1)
    found, terms = torch.zeros_like(squared), dict[str, Tensor]()
    for axis in (-1, -2):
        edge = _strongest(_difference(true, near, axis).square().sum(1))
        found = torch.maximum(found, edge)
        for name, reach in (("near", near), ("far", far)):
            across, predicted = (_difference(planes, reach, axis) for planes in (true, guessed))
            for term, values in (("squared", across * across), ("product", across * predicted)):
                key = f"edge_{name}_{term}"
                terms[key] = terms.get(key, 0) + mean(values.sum(1) * edge)
    close = F.max_pool2d(found[:, None], 2 * zone + 1, stride=1, padding=zone)[:, 0]
    for name, mask in (("edge", close), ("interior", 1 - close)):
        terms |= {f"{name}_share": mean(mask), f"{name}_error": mean(squared * mask)}
    return terms


def _difference(planes: Tensor, reach: int, axis: int) -> Tensor:
    """What lies `reach` pixels behind minus what lies as far before, (B, 2, H, W); 0 where either is outside."""
    side = planes.shape[axis]
    inside = planes.narrow(axis, 2 * reach, side - 2 * reach) - planes.narrow(axis, 0, side - 2 * reach)
    return F.pad(inside, (reach, reach, 0, 0) if axis == -1 else (0, 0, reach, reach))


def _strongest(squared: Tensor) -> Tensor:
    """1 at the edges, 0 elsewhere: where the squared difference is among the largest of its image, and large enough."""
    values = squared.flatten(1)
    least = values.kthvalue(max(1, round((1 - STRONGEST) * values.shape[1])), dim=1).values[:, None, None]
    return ((squared >= least) & (squared >= LEAST**2)).float()
