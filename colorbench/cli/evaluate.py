"""`colorbench evaluate`"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

import click

from colorbench.cli.shared import exit_if_failed, plugin_option


@click.command()
@click.argument("folder", metavar="RUN")
@click.option("--data", required=True, metavar="DATA", help="A dataset, NAME:ARGUMENT, or a folder or zip of images.")
@click.option("--out", metavar="FOLDER", help="Where to write; RUN/evaluations/DATA unless given.")
@plugin_option
def evaluate(folder: str, data: str, out: str | None, plugin_files: Sequence[str]) -> None:
    """Score the trained models of a run on other images, without training.

    Of data with a test split that split is scored, of any other folder or zip every image.

    \b
    colorbench evaluate results/portraits-quick --data old-photos.zip
    """
    from colorbench import plugins, report
    from colorbench.harness.evaluate import evaluate_run
    from colorbench.runs.folder import RunFolder

    command = shlex.join(["colorbench", *sys.argv[1:]])
    target = evaluate_run(RunFolder(folder), data, out, plugins.load(plugin_files), command)
    click.echo(report.write(target))
    click.echo(f"in {target.path}", err=True)
    exit_if_failed(target.outcomes())
