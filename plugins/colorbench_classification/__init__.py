"""Colorization as classification: `eccv16` of Zhang, Isola and Efros 2016, and `fusionnet` of Jwa and Kang 2021."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from colorbench.contract import ModelSpec, Preset, PublishedWeights, Stage
from colorbench.hooks import hookimpl
from colorbench_classification.options import Options

if TYPE_CHECKING:
    from torch import nn

MEASURED = Stage("prior", measures=True)
# The authors' own address and licence; the hash as github.com/clibdev/colorization has it, a fork that keeps the files.
ECCV16_WEIGHTS = PublishedWeights(
    file="colorization_release_v2-9b330a0b.pth",
    url="https://colorizers.s3.us-east-2.amazonaws.com/colorization_release_v2-9b330a0b.pth",
    page="https://github.com/richzhang/colorization",
    sha256="9b330a0bae53f4ded77b1e23defbf78beaa09c10ebc4c4999e8e4f4a160b93f9",
    licence="BSD-2-Clause",
    trained_on="ImageNet",
    size=128_976_165,
)


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    register(
        ModelSpec(
            name="eccv16",
            summary="Zhang, Isola, Efros 2016: 313 color classes, rare ones weighted, annealed mean",
            build=build_eccv16,
            schedule=schedule_eccv16,
            options=Options(),
            weights=[ECCV16_WEIGHTS],
            in_all=False,
        )
    )
    register(
        ModelSpec(
            name="fusionnet",
            summary="Jwa, Kang 2021: residual encoder-decoder with summed skips, the color classes of eccv16",
            build=build_fusionnet,
            schedule=schedule_fusionnet,
            options=Options(),
            in_all=False,
        )
    )


def build_eccv16(*, width: float, size: int, base: nn.Module | None, **options: Any) -> nn.Module:
    from colorbench_classification.eccv16 import Eccv16

    return Eccv16(width, Options(**options))


def build_fusionnet(*, width: float, size: int, base: nn.Module | None, **options: Any) -> nn.Module:
    from colorbench_classification.fusionnet import FusionNet

    return FusionNet(width, Options(**options))


def schedule_eccv16(preset: Preset) -> list[Stage]:
    """The authors' solver file: Adam at 3e-5, a tenth of it from 225,000 of 500,000 steps on.

    The rate is for the full width and half a million steps. Narrow networks are trained for hundreds of steps: with
    rate / width their loss had hardly fallen by then, so the rate is divided by the square of the width.
    """
    train = Stage(
        "train",
        preset.epochs,
        learning_rate=3e-5 / preset.width**2,
        decay=drop_at_45_percent,
        optimizer_options={"betas": (0.9, 0.99)},
        weight_decay=1e-3,
        frozen=("model_out",),  # it holds the colors of the classes
    )
    return [MEASURED, train]


def schedule_fusionnet(preset: Preset) -> list[Stage]:
    return [MEASURED, Stage("train", preset.epochs, learning_rate=1e-4 / preset.width**2)]


def drop_at_45_percent(progress: float) -> float:
    return 1.0 if progress < 0.45 else 0.1
