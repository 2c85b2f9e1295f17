"""What the command line and a notebook both call: run, plan, score, evaluate."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import torch

from colorbench import plugins
from colorbench.color import recombine
from colorbench.contract import ModelSpec, Preset
from colorbench.data.cache import Data, decode_all
from colorbench.data.loader import to_lab
from colorbench.data.splits import SHARES, dataset_name, open_splits
from colorbench.errors import UserError, refuse_unknown
from colorbench.harness import device
from colorbench.harness.cell import make, packed
from colorbench.harness.predict import keeps_all, to_pixels
from colorbench.harness.preflight import (
    Estimate,
    PublishedRequest,
    check_metrics,
    check_model,
    check_protocol,
    check_weights,
)
from colorbench.harness.protocols import score_under
from colorbench.harness.scoring import SAMPLES
from colorbench.harness.throughput import time_models
from colorbench.plugins import Registry
from colorbench.protocol import COLORBENCH, Protocol
from colorbench.runs import executors
from colorbench.runs import folder as files
from colorbench.runs.environment import environment
from colorbench.runs.folder import RunFolder, cell_name
from colorbench.runs.identity import predictions_key
from colorbench.runs.plan import (
    KEPT,
    READY,
    STALE,
    TO_DO,
    UNSCORED,
    CellRequest,
    Context,
    Planned,
    changes_since,
    new_record,
    plan,
    refuse_stale,
    waiting,
    with_needed,
)
from colorbench.runs.records import (
    DONE,
    FAILED,
    SKIPPED,
    TRAINED,
    CellRecord,
    OtherProtocols,
    Trained,
    protocol_of,
    protocol_record,
)

BYTES_PER_PIXEL = 2.2  # of a prediction as PNG, about


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


@dataclass(frozen=True)
class Work:
    """A plan, and what was found out about it: by model an estimate, or why it cannot be trained."""

    context: Context
    cells: Sequence[Planned]
    estimates: Mapping[str, Estimate]
    failures: Mapping[str, Exception]

    @property
    def seconds(self) -> float:
        """About how long it will take, without the timings."""
        costs = [(cell, self.estimates[cell.spec.name]) for cell in self.cells if cell.spec.name in self.estimates]
        trainings = sum(cost.training for cell, cost in costs if cell.trains)
        return trainings + sum(cost.prediction for cell, cost in costs if cell.trains or cell.state == UNSCORED)

    @property
    def bytes(self) -> int:
        """About how much will be written."""
        return sum(self.bytes_of(cell) for cell in self.cells if cell.trains)

    def bytes_of(self, cell: Planned) -> int:
        estimate, test = self.estimates.get(cell.spec.name), len(self.context.data.splits["test"])
        kept = min(test, test if self.context.keep is None else self.context.keep)
        pictures = kept * BYTES_PER_PIXEL * self.context.preset.size**2
        return round(pictures + (estimate.weights if estimate else 0))


def run(options: Options) -> RunFolder:
    """Train, score and time every model and seed that is still missing; then the folder is ready for `report.write`.

    A model that fails is a cell with its reason. Raises UserError for what can be told before anything is trained:
    options, data or weights that do not fit, a folder made under other conditions, cells that are stale.
    """
    registry = _registry(options.plugin_files, options.weights, options.models, options.pictures)
    specs = with_needed(registry.find("model", options.models), registry)
    folder, rank = RunFolder(options.out), device.world()[0]
    with folder.held() if rank == 0 else contextlib.nullcontext():
        with _main_first():  # the others then find the images decoded
            context = _context_to_run(folder, registry, options)
        if rank == 0:
            _recover(folder, specs, options.seeds)
        _wait()
        cells = _planned(context, specs, options)
        refuse_stale(cells)
        work = _checked(context, cells)
        _wait()
        if rank == 0:
            _begin(context, work.cells, options.command)
        _make_all(work)
        if rank == 0:
            asked = {(cell.spec.name, cell.seed) for cell in work.cells}
            others = [cell for cell in folder.cells() if (cell.model, cell.seed) not in asked and cell.has_weights]
            _rescore(context, [cell for cell in others if cell.scored_by != context.scoring])
            if options.timing:
                time_models(context, specs, options.seeds)
    return folder


def prepare(options: Options) -> Work:
    """What `run` would do, how long it would take and how much it would write; nothing of the folder is changed."""
    registry = _registry(options.plugin_files, options.weights, options.models, options.pictures)
    specs = with_needed(registry.find("model", options.models), registry)
    context = _context_to_run(RunFolder(options.out), registry, options)
    return _checked(context, _planned(context, specs, options))


def outcomes(folder: RunFolder, options: Options) -> list[CellRecord]:
    """The cells that were asked for, also those made again which have not taken the old one's place."""
    cells = [cell for cell in folder.cells() if cell.model in options.models and cell.seed in options.seeds]
    again = [(folder.again_dir(cell.model, cell.seed), cell) for cell in cells if options.again]
    begun = [(path, cell) for path, cell in again if (path / files.CELL).exists()]
    return cells + [files.read_cell(path, cell.model, cell.seed) for path, cell in begun]


def score(
    run: str | Path, data: str | None = None, plugin_files: Sequence[Path] = (),
    weights: Mapping[str, Path] | None = None,
) -> RunFolder:  # fmt: skip
    """Score anew the predictions that a run has kept: no network, no training.

    `data` says where the run's images are, if not where they were; `weights` are files for metrics, by name. Raises
    UserError, with nothing changed, if these are other images, or if a cell that other code has scored has not kept
    all its predictions.
    """
    folder, registry = RunFolder(run), _registry(plugin_files, weights or {})
    context = _context_to_score(folder, registry, data, tuple(plugin_files))
    with folder.held():
        cells = [cell for cell in folder.cells() if cell.has_weights]
        lacking = [cell for cell in cells if cell.scored_by != context.scoring and not _keeps_all(context, cell)]
        if lacking:
            raise UserError(
                f"{folder.path} has not kept all predictions of {', '.join(dict.fromkeys(c.model for c in lacking))}; "
                "nothing was scored: `colorbench run` with the same options, and the same --plugin, predicts them again"
            )
        if cells:
            _check_metrics(context, cells[0])
        record, asked = folder.record, context.run_record()
        record.scoring, record.metrics, record.diagnostics = asked.scoring, asked.metrics, asked.diagnostics
        folder.write(record)
        _rescore(context, cells)
    return folder


def score_protocols(
    run: str | Path, names: Sequence[str], data: str | None = None, plugin_files: Sequence[Path] = ()
) -> RunFolder:
    """Score the predictions that a run has kept under other protocols, "all" or by name, and under its own.

    No network, no training: what is fed and predicted stays as it is, `on_input_of` the run's protocol. Raises
    UserError, with nothing changed, for an unknown protocol, for other images, and unless every finished cell has kept
    all its predictions.
    """
    folder, registry = RunFolder(run), plugins.load(plugin_files)
    every = list(registry.specs["protocol"])
    protocols = registry.find("protocol", every if "all" in names else names)
    context = _context_to_score(folder, registry, data, tuple(plugin_files))
    protocols = [context.protocol, *(p.on_input_of(context.protocol) for p in protocols)]
    protocols = list({protocol.id: protocol for protocol in protocols}.values())
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
            except executors.EndedError as error:
                raise UserError(f"{cell.model} seed {cell.seed}: not scored: {error}; score again") from error
            say(f"{cell.model} seed {cell.seed}: scored under {', '.join(protocol.name for protocol in protocols)}")
        content, record = files.to_parquet(pd.concat(tables, ignore_index=True)), folder.record
        keys = {cell_name(cell.model, cell.seed): (cell.predicted_by, cell.scored_by) for cell in cells}
        record.others = OtherProtocols([protocol_record(protocol) for protocol in protocols], keys)
        record.files[files.PROTOCOLS] = files.sha256(content)
        files.write_aside(folder.path / files.PROTOCOLS, content)
        folder.write(record)
    return folder


def evaluate(
    run: str | Path, data: str, out: str | None = None, plugin_files: Sequence[Path] = (),
    weights: Mapping[str, Path] | None = None, protocol: str | None = None,
) -> RunFolder:  # fmt: skip
    """Score every trained cell of `run` on the test images of `data`, at the run's size, under its protocol or another.

    `weights` are files for metrics, by name. Returns the run folder that holds the scores, `out` or a folder inside
    `run`; a model that fails on them, or is not installed, is a cell with its reason. Raises UserError when the run was
    made under a protocol that is none of this version and no other is named, for an unknown one, and when the run has
    nothing finished.
    """
    source, registry = RunFolder(run), _registry(plugin_files, weights or {})
    record = source.record
    preset = Preset(summary="", **msgspec.structs.asdict(record.preset) | {"test": None})
    chosen = registry.find("protocol", [protocol])[0] if protocol else protocol_of(record.protocol)
    cells = [cell for cell in source.cells() if cell.has_weights]
    if not cells:
        raise UserError(f"{source.path} has no finished model to evaluate; finish the run first")
    target = RunFolder(out or source.path / "evaluations" / "-".join([dataset_name(data), *filter(None, [protocol])]))
    context = _context(target, registry, data, {"test": None}, preset, chosen, plugin_files=tuple(plugin_files))
    options = {
        "--out": [out], "--protocol": [protocol], "--plugin": plugin_files,
        "--weights": [f"{name}={file}" for name, file in (weights or {}).items()],
    }  # fmt: skip
    given = [str(word) for option, values in options.items() for value in values if value for word in (option, value)]
    with target.held():
        _begin_evaluation(
            context, source, cells, shlex.join(["colorbench", "evaluate", str(run), "--data", data, *given])
        )
        for cell in cells:
            _evaluate_cell(context, source, cell)
    return target


def _context_to_score(
    folder: RunFolder, registry: Registry, data: str | None, plugin_files: tuple[Path, ...]
) -> Context:
    """The context of a run that is there. Raises UserError if its images, or its protocol, are others now."""
    record = folder.record
    preset = Preset(summary="", **msgspec.structs.asdict(record.preset))
    limits, protocol = {split: getattr(preset, split) for split in record.data.splits}, protocol_of(record.protocol)
    source = data or record.data.source
    context = _context(folder, registry, source, limits, preset, protocol, plugin_files=plugin_files)
    folder.check(context.run_record())
    return context


def _context(
    folder: RunFolder, registry: Registry, source: str, limits: Mapping[str, int | None], preset: Preset,
    protocol: Protocol, **others: Any,
) -> Context:  # fmt: skip
    """The context of a command on this machine, its images decoded; `others` are further fields of it.

    Raises UserError for a protocol that the code does not know.
    """
    protocol = replace(protocol, size=preset.size)
    check_protocol(protocol)
    data = decode_all(source, open_splits(source, registry, limits), protocol)
    env = environment(registry.plugins, device.describe())
    return Context(folder, registry, source, data, preset, protocol, env, **others)


def _registry(
    plugin_files: Sequence[Path], weights: Mapping[str, Path], models: Sequence[str] = (),
    pictures: Sequence[ModelSpec] = (),
) -> Registry:  # fmt: skip
    """The plugins, with weights for metrics, and for `models`. Raises UserError for a name that takes none."""
    for name, file in weights.items():
        if name not in models and not file.exists():
            raise UserError(f"cannot read --weights {name}={file}: it does not exist; name the file")
    registry = plugins.load(plugin_files, pictures=pictures, weights=weights)
    metrics = {name: metric for name, metric in registry.specs["metric"].items() if metric.takes_weights}
    what = "model that runs, or metric," if models else "metric"
    refuse_unknown(f"{what} for --weights", weights, [*models, *metrics])
    for name in weights:
        if name in metrics and metrics[name].missing:
            say(f"the metric {name} is not computed: {metrics[name].missing}")
    return registry


def _context_to_run(folder: RunFolder, registry: Registry, options: Options) -> Context:
    preset = options.preset
    # Of which none is asked for need not be there.
    limits = {split: limit for split in SHARES if (limit := getattr(preset, split)) != 0}
    context = _context(
        folder, registry, options.data, limits, preset, registry.find("protocol", [options.protocol])[0],
        plugin_files=tuple(options.plugin_files), weights=options.weights, keep=options.predictions,
    )  # fmt: skip
    for name in options.models:
        if file := options.weights.get(name):
            request = PublishedRequest(context.plugins_for([name]), name, preset.size, file)
            _ask(check_weights, request, f"{name!r} with --weights {file}")
    folder.check(context.run_record())
    return context


def _planned(context: Context, specs: Sequence[ModelSpec], options: Options) -> list[Planned]:
    names = [spec.name for spec in specs]
    again, keep = ([*names] if "all" in asked else [*asked] for asked in (options.again, options.keep))
    refuse_unknown("model for --again or --keep among those that run", [*again, *keep], names)
    cells = plan(context, specs, options.seeds, again, keep)
    if options.remakes:
        cells = [replace(cell, state=TO_DO) if cell.state == STALE else cell for cell in cells]
    for line in waiting(context, cells):
        say(line)
    return cells


def _checked(context: Context, cells: Sequence[Planned]) -> Work:
    """The plan, and what is wrong with its models. Raises UserError for metrics that fail."""
    if any(cell.state not in (READY, KEPT) for cell in cells):
        _check_metrics(context, cells[0].record)
    if device.world()[1] > 1:
        return Work(context, cells, {}, {})  # what is wrong with a model shows in all processes alike, as it is made
    estimates, failures = {}, {}
    # What only the truth can make trains nothing: making it costs no more than the check would.
    checked = [cell for cell in reversed(cells) if cell.trains and not cell.spec.sees_truth]
    for name, cell in {cell.spec.name: cell for cell in checked}.items():
        try:
            estimates[name] = executors.call(check_model, context.request(cell.record, cell.cell_dir))
        except (RuntimeError, UserError, OSError) as error:
            failures[name] = error
    return Work(context, cells, estimates, failures)


def _check_metrics(context: Context, record: CellRecord) -> None:
    """Compute the metrics once, and let them see the training images; `record` is that of any cell."""
    if context.registry.metrics:
        context.statistics.update(_ask(check_metrics, _to_score(context, record), "the metrics"))


def _begin(context: Context, cells: Sequence[Planned], command: str) -> None:
    """Write the folder's record and its sample pictures."""
    record = context.run_record()
    record.commands, record.cells = [command], [(cell.spec.name, cell.seed) for cell in cells]
    marked = [cell for cell in cells if cell.why and cell.state in (KEPT, UNSCORED)]
    record.kept = {cell_name(cell.spec.name, cell.seed): list(cell.why) for cell in marked}
    trained_on = context.data.splits.get("train")
    digests = "\n".join(trained_on.digests if trained_on else ()) + "\n"
    context.folder.begin(record, {files.SAMPLES: sample_pictures(context.data), files.TRAINED_ON: digests.encode()})


def sample_pictures(data: Data) -> bytes:
    """The first test images for the figures: an .npz with `names`, `truth`, `grey`, and `parts` where there are any."""
    test = data.splits["test"]
    truth = test.pixels[:SAMPLES]
    L, ab = to_lab(truth, torch.device("cpu"))
    grey = to_pixels(recombine(L, torch.zeros_like(ab)))
    parts = {} if test.parts is None else {"parts": test.parts[:SAMPLES], "part_names": np.array(test.part_names)}
    return packed(names=np.array(test.names[:SAMPLES]), truth=np.array(truth), grey=grey, **parts)


def _make_all(work: Work) -> None:
    """Make every cell that is not done, bases first."""
    todo = [cell for cell in work.cells if cell.state not in (READY, KEPT) or cell.is_again]
    if len(todo) < len(work.cells):
        say(f"{len(work.cells) - len(todo)} of {len(work.cells)} are done already in {work.context.folder.path}")
    if work.estimates:
        say(f"about {duration(work.seconds)} for what is to be trained, and {size(work.bytes)} on disk")
    for cell in todo:
        _wait()  # nobody may save before everybody has seen what is missing
        # What it builds on may have been made since the plan.
        fresh = new_record(work.context, cell.spec, cell.seed) if cell.trains else cell.record
        record = _make_one(work, replace(cell, record=fresh))
        if device.world()[0] == 0 and record.status == DONE and cell.is_again:
            files.promote(cell.cell_dir)
        _say_outcome(record)


def _make_one(work: Work, cell: Planned) -> CellRecord:
    """Make a cell, or write down why that cannot be."""
    for role, name in (("its base", cell.spec.refines), ("the model whose weights it takes,", cell.spec.trained_as)):
        if cell.trains and name and (missing := _why_missing(work, name, cell.seed)):
            return _written(cell.cell_dir, cell.record, SKIPPED, f"{role} {name} {missing}")
    if error := work.failures.get(cell.spec.name):
        files.write_aside(cell.cell_dir / files.TRACEBACK, getattr(error, "traceback", ""))
        return _written(cell.cell_dir, cell.record, FAILED, str(error))
    return _make(work.context.request(cell.record, cell.cell_dir))


def _make(request: CellRequest) -> CellRecord:
    """Make a cell in a process of its own; one that ends before it is done is a record with the reason."""
    if device.world()[1] > 1:
        return make(request)
    try:
        record = executors.call(make, request)
        for name, why in record.failed_diagnostics.items():
            say(f"{record.model} seed {record.seed}: the diagnostic {name} failed: {why}")
        return record
    except executors.EndedError as error:
        return _written(request.cell_dir, _as_left(request), None, str(error))


def _as_left(request: CellRequest) -> CellRecord:
    """The record of a cell whose process has ended: with the weights that it had saved by then."""
    record = request.record
    with contextlib.suppress(FileNotFoundError, UserError):
        there = files.read_cell(request.cell_dir, record.model, record.seed)
        return there if there.key == record.key and there.has_weights else record
    return record


def _written(cell_dir: Path, record: CellRecord, status: Any, why: str) -> CellRecord:
    """Write why a cell is not done. Without a `status` it is trained or failed, as it has weights or not."""
    record.status, record.reason = status or (TRAINED if record.has_weights else FAILED), why
    if device.world()[0] == 0:
        files.write_cell(cell_dir, record)
    return record


def _ask(check: Callable[[Any], Any], request: Any, what: str) -> Any:
    """Let a process of its own check something. Raises UserError, also if that process ends."""
    try:
        return executors.call(check, request)
    except executors.EndedError as error:
        raise UserError(f"{what} cannot be checked: {error}; mend or remove the plugin") from error


def _why_missing(work: Work, model: str, seed: int) -> str | None:
    if model not in work.context.registry.specs["model"]:
        return "is not installed"
    again = next((cell for cell in work.cells if (cell.spec.name, cell.seed) == (model, seed)), None)
    if again and again.is_again and again.cell_dir.exists():
        return "was not made again"
    record = work.context.folder.cell(model, seed)
    return None if record.has_weights else f"is not there: {record.reason}"


def _recover(folder: RunFolder, specs: Sequence[ModelSpec], seeds: Sequence[int]) -> None:
    for spec in specs:
        for seed in seeds:
            files.recover(folder.cell_dir(spec.name, seed))


def _rescore(context: Context, cells: Iterable[CellRecord]) -> None:
    """Score what these cells have kept; say which have not kept it, if other code scored them."""
    keeping = [cell for cell in cells if _keeps_all(context, cell)]
    if keeping and not context.statistics:
        _check_metrics(context, keeping[0])
    for cell in cells:
        if cell in keeping:
            scored = _make(_to_score(context, cell))
            say(f"{cell.model} seed {cell.seed}: {scored.reason or 'scored'}")
        elif cell.scored_by != context.scoring:
            say(f"{cell.model} seed {cell.seed}: its predictions were not kept; `colorbench run` makes them again")


def _keeps_all(context: Context, cell: CellRecord) -> bool:
    cell_dir = context.folder.cell_dir(cell.model, cell.seed)
    return keeps_all(cell_dir, cell, cell.predicted_by, len(context.data.splits["test"]))


def _to_score(context: Context, record: CellRecord) -> CellRequest:
    """A request to score what is kept. Its model need not be installed: only the plugins of metrics are loaded."""
    request = context.request(record, context.folder.cell_dir(record.model, record.seed), rescores=True)
    return replace(request, plugins=context.plugins_for([]))


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
            say(f"{cell.model} seed {cell.seed} was made otherwise, and is used as it is: {'; '.join(why)}")
            record.kept[cell_name(cell.model, cell.seed)] = why
    context.folder.begin(record, {files.SAMPLES: sample_pictures(context.data)})


def _evaluate_cell(context: Context, source: RunFolder, trained: CellRecord) -> None:
    """Predict and score a cell of another run, unless that is done."""
    cell_dir = context.folder.cell_dir(trained.model, trained.seed)
    there = context.folder.cell(trained.model, trained.seed)
    keys = DONE, predictions_key(trained, context.inputs), context.scoring
    if (there.status, there.predicted_by, there.scored_by) == keys and not files.damaged_files(cell_dir, there):
        return
    record = msgspec.structs.replace(
        trained, files={}, status=TRAINED, predicted_by="", scored_by="", predictions_kept=0,
        environment=files.environment_key(context.environment),
    )  # fmt: skip
    if "pictures" in trained.made_from:
        why = "it was made elsewhere: it has pictures of that run's test images alone, no network"
        made = _written(cell_dir, record, FAILED, why)
    elif trained.model in context.registry.specs["model"]:
        made = _make(context.request(record, cell_dir, trained_in=source.path.resolve()))
    else:
        made = _written(cell_dir, record, FAILED, f"it is not installed; give its plugin, which was {trained.origin}")
    _say_outcome(made)


def _say_outcome(record: CellRecord) -> None:
    say(f"{record.model} seed {record.seed}: {record.status} {record.reason or ''}".rstrip())


def duration(seconds: float) -> str:
    """A rough time in words: "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    """Bytes in words: "3 MB"."""
    return f"{count / 1e6:.0f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"


def say(text: str) -> None:
    """One line of progress, from one process."""
    if device.world()[0] == 0:
        print(text, file=sys.stderr, flush=True)


def _wait() -> None:
    """Wait for the other processes of `accelerate launch`, if there are any."""
    if device.world()[1] > 1:
        device.accelerator().wait_for_everyone()


@contextlib.contextmanager
def _main_first() -> Iterator[None]:
    if device.world()[1] == 1:
        yield
        return
    with device.accelerator().main_process_first():
        yield
