"""`colorbench colorize`"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from colorbench.cli.shared import plugin_option
from colorbench.contract import PUBLISHED
from colorbench.errors import UserError, one_line


@click.command()
@click.argument("photos", nargs=-1, required=True, metavar="PHOTO|FOLDER|PATTERN...")
@click.option("--model", "models", multiple=True, required=True, help="The model to use; may be repeated.")
@click.option("--run", metavar="RUN", help="The run folder with the trained model.")
@click.option(
    "--weights", multiple=True, metavar="[MODEL=]FILE",
    help="Published weights of the model, instead of a run; `published` or MODEL for those that are kept.",
)  # fmt: skip
@click.option("--out", metavar="PATH", help="The folder to write into, or one PNG; default the current folder.")
@click.option("--hints", metavar="FILE", help="A layer of the photo's size: its opaque pixels are colors to use.")
@click.option("--intensity", type=float, default=1.0, help="Factor on the colors; 1 is what the model says.")
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
@plugin_option
def colorize(
    photos: Sequence[str], models: Sequence[str], weights: Sequence[str], plugins: Sequence[Path], **settings: Any
) -> None:
    """Color photos of any size into PHOTO-MODEL.png; their luminance, 16 bit, alpha and RGB profile are kept.

    A photo that cannot be read is named and left out; the exit status is then 1, or 2 if nothing was written.

    \b
    colorbench colorize old.jpg --model MODEL --run results/my-run
    colorbench colorize album/ --model MODEL --model OTHER --run results/my-run --out colored
    """
    given = _by_model(weights, models)

    from tqdm import tqdm

    from colorbench.api.colorize import ColorizeSettings, colorize_files

    failed = written = 0
    for done in colorize_files(photos, models, ColorizeSettings(weights=given, **settings), plugins):
        with tqdm.external_write_mode():
            if isinstance(done, UserError):
                click.echo(f"colorbench: {one_line(str(done))}", err=True)
                failed += 1
            else:
                click.echo(done)
                written += 1
    if failed:
        sys.exit(1 if written else 2)


def _by_model(given: Sequence[str], models: Sequence[str]) -> dict[str, str]:
    """The files that --weights gives, by model: MODEL=FILE, MODEL for a kept one, or FILE for the only model."""
    weights = {}
    for text in given:
        name, _, file = text.partition("=")
        if name in models:
            weights[name] = file or PUBLISHED
        elif len(models) == 1:
            weights[models[0]] = text
        else:
            raise UserError(f"--weights {text}: say MODEL=FILE, with one of {', '.join(models)}")
    return weights
