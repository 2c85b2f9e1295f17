"""`colorbench run`"""

from __future__ import annotations

from typing import Any

import click

from colorbench.cli.shared import exit_if_failed, options_of, run_options


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
        click.echo(report.write(folder, options.plugin_files))
        click.echo(f"in {folder.path}", err=True)
        exit_if_failed(api.outcomes(folder, options))
