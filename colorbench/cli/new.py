"""`colorbench new`"""

from __future__ import annotations

import click


@click.command()
@click.argument("kind", type=click.Choice(["model", "dataset", "metric"]))
@click.argument("name")
def new(kind: str, name: str) -> None:
    """Create a plugin: a folder NAME with a working model, dataset or metric, its tests and its pyproject.toml.

    \b
    colorbench new model my-net && cd my-net && pip install . && pytest
    """
    from colorbench.plugins import load
    from colorbench.scaffold import write_plugin

    folder = write_plugin(kind, name, load())
    click.echo(f"wrote {folder}; now: cd {folder} && pip install . && pytest")
