"""Published weights on this machine: where they are kept, which are known, and what `--weights NAME` stands for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import platformdirs

from colorbench.contract import PUBLISHED, MetricSpec, ModelSpec, PublishedWeights
from colorbench.errors import UserError, refuse_unknown
from colorbench.plugins import Registry

Spec = ModelSpec | MetricSpec
KINDS = "model", "metric"  # of what takes weights


def folder() -> Path:
    """Where the files are kept: `$COLORBENCH_WEIGHTS`, or a folder of the user's data."""
    return Path(os.environ.get("COLORBENCH_WEIGHTS") or Path(platformdirs.user_data_dir("colorbench"), "weights"))


def find_weights(file: str) -> Path | None:
    """The file of this name among the kept weights, or else in torch.hub's cache; None if it is in neither."""
    # Where torch.hub keeps weights, found without importing torch.
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")
    hub = Path(os.environ.get("TORCH_HOME", cache), "hub", "checkpoints").expanduser()
    return next((place / file for place in (folder(), hub) if (place / file).is_file()), None)


def known(registry: Registry) -> dict[str, tuple[Spec, PublishedWeights]]:
    """The published weights that plugins name, by file, each with the first model or metric that takes them.

    Raises UserError if two plugins say different things of one file.
    """
    found: dict[str, tuple[Spec, PublishedWeights]] = {}
    for spec in _takers(registry).values():
        for weights in spec.weights:
            first, same = found.setdefault(weights.file, (spec, weights))
            if same != weights:
                raise UserError(f"{first.name} and {spec.name} differ about {weights.file}; change one of the plugins")
    return found


def chosen(registry: Registry, name: str) -> tuple[Spec, PublishedWeights]:
    """The weights called `name`: a file, or the first that a model or metric takes.

    Raises UserError if there are none.
    """
    files, takers = known(registry), _takers(registry)
    if any(name in registry.specs[kind] for kind in KINDS) and name not in takers:
        raise UserError(f"no published weights of {name} are known; give --weights or --initial {name}=FILE")
    refuse_unknown("published weights", [name], [*takers, *files])
    return files.get(name) or (takers[name], takers[name].weights[0])


def _takers(registry: Registry) -> dict[str, Spec]:
    return {name: spec for kind in KINDS for name, spec in registry.specs[kind].items() if spec.weights}


def resolved(registry: Registry, given: Mapping[str, Path]) -> dict[str, Path]:
    """Files by model, with the kept one for "published" or for the name of a published file that is not here.

    Raises UserError if it is not kept.
    """
    return {name: kept(registry, name, file) if _stands_for_kept(registry, name, file) else file
            for name, file in given.items()}  # fmt: skip


def kept(registry: Registry, model: str, word: str | Path = PUBLISHED) -> Path:
    """The kept file of a model. Raises UserError if there is none, or if it is damaged."""
    _, weights = chosen(registry, model if str(word) == PUBLISHED else str(word))
    get = f"run colorbench weights fetch {model}" if weights.url else f"get it from {weights.page}"
    if not (file := folder() / weights.file).is_file():
        raise UserError(f"{weights.file} is not kept here; {get}, or colorbench weights add {model} FILE")
    if why := why_unsound(weights, file):
        raise UserError(f"{file} is damaged: {why}; {get}")
    return file


def _stands_for_kept(registry: Registry, model: str, file: Path) -> bool:
    if (spec := registry.specs["model"].get(model)) is None:
        if model in registry.specs["metric"] and str(file) == PUBLISHED and not file.exists():
            raise UserError(f"--weights {model}: write NAME=FILE")  # a metric finds what is kept by itself
        return False
    named = str(file) in {weights.file for weights in spec.weights} and not file.exists()
    return named or str(file) == PUBLISHED


def why_unsound(weights: PublishedWeights, file: Path) -> str:
    """Why a file is not these weights, by its size and hash; "" if it is. Raises OSError."""
    if weights.size and (size := file.stat().st_size) != weights.size:
        return f"it has {size:,} bytes, not {weights.size:,}"
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return "" if sha256.startswith(weights.sha256) else f"its SHA-256 is {sha256[:12]}…, not {weights.sha256[:12]}…"
