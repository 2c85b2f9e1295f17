"""Claims about colorization as numbers, a row per model: what details.csv holds, and details.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from colorbench.report import notes, statistics
from colorbench.report.markdown import Column, number, table
from colorbench.report.results import Results

Means = Mapping[str, np.ndarray]  # of each column of a cell's details.csv

SHARE = "share_"  # how the column of a part's share of the pixels begins
TERMS = (
    "chroma_true", "chroma_predicted", "chroma_true_squared", "chroma_product", "cool_share", "cool_recalled_share",
    "lip_contrast_true", "lip_contrast_product",
)  # fmt: skip


def summarize(results: Results, order: Sequence[str]) -> pd.DataFrame:
    """A row per model of `order` that has details; no row and no column if none has.

    Columns: `model`, `images`, `base` (the model that it refines, if that has details too); then `chroma_slope`,
    `cool_recall` in percent, `lip_contrast`, `attention_correlation` and, for each part, `mse_PART` and the gain in it
    over the base, `gain_PART_percent`; each of these is followed by the ends of its interval, `_low` and `_high`.
    A quotient over 0 is empty, and so is its interval if that happens in any resample.
    """
    parts = _parts(results.details)
    found = _terms(results.details, parts)
    models = [model for model in order if model in found]
    if not models:
        return pd.DataFrame()
    names = [str(name) for name in found[models[0]]]
    values = np.stack([found[model].to_numpy() for model in models], axis=2)  # (images, terms, models)
    resampled = statistics.bootstrap(values.reshape(len(values), -1)).reshape(-1, *values.shape[1:])
    refined = [results.cells(model, done=True)[0]["refines"] for model in models]
    bases = [base if base in models else None for base in refined]
    over = [None if base is None else models.index(base) for base in bases]
    pooled, drawn = (
        _quotients({name: means[:, i] for i, name in enumerate(names)}, parts, over)
        for means in (values.mean(0)[None], resampled)
    )
    columns = {"model": models, "images": len(values), "base": bases}
    for name, value in pooled.items():
        low, high = statistics.interval(drawn[name], len(values))
        columns |= {name: value[0], f"{name}_low": low, f"{name}_high": high}
    return pd.DataFrame(columns)


def render(frame: pd.DataFrame, results: Results) -> str:
    """The whole details.md."""
    parts = _parts(results.details)
    refining = frame[frame["base"].notna()]
    blocks = [f"# Details on {results.record['data']['name']}", "## Colors", table(frame, _colors())]
    if parts:
        blocks += ["## MSE by part", table(frame, _errors(parts))]
    if parts and len(refining):
        blocks += ["## MSE gain over the base, by part", table(refining, _gains(parts))]
    blocks += [notes.made_with(results), "## Notes", "\n".join(f"- {note}" for note in _notes(frame, results))]
    return "\n\n".join(blocks) + "\n"


def _parts(details: pd.DataFrame) -> list[str]:
    return [str(name).removeprefix(SHARE) for name in details if str(name).startswith(SHARE)]


def _terms(details: pd.DataFrame, parts: Sequence[str]) -> dict[str, pd.DataFrame]:
    """By model, a row per image: the terms of the quotients, averaged over the seeds. NaN where a cell lacks one."""
    if details.empty:
        return {}
    of_parts = [name for part in parts for name in _error_and_share(part)]
    terms = details.reindex(columns=[*TERMS, *of_parts, "attention_correlation"])
    # An image without a correlation is left out of the mean: it adds neither to the sum nor to the count.
    terms["correlated"] = terms["attention_correlation"].notna().astype(float)
    terms["attention_correlation"] = terms["attention_correlation"].fillna(0)
    seeds: dict[str, list[pd.DataFrame]] = {}
    for (model, _), rows in details.groupby(["model", "seed"], sort=False):
        seeds.setdefault(str(model), []).append(terms.loc[rows.index].reset_index(drop=True))
    return {model: sum(cells[1:], start=cells[0]) / len(cells) for model, cells in seeds.items()}


def _quotients(means: Means, parts: Sequence[str], over: Sequence[int | None]) -> dict[str, np.ndarray]:
    """Means over images (resamples, models) -> every number of the report, of that shape.

    `over` has for each model the place of its base among the models, or None.
    """
    true, predicted = means["chroma_true"], means["chroma_predicted"]
    covariance = means["chroma_product"] - true * predicted
    numbers = {
        "chroma_slope": _quotient(covariance, means["chroma_true_squared"] - true**2),
        "cool_recall": 100 * _quotient(means["cool_recalled_share"], means["cool_share"]),
        "lip_contrast": _quotient(means["lip_contrast_product"], means["lip_contrast_true"]),
        "attention_correlation": _quotient(means["attention_correlation"], means["correlated"]),
    }
    for part in parts:
        error, share = _error_and_share(part)
        mse = _quotient(means[error], means[share])
        none = np.full(len(mse), np.nan)
        base = np.stack([none if place is None else mse[:, place] for place in over], axis=1)
        numbers |= {f"mse_{part}": mse, f"gain_{part}_percent": statistics.gain(mse, base)}
    return numbers


def _error_and_share(part: str) -> tuple[str, str]:
    return f"squared_error_{part}", f"{SHARE}{part}"


def _quotient(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(below.shape, np.nan), where=below > 0)


def _colors() -> list[Column]:
    return [
        _name("model"),
        Column("chroma slope → 1", lambda row: number(row, "chroma_slope", 2, ends=True)),
        Column("cool hues recalled, % ↑", lambda row: number(row, "cool_recall", 1, ends=True)),
        Column("lip contrast → 1", lambda row: number(row, "lip_contrast", 2, ends=True)),
        Column("attention's correlation with chroma", lambda row: number(row, "attention_correlation", 2, ends=True)),
    ]


def _errors(parts: Sequence[str]) -> list[Column]:
    return [_name("model"), *(_of_part(f"{part} ↓", f"mse_{part}") for part in parts)]


def _gains(parts: Sequence[str]) -> list[Column]:
    gains = [_of_part(f"{part}, % ↑", f"gain_{part}_percent", sign="+") for part in parts]
    return [_name("model"), _name("base"), *gains]


def _name(column: str) -> Column:
    return Column(column, lambda row: row[column], align="left")


def _of_part(title: str, name: str, sign: str = "") -> Column:
    return Column(title, lambda row: number(row, name, 1, ends=True, sign=sign))


def _notes(frame: pd.DataFrame, results: Results) -> Iterator[str]:
    yield (
        f"In brackets: 95 % percentile bootstrap intervals ({statistics.RESAMPLES:,} resamples of the test images). "
        "They cover the choice of test images, not what another training seed would change. All is pooled over the "
        "pixels of all images before it is divided; lip contrast over the images, and the correlation is a mean."
    )
    if results.details["seed"].nunique() > 1:
        yield "What is pooled is first averaged over the seeds, image by image."
    yield (
        "Chroma slope: how much the predicted chroma rises when the true one rises by 1, by least squares; 1 for the "
        "truth, 0 for one chroma everywhere, below 1 for desaturation."
    )
    if frame["cool_recall"].notna().any():
        yield (
            "Cool hues recalled: of the pixels whose true hue is from green to violet (180 to 300 degrees in Lab, "
            "chroma above 10), those predicted within 30 degrees of it. A grey one, of a chroma below 1, recalls "
            "none. Warm pixels that are made cool do not count."
        )
    if frame["lip_contrast"].notna().any():
        yield (
            "Lip contrast: how much of the true difference in ab between lips and skin is predicted, along that "
            "difference; 1 for all of it, 0 if the lips get the color of the skin."
        )
    if frame["attention_correlation"].notna().any():
        yield (
            "Attention's correlation with chroma: Pearson's, over the cells of a model's attention map and the true "
            "chroma averaged to its size; the mean over the images in which neither is constant."
        )
    if not _parts(results.details):
        return
    yield "MSE by part: the mean squared RGB error (0..255) over the pixels of the part in all images together."
    if frame["base"].notna().any():
        yield "The gain over the base is paired: the same images, and the same resamples of them, for both models."
