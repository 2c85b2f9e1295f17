"""Prediction and truth -> one row of scores per image, one of details, and features of what is scored over a set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from colorbench.contract import MetricSpec
from colorbench.metrics import extra as plugged
from colorbench.metrics.details import detail_terms
from colorbench.metrics.pair import Pair
from colorbench.metrics.standard import standard_scores
from colorbench.protocol import COLORBENCH, Protocol


class Scored(NamedTuple):
    """Of a batch: a row of `scores` and of `details` per image, and the `features` (B, k) of metrics over the set."""

    scores: pd.DataFrame
    details: pd.DataFrame
    features: dict[Any, np.ndarray]


def score(
    predicted: Tensor, truth: Tensor, extra: Iterable[MetricSpec] = (), protocol: Protocol = COLORBENCH
) -> pd.DataFrame:
    """Score pictures against the truth: a row per image, in the order given.

    predicted, truth: uint8 RGB (B, 3, H, W), sides of 11 pixels or more. Columns, float64: mse (0..255 squared), psnr
    (dB, infinite for an exact copy), ssim, ciede2000, colorfulness, colorfulness_delta (predicted minus true),
    then those of `extra`. Raises ValueError for another type, for unequal shapes or small sides, and for a metric of
    `extra` that fails or does not return one number per image; UserError for a protocol that the code does not know.
    """
    return score_batch(Pair(predicted, truth, protocol=protocol), extra, details=False).scores


@torch.no_grad()
def score_batch(pair: Pair, extra: Iterable[MetricSpec] = (), details: bool = True) -> Scored:
    """The table of `score`, that of `details`, and the features of the metrics of `extra` that are over the set.

    Raises what `score` raises.
    """
    extra = tuple(extra)
    sources = {plugged.source(metric): metric for metric in extra if callable(metric.compute)}
    rows, terms, computed = [], [], dict[Any, list[Tensor]]()
    for chunk in pair.chunks():
        rows.append(standard_scores(chunk))
        if details:
            terms.append(detail_terms(chunk))
        for source, metric in sources.items():
            if metric.space == "lab":  # while the chunk is at hand, which has it already
                computed.setdefault(source, []).append(plugged.compute(metric, chunk))
    computed |= {source: [plugged.compute(metric, pair)] for source, metric in sources.items() if metric.space == "rgb"}
    values = {source: torch.cat(parts) for source, parts in computed.items()}
    own = {metric.name: values[plugged.source(metric)] for metric in extra if metric.reduce is None}
    features = {source: values[source].numpy() for source, metric in sources.items() if metric.reduce is not None}
    return Scored(_frame(rows, own), _frame(terms, {}), features)


def _frame(rows: Sequence[dict[str, Tensor]], own: dict[str, Tensor]) -> pd.DataFrame:
    columns = {name: torch.cat([row[name] for row in rows]) for name in rows[0]} if rows else {}
    return pd.DataFrame({name: values.numpy() for name, values in (columns | own).items()})
