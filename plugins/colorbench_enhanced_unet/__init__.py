"""The Enhanced U-Net of Wang, Hu and Zhao: a frozen base, and a network that predicts what it got wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colorbench.contract import DiagnosticSpec, ModelSpec, Preset, Published, Stage
from colorbench.hooks import hookimpl

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

    from colorbench.report.diagnostics import View


VGG16 = "vgg16-397923af.pth"  # as torchvision names it
LOSSES = ("residual", "output", "perceptual", "diversity", "style", "attention")

# One change each; what the options mean is said in `colorbench_enhanced_unet.model.Options`.
ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "no-attention": {"attention": "none"},
    "attention-in-bottleneck": {"attention": "bottleneck"},
    "attention-teaches-trunk": {"attention_teaches": "trunk"},
    "no-prior": {"prior": "none"},
    "no-noise": {"t_max": 0},
    "no-luminance": {"sees": "ab"},
    **{f"no-{loss}-loss": {"weights": {loss: 0.0}} for loss in LOSSES},
    "diversity-as-printed": {"diversity": "penalty"},
    "diversity-as-reward": {"diversity": "reward"},
    "base-features": {"features": "model10"},
    "random-crops": {"crop": 0.75},
    "wider": {"channels": (96, 192, 384, 768)},
    "plain-residual-unet": {  # the exception: it leaves out whatever the paper adds to a U-Net under an L2 loss
        "attention": "none",
        "prior": "none",
        "t_max": 0,
        "weights": {loss: 0.0 for loss in LOSSES if loss != "residual"},
    },
}

# These train as their parent does: a change at test is no reason to train again.
ABLATIONS_AT_TEST: Mapping[str, Mapping[str, Any]] = {
    "two-steps": {"steps": 2},
    "mirrored": {"mirrored": True},
}


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    spec = ModelSpec(
        name="enhanced-unet",
        summary="Wang, Hu, Zhao: one-step residual refinement with color prior, noise and attention",
        build=build,
        schedule=schedule,
        options=cached_vgg(),
        refines="siggraph17",
        published=Published(
            source="Wang, Hu, Zhao: Beyond Black and White, Table 2",
            mse=63.812,
            psnr=30.500,
            ssim=0.983,
            note="its MSE alone is 30.082 dB: the PSNR is averaged over images or batches, GAN's is not",
        ),
    )
    register(spec)
    register(
        replace(
            spec,
            name="enhanced-unet-literal",
            summary="enhanced-unet with its diversity loss, its prior and its attention loss as printed",
            options={**spec.options, "diversity": "penalty", "prior": "literal", "attention_teaches": "trunk"},
            published=None,
        )
    )
    for change, options in ABLATIONS.items():
        register(spec.variant(change, **options))
    for change, options in ABLATIONS_AT_TEST.items():
        register(replace(spec.variant(change, **options), trained_as=spec.name))
    register(
        replace(
            spec.variant("averaged-weights"),
            summary="enhanced-unet with a running mean of its weights at the end of each stage",
            schedule=lambda preset: [replace(stage, average=0.999) for stage in schedule(preset)],
        )
    )
    register(
        replace(
            spec.variant("one-stage"),
            summary="enhanced-unet with noise, attention and all images from the start, for as many steps",
            schedule=lambda preset: [at_once(preset, {"noise": True, "attention": True})],
        )
    )
    register(
        replace(
            spec.variant("unseen-images"),
            summary="enhanced-unet trained on 40 % of the images, its base on the others: compare it with that base",
            refines="siggraph17/fewer-images",
            schedule=lambda preset: [replace(stage, part=(0.6, 1.0)) for stage in schedule(preset)],
        )
    )
    register(
        replace(
            spec.variant("from-mean-color"),
            summary="enhanced-unet on a constant color instead of siggraph17: what it learns by itself",
            refines="mean-color",
        )
    )
    # No gain can be credited to a refiner before its base has had as many steps.
    register(
        replace(
            spec.variant("siggraph17-longer"),
            summary="no refiner: siggraph17 trained for the refiner's steps more",
            build=build_longer,
            options={},
            schedule=lambda preset: [at_once(preset, {})],
        )
    )


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


def cached_vgg() -> dict[str, Path]:
    """The option `vgg`, if torch.hub's cache has the file: as an option it counts in what a result is bound to."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")
    file = Path(os.environ.get("TORCH_HOME", cache), "hub", "checkpoints", VGG16).expanduser()
    return {"vgg": file} if file.is_file() else {}


def build(*, width: float = 1.0, size: int = 256, base: nn.Module | None = None, **options: Any) -> nn.Module:
    """`options` are the fields of `colorbench_enhanced_unet.model.Options`."""
    from colorbench_enhanced_unet.model import EnhancedUNet, Options

    return EnhancedUNet(width, base, Options(**options))


def build_longer(*, width: float, size: int, base: nn.Module | None) -> nn.Module:
    from colorbench_enhanced_unet.longer import TrainedLonger

    return TrainedLonger(base)


def schedule(preset: Preset) -> list[Stage]:
    """Section 4 of the paper: first without attention, then with it, each time without noise to warm up.

    The 18 epochs "with 5 warm-up epochs" are read as 5 and 13. How many images the first 20 epochs see is not said:
    10,000, as those that follow. Optimizer and rate are not said either: those of the base.
    """

    def stage(name: str, epochs: int, images: int, *, noise: bool, attention: bool) -> Stage:
        return Stage(
            name,
            preset.epochs_of(epochs),
            learning_rate=1e-4 / preset.width,  # a narrow network needs the larger steps, as its base does
            images=preset.images_of(images),
            frozen=() if attention else ("attention",),
            settings={"noise": noise, "attention": attention},
        )

    return [
        stage("warm-up", 5, 10_000, noise=False, attention=False),
        stage("refine", 15, 10_000, noise=True, attention=False),
        stage("attention-warm-up", 5, 10_000, noise=False, attention=True),
        stage("attention", 13, 10_000, noise=True, attention=True),
        stage("more-images", 9, 24_000, noise=True, attention=True),
    ]


def at_once(preset: Preset, settings: Mapping[str, Any]) -> Stage:
    """One stage over all images in turn, for as many steps as those of the schedule together."""
    first, *others = schedule(preset)
    each = first.images or 1
    seen = sum(stage.epochs * (stage.images or 0) for stage in (first, *others))
    return replace(first, name="at once", epochs=round(seen / each), rolling=True, frozen=(), settings=settings)
