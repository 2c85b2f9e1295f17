"""`colorbench plan`"""

from __future__ import annotations

import sys
from typing import Any

import click

from colorbench.cli.shared import options_of, print_rows, run_options


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
        (cell.spec.name, f"seed {cell.seed}", cell.state, api.cost(work, cell), api.remark(work, cell))
        for cell in work.cells
    ]
    print_rows(rows)
    click.echo(f"in all about {api.duration(work.seconds)} and {api.size(work.bytes)} on disk")
    if work.failures or any(cell.state == STALE for cell in work.cells):
        sys.exit(1)
