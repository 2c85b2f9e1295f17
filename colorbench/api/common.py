"""Used by every command: the plugins, the images, one process per cell, and progress messages."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from colorbench.api.kinds import refuse_other_kinds
from colorbench.color import recombine
from colorbench.contract import ModelSpec, Preset
from colorbench.data.cache import Data, decode_all
from colorbench.data.loader import to_lab
from colorbench.data.splits import has_to_be_complete, open_splits, refuse_inside
from colorbench.errors import UserError, refuse_unknown, why_no_file
from colorbench.harness import device
from colorbench.harness.cell import make, packed
from colorbench.harness.predict import damage_of, to_pixels
from colorbench.harness.preflight import check_protocol
from colorbench.harness.scoring import SAMPLES
from colorbench.plugins import Registry, load, paths_of
from colorbench.protocol import Protocol
from colorbench.runs import executors
from colorbench.runs import folder as files
from colorbench.runs.context import CellRequest, Context
from colorbench.runs.environment import environment
from colorbench.runs.folder import RunFolder
from colorbench.runs.records import DONE, FAILED, TRAINED, CellRecord


def paths_given(
    data: str | Path | None, plugins: str | Path | Sequence[str | Path], weights: Mapping[str, str | Path] | None
) -> tuple[Any, tuple[Path, ...], dict[str, Path]]:
    """The data as text (or None), the plugin files, and the weights by name. Raises UserError for other types."""
    given = {"data": data, "plugins": plugins, "weights": weights}
    refuse_other_kinds({name: value for name, value in given.items() if value is not None})
    files = {name: Path(file) for name, file in (weights or {}).items()}
    return data if data is None else str(data), paths_of(plugins), files


def load_registry(
    plugin_files: Sequence[Path], weights: Mapping[str, Path], models: Sequence[str] = (),
    pictures: Sequence[ModelSpec] = (),
) -> Registry:  # fmt: skip
    """The plugins, with weights for metrics and `models`. Raises UserError for a name that takes no weights."""
    for name, file in weights.items():
        if why := why_no_file(file, or_folder=name not in models):
            raise UserError(f"cannot read --weights {name}={file}: {why}; name a file")
    registry = load(plugin_files, pictures=pictures, weights=weights)
    metrics = {name: metric for name, metric in registry.specs["metric"].items() if metric.takes_weights}
    what = "model that runs, or metric," if models else "metric"
    refuse_unknown(f"{what} for --weights", weights, [*models, *metrics])
    for name, file in weights.items():
        if (metric := metrics.get(name)) and metric.missing:
            if not metric.settings:
                raise UserError(f"--weights {name}={file}: the metric {name} cannot be computed: {metric.missing}")
            warn(f"the metric {name} is not computed: {metric.missing}")
    return registry


def make_context(
    folder: RunFolder, registry: Registry, source: str, limits: Mapping[str, int | None], preset: Preset,
    protocol: Protocol, **others: Any,
) -> Context:  # fmt: skip
    """The context of a command on this machine, with its images decoded; `others` are further fields of it.

    Raises UserError for a protocol that the code, or no plugin for its degradation, knows.
    """
    protocol = replace(protocol, size=preset.size)
    check_protocol(protocol)
    damage_of(protocol, registry)
    refuse_inside(folder.path, source, registry)
    found = open_splits(source, registry, limits)
    data = decode_all(source, found, protocol, has_to_be_complete(source, registry))
    env = environment(registry.plugins, device.describe())
    return Context(folder, registry, source, data, preset, protocol, env, **others)


def sample_pictures(data: Data) -> bytes:
    """The first test images for the figures: an .npz with `names`, `truth`, `grey`, and `parts` if there are any."""
    test = data.splits["test"]
    truth = test.pixels[:SAMPLES]
    L, ab = to_lab(truth, torch.device("cpu"))
    grey = to_pixels(recombine(L, torch.zeros_like(ab)))
    masks = {name: array[:SAMPLES] for name, array in test.arrays.items() if array.dtype == bool}
    if masks:
        parts = np.stack([*masks.values()])
        # Where masks overlap, the first counts; a pixel in none gets the number after the last.
        numbers = np.where(parts.any(0), parts.argmax(0), len(parts)).astype(np.uint8)
    named = {"parts": numbers, "part_names": np.array([*masks])} if masks else {}
    return packed(names=np.array(test.names[:SAMPLES]), truth=np.array(truth), grey=grey, **named)


def ask(check: Callable[[Any], Any], request: Any, what: str) -> Any:
    """Run a check in a separate process. Raises UserError, also if that process ends."""
    try:
        return executors.call(check, request)
    except executors.EndedError as error:
        raise UserError(f"{what} cannot be checked: {error}; repair or remove the plugin") from error


def make_apart(request: CellRequest) -> CellRecord:
    """Make a cell in a separate process. If the process ends early, the record has the reason."""
    if device.world()[1] > 1:
        return make(request)
    try:
        record = executors.call(make, request)
        for name, why in record.failed_diagnostics.items():
            warn(f"{record.model} seed {record.seed}: the diagnostic {name} failed: {why}")
        return record
    except executors.EndedError as error:
        return write_outcome(request.cell_dir, _as_left(request), None, str(error))


def _as_left(request: CellRequest) -> CellRecord:
    """The record of a cell whose process has ended: with the weights that it had saved by then."""
    record = request.record
    with contextlib.suppress(FileNotFoundError, UserError):
        there = files.read_cell(request.cell_dir, record.model, record.seed)
        return there if there.key == record.key and there.has_weights else record
    return record


def write_outcome(cell_dir: Path, record: CellRecord, status: Any, why: str) -> CellRecord:
    """Write why a cell is not done. Without a `status`, the cell is trained if it has weights and failed otherwise."""
    record.status, record.reason = status or (TRAINED if record.has_weights else FAILED), why
    if device.world()[0] == 0:
        files.write_cell(cell_dir, record)
    return record


def say_outcome(record: CellRecord) -> None:
    text = f"{record.model} seed {record.seed}: {record.status} {record.reason or ''}".rstrip()
    (say if record.status == DONE else warn)(text)


def say(text: str, level: int = logging.INFO) -> None:
    """Log one line of progress, from one process only."""
    if device.world()[0] == 0:
        logging.getLogger("colorbench").log(level, text)


warn = partial(say, level=logging.WARNING)
