"""`colorbench check`"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from colorbench.cli.shared import plugin_option
from colorbench.errors import UserError, one_line

if TYPE_CHECKING:
    from colorbench.testing.laws import Check


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME|FILE|all...")
@click.option("--ablations", is_flag=True, help="With `all`, also check ablations.")
@plugin_option
def check(names: Sequence[str], ablations: bool, plugins: Sequence[Path]) -> None:
    """Check models, datasets, metrics, protocols, diagnostics or whole plugins against the laws of the contract, on toy
    pictures, in seconds, with the code that trains, predicts and scores a run.

    Give a dataset its argument as NAME:ARGUMENT. With `all`, only broken laws are listed one by one. The exit status
    is 1 if any law is broken.

    \b
    colorbench check my_plugin.py
    """
    from colorbench.runs import executors
    from colorbench.testing.targets import ALL, MOST_SECONDS, Asked, check_apart, stay_on_cpu, titles_of

    stay_on_cpu()
    started = time.monotonic()
    asked = Asked(tuple(names), ablations, tuple(plugins))
    try:
        titles = executors.call(titles_of, asked, MOST_SECONDS)
    except executors.EndedError as error:
        raise UserError(f"the plugins of {', '.join(names)} cannot be loaded: {error}; mend or remove them") from error
    broken = laws = 0
    for place, title in enumerate(titles):
        begun = time.monotonic()
        checks = check_apart(asked, place)
        _print(title, checks, time.monotonic() - begun, brief=ALL in names)
        broken, laws = broken + (not all(check.passed for check in checks)), laws + len(checks)
    outcome = f"{broken} of {len(titles)} break a law" if broken else f"{len(titles)} keep all laws"
    click.echo(f"{outcome}: {laws} checks in {time.monotonic() - started:.0f} s")
    if broken:
        sys.exit(1)


def _print(title: str, checks: Sequence[Check], spent: float, brief: bool) -> None:
    """A line for each law; if `brief`, for each that is broken, and one for a thing that keeps all."""
    if brief and all(check.passed for check in checks):
        click.echo(f"{title}: {len(checks)} laws kept, {spent:.1f} s")
        return
    click.echo(title)
    for check in checks:
        if check.passed and not brief:
            click.echo(f"  kept    {check.law}: {one_line(check.seen)}")
        elif not check.passed:
            click.echo(f"  BROKEN  {check.law}: {one_line(check.seen)}; {one_line(check.remedy)}")
