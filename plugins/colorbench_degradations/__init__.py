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
        "Gaussian noise, the same in all channels, as of grain",
        _late("noise"),
        strengths=(5, 15, 25, 50),
        unit="standard deviation, of 255 levels",
    ),
    DegradationSpec(
        "blur",
        "a Gaussian blur, as of a lens or of a moved camera",
        _late("blur"),
        strengths=(2, 4, 8, 16),
        unit="standard deviation, in 1/256 of the side",
    ),
    DegradationSpec(
        "jpeg",
        "a grey JPEG file, as scans are kept",
        _late("jpeg"),
        strengths=(25, 70, 90),
        unit="100 minus the quality",
    ),
    DegradationSpec(
        "fading",
        "less contrast around middle grey",
        _late("fading"),
        strengths=(0.2, 0.4, 0.6, 0.8),
        unit="share of the contrast that is lost",
    ),
    DegradationSpec(
        "scratches",
        "white, nearly upright lines, 1/256 of the side wide",
        _late("scratches"),
        strengths=(2, 8, 32),
        unit="their number",
    ),
    DegradationSpec(
        "orthochromatic",
        "film that hardly sees red: linear light as 0.1 R + 0.4 G + 0.5 B",
        _late("orthochromatic"),
        strengths=(0.5, 1),
        unit="share of such film in the exposure, the rest of it true luminance",
    ),
)


@hookimpl
def register_degradations(register: Callable[[DegradationSpec], None]) -> None:
    for spec in DEGRADATIONS:
        register(spec)
