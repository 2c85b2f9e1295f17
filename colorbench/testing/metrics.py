"""The laws of a metric, checked on toy pictures as a run computes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from colorbench.color import bytes_to_lab
from colorbench.contract import MetricSpec
from colorbench.metrics import score_batch
from colorbench.metrics.extra import compute, join, with_statistics
from colorbench.metrics.pair import Pair
from colorbench.testing.pictures import guesses

IMAGES, SIZE = 8, 32
SETS = 2  # of so many images
TOLERANCE = 1e-4  # absolute, and relative to the score
OVER_A_SET = 2e-3  # the same of a score over a set, in which two nearly equal numbers are often taken from each other
Pictures = tuple[Tensor, Tensor]  # predicted and true


class Metric:
    """A metric under the laws, and its scores of some sets of pictures."""

    def __init__(self, spec: MetricSpec) -> None:
        # The interval takes two thousand times the time of the score, and no law is about it.
        self.spec = replace(spec, resample=False)
        self.absent = spec.missing or (f"toy pictures have no {', '.join(spec.takes)}" if spec.takes else "")
        self.tolerance = TOLERANCE if spec.reduce is None else OVER_A_SET
        self.sets = [guesses(IMAGES, SIZE, seed) for seed in range(SETS)]

    @cached_property
    def ready(self) -> MetricSpec:
        """The metric with what it makes of the training images, if it asks for them."""
        statistics = {}
        if self.spec.prepare:
            truth = guesses(IMAGES, SIZE, seed=99)[1]
            lab = self.spec.space == "lab"
            batch = torch.stack(bytes_to_lab(truth), dim=1) if lab else truth
            statistics = {self.spec.name: np.asarray(self.spec.prepare(iter([batch])))}
        return with_statistics([self.spec], statistics)[0]

    def scores(self, pictures: Pictures, batches: Sequence[int] = (IMAGES,)) -> np.ndarray:
        """The score of each image, (IMAGES,), or that of all, (1,), computed in such batches."""
        pairs = zip(*(images.split(list(batches)) for images in pictures), strict=True)
        parts = [score_batch(Pair(*both), [self.ready]) for both in pairs]
        columns = pd.concat([part.scores for part in parts])
        if self.ready.reduce is None:
            return columns[self.ready.name].to_numpy()
        features = {key: np.concatenate([part.features[key] for part in parts]) for key in parts[0].features}
        return join([self.ready], features, columns)["value"].to_numpy()

    @cached_property
    def found(self) -> list[np.ndarray]:
        return [self.scores(pictures) for pictures in self.sets]

    def badness(self, scores: np.ndarray) -> np.ndarray:
        """The scores as numbers of which the lowest is the best."""
        return np.abs(scores) if self.spec.better == "zero" else -scores if self.spec.better == "higher" else scores

    def same(self, found: np.ndarray, due: np.ndarray) -> bool:
        return np.allclose(found, due, rtol=self.tolerance, atol=self.tolerance)


def computes(metric: Metric) -> str | None:
    """`compute` returns a number for each image, or with `reduce` features of each, which that joins to a number."""
    if metric.absent:
        return f"not computed: {metric.absent}"
    if callable(metric.ready.compute):
        compute(metric.ready, Pair(*metric.sets[0]))  # of all at once, where a mistake in the shape shows
    return f"{len(metric.found[0])} for {IMAGES} images"


def finite(metric: Metric) -> str | None:
    """The score of a prediction that differs from the truth is a finite number."""
    if metric.absent:
        return None
    found = np.concatenate(metric.found)
    if not np.isfinite(found).all():
        raise ValueError(f"it gives {found[~np.isfinite(found)][0]}; look for a division, logarithm or root of 0")
    return f"from {found.min():.4g} to {found.max():.4g}"


def independent_of_the_batch(metric: Metric) -> str | None:
    """An image has the same score in every batch, and a set the same however it is split into batches."""
    if metric.absent:
        return None
    if not metric.same(metric.scores(metric.sets[0], (3, IMAGES - 3)), metric.found[0]):
        raise ValueError("other scores in batches of 3 and 5 than of 8; compute each image by itself")
    return "batches of 3 and 5 as of 8"


def order(metric: Metric) -> str | None:
    """Scores follow their images when these come in another order; that of a set stays."""
    if metric.absent:
        return None
    predicted, truth = (images.flip(0) for images in metric.sets[0])
    if not metric.same(metric.scores((predicted, truth)), metric.found[0][::-1]):
        raise ValueError("in reverse order the images have other scores; compute each image by itself")
    return "the same in reverse"


def layout(metric: Metric) -> str | None:
    """Scores do not depend on how pictures lie in memory."""
    if metric.absent:
        return None
    predicted, truth = (images.contiguous(memory_format=torch.channels_last) for images in metric.sets[0])
    if not metric.same(metric.scores((predicted, truth)), metric.found[0]):
        raise ValueError("other scores where channels lie last in memory; use reshape and strides by their names")
    return "channels first or last"


def better(metric: Metric) -> str | None:
    """Nothing is better than the truth itself, if `better` says which scores are."""
    if metric.absent or not metric.spec.better:
        return None
    for (_, truth), found in zip(metric.sets, metric.found, strict=True):
        best = metric.scores((truth, truth))
        distance = metric.badness(found) - metric.badness(best)
        if not (distance >= -metric.tolerance * (1 + np.abs(found))).all():
            worst = int(np.argmin(distance))
            raise ValueError(
                f"a guess has {found[worst]:.4g}, the truth itself {best[worst]:.4g}, but better is "
                f"{metric.spec.better!r}; correct compute or `better`"
            )
    return f"{metric.spec.better}: the truth has {np.ravel(best)[0]:.4g}"


LAWS = ((computes,), (finite,), (independent_of_the_batch, order, layout, better))
