"""`colorbench run`"""

from __future__ import annotations

from typing import Any

import click

from colorbench.cli.shared import run_options, settings_of, show


@click.command(epilog="The same command again does only what is missing.")
@run_options
@click.option("--no-timing", is_flag=True, help="Skip the throughput timings.")
def run(no_timing: bool, **arguments: Any) -> None:
    """Train, score and compare models.

    \b
    colorbench run --models all
    colorbench run --models MODEL,MODEL --data photos.zip --preset paper --seed 0 --seed 1
    """
    models, data, settings = settings_of({**arguments, "timing": not no_timing})

    from colorbench.api.train import run
    from colorbench.harness.device import world

    done = run(models, data, **settings)
    if world()[0] == 0:
        show(done)
