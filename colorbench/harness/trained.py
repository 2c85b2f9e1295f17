"""Trained networks: from a run folder, or from a weight file that the authors of a model published."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from colorbench import published
from colorbench.contract import ModelSpec
from colorbench.errors import UserError, reason, refuse_unknown, shown, whatever_raised
from colorbench.harness.networks import build, build_published, load_weights
from colorbench.options import recorded_spec
from colorbench.plugins import Registry, load
from colorbench.runs.fields import changes_since
from colorbench.runs.folder import WEIGHTS, RunFolder
from colorbench.runs.records import CellRecord


class Loaded(NamedTuple):
    """A trained network in evaluation mode, its model, and the side in pixels of the images that it colors best."""

    network: nn.Module
    spec: ModelSpec
    size: int


def load_model(
    name: str,
    weights: str | Path | None = None,
    run: str | Path | None = None,
    seed: int | None = None,
    device: str | torch.device = "cpu",
    plugins: str | Path | Iterable[str | Path] = (),
) -> nn.Module:
    """A trained network in evaluation mode: L (B, 1, H, W) in 0..100 -> ab (B, 2, H, W), Lab units.

    Either `weights`, a file of published weights or "published" for those that are kept here, or `run`, a run folder
    (its first finished seed, or `seed`), with the options that it was trained with; `plugins` are files with plugins.
    Says on standard error if the model's code has changed since. Raises UserError when the model is unknown, was not
    trained in that run, or the weights are not kept, do not fit or are damaged.
    """
    return _placed(find_model(load(plugins), name, weights, run, seed).network, device)


def _placed(network: nn.Module, device: str | torch.device) -> nn.Module:
    try:
        return network.to(device).eval()
    except (AssertionError, RuntimeError, TypeError) as error:  # torch raises all three where there is no such device
        raise UserError(f"device is {shown(device)}, which cannot be used ({reason(error)}); give 'cpu'") from error


def find_model(
    registry: Registry, name: str, weights: str | Path | None, run: str | Path | None, seed: int | None = None
) -> Loaded:
    """What `load_model` loads, with plugins that are loaded already."""
    if not isinstance(weights, str | os.PathLike | None):
        raise UserError(f"weights is {shown(weights)}; give the path of a file")
    if weights is not None and run is None:
        spec = _colorizing(registry.find("model", [name])[0])
        file = published.resolved(registry, {name: Path(weights)})[name]
        return Loaded(build_published(spec, spec.published_size, file).eval(), spec, spec.published_size)
    if run is None or weights is not None:
        raise UserError(f"to load {name!r} give either weights=FILE or run=FOLDER")
    folder = RunFolder(run)
    cells = [cell for cell in (folder.cells() if folder.exists() else ()) if cell.model == name]
    if any("pictures" in cell.made_from for cell in cells):
        raise UserError(f"{name!r} was made elsewhere: it has pictures, no network; name another model")
    trained = [cell for cell in cells if cell.has_weights and seed in (None, cell.seed)]
    known = recorded_spec(registry, trained[0]) if trained else None
    if trained and known is None:
        raise UserError(f"{name!r} of {folder.path} is not installed; give its plugin, which was {trained[0].origin}")
    if folder.exists() and not known and name not in registry.specs["model"]:
        trained_here = dict.fromkeys(cell.model for cell in folder.cells() if cell.has_weights)
        refuse_unknown(f"model of {folder.path}", [name], trained_here)
    spec = _colorizing(known or registry.find("model", [name])[0])
    if folder.record and not trained:
        raise UserError(f"{folder.path} has no finished {name!r}" + (f" of seed {seed}" if seed is not None else ""))
    if why := changes_since(folder, trained[0], registry):
        print(f"{name} of {folder.path} was made otherwise, and is used as it is: {'; '.join(why)}", file=sys.stderr)
    network = load_cell(folder, name, trained[0].seed, registry).eval()
    return Loaded(network, spec, folder.record.preset.size)


def _colorizing(spec: ModelSpec) -> ModelSpec:
    if spec.pictures or spec.sees_truth:
        lacks = "has pictures, no network" if spec.pictures else "needs the true colors"
        raise UserError(f"{spec.name!r} {lacks}; name another model")
    return spec


def load_cell(run: RunFolder, model: str, seed: int, registry: Registry) -> nn.Module:
    """The network that a trained cell holds, on its base from the same run.

    Raises UserError if either is gone, damaged, or cannot be built.
    """
    record = run.cell(model, seed)
    spec = recorded_spec(registry, record) or registry.find("model", [model])[0]
    if not record.has_weights:
        raise UserError(f"{run.path} has no trained {model!r} of seed {seed}: {record.reason}")
    base = load_base(run, record, spec, registry)
    try:
        return with_weights(record, run.cell_dir(model, seed), spec, base, run.record.preset.size)
    except UserError:
        raise
    except whatever_raised() as error:
        raise UserError(f"{model!r} of {run.path} cannot be built again: {reason(error)}") from error


def load_base(run: RunFolder, record: CellRecord, spec: ModelSpec, registry: Registry) -> nn.Module | None:
    """What a trained cell was trained on, None if it refines nothing. Raises UserError if `run` holds other weights."""
    if not spec.refines:
        return None
    if run.cell(spec.refines, record.seed).weights_sha256 != record.made_from.get("base", {}).get("weights"):
        raise UserError(
            f"{spec.name!r} was trained on other weights of {spec.refines!r} than {run.path} holds now; train it again"
        )
    return load_cell(run, spec.refines, record.seed, registry)


def with_weights(record: CellRecord, cell_dir: Path, spec: ModelSpec, base: nn.Module | None, size: int) -> nn.Module:
    """The network of `spec` on `base` with a cell's weights. Raises UserError if they are damaged or do not fit."""
    network = build(spec, record.width, size, base, record.seed)
    load_weights(network, cell_dir / WEIGHTS, base, record.files.get(WEIGHTS, ""))
    return network
