"""Estimates, each with one interval over images and seeds together; Holm's correction; PSNR."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

CONFIDENCE = 0.95
SMALLEST_P = 1e-100

Cells = Mapping[str, Mapping[int, pd.DataFrame]]  # by model and seed, a row per image


@dataclass(frozen=True)
class Estimate:
    """A statistic and the parts of its variance, each with its degrees of freedom: of seeds and images, or of images.

    Without parts, which take two images, it has no interval. All are numbers, or arrays of one shape.
    """

    value: Any
    parts: tuple[tuple[Any, int], ...] = ()

    def half_width(self, p: float = 1 - CONFIDENCE) -> Any:
        """Of the interval that misses the true value with probability `p`; NaN where there is none.

        Student's t of the parts is averaged, weighted by the variances (Cochran and Cox 1950). The usual choice, the
        degrees of freedom of Satterthwaite, would cover as little as 87 % with two seeds.
        """
        from scipy.special import stdtrit  # here, not above: only a report needs it

        variance = sum((part for part, _ in self.parts), np.nan if not self.parts else 0.0)
        weighted = sum(-stdtrit(freedom, p / 2) * part for part, freedom in self.parts)
        return np.divide(weighted, np.sqrt(variance), where=variance != 0, out=np.zeros_like(variance))

    def p(self) -> float:
        """The two-sided p-value of the value 0, at which the interval just reaches 0; NaN without an interval."""
        from scipy.optimize import brentq

        distance = abs(self.value)
        if not self.half_width(SMALLEST_P) > distance:  # without variance, or without an interval
            return np.nan if np.isnan(self.half_width() + distance) else float(distance == 0)
        return float(np.exp(brentq(lambda log_p: self.half_width(np.exp(log_p)) - distance, np.log(SMALLEST_P), 0.0)))

    def fields(self, name: str, least: float = -np.inf, most: float = np.inf) -> dict[str, float]:
        """The value under `name`, and the ends of its interval, cut off where no value can be: that loses nothing."""
        value, half = float(self.value), float(self.half_width())
        low, high = (float(np.clip(end, least, most)) for end in (value - half, value + half))
        return {name: value, f"{name}_low": low, f"{name}_high": high}


def estimate(columns: Sequence[np.ndarray], statistic: Callable[..., Any] = lambda mean: mean) -> Estimate:
    """`statistic` of the means of the `columns`, each (..., S, I): a value per seed and image, paired over the columns.

    Seeds and images are both samples, and crossed: the interval says where the statistic would lie with other seeds and
    other images of the same source; with one seed, with other images alone. The variances are those of a two-way
    analysis with random effects (Searle, Casella, McCulloch 1992, chapter 4), of what each value adds to the statistic
    by the jackknife: exact for a mean, and better than derivatives for ratios of skewed errors.

    In simulations (tests/report/test_statistics.py) the interval of a difference or a gain covers 93 to 97 %, and up to
    98 % with two seeds where they matter no more than the images do. That of a mean of errors as skewed as those of
    pictures covers 91 to 94 % over 50 images.

    An image of which a value is infinite is left out, unless all are. NaN anywhere gives NaN.
    """
    values = np.stack(columns)
    infinite = np.isinf(values).any(tuple(range(values.ndim - 1)))
    values = values if infinite.all() else values[..., ~infinite]
    seeds, images = values.shape[-2:]
    with np.errstate(divide="ignore", invalid="ignore"):
        means = values.mean((-2, -1), keepdims=True)
        value = statistic(*means)
        if images < 2:
            return Estimate(value[..., 0, 0])
        others = seeds * images - 1
        share = others * (value - statistic(*(means - (values - means) / others)))
        by_seed, by_image = share.mean(-1, keepdims=True), share.mean(-2, keepdims=True)
        of_seeds, of_images = by_seed.var((-2, -1)) / max(seeds - 1, 1), by_image.var((-2, -1)) / (images - 1)
        if seeds == 1:
            return Estimate(value[..., 0, 0], ((of_images, images - 1),))
        residual = (share - by_seed - by_image + by_seed.mean(-2, keepdims=True)).var((-2, -1))
        # The mean of an image over the seeds, and that of a seed, both hold of the residual what is to count once.
        of_images = np.maximum(of_images - residual / ((seeds - 1) * (images - 1)), 0.0)
    return Estimate(value[..., 0, 0], ((of_seeds, seeds - 1), (of_images, images - 1)))


def by_cell(frame: pd.DataFrame, columns: Sequence[str]) -> Cells:
    """These columns of a tidy frame, which has a row per image of each cell."""
    cells: dict[str, dict[int, pd.DataFrame]] = {}
    for (model, seed), rows in frame.groupby(["model", "seed"], sort=False):
        cells.setdefault(str(model), {})[int(str(seed))] = rows[columns]
    return cells


def paired(cells: Cells, *models: str) -> list[dict[str, np.ndarray]]:
    """The columns of each model, (S, I), over the seeds that all of them have; none without such seeds.

    A seed that only one of them has would count as a difference between them.
    """
    if not (seeds := sorted(set.intersection(*({*cells.get(model, ())} for model in models)))):
        return []
    columns = cells[models[0]][seeds[0]].columns
    return [
        {name: np.array([cells[model][seed][name] for seed in seeds], float) for name in columns} for model in models
    ]


def holm(p: pd.Series) -> pd.Series:
    """p-values corrected for their number (Holm 1979): below 5 % are those that remain at 5 %. NaN is none of them."""
    ordered = p.dropna().sort_values()
    return (ordered * np.arange(len(ordered), 0, -1)).cummax().clip(upper=1.0).reindex(p.index)


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
    batches = psnr(np.array([mse[i : i + size].mean() for i in range(0, len(mse), size)]))
    return estimate([batches[None]]).value
