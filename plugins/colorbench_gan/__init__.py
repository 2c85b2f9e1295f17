"""The paper's "GAN": pix2pix, a U-Net generator against a PatchGAN discriminator."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from colorbench.contract import ModelSpec, Published, Stage, half_then_linear
from colorbench.hooks import hookimpl

if TYPE_CHECKING:
    from torch import nn


def _build(*, width: float, size: int, base: nn.Module | None) -> nn.Module:
    from colorbench_gan.model import Options, Pix2Pix

    return Pix2Pix(Options(width, size))


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    register(
        ModelSpec(
            name="gan",
            summary="pix2pix: a U-Net under L1 and the judgement of a 70x70 PatchGAN",
            build=_build,
            schedule=lambda preset: (
                Stage(
                    "train",
                    preset.epochs,
                    learning_rate=2e-4,
                    decay=half_then_linear,
                    optimizer_options={"betas": (0.5, 0.999)},
                ),
            ),
            published=Published(
                source="Wang, Hu, Zhao: Beyond Black and White, Table 2",
                mse=368.143,
                psnr=22.471,
                ssim=0.921,
                note="this PSNR is 10 log10(255^2 / MSE), pooled; the other rows' are means over images",
            ),
        )
    )
