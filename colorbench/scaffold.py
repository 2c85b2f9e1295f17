"""The beginning of a plugin: a folder that pip installs, with one model, dataset or metric that works."""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template

from colorbench.errors import UserError
from colorbench.plugins import Registry
from colorbench.specs import is_metric_name

NAME = r"[a-z][a-z0-9]*(-[a-z0-9]+)*"  # of a distribution, and, with _ for -, of a module
LONGEST = 60  # characters, so that every file that is named after it can be written
COMMANDS = {
    "model": "colorbench run --models {} --preset smoke",
    "dataset": "colorbench run --models all --data {} --preset smoke",
    "metric": "colorbench run --models all --preset smoke",
}


def write_plugin(kind: str, name: str, registry: Registry, parent: Path = Path()) -> Path:
    """Write the folder `name` with the beginning of a plugin and return its path.

    The distribution is colorbench-NAME and its module colorbench_name, so that neither hides another package. Raises
    UserError for a name that no package can have or something has already, and if the folder exists.
    """
    registered = name.replace("-", "_") if kind == "metric" else name
    if not re.fullmatch(NAME, name) or len(name) > LONGEST:
        due = f"up to {LONGEST} lower-case letters, digits and single dashes"
        raise UserError(f"a package cannot be called {name[: 2 * LONGEST]!r}; use {due}")
    if name in ("all", "everything"):
        raise UserError(f"{name} has a meaning in the command line; choose another name")
    if kind == "metric" and not is_metric_name(registered):
        raise UserError(f"no column can be called {registered!r}; choose another name")
    module = f"colorbench_{name.replace('-', '_')}"
    if (kind, registered) in registry.origins or find_spec(module):
        origin = registry.origins.get((kind, registered), f"the module {module}")
        raise UserError(f"{kind} {registered!r} is there already, by {origin}; choose another name")
    words = {
        "kind": kind, "name": name, "registered": registered, "module": module, "asked": registered,
        "distribution": f"colorbench-{name}", "command": COMMANDS[kind].format(registered),
    }  # fmt: skip
    templates, folder = files("colorbench") / "templates", parent / name
    try:
        folder.mkdir()
    except FileExistsError as error:
        raise UserError(f"{folder} exists already; choose another name, or move it") from error
    (folder / "tests").mkdir()
    for file, template in {
        "pyproject.toml": templates / "pyproject.toml.txt",
        "README.md": templates / "README.md.txt",
        f"{module}.py": templates / kind / "module.py.txt",
        f"tests/test_{module}.py": templates / kind / "test.py.txt",
    }.items():
        (folder / file).write_text(Template(template.read_text(encoding="utf-8")).substitute(words), encoding="utf-8")
    return folder
