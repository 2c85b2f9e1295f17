"""What several verbs share: an option, and how they end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import click

plugin_option: Callable[[Any], Any] = click.option(
    "--plugin",
    "plugin_files",
    multiple=True,
    metavar="FILE",
    help="A plugin from a plain Python file; may be repeated.",
)


def exit_if_failed(outcomes: Iterable[Mapping[str, Any]]) -> None:
    """Name each cell that is not done and its reason, a line each, and exit with 1 if there is any."""
    from colorbench.runs.folder import DONE

    failed = [outcome for outcome in outcomes if outcome["status"] != DONE]
    for outcome in failed:
        click.echo("colorbench: {model} seed {seed} {status}: {reason}".format(**outcome), err=True)
    if failed:
        sys.exit(1)
