"""`colorbench check`"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from colorbench.cli.shared import plugin_option
from colorbench.errors import one_line

if TYPE_CHECKING:
    from colorbench.testing.targets import Target


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
    from colorbench.testing.targets import ALL, find_targets, stay_on_cpu

    stay_on_cpu()
    started = time.monotonic()
    targets = find_targets(names, ablations, plugins)
    for target in targets:
        _print(target, brief=ALL in names)
    broken = [target for target in targets if not all(check.passed for check in target.checks)]
    laws = sum(len(target.checks) for target in targets)
    outcome = f"{len(broken)} of {len(targets)} break a law" if broken else f"{len(targets)} keep all laws"
    click.echo(f"{outcome}: {laws} checks in {time.monotonic() - started:.0f} s")
    if broken:
        sys.exit(1)


def _print(target: Target, brief: bool) -> None:
    """A line for each law; if `brief`, for each that is broken, and one for a thing that keeps all."""
    started, title = time.monotonic(), f"{target.kind} {target.name}"
    checks, spent = target.checks, time.monotonic() - started
    passed = all(check.passed for check in checks)
    if brief and passed:
        click.echo(f"{title}: {len(checks)} laws kept, {spent:.1f} s")
        return
    click.echo(title)
    for check in checks:
        if check.passed and not brief:
            click.echo(f"  kept    {check.law}: {one_line(check.seen)}")
        elif not check.passed:
            click.echo(f"  BROKEN  {check.law}: {one_line(check.seen)}; {one_line(check.remedy)}")
