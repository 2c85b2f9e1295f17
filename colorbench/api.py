"""What the command line and a notebook both call: run, plan, score, evaluate."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
import torch

from colorbench import plugins
from colorbench.color import recombine
from colorbench.contract import ModelSpec, Preset
from colorbench.data.cache import Data, decode_all
from colorbench.data.loader import to_lab
from colorbench.data.splits import dataset_name, open_splits
from colorbench.errors import UserError, refuse_unknown
from colorbench.harness import device
from colorbench.harness.cell import make, packed
from colorbench.harness.checkpoint import Checkpoint
from colorbench.harness.predict import keeps_all, to_pixels
from colorbench.harness.preflight import Estimate, PublishedRequest, check_metrics, check_model, check_weights
from colorbench.harness.scoring import SAMPLES
from colorbench.harness.throughput import time_models
from colorbench.plugins import Registry
from colorbench.protocol import COLORBENCH
from colorbench.runs import executors
from colorbench.runs.environment import environment
from colorbench.runs.folder import (
    CELL,
    TRACEBACK,
    TRAINED_ON,
    TRAINING,
    Common,
    RunFolder,
    damaged_files,
    environment_key,
    promote,
    read_cell,
    read_checked,
    recover,
    write_aside,
    write_cell,
)
from colorbench.runs.folder import (
    SAMPLES as SAMPLES_FILE,
)  # fmt: skip
from colorbench.runs.identity import key_of
from colorbench.runs.plan import (
    KEPT,
    READY,
    RESUMABLE,
    UNSCORED,
    CellRequest,
    Context,
    Planned,
    changes_since,
    new_record,
    plan,
    predictions_key,
    refuse_stale,
    waiting,
    with_needed,
)  # fmt: skip
from colorbench.runs.records import (
    DONE,
    FAILED,
    SKIPPED,
    TRAINED,
    CellRecord,
    DataRecord,
    PresetRecord,
    ProtocolRecord,
    Trained,
)  # fmt: skip

BYTES_PER_PIXEL = 2.2  # of a prediction as PNG, about


@dataclass(frozen=True)
class Options:
    """What `run` and `plan` are asked for.

    `again` names models to train anew, `keep` stale ones to use as they are; "all" stands for every one. `predictions`
    is how many of the test split to keep, None for all.
    """

    models: Sequence[str]
    data: str
    preset: Preset
    out: Path
    seeds: Sequence[int] = (0,)
    weights: Mapping[str, Path] = field(default_factory=dict)
    plugin_files: Sequence[Path] = ()
    again: Sequence[str] = ()
    keep: Sequence[str] = ()
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
    registry = plugins.load(options.plugin_files)
    specs = with_needed(registry.find("model", options.models), registry)
    folder, rank = RunFolder(options.out), device.world()[0]
    with folder.held() if rank == 0 else contextlib.nullcontext():
        with _main_first():  # the others then find the images decoded
            context = _context(folder, registry, options)
        if rank == 0:
            _recover(folder, specs, options.seeds)
        _wait()
        work = _prepared(context, specs, options)
        _wait()
        if rank == 0:
            _begin(context, work.cells, options)
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
    registry = plugins.load(options.plugin_files)
    specs = with_needed(registry.find("model", options.models), registry)
    context = _context(RunFolder(options.out), registry, options)
    return _prepared(context, specs, replace(options, timing=False), refuse=False)


def _context(folder: RunFolder, registry: Registry, options: Options) -> Context:
    refuse_unknown("model for --weights among those that run", options.weights, options.models)
    preset, protocol = options.preset, replace(COLORBENCH, size=options.preset.size)
    splits = open_splits(options.data, registry, {"train": preset.train, "val": preset.val, "test": preset.test})
    context = Context(
        folder, registry, decode_all(options.data, splits, protocol), preset, protocol,
        environment(registry.plugins, device.describe()), tuple(options.plugin_files), options.weights,
        options.predictions,
    )  # fmt: skip
    for name in options.weights:
        executors.call(
            check_weights, PublishedRequest(context.plugins_for([name]), name, preset.size, options.weights[name])
        )
    folder.check(_common(context, options.data))
    return context


def _common(context: Context, source: str, trained: Trained | None = None) -> Common:
    preset = {key: value for key, value in asdict(context.preset).items() if key != "summary"}
    settings = {key: value for key, value in asdict(context.protocol).items() if key != "name"}
    protocol = ProtocolRecord(context.protocol.id, context.protocol.name, settings)
    return Common(protocol, DataRecord(source=source, **context.data.record()), PresetRecord(**preset), trained)


def _prepared(context: Context, specs: Sequence[ModelSpec], options: Options, refuse: bool = True) -> Work:
    """The plan, checked. Raises UserError for stale cells if `refuse`, and for metrics that fail."""
    names = [spec.name for spec in specs]
    again, keep = ([*names] if "all" in asked else [*asked] for asked in (options.again, options.keep))
    refuse_unknown("model for --again or --keep among those that run", [*again, *keep], names)
    cells = plan(context, specs, options.seeds, again, keep)
    for line in waiting(context, cells):
        say(line)
    if refuse:
        refuse_stale(cells)
    estimates, failures = {}, {}
    if device.world()[1] > 1:
        return Work(context, cells, {}, {})  # what is wrong with a model shows in all processes alike, as it is made
    if context.registry.specs["metric"] and any(cell.state not in (READY, KEPT) for cell in cells):
        executors.call(check_metrics, _request(context, cells[0]))
    for name, cell in {cell.spec.name: cell for cell in reversed(cells) if cell.trains}.items():
        try:
            estimates[name] = executors.call(check_model, _request(context, cell))
        except (RuntimeError, UserError, OSError) as error:
            failures[name] = error
    return Work(context, cells, estimates, failures)


def _request(context: Context, cell: Planned) -> CellRequest:
    env, splits = context.environment, context.data.splits
    # What may go on with an unfinished training: the same cell, on the same kind of machine.
    resume = key_of([cell.record.key, env.packages, env.device, env.precision, env.processes])
    return CellRequest(
        record=cell.record,
        run=context.folder.path.resolve(),
        cell_dir=cell.cell_dir.resolve(),
        preset=context.preset,
        protocol=context.protocol,
        splits={split: images.entry for split, images in splits.items() if images.entry},
        plugins=context.plugins_for([cell.record.model]),
        inputs=context.inputs,
        scored_by=context.scoring,
        keep=context.keep,
        weights=context.weights.get(cell.record.model),
        resume=resume,
    )


def outcomes(folder: RunFolder, options: Options) -> list[CellRecord]:
    """The cells that were asked for, also those made again which have not taken the old one's place."""
    cells = [cell for cell in folder.cells() if cell.model in options.models and cell.seed in options.seeds]
    again = [(folder.again_dir(cell.model, cell.seed), cell) for cell in cells if options.again]
    return cells + [read_cell(path, cell.model, cell.seed) for path, cell in again if (path / CELL).exists()]


def _begin(context: Context, cells: Sequence[Planned], options: Options) -> None:
    """Write the folder's record and its sample pictures."""
    common = _common(context, options.data)
    digests = "\n".join(context.data.splits["train"].digests) + "\n"
    content = {SAMPLES_FILE: sample_pictures(context.data), TRAINED_ON: digests.encode()}
    asked = [(cell.spec.name, cell.seed) for cell in cells]
    record = context.folder.begin(common, asked, options.command, context.environment, content)
    record.scoring = context.scoring
    record.kept = {name: why for name, why in record.kept.items() if name not in {_id(cell) for cell in cells}}
    record.kept |= {_id(cell): list(cell.why) for cell in cells if cell.why and cell.state in (KEPT, UNSCORED)}
    context.folder.write(record)


def _id(cell: Planned) -> str:
    return f"{cell.spec.name}/seed-{cell.seed}"


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
        cell = replace(cell, record=fresh)
        record = _make_one(work, cell)
        if device.world()[0] == 0 and record.status == DONE and cell.is_again:
            promote(cell.cell_dir)
        say(f"{record.model} seed {record.seed}: {record.status} {record.reason or ''}".rstrip())


def _make_one(work: Work, cell: Planned) -> CellRecord:
    """Make a cell, or write down why that cannot be."""
    for role, name in (("its base", cell.spec.refines), ("the model whose weights it takes,", cell.spec.trained_as)):
        if cell.trains and name and (missing := _why_missing(work, name, cell.seed)):
            return _written(cell, SKIPPED, f"{role} {name} {missing}")
    if error := work.failures.get(cell.spec.name):
        write_aside(cell.cell_dir / TRACEBACK, getattr(error, "traceback", ""))
        return _written(cell, FAILED, str(error))
    request = _request(work.context, cell)
    if device.world()[1] > 1:
        return make(request)
    try:
        return executors.call(make, request)
    except executors.EndedError as error:
        cell = replace(cell, record=_left(cell))
        return _written(cell, TRAINED if cell.record.has_weights else FAILED, str(error))


def _left(cell: Planned) -> CellRecord:
    """The record of a cell whose process has ended: with its weights, if these had been written."""
    try:
        there = read_cell(cell.cell_dir, cell.spec.name, cell.seed)
    except (FileNotFoundError, UserError):
        return cell.record
    return there if there.has_weights and there.key == cell.record.key else cell.record


def _written(cell: Planned, status: str, why: str) -> CellRecord:
    record = cell.record
    record.status, record.reason = status, why  # type: ignore[assignment]
    if device.world()[0] == 0:
        write_cell(cell.cell_dir, record)
    return record


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
            recover(folder.cell_dir(spec.name, seed))


def score(run: str | Path, data: str | None = None, plugin_files: Sequence[Path] = ()) -> RunFolder:
    """Score anew the predictions that a run has kept: no network, no training.

    `data` says where the run's images are, if not where they were. Raises UserError, with nothing changed, if these are
    other images, or if a cell that other code has scored has not kept all its predictions.
    """
    folder, registry = RunFolder(run), plugins.load(plugin_files)
    context = _context_of(folder, registry, data, plugin_files)
    with folder.held():
        cells = [cell for cell in folder.cells() if cell.has_weights]
        lacking = [cell for cell in cells if cell.scored_by != context.scoring and not _keeps_all(context, cell)]
        if lacking:
            raise UserError(
                f"{folder.path} has not kept all predictions of {', '.join(dict.fromkeys(c.model for c in lacking))}; "
                "nothing was scored: `colorbench run` with the same options, and the same --plugin, predicts them again"
            )
        if cells:
            executors.call(check_metrics, _scoring_request(context, cells[0]))
        record = folder.record
        record.scoring = context.scoring
        folder.write(record)
        _rescore(context, cells)
    return folder


def _rescore(context: Context, cells: Iterable[CellRecord]) -> None:
    """Score what these cells have kept; say which have not kept it, if other code scored them."""
    for cell in cells:
        if _keeps_all(context, cell):
            scored = executors.call(make, _scoring_request(context, cell))
            say(f"{cell.model} seed {cell.seed}: {scored.reason or 'scored'}")
        elif cell.scored_by != context.scoring:
            say(f"{cell.model} seed {cell.seed}: its predictions were not kept; `colorbench run` makes them again")


def _keeps_all(context: Context, cell: CellRecord) -> bool:
    cell_dir = context.folder.cell_dir(cell.model, cell.seed)
    return keeps_all(cell_dir, cell, cell.predicted_by, len(context.data.splits["test"]))


def _context_of(folder: RunFolder, registry: Registry, data: str | None, plugin_files: Sequence[Path]) -> Context:
    """The context that a finished run was made in, on this machine. Raises UserError if the data is not what it was."""
    record = folder.record
    preset = Preset(summary="", **msgspec.structs.asdict(record.preset))
    protocol = replace(COLORBENCH, size=preset.size)
    limits = {split: getattr(preset, split) for split in record.data.splits}
    found = decode_all(data or record.data.source, open_splits(data or record.data.source, registry, limits), protocol)
    env = environment(registry.plugins, device.describe())
    context = Context(folder, registry, found, preset, protocol, env, tuple(plugin_files))
    folder.check(_common(context, record.data.source, record.trained))
    return context


def _scoring_request(context: Context, record: CellRecord) -> CellRequest:
    cell = Planned(None, record.seed, UNSCORED, record, context.folder.cell_dir(record.model, record.seed))  # type: ignore[arg-type]
    return replace(_request(context, cell), rescores=True, plugins=context.plugins_for([]))


def evaluate(
    run: str | Path, data: str, out: str | None = None, plugin_files: Sequence[Path] = (), command: str = "evaluate"
) -> RunFolder:
    """Score every trained cell of `run` on the test images of `data`, at the run's size and under its protocol.

    Returns the run folder that holds the scores, `out` or a folder inside `run`; a model that fails on them is a cell
    with its reason. Raises UserError when the run was made under another protocol, has nothing finished, or holds a
    model that is not installed.
    """
    source, registry = RunFolder(run), plugins.load(plugin_files)
    record = source.record
    protocol = replace(COLORBENCH, size=record.preset.size)
    if record.protocol.id != protocol.id:
        raise UserError(
            f"{source.path} was made under protocol {record.protocol.id}, this is {protocol.id}; "
            "train it again to compare under one protocol"
        )
    cells = [cell for cell in source.cells() if cell.has_weights]
    if not cells:
        raise UserError(f"{source.path} has no finished model to evaluate; finish the run first")
    registry.find("model", dict.fromkeys(cell.model for cell in cells))
    target = RunFolder(out or source.path / "evaluations" / dataset_name(data))
    found = decode_all(data, open_splits(data, registry, {"test": None}), protocol)
    preset = Preset(summary="", **msgspec.structs.asdict(record.preset) | {"test": None})
    env = environment(registry.plugins, device.describe())
    context = Context(target, registry, found, preset, protocol, env, tuple(plugin_files))
    with target.held():
        _begin_evaluation(context, source, cells, data, command)
        for cell in cells:
            _evaluate_cell(context, source, cell)
    return target


def _begin_evaluation(
    context: Context, source: RunFolder, cells: Sequence[CellRecord], data: str, command: str
) -> None:
    trained = source.record
    seen = set(read_checked(source.path / TRAINED_ON, trained.files.get(TRAINED_ON, "")).decode().split())
    known = sum(digest in seen for digest in context.data.splits["test"].digests)
    origin = Trained(source.path.resolve().name, trained.data.name, trained.data.fingerprint, known)
    asked = [(cell.model, cell.seed) for cell in cells]
    content = {SAMPLES_FILE: sample_pictures(context.data)}
    record = context.folder.begin(_common(context, data, origin), asked, command, context.environment, content)
    record.scoring, record.kept = context.scoring, trained.kept
    for cell in cells:
        if why := changes_since(source, cell, context.registry):
            say(f"{cell.model} seed {cell.seed} was made otherwise, and is used as it is: {'; '.join(why)}")
            record.kept[f"{cell.model}/seed-{cell.seed}"] = why
    context.folder.write(record)


def _evaluate_cell(context: Context, source: RunFolder, trained: CellRecord) -> None:
    """Predict and score a cell of another run, unless that is done."""
    cell_dir = context.folder.cell_dir(trained.model, trained.seed)
    there = context.folder.cell(trained.model, trained.seed)
    key = predictions_key(trained, context.inputs)
    done = there.status == DONE and (there.predicted_by, there.scored_by) == (key, context.scoring)
    if done and not damaged_files(cell_dir, there):
        return
    record = msgspec.structs.replace(
        trained, files={}, status=TRAINED, predicted_by="", scored_by="", predictions_kept=0,
        environment=environment_key(context.environment),
    )  # fmt: skip
    cell = Planned(context.registry.specs["model"][trained.model], trained.seed, UNSCORED, record, cell_dir)
    request = replace(_request(context, cell), trained_in=source.path.resolve())
    try:
        made = executors.call(make, request)
    except executors.EndedError as error:
        record.reason = str(error)
        write_cell(cell_dir, record)
        made = record
    say(f"{made.model} seed {made.seed}: {made.status} {made.reason or ''}".rstrip())


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


def cost(work: Work, cell: Planned) -> str:
    """What training and scoring the cell will take, for `plan`; "" for what is done."""
    estimate = work.estimates.get(cell.spec.name)
    if estimate is None or not cell.trains:
        return ""
    return f"{duration(estimate.training + estimate.prediction)}, {size(work.bytes_of(cell))}"


def remark(work: Work, cell: Planned) -> str:
    """Why the cell is stale, how far its training has got, or why it will fail, for `plan`."""
    if cell.state == RESUMABLE:
        request = _request(work.context, cell)
        at = Checkpoint(cell.cell_dir / TRAINING, request.resume, torch.device("cpu")).progress()
        return f"stage {at[0] + 1} epoch {at[1]} step {at[2]}" if at else "was made otherwise: it starts over"
    return str(work.failures.get(cell.spec.name, "")) if cell.trains else "; ".join(cell.why)
