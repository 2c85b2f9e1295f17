"""Claims about colorization as numbers, a row per model: what details.csv holds, and details.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from colorbench.report import notes, statistics
from colorbench.report.comparison import parent_of
from colorbench.report.markdown import MODEL, Column, bullets, escaped, number, table, text
from colorbench.report.results import Results

SHARE = "share_"  # how the column of a part's share of the pixels begins
CORRELATION = "attention_correlation"
NOTHING = statistics.Estimate(np.nan)
TERMS = (
    "chroma_true", "chroma_predicted", "chroma_true_squared", "chroma_product", "cool_share", "cool_recalled_share",
    "lip_contrast_true", "lip_contrast_product",
)  # fmt: skip
MEANINGS = {
    "chroma_slope": "Chroma slope: how much the predicted chroma rises when the true one rises by 1, by least squares; "
    "1 for the truth, 0 for one chroma everywhere, below 1 for desaturation.",
    "cool_recall": "Cool hues recalled: of the pixels whose true hue is from green to violet (180 to 300 degrees in "
    "Lab, chroma above 10), those predicted within 30 degrees of it. A grey one, of a chroma below 1, recalls none. "
    "Warm pixels that are made cool do not count.",
    "lip_contrast": "Lip contrast: how much of the true difference in ab between lips and skin is predicted, along "
    "that difference; 1 for all of it, 0 if the lips get the color of the skin.",
    CORRELATION: "Attention's correlation with chroma: Pearson's, over the cells of a model's attention map and the "
    "true chroma averaged to its size; the mean over the images in which neither is constant.",
}


def summarize(results: Results, order: Sequence[str]) -> pd.DataFrame:
    """A row per model of `order` that has details; no row and no column if none has.

    Columns: `model`, `images`, `base` and `parent` (what it refines, and what it is an ablation of, if that has details
    too); then `chroma_slope`, `cool_recall` in percent, `lip_contrast`, `attention_correlation` and, for each part,
    `mse_PART` and the gain in it over the two, `base_gain_PART_percent` and `parent_gain_PART_percent`; each of these
    is followed by the ends of its interval, `_low` and `_high`.
    A quotient over 0 is empty, and so is its interval if that happens with one value left out.
    """
    parts = _parts(results.details)
    cells, numbers = _terms(results.details, parts), _numbers(parts)
    models = [model for model in order if model in cells]
    rows = []
    for model in models:
        (own,) = statistics.paired(cells, model)
        row: dict[str, Any] = {"model": model, "images": own[CORRELATION].shape[1]}
        if results.kept.keys() & {*models}:
            row["kept"] = "; ".join(results.kept.get(model, ())) or None
        others = {"base": results.cells(model, done=True)[0].refines or "", "parent": parent_of(model)}
        row |= {over: other if other in models else None for over, other in others.items()}
        for name, (statistic, *terms) in numbers.items():
            row |= statistics.estimate([own[term] for term in terms], statistic).fields(name)
            for over, other in others.items() if name.startswith("mse_") else ():
                both = statistics.paired(cells, model, other)
                gain = statistics.estimate([each[term] for each in both for term in terms], _gain) if both else NOTHING
                row |= gain.fields(f"{over}_gain_{name.removeprefix('mse_')}_percent")
        rows.append(row)
    return pd.DataFrame(rows)


def render(frame: pd.DataFrame, results: Results) -> str:
    """The whole details.md."""
    parts = _parts(results.details)
    blocks = [f"# Details on {escaped(results.record.data.name)}", "## Colors", table(frame, _colors())]
    if parts:
        errors = [MODEL, *(number(f"{part} ↓", f"mse_{part}", ",.1f", ends=True) for part in parts)]
        blocks += ["## MSE by part", table(frame, errors)]
    for over in ("base", "parent") if parts else ():
        if len(paired := frame[frame[over].notna()]):
            blocks += [f"## MSE gain over the {over}, by part", table(paired, _gains(parts, over))]
    said = [*_notes(frame, results), *notes.of_rows(frame, results)]
    blocks += [escaped(notes.made_with(results)), "## Notes", bullets(said)]
    return "\n\n".join(blocks) + "\n"


def _parts(details: pd.DataFrame) -> list[str]:
    return [str(name).removeprefix(SHARE) for name in details if str(name).startswith(SHARE)]


def _terms(details: pd.DataFrame, parts: Sequence[str]) -> statistics.Cells:
    """The terms of the quotients, NaN where a cell lacks one."""
    if details.empty:
        return {}
    names = [*TERMS, *(f"{term}_{part}" for part in parts for term in ("squared_error", "share"))]
    terms = details.reindex(columns=["model", "seed", *names, CORRELATION])
    # An image without a correlation is left out of the mean: it adds neither to the sum nor to the count.
    terms["correlated"] = terms[CORRELATION].notna().astype(float)
    return statistics.by_cell(terms.fillna({CORRELATION: 0}), [*names, CORRELATION, "correlated"])


def _numbers(parts: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """By number, what it is of the means of which terms."""
    return {
        "chroma_slope": (_slope, "chroma_product", "chroma_true", "chroma_predicted", "chroma_true_squared"),
        "cool_recall": (lambda recalled, cool: 100 * _quotient(recalled, cool), "cool_recalled_share", "cool_share"),
        "lip_contrast": (_quotient, "lip_contrast_product", "lip_contrast_true"),
        CORRELATION: (_quotient, CORRELATION, "correlated"),
    } | {f"mse_{part}": (_quotient, f"squared_error_{part}", f"share_{part}") for part in parts}


def _quotient(above: Any, below: Any) -> Any:
    return np.where(below > 0, above / below, np.nan)


def _slope(product: Any, true: Any, predicted: Any, true_squared: Any) -> Any:
    return _quotient(product - true * predicted, true_squared - true**2)


def _gain(error: Any, share: Any, other_error: Any, other_share: Any) -> Any:
    return statistics.gain(_quotient(error, share), _quotient(other_error, other_share))


def _colors() -> list[Column]:
    return [
        MODEL,
        number("chroma slope → 1", "chroma_slope", ",.2f", ends=True),
        number("cool hues recalled, % ↑", "cool_recall", ",.1f", ends=True),
        number("lip contrast → 1", "lip_contrast", ",.2f", ends=True),
        number("attention's correlation with chroma", CORRELATION, ",.2f", ends=True),
    ]


def _gains(parts: Sequence[str], over: str) -> list[Column]:
    names = [(f"{part}, % ↑", f"{over}_gain_{part}_percent") for part in parts]
    return [MODEL, text(over), *(number(title, name, "+,.1f", ends=True) for title, name in names)]


def _notes(frame: pd.DataFrame, results: Results) -> Iterator[str]:
    yield from notes.intervals(frame["model"], results)
    yield (
        "All is pooled over seeds and the pixels of all images before it is divided; lip contrast over the images, and "
        "the correlation is a mean."
    )
    yield from (said for column, said in MEANINGS.items() if frame[column].notna().any())
    if _parts(results.details):
        yield "MSE by part: the mean squared RGB error (0..255) over the pixels of the part in all images together."
        if frame[["base", "parent"]].notna().any(axis=None):
            yield "A gain is paired: the same images and seeds for both models."
