"""What several verbs share: options, what they stand for, and how a command ends."""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from colorbench.errors import UserError, without_control

if TYPE_CHECKING:
    from colorbench.api.run import Run
    from colorbench.api.settings import Names, Settings
    from colorbench.runs.records import CellRecord


def _files(context: click.Context, parameter: click.Parameter, pairs: Sequence[str]) -> dict[str, Path]:
    """What --weights or --initial gives, by name. Raises UserError for anything but NAME=FILE."""
    split = [pair.partition("=") for pair in pairs]
    if wrong := [pair for pair, (name, _, file) in zip(pairs, split, strict=True) if not name or not file]:
        raise UserError(f"--{parameter.name} {', '.join(wrong)}: say NAME=FILE")
    return {name: Path(file) for name, _, file in split}


plugin_option: Callable[[Any], Any] = click.option(
    "--plugin", "plugins", multiple=True, metavar="FILE", type=click.Path(path_type=Path),
    help="A plugin from a plain Python file; may be repeated.",
)  # fmt: skip
protocol_option: Callable[[Any], Any] = click.option(
    "--protocol", metavar="NAME", help="How images are fed and scored: see `colorbench list protocols`."
)
weights_option: Callable[[Any], Any] = click.option(
    "--weights", multiple=True, metavar="METRIC=FILE", callback=_files,
    help="Weights that a metric needs; may be repeated.",
)  # fmt: skip
pictures_option: Callable[[Any], Any] = click.option(
    "--pictures", multiple=True, metavar="NAME=DIR",
    help="A row of pictures made elsewhere, a folder or zip; may be repeated.",
)  # fmt: skip
as_is_option: Callable[[Any], Any] = click.option(
    "--as-is", is_flag=True, help="Score such pictures with their own luminance, not with the true one."
)
_RUN_OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.option("--models", default="all", metavar="NAMES", help="Names with commas between, or all (the default)."),
    click.option("--ablations", metavar="NAMES", help="Ablations of the models, too, or all: no-prior,no-attention"),
    click.option("--data", default="portraits", metavar="DATA", help="A dataset, NAME:ARGUMENT, a folder or a zip."),
    click.option("--preset", default="first", metavar="NAME", help="smoke, first (the default), quick or paper."),
    click.option("--seed", "seeds", type=int, multiple=True, help="0; may be repeated."),
    click.option("--size", type=int, help="Side of the images in pixels, not the preset's."),
    click.option("--width", type=float, help="Factor on every network's channels."),
    click.option("--epochs", type=int, help="Epochs of a single-stage model; others scale along."),
    click.option("--batch-size", type=int, help="Images in a training step, over all processes."),
    click.option(
        "--weights",
        multiple=True,
        metavar="NAME=FILE",
        callback=_files,
        help="A model's instead of a training; a metric's.",
    ),
    click.option(
        "--initial",
        multiple=True,
        metavar="MODEL=FILE",
        callback=_files,
        help="Weights that a model is trained on from.",
    ),
    click.option(
        "--option",
        "options",
        multiple=True,
        metavar="MODEL.KEY=VALUE",
        help="An option of a model; values with commas between, or repeated, are rows to compare.",
    ),
    click.option("--select", type=click.Choice(["val"]), help="Name the best of such rows by the validation images."),
    protocol_option,
    pictures_option,
    as_is_option,
    click.option("--out", metavar="FOLDER", help="The run folder; results/DATA-PRESET[-PROTOCOL]."),
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


def settings_of(arguments: dict[str, Any]) -> tuple[Names, str, Settings]:
    """The options of `run` that were given, as `colorbench.run` takes them."""
    given: Any = {name: value for name, value in arguments.items() if value not in (None, (), {})}
    given["command"] = command_line()
    return given.pop("models"), given.pop("data"), given


def show(run: Run) -> None:
    """Print the tables of a run and where they are; exit with 1 if a cell that was asked for is not done."""
    click.echo(run.markdown)
    click.echo(f"in {run.path}", err=True)
    exit_if_failed(run.cells)


def exit_if_failed(cells: Iterable[CellRecord]) -> None:
    """Name each cell that is not done and its reason, a line each, and exit with 1 if there is any."""
    from colorbench.runs.records import DONE

    failed = [cell for cell in cells if cell.status != DONE]
    for cell in failed:
        click.echo(f"colorbench: {cell.model} seed {cell.seed} {cell.status}: {cell.reason}", err=True)
    if failed:
        sys.exit(1)
