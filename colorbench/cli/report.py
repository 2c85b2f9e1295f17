"""`colorbench report`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from colorbench.cli.shared import plugin_option


@click.command()
@click.argument("folder", metavar="RUN")
@plugin_option
def report(folder: str, plugins: Sequence[Path]) -> None:
    """Write the tables and figures of a run again, from its records alone.

    Comparison, ablations, details and figures are written into the folder; the tables are printed. A --plugin adds its
    diagnostics.
    """
    from colorbench.api.run import open_run

    click.echo(open_run(folder, plugins).report())
