"""Whether colors stop where they stop in truth: errors at chroma edges, and the contrast that is left across them.

No segmentation is needed: an edge is where the true ab changes most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pkgutil import resolve_name
from typing import Any

from colorbench.contract import DiagnosticSpec, Statistic, ratio
from colorbench.hooks import hookimpl

ERRORS = "edge_error", "edge_share", "interior_error", "interior_share"
CONTRASTS = "edge_near_product", "edge_near_squared", "edge_far_product", "edge_far_squared"


def _index(edge: Any, edge_share: Any, interior: Any, interior_share: Any) -> Any:
    return ratio(ratio(edge, edge_share), ratio(interior, interior_share))


def _sharpness(near: Any, near_squared: Any, far: Any, far_squared: Any) -> Any:
    return ratio(ratio(near, near_squared), ratio(far, far_squared))


def statistics(terms: Sequence[str]) -> list[Statistic]:
    """Nothing for a run that was scored without these terms."""
    if not {*ERRORS, *CONTRASTS} <= {*terms}:
        return []
    return [
        Statistic("bleeding_index", "error at edges / elsewhere ↓", ERRORS, _index),
        Statistic("edge_contrast", "contrast across edges → 1", CONTRASTS[:2]),
        Statistic("edge_sharpness", "near / far contrast → 1", CONTRASTS, _sharpness),
    ]


BLEEDING = DiagnosticSpec(
    "bleeding",
    "whether colors cross the edges between objects",
    terms=lambda pair: resolve_name("colorbench_bleeding.terms:edges")(pair),
    statistics=statistics,
    table="Color bleeding",
    notes=[
        "Edges: where the true ab differs most between 2/256 of the side to the left and to the right, or above and "
        "below: the largest 5 % of an image, of 10 Lab units or more. Error at edges / elsewhere: mean squared "
        "distance in ab within 3/256 of the side from an edge, over that of all other pixels; above 1 for most models.",
        "Contrast across edges: how much of the true difference in ab between the two sides is predicted, along that "
        "difference; 1 for all of it, 0 if both sides get one color, below 0 if they are exchanged. Paleness lowers "
        "it, too. Near / far contrast takes that out: the contrast 2/256 of the side from the edge over that 8/256 "
        "from it; below 1 where colors blur into each other. It says little where there is hardly any contrast.",
    ],
)


@hookimpl
def register_diagnostics(register: Callable[[DiagnosticSpec], None]) -> None:
    register(BLEEDING)
