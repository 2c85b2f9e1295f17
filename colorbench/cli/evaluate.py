"""`colorbench evaluate`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from colorbench.cli.shared import plugin_option, protocol_option, show, weights_option


@click.command()
@click.argument("folder", metavar="RUN")
@click.option("--data", required=True, metavar="DATA", help="A dataset, NAME:ARGUMENT, or a folder or zip of images.")
@click.option("--out", metavar="FOLDER", help="Where to write; default RUN/evaluations/DATA[-PROTOCOL].")
@protocol_option
@weights_option
@plugin_option
def evaluate(
    folder: str, data: str, out: str | None, protocol: str | None, weights: dict[str, Path], plugins: Sequence[Path]
) -> None:
    """Score the trained models of a run on other images, without training.

    Scores the test split of the data, or every image of a folder or zip without splits, under the run's protocol unless
    another is named.

    \b
    colorbench evaluate results/my-run --data old-photos.zip
    """
    from colorbench.api.evaluate import evaluate

    show(evaluate(folder, data, out, plugins, weights, protocol))
