"""The predictions of a split and its truth -> scores and details per image, scores over the set, and some pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from colorbench.contract import DiagnosticSpec, MetricSpec
from colorbench.data.loader import arrays_at
from colorbench.metrics import score_batch
from colorbench.metrics.extra import join
from colorbench.metrics.pair import Pair
from colorbench.metrics.terms import Terms
from colorbench.protocol import Protocol

if TYPE_CHECKING:
    from colorbench.data.cache import Images
    from colorbench.harness.predict import Predicted

SAMPLES, WORST = 16, 4  # test images kept as pictures: the first, and those of the largest MSE


@dataclass
class Scored:
    """`scores` and `details` have a row per image, named in the column `image`; `set_scores` one per metric of a set.

    `details` are the terms of diagnostics, empty without any; `failed` has the reason of those that failed, by name.
    `samples` are pictures for the figures: `predicted` uint8 (K, H, W, 3), the first of the split; `attention` uint8
    (K, h, w), the network's map, if it has one; `worst`, `worst_truth`, `worst_name` and `worst_mse`, the images of
    the largest MSE, the worst first.
    """

    scores: pd.DataFrame
    details: pd.DataFrame
    set_scores: pd.DataFrame
    samples: dict[str, np.ndarray]
    failed: dict[str, str]


def score_all(
    predictions: Iterable[Predicted], images: Images, metrics: Iterable[MetricSpec], protocol: Protocol,
    diagnostics: Iterable[DiagnosticSpec] = (),
) -> Scored:  # fmt: skip
    """Score every prediction of a split against its truth."""
    metrics, terms, sampled = tuple(metrics), Terms(diagnostics), _Samples()
    scores: list[pd.DataFrame] = []
    features: dict[Any, list[np.ndarray]] = {}
    for batch in predictions:
        place = slice(batch.start, batch.start + len(batch.pictures))
        device = batch.pictures.device
        truth = torch.from_numpy(np.array(images.pixels[place])).to(device).permute(0, 3, 1, 2)
        attention = None if batch.maps is None else batch.maps.float() / 255
        pair = Pair(batch.pictures, truth, arrays_at(images, place, device), attention, protocol)
        scored = score_batch(pair, metrics, terms)
        scores.append(scored.scores)
        for source, values in scored.features.items():
            features.setdefault(source, []).append(values)
        sampled.add(batch, truth, scores[-1]["mse"].to_numpy())
    by_image, details = pd.concat(scores, ignore_index=True), terms.frame()
    for frame in (by_image, details):
        frame.insert(0, "image", images.names[: len(frame)])
    over_set = join(metrics, {source: np.concatenate(parts) for source, parts in features.items()}, by_image)
    return Scored(by_image, details, over_set, sampled.arrays(images.names), terms.failed)


class _Samples:
    """The pictures worth keeping, of a split that passes by in batches."""

    def __init__(self) -> None:
        self.predicted: list[np.ndarray] = []
        self.attention: list[np.ndarray] = []
        self.worst: list[tuple[float, int, np.ndarray, np.ndarray]] = []  # MSE, place in the split, predicted, truth

    def add(self, batch: Predicted, truth: Tensor, mse: np.ndarray) -> None:
        if batch.start < SAMPLES:
            self.predicted.append(_pixels(batch.pictures))
            if batch.maps is not None:
                self.attention.append(batch.maps[:, 0].cpu().numpy())
        for i in np.argsort(-mse)[:WORST]:
            pictures = (_pixels(images[i : i + 1]) for images in (batch.pictures, truth))
            self.worst.append((mse[i], batch.start + int(i), *pictures))
        self.worst = sorted(self.worst, key=lambda entry: (-entry[0], entry[1]))[:WORST]

    def arrays(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        mse, places, predicted, truth = zip(*self.worst, strict=True)
        worst = {"worst": np.concatenate(predicted), "worst_truth": np.concatenate(truth), "worst_mse": np.array(mse)}
        maps = {"attention": np.concatenate(self.attention)[:SAMPLES]} if self.attention else {}
        named = {"worst_name": np.array([names[place] for place in places])}
        return {"predicted": np.concatenate(self.predicted)[:SAMPLES], **maps, **worst, **named}


def _pixels(rgb: Tensor) -> np.ndarray:
    return rgb.permute(0, 2, 3, 1).cpu().numpy()
