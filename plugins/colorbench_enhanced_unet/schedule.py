"""Section 4 of the paper: how the refiner is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from colorbench.contract import Preset, Stage

BASE_EPOCHS, BASE_IMAGES = 30, 60_000  # of the base's training


def section_4(preset: Preset) -> list[Stage]:
    """First without attention, then with it, each time without noise to warm up.

    The 18 epochs "with 5 warm-up epochs" are read as 5 and 13. How many images the first 20 epochs see is not said:
    10,000, as those that follow. Optimizer and rate are not said either: those of the base.
    """

    def stage(name: str, epochs: int, images: int, *, noise: bool, attention: bool) -> Stage:
        return Stage(
            name,
            preset.epochs_of(epochs, of=BASE_EPOCHS),
            learning_rate=1e-4 / preset.width,  # a narrow network needs the larger steps, as its base does
            images=preset.images_of(images, of=BASE_IMAGES),
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


def of_both_tones(preset: Preset) -> list[Stage]:
    """The schedule for the two models of `tones.py` at once, behind a look at the tones of the first stages' images."""
    stages = [
        replace(stage, frozen=tuple(f"{tone}.{name}" for tone in ("warm", "cool") for name in stage.frozen))
        for stage in section_4(preset)
    ]
    return [Stage("tones", images=stages[0].images, measures=True), *stages]


def at_once(preset: Preset, settings: Mapping[str, Any]) -> Stage:
    """One stage over all images in turn, for as many steps as those of the schedule together."""
    stages = section_4(preset)
    counts = [stage.images for stage in stages if isinstance(stage.images, int)]
    epochs = round(sum(stage.epochs * count for stage, count in zip(stages, counts, strict=True)) / counts[0])
    return replace(stages[0], name="at once", epochs=epochs, images=in_turn(counts[0]), frozen=(), settings=settings)


def in_turn(each: int) -> Callable[[int, int], list[int]]:
    """So many images an epoch, those that come next, until all have had their turn."""

    def images(epoch: int, count: int) -> list[int]:
        taken = min(each, count)
        return [i % count for i in range((epoch - 1) * taken, epoch * taken)]

    return images
