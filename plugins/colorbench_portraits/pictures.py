"""The drawn portraits as pictures of a dataset, and their splits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from colorbench_portraits.drawing import draw
from colorbench_portraits.scene import identity

SPLITS = {"train": range(0, 6000), "val": range(6000, 6500), "test": range(6500, 7500)}


@dataclass(frozen=True)
class PortraitPicture:
    """The portrait with this index. Nothing is drawn before `load` or `arrays` is called."""

    index: int

    @property
    def name(self) -> str:
        return f"portrait-{self.index:06d}"

    @property
    def digest(self) -> str:
        return hashlib.sha256(identity(self.index)).hexdigest()

    def load(self, size: int) -> np.ndarray:
        """uint8 RGB (size, size, 3)."""
        return draw(self.index, size).image

    def arrays(self, size: int) -> dict[str, np.ndarray]:
        """A mask, bool (size, size), for each of `canvas.PARTS`; every pixel is in exactly one."""
        return draw(self.index, size).masks


def splits() -> dict[str, list[PortraitPicture]]:
    """The pictures of "train", "val" and "test"; no index is in two of them."""
    return {split: [PortraitPicture(index) for index in indices] for split, indices in SPLITS.items()}
