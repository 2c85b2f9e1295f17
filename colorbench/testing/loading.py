"""The laws of a plugin as a whole: how it loads."""

from __future__ import annotations

import json
import subprocess
import sys

from colorbench.plugins import Plugin

HEAVY = ("torch", "numpy", "pandas", "scipy", "matplotlib", "PIL")
_TOLD = "colorbench imported "  # what begins the line, among whatever a plugin prints
_ASK = """
import json, sys
from colorbench import plugins
plugins.load({files}, only={only})
print("\\n{told}" + json.dumps(sorted({{*{heavy}}} & {{*sys.modules}})), file=sys.stderr, flush=True)
"""


def loads(plugin: Plugin) -> str:
    """It can be imported, and its hooks register what they say."""
    if plugin.broken:
        raise ValueError(f"{plugin.broken}; repair it: until then it is left out")
    return ", ".join(plugin.provides) or "registers nothing"


def contained(plugin: Plugin) -> str:
    """Importing it changes nothing for the other plugins."""
    if plugin.changed:
        raise ValueError(f"it changes {', '.join(plugin.changed)}; do that in build, open or compute")
    return "changes nothing for others"


def light(plugin: Plugin) -> str:
    """Importing it, as every listing does, imports nothing that takes a second."""
    files, only = ([plugin.source], ()) if plugin.source.endswith(".py") else ((), (plugin.name,))
    code = _ASK.format(files=files, only=only, heavy=HEAVY, told=_TOLD)
    command, drop = [sys.executable, "-c", code], subprocess.DEVNULL
    asked = subprocess.run(command, stdout=drop, stderr=subprocess.PIPE, text=True, errors="replace")
    told = [line.removeprefix(_TOLD) for line in asked.stderr.splitlines() if line.startswith(_TOLD)]
    if not told:
        raise ValueError(f"a new process that imports it ends with status {asked.returncode}; let it end nothing")
    if heavy := json.loads(told[-1]):
        raise ValueError(f"it imports {', '.join(heavy)}; do that inside build, open and compute")
    return "imports nothing heavy"


LAWS = ((loads,), (contained, light))
