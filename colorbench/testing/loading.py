"""The laws of a plugin as a whole: how it loads."""

from __future__ import annotations

import json
import subprocess
import sys

from colorbench.plugins import Plugin

HEAVY = ("torch", "numpy", "pandas", "scipy", "matplotlib", "PIL")
_ASK = """
import json, sys
from colorbench import plugins
plugins.load({files}, only={only})
print(json.dumps(sorted({{*{heavy}}} & {{*sys.modules}})))
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
    code = _ASK.format(files=files, only=only, heavy=HEAVY)
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    if heavy := json.loads(asked.stdout.splitlines()[-1]):
        raise ValueError(f"it imports {', '.join(heavy)}; do that inside build, open and compute")
    return "imports nothing heavy"


LAWS = ((loads,), (contained, light))
