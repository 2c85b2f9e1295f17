"""`colorbench evaluate`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from colorbench.cli.shared import exit_if_failed, plugin_option, protocol_option, show, weights_option
from colorbench.errors import refuse_empty


@click.command()
@click.argument("folder", metavar="RUN")
@click.option("--data", required=True, metavar="DATA", help="A dataset, NAME:ARGUMENT, or a folder or zip of images.")
@click.option("--out", metavar="FOLDER", help="Where to write; default RUN/evaluations/DATA[-PROTOCOL].")
@click.option(
    "--vary",
    metavar="FIELD=VALUES",
    help="Also ask the models with several values of a protocol field: degradation=blur:2,noise, hints=1,10.",
)
@protocol_option
@weights_option
@plugin_option
def evaluate(folder: str, data: str, vary: str | None, plugins: Sequence[Path], **settings: Any) -> None:
    """Score the trained models of a run on other images, without training.

    Scores the test split of the data, or every image of a folder or zip without splits, under the run's protocol unless
    another is named. With --vary, a table and a figure show the scores by value: protocols.md, series.png.

    \b
    colorbench evaluate results/my-run --data old-photos.zip
    colorbench evaluate results/my-run --data photos.zip --vary degradation=all
    """
    from colorbench import report
    from colorbench.api.evaluate import evaluate
    from colorbench.api.series import evaluate_series

    refuse_empty(protocol=settings["protocol"], vary=vary)
    if vary is None:
        show(evaluate(folder, data, plugins=plugins, **settings))
        return
    series = evaluate_series(folder, data, vary, plugin_files=plugins, **settings)
    click.echo((series.path / report.PROTOCOLS).read_text(encoding="utf-8"))
    click.echo(f"in {series.path}", err=True)
    exit_if_failed(series.cells)
