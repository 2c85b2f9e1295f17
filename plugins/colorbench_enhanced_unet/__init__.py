"""The Enhanced U-Net of Wang, Hu and Zhao: a frozen base, and a network that predicts what it got wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from colorbench.contract import DiagnosticSpec, ModelSpec, Published
from colorbench.hooks import hookimpl
from colorbench.published import find_weights
from colorbench_enhanced_unet.ablations import ablations_of
from colorbench_enhanced_unet.options import Options
from colorbench_enhanced_unet.schedule import section_4

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

    from colorbench.report.diagnostics import View

VGG16 = "vgg16-397923af.pth"  # as torchvision names it


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    spec = ModelSpec(
        name="enhanced-unet",
        summary="Wang, Hu, Zhao: one-step residual refinement with color prior, noise and attention",
        build=build,
        schedule=section_4,
        options=Options(vgg=find_weights(VGG16)),  # an option, so that it counts in what a result is bound to
        refines="siggraph17",
        published=Published(
            source="Wang, Hu, Zhao: Beyond Black and White, Table 2",
            mse=63.812,
            psnr=30.500,
            ssim=0.983,
            note="its MSE alone is 30.082 dB: the PSNR is averaged over images or batches, GAN's is not",
        ),
    )
    literal = spec.variant("literal", diversity="penalty", prior="literal", attention_teaches="trunk")
    summary = "enhanced-unet with its diversity loss, its prior and its attention loss as printed"
    register(spec)
    register(replace(literal, name="enhanced-unet-literal", parent=None, summary=summary))
    for ablation in ablations_of(spec):
        register(ablation)


@hookimpl
def register_diagnostics(register: Callable[[DiagnosticSpec], None]) -> None:
    """The paper's claim is a gain over a trained base, and almost anything refines an undertrained one."""
    register(
        DiagnosticSpec(
            "base-curve",
            "what a refiner gains over its base, by how long that was trained",
            draw=_draw_curve,
            caption="MSE gain of a refiner over its own base, with its 95 % interval, and the MSE of both, by images "
            "that the base saw in training",
            page="ablations",
            notes=_sentences,
        )
    )


def _draw_curve(view: View) -> Figure | None:
    from colorbench_enhanced_unet.curve import draw

    return draw(view)


def _sentences(view: View) -> list[str]:
    from colorbench_enhanced_unet.curve import sentences

    return sentences(view)


def build(*, width: float = 1.0, size: int = 256, base: nn.Module | None = None, **options: Any) -> nn.Module:
    """`options` are the fields of `Options`."""
    from colorbench_enhanced_unet.model import EnhancedUNet

    return EnhancedUNet(width, base, Options(**options))
