"""Prediction and truth -> scores per image, terms of diagnostics, and features of what is scored over a set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from colorbench.contract import MetricSpec
from colorbench.errors import UserValueError, shown
from colorbench.metrics import extra as plugged
from colorbench.metrics.pair import Pair, mean
from colorbench.metrics.standard import standard_scores
from colorbench.metrics.terms import Terms
from colorbench.protocol import COLORBENCH, Protocol

__all__ = ["Pair", "Scored", "mean", "score", "score_batch"]


class Scored(NamedTuple):
    """Of a batch: a row of `scores` per image, and the `features` (B, k) of metrics over the set."""

    scores: pd.DataFrame
    features: dict[Any, np.ndarray]


def score(
    predicted: Tensor, truth: Tensor, extra: Iterable[MetricSpec] = (), protocol: Protocol = COLORBENCH
) -> pd.DataFrame:
    """Score pictures against the truth: a row per image, in the order given.

    predicted, truth: uint8 RGB (B, 3, H, W), sides of 11 pixels or more. Columns, float64: mse (0..255 squared), psnr
    (dB, infinite for an exact copy), ssim, ciede2000, colorfulness, colorfulness_delta (predicted minus true),
    then those of `extra`. Raises UserError for another type, for unequal shapes or small sides, for a metric of
    `extra` that fails or does not return one number per image (all of which are a ValueError, too), and for a protocol
    that the code does not know.
    """
    metrics = tuple(extra) if isinstance(extra, Iterable) else (extra,)
    if not all(isinstance(metric, MetricSpec) for metric in metrics):
        raise UserValueError(f"extra is {shown(extra)}; give MetricSpec objects in a list")
    try:
        return score_batch(Pair(predicted, truth, protocol=protocol), metrics).scores
    except ValueError as error:
        raise UserValueError(str(error)) from error


@torch.no_grad()
def score_batch(pair: Pair, extra: Iterable[MetricSpec] = (), terms: Terms | None = None) -> Scored:
    """The table of `score`, and the features of the metrics of `extra` that are over the set; adds to `terms`.

    Raises what `score` raises.
    """
    extra = tuple(extra)
    sources = {plugged.source(metric): metric for metric in extra if callable(metric.compute)}
    rows: list[dict[str, Tensor]] = []
    computed = {source: [plugged.compute(metric, pair)] for source, metric in sources.items() if metric.space == "rgb"}
    for chunk in pair.chunks():
        rows.append(standard_scores(chunk))
        for source, metric in sources.items():
            if metric.space == "lab":  # while the chunk is at hand, which has it already
                computed.setdefault(source, []).append(plugged.compute(metric, chunk))
        if terms is not None:  # last: they share what is computed of the chunk
            terms.add(chunk)
    values = {source: torch.cat(parts) for source, parts in computed.items()}
    own = {metric.name: values[plugged.source(metric)] for metric in extra if metric.reduce is None}
    features = {source: values[source].numpy() for source, metric in sources.items() if metric.reduce is not None}
    columns = {name: torch.cat([row[name] for row in rows]) for name in (rows[0] if rows else ())}
    return Scored(pd.DataFrame({name: values.numpy() for name, values in (columns | own).items()}), features)
