"""The verbs of the command line, each a few lines over `colorbench.api`, which is imported when a verb needs it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from colorbench.cli.shared import command_line, exit_if_failed, options_of, plugin_option, print_rows, run_options

if TYPE_CHECKING:
    from colorbench.api import Work
    from colorbench.runs.plan import Planned


@click.command(epilog="The same command again does only what is missing.")
@run_options
@click.option("--no-timing", is_flag=True, help="Leave out the throughput timings.")
def run(no_timing: bool, **arguments: Any) -> None:
    """Train, score and compare models.

    \b
    colorbench run --models all
    colorbench run --models MODEL,MODEL --data photos.zip --preset paper --seed 0 --seed 1
    """
    options = options_of(arguments, timing=not no_timing)

    from colorbench import api, report
    from colorbench.harness.device import world

    folder = api.run(options)
    if world()[0] == 0:
        click.echo(report.write(folder))
        click.echo(f"in {folder.path}", err=True)
        exit_if_failed(api.outcomes(folder, options))


@click.command()
@run_options
def plan(**arguments: Any) -> None:
    """Show what `colorbench run` would do with the same options: nothing is trained or changed.

    A cell is one model and seed: done, kept, to be scored, stale (and why), resumable (and how far), or missing. A
    step of each model that is to be trained is timed; the time left out is that of the throughput timings.
    """
    options = options_of(arguments)

    from colorbench import api
    from colorbench.runs.plan import STALE

    work = api.prepare(options)
    rows = [
        (cell.spec.name, f"seed {cell.seed}", cell.state, _cost(work, cell), _remark(work, cell)) for cell in work.cells
    ]
    print_rows(rows)
    click.echo(f"in all about {api.duration(work.seconds)} and {api.size(work.bytes)} on disk")
    if work.failures or any(cell.state == STALE for cell in work.cells):
        sys.exit(1)


def _cost(work: Work, cell: Planned) -> str:
    """What training and scoring the cell will take; "" for what is done."""
    from colorbench.api import duration, size

    estimate = work.estimates.get(cell.spec.name)
    if estimate is None or not cell.trains:
        return ""
    return f"{duration(estimate.training + estimate.prediction)}, {size(work.bytes_of(cell))}"


def _remark(work: Work, cell: Planned) -> str:
    """Why the cell is stale, how far its training has got, or why it will fail."""
    from colorbench.harness.checkpoint import position_of
    from colorbench.runs.folder import TRAINING
    from colorbench.runs.plan import RESUMABLE

    if cell.state == RESUMABLE:
        at = position_of(cell.cell_dir / TRAINING, work.context.request(cell.record, cell.cell_dir).resume)
        return f"stage {at[0] + 1} epoch {at[1]} step {at[2]}" if at else "was made otherwise: it starts over"
    return str(work.failures.get(cell.spec.name, "")) if cell.trains else "; ".join(cell.why)


@click.command()
@click.argument("folder", metavar="RUN")
def report(folder: str) -> None:
    """Write the tables and figures of a run again, from its records alone.

    The comparison, the ablations, the details and the figures are written into the folder; the tables are printed.
    """
    from colorbench import report
    from colorbench.runs.folder import RunFolder

    click.echo(report.write(RunFolder(folder)))


@click.command()
@click.argument("folder", metavar="RUN")
@click.option("--data", metavar="DATA", help="Where the run's images are now, if not where they were.")
@plugin_option
def score(folder: str, data: str | None, plugin_files: Sequence[Path]) -> None:
    """Score the predictions that a run has kept anew, say with a metric added since: no network, no training.

    \b
    colorbench score results/portraits-first --plugin my_metric.py
    """
    from colorbench import api, report

    scored = api.score(folder, data, plugin_files)
    click.echo(report.write(scored))
    exit_if_failed(cell for cell in scored.cells() if cell.has_weights)


@click.command("list")
@click.argument("what", type=click.Choice(["models", "datasets", "metrics", "presets", "plugins"]), default="models")
@plugin_option
def list_(what: str, plugin_files: Sequence[str]) -> None:
    """What there is: models (unless told otherwise), datasets, metrics, presets or plugins."""
    from colorbench import plugins
    from colorbench.presets import PRESETS
    from colorbench.protocol import SCORES

    registry = plugins.load(plugin_files)
    if what == "presets":
        kinds = [f"{p.size} px, width {p.width:g}, {p.epochs} epoch{'s' * (p.epochs > 1)}" for p in PRESETS.values()]
        rows = [(p.name, p.summary, kind) for p, kind in zip(PRESETS.values(), kinds, strict=True)]
    elif what == "plugins":
        given = [f"BROKEN: {p.broken}" if p.broken else ", ".join(p.provides) for p in registry.plugins]
        rows = [(p.name, has or "registers nothing", p.origin) for p, has in zip(registry.plugins, given, strict=True)]
    else:
        kind = what.removesuffix("s")
        rows = [(name, s.summary, registry.origins[kind, name]) for name, s in registry.specs[kind].items()]
        if what == "metrics":
            rows = [(name, summary, "the protocol") for name, summary in SCORES.items()] + rows
    print_rows(rows)


@click.command()
@click.argument("folder", metavar="RUN")
@click.option("--data", required=True, metavar="DATA", help="A dataset, NAME:ARGUMENT, or a folder or zip of images.")
@click.option("--out", metavar="FOLDER", help="Where to write; RUN/evaluations/DATA unless given.")
@plugin_option
def evaluate(folder: str, data: str, out: str | None, plugin_files: Sequence[Path]) -> None:
    """Score the trained models of a run on other images, without training.

    Of data with a test split that split is scored, of any other folder or zip every image.

    \b
    colorbench evaluate results/portraits-first --data old-photos.zip
    """
    from colorbench import api, report

    target = api.evaluate(folder, data, out, plugin_files, command_line())
    click.echo(report.write(target))
    click.echo(f"in {target.path}", err=True)
    exit_if_failed(target.cells())


@click.command()
@click.argument("photo", type=click.Path(path_type=Path))
@click.option("--model", required=True, help="The model that shall color it.")
@click.option("--run", metavar="RUN", help="The run folder that trained the model.")
@click.option("--weights", metavar="FILE", help="Published weights of the model, instead of a run.")
@click.option("--out", type=click.Path(path_type=Path), help="The PNG to write; PHOTO-MODEL.png unless given.")
@plugin_option
def colorize(
    photo: Path, model: str, run: str | None, weights: str | None, out: Path | None, plugin_files: Sequence[str]
) -> None:
    """Color a photo of any size; its luminance stays as it is.

    \b
    colorbench colorize old.jpg --model MODEL --run results/portraits-first
    """
    from colorbench import plugins
    from colorbench.harness.photo import colorize_file

    click.echo(colorize_file(photo, out, model, run, weights, plugins.load(plugin_files)))
