"""`colorbench evaluate`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from colorbench.cli.shared import (
    exit_if_failed,
    plugin_option,
    protocol_option,
    refuse_empty,
    weight_files,
    weights_option,
)


@click.command()
@click.argument("folder", metavar="RUN")
@click.option("--data", required=True, metavar="DATA", help="A dataset, NAME:ARGUMENT, or a folder or zip of images.")
@click.option("--out", metavar="FOLDER", help="Where to write; RUN/evaluations/DATA unless given.")
@protocol_option
@weights_option
@plugin_option
def evaluate(
    folder: str, data: str, out: str | None, protocol: str | None, weights: Sequence[str], plugin_files: Sequence[Path]
) -> None:
    """Score the trained models of a run on other images, without training.

    Of data with a test split that split is scored, of any other folder or zip every image; under the run's protocol
    unless another is named.

    \b
    colorbench evaluate results/my-run --data old-photos.zip
    """
    from colorbench import api, report

    refuse_empty(out=out)
    target = api.evaluate(folder, data, out, plugin_files, weight_files(weights), protocol)
    click.echo(report.write(target, plugin_files))
    click.echo(f"in {target.path}", err=True)
    exit_if_failed(target.cells())
