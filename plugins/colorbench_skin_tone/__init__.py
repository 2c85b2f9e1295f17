"""Whether faces of every skin tone are colored equally well: errors of skin by the tone that the true picture shows.

The tone is the individual typology angle, ITA = arctan((L* - 50) / b*) in degrees, of the mean L* and b* of the true
skin pixels, in the bins of Chardon, Cretois and Hourseau ("Skin colour typology and suntanning pathways", 1991) with
the sixth, dark, of Del Bino, Sok, Bessac and Bernerd ("Relationship between skin response to ultraviolet exposure and
skin color type", 2006). It is measured on the picture: it says nothing of anybody's origin, and light and exposure
move it. L* is given to every model, so all errors are of a* and b*.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from colorbench.contract import DiagnosticSpec, Statistic, ratio
from colorbench.hooks import hookimpl

if TYPE_CHECKING:
    from colorbench.report.diagnostics import View

# From this ITA in degrees on, up to the next.
TONES = {"very-light": 55, "light": 41, "intermediate": 28, "tan": 10, "brown": -30, "dark": -math.inf}
IMAGES = "skin_images_"  # how the term begins that has 1 for an image of the tone, 0 for others
# What is summed over those images, with the table that it is shown in.
ERRORS = {
    "ab": "Skin tone: distance in ab",
    "a": "Skin tone: signed error of a*",
    "b": "Skin tone: signed error of b*",
    "chroma": "Skin tone: signed error of chroma",
}


def term(error: str, tone: str) -> str:
    return f"skin_{error}_{tone}"


def by_tone(error: str) -> Callable[[Sequence[str]], list[Statistic]]:
    """A column for each tone; of what is no signed error, also the worst tone and the distance from the best."""

    def statistics(terms: Sequence[str]) -> list[Statistic]:
        if IMAGES + "dark" not in terms:
            return []
        pairs = {tone: (term(error, tone), IMAGES + tone) for tone in TONES}
        signed = error != "ab"
        columns = [
            Statistic(f"skin_{error}_error_{tone}", tone, pair, form="+,.2f" if signed else ",.2f")
            for tone, pair in pairs.items()
        ]
        if not signed:
            every = [name for pair in pairs.values() for name in pair]
            columns += [
                Statistic("skin_worst_tone", "worst tone ↓", every, _worst),
                Statistic("skin_gap", "gap, worst - best ↓", every, lambda *means: _worst(*means) - _best(*means)),
            ]
        return columns

    return statistics


def _worst(*means: Any) -> Any:
    import numpy as np

    return np.fmax.reduce([ratio(*pair) for pair in zip(means[::2], means[1::2], strict=True)])


def _best(*means: Any) -> Any:
    import numpy as np

    return np.fmin.reduce([ratio(*pair) for pair in zip(means[::2], means[1::2], strict=True)])


def notes(view: View) -> list[str]:
    """How skin is found, how many images each tone has, and of each model the worst tone."""
    rule = (
        "Skin tone: ITA of the true skin; very light above 55 degrees, light above 41, intermediate above 28, tan "
        "above 10, brown above -30, else dark. Errors are means over the skin of an image, then over images. Skin is "
        "the dataset's mask of that name; without one, the pixels inside a central ellipse whose Cb and Cr are those "
        "of skin (Chai and Ngan 1999), of images in which they fill a fifth of it. That rule also takes wood, sand and "
        "hair for skin and misses skin in colored light: without masks the tables mean something for portraits alone."
    )
    details = view.results.details
    first = details[(details["model"] == details["model"].iloc[0]) & (details["seed"] == details["seed"].iloc[0])]
    counts = ", ".join(f"{tone} {first[IMAGES + tone].sum():.0f}" for tone in TONES)
    errors = view.details.set_index("model")[[f"skin_ab_error_{tone}" for tone in TONES]].dropna(how="all")
    worst = [f"{model} {str(column).removeprefix('skin_ab_error_')}" for model, column in errors.idxmax(axis=1).items()]
    few = "Errors are means over the images of a tone; of a few images they say little."
    return [rule, f"Images by skin tone: {counts}. {few}", f"Worst tone: {', '.join(worst)}."]


def _late(name: str) -> Callable[..., Any]:
    return lambda *arguments: resolve_name(f"colorbench_skin_tone.{name}")(*arguments)


DIAGNOSTICS = (
    DiagnosticSpec(
        "skin-tone",
        "how well skin is colored, by its tone in the true picture",
        terms=_late("terms:skin"),
        statistics=by_tone("ab"),
        table=ERRORS["ab"],
        notes=notes,
    ),
    *(
        DiagnosticSpec(f"skin-tone-{error}", table.lower(), statistics=by_tone(error), table=table)
        for error, table in ERRORS.items()
        if error != "ab"
    ),
)


@hookimpl
def register_diagnostics(register: Callable[[DiagnosticSpec], None]) -> None:
    for spec in DIAGNOSTICS:
        register(spec)
