"""Prediction and truth -> one row of scores per image."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd
import torch

from colorbench.metrics.standard import STANDARD

if TYPE_CHECKING:
    from torch import Tensor

    from colorbench.contract import MetricSpec


@torch.no_grad()
def score(predicted: Tensor, truth: Tensor, extra: Iterable[MetricSpec] = ()) -> pd.DataFrame:
    """Score pictures against the truth: a row per image, in the order given.

    predicted, truth: uint8 RGB (B, 3, H, W), sides of 11 pixels or more. Columns: mse (0..255 squared), psnr (dB,
    infinite for an exact copy), ssim, ciede2000, colorfulness, colorfulness_delta (predicted minus true),
    then those of `extra`. Raises ValueError for another type or for unequal shapes.
    """
    for name, images in (("predicted", predicted), ("truth", truth)):
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(
                f"{name} is {images.dtype} {tuple(images.shape)}; scores need uint8 RGB of shape (B, 3, H, W)"
            )
    if predicted.shape != truth.shape:
        raise ValueError(f"predicted {tuple(predicted.shape)} and truth {tuple(truth.shape)} differ in shape")
    metrics = STANDARD | {metric.name: metric.compute for metric in extra}
    columns = {name: compute(predicted, truth) for name, compute in metrics.items()}
    return pd.DataFrame({name: values.double().cpu().numpy() for name, values in columns.items()})
