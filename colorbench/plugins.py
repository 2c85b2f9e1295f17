"""Loads plugins one by one, remembers what broke, and finds what they registered by name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from importlib.machinery import SourceFileLoader
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from colorbench import hooks
from colorbench.errors import UserError, refuse_unknown
from colorbench.protocol import KEYS, SCORES

KINDS = ("model", "dataset", "metric")


@dataclass(frozen=True)
class Plugin:
    """Where a plugin came from, what it registered ("model my-net"), and why it broke, if it did."""

    name: str
    origin: str
    provides: tuple[str, ...]
    broken: str | None


@dataclass
class Registry:
    """Everything that the loaded plugins registered: `specs[kind][name]`, each with its origin."""

    specs: dict[str, dict[str, Any]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    origins: dict[tuple[str, str], str] = field(default_factory=dict)
    plugins: list[Plugin] = field(default_factory=list)

    def find(self, kind: str, names: Iterable[str]) -> list[Any]:
        """The specs of `names`, in that order. Raises UserError that names every unknown one at once."""
        names, known = list(names), self.specs[kind]
        broken = "".join(f"; broken plugin: {p.name} ({p.broken})" for p in self.plugins if p.broken)
        refuse_unknown(kind, names, known, broken)
        return [known[name] for name in names]


def load(files: Iterable[str | Path] = ()) -> Registry:
    """Load every installed plugin, remembering those that break, then `files`, where a broken one raises UserError."""
    registry = Registry(origins={("metric", name): "the protocol" for name in (*SCORES, *KEYS)})
    # The built-in plugins come first, so that whoever takes one of their names is the one refused.
    installed: list[Any] = sorted(entry_points(group="colorbench"), key=lambda e: (e.dist.name != "colorbench", e.name))
    for entry in installed:
        _add(registry, entry.name, f"{entry.value} ({entry.dist.name} {entry.dist.version})", entry.load)
    for file in map(Path, files):
        _add(registry, file.stem, str(file), partial(_module_from, file))
        if reason := registry.plugins[-1].broken:
            raise UserError(f"cannot load the plugin {file}: {reason}")
    return registry


def _add(registry: Registry, name: str, origin: str, load: Callable[[], Any]) -> None:
    found: dict[tuple[str, str], Any] = {}

    def register(kind: str, spec: Any) -> None:
        if first := (origin if (kind, spec.name) in found else registry.origins.get((kind, spec.name))):
            raise ValueError(f"{kind} {spec.name!r} is registered twice, by {first} and by {origin}")
        found[kind, spec.name] = spec

    broken = None
    try:
        manager = pluggy.PluginManager("colorbench")  # one for each: what a broken plugin leaves behind goes with it
        manager.add_hookspecs(hooks)
        manager.register(load())
        manager.check_pending()  # a misspelt hook is an error, not silence
        for kind in KINDS:
            getattr(manager.hook, f"register_{kind}s")(register=partial(register, kind))
    except Exception as error:  # one broken plugin must not take the others along: it is listed with its reason
        broken = " ".join(f"{type(error).__name__}: {error}".split())
        found.clear()
    for (kind, spec_name), spec in found.items():
        registry.specs[kind][spec_name] = spec
        registry.origins[kind, spec_name] = origin
    registry.plugins.append(Plugin(name, origin, tuple(map(" ".join, found)), broken))


def _module_from(file: Path) -> Any:
    loader = SourceFileLoader(f"colorbench_file_{file.stem}", str(file))
    module = sys.modules[loader.name] = ModuleType(loader.name)  # dataclasses look their module up by name
    loader.exec_module(module)
    return module
