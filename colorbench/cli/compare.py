"""`colorbench compare`"""

import sys

import click


@click.command()
@click.argument("a", metavar="RUN_A")
@click.argument("b", metavar="RUN_B")
@click.option(
    "--fail-on", type=click.Choice(["worse"]),
    help="Exit with 1 if any row is worse, newly failing or absent in B, and with 2 if no row can be compared.",
)  # fmt: skip
def compare(a: str, b: str, fail_on: str | None) -> None:
    """Show what is better, is worse or fails now in RUN_B compared with RUN_A, one row per model.

    The runs must have the same protocol, data and preset. Published runs can be compared. Nothing is written.

    \b
    colorbench compare results/before results/after --fail-on worse
    """
    from colorbench.api.run import compare
    from colorbench.errors import UserError
    from colorbench.report.compare import FAILING, ONLY_A, TOLD, WORSE, render

    frame = compare(a, b)
    click.echo(render(frame, a, b))
    if not fail_on:
        return
    if not frame["verdict"].isin(TOLD).any():
        raise UserError(f"{a} and {b} have no model with a seed in common: nothing was compared")
    fails, untold = frame["verdict"].isin([WORSE, FAILING, ONLY_A]), ~frame["verdict"].isin([*TOLD, ONLY_A])
    for what, rows in (("--fail-on worse applies to", frame[fails]), ("not compared:", frame[untold])):
        if len(rows):
            named = ", ".join(f"{row.model} ({row.verdict})" for row in rows.itertuples())
            click.echo(f"colorbench: {what} {named}", err=True)
    if fails.any():
        sys.exit(1)
