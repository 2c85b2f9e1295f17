"""The paper's "GAN": pix2pix, a U-Net generator against a PatchGAN discriminator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from colorbench.contract import ModelSpec, Preset, Published, Stage, constant, half_then_linear
from colorbench.hooks import hookimpl

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Options:
    """`encoder` is a file of timm's weights of a ResNet `generator`, or "random". Raises ValueError if it cannot be."""

    generator: Literal["unet", "resnet18", "resnet34"] = "unet"  # pix2pix's own, or a U-Net on this encoder of timm
    encoder: Path | Literal["random"] = "random"
    l1_weight: float = 100.0

    def __post_init__(self) -> None:
        if self.generator == "unet" and isinstance(self.encoder, Path):
            raise ValueError("the generator unet takes no weights of an encoder; set generator to resnet18 or resnet34")


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    spec = ModelSpec(
        name="gan",
        summary="pix2pix: a U-Net under L1 and the judgement of a 70x70 PatchGAN",
        build=build,
        schedule=pix2pix,
        options=Options(),
        published=Published(
            source="Wang, Hu, Zhao: Beyond Black and White, Table 2",
            mse=368.143,
            psnr=22.471,
            ssim=0.921,
            note="this PSNR is 10 log10(255^2 / MSE), pooled; the other rows' are means over images",
        ),
    )
    register(spec)
    summary = "gan with a U-Net on a ResNet18 as its generator, which first learns by L1 alone"
    register(replace(spec.variant("resnet18", generator="resnet18"), summary=summary, schedule=pretrained))


def build(*, width: float = 1.0, size: int = 256, base: nn.Module | None = None, **options: Any) -> nn.Module:
    """`options` are the fields of `Options`; `encoder` is None if its weights are still to be loaded."""
    from colorbench_gan.model import Pix2Pix

    return Pix2Pix(width, size, Options(**options))


def pix2pix(preset: Preset) -> list[Stage]:
    return [_adversarial(preset.epochs, half_then_linear)]


def pretrained(preset: Preset) -> list[Stage]:
    """M. Shariatnia, "Colorizing black & white images with U-Net and conditional GAN", Towards Data Science 2020:
    20 epochs of the generator by L1 alone, then 20 with the discriminator."""
    epochs, alone = preset.epochs_of(20, of=40), {"adversarial": False}
    first = Stage("l1", epochs, learning_rate=1e-4, decay=constant, frozen=("discriminator",), settings=alone)
    return [first, _adversarial(epochs, constant)]


def _adversarial(epochs: int, decay: Callable[[float], float]) -> Stage:
    return Stage("train", epochs, learning_rate=2e-4, decay=decay, optimizer_options={"betas": (0.5, 0.999)})
