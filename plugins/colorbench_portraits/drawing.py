"""Draws a portrait: the scene of an index, painted layer over layer: the backdrop, the people, the grain."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from colorbench_portraits.backdrops import paint_backdrop
from colorbench_portraits.canvas import Canvas, noise
from colorbench_portraits.people import Painter
from colorbench_portraits.scene import scene


@dataclass(frozen=True)
class Portrait:
    """`image` uint8 RGB (size, size, 3); `masks` bool (size, size) by part, a partition of the picture."""

    image: np.ndarray
    masks: dict[str, np.ndarray]


@lru_cache(maxsize=1)  # image and masks of one portrait are asked for one after the other
def draw(index: int, size: int) -> Portrait:
    """The portrait with this index, 16 to 512 pixels a side. Raises ValueError for another size."""
    if not 16 <= size <= 512:
        raise ValueError(f"a portrait is drawn at 16 to 512 pixels a side, not at {size}")
    shown, canvas = scene(index), Canvas(size)
    paint_backdrop(canvas, shown)
    for person in sorted(shown.people, key=lambda person: person.y):  # whoever stands lower stands nearer
        Painter(canvas, shown, person).paint()
    canvas.lab[0] += 3 * (noise(shown.lattice, canvas.whole.u * 57, canvas.whole.v * 57) - 0.5)
    np.clip(canvas.lab[0], 1.5, 98.5, out=canvas.lab[0])
    return Portrait(canvas.image(), canvas.masks())
