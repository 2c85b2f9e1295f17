"""DeOldify (Antic 2019): a U-Net on a ResNet that colors in RGB, trained by features, then briefly by a critic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from colorbench.contract import ModelSpec, Preset, Stage, constant
from colorbench.hooks import hookimpl
from colorbench.published import find_weights
from colorbench_deoldify.options import Options

if TYPE_CHECKING:
    from torch import Tensor, nn

VGG16_BN = "vgg16_bn-6c64b313.pth"  # as torchvision names it
FEWEST = 16  # images of a stage, where there are as many


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    spec = ModelSpec(
        name="deoldify",
        in_all=False,
        summary="Antic 2019, the artistic model: U-Net on ResNet34, NoGAN training",
        build=build,
        schedule=partial(schedule, gan_rate=1e-5),
        options=Options(vgg=find_weights(VGG16_BN)),  # an option, so that it counts in what a result is bound to
        convert=convert,
        published_size=560,  # a render factor of 35
    )
    register(spec)
    stable = replace(
        spec.variant("stable", architecture="stable"),
        summary="Antic 2019, the stable model: U-Net on ResNet101, NoGAN training",
        schedule=partial(schedule, gan_rate=2e-5),
    )
    register(stable)


def build(*, width: float = 1.0, size: int = 256, base: nn.Module | None = None, **options: Any) -> nn.Module:
    """`options` are the fields of `Options`."""
    from colorbench_deoldify.model import DeOldify

    return DeOldify(width, size, Options(**options))


def convert(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    from colorbench_deoldify.published import convert

    return convert(state)


def schedule(preset: Preset, gan_rate: float) -> list[Stage]:
    """NoGAN. The release's rates are for full width; a narrower network needs more.

    Its generator sees the images 3.5 times; the critic then sees 8.5 % of them 10 times, and the GAN 3 % about 6 times.
    """
    rate = 1e-3 / preset.width
    common: dict[str, Any] = {"optimizer": "adamw", "weight_decay": 1e-3}
    slow, fast = {"betas": (0.9, 0.99)}, {"betas": (0.0, 0.9)}
    return [
        Stage(
            "generator",
            preset.epochs,
            learning_rate=0.3 * rate,
            optimizer_options=slow,
            frozen=("critic",),
            settings={"stage": "generator"},
            **common,
        ),
        Stage(
            "critic",
            preset.epochs_of(10, of=4),
            learning_rate=rate,
            optimizer_options=slow,
            images=partial(first, 0.085),
            frozen=("generator",),
            settings={"stage": "critic"},
            **common,
        ),
        Stage(
            "gan",
            preset.epochs_of(6, of=4),
            learning_rate=gan_rate / preset.width,
            decay=constant,
            optimizer_options=fast,
            images=partial(first, 0.03),
            rates={"critic": 5.0},
            frozen=("generator.encoder",),
            settings={"stage": "gan"},
            **common,
        ),
    ]


def first(share: float, epoch: int, count: int) -> Sequence[int]:
    """The first images, this share of all, but at least `FEWEST`."""
    return range(min(count, max(FEWEST, round(share * count))))
