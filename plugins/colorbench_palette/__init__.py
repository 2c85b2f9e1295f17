"""The error in ab in two parts: the colors that are wrong, and right colors in wrong places.

The palette is the cloud of an image's ab, wherever its pixels are. The distance of two palettes is the sliced
Wasserstein distance of order 2 (Bonneel, Rabin, Peyre, Pfister: "Sliced and Radon Wasserstein barycenters of measures",
2015), scaled so that it never exceeds the error pixel by pixel; what that has beyond it is the error of placement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pkgutil import resolve_name
from typing import Any

from colorbench.contract import DiagnosticSpec, Statistic, ratio
from colorbench.hooks import hookimpl

SQUARED = "ab_squared_error", "palette_squared_distance"


def _root(squared: Any) -> Any:
    import numpy as np

    return np.sqrt(np.maximum(squared, 0))


def statistics(terms: Sequence[str]) -> list[Statistic]:
    """Nothing for a run that was scored without these terms."""
    if not {*SQUARED} <= {*terms}:
        return []
    return [
        Statistic("ab_error", "error in ab ↓", SQUARED[:1], _root),
        Statistic("palette_distance", "palette distance ↓", SQUARED[1:], _root),
        Statistic("placement_error", "placement error ↓", SQUARED, lambda error, palette: _root(error - palette)),
        Statistic(
            "palette_percent", "palette, % of squared error", SQUARED,
            lambda error, palette: 100 * ratio(palette, error), ",.0f",
        ),
    ]  # fmt: skip


PALETTE = DiagnosticSpec(
    "palette",
    "wrong colors, or right colors in wrong places",
    terms=lambda pair: resolve_name("colorbench_palette.terms:palette")(pair),
    statistics=statistics,
    table="Palette and placement",
    notes=[
        "Error in ab: root of the mean squared distance of predicted from true ab, in Lab units, on a grid of at most "
        "64 x 64 pixels of an image. Palette distance: the same after the pixels of each image were matched by color, "
        "whatever their place, on 8 lines through the ab plane (sliced Wasserstein distance of order 2). Placement "
        "error: what is left, error^2 = palette^2 + placement^2."
    ],
)


@hookimpl
def register_diagnostics(register: Callable[[DiagnosticSpec], None]) -> None:
    register(PALETTE)
