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
    A quotient over 0 is empty, and so is its interval if that happens in any resample.
    """
    parts = _parts(results.details)
    cells = _terms(results.details, parts)
    models = [model for model in order if model in cells]
    if not models:
        return pd.DataFrame()
    bases = {model: results.cells(model, done=True)[0].refines or "" for model in models}
    others = {model: {"base": bases[model], "parent": parent_of(model)} for model in models}
    pairs = [(model, other) for model in models for other in (model, *others[model].values())]
    samples = {
        pair: [_numbers(sample, parts) for sample in both] for pair, both in statistics.paired(cells, pairs).items()
    }
    images, rows = len(next(iter(cells[models[0]].values()))), []
    for model in models:
        row: dict[str, Any] = {"model": model, "images": images}
        if results.kept.keys() & {*models}:
            row["kept"] = "; ".join(results.kept.get(model, ())) or None
        row |= {over: other if other in models else None for over, other in others[model].items()}
        for name, means in samples[model, model][0].items():
            row |= statistics.with_ends(name, means, images)
            for over, other in others[model].items() if name.startswith("mse_") else ():
                both = samples.get((model, other))
                gain = statistics.gain(*(numbers[name] for numbers in both)) if both else means * np.nan
                row |= statistics.with_ends(f"{over}_gain_{name.removeprefix('mse_')}_percent", gain, images)
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


def _numbers(sample: statistics.Sample, parts: Sequence[str]) -> dict[str, pd.Series]:
    """The numbers of one model, each of all images and of the resamples, as `Sample.means` has them."""
    means = sample.means
    true, predicted = means["chroma_true"], means["chroma_predicted"]
    covariance = means["chroma_product"] - true * predicted
    return {
        "chroma_slope": _quotient(covariance, means["chroma_true_squared"] - true**2),
        "cool_recall": 100 * _quotient(means["cool_recalled_share"], means["cool_share"]),
        "lip_contrast": _quotient(means["lip_contrast_product"], means["lip_contrast_true"]),
        CORRELATION: _quotient(means[CORRELATION], means["correlated"]),
    } | {f"mse_{part}": _quotient(means[f"squared_error_{part}"], means[f"share_{part}"]) for part in parts}


def _quotient(above: pd.Series, below: pd.Series) -> pd.Series:
    return (above / below).where(below > 0)


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
    yield (
        f"{notes.INTERVALS} All is pooled over the pixels of all images before it is divided; lip contrast over the "
        "images, and the correlation is a mean."
    )
    if results.details["seed"].nunique() > 1:
        yield "What is pooled is first averaged over the seeds, image by image."
    yield from (said for column, said in MEANINGS.items() if frame[column].notna().any())
    if _parts(results.details):
        yield "MSE by part: the mean squared RGB error (0..255) over the pixels of the part in all images together."
        if frame[["base", "parent"]].notna().any(axis=None):
            yield "A gain is paired: the same images, resamples of them and seeds for both models."
