"""RGB <-> Lab on tensors: sRGB primaries, D65 white, 2 degree observer, as scikit-image computes it.

Constants: IEC 61966-2-1 (sRGB), CIE 15 (Lab); the matrix and white point are those of
`skimage.color.rgb2lab`, with which these functions agree to 1e-3.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from colorbench.errors import UserValueError
from colorbench.protocol import COLORBENCH, Protocol

_WHITE = (0.95047, 1.0, 1.08883)
_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
# Linear sRGB -> XYZ over the white point, and back. Python numbers: a tensor would have to be copied to the device.
_FORWARD = [[entry / white for entry in row] for row, white in zip(_TO_XYZ, _WHITE, strict=True)]
_BACKWARD = torch.tensor(_FORWARD, dtype=torch.float64).inverse().tolist()
_EPSILON = 0.008856  # below it the cube root of CIE 15 is replaced by a line
_SLOPE, _OFFSET = 7.787, 16 / 116

Planes = tuple[Tensor, Tensor, Tensor]


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """sRGB (..., 3, H, W) in 0..1 -> Lab (..., 3, H, W): L in 0..100, a and b in Lab units. Differentiable.

    Raises UserError for anything but floats of this shape.
    """
    _refuse_misfit("rgb", rgb)
    return torch.stack(_linear_to_lab(_linear(rgb).unbind(-3)), dim=-3)


def bytes_to_lab(rgb: Tensor, protocol: Protocol = COLORBENCH) -> Planes:
    """uint8 sRGB (..., 3, H, W) -> L, a and b as `rgb_to_lab` has them, each float32 (..., H, W).

    Faster: a byte has 256 values, and their linear light is looked up.
    """
    table = _linear_bytes(rgb.device)
    linear = [table.index_select(0, plane.flatten().int()).view(plane.shape) for plane in rgb.unbind(-3)]
    return protocol.choose("lab", {"srgb-d65-2deg": _linear_to_lab})(linear)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Lab (..., 3, H, W) -> sRGB (..., 3, H, W), clipped to 0..1. Differentiable inside the gamut.

    Raises UserError for anything but floats of this shape.
    """
    _refuse_misfit("lab", lab)
    return _lab_to_rgb(lab).clamp(0, 1)


def luminance(rgb: Tensor, protocol: Protocol = COLORBENCH) -> Tensor:
    """The protocol's L of cropped and resized pictures: uint8 RGB (B, 3, H, W) -> float32 (B, 1, H, W) in 0..100."""
    return protocol.choose("luminance", {"resized-rgb": lambda: bytes_to_lab(rgb, protocol)[0][:, None]})()


def recombine(L: Tensor, ab: Tensor, protocol: Protocol = COLORBENCH) -> Tensor:
    """The protocol's picture: predicted ab with the true L -> uint8 RGB (B, 3, H, W)."""
    true_L = protocol.choose("recombined_luminance", {"truth": L})
    picture = _to_bytes(torch.cat((true_L, ab), dim=1), protocol)
    return protocol.choose("saved_as", {"png": lambda: picture, "jpeg-75": lambda: _through_jpeg(picture, 75)})()


def recolored(pictures: Tensor, L: Tensor, protocol: Protocol = COLORBENCH) -> Tensor:
    """The protocol's pictures from others: the ab of `pictures`, uint8 RGB (B, 3, H, W), with the true L."""
    _, a, b = bytes_to_lab(pictures, protocol)
    return recombine(L, torch.stack((a, b), dim=1), protocol)


def reference(truth: Tensor, protocol: Protocol = COLORBENCH) -> Tensor:
    """What the protocol compares with: true pictures, uint8 RGB (B, 3, H, W) -> the same, or as it changes them.

    Where a picture goes through Lab and back to be truncated, the last bits of float32 decide which of two neighboring
    levels a value gets.
    """
    through_lab = lambda: _to_bytes(torch.stack(bytes_to_lab(truth, protocol), dim=1), protocol)  # noqa: E731
    picture = protocol.choose("truth", {"as-is": lambda: truth, "through-lab": through_lab})()
    if protocol.truth_saturation == 1:
        return picture
    red, green, blue = picture.float().unbind(1)
    grey = (0.2989 * red + 0.587 * green + 0.114 * blue)[:, None]  # ITU-R BT.601, as torchvision has it
    return _rounded((grey + protocol.truth_saturation * (picture - grey)).clamp_(0, 255), protocol)


def _refuse_misfit(name: str, image: Tensor) -> None:
    if not isinstance(image, Tensor):
        raise UserValueError(f"{name} is of type {type(image).__name__}; give a tensor of floats (..., 3, H, W)")
    if image.ndim < 3 or image.shape[-3] != 3 or not image.is_floating_point():
        raise UserValueError(f"{name} is {image.dtype} {tuple(image.shape)}; give floats of shape (..., 3, H, W)")


def _to_bytes(lab: Tensor, protocol: Protocol) -> Tensor:
    rgb = protocol.choose("lab", {"srgb-d65-2deg": _lab_to_rgb})(lab.float())
    inside = protocol.choose("gamut", {"clip": lambda: rgb.clamp(0, 1)})()
    return _rounded(inside * 255, protocol)


def _rounded(levels: Tensor, protocol: Protocol) -> Tensor:
    return protocol.choose("rounding", {"nearest": torch.round, "truncate": torch.floor})(levels).to(torch.uint8)


def _through_jpeg(pictures: Tensor, quality: int) -> Tensor:
    """What is left of pictures in JPEG files of this quality, their colors at half the resolution."""
    decoded = []
    for pixels in pictures.permute(0, 2, 3, 1).cpu().numpy():
        Image.fromarray(pixels).save(file := io.BytesIO(), "JPEG", quality=quality)
        decoded.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).to(pictures.device)


def _linear(rgb: Tensor) -> Tensor:
    # Both branches of `where` are evaluated, and a NaN gradient in the unused one would spread: hence the clamps.
    return torch.where(rgb > 0.04045, ((rgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4, rgb / 12.92)


@cache
def _linear_bytes(device: torch.device) -> Tensor:
    """float32 (256,): the linear light of each byte."""
    return _linear(torch.arange(256, dtype=torch.float64) / 255).float().to(device)


def _linear_to_lab(rgb: Sequence[Tensor]) -> Planes:
    x, y, z = (_cube_root_or_line(plane) for plane in _mix(rgb, _FORWARD))
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def _cube_root_or_line(x: Tensor) -> Tensor:
    """f of CIE 15. Powers are slow, and so is `where` where dark and bright pixels alternate."""
    root = torch.log2(x.clamp_min(_EPSILON)).div_(3).exp2_()
    dark = x.detach().clone().le_(_EPSILON)  # 1 or 0; where 1, `root` is that of epsilon
    return root.addcmul(dark, x, value=_SLOPE).add_(dark, alpha=_OFFSET - _EPSILON ** (1 / 3))


def _lab_to_rgb(lab: Tensor) -> Tensor:
    """Not clipped above 1."""
    L, a, b = lab.unbind(-3)
    y = (L + 16) / 116
    f = torch.stack((a / 500 + y, y, (y - b / 200).clamp_min(0)), dim=-3)
    xyz = torch.where(f > 0.2068966, f.clamp_min(0.2068966) ** 3, (f - _OFFSET) / _SLOPE)
    linear = torch.stack(_mix(xyz.unbind(-3), _BACKWARD), dim=-3)
    return torch.where(linear > 0.0031308, 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055, 12.92 * linear)


def _mix(planes: Sequence[Tensor], matrix: list[list[float]]) -> list[Tensor]:
    # Written out, not einsum: autocast would turn a matrix product into bf16, which is too coarse for color.
    r, g, b = planes
    return [(row[0] * r).add_(g, alpha=row[1]).add_(b, alpha=row[2]) for row in matrix]
