"""Score the trained models of a run on other images."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from colorbench.api.common import (
    load_registry,
    make_apart,
    make_context,
    paths_given,
    sample_pictures,
    say_outcome,
    warn,
    write_outcome,
)  # fmt: skip
from colorbench.api.run import Run, reported
from colorbench.contract import Preset
from colorbench.data.splits import dataset_name
from colorbench.errors import UserError, refuse_empty
from colorbench.options import recorded_spec
from colorbench.plugins import Registry
from colorbench.protocol import Protocol
from colorbench.runs import folder as files
from colorbench.runs.context import Context
from colorbench.runs.fields import changes_since, code_to_predict
from colorbench.runs.folder import RunFolder, cell_name
from colorbench.runs.identity import predictions_key
from colorbench.runs.records import DONE, FAILED, TRAINED, CellRecord, Trained, protocol_of


def evaluate(
    run: str | Path, data: str | Path, out: str | Path | None = None,
    plugins: str | Path | Sequence[str | Path] = (), weights: Mapping[str, str | Path] | None = None,
    protocol: str | None = None,
) -> Run:  # fmt: skip
    """Score every trained cell of `run` on the test images of `data`, at the run's size, under its protocol or another.

    `weights` are files for metrics, by name. Returns the run with the scores, in `out` or in a folder inside `run`. A
    model that fails or is not installed is a cell with the reason. Raises UserError if this version does not know the
    run's protocol and no other is named, for an unknown protocol, and if the run has no finished cell.
    """
    refuse_empty(out=out, protocol=protocol)
    images, plugin_files, given_weights = paths_given(data, plugins, weights)
    source, registry = RunFolder(run), load_registry(plugin_files, given_weights)
    record = source.record
    preset = Preset(summary="", **msgspec.structs.asdict(record.preset) | {"test": None})
    chosen = protocol_to_score(source, registry, protocol)
    done = [cell for cell in source.cells() if cell.has_weights]
    cells = [cell for cell in done if "pictures" not in cell.made_from]
    if elsewhere := dict.fromkeys(cell.model for cell in done if "pictures" in cell.made_from):
        warn(f"left out, made elsewhere, with pictures of that run's test images alone: {', '.join(elsewhere)}")
    if not cells:
        raise UserError(f"{source.path} has no finished model to evaluate; finish the run first")
    target = RunFolder(out or source.path / "evaluations" / "-".join([dataset_name(images), *filter(None, [protocol])]))
    context = make_context(target, registry, images, {"test": None}, preset, chosen, plugin_files=plugin_files)
    options: dict[str, Sequence[object]] = {
        "--out": [out], "--protocol": [protocol], "--plugin": plugin_files,
        "--weights": [f"{name}={file}" for name, file in given_weights.items()],
    }  # fmt: skip
    given = [str(word) for option, values in options.items() for value in values if value for word in (option, value)]
    with target.held():
        _begin_evaluation(
            context, source, cells, shlex.join(["colorbench", "evaluate", str(run), "--data", images, *given])
        )
        for cell in cells:
            _evaluate_cell(context, source, cell)
    return reported(target, target.cells(), plugin_files)


def protocol_to_score(run: RunFolder, registry: Registry, name: str | None) -> Protocol:
    """The protocol of this name, or that of the run, at the size of the run. Raises UserError for an unknown one."""
    chosen: Protocol = registry.find("protocol", [name])[0] if name else protocol_of(run.record.protocol)
    return replace(chosen, size=run.record.preset.size)


def _begin_evaluation(context: Context, source: RunFolder, cells: Sequence[CellRecord], command: str) -> None:
    trained, record = source.record, context.run_record()
    digests = files.read_checked(source.path / files.TRAINED_ON, trained.files.get(files.TRAINED_ON, ""))
    seen = {*digests.split()}
    known = sum(digest.encode() in seen for digest in context.data.splits["test"].digests)
    record.trained = Trained(source.path.resolve().name, trained.data.name, trained.data.fingerprint, known)
    record.commands, record.cells = [command], [(cell.model, cell.seed) for cell in cells]
    record.kept = trained.kept
    for cell in cells:
        if why := changes_since(source, cell, context.registry):
            warn(f"{cell.model} seed {cell.seed} was made otherwise, and is used as it is: {'; '.join(why)}")
            record.kept[cell_name(cell.model, cell.seed)] = why
    context.folder.begin(record, {files.SAMPLES: sample_pictures(context.data)})


def _evaluate_cell(context: Context, source: RunFolder, trained: CellRecord) -> None:
    """Predict and score a cell of another run, unless that is done."""
    cell_dir = context.folder.cell_dir(trained.model, trained.seed)
    there = context.folder.cell(trained.model, trained.seed)
    now = msgspec.structs.replace(trained, predicted_with=code_to_predict(source, trained, context.registry))
    keys = DONE, predictions_key(now, context.inputs), context.scoring
    if (there.status, there.predicted_by, there.scored_by) == keys and not files.damaged_files(cell_dir, there):
        return
    record = msgspec.structs.replace(
        trained, files={}, status=TRAINED, predicted_by="", scored_by="", predictions_kept=0,
        validated_by=msgspec.UNSET,
        environment=files.environment_key(context.environment),
    )  # fmt: skip
    if recorded_spec(context.registry, trained):
        made = make_apart(context.request(record, cell_dir, trained_in=source.path.resolve()))
    else:
        why = f"it is not installed; give its plugin, which was {trained.origin}"
        made = write_outcome(cell_dir, record, FAILED, why)
    say_outcome(made)
