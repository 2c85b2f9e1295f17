"""Pictures on which laws are checked: smooth, colorful and small, so that there is something to learn at once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from colorbench.color import lab_to_rgb, recombine, rgb_to_lab
from colorbench.data.cache import Images
from colorbench.harness.predict import to_pixels


def smooth_lab(count: int, size: int, seed: int = 1) -> Tensor:
    """Lab (count, 3, size, size), its ab within the gamut and mostly a function of L."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=draw)
    L, a, b = interpolate(coarse, (size, size), mode="bilinear").split(1, dim=1)
    lab = torch.cat((100 * L, 60 * L - 20 + 10 * a, 20 - 40 * L + 10 * b), dim=1)
    return rgb_to_lab(lab_to_rgb(lab))


def smooth_images(count: int, size: int, seed: int = 1) -> Images:
    """So many of them as a split, decoded."""
    L, ab = smooth_lab(count, size, seed).split((1, 2), dim=1)
    names = [f"smooth-{seed}-{index}" for index in range(count)]
    return Images(to_pixels(recombine(L, ab)).copy(), names, names, np.zeros(count, bool), {})


def guesses(count: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Predicted and true pictures, uint8 (count, 3, size, size): predictions from grey to too strong, none exact."""
    L, ab = smooth_lab(count, size, seed).split((1, 2), dim=1)
    draw = torch.Generator().manual_seed(seed)
    noise = 4 * torch.randn(count, 3, size, size, generator=draw)
    truth = (recombine(L, ab) + noise).round().clamp(0, 255).byte()
    L, ab = rgb_to_lab(truth / 255).split((1, 2), dim=1)
    strength = torch.linspace(0, 1.4, count)[:, None, None, None]
    return recombine(L, strength * ab + 4), truth
