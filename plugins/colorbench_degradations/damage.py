"""Pictures, uint8 RGB (B, 3, H, W) with H = W, a strength and a seed per image -> L, float32 (B, 1, H, W) in 0..100.

All but the orthochromatic film act on the true L, as on a print that has aged.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from colorbench.color import bytes_to_lab, lab_to_rgb

SIDE = 256  # the side that lengths are given for
MOST_SCRATCHES = 10_000  # they cover the picture by then, and each takes time
CANVAS = 1024  # pixels to a side on which scratches are drawn, four to a width
LUMINANCE = (0.212671, 0.715160, 0.072169)  # of linear sRGB: the Y of colorbench.color
# Of linear sRGB, our choice: orthochromatic emulsions record blue and green, and of red what leaks into both. It is
# the response curve of no particular film.
ORTHOCHROMATIC = (0.1, 0.4, 0.5)


def noise(rgb: Tensor, strength: float, seeds: Sequence[int]) -> Tensor:
    grain = [np.random.default_rng(seed).standard_normal((1, *rgb.shape[2:]), np.float32) for seed in seeds]
    added = torch.from_numpy(np.stack(grain)).to(rgb.device)
    return (_luminance(rgb) + strength * 100 / 255 * added).clamp(0, 100)


def blur(rgb: Tensor, strength: float, seeds: Sequence[int]) -> Tensor:
    side = rgb.shape[-1]
    sigma = max(
        strength * side / SIDE, 1e-3
    )  # a Gaussian narrower than that moves nothing, and is no number in the end
    radius = min(math.ceil(4 * sigma), side - 1)  # what is farther is mirrored at the border, once
    return gaussian_blur(_luminance(rgb), [2 * radius + 1] * 2, [sigma, sigma]).clamp(0, 100)


def jpeg(rgb: Tensor, strength: float, seeds: Sequence[int]) -> Tensor:
    L = _luminance(rgb)
    grey = (255 * lab_to_rgb(torch.cat((L, torch.zeros_like(rgb[:, :2])), dim=1))[:, 0]).round().byte()
    decoded = []
    for pixels in grey.cpu().numpy():
        Image.fromarray(pixels).save(file := io.BytesIO(), "JPEG", quality=max(1, round(100 - strength)))
        decoded.append(np.array(Image.open(file)))
    return _luminance(torch.from_numpy(np.stack(decoded))[:, None].to(rgb.device).expand(-1, 3, -1, -1))


def fading(rgb: Tensor, strength: float, seeds: Sequence[int]) -> Tensor:
    return 50 + max(0.0, 1 - strength) * (_luminance(rgb) - 50)


def scratches(rgb: Tensor, strength: float, seeds: Sequence[int]) -> Tensor:
    if strength > MOST_SCRATCHES:
        raise ValueError(f"{strength:g} scratches are too many; give up to {MOST_SCRATCHES}")
    drawn = [_scratched(rgb.shape[-1], round(strength), np.random.default_rng(seed)) for seed in seeds]
    covered, L = torch.from_numpy(np.stack(drawn))[:, None].to(rgb.device), _luminance(rgb)
    return L + covered * (100 - L)


def _scratched(side: int, number: int, random: np.random.Generator) -> np.ndarray:
    """float32 (side, side): the share of each pixel that scratches cover."""
    canvas = Image.new("L", (CANVAS, CANVAS))
    draw = ImageDraw.Draw(canvas)
    for _ in range(number):  # the first ones are the same for every number
        x, y, length, slope = random.uniform((0, -0.3, 0.3, -0.05), (1, 0.7, 1.0, 0.05))
        ends = (x, y, x + slope * length, y + length)
        draw.line([round(CANVAS * end) for end in ends], fill=255, width=CANVAS // SIDE)
    return np.asarray(canvas.resize((side, side), Image.Resampling.BOX), np.float32) / 255


def orthochromatic(rgb: Tensor, strength: float, seeds: Sequence[int]) -> Tensor:
    share, srgb = min(1.0, strength), rgb.float() / 255
    linear = torch.where(srgb > 0.04045, ((srgb + 0.055) / 1.055) ** 2.4, srgb / 12.92)  # IEC 61966-2-1
    pairs = zip(LUMINANCE, ORTHOCHROMATIC, linear.split(1, dim=1), strict=True)
    light = sum(((1 - share) * eye + share * film) * plane for eye, film, plane in pairs)
    L = torch.where(light > 0.008856, 116 * light.clamp_min(1e-6) ** (1 / 3) - 16, 903.3 * light)  # CIE 15
    return L.clamp(0, 100)


def _luminance(rgb: Tensor) -> Tensor:
    return bytes_to_lab(rgb)[0][:, None].clamp(0, 100)
