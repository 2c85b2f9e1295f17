"""The command line: one module per command, each a few lines that call the other packages."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Iterator
from typing import Any

import click

from colorbench.cli.check import check
from colorbench.cli.colorize import colorize
from colorbench.cli.compare import compare
from colorbench.cli.evaluate import evaluate
from colorbench.cli.export import export
from colorbench.cli.list import list_
from colorbench.cli.merge import merge
from colorbench.cli.new import new
from colorbench.cli.plan import plan
from colorbench.cli.report import report
from colorbench.cli.run import run
from colorbench.cli.score import score
from colorbench.cli.weights import weights
from colorbench.errors import DISK_FULL, UserError, one_line


class _Group(click.Group):
    """Prints one line for an error that a user can fix, and for Ctrl-C."""

    def invoke(self, context: click.Context) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a terminal without Unicode shows escapes, not a traceback
                stream.reconfigure(errors="backslashreplace")
        try:
            with _progress_shown():
                return super().invoke(context)
        except UserError as error:
            _stop(str(error), 2)
        except OSError as error:
            if error.errno in DISK_FULL:
                where = f" ({error.filename})" if error.filename else ""
                remedy = "free some space and run the same command again; what is finished is kept"
                _stop(f"the disk is full{where}: {remedy}", 2)
            if not error.filename:
                raise
            _stop(f"{error.filename}: {error.strerror}; make it readable and writable, and run it again", 2)
        except KeyboardInterrupt:
            _stop("stopped; what is finished is kept: run the same command again to go on", 130)
        except BaseException as error:
            if isinstance(error, Exception) or (isinstance(error, SystemExit) and error.code):
                raise
            why = type(error).__name__  # SystemExit or what else is no Exception
            _stop(f"a plugin has ended the command before it was done ({why}); repair or remove it", 2)


@contextlib.contextmanager
def _progress_shown() -> Iterator[None]:
    """Print on standard error what the commands log."""
    logger, handler = logging.getLogger("colorbench"), logging.StreamHandler()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


def _stop(message: str, status: int) -> None:
    for line in message.splitlines():
        click.echo(f"colorbench: {one_line(line)}", err=True)
    sys.exit(status)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="colorbench")
def main() -> None:
    """Train and compare image colorization models with the same code, under one written protocol.

    \b
    colorbench run --models all                      compare models on the built-in data, in minutes
    colorbench run --models all --data FOLDER        compare models on your photographs
    colorbench plan --models all --data FOLDER       show what run would do and how long it would take
    colorbench list models                           list the installed models
    """


for command in (run, plan, report, compare, score, merge, export, list_, evaluate, colorize, weights, check, new):
    main.add_command(command)
