"""What age does to photographs, one damage at a time, each with a strength: how well is a damaged input colored?

Lengths are in 1/256 of the side, so that a strength means the same for pictures of every size.
"""

from __future__ import annotations

from collections.abc import Callable
from pkgutil import resolve_name
from typing import Any

from colorbench.contract import DegradationSpec
from colorbench.hooks import hookimpl


def _late(name: str) -> Callable[..., Any]:
    """A function of the module that imports torch, imported when it is called: listing what is installed needs none."""
    return lambda *arguments: resolve_name(f"colorbench_degradations.damage:{name}")(*arguments)


DEGRADATIONS = (
    DegradationSpec(
        "noise",
        "Gaussian noise, as of grain; strength: standard deviation, of 255 levels",
        _late("noise"),
        strengths=(5, 15, 25, 50),
    ),
    DegradationSpec(
        "blur",
        "Gaussian blur; strength: standard deviation, in 1/256 of the side",
        _late("blur"),
        strengths=(2, 4, 8, 16),
    ),
    DegradationSpec(
        "jpeg",
        "a grey JPEG file, as scans are kept; strength: 100 minus its quality",
        _late("jpeg"),
        strengths=(25, 70, 90),
    ),
    DegradationSpec(
        "fading",
        "less contrast around middle grey; strength: share that is lost",
        _late("fading"),
        strengths=(0.2, 0.4, 0.6, 0.8),
    ),
    DegradationSpec(
        "scratches",
        "white, nearly upright lines, 1/256 of the side wide; strength: their number",
        _late("scratches"),
        strengths=(2, 8, 32),
    ),
    DegradationSpec(
        "orthochromatic",
        "film that hardly sees red, 0.1 R + 0.4 G + 0.5 B of linear light; strength: its share, the rest sees as we do",
        _late("orthochromatic"),
        strengths=(0.5, 1),
    ),
)


@hookimpl
def register_degradations(register: Callable[[DegradationSpec], None]) -> None:
    for spec in DEGRADATIONS:
        register(spec)
