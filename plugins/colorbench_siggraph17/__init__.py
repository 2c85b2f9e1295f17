"""SIGGRAPH17: the CNN of Zhang, Zhu et al. 2017, the base that the paper's refiner starts from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from colorbench.contract import DiagnosticSpec, ModelSpec, Preset, Published, PublishedWeights, Stage
from colorbench.hooks import hookimpl
from colorbench_siggraph17.options import Options

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

    from colorbench.report.diagnostics import View

# The authors' own address and licence; size and hash as Open Model Zoo has them (openvinotoolkit/open_model_zoo,
# models/public/colorization-siggraph/model.yml).
WEIGHTS = PublishedWeights(
    file="siggraph17-df00044c.pth",
    url="https://colorizers.s3.us-east-2.amazonaws.com/siggraph17-df00044c.pth",
    page="https://github.com/richzhang/colorization",
    sha256="df00044c0a4d7c3edcecf6f75437ce346a66e7a42612d9b968e1a7e17dbc6f66",
    licence="BSD-2-Clause",
    trained_on="ImageNet",
    size=136_787_426,
)


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    spec = ModelSpec(
        name="siggraph17",
        summary="Zhang, Zhu et al. 2017: dilated VGG-like CNN, color classes and regression",
        build=build,
        schedule=schedule,
        options=Options(),
        reference=True,
        weights=[WEIGHTS],
        published=Published(
            source="Wang, Hu, Zhao: Beyond Black and White, Table 2",
            mse=78.807,
            psnr=29.634,
            ssim=0.982,
            note="its MSE alone is 29.165 dB: the PSNR is averaged over images or batches, GAN's is not",
        ),
    )
    register(spec)
    register(
        replace(
            spec.variant("hints", hints=True),
            summary="siggraph17 trained on random hints as its authors draw them, and colored by those of the protocol",
            takes=("hints",),
        )
    )
    register(
        replace(
            spec.variant("fewer-images"),
            summary="siggraph17 trained on the first 60 % of the images: what refines it can learn from the others",
            schedule=lambda preset: [replace(stage, images=first_images) for stage in schedule(preset)],
        )
    )


@hookimpl
def register_diagnostics(register: Callable[[DiagnosticSpec], None]) -> None:
    register(
        DiagnosticSpec(
            "hint-curve",
            "the PSNR by the number of color hints, beside the curve of the authors of siggraph17",
            draw=_draw_curve,
            caption="PSNR by the number of points whose true ab is given, with its 95 % interval; dashed what R. Zhang "
            "et al. 2017 print, of other data",
            page="comparison",
            notes=_sentences,
        )
    )


def _draw_curve(view: View) -> Figure | None:
    from colorbench_siggraph17.curve import draw

    return draw(view)


def _sentences(view: View) -> list[str]:
    from colorbench_siggraph17.curve import sentences

    return sentences(view)


def build(*, width: float = 1.0, size: int = 256, base: nn.Module | None = None, **options: Any) -> nn.Module:
    """`options` are the fields of `Options`."""
    from colorbench_siggraph17.model import Siggraph17

    return Siggraph17(width, Options(**options))


def first_images(epoch: int, count: int) -> range:
    """The first 60 % of the training images."""
    return range(round(0.6 * count))


def schedule(preset: Preset) -> list[Stage]:
    # 1e-4 is the authors' rate at full width. A weight of a narrow layer has fewer others to share a change
    # with, so that the rate has to grow as the width shrinks.
    return [Stage("base", preset.epochs_of(30, of=30), learning_rate=1e-4 / preset.width)]
