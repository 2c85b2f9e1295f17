"""Color hints: true ab at some points of an image, given to models that take them. The same for every model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from colorbench.protocol import Protocol
from colorbench.seeds import seed_for

Patch = tuple[int, int, int, int]  # which image of the batch; top, left and side in pixels

# How the corners of points are drawn from a generator: in 0..side, of this shape.
PLACES: Mapping[str, Callable[[np.random.Generator, int, tuple[int, int]], np.ndarray]] = {
    # A standard deviation of a quarter of the side: as R. Zhang et al. train and test.
    "normal": lambda random, side, shape: random.normal(side / 2, side / 4, shape),
    "uniform": lambda random, side, shape: random.uniform(0, side, shape),
}


def reveal(ab: Tensor, patches: Iterable[Patch]) -> Tensor:
    """The hints for a model: ab (B, 2, H, W) in Lab units -> float32 (B, 3, H, W), ab and a mask of 0 and 1.

    In a patch, ab is the mean of the true ab, as in R. Zhang et al. 2017 (github.com/richzhang/
    colorization-pytorch, util/util.py); if patches overlap, the later one is used. Elsewhere ab and mask are 0.
    """
    hints = ab.new_zeros(len(ab), 3, *ab.shape[2:], dtype=torch.float32)
    for image, top, left, side in patches:
        place = (image, slice(None), slice(top, top + side), slice(left, left + side))
        hints[place] = torch.cat((ab[place].mean((1, 2)), ab.new_ones(1)))[:, None, None]
    return hints


def draw(ab: Tensor, digests: Sequence[str], protocol: Protocol) -> Tensor:
    """The protocol's hints for images with these true ab and digests, which alone determine them: see `reveal`.

    The first points of an image are the same for any number of points. Raises UserError for unknown `hint_places`.
    """
    return reveal(ab, [patch for image, digest in enumerate(digests) for patch in _patches(image, digest, protocol)])


def _patches(image: int, digest: str, protocol: Protocol) -> list[Patch]:
    random, room = np.random.default_rng(seed_for("hints", digest)), protocol.size - protocol.hint_size
    corners = protocol.choose("hint_places", PLACES)(random, room + 1, (protocol.hints, 2))
    return [(image, top, left, protocol.hint_size) for top, left in corners.clip(0, room).astype(int).tolist()]
