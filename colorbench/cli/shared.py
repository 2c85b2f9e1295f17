"""What several verbs share: options, what they stand for, and how a command ends."""

from __future__ import annotations

import functools
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click

from colorbench.contract import MODEL_NAME, ModelSpec
from colorbench.errors import UserError, one_line, refuse_unknown, refuse_unknown_data, without_control
from colorbench.plugins import Registry, load
from colorbench.protocol import COLORBENCH

if TYPE_CHECKING:
    from colorbench.api import Options
    from colorbench.runs.records import CellRecord

plugin_option: Callable[[Any], Any] = click.option(
    "--plugin", "plugin_files", multiple=True, metavar="FILE", type=click.Path(path_type=Path),
    help="A plugin from a plain Python file; may be repeated.",
)  # fmt: skip
protocol_option: Callable[[Any], Any] = click.option(
    "--protocol", metavar="NAME", help="How images are fed and scored: see `colorbench list protocols`."
)
weights_option: Callable[[Any], Any] = click.option(
    "--weights", multiple=True, metavar="METRIC=FILE", help="Weights that a metric needs; may be repeated."
)
pictures_option: Callable[[Any], Any] = click.option(
    "--pictures", multiple=True, metavar="NAME=DIR",
    help="A row of pictures made elsewhere, a folder or zip; may be repeated.",
)  # fmt: skip
as_is_option: Callable[[Any], Any] = click.option(
    "--as-is", is_flag=True, help="Score such pictures with their own luminance, not with the true one."
)
MOST = 2**31 - 1  # of what is counted: tables and records hold no more
_RUN_OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.option("--models", default="all", metavar="NAMES", help="Names with commas between, or all (the default)."),
    click.option("--ablations", metavar="NAMES", help="Ablations of the models, too, or all: no-prior,no-attention"),
    click.option("--data", default="portraits", metavar="DATA", help="A dataset, NAME:ARGUMENT, a folder or a zip."),
    click.option("--preset", default="first", metavar="NAME", help="smoke, first (the default), quick or paper."),
    click.option("--seed", type=click.IntRange(0, 2**63 - 1), multiple=True, help="0; may be repeated."),
    click.option("--size", type=click.IntRange(16, MOST), help="Side of the images in pixels, not the preset's."),
    click.option("--width", type=click.FloatRange(0, min_open=True), help="Factor on every network's channels."),
    click.option("--epochs", type=click.IntRange(1, MOST), help="Epochs of a single-stage model; others scale along."),
    click.option("--batch-size", type=click.IntRange(1, MOST), help="Images in a training step, over all processes."),
    click.option("--weights", multiple=True, metavar="NAME=FILE", help="A model's instead of a training; a metric's."),
    protocol_option,
    pictures_option,
    as_is_option,
    click.option("--out", metavar="FOLDER", help="The run folder; results/DATA-PRESET unless given."),
    click.option("--predictions", default="all", metavar="none|N|all", help="How many predictions to keep."),
    click.option("--again", metavar="NAMES", help="Train these anew, or all; the old ones stay until that is done."),
    click.option("--keep", metavar="NAMES", help="Use these, or all, as they are, not as they would be made now."),
    plugin_option,
)


def run_options(command: Any) -> Any:
    """The options of `run`, which `plan` takes, too."""
    return functools.reduce(lambda inner, option: option(inner), reversed(_RUN_OPTIONS), command)


def print_rows(rows: Sequence[Sequence[str]]) -> None:
    """Columns of text, as wide as their longest entries."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        click.echo(without_control(line).rstrip())


def command_line() -> str:
    """The command as it was given."""
    return shlex.join(["colorbench", *sys.argv[1:]])


def options_of(arguments: dict[str, Any], timing: bool = True) -> Options:
    """What the options of `run` stand for. Raises UserError that names all that is wrong with them at once."""
    from colorbench.presets import PRESETS

    given = SimpleNamespace(**arguments)
    pictures = specs_of(given.pictures, given.as_is)
    registry = load(given.plugin_files, pictures=pictures)
    for plugin in registry.plugins:
        if plugin.broken:
            click.echo(f"plugin {plugin.name} is broken and left out: {plugin.broken}", err=True)
        if plugin.changed:
            what = ", ".join(plugin.changed)
            click.echo(f"plugin {plugin.name} changes {what} when imported: put back; do that in `build`", err=True)
    every = [name for name, spec in registry.specs["model"].items() if not spec.parent]
    names = every if given.models == "all" else listed(given.models)
    names += [spec.name for spec in pictures if spec.name not in names]
    names += _ablations(given.ablations, names, registry) if given.ablations else []
    files, protocol = weight_files(given.weights), given.protocol or COLORBENCH.name
    others = [name for name in files if name not in names and name not in registry.specs["metric"]]
    _refuse_all(
        lambda: registry.find("model", [*names, *others]),
        lambda: registry.find("protocol", [protocol]),
        lambda: refuse_unknown("preset", [given.preset], PRESETS),
        lambda: refuse_unknown_data(given.data, registry.specs["dataset"]),
        lambda: _count(given.predictions),
        lambda: _refuse_infinite(given.width),
        lambda: refuse_empty(
            protocol=given.protocol, out=given.out, ablations=given.ablations, again=given.again, keep=given.keep
        ),
    )

    from colorbench.api import Options
    from colorbench.data.splits import dataset_name

    overrides = {
        name: arguments[name] for name in ("size", "width", "epochs", "batch_size") if arguments[name] is not None
    }
    return Options(
        models=names,
        data=given.data,
        preset=replace(PRESETS[given.preset], **overrides),
        out=Path(given.out or Path("results", f"{dataset_name(given.data)}-{given.preset}")),
        seeds=tuple(dict.fromkeys(given.seed)) or (0,),
        weights=files,
        protocol=protocol,
        pictures=pictures,
        plugin_files=given.plugin_files,
        timing=timing,
        again=listed(given.again) if given.again else (),
        keep=listed(given.keep) if given.keep else (),
        predictions=_count(given.predictions),
        command=command_line(),
    )


def weight_files(pairs: Sequence[str]) -> dict[str, Path]:
    """What --weights gives, by name. Raises UserError for anything but NAME=FILE."""
    split = [pair.partition("=") for pair in pairs]
    if wrong := [pair for pair, (name, _, file) in zip(pairs, split, strict=True) if not name or not file]:
        raise UserError(f"--weights {', '.join(wrong)}: say NAME=FILE")
    return {name: Path(file) for name, _, file in split}


def exit_if_failed(cells: Iterable[CellRecord]) -> None:
    """Name each cell that is not done and its reason, a line each, and exit with 1 if there is any."""
    from colorbench.runs.records import DONE

    failed = [cell for cell in cells if cell.status != DONE]
    for cell in failed:
        click.echo(f"colorbench: {cell.model} seed {cell.seed} {cell.status}: {cell.reason}", err=True)
    if failed:
        sys.exit(1)


def _count(text: str) -> int | None:
    if text in ("all", "none"):
        return None if text == "all" else 0
    if not text.isdecimal():
        raise UserError(f"--predictions {text}: say none, all, or how many")
    return int(text)


def refuse_empty(**options: str | None) -> None:
    """Raises UserError naming the options that were given without a word, as by a script whose variable is not set."""
    if empty := [f"--{name}" for name, value in options.items() if value == ""]:
        verb = "is" if len(empty) == 1 else "are"
        raise UserError(f"{', '.join(empty)} {verb} empty; say what is meant, or leave it out")


def _refuse_infinite(width: float | None) -> None:
    if width is not None and not math.isfinite(width):
        raise UserError(f"--width {width}: give a number, such as 0.5")


def listed(text: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise UserError(f"{text!r} names nothing; say all, or names with commas between")
    return names


def _ablations(text: str, models: Sequence[str], registry: Registry) -> list[str]:
    """The full names of the ablations of `models`: of all, or of the changes that `text` lists."""
    changes: dict[str, list[str]] = {}
    for name, spec in registry.specs["model"].items():
        if spec.parent in models:
            changes.setdefault(name.removeprefix(f"{spec.parent}/"), []).append(name)
    if not changes:
        raise UserError(f"there is no ablation of {', '.join(models)}; leave out --ablations, or name other --models")
    wanted = list(changes) if text == "all" else listed(text)
    refuse_unknown(f"ablation of {', '.join(models)}:", wanted, changes)
    return [name for change in wanted for name in changes[change]]


def specs_of(given: Sequence[str], as_is: bool) -> list[ModelSpec]:
    """The rows made elsewhere that NAME=DIR, or DIR alone, stand for. Raises UserError for what is no name or path."""
    specs = []
    for text in given:
        name, _, path = text.rpartition("=") if not os.path.exists(text) else ("", "", text)
        name = name or re.sub("[^a-z0-9.]+", "-", Path(path).resolve().stem.lower()).strip("-.")
        if not os.path.exists(path):
            raise UserError(f"there are no pictures {path!r}; name a folder or zip of them, as NAME=DIR")
        if "/" in name or not re.fullmatch(MODEL_NAME, name):
            raise UserError(f"pictures cannot be called {name!r}: say NAME=DIR, NAME of a-z, 0-9, dashes and dots")
        options = {"as_is": True} if as_is else {}
        summary = one_line(f"made elsewhere: pictures of {Path(path).resolve().name}")
        specs.append(ModelSpec(name, summary, options=options, pictures=Path(path)))
    return specs


def _refuse_all(*checks: Callable[[], Any]) -> None:
    """Run every check and raise all that they say at once: nobody wants to mend a command one word at a time."""
    problems = []
    for check in checks:
        try:
            check()
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("; ".join(problems))
