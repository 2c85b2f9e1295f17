"""Train, predict, score and time what is missing in a run, or report what that would take."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

from tqdm import tqdm

from colorbench.api.common import (
    ask,
    load_registry,
    make_apart,
    make_context,
    sample_pictures,
    say,
    say_outcome,
    write_outcome,
)  # fmt: skip
from colorbench.api.run import Run, reported
from colorbench.api.score import check_metrics_apart, rescore
from colorbench.api.settings import Names, Options, Settings, options_of
from colorbench.contract import ModelSpec
from colorbench.data.splits import SHARES
from colorbench.errors import UserError, refuse_unknown, why_no_file
from colorbench.harness import device
from colorbench.harness.preflight import Estimate, PublishedRequest, check_model, check_weights
from colorbench.harness.throughput import time_models
from colorbench.options import configure
from colorbench.plugins import Registry
from colorbench.runs import executors
from colorbench.runs import folder as files
from colorbench.runs.context import Context, with_needed
from colorbench.runs.folder import RunFolder, cell_name
from colorbench.runs.plan import KEPT, READY, STALE, TO_DO, UNSCORED, Planned, new_record, plan, refuse_stale, waiting
from colorbench.runs.records import DONE, FAILED, SKIPPED, CellRecord

BYTES_PER_PIXEL = 2.2  # of a prediction as PNG, about
REPORT_SECONDS, REPORTED_CELL_SECONDS = 1.0, 0.15  # of tables and figures, about


@dataclass(frozen=True)
class Work:
    """A plan and its checks: for each model an estimate, or the reason why it cannot be trained."""

    context: Context
    cells: Sequence[Planned]
    estimates: Mapping[str, Estimate]
    failures: Mapping[str, Exception]
    timing: bool = True

    @property
    def seconds(self) -> float:
        """Estimated time in seconds, with the throughput timings, if any, and the report."""
        costs = [(cell, self.estimates[cell.spec.name]) for cell in self.cells if cell.spec.name in self.estimates]
        seconds = sum(cost.training for cell, cost in costs if cell.trains)
        seconds += sum(cost.prediction for cell, cost in costs if cell.trains or cell.state == UNSCORED)
        if self.timing:
            seconds += sum({cell.spec.name: cost.timing for cell, cost in costs if cell.trains}.values())
        return seconds + REPORT_SECONDS + REPORTED_CELL_SECONDS * len(self.cells)

    @property
    def bytes(self) -> int:
        """Estimated size of the files to write, in bytes."""
        return sum(self.bytes_of(cell) for cell in self.cells if cell.trains)

    def bytes_of(self, cell: Planned) -> int:
        estimate, test = self.estimates.get(cell.spec.name), len(self.context.data.splits["test"])
        kept = min(test, test if self.context.keep is None else self.context.keep)
        pictures = kept * BYTES_PER_PIXEL * self.context.preset.size**2
        return round(pictures + (estimate.weights if estimate else 0))


def run(models: Names = "all", data: str | Path = "portraits", **settings: Unpack[Settings]) -> Run:
    """Train, score, time and compare models: `colorbench run`, whose options are the settings (`Settings`).

        run = colorbench.run("all", "photos/", preset="quick", seeds=[0, 1, 2], out="results/photos")

    `models` are names, as a list or separated by commas; "all" stands for the models to compare with, "everything" for
    every model that is no ablation. `data` is a dataset, NAME:ARGUMENT, or a folder or zip of images. The same call
    again does only what is missing. A failed model is a row with the reason. Raises UserError for everything that can
    be detected before training: settings, data or weights that do not fit, a folder made under other conditions, stale
    cells.
    """
    return train(options_of(models, data, settings))


def train(options: Options) -> Run:
    """Train, score and time every missing model and seed, and write the report."""
    registry, specs = _asked(options)
    folder, rank = RunFolder(options.out), device.world()[0]
    with folder.held() if rank == 0 else contextlib.nullcontext():
        with _main_first():  # the others then find the images decoded
            context = _context_to_run(folder, registry, options)
        if rank == 0:
            _recover(folder, specs, options.seeds)
        _wait()
        cells = _planned(context, specs, options)
        refuse_stale(cells)
        work = _checked(context, cells, options.timing)
        _wait()
        if rank == 0:
            _begin(context, work.cells, options.command)
        _make_all(work)
        if rank == 0:
            asked = {(cell.spec.name, cell.seed) for cell in work.cells}
            others = [cell for cell in folder.cells() if (cell.model, cell.seed) not in asked and cell.has_weights]
            rescore(context, [cell for cell in others if cell.scored_by != context.scoring])
            if options.timing:
                time_models(context, specs, options.seeds)
    if rank == 0:
        return reported(folder, outcomes(folder, options), options.plugin_files)
    return Run(folder, [], options.plugin_files)


def prepare(options: Options) -> Work:
    """What `run` would do, how long it would take and how much it would write; the folder is not changed."""
    registry, specs = _asked(options)
    context = _context_to_run(RunFolder(options.out), registry, options)
    return _checked(context, _planned(context, specs, options), options.timing)


def outcomes(folder: RunFolder, options: Options) -> list[CellRecord]:
    """The requested cells, including cells made again that have not replaced the old ones."""
    swept = {name for name in options.options if name.rpartition(".")[0] in options.models}
    cells = [cell for cell in folder.cells() if cell.seed in options.seeds]
    cells = [cell for cell in cells if cell.model in options.models or f"{cell.parent}.{cell.sweep}" in swept]
    again = [(folder.again_dir(cell.model, cell.seed), cell) for cell in cells if options.again]
    begun = [(path, cell) for path, cell in again if (path / files.CELL).exists()]
    return cells + [files.read_cell(path, cell.model, cell.seed) for path, cell in begun]


def _asked(options: Options) -> tuple[Registry, list[ModelSpec]]:
    """The plugins under the options given, and the models to run: with what they need and the rows of sweeps."""
    registry = load_registry(options.plugin_files, options.weights, options.models, options.pictures)
    configure(registry, options.options)
    if options.select and not registry.sweeps:
        raise UserError("--select val: there are no rows to select from; give --option MODEL.KEY=VALUE,VALUE")
    specs = with_needed(registry.find("model", [*options.models, *registry.sweeps]), registry)
    names = [spec.name for spec in with_needed(registry.find("model", options.models), registry)]
    refuse_unknown("model that runs for --option", {name.rpartition(".")[0]: None for name in options.options}, names)
    refuse_unknown("model that runs for --initial", options.initial, names)
    for name, file in options.initial.items():
        if why := "--weights gives its weights already" if name in options.weights else why_no_file(file):
            raise UserError(f"--initial {name}={file}: {why}; name one file of weights to train on from")
    return registry, specs


def _context_to_run(folder: RunFolder, registry: Registry, options: Options) -> Context:
    preset = options.preset
    # Of which none is asked for need not be there.
    limits = {split: limit for split in SHARES if (limit := getattr(preset, split)) != 0}
    context = make_context(
        folder, registry, options.data, limits, preset, registry.find("protocol", [options.protocol])[0],
        plugin_files=tuple(options.plugin_files), weights=options.weights, keep=options.predictions,
        options=options.options, initial=options.initial, validates=options.select == "val",
    )  # fmt: skip
    if options.select and not len(context.data.splits.get("val", ())):
        raise UserError(f"--select val: {options.data} has no val split; give data with one, or leave this out")
    for name in options.models:
        if file := options.weights.get(name):
            request = PublishedRequest(context.plugins_for([name]), name, preset.size, file)
            ask(check_weights, request, f"{name!r} with --weights {file}")
    folder.check(context.run_record())
    return context


def _planned(context: Context, specs: Sequence[ModelSpec], options: Options) -> list[Planned]:
    names = [spec.name for spec in specs]
    again, keep = ([*names] if "all" in asked else [*asked] for asked in (options.again, options.keep))
    refuse_unknown("model for --again or --keep among those that run", [*again, *keep], names)
    cells = plan(context, specs, options.seeds, again, keep)
    for cell in cells:
        if cell.spec.name in options.initial and not cell.record.made_from.get("stages"):
            raise UserError(
                f"--initial {cell.spec.name}: it learns nothing by itself; leave that out, or give --weights"
            )
    if options.remakes:
        cells = [replace(cell, state=TO_DO) if cell.state == STALE else cell for cell in cells]
    for line in waiting(context, cells):
        say(line)
    return cells


def _checked(context: Context, cells: Sequence[Planned], timing: bool) -> Work:
    """The plan, and what is wrong with its models. Raises UserError for metrics that fail."""
    if any(cell.state not in (READY, KEPT) for cell in cells):
        check_metrics_apart(context, cells[0].record)
    if device.world()[1] > 1:
        return Work(
            context, cells, {}, {}, timing
        )  # what is wrong with a model shows in all processes alike, as it is made
    estimates, failures = {}, {}
    # What only the truth can make trains nothing: making it costs no more than the check would.
    checked = [cell for cell in reversed(cells) if cell.trains and not cell.spec.sees_truth]
    models = {cell.spec.name: cell for cell in checked}
    for name, cell in tqdm(models.items(), desc="checking", unit="model", disable=None, leave=False):
        try:
            estimates[name] = executors.call(check_model, context.request(cell.record, cell.cell_dir))
        except (RuntimeError, UserError, OSError) as error:
            if name in context.initial and isinstance(error, UserError):
                raise UserError(f"--initial {name}: {error}") from error
            failures[name] = error
    return Work(context, cells, estimates, failures, timing)


def _begin(context: Context, cells: Sequence[Planned], command: str) -> None:
    """Write the folder's record and its sample pictures."""
    record = context.run_record()
    record.commands, record.cells = [command], [(cell.spec.name, cell.seed) for cell in cells]
    marked = [cell for cell in cells if cell.why and cell.state in (KEPT, UNSCORED)]
    record.kept = {cell_name(cell.spec.name, cell.seed): list(cell.why) for cell in marked}
    trained_on = context.data.splits.get("train")
    digests = "\n".join(trained_on.digests if trained_on else ()) + "\n"
    context.folder.begin(record, {files.SAMPLES: sample_pictures(context.data), files.TRAINED_ON: digests.encode()})


def _make_all(work: Work) -> None:
    """Make every cell that is not done, bases first."""
    todo = [cell for cell in work.cells if cell.state not in (READY, KEPT) or cell.is_again]
    if len(todo) < len(work.cells):
        say(f"{len(work.cells) - len(todo)} of {len(work.cells)} are done already in {work.context.folder.path}")
    if any(estimate.training for estimate in work.estimates.values()):
        say(f"about {duration(work.seconds)} in all, and {size(work.bytes)} on disk")
    for cell in todo:
        _wait()  # nobody may save before everybody has seen what is missing
        # What it builds on may have been made since the plan.
        fresh = new_record(work.context, cell.spec, cell.seed) if cell.trains else cell.record
        record = _make_one(work, replace(cell, record=fresh))
        if device.world()[0] == 0 and record.status == DONE and cell.is_again:
            files.promote(cell.cell_dir)
        say_outcome(record)


def _make_one(work: Work, cell: Planned) -> CellRecord:
    """Make a cell, or write down why that cannot be."""
    for role, name in (("its base", cell.spec.refines), ("the model whose weights it takes,", cell.spec.trained_as)):
        if cell.trains and name and (missing := _why_missing(work, name, cell.seed)):
            return write_outcome(cell.cell_dir, cell.record, SKIPPED, f"{role} {name} {missing}")
    if error := work.failures.get(cell.spec.name):
        files.write_aside(cell.cell_dir / files.TRACEBACK, getattr(error, "traceback", ""))
        return write_outcome(cell.cell_dir, cell.record, FAILED, str(error))
    return make_apart(work.context.request(cell.record, cell.cell_dir))


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


def duration(seconds: float) -> str:
    """A rough duration in words: "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    """A file size in words: "3 MB"."""
    return f"{count / 1e6:.0f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"


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
