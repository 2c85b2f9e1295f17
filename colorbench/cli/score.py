"""`colorbench score`"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from colorbench.cli.shared import (
    as_is_option,
    command_line,
    exit_if_failed,
    listed,
    plugin_option,
    refuse_empty,
    specs_of,
    weight_files,
    weights_option,
)  # fmt: skip
from colorbench.errors import UserError
from colorbench.protocol import COLORBENCH

if TYPE_CHECKING:
    from colorbench.api import Options


@click.command()
@click.argument("folders", metavar="RUN|[NAME=]DIR...", nargs=-1, required=True)
@click.option("--truth", metavar="DATA", help="The true colors of the pictures: a dataset, a folder or a zip.")
@click.option("--size", type=click.IntRange(16), default=256, help="Side of the pictures in pixels (256).")
@click.option("--out", metavar="FOLDER", help="Where the table of pictures goes; results/DATA-pictures unless given.")
@as_is_option
@click.option("--data", metavar="DATA", help="Where the run's images are now, if not where they were.")
@click.option("--protocol", metavar="NAMES", help="Under these protocols, too, or all: writes protocols.md.")
@weights_option
@plugin_option
def score(
    folders: Sequence[str], truth: str | None, data: str | None, protocol: str | None, plugin_files: Sequence[Path],
    weights: Sequence[str],    **settings: Any,
) -> None:  # fmt: skip
    """Score pictures that are there already: no network, no training.

    With --truth these are folders or zips of pictures made elsewhere, matched with the true ones by name; without,
    the predictions that a run has kept, say with a metric added since.

    Under one --protocol the table of pictures is that protocol's own.

    \b
    colorbench score colored/ deoldify=other/ --truth photos/
    colorbench score results/my-run --plugin my_metric.py
    colorbench score results/my-run --protocol all
    """
    from colorbench import api, report

    refuse_empty(data=data, truth=truth, out=settings["out"])
    names = listed(protocol) if protocol else []
    if truth is None:
        if len(folders) > 1 or settings["as_is"] or settings["out"]:
            raise UserError("pictures are scored against the true ones: say where these are with --truth DATA")
        if names:
            _under(names, folders[0], data, plugin_files)
            return
        scored = api.score(folders[0], data, plugin_files, weight_files(weights))
        click.echo(report.write(scored, plugin_files))
        exit_if_failed(cell for cell in scored.cells() if cell.has_weights)
        return
    several = len(names) > 1 or "all" in names
    own = COLORBENCH.name if several else protocol
    options = replace(_options(folders, truth, plugin_files, protocol=own, **settings), weights=weight_files(weights))
    folder = api.run(options)
    click.echo(report.write(folder, plugin_files))
    if several:
        _under(names, folder.path, None, plugin_files)
    click.echo(f"in {folder.path}", err=True)
    exit_if_failed(api.outcomes(folder, options))


def _under(names: Sequence[str], run: str | Path, data: str | None, plugin_files: Sequence[Path]) -> None:
    """Score what a run has kept under these protocols, and print protocols.md."""
    from colorbench import api, report

    scored = api.score_protocols(run, names, data, plugin_files)
    report.write(scored, plugin_files)
    click.echo((scored.path / report.PROTOCOLS).read_text())


def _options(
    folders: Sequence[str], truth: str, plugin_files: Sequence[Path], protocol: str | None, size: int, out: str | None,
    as_is: bool,
) -> Options:  # fmt: skip
    """A run of these pictures, and of the models that learn nothing, on the test images alone."""
    from colorbench.api import Options
    from colorbench.contract import Preset
    from colorbench.data.splits import dataset_name
    from colorbench.plugins import load
    from colorbench.runs.plan import own_fields

    preset = Preset("pictures", "", size=size, width=1.0, batch_size=1, epochs=1, train=0, val=0)
    pictures, registry = specs_of(folders, as_is), load(plugin_files)
    free = [spec for spec in registry.specs["model"].values() if not (spec.parent or spec.refines or spec.trained_as)]
    floors = [spec.name for spec in free if not own_fields(spec, preset, registry, untrained=False)["stages"]]
    return Options(
        models=[*floors, *(spec.name for spec in pictures)], data=truth, preset=preset,
        out=Path(out or Path("results", "-".join([dataset_name(truth), "pictures", *filter(None, [protocol])]))),
        plugin_files=plugin_files, protocol=protocol or COLORBENCH.name, pictures=pictures, remakes=True, timing=False,
        command=command_line(),
    )  # fmt: skip
