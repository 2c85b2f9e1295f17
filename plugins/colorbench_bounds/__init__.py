"""Two models that see nothing: what a model must beat before its score means anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from colorbench.contract import ModelSpec, Stage
from colorbench.hooks import hookimpl

if TYPE_CHECKING:
    from torch import nn


def _grey(*, width: float, size: int, base: nn.Module | None) -> nn.Module:
    from colorbench_bounds.model import Grey

    return Grey()


def _mean_color(*, width: float, size: int, base: nn.Module | None) -> nn.Module:
    from colorbench_bounds.model import MeanColor

    return MeanColor()


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    register(
        ModelSpec(
            name="grey",
            summary="ab = 0: the input left without color",
            build=_grey,
            schedule=lambda preset: (),
        )
    )
    register(
        ModelSpec(
            name="mean-color",
            summary="the mean ab of the training images at every pixel",
            build=_mean_color,
            schedule=lambda preset: (Stage("count", epochs=1),),
        )
    )
