"""`colorbench merge`"""

from __future__ import annotations

from collections.abc import Sequence

import click


@click.command()
@click.argument("folders", metavar="RUN...", nargs=-1, required=True)
@click.option("--out", required=True, metavar="FOLDER", help="The run folder to make: a new or an empty one.")
def merge(folders: Sequence[str], out: str) -> None:
    """Join runs whose models or seeds were trained apart into one run folder. The runs stay as they are.

    They must agree in protocol, data, preset and code, and each model in what made it, its seed aside.

    \b
    colorbench merge results/node-1 results/node-2 --out results/all
    """
    from colorbench import report
    from colorbench.runs.merge import merge

    merged = merge(folders, out)
    click.echo(report.write(merged))
    click.echo(f"in {merged.path}", err=True)
