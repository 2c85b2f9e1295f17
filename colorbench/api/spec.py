"""Look up a model by name."""

from collections.abc import Iterable
from pathlib import Path

from colorbench.contract import ModelSpec
from colorbench.plugins import load


def spec(name: str, plugins: str | Path | Iterable[str | Path] = ()) -> ModelSpec:
    """The model with this name, from an installed plugin or from one of these files.

    A plugin can use it to register a variant of another author's model: `register(spec("NAME").variant(...))`. Raises
    UserError for an unknown name.
    """
    found: ModelSpec
    (found,) = load(plugins).find("model", [name])
    return found
