"""What each setting of a run must be, in words and as a test: a script may give anything."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from numbers import Integral
from typing import Any

from colorbench.contract import Preset
from colorbench.errors import UserError, shown


def refuse_other_kinds(settings: Mapping[str, Any]) -> None:
    """Raises UserError naming every setting that is of another kind than is due, and what is."""
    wrong = [
        f"{name} is {shown(value)}; give {DUE[name][0]}"
        for name, value in settings.items()
        if name in DUE and not DUE[name][1](value)
    ]
    if wrong:
        raise UserError("; ".join(wrong))


def _is_path(value: Any) -> bool:
    return isinstance(value, str | os.PathLike)


def _are(kind: Callable[[Any], bool], values: Any) -> bool:
    several = isinstance(values, Collection) and not isinstance(values, str | bytes | Mapping)
    return several and all(map(kind, values))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_by_name(kind: Callable[[Any], bool], values: Any) -> bool:
    return isinstance(values, Mapping) and all(map(_is_text, values)) and all(map(kind, values.values()))


def _are_names(value: Any) -> bool:
    return isinstance(value, str) or _are(_is_text, value)


_NAMES = "names, in a list or with commas between", _are_names
_FILES = "files by name, such as {'my-net': 'my-net.pth'}", lambda value: _is_by_name(_is_path, value)
_SWITCH = "True or False", lambda value: isinstance(value, bool)
DUE: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "models": _NAMES,
    "data": ("a dataset, or the path of images", _is_path),
    "ablations": _NAMES,
    "preset": ("a name, or a colorbench.Preset", lambda value: isinstance(value, str | Preset)),
    "seeds": (
        "a whole number, or several in a list",
        lambda value: isinstance(value, Integral) or _are(lambda seed: isinstance(seed, Integral), value),
    ),
    "weights": _FILES,
    "initial": _FILES,
    "options": (
        "values by 'MODEL.KEY', or a list of 'MODEL.KEY=VALUE'",
        lambda value: _is_by_name(lambda _: True, value) or _are(_is_text, value),
    ),
    "select": ("'val'", lambda value: isinstance(value, str) and value == "val"),
    "protocol": ("a name", lambda value: value is None or isinstance(value, str)),
    "pictures": (
        "folders or zips by name, or a list of NAME=DIR",
        lambda value: _is_by_name(_is_path, value) or _are(_is_text, value),
    ),
    "as_is": _SWITCH,
    "out": ("a folder", _is_path),
    "runs": ("the paths of run folders, in a list", lambda value: _are(_is_path, value) and len(value) > 0),
    "again": _NAMES,
    "keep": _NAMES,
    "plugins": ("a file, or several in a list", lambda value: _is_path(value) or _are(_is_path, value)),
    "timing": _SWITCH,
    "command": ("text", lambda value: value is None or isinstance(value, str)),
}
