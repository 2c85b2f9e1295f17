"""Score pictures made elsewhere, in a separate table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from colorbench.api.run import Run
from colorbench.api.settings import Settings, options_of
from colorbench.api.train import train
from colorbench.contract import Preset
from colorbench.data.splits import dataset_name
from colorbench.plugins import load
from colorbench.runs.fields import own_fields

PRESET = Preset("pictures", "", size=256, width=1.0, batch_size=1, epochs=1, train=0, val=0)


def score_pictures(
    pictures: Mapping[str, str | Path] | Sequence[str], truth: str | Path, /, **settings: Unpack[Settings]
) -> Run:
    """Score folders or zips of pictures against the true test images, `truth`.

    Models that need no training are added as rows. Raises UserError if no pictures or no data can be found.
    """
    registry = load(settings.get("plugins", ()))
    free = [spec for spec in registry.specs["model"].values() if not (spec.parent or spec.refines or spec.trained_as)]
    floors = [spec.name for spec in free if not own_fields(spec, PRESET, registry, untrained=False)["stages"]]
    out = Path("results", "-".join([dataset_name(str(truth)), PRESET.name, *filter(None, [settings.get("protocol")])]))
    given: Settings = {"preset": PRESET, "pictures": pictures, "timing": False, "out": out}
    given.update(settings)
    return train(replace(options_of(floors, truth, given), remakes=True))
