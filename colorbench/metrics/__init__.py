"""Prediction and truth -> one row of scores per image, and one of details."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd
import torch
from torch import Tensor

from colorbench.contract import MetricSpec
from colorbench.metrics.details import detail_terms
from colorbench.metrics.pair import Pair
from colorbench.metrics.standard import standard_scores
from colorbench.protocol import COLORBENCH, Protocol


@torch.no_grad()
def score(
    predicted: Tensor, truth: Tensor, extra: Iterable[MetricSpec] = (), protocol: Protocol = COLORBENCH
) -> pd.DataFrame:
    """Score pictures against the truth: a row per image, in the order given.

    predicted, truth: uint8 RGB (B, 3, H, W), sides of 11 pixels or more. Columns, float64: mse (0..255 squared), psnr
    (dB, infinite for an exact copy), ssim, ciede2000, colorfulness, colorfulness_delta (predicted minus true),
    then those of `extra`. Raises ValueError for another type, for unequal shapes or small sides, and for a metric of
    `extra` that fails or does not return one number per image; UserError for a protocol that the code does not know.
    """
    pair = Pair(predicted, truth, protocol=protocol)
    return _frame([standard_scores(chunk) for chunk in pair.chunks()], pair, extra)


@torch.no_grad()
def score_with_details(pair: Pair, extra: Iterable[MetricSpec] = ()) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table of `score` and that of `details`, from one computation; raises what `score` raises."""
    rows = [(standard_scores(chunk), detail_terms(chunk)) for chunk in pair.chunks()]
    return _frame([scores for scores, _ in rows], pair, extra), _frame([terms for _, terms in rows], pair)


def _frame(rows: Sequence[dict[str, Tensor]], pair: Pair, extra: Iterable[MetricSpec] = ()) -> pd.DataFrame:
    columns = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    columns |= {metric.name: _compute(metric, pair) for metric in extra}
    return pd.DataFrame({name: values.numpy() for name, values in columns.items()})


def _compute(metric: MetricSpec, pair: Pair) -> Tensor:
    """A further column, float64 (B,) on the CPU. The metric gets copies, since it may write into what it gets."""
    due = (
        f"the metric {metric.name!r} {{}}; it has to return one number per image, floats of shape ({len(pair.truth)},)"
    )
    try:
        values = metric.compute(pair.predicted.clone(), pair.truth.clone())
        column = values.detach().to("cpu", torch.float64) if not values.is_complex() else values
    except Exception as error:  # whatever a plugin raises, the message has to say which metric it was
        raise ValueError(due.format(f"fails ({type(error).__name__}: {error})")) from error
    if column.shape != (len(pair.truth),) or column.is_complex():
        raise ValueError(due.format(f"returned {values.dtype} {tuple(values.shape)}"))
    return column
