"""Loads plugins one by one, remembers what broke, and finds what they registered by name."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pluggy

from colorbench import hooks
from colorbench.contain import contained
from colorbench.contract import MetricSpec, ModelSpec
from colorbench.errors import UserError, reason, refuse_unknown, shown, whatever_raised
from colorbench.protocol import COLORBENCH, KEYS, SCORES
from colorbench.specs import KINDS, refuse_misfit

_loading: list[str] = []  # the plugins at work, which may ask for the models of the others


@dataclass(frozen=True)
class Plugin:
    """Where a plugin came from, what it registered ("model my-net"), and why it broke, if it did.

    `source` is the name of its module, or the path of its file. `changed` names what its import would have changed
    for everybody else in the process; it was put back.
    """

    name: str
    origin: str
    source: str
    provides: tuple[str, ...] = ()
    broken: str | None = None
    changed: tuple[str, ...] = ()


@dataclass
class Registry:
    """Everything that the loaded plugins registered: `specs[kind][name]`, each with its origin."""

    weights: Mapping[str, Path] = field(default_factory=dict)
    specs: dict[str, dict[str, Any]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    origins: dict[tuple[str, str], str] = field(default_factory=dict)
    plugins: list[Plugin] = field(default_factory=list)
    given: dict[str, dict[str, Any]] = field(default_factory=dict)  # options that a command gives, by model
    sweeps: dict[str, str] = field(default_factory=dict)  # by row, the option of which it has one of several values

    @property
    def metrics(self) -> dict[str, MetricSpec]:
        """Those that can be computed here."""
        return {name: spec for name, spec in self.specs["metric"].items() if not spec.missing}

    def plugin_of(self, kind: str, name: str) -> Plugin:
        """The plugin that registered a spec."""
        return next(plugin for plugin in self.plugins if f"{kind} {name}" in plugin.provides)

    def find(self, kind: str, names: Iterable[str]) -> list[Any]:
        """The specs of `names`, in that order. Raises UserError that names every unknown one at once."""
        names, known = list(names), self.specs[kind]
        broken = "".join(f"; broken plugin: {p.name} ({p.broken})" for p in self.plugins if p.broken)
        refuse_unknown(kind, names, known, f"; one in a plugin file needs --plugin FILE{broken}")
        return [known[name] for name in names]


def load(
    files: str | Path | Iterable[str | Path] = (),
    only: Container[str] | None = None,
    pictures: Iterable[ModelSpec] = (),
    weights: Mapping[str, Path] | None = None,
) -> Registry:
    """Load every installed plugin, remembering those that break, then `files`, where a broken one raises UserError.

    `only`, if given, names the installed plugins to load: what the others change in Python then reaches nobody.
    `pictures` are rows made elsewhere, each registered as if by a plugin of its own; `weights` are files for metrics,
    by name.
    """
    files = [files] if isinstance(files, str | Path) else [*files] if isinstance(files, Iterable) else [files]
    if not all(isinstance(file, str | Path) for file in files):
        raise UserError(f"plugins has {shown(files)}; give a file, or several in a list")
    registry = Registry(weights or {}, origins={("metric", name): "the protocol" for name in (*SCORES, *KEYS)})
    registry.specs["protocol"][COLORBENCH.name] = COLORBENCH
    registry.origins["protocol", COLORBENCH.name] = "colorbench"
    installed: Any = entry_points(group="colorbench")
    dists = {id(entry.dist): entry.dist for entry in installed}
    package = {key: (dist.name, dist.version) for key, dist in dists.items()}  # whose file is read at each access
    # The built-in plugins come first, so that whoever takes one of their names is the one refused.
    for entry in sorted(installed, key=lambda e: (package[id(e.dist)][0] != "colorbench", e.name)):
        if (only is None or entry.name in only) and entry.name not in _loading:
            origin = f"{entry.value} ({' '.join(package[id(entry.dist)])})"
            _add(registry, Plugin(entry.name, origin, entry.module), entry.load)
    for file in paths_of(files):
        if not file.is_file():
            why = "it is not a file" if file.exists() else "there is no such file"
            raise UserError(f"cannot load the plugin {file}: {why}; name a Python file")
        _add(registry, Plugin(file.stem, str(file), str(file.resolve())), partial(_module_from, file))
        if broken := registry.plugins[-1].broken:
            raise UserError(f"cannot load the plugin {file}: {broken}")
    for spec in pictures:
        hook = hooks.hookimpl(lambda register, spec=spec: register(spec))
        plugin = Plugin(spec.name, f"--pictures {spec.pictures}", "")
        _add(registry, plugin, partial(SimpleNamespace, register_models=hook))
        if broken := registry.plugins[-1].broken:
            raise UserError(f"cannot take the pictures {spec.pictures}: {broken}; give them another name, NAME=DIR")
    return registry


def paths_of(files: str | Path | Iterable[str | Path]) -> tuple[Path, ...]:
    """One file or several, as paths."""
    return tuple(map(Path, [files] if isinstance(files, str | Path) else files))


def _add(registry: Registry, plugin: Plugin, load: Callable[[], Any]) -> None:
    found: dict[tuple[str, str], Any] = {}

    def register(kind: str, spec: Any) -> None:
        refuse_misfit(kind, spec)
        if first := (plugin.origin if (kind, spec.name) in found else registry.origins.get((kind, spec.name))):
            raise ValueError(f"{kind} {spec.name!r} is registered twice, by {first} and by {plugin.origin}")
        found[kind, spec.name] = spec

    broken = None
    _loading.append(plugin.name)
    try:
        with contained() as changed:
            manager = pluggy.PluginManager("colorbench")  # one each: what a broken plugin leaves behind goes with it
            manager.add_hookspecs(hooks)
            manager.register(load())
            manager.check_pending()  # a misspelt hook is an error, not silence
            for kind in KINDS:
                given = {"files": registry.weights} if kind == "metric" else {}
                getattr(manager.hook, f"register_{kind}s")(register=partial(register, kind), **given)
    except whatever_raised() as error:  # a broken plugin takes no other along: it is listed with its reason
        broken = reason(error)
        found.clear()
    finally:
        _loading.remove(plugin.name)
    for (kind, spec_name), spec in found.items():
        registry.specs[kind][spec_name] = spec
        registry.origins[kind, spec_name] = plugin.origin
    provides = tuple(map(" ".join, found))
    registry.plugins.append(replace(plugin, provides=provides, broken=broken, changed=tuple(changed)))


def _module_from(file: Path) -> Any:
    # Two files of one name are two modules; dataclasses look theirs up by name.
    name = f"colorbench_file_{file.stem}_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]}"
    spec = spec_from_file_location(name, file.resolve())
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python file")
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
