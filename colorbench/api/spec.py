"""A model by its name."""

from collections.abc import Iterable
from pathlib import Path

from colorbench.contract import ModelSpec
from colorbench.plugins import load


def spec(name: str, plugins: str | Path | Iterable[str | Path] = ()) -> ModelSpec:
    """The model of this name, of an installed plugin or of one of these files.

    A plugin that calls it registers a variant of somebody else's model: `register(spec("NAME").variant(...))`. Raises
    UserError for an unknown name.
    """
    found: ModelSpec
    (found,) = load(plugins).find("model", [name])
    return found
