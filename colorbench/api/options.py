"""What a run is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from colorbench.contract import ModelSpec, Preset
from colorbench.protocol import COLORBENCH


@dataclass(frozen=True)
class Options:
    """What `run` and `plan` are asked for.

    `again` names models to train anew, `keep` stale ones to use as they are; "all" stands for every one; if `remakes`,
    what is stale is made again in its place, for where that costs next to nothing. `predictions` is how many of the
    test split to keep, None for all. `pictures` are rows made elsewhere, which `models` name, too.
    """

    models: Sequence[str]
    data: str
    preset: Preset
    out: Path
    seeds: Sequence[int] = (0,)
    weights: Mapping[str, Path] = field(default_factory=dict)
    plugin_files: Sequence[Path] = ()
    protocol: str = COLORBENCH.name
    pictures: Sequence[ModelSpec] = ()
    again: Sequence[str] = ()
    keep: Sequence[str] = ()
    remakes: bool = False
    predictions: int | None = None
    timing: bool = True
    command: str = "colorbench.run"
