"""The laws of a degradation, checked on toy pictures with the code that asks a network in a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from colorbench.color import luminance
from colorbench.contract import DegradationSpec
from colorbench.harness.predict import damage_of
from colorbench.plugins import Registry
from colorbench.protocol import COLORBENCH
from colorbench.testing.pictures import guesses

IMAGES, SIZE = 4, 32
NAMES = [f"image-{index}" for index in range(IMAGES)]


class Degradation:
    """A degradation under the laws."""

    def __init__(self, spec: DegradationSpec) -> None:
        self.spec = spec
        self.registry = Registry()
        self.registry.specs["degradation"][spec.name] = spec
        self.rgb = guesses(IMAGES, SIZE, seed=0)[1]

    def apply(self, strength: float, rgb: Tensor | None = None, names: Sequence[str] = NAMES) -> Tensor:
        damaged = damage_of(replace(COLORBENCH, degradation=f"{self.spec.name}:{strength:g}"), self.registry)
        assert damaged
        return damaged(self.rgb if rgb is None else rgb, names)

    @cached_property
    def series(self) -> list[Tensor]:
        """What comes of the pictures at each strength."""
        return [self.apply(strength) for strength in self.spec.strengths]


def gives_luminance(degradation: Degradation) -> str:
    """At every strength L comes out, float32 in 0..100, also of black and of white."""
    for value in (0, 255):
        flat = torch.full_like(degradation.rgb, value)
        [degradation.apply(strength, flat) for strength in degradation.spec.strengths]
    return f"{len(degradation.series)} strengths"


def damages(degradation: Degradation) -> str:
    """It changes L, the more the stronger it is."""
    clean = luminance(degradation.rgb)
    changes = [(L - clean).abs().mean().item() for L in degradation.series]
    if not changes[0] or changes != sorted(changes):
        said = ", ".join(f"{change:.3g}" for change in changes)
        raise ValueError(f"the mean change of L by strength is {said}; let strengths begin with the least damage")
    return f"L changes by {changes[0]:.1f} to {changes[-1]:.1f} of 100"


def repeatable(degradation: Degradation) -> str:
    """The same image is damaged in the same way again, alone and in a batch, and nothing is written into it."""
    strength, before = degradation.spec.strengths[-1], degradation.rgb.clone()
    alone = [degradation.apply(strength, degradation.rgb[i : i + 1], NAMES[i : i + 1]) for i in range(IMAGES)]
    if not torch.allclose(torch.cat(alone), degradation.series[-1], atol=1e-3):
        raise ValueError("an image is damaged otherwise alone than in a batch; draw from its own seed alone")
    if not torch.equal(before, degradation.rgb):
        raise ValueError("it writes into the pictures; use operations that return a new tensor")
    return f"{IMAGES} images"


LAWS = ((gives_luminance,), (damages, repeatable))
