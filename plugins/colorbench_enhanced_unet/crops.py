"""Random crops, the only augmentation of `enhanced-unet`, which its `crop` option turns on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def random_places(count: int, least: float, device: torch.device) -> Tensor:
    """For each of so many pictures a part with `least` to 1 of its sides, as an affine map (B, 2, 3)."""
    side, x, y = torch.rand(3, count, device=device)
    side = least + (1 - least) * side
    zero = torch.zeros_like(side)
    rows = (side, zero, (2 * x - 1) * (1 - side)), (zero, side, (2 * y - 1) * (1 - side))
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def crop(pictures: Tensor, places: Tensor) -> Tensor:
    """Those parts of pictures (B, C, H, W), enlarged to the size of the whole."""
    with torch.autocast(pictures.device.type, enabled=False):  # in bf16 the places of the samples are coarse
        grid = F.affine_grid(places, [*pictures.shape], align_corners=False)
        return F.grid_sample(pictures.float(), grid, padding_mode="border", align_corners=False)
