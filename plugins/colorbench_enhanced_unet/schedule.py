"""Section 4 of the paper: how the refiner is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from colorbench.contract import Preset, Stage


def section_4(preset: Preset) -> list[Stage]:
    """First without attention, then with it, each time without noise to warm up.

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
    first, *others = section_4(preset)
    each = first.images or 1
    seen = sum(stage.epochs * (stage.images or 0) for stage in (first, *others))
    return replace(first, name="at once", epochs=round(seen / each), rolling=True, frozen=(), settings=settings)
