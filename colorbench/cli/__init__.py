"""The command line: one module per verb, each a few lines over the other packages."""

from __future__ import annotations

import sys
from typing import Any

import click

from colorbench.cli.colorize import colorize
from colorbench.cli.evaluate import evaluate
from colorbench.cli.list import list_
from colorbench.cli.report import report
from colorbench.cli.run import run
from colorbench.errors import DISK_FULL, UserError


class _Group(click.Group):
    """Turns what a user can mend into one line, and Ctrl-C into what happens next."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except UserError as error:
            _stop(str(error), 2)
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            where = f" ({error.filename})" if error.filename else ""
            _stop(
                f"the disk is full{where}: free some space and run the same command again; what is finished is kept",
                2,
            )
        except KeyboardInterrupt:
            _stop("stopped; what is finished is kept: run the same command again to go on", 130)


def _stop(message: str, status: int) -> None:
    click.echo(f"colorbench: {' '.join(message.split())}", err=True)
    sys.exit(status)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="colorbench")
def main() -> None:
    """Train and compare image colorization models on one harness, under one written protocol.

    \b
    colorbench run --models all                      every model on the built-in portraits, in minutes
    colorbench run --models all --data FOLDER        the same on your photographs
    colorbench list models                           what is installed
    """


for command in (run, report, list_, evaluate, colorize):
    main.add_command(command)
