"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

plugin_option: Callable[[Any], Any] = click.option(
    "--plugin",
    "plugin_files",
    multiple=True,
    metavar="FILE",
    help="A plugin from a plain Python file; may be repeated.",
)
