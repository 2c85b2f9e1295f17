"""One change each to `enhanced-unet`; what its options mean is said in `options.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from colorbench.contract import ModelSpec, Preset, Stage, untrained
from colorbench_enhanced_unet.options import LOSSES, Tone, ToneOptions
from colorbench_enhanced_unet.schedule import at_once, of_both_tones, section_4

if TYPE_CHECKING:
    from torch import nn

CHANGES: Mapping[str, Mapping[str, Any]] = {
    "no-attention": {"attention": "none"},
    "attention-in-bottleneck": {"attention": "bottleneck"},
    "attention-teaches-trunk": {"attention_teaches": "trunk"},
    "no-prior": {"prior": "none"},
    "no-noise": {"t_max": 0},
    "no-luminance": {"sees": "ab"},
    **{f"no-{loss}-loss": {f"{loss}_loss": 0.0} for loss in LOSSES},
    "diversity-as-printed": {"diversity": "penalty"},
    "diversity-as-reward": {"diversity": "reward"},
    "base-features": {"features": "model10"},
    "random-crops": {"crop": 0.75},
    "wider": {"channels": (96, 192, 384, 768)},
    "plain-residual-unet": {  # the exception: it leaves out whatever the paper adds to a U-Net under an L2 loss
        "attention": "none",
        "prior": "none",
        "t_max": 0,
        **{f"{loss}_loss": 0.0 for loss in LOSSES if loss != "residual"},
    },
}
CHANGES_AT_TEST: Mapping[str, Mapping[str, Any]] = {  # no reason to train again
    "two-steps": {"steps": 2},
    "mirrored": {"mirrored": True},
}


def ablations_of(spec: ModelSpec) -> Iterator[ModelSpec]:
    """Each ablation of `enhanced-unet`, in the order of the table."""
    for change, options in CHANGES.items():
        yield spec.variant(change, **options)
    for change, options in CHANGES_AT_TEST.items():
        yield replace(spec.variant(change, **options), trained_as=spec.name, schedule=untrained)
    yield replace(
        spec.variant("averaged-weights"),
        summary="enhanced-unet with a running mean of its weights at the end of each stage",
        schedule=lambda preset: [replace(stage, average=0.999) for stage in section_4(preset)],
    )
    yield replace(
        spec.variant("one-stage"),
        summary="enhanced-unet with noise, attention and all images from the start, for as many steps",
        schedule=lambda preset: [at_once(preset, {"noise": True, "attention": True})],
    )
    yield replace(
        spec.variant("unseen-images"),
        summary="enhanced-unet trained on 40 % of the images, its base on the others: compare it with that base",
        refines="siggraph17/fewer-images",
        schedule=on_unseen,
    )
    yield replace(
        spec.variant("from-mean-color"),
        summary="enhanced-unet on a constant color instead of siggraph17: what it learns by itself",
        refines="mean-color",
    )
    # No gain can be credited to a refiner before its base has had as many steps.
    yield replace(
        spec.variant("siggraph17-longer"),
        summary="no refiner: siggraph17 trained for the refiner's steps more",
        build=build_longer,
        options={},
        schedule=lambda preset: [at_once(preset, {})],
    )
    yield from for_tones(spec)


def for_tones(spec: ModelSpec) -> Iterator[ModelSpec]:
    """Section 6 of the paper: a model for warm images and one for cool ones, trained in one go."""
    both = replace(
        spec.variant("warm-cool"),
        summary="an enhanced-unet for warm and one for cool images, chosen by the tone of the base's colors",
        build=build_tones,
        options=ToneOptions(**spec.option_values),
        schedule=of_both_tones,
    )
    yield both
    chosen: Mapping[str, tuple[Tone, str]] = {
        "warm": ("warm", "enhanced-unet trained on the warmer half of the images"),
        "cool": ("cool", "enhanced-unet trained on the cooler half of the images"),
        "warm-cool-oracle": ("truth", "the two of warm-cool, chosen by the tone of the truth, which only a test knows"),
    }
    for change, (tone, summary) in chosen.items():
        yield replace(
            both,
            name=f"{spec.name}/{change}",
            summary=summary,
            options=ToneOptions(**spec.option_values, tone=tone),
            schedule=untrained,
            trained_as=both.name,
            sees_truth=tone == "truth",
        )


def on_unseen(preset: Preset) -> list[Stage]:
    return [on_unseen_images(stage) for stage in section_4(preset)]


def on_unseen_images(stage: Stage) -> Stage:
    """The stage with as many images of the last 40 %, which `siggraph17/fewer-images` does not see."""
    most = stage.images if isinstance(stage.images, int) else None
    return replace(stage, images=lambda epoch, count: range(round(0.6 * count), count)[:most])


def build_longer(*, width: float, size: int, base: nn.Module | None) -> nn.Module:
    from colorbench_enhanced_unet.longer import TrainedLonger

    return TrainedLonger(base)


def build_tones(*, width: float, size: int, base: nn.Module | None, **options: Any) -> nn.Module:
    from colorbench_enhanced_unet.tones import TwoTones

    return TwoTones(width, base, ToneOptions(**options))
