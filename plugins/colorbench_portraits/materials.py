"""What color a thing has: ab follows from the material and from L. Clothes alone are dyed at will."""

from __future__ import annotations

import numpy as np

from colorbench_portraits.scene import Cloth

Tint = tuple[float, float]


def _curve(knots: str) -> np.ndarray:
    """Knots "L a b, L a b, ..." -> a table (2, 401): ab at every quarter of an L."""
    L, a, b = np.array([knot.split() for knot in knots.split(",")], float).T
    grid = np.arange(401) / 4
    return np.stack((np.interp(grid, L, a), np.interp(grid, L, b))).astype(np.float32)


# Dark skin is a reddish brown, middling skin the most colorful, light skin pinkish.
SKIN = _curve("0 1 1, 12 8 7, 25 14 14, 40 18 21, 55 19 25, 70 15 22, 84 9 15, 98 1 4")
LIPS = _curve("0 2 1, 15 16 6, 30 26 11, 45 34 15, 60 34 14, 75 22 10, 95 2 5")
# Black, brown, auburn, red, blond, and then at once grey and white.
HAIR = _curve("0 0 0, 8 2 2, 18 7 8, 28 13 17, 40 22 30, 50 18 36, 60 9 35, 66 3 20, 71 2 9, 85 1 5, 100 0 0")
# Brown, hazel, green, blue.
IRIS = _curve("0 2 2, 10 10 10, 25 16 24, 38 -4 26, 48 -12 10, 58 -8 -22, 75 -6 -20")
# Of the eye, and teeth; its dark end is the pupil.
WHITE = _curve("0 2 2, 60 4 4, 90 0 3, 100 0 0")
SKY = _curve("0 0 0, 40 6 -44, 58 -2 -40, 72 -7 -27, 84 -6 -15, 94 -1 -3, 100 0 0")
SEA = _curve("0 0 0, 15 -4 -16, 32 -12 -24, 48 -20 -22, 62 -20 -14, 85 -5 -3, 100 0 0")
PLANTS = _curve("0 0 0, 10 -8 9, 28 -22 25, 45 -30 37, 60 -28 44, 75 -18 46, 95 -5 25")
WALL = _curve("0 0 0, 25 7 10, 50 6 17, 70 4 17, 86 1 11, 100 0 0")
BRICK = _curve("0 0 0, 20 18 15, 36 30 26, 50 28 28, 62 8 14, 75 3 10, 100 0 0")


def color(material: np.ndarray, L: np.ndarray, tint: Tint = (0.0, 0.0)) -> np.ndarray:
    """ab (2, h, w) of a material at L (h, w), moved by `tint`: no two people are quite alike."""
    ab = material[:, np.clip(L * 4 + 0.5, 0, 400).astype(np.intp)]
    return ab + np.array(tint, np.float32)[:, None, None]


def dyed(cloth: Cloth, light: np.ndarray) -> np.ndarray:
    """Lab (3, h, w) of a cloth under `light` (h, w), 1 being its own tone."""
    a, b = (cloth.chroma * part for part in cloth.hue)
    return np.stack((np.minimum(cloth.tone * light, 96), np.full_like(light, a), np.full_like(light, b)))
