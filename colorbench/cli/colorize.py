"""`colorbench colorize`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from colorbench.cli.shared import plugin_option


@click.command()
@click.argument("photo", type=click.Path(path_type=Path))
@click.option("--model", required=True, help="The model to use.")
@click.option("--run", metavar="RUN", help="The run folder with the trained model.")
@click.option("--weights", metavar="FILE", help="Published weights of the model, instead of a run.")
@click.option("--out", type=click.Path(path_type=Path), help="The PNG to write; default PHOTO-MODEL.png here.")
@plugin_option
def colorize(
    photo: Path, model: str, run: str | None, weights: str | None, out: Path | None, plugins: Sequence[Path]
) -> None:
    """Color a photo of any size; its luminance is kept.

    \b
    colorbench colorize old.jpg --model MODEL --run results/my-run
    """
    from colorbench.harness.photo import colorize_file

    click.echo(colorize_file(photo, out, model, run, weights, plugins))
