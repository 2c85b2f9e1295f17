"""The paper's "standard CNN": an encoder-decoder that regresses ab under an L2 loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from colorbench.contract import ModelSpec, Published, Stage
from colorbench.hooks import hookimpl

if TYPE_CHECKING:
    from torch import nn


def _build(*, width: float, size: int, base: nn.Module | None) -> nn.Module:
    from colorbench_cnn.model import Options, RegressionCNN

    return RegressionCNN(Options(width=width))


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    register(
        ModelSpec(
            name="cnn",
            summary="L2 regression with a plain encoder-decoder of ours, no skip connections",
            build=_build,
            schedule=lambda preset: (Stage("train", preset.epochs, learning_rate=1e-3),),
            published=Published(
                source="Wang, Hu, Zhao: Beyond Black and White, Table 2", mse=337.021, psnr=24.673, ssim=0.926
            ),
        )
    )
