"""`colorbench export`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from colorbench.cli.shared import plugin_option, protocol_option
from colorbench.protocol import COLORBENCH


@click.command()
@click.argument("data")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--size", type=click.IntRange(16), required=True, help="Side of the pictures in pixels.")
@protocol_option
@plugin_option
def export(data: str, folder: Path, size: int, protocol: str | None, plugins: Sequence[Path]) -> None:
    """Write the test images as the protocol crops and resizes them, for coloring by any tool.

    DIR/input has the grey pictures, DIR/truth the true ones. If the data have no splits, all images are written.

    \b
    colorbench export photos/ to-color --size 256
    """
    from colorbench.api.export import export

    count = export(data, folder, size, COLORBENCH.name if protocol is None else protocol, plugins)
    click.echo(f"{count} test images of {size} px: grey in {folder / 'input'}, true in {folder / 'truth'}")
