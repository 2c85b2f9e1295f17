"""What `colorbench check` and `pytest --colorbench` are asked to check: NAME, NAME:ARGUMENT, FILE or all."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from colorbench.errors import refuse_unknown
from colorbench.plugins import Registry, load
from colorbench.runs import executors
from colorbench.testing.laws import Check, examine, name_of

ALL = "all"
MOST_SECONDS = 600.0  # that the laws of one thing may take
# The module with the laws of a kind, and what it calls a thing under them.
_ROOMS = {
    "plugin": ("loading", ""),
    "model": ("models", "Model"),
    "dataset": ("datasets", "Dataset"),
    "metric": ("metrics", "Metric"),
    "protocol": ("protocols", "Subject"),
    "degradation": ("degradations", "Degradation"),
    "diagnostic": ("diagnostics", "Diagnostic"),
}


@dataclass(frozen=True)
class Target:
    """One thing to be checked. `argument` is that of a dataset."""

    kind: str
    name: str
    registry: Registry
    argument: str = ""

    @cached_property
    def _room(self) -> Any:
        return import_module(f"colorbench.testing.{_ROOMS[self.kind][0]}")

    @property
    def laws(self) -> list[str]:
        """The names of all laws of its kind, in their order."""
        return [name_of(law) for group in self._room.LAWS for law in group]

    @cached_property
    def checks(self) -> list[Check]:
        """What came of them; without those that do not apply."""
        return examine(self._room.LAWS, self._subject())

    def _subject(self) -> Any:
        if self.kind == "plugin":
            return next(plugin for plugin in self.registry.plugins if plugin.name == self.name)
        spec = self.registry.specs[self.kind][self.name]
        given = {"dataset": (self.argument,), "model": (self.registry,), "protocol": (self.registry,)}.get(
            self.kind, ()
        )
        return getattr(self._room, _ROOMS[self.kind][1])(spec, *given)


def stay_on_cpu() -> None:
    """Hide GPUs from torch, unless it is imported already: to the bit, laws hold on the CPU alone."""
    if "torch" not in sys.modules:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def find_targets(asked: Sequence[str], ablations: bool = False, plugin_files: Sequence[Path] = ()) -> list[Target]:
    """What is asked for, each once. A file or plugin stands for all that it registers, "all" for everything installed,
    which leaves ablations out unless `ablations` are asked for. Raises UserError for an unknown name, and for a file
    that cannot be loaded.
    """
    files = [Path(text) for text in asked if text.endswith(".py")]
    registry = load([*plugin_files, *files])
    found = dict.fromkeys(key for text in asked for key in _named(text, registry, ablations))
    return [Target(kind, name, registry, argument) for kind, name, argument in found]


class Asked(NamedTuple):
    """The arguments of `find_targets`, for another process."""

    names: tuple[str, ...]
    ablations: bool = False
    plugin_files: tuple[Path, ...] = ()


def titles_of(asked: Asked) -> list[str]:
    """What is asked for, as "model my-net"."""
    return [f"{target.kind} {target.name}" for target in find_targets(*asked)]


def check_apart(asked: Asked, place: int) -> list[Check]:
    """What comes of the laws of the target in this place, checked in a process of its own: a plugin may end or stop
    that."""
    try:
        return executors.call(_checks_at, (asked, place), MOST_SECONDS)
    except RuntimeError as error:  # its process has ended, or it failed outside of any law
        return [Check("process", False, str(error), "mend what ends, kills or holds up the process of the plugin")]


def _checks_at(request: tuple[Asked, int]) -> list[Check]:
    asked, place = request
    return find_targets(*asked)[place].checks


def _named(text: str, registry: Registry, ablations: bool) -> Iterator[tuple[str, str, str]]:
    """Kind, name and argument of what one word stands for."""
    if text == ALL:
        yield from (("plugin", plugin.name, "") for plugin in registry.plugins)
        every = [(kind, name, spec) for kind, specs in registry.specs.items() for name, spec in specs.items()]
        yield from ((kind, name, "") for kind, name, spec in every if ablations or not getattr(spec, "parent", None))
        return
    name, _, argument = text.partition(":")
    source = str(Path(text).resolve())
    kinds = [kind for kind, specs in registry.specs.items() if name in specs]
    plugins = [plugin for plugin in registry.plugins if plugin.source == source or (plugin.name == text and not kinds)]
    if not kinds and not plugins:
        known = [name for specs in registry.specs.values() for name in specs if "/" not in name]
        hint = "; give a plugin as FILE.py, or install its package first: pip install ."
        refuse_unknown("model, dataset, metric, protocol, degradation, diagnostic or plugin", [name], known, hint)
    yield from ((kind, name, argument) for kind in kinds)
    for plugin in plugins:
        yield "plugin", plugin.name, ""
        for provided in plugin.provides:
            kind, _, spec = provided.partition(" ")
            yield kind, spec, ""
