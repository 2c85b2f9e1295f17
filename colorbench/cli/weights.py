"""`colorbench weights`"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from colorbench.cli.shared import plugin_option, print_rows


@click.group()
def weights() -> None:
    """List, fetch, add and verify weights that the authors of models and metrics published.

    They are kept in $COLORBENCH_WEIGHTS, or in a folder of your user data; `--weights MODEL` uses them.

    \b
    colorbench weights fetch MODEL && colorbench run --models MODEL --weights MODEL
    """


@weights.command("list")
@plugin_option
def list_(plugins: Sequence[Path]) -> None:
    """List published weights: who takes them, file, size, whether kept, training data, licence, page and SHA-256."""
    from colorbench import published
    from colorbench.plugins import load

    rows = [
        (
            spec.name, known.file, f"{known.size / 1e6:.0f} MB" if known.size else "",
            "kept" if (published.folder() / known.file).is_file() else "not kept",
            f"trained on {known.trained_on}", known.licence, known.page, known.sha256,
        )
        for spec, known in published.known(load(plugins)).values()
    ]  # fmt: skip
    if rows:
        print_rows(rows)


@weights.command()
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
@plugin_option
def add(name: str, file: Path, plugins: Sequence[Path]) -> None:
    """Keep a copy of a file that you have, if it is what the authors published: by size, hash, names and shapes.

    NAME is a model or metric, or a file that `list` shows.
    """
    from colorbench.api.weights import add

    click.echo(add(name, file, plugins))


@weights.command()
@click.argument("name")
@plugin_option
def fetch(name: str, plugins: Sequence[Path]) -> None:
    """Download weights from where their authors published them. What was cut off is gone on with."""
    from colorbench.api.weights import fetch

    click.echo(fetch(name, plugins))


@weights.command()
@plugin_option
def verify(plugins: Sequence[Path]) -> None:
    """Compare every kept file with its published hash. The exit status is 1 if one differs."""
    from colorbench.api.weights import verify

    checked = [*verify(plugins)]
    for name, why in checked:
        click.echo(f"{name}: {why or 'sound'}")
    if any(why for _, why in checked):
        sys.exit(1)
