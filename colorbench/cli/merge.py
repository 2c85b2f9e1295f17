"""`colorbench merge`"""

from __future__ import annotations

from collections.abc import Sequence

import click


@click.command()
@click.argument("folders", metavar="RUN...", nargs=-1, required=True)
@click.option("--out", required=True, metavar="FOLDER", help="The run folder to create: new or empty.")
def merge(folders: Sequence[str], out: str) -> None:
    """Join runs with separately trained models or seeds into one run folder. The runs are not changed.

    They must have the same protocol, data, preset and code; each model must be made the same way, except its seed.

    \b
    colorbench merge results/node-1 results/node-2 --out results/all
    """
    from colorbench.api.run import merge

    merged = merge(folders, out)
    click.echo(merged.markdown)
    click.echo(f"in {merged.path}", err=True)
