"""Means, their intervals, comparisons and PSNR three ways."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

CONFIDENCE = 0.95
RESAMPLES = 2000
HALF = 2.0**26

Cells = Mapping[str, Mapping[int, pd.DataFrame]]  # by model and seed, a row per image


@dataclass(frozen=True)
class Sample:
    """A model over some of its seeds, a column per number: `values`, the mean over these seeds, has a row per image;
    `means` has 1 + RESAMPLES rows: the mean over the images, then those over resamples of them."""

    values: pd.DataFrame
    means: pd.DataFrame


def by_cell(frame: pd.DataFrame, columns: Sequence[str]) -> Cells:
    """These columns of a tidy frame, which has a row per image of each cell."""
    cells: dict[str, dict[int, pd.DataFrame]] = {}
    for (model, seed), rows in frame.groupby(["model", "seed"], sort=False):
        cells.setdefault(str(model), {})[int(str(seed))] = rows[columns]
    return cells


def paired(cells: Cells, pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], tuple[Sample, Sample]]:
    """Both models of each pair, such as (model, model), over the seeds that both have, where there are any.

    A seed that only one of them has would count as a difference between them. All see the same resamples.
    """
    common = {pair: tuple(sorted(cells[pair[0]].keys() & cells.get(pair[1], {}).keys())) for pair in pairs}
    keys = list(dict.fromkeys((model, seeds) for pair, seeds in common.items() if seeds for model in pair))
    images = [np.mean([cells[model][seed].to_numpy(float) for seed in seeds], axis=0) for model, seeds in keys]
    means = np.vstack([finite_mean(side_by_side := np.hstack(images)), bootstrap(side_by_side)])
    columns = next(iter(cells[keys[0][0]].values())).columns
    samples = {
        key: Sample(*(pd.DataFrame(rows, columns=columns) for rows in (own, own_means)))
        for key, own, own_means in zip(keys, images, np.split(means, len(keys), axis=1), strict=True)
    }
    return {(a, b): (samples[a, seeds], samples[b, seeds]) for (a, b), seeds in common.items() if seeds}


def with_ends(name: str, means: Any, images: int) -> dict[str, float]:
    """Of `means` (1 + RESAMPLES,) that of all images, under `name`, and the ends of its interval."""
    means = np.asarray(means)
    low, high = interval(means[1:], images)
    return {name: float(means[0]), f"{name}_low": float(low), f"{name}_high": float(high)}


def finite_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the rows of (n, k) -> (k,). Infinite values are left out (infinite if all are); NaN stays NaN."""
    return _ratio(np.where(np.isinf(values), 0, values).sum(0), np.isfinite(values).sum(0), np.isnan(values).any(0))


def bootstrap(values: np.ndarray) -> np.ndarray:
    """`finite_mean` of RESAMPLES draws of n rows with replacement: (n, k) -> (RESAMPLES, k).

    All columns see the same draws, so the difference of two columns is paired. The draws are always the same.

    A bootstrap, since squared errors are skewed and a gain in percent is a ratio: the normal interval fits neither.
    """
    n, rng = len(values), np.random.default_rng(0)
    infinite, missing = np.isinf(values), np.isnan(values).any(0)
    filled, counted = _halves(np.where(infinite | np.isnan(values), 0, values)), ~infinite if infinite.any() else None
    means = np.empty((RESAMPLES, values.shape[1]))
    for start in range(0, RESAMPLES, 100):  # in blocks: the counts of 70,000 images would not fit in memory at once
        stop = min(start + 100, RESAMPLES)
        drawn = [np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(start, stop)]
        counts = np.array(drawn, dtype=float)
        total = counts @ counted if counted is not None else np.full(means[start:stop].shape, n)
        high, low, scale = filled
        means[start:stop] = _ratio(((counts @ high) * HALF + counts @ low) / scale, total, missing)
    return means


def _halves(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, k) -> integers `high`, `low` and powers of two `scale` (k,), so that values = (high * HALF + low) / scale.

    Of so few bits, no partial sum of a resample is rounded: it is the same on every processor, which each add up in an
    order of their own. 51 bits of a column's largest value are kept.
    """
    # Exponents are read, not computed: a logarithm's last bit is not the same on every processor.
    scale = np.ldexp(1.0, 51 - np.frexp(np.maximum(np.abs(values).max(0), 2.0**-900))[1])
    whole = np.rint(values * scale)
    high = np.floor(whole / HALF)
    return high, whole - high * HALF, scale


def interval(resampled: np.ndarray, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the central 95 % of `resampled` (R, ...), the percentile bootstrap interval.

    It covers the choice of test images: where the mean of these very networks would lie on other images of the same
    source. It does not cover what another training seed would change, and it is too narrow below some 20 images.
    One image has no interval: NaN.
    """
    if images < 2:
        return (np.full(resampled.shape[1:], np.nan),) * 2
    tail = (1 - CONFIDENCE) / 2
    with np.errstate(invalid="ignore"):  # between two infinite values
        low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    return low, high


def gain(mse: Any, reference: Any) -> np.ndarray:
    """How much smaller `mse` is than `reference`, in percent of the latter; NaN over a reference of 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(reference > 0, 100 * (1 - np.divide(mse, reference)), np.nan)


def psnr(mse: np.ndarray | float) -> np.ndarray:
    """10 log10(255^2 / MSE) in dB, infinite for 0."""
    with np.errstate(divide="ignore"):
        return 10 * np.log10(255.0**2 / np.asarray(mse, dtype=float))


def psnr_batched(mse: np.ndarray, size: int = 8) -> float:
    """Mean over batches of `size` consecutive images of the batch's pooled PSNR, as training loops print it.

    Copied batches, of an infinite PSNR, are left out; the last batch may be smaller.
    """
    batches = np.array([mse[i : i + size].mean() for i in range(0, len(mse), size)])
    return float(finite_mean(psnr(batches)[:, None])[0])


def _ratio(total: np.ndarray, count: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """total / count; infinite where nothing was counted, NaN where a value is missing."""
    quotient = np.divide(total, count, out=np.full(total.shape, np.inf), where=count > 0)
    return np.where(missing, np.nan, quotient)
