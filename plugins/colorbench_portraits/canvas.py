"""A canvas in Lab that remembers which part of the picture each pixel shows, and the shapes drawn on it.

Over pixels only + - * / sqrt and table look-ups are used, which IEEE 754 rounds in one way: a portrait shows
nothing of the machine's vector math library.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

PARTS = ("skin", "lips", "eyes", "hair", "clothes", "background")

# Linear sRGB from XYZ relative to the D65 white: the inverse of the matrix in `colorbench.color`.
_XYZ_TO_RGB = np.linalg.inv(
    np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
    / np.array([[0.95047], [1.0], [1.08883]])
).astype(np.float32)
# uint8 sRGB by the square root of the linear value, which spends the entries where the eye sees steps.
_LINEAR = np.linspace(0, 1, 4096) ** 2
_SRGB = np.where(_LINEAR > 0.0031308, 1.055 * _LINEAR ** (1 / 2.4) - 0.055, 12.92 * _LINEAR)
_ENCODED = np.round(255 * _SRGB).astype(np.uint8)


@dataclass(frozen=True)
class Patch:
    """A rectangle of pixels, with the local coordinates `u` (right) and `v` (down) of their centers."""

    where: tuple[slice, slice]
    u: np.ndarray
    v: np.ndarray
    pixel: float  # the side of a pixel in local units

    def inside(self, distance: np.ndarray | float) -> np.ndarray:
        """Coverage 0..1 of a shape given by its signed distance (negative inside): soft over one pixel."""
        return np.clip(0.5 - distance / self.pixel, 0, 1)


@dataclass(frozen=True)
class Frame:
    """Local coordinates: origin at (x, y) in a picture of side 1, units of `scale`, turned by `tilt` rad."""

    x: float
    y: float
    scale: float
    tilt: float = 0.0

    def moved(self, u: float, v: float) -> Frame:
        """The frame whose origin is the local point (u, v)."""
        cos, sin = math.cos(self.tilt), math.sin(self.tilt)
        x, y = self.x + self.scale * (cos * u - sin * v), self.y + self.scale * (sin * u + cos * v)
        return replace(self, x=x, y=y)

    def turned(self, tilt: float) -> Frame:
        """The frame turned clockwise about its origin."""
        return replace(self, tilt=self.tilt + tilt)

    def patch(self, size: int, half: float, top: float, bottom: float) -> Patch:
        """The pixels that may see the local rectangle -half <= u <= half, top <= v <= bottom."""
        cos, sin = math.cos(self.tilt), math.sin(self.tilt)
        center, height = self.moved(0, (top + bottom) / 2), (bottom - top) / 2
        cols = _reach(center.x, self.scale * (abs(cos) * half + abs(sin) * height), size)
        rows = _reach(center.y, self.scale * (abs(sin) * half + abs(cos) * height), size)
        dx = (np.arange(cols.start, cols.stop, dtype=np.float32)[None, :] + 0.5 - self.x * size) / (size * self.scale)
        dy = (np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + 0.5 - self.y * size) / (size * self.scale)
        return Patch((rows, cols), cos * dx + sin * dy, cos * dy - sin * dx, 1 / (size * self.scale))


def _reach(center: float, radius: float, size: int) -> slice:
    low, high = math.floor((center - radius) * size) - 1, math.ceil((center + radius) * size) + 1
    return slice(min(max(low, 0), size), min(max(high, 0), size))


class Canvas:
    """`lab` (3, size, size) float32, and `shares` (parts, size, size): how much each part owns of a pixel."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.whole = Frame(0.5, 0, 1).patch(size, 0.5, 0, 1)
        self.lab = np.zeros((3, size, size), np.float32)
        self.shares = np.zeros((len(PARTS), size, size), np.float32)

    def paint(self, patch: Patch, alpha: np.ndarray, part: str, L: np.ndarray, ab: np.ndarray) -> None:
        """Lay L (h, w) and ab (2, h, w) over the patch with the coverage `alpha` (h, w)."""
        lab, shares = self.lab[:, *patch.where], self.shares[:, *patch.where]
        lab[0] += alpha * (L - lab[0])
        lab[1:] += alpha * (ab - lab[1:])
        shares *= 1 - alpha
        shares[PARTS.index(part)] += alpha

    def image(self) -> np.ndarray:
        """uint8 RGB (size, size, 3). A color outside sRGB loses chroma, never luminance."""
        L, a, b = self.lab
        y = (L + 16) / 116
        f = np.stack((a / 500 + y, y, y - b / 200))
        xyz = np.where(f > 0.2068966, f * f * f, (f - 16 / 116) / 7.787)
        grey = xyz[1]
        # Not a matrix product: BLAS sums in an order of its own on every machine.
        rgb = np.stack([r * xyz[0] + g * grey + b * xyz[2] for r, g, b in _XYZ_TO_RGB])
        over, under = rgb.max(axis=0) - grey, grey - rgb.min(axis=0)
        keep = np.minimum((1 - grey) / np.maximum(over, 1 - grey), grey / np.maximum(under, grey))
        rgb = np.clip(grey + keep * (rgb - grey), 0, 1)
        return np.ascontiguousarray(_ENCODED[(np.sqrt(rgb) * 4095 + 0.5).astype(np.intp)].transpose(1, 2, 0))

    def masks(self) -> dict[str, np.ndarray]:
        owner = self.shares.argmax(axis=0)
        return {part: owner == number for number, part in enumerate(PARTS)}


def ellipse(u: np.ndarray, v: np.ndarray, ru: float, rv: float) -> np.ndarray:
    """Signed distance to the ellipse u +- ru, v +- rv around 0, to first order."""
    k = np.sqrt((u / ru) ** 2 + (v / rv) ** 2)
    slope = np.sqrt((u / ru**2) ** 2 + (v / rv**2) ** 2)
    return k * (k - 1) / np.maximum(slope, 1e-4)


def bump(u: np.ndarray, v: np.ndarray, ru: float, rv: float) -> np.ndarray:
    """A smooth hill: 1 at the center, 0 from the ellipse u +- ru, v +- rv outwards."""
    hill = np.maximum(1 - (u / ru) ** 2 - (v / rv) ** 2, 0)
    return hill * hill


def wave(x: np.ndarray) -> np.ndarray:
    """A triangle wave of period 1 between -1 and 1, of slope 4."""
    return 4 * np.abs(x - np.floor(x) - 0.5) - 1


def noise(lattice: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Smooth noise in 0..1, of period 64, at x, y (broadcast): `lattice` (65, 65), interpolated."""
    column, row = np.floor(x), np.floor(y)
    s, t = x - column, y - row
    s, t = s * s * (3 - 2 * s), t * t * (3 - 2 * t)
    at = (row.astype(np.intp) & 63) * 65 + (column.astype(np.intp) & 63)
    points = lattice.ravel()
    # Four shifted views instead of four index arrays: this function is half of the drawing time.
    top_left, top_right, low_left, low_right = (points[shift:].take(at) for shift in (0, 1, 65, 66))
    top = top_left + s * (top_right - top_left)
    return top + t * (low_left + s * (low_right - low_left) - top)
