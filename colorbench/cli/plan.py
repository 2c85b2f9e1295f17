"""`colorbench plan`"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from colorbench.cli.shared import print_rows, run_options, settings_of

if TYPE_CHECKING:
    from colorbench.api.train import Work
    from colorbench.runs.plan import Planned


@click.command()
@run_options
def plan(**arguments: Any) -> None:
    """Show what `colorbench run` would do with the same options. Nothing is trained or changed.

    A cell is one model and seed: done, kept, to be scored, stale (with the reason), resumable (with its position), or
    missing. One step of each model to be trained is timed. The total includes the throughput timings and the report.
    """
    from colorbench.api import train
    from colorbench.api.settings import options_of
    from colorbench.runs.plan import STALE

    work = train.prepare(options_of(*settings_of(arguments)))
    rows = [
        (cell.spec.name, f"seed {cell.seed}", cell.state, _cost(work, cell), _remark(work, cell)) for cell in work.cells
    ]
    print_rows(rows)
    click.echo(f"in all about {train.duration(work.seconds)} and {train.size(work.bytes)} on disk")
    if work.failures or any(cell.state == STALE for cell in work.cells):
        sys.exit(1)


def _cost(work: Work, cell: Planned) -> str:
    """What training and scoring the cell will take; "" for what is done."""
    from colorbench.api.train import duration, size

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
