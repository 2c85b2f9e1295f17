"""`colorbench score`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from colorbench.cli.shared import (
    as_is_option,
    command_line,
    exit_if_failed,
    plugin_option,
    weights_option,
)  # fmt: skip
from colorbench.errors import UserError, refuse_empty


@click.command()
@click.argument("folders", metavar="RUN|[NAME=]DIR...", nargs=-1, required=True)
@click.option("--truth", metavar="DATA", help="The true colors of the pictures: a dataset, a folder or a zip.")
@click.option("--size", type=int, help="Side of the pictures in pixels; default 256.")
@click.option("--out", metavar="FOLDER", help="Where to write the table; default results/DATA-pictures[-PROTOCOL].")
@as_is_option
@click.option("--data", metavar="DATA", help="Where the run's images are now, if they were moved.")
@click.option("--protocol", metavar="NAMES", help="Also score under these protocols, or all: writes protocols.md.")
@weights_option
@plugin_option
def score(
    folders: Sequence[str], truth: str | None, data: str | None, protocol: str | None, plugins: Sequence[Path],
    **settings: Any,
) -> None:  # fmt: skip
    """Score existing pictures: no network, no training.

    With --truth: folders or zips of pictures made elsewhere, matched with the true ones by name. Without: the kept
    predictions of a run, for example with a metric added later.

    With a single --protocol, the table of pictures uses that protocol.

    \b
    colorbench score colored/ other=elsewhere/ --truth photos/
    colorbench score results/my-run --plugin my_metric.py
    colorbench score results/my-run --protocol all
    """
    from colorbench.api.score import score_run
    from colorbench.api.settings import listed

    refuse_empty(data=data, truth=truth, protocol=protocol, out=settings["out"])
    names = listed(protocol) if protocol else []
    if truth is not None:
        _score_pictures(folders, truth, names, {**settings, "plugins": plugins, "command": command_line()})
    elif len(folders) > 1 or settings["as_is"] or settings["out"] is not None:
        raise UserError("pictures are scored against the true ones: give their place with --truth DATA")
    elif names:
        _under(names, folders[0], data, plugins)
    else:
        scored = score_run(folders[0], data, plugins, settings["weights"])
        click.echo(scored.markdown)
        exit_if_failed(scored.cells)


def _score_pictures(folders: Sequence[str], truth: str, names: Sequence[str], settings: dict[str, Any]) -> None:
    from colorbench.api.pictures import score_pictures

    several = len(names) > 1 or "all" in names
    given: Any = {name: value for name, value in settings.items() if value not in (None, (), {})}
    if names and not several:
        given |= {"protocol": names[0]}
    scored = score_pictures(folders, truth, **given)
    click.echo(scored.markdown)
    if several:
        _under(names, scored.path, None, settings["plugins"])
    click.echo(f"in {scored.path}", err=True)
    exit_if_failed(scored.cells)


def _under(names: Sequence[str], run: str | Path, data: str | None, plugins: Sequence[Path]) -> None:
    """Score what a run has kept under these protocols, and print protocols.md."""
    from colorbench import report
    from colorbench.api.score import score_protocols

    scored = score_protocols(run, names, data, plugins)
    click.echo((scored.path / report.PROTOCOLS).read_text())
