"""The metrics of plugins: a column per image, or features of each image that are joined over the set."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from colorbench.contract import MetricSpec
from colorbench.errors import reason, whatever_raised
from colorbench.metrics.pair import Pair

RESAMPLES, TAIL = 2000, 0.025  # of an interval of 95 %
COLUMNS = ("metric", "value", "low", "high", "images")

Features = Mapping[Any, np.ndarray]  # (N, k) by `source`


def with_statistics(
    metrics: Iterable[MetricSpec], statistics: Mapping[str, np.ndarray], arrays: Collection[str] = ()
) -> list[MetricSpec]:
    """Of `metrics` those that can be computed, each with what it made of the training images, by name, if it asks.

    `arrays` names those that the dataset has.
    """

    def bound(metric: MetricSpec) -> MetricSpec:
        values, compute = statistics[metric.name], cast(Callable[..., Tensor], metric.compute)
        return replace(metric, compute=lambda p, t, **inputs: compute(p, t, values.copy(), **inputs))

    there = [metric for metric in metrics if {*metric.takes} <= {*arrays}]
    known = [metric for metric in there if metric.prepare is None or metric.name in statistics]
    return [bound(metric) if metric.prepare else metric for metric in known]


def source(metric: MetricSpec) -> Any:
    """What metrics have in common that are computed at once."""
    return metric.compute, metric.space, metric.reduce is None, *metric.takes


def compute(metric: MetricSpec, pair: Pair) -> Tensor:
    """What a metric makes of a batch, on the CPU: scores float64 (B,), or features (B, k) if it is over the set.

    The metric gets copies, since it may write into what it gets. Raises ValueError, which names it, if it fails, or
    returns another shape or type.
    """
    images = len(pair.truth)
    due = f"one number per image, floats of shape ({images},)"
    if metric.reduce is not None:
        due = f"numbers of each image, floats of shape ({images}, k)"
    refusal = f"the metric {metric.name!r} {{}}; it has to return {due}"
    try:
        assert callable(metric.compute)
        inputs = {name: pair.arrays[name].clone() for name in metric.takes}
        if metric.space == "lab":
            values = metric.compute(*(torch.stack(planes, dim=1) for planes in pair.lab), **inputs)
        else:
            values = metric.compute(pair.predicted.clone(), pair.truth.clone(), **inputs)
        column = values.detach().cpu()
        kind = f"{values.dtype} {tuple(values.shape)}"
    except whatever_raised() as error:  # the message has to say which metric it was
        raise ValueError(refusal.format(f"fails ({reason(error)})")) from error
    if column.shape[:1] != (images,) or column.ndim != (1 if metric.reduce is None else 2) or column.is_complex():
        raise ValueError(refusal.format(f"returned {kind}"))
    return column.double() if metric.reduce is None else column


def join(metrics: Iterable[MetricSpec], features: Features, scores: pd.DataFrame) -> pd.DataFrame:
    """A row per metric over the set, with the columns COLUMNS; `scores` are those of the same images.

    `low` and `high` are the ends of the 95 % percentile bootstrap interval over images, NaN for a metric that is not to
    be resampled. Raises ValueError, which names the metric, if it fails or does not return a number.
    """
    rows = []
    for metric in (metric for metric in metrics if metric.reduce is not None):
        try:
            named = None if callable(metric.compute) else scores[[*metric.compute]].to_numpy(float)
            of_images = features[source(metric)].astype(float) if named is None else named
            value = _reduced(metric, of_images)
            low, high = _interval(metric, of_images)
        except whatever_raised() as error:  # the message has to say which metric it was
            why = f"fails over the set ({reason(error)})"
            raise ValueError(f"the metric {metric.name!r} {why}; its `reduce` has to return a number") from error
        rows.append((metric.name, value, low, high, len(of_images)))
    return pd.DataFrame(rows, columns=[*COLUMNS])


def _reduced(metric: MetricSpec, features: np.ndarray) -> float:
    assert metric.reduce is not None
    return float(metric.reduce(features.copy()))


def _interval(metric: MetricSpec, features: np.ndarray) -> tuple[float, float]:
    count, rng = len(features), np.random.default_rng(0)
    if not metric.resample or count < 2:
        return np.nan, np.nan
    values = [_reduced(metric, features[rng.integers(0, count, count)]) for _ in range(RESAMPLES)]
    low, high = np.quantile(values, [TAIL, 1 - TAIL])
    return float(low), float(high)
