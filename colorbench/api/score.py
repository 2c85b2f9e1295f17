"""Score kept predictions again: no network, no training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import pandas as pd

from colorbench.api.common import ask, load_registry, make_apart, make_context, paths_given, say, warn
from colorbench.api.run import Run, reported
from colorbench.api.settings import Names, listed
from colorbench.contract import Preset
from colorbench.errors import UserError, refuse_empty
from colorbench.harness.predict import keeps_all
from colorbench.harness.preflight import check_metrics, check_protocol
from colorbench.harness.protocols import score_under
from colorbench.plugins import Registry, load
from colorbench.runs import executors
from colorbench.runs import folder as files
from colorbench.runs.context import CellRequest, Context
from colorbench.runs.folder import RunFolder, cell_name
from colorbench.runs.records import DONE, CellRecord, OtherProtocols, protocol_of, protocol_record


def score_run(
    run: str | Path, data: str | Path | None = None, plugins: str | Path | Sequence[str | Path] = (),
    weights: Mapping[str, str | Path] | None = None,
) -> Run:  # fmt: skip
    """Score the kept predictions of a run again: no network, no training.

    `data` gives the run's images if they have moved; `weights` are files for metrics, by name. Raises UserError, with
    nothing changed, if the images are different, or if a cell scored by other code has not kept all its predictions.
    """
    refuse_empty(data=data)
    source, plugin_files, files_given = paths_given(data, plugins, weights)
    folder, registry = RunFolder(run), load_registry(plugin_files, files_given)
    context = context_to_score(folder, registry, source, plugin_files)
    with folder.held():
        cells = [cell for cell in folder.cells() if cell.has_weights]
        lacking = [cell for cell in cells if cell.scored_by != context.scoring and not _keeps_all(context, cell)]
        if lacking:
            raise UserError(
                f"{folder.path} has not kept all predictions of {', '.join(dict.fromkeys(c.model for c in lacking))}; "
                "nothing was scored: `colorbench run` with the same options, and the same --plugin, predicts them again"
            )
        if cells:
            check_metrics_apart(context, cells[0])
        record, asked = folder.record, context.run_record()
        record.scoring, record.metrics, record.diagnostics = asked.scoring, asked.metrics, asked.diagnostics
        folder.write(record)
        rescore(context, cells)
    return reported(folder, [cell for cell in folder.cells() if cell.has_weights], plugin_files)


def score_protocols(
    run: str | Path,
    names: Names = "all",
    data: str | Path | None = None,
    plugins: str | Path | Sequence[str | Path] = (),
) -> Run:
    """Score the kept predictions of a run under other protocols, "all" or by name, and under its own.

    No network, no training: model inputs and predictions stay the same, `on_input_of` the run's protocol. Raises
    UserError, with nothing changed, for an unknown protocol, for different images, and unless every finished cell has
    kept all its predictions.
    """
    source, plugin_files, _ = paths_given(data, plugins, None)
    folder, registry, asked = RunFolder(run), load(plugin_files), listed(names)
    protocols = registry.find("protocol", list(registry.specs["protocol"]) if "all" in asked else asked)
    context = context_to_score(folder, registry, source, plugin_files)
    protocols = [context.protocol, *(p.on_input_of(context.protocol) for p in protocols)]
    protocols = list({protocol.id: protocol for protocol in protocols}.values())
    for protocol in protocols:
        check_protocol(protocol)
    if context.protocol.name in [protocol.name for protocol in protocols[1:]]:
        raise UserError(
            f"protocol {context.protocol.name} has changed since {folder.path} was made under it; nothing was "
            "scored: give the changed protocol another name, or leave it out"
        )
    if (there := folder.record.others) and there.varied:
        raise UserError(
            f"{folder.path} holds answers to several values of {there.varied}, which this would replace; score the run "
            "itself, or another evaluation of it, made with --out"
        )
    with folder.held():
        cells = [cell for cell in folder.cells() if cell.status == DONE]
        if lacking := [cell.model for cell in cells if not _keeps_all(context, cell)] or (
            [] if cells else ["any model"]
        ):
            raise UserError(
                f"{folder.path} has not kept all predictions of {', '.join(dict.fromkeys(lacking))}; nothing was "
                "scored: `colorbench run` with the same options, without --predictions, makes and keeps them"
            )
        tables = []
        for cell in cells:
            scored = partial(score_under, protocols, folder.cell_dir(cell.model, cell.seed), cell, context.protocol)
            try:
                tables.append(executors.call(scored, context.data.splits["test"]))
            except RuntimeError as error:  # what is raised there, and the end of its process
                raise UserError(f"{cell.model} seed {cell.seed}: not scored: {error}; score again") from error
            say(f"{cell.model} seed {cell.seed}: scored under {', '.join(protocol.name for protocol in protocols)}")
        content, record = files.to_parquet(pd.concat(tables, ignore_index=True)), folder.record
        keys = {cell_name(cell.model, cell.seed): (cell.predicted_by, cell.scored_by) for cell in cells}
        record.others = OtherProtocols([protocol_record(protocol) for protocol in protocols], keys)
        record.files[files.PROTOCOLS] = files.sha256(content)
        files.write_aside(folder.path / files.PROTOCOLS, content)
        folder.write(record)
    return reported(folder, folder.cells(), plugin_files)


def context_to_score(
    folder: RunFolder, registry: Registry, data: str | None, plugin_files: tuple[Path, ...]
) -> Context:
    """The context of a run that is there. Raises UserError if its images, or its protocol, are others now."""
    record = folder.record
    preset = Preset(summary="", **msgspec.structs.asdict(record.preset))
    limits, protocol = {split: getattr(preset, split) for split in record.data.splits}, protocol_of(record.protocol)
    source = data or record.data.source
    context = make_context(folder, registry, source, limits, preset, protocol, plugin_files=plugin_files)
    folder.check(context.run_record())
    return context


def check_metrics_apart(context: Context, record: CellRecord) -> None:
    """Compute the metrics once, with the training images for those that need them; `record` is that of any cell."""
    if context.registry.metrics:
        context.statistics.update(ask(check_metrics, _to_score(context, record), "the metrics"))


def rescore(context: Context, cells: Iterable[CellRecord]) -> None:
    """Score the kept predictions of these cells; report cells without them that other code scored."""
    keeping = [cell for cell in cells if _keeps_all(context, cell)]
    if keeping and not context.statistics:
        check_metrics_apart(context, keeping[0])
    for cell in cells:
        if cell in keeping:
            scored = make_apart(_to_score(context, cell))
            say(f"{cell.model} seed {cell.seed}: {scored.reason or 'scored'}")
        elif cell.scored_by != context.scoring:
            warn(f"{cell.model} seed {cell.seed}: its predictions were not kept; `colorbench run` makes them again")


def _keeps_all(context: Context, cell: CellRecord) -> bool:
    cell_dir = context.folder.cell_dir(cell.model, cell.seed)
    return keeps_all(cell_dir, cell, cell.predicted_by, len(context.data.splits["test"]))


def _to_score(context: Context, record: CellRecord) -> CellRequest:
    """A request to score what is kept. Its model need not be installed: only the plugins of metrics are loaded."""
    request = context.request(record, context.folder.cell_dir(record.model, record.seed), rescores=True)
    return replace(request, plugins=context.plugins_for([]), validation="")
