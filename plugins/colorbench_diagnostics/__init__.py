"""Where the error lies: chroma, cool hues, lips against skin, attention, parts of the picture; and pictures of it.

The claims that papers on colorization make by showing faces, as numbers and as sheets of pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pkgutil import resolve_name
from typing import Any

from colorbench.contract import DiagnosticSpec, Statistic, ratio
from colorbench.hooks import hookimpl

SHARE, SQUARED_ERROR = "share_", "squared_error_"  # how the names of a part's two terms begin


def slope(product: Any, true: Any, predicted: Any, true_squared: Any) -> Any:
    """Of the predicted over the true chroma, by least squares over all pixels, from their moments."""
    return ratio(product - true * predicted, true_squared - true**2)


def mse_by_part(terms: Sequence[str]) -> list[Statistic]:
    """A column for each part of which there are both terms."""
    parts = [term.removeprefix(SHARE) for term in terms if term.startswith(SHARE)]
    return [
        Statistic(f"mse_{part}", f"{part} ↓", (f"{SQUARED_ERROR}{part}", f"{SHARE}{part}"), form=",.1f", gain=part)
        for part in parts
        if f"{SQUARED_ERROR}{part}" in terms
    ]


def _late(name: str) -> Callable[..., Any]:
    """A function of a module that is imported when it is called: listing what is installed imports no torch."""
    return lambda *arguments: resolve_name(f"colorbench_diagnostics.{name}")(*arguments)


CHROMA = "chroma_product", "chroma_true", "chroma_predicted", "chroma_true_squared"
# In the order of their columns in details.csv.
TABLES = (
    DiagnosticSpec(
        "chroma",
        "how much paler than the truth the colors are",
        terms=_late("terms:chroma"),
        statistics=[Statistic("chroma_slope", "chroma slope → 1", CHROMA, slope)],
        table="Colors",
        notes=[
            "Chroma slope: how much the predicted chroma rises when the true one rises by 1, by least squares; "
            "1 for the truth, 0 for one chroma everywhere, below 1 for desaturation."
        ],
    ),
    DiagnosticSpec(
        "cool-hues",
        "whether greens, blues and violets are predicted where they are",
        terms=_late("terms:cool_hues"),
        statistics=[
            Statistic(
                "cool_recall",
                "cool hues recalled, % ↑",
                ("cool_recalled_share", "cool_share"),
                lambda recalled, cool: 100 * ratio(recalled, cool),
                ",.1f",
            )
        ],
        table="Colors",
        notes=[
            "Cool hues recalled: of the pixels whose true hue is from green to violet (180 to 300 degrees in Lab, "
            "chroma above 10), those predicted within 30 degrees of it. A grey one, of a chroma below 1, recalls "
            "none. Warm pixels that are made cool do not count."
        ],
    ),
    DiagnosticSpec(
        "lip-contrast",
        "whether lips differ from skin as they do in truth, where the data have masks of both",
        terms=_late("terms:lips"),
        statistics=[
            Statistic("lip_contrast", "lip contrast → 1", ("lip_contrast_product", "lip_contrast_true")),
        ],
        table="Colors",
        summed="lip contrast over the images",
        notes=[
            "Lip contrast: how much of the true difference in ab between lips and skin is predicted, along that "
            "difference; 1 for all of it, 0 if the lips get the color of the skin."
        ],
    ),
    DiagnosticSpec(
        "attention-to-chroma",
        "whether a model's attention lies where the true colors are strong",
        terms=_late("terms:attention"),
        statistics=[
            Statistic(
                "attention_correlation", "attention's correlation with chroma", ("attention_correlation",)
            )
        ],
        table="Colors",
        summed="the correlation is a mean",
        notes=[
            "Attention's correlation with chroma: Pearson's, over the cells of a model's attention map and the "
            "true chroma averaged to its size; the mean over the images in which neither is constant."
        ],
    ),
    DiagnosticSpec(
        "parts",
        "the MSE in each part of the pictures, where the data have masks",
        terms=_late("terms:parts"),
        statistics=mse_by_part,
        table="MSE by part",
        gains="MSE gain over the {}, by part",
        notes=[
            "MSE by part: the mean squared RGB error (0..255) over the pixels of the part in all images together."
        ],
    ),
)  # fmt: skip
# In the order in which comparison.md shows them.
CAPTIONS = {
    "refined": "The output of a base and of what refines it, and the truth, each with its eyes and lips enlarged: "
    "found by the masks where the data has them, else at places fixed for aligned faces",
    "attention": "Output, truth and attention: the brighter, the more attention",
    "scenes": "The test images, of those kept, with the most background, and with several faces",
    "worst": "Of all test images, those with the largest MSE, the worst first",
}
SHEETS = [
    DiagnosticSpec(
        name, caption[0].lower() + caption[1:], draw=_late(f"sheets:{name}"), caption=caption, page="comparison"
    )
    for name, caption in CAPTIONS.items()
]


@hookimpl
def register_diagnostics(register: Callable[[DiagnosticSpec], None]) -> None:
    for spec in (*TABLES, *SHEETS):
        register(spec)
