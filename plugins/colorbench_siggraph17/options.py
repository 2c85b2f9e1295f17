"""How `siggraph17/hints` draws its hints in training.

The defaults are those of github.com/richzhang/colorization-pytorch: `add_color_patches_rand_gt` in util/util.py, with
`--sample_p .125` as in scripts/train_siggraph.sh and `--sample_Ps` from 1 to 9. `whole` follows
our memory of the paper, R. Zhang et al. 2017, not checked against its text; the release has no such images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """Raises ValueError for a number out of its range."""

    hints: bool = False  # whether it learns from hints at all
    stop: float = 1 / 8  # probability that a point is not followed by another: the mean is 7 points
    largest: int = 9  # pixels to the side of a point, which is uniform from 1
    whole: float = 0.01  # share of the images whose whole ab is shown

    def __post_init__(self) -> None:
        for name, (least, most) in RANGES.items():
            if not least <= (given := getattr(self, name)) <= most:
                raise ValueError(f"siggraph17 needs {name} in {least:g}..{most:g}, not {given}")


RANGES = {
    "stop": (0.001, 0.999),  # 1 would be no hints at all, and 0 endless ones
    "largest": (1, math.inf),
    "whole": (0, 1),
}
