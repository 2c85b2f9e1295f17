"""What several commands share: options, their values, and how a command ends."""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from colorbench.contract import PUBLISHED
from colorbench.errors import UserError, without_control

if TYPE_CHECKING:
    from colorbench.api.run import Run
    from colorbench.api.settings import Names, Settings
    from colorbench.runs.records import CellRecord


def _files(context: click.Context, parameter: click.Parameter, pairs: Sequence[str]) -> dict[str, Path]:
    """What --weights or --initial gives, by name. Raises UserError for anything but NAME=FILE."""
    split = [pair.partition("=") for pair in pairs]
    if wrong := [pair for pair, (name, _, file) in zip(pairs, split, strict=True) if not name or not file]:
        raise UserError(f"--{parameter.name} {', '.join(wrong)}: write NAME=FILE")
    return {name: Path(file) for name, _, file in split}


def _files_or_kept(context: click.Context, parameter: click.Parameter, pairs: Sequence[str]) -> dict[str, Path]:
    """The same, where NAME alone, unlike a file's, stands for the published weights that are kept."""
    return _files(context, parameter, [pair if {*"=."} & {*pair} else f"{pair}={PUBLISHED}" for pair in pairs])


plugin_option: Callable[[Any], Any] = click.option(
    "--plugin", "plugins", multiple=True, metavar="FILE", type=click.Path(path_type=Path),
    help="A plugin in a Python file; may be repeated.",
)  # fmt: skip
protocol_option: Callable[[Any], Any] = click.option(
    "--protocol", metavar="NAME", help="How images are prepared and scored; see `colorbench list protocols`."
)
weights_option: Callable[[Any], Any] = click.option(
    "--weights", multiple=True, metavar="METRIC=FILE", callback=_files,
    help="Weights for a metric; may be repeated.",
)  # fmt: skip
pictures_option: Callable[[Any], Any] = click.option(
    "--pictures", multiple=True, metavar="NAME=DIR",
    help="A folder or zip of pictures made elsewhere, as a row; may be repeated.",
)  # fmt: skip
as_is_option: Callable[[Any], Any] = click.option(
    "--as-is", is_flag=True, help="Score such pictures with their own luminance, not the true one."
)
_RUN_OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.option(
        "--models", default="all", metavar="NAMES", help="Names separated by commas, all (the default), or everything."
    ),
    click.option("--ablations", metavar="NAMES", help="Also these ablations, such as no-prior,no-attention, or all."),
    click.option("--data", default="portraits", metavar="DATA", help="A dataset, NAME:ARGUMENT, a folder or a zip."),
    click.option("--preset", default="first", metavar="NAME", help="smoke, first (the default), quick or paper."),
    click.option("--seed", "seeds", type=int, multiple=True, help="Training seed; default 0; may be repeated."),
    click.option("--size", type=int, help="Side of the images in pixels, instead of the preset's."),
    click.option("--width", type=float, help="Factor on the channels of every network."),
    click.option("--epochs", type=int, help="Epochs of a single-stage model; scales other schedules."),
    click.option("--batch-size", type=int, help="Images per training step, over all processes."),
    click.option(
        "--weights",
        multiple=True,
        metavar="NAME[=FILE]",
        callback=_files_or_kept,
        help="Weights of a model, instead of training (without FILE the published ones that are kept), or of a metric.",
    ),
    click.option(
        "--initial",
        multiple=True,
        metavar="MODEL[=FILE]",
        callback=_files_or_kept,
        help="Weights to start the training of a model from; without FILE the published ones that are kept.",
    ),
    click.option(
        "--option",
        "options",
        multiple=True,
        metavar="MODEL.KEY=VALUE",
        help="An option of a model; several values (with commas or repeated) are rows to compare.",
    ),
    click.option("--select", type=click.Choice(["val"]), help="Name the best of these rows by validation images."),
    protocol_option,
    pictures_option,
    as_is_option,
    click.option("--out", metavar="FOLDER", help="The run folder; default results/DATA-PRESET[-PROTOCOL]."),
    click.option("--predictions", default="all", metavar="none|N|all", help="Number of predictions to keep."),
    click.option("--again", metavar="NAMES", help="Train these again, or all; old ones stay until new ones are done."),
    click.option("--keep", metavar="NAMES", help="Use these stale models, or all, as they are."),
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
