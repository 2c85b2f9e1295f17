"""`colorbench score`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from colorbench.cli.shared import exit_if_failed, listed, plugin_option


@click.command()
@click.argument("folder", metavar="RUN")
@click.option("--data", metavar="DATA", help="Where the run's images are now, if not where they were.")
@click.option("--protocol", metavar="NAMES", help="Under these protocols as well, or all: writes protocols.md.")
@plugin_option
def score(folder: str, data: str | None, protocol: str | None, plugin_files: Sequence[Path]) -> None:
    """Score the predictions that a run has kept anew, say with a metric added since: no network, no training.

    \b
    colorbench score results/portraits-first --plugin my_metric.py
    colorbench score results/portraits-first --protocol all
    """
    from colorbench import api, report

    if protocol is not None:
        scored = api.score_protocols(folder, listed(protocol), data, plugin_files)
        report.write(scored)
        click.echo((scored.path / report.PROTOCOLS).read_text())
        return
    scored = api.score(folder, data, plugin_files)
    click.echo(report.write(scored))
    exit_if_failed(cell for cell in scored.cells() if cell.has_weights)
