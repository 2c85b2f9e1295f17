"""The paper's "standard CNN": an encoder-decoder that regresses ab under an L2 loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from colorbench.contract import ModelSpec, Published, Stage
from colorbench.hooks import hookimpl

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Options:
    """Raises ValueError for a number of channels or blocks below 1."""

    channels: int = 64  # at full resolution; twice as many at each of the three halvings, all times the width
    blocks: int = 2  # of three convolutions each at H/8; all but the first are dilated
    loss: Literal["l2", "l1", "huber"] = "l2"  # of ab / 110

    def __post_init__(self) -> None:
        if self.channels < 1 or self.blocks < 1:
            raise ValueError(f"channels is {self.channels} and blocks {self.blocks}; at least 1 is due")


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    register(
        ModelSpec(
            name="cnn",
            summary="L2 regression with a plain encoder-decoder of ours, no skip connections",
            build=build,
            schedule=lambda preset: (Stage("train", preset.epochs, learning_rate=1e-3),),
            options=Options(),
            published=Published(
                source="Wang, Hu, Zhao: Beyond Black and White, Table 2", mse=337.021, psnr=24.673, ssim=0.926
            ),
        )
    )


def build(*, width: float = 1.0, size: int = 256, base: nn.Module | None = None, **options: Any) -> nn.Module:
    """`options` are the fields of `Options`."""
    from colorbench_cnn.model import RegressionCNN

    return RegressionCNN(width, Options(**options))
