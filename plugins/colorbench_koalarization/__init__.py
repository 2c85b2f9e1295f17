"""Deep Koalarization: an encoder-decoder that also sees what a classifier, Inception-ResNet-v2, makes of the image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from colorbench.contract import ModelSpec, Preset, Stage, constant
from colorbench.hooks import hookimpl

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Options:
    """`extractor` is a file of timm's `inception_resnet_v2`, or "random": fixed random weights instead."""

    extractor: Path | Literal["random"] = "random"


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    register(
        ModelSpec(
            name="koalarization",
            summary="Baldassarre et al. 2017: encoder-decoder, fused with what Inception-ResNet-v2 sees",
            build=build,
            schedule=schedule,
            options=Options(),
            published_size=224,
            in_all=False,
        )
    )


def build(*, width: float = 1.0, size: int = 224, base: nn.Module | None = None, **options: Any) -> nn.Module:
    """`options` are the fields of `Options`; `extractor` is None if its weights are still to be loaded."""
    from colorbench_koalarization.model import Koalarization

    return Koalarization(width, size, **options)


def schedule(preset: Preset) -> list[Stage]:
    return [Stage("train", preset.epochs, learning_rate=1e-3, decay=constant)]
