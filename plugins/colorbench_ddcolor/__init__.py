"""DDColor (Kang et al. 2023): ConvNeXt, a pixel decoder, and a color decoder that learns its colors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from colorbench.contract import ModelSpec, Preset, Stage
from colorbench.hooks import hookimpl
from colorbench.published import find_weights
from colorbench_ddcolor.options import Options

if TYPE_CHECKING:
    from torch import Tensor, nn

VGG16_BN = "vgg16_bn-6c64b313.pth"  # as torchvision names it


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    spec = ModelSpec(
        name="ddcolor",
        in_all=False,
        summary="Kang et al. 2023: ConvNeXt-L, a pixel decoder and a transformer that learns colors",
        build=build,
        schedule=schedule,
        options=Options(vgg=find_weights(VGG16_BN)),  # an option, so that it counts in what a result is bound to
        convert=convert,
        published_size=512,
    )
    register(spec)
    register(replace(spec.variant("tiny", encoder="tiny"), summary="ddcolor on ConvNeXt-T, as its authors released it"))


def build(*, width: float = 1.0, size: int = 256, base: nn.Module | None = None, **options: Any) -> nn.Module:
    """`options` are the fields of `Options`."""
    from colorbench_ddcolor.model import DDColor

    return DDColor(width, size, Options(**options))


def convert(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    from colorbench_ddcolor.published import convert

    return convert(state)


def schedule(preset: Preset) -> list[Stage]:
    """The release's 400,000 steps as the preset's epochs. 1e-4 is its rate at full width; a narrower one needs more."""
    return [
        Stage(
            "train",
            preset.epochs,
            learning_rate=1e-4 / preset.width,
            decay=halved,
            optimizer="adamw",
            optimizer_options={"betas": (0.9, 0.99)},
            weight_decay=0.01,
        )
    ]


def halved(progress: float) -> float:
    """Constant for the first fifth of the stage; halved there, and at every further tenth."""
    return 0.5 ** max(0, int(10 * progress + 1e-9) - 1)
