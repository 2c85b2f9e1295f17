"""What a score is measured by: the floor, which sees nothing of an image, and bounds, which only the truth can make."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from colorbench.contract import ModelSpec, Stage
from colorbench.hooks import hookimpl

if TYPE_CHECKING:
    from torch import nn

SIDES = (8, 16, 32)  # pixels to a side of the true ab that is left


def _grey(*, width: float, size: int, base: nn.Module | None) -> nn.Module:
    from colorbench_bounds.model import Grey

    return Grey()


def _mean_color(*, width: float, size: int, base: nn.Module | None) -> nn.Module:
    from colorbench_bounds.model import MeanColor

    return MeanColor()


def _best_constant(*, width: float, size: int, base: nn.Module | None) -> nn.Module:
    from colorbench_bounds.model import BestConstant

    return BestConstant()


def _true_ab(*, width: float, size: int, base: nn.Module | None, side: int) -> nn.Module:
    from colorbench_bounds.model import TrueAb

    return TrueAb(side, size)


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    register(ModelSpec("grey", "ab = 0: the input left without color", _grey))
    register(
        ModelSpec(
            "mean-color",
            "the mean ab of the training images at every pixel",
            _mean_color,
            lambda preset: (Stage("count", measures=True),),
            anchor="floor",
        )
    )
    summary = "the single ab of the least MSE for each image, which only its truth tells"
    register(ModelSpec("best-constant", summary, _best_constant, anchor="bound", sees_truth=True))
    for side in SIDES:
        summary = f"the true ab at {side} px, enlarged again"
        register(ModelSpec(f"true-ab-{side}px", summary, _true_ab, options={"side": side}, sees_truth=True))
