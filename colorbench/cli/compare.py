"""`colorbench compare`"""

import sys

import click


@click.command()
@click.argument("a", metavar="RUN_A")
@click.argument("b", metavar="RUN_B")
@click.option(
    "--fail-on", type=click.Choice(["worse"]),
    help="Exit with 1 if any row is worse or newly failing in B, and with 2 if no row can be compared.",
)  # fmt: skip
def compare(a: str, b: str, fail_on: str | None) -> None:
    """Show what is better, is worse or fails now in RUN_B compared with RUN_A, one row per model.

    The runs must have the same protocol, data and preset. Published runs can be compared. Nothing is written.

    \b
    colorbench compare results/before results/after --fail-on worse
    """
    from colorbench.errors import UserError
    from colorbench.report.compare import FAILING, TOLD, WORSE, compare, render
    from colorbench.runs.folder import RunFolder

    before, after = RunFolder(a), RunFolder(b)
    frame = compare(before, after)
    click.echo(render(frame, before, after))
    if fail_on and not frame["verdict"].isin(TOLD).any():
        raise UserError(f"{a} and {b} have no model with a seed in common: nothing was compared")
    if fail_on and frame["verdict"].isin([WORSE, FAILING]).any():
        sys.exit(1)
