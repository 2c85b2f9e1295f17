"""RGB <-> Lab on tensors: sRGB primaries, D65 white, 2 degree observer, as scikit-image computes it.

Constants: IEC 61966-2-1 (sRGB), CIE 15 (Lab); the matrix and white point are those of
`skimage.color.rgb2lab`, with which these functions agree to 1e-3.
"""

from __future__ import annotations

import torch
from torch import Tensor

_WHITE = (0.95047, 1.0, 1.08883)
_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
# Linear sRGB -> XYZ over the white point, and back. Python numbers: a tensor would have to be copied to the device.
_FORWARD = [[entry / white for entry in row] for row, white in zip(_TO_XYZ, _WHITE, strict=True)]
_BACKWARD = torch.tensor(_FORWARD, dtype=torch.float64).inverse().tolist()
_EPSILON = 0.008856  # below it the cube root of CIE 15 is replaced by a line


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """sRGB (..., 3, H, W) in 0..1 -> Lab (..., 3, H, W): L in 0..100, a and b in Lab units. Differentiable."""
    # Both branches of `where` are evaluated, and a NaN gradient in the unused one would spread: hence the clamps.
    linear = torch.where(rgb > 0.04045, ((rgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = _mix(linear, _FORWARD)
    f = torch.where(xyz > _EPSILON, xyz.clamp_min(_EPSILON) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = f.unbind(-3)
    return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), dim=-3)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Lab (..., 3, H, W) -> sRGB (..., 3, H, W), clipped to 0..1. Differentiable inside the gamut."""
    L, a, b = lab.unbind(-3)
    y = (L + 16) / 116
    f = torch.stack((a / 500 + y, y, (y - b / 200).clamp_min(0)), dim=-3)
    xyz = torch.where(f > 0.2068966, f.clamp_min(0.2068966) ** 3, (f - 16 / 116) / 7.787)
    linear = _mix(xyz, _BACKWARD)
    rgb = torch.where(linear > 0.0031308, 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055, 12.92 * linear)
    return rgb.clamp(0, 1)


def to_uint8(rgb: Tensor) -> Tensor:
    """sRGB in 0..1 -> uint8, rounded: truncation alone would cap a perfect result at 52 dB."""
    return (rgb * 255).round().to(torch.uint8)


def recombine(L: Tensor, ab: Tensor) -> Tensor:
    """The protocol's picture: predicted ab with the true L -> uint8 RGB (B, 3, H, W)."""
    return to_uint8(lab_to_rgb(torch.cat((L, ab), dim=1).float()))


def _mix(image: Tensor, matrix: list[list[float]]) -> Tensor:
    # Written out, not einsum: autocast would turn a matrix product into bf16, which is too coarse for color.
    r, g, b = image.unbind(-3)
    return torch.stack([row[0] * r + row[1] * g + row[2] * b for row in matrix], dim=-3)
