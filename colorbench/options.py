"""Options that a command gives to models: read, checked against those that a model has, put into its spec."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

import msgspec

from colorbench.contract import ModelSpec, Preset, Stage, untrained
from colorbench.errors import (
    LONGEST_REASON,
    UserError,
    one_line,
    reason,
    refuse_unknown,
    shown,
    whatever_raised,
    why_no_file,
)  # fmt: skip
from colorbench.plugins import Registry
from colorbench.runs.identity import canonical, recordable
from colorbench.runs.records import CellRecord

if TYPE_CHECKING:
    from torch import nn

NONE = ("none", "null")  # what is read as None where an option may be None
CONTENT = ({"file", "sha256"}, {"folder", "content"})  # by which a file or a folder counts
FACTOR = "rate_factor"  # on the learning rate of every stage: an option of every model that trains, beside its own


def parsed(texts: Sequence[str]) -> dict[str, list[str]]:
    """What --option gives, by "MODEL.KEY". Raises UserError for anything but MODEL.KEY=VALUE."""
    given: dict[str, list[str]] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not all((*name.rpartition("."), value)):
            raise UserError(f"--option {text}: write MODEL.KEY=VALUE")
        given.setdefault(name, []).append(value)
    return given


def configure(registry: Registry, given: Mapping[str, Any]) -> None:
    """Give options to the models of a registry, by "MODEL.KEY": a value, or a list of values.

    One value goes to the model, and to each of its ablations that does not set the option itself. Of several each makes
    a row MODEL/KEY-VALUE beside the model, but for the value that the model has. Text is read as the type of the
    option; commas separate values or, of an option that is a tuple or mapping, its items.

    Raises UserError for a model or option that there is not, and for a value that it cannot be.
    """
    registered = dict(registry.specs["model"])
    refuse_unknown("model for --option", dict.fromkeys(name.rpartition(".")[0] for name in given), registered)
    values: dict[str, list[Any]] = {}
    for name, several in given.items():
        model, _, key = name.rpartition(".")
        refuse_unknown(f"option of {model}:", [key], kinds := _kinds(registered[model]))
        values[name] = [*_values(name, several if isinstance(several, list) else [several], kinds[key])]
        if not values[name]:
            raise UserError(f"--option {name}: the list of its values is empty; give one or more")
    for name, (value, *more) in values.items():
        if not more:
            _set(registry, registered, name, value, given)
    for name, several in values.items():
        if len(several) > 1:
            _sweep(registry, name, several)


def _set(
    registry: Registry, registered: Mapping[str, ModelSpec], name: str, value: Any, given: Mapping[str, Any]
) -> None:
    model, _, key = name.rpartition(".")
    before = canonical(_values_of(registered[model]).get(key))
    for other in registered.values():
        if model not in (other.name, other.parent):
            continue
        own = _values_of(other)
        inherits = key in own and canonical(own[key]) == before and f"{other.name}.{key}" not in given
        if other.name == model or inherits:
            spec = registry.specs["model"][other.name]
            try:
                registry.specs["model"][other.name] = _changed(spec, key, value)
            except UserError as error:
                if other.name == model:
                    raise
                # Nobody may have asked for this ablation: if so, its row says why there is none.
                registry.specs["model"][other.name] = replace(spec, build=partial(_refuse, str(error)))
            registry.given.setdefault(other.name, {})[key] = canonical(value)


def _refuse(why: str, **_: Any) -> nn.Module:
    raise ValueError(why)


def _sweep(registry: Registry, name: str, values: Sequence[Any]) -> None:
    model, _, key = name.rpartition(".")
    parent, plugin = registry.specs["model"][model], registry.plugin_of("model", model)
    provides = [*plugin.provides]
    for value in values:
        if canonical(value) == canonical(_values_of(parent)[key]):
            continue  # the model itself has it
        change, changed = _change(key, value), _changed(parent, key, value)
        try:
            row = replace(changed.variant(change), summary=f"{model} with {key}={value}")
        except ValueError as error:
            raise UserError(f"--option {name}: {model}/{change} cannot be a row ({error})") from error
        if row.name in registry.specs["model"]:
            raise UserError(f"--option {name}: there is a row {row.name} already; give values of other names")
        registry.specs["model"][row.name] = row
        registry.origins["model", row.name] = registry.origins["model", model]
        registry.given[row.name] = registry.given.get(model, {}) | {key: canonical(value)}
        registry.sweeps[row.name] = key
        provides.append(f"model {row.name}")
    registry.plugins[registry.plugins.index(plugin)] = replace(plugin, provides=tuple(provides))


def _change(key: str, value: Any) -> str:
    """KEY-VALUE as the name of a row can have it: "channels-32-64", "t-max-50", "encoder-resnet18"."""
    items = [value] if isinstance(value, str) or not isinstance(value, Sequence | Set | Mapping) else [*value]
    pairs = [f"{item}-{value[item]}" for item in items] if isinstance(value, Mapping) else items
    words = [item.stem if isinstance(item, Path) else re.sub(r"^-(?=\d)", "minus-", str(item)) for item in pairs]
    return re.sub("[^a-z0-9.]+", "-", "-".join([key, *words]).lower()).strip("-.")


def _changed(spec: ModelSpec, key: str, value: Any) -> ModelSpec:
    try:
        if key == FACTOR and key not in spec.option_values:
            return replace(spec, schedule=_at_rate(spec.schedule, value))
        return spec.with_options(**{key: value})
    except whatever_raised() as error:  # whatever the checks of a plugin's dataclass raise
        what = f"option {key} of {spec.name} cannot be {shown(value)}"
        raise UserError(f"{what} ({reason(error)}); give another") from error


def _at_rate(schedule: Callable[[Preset], Sequence[Stage]], factor: float) -> Callable[[Preset], Sequence[Stage]]:
    if not 0 < factor < inf:
        raise ValueError("it has to be above 0")
    return lambda preset: [replace(stage, learning_rate=factor * stage.learning_rate) for stage in schedule(preset)]


def _values_of(spec: ModelSpec) -> dict[str, Any]:
    own = spec.option_values
    return own if spec.schedule is untrained or spec.trained_as else {**own, FACTOR: own.get(FACTOR, 1.0)}


def _kinds(spec: ModelSpec) -> dict[str, Any]:
    """The type of each option: as its dataclass declares it, else that of its default."""
    try:
        declared = {} if isinstance(spec.options, Mapping) else get_type_hints(type(spec.options))
    except NameError:  # of a type that is imported for type checkers alone
        declared = {}
    return {key: declared.get(key, _kind_of(value)) for key, value in _values_of(spec).items()}


def _kind_of(value: Any) -> Any:
    items = [*value.values()] if isinstance(value, Mapping) else value
    if isinstance(value, tuple | list | Mapping) and len({type(item) for item in items}) == 1:
        inner: Any = _kind_of(next(iter(items)))
        return Mapping[str, inner] if isinstance(value, Mapping) else tuple[inner, ...]
    return Path | None if isinstance(value, Path) else Any if value is None else type(value)


def _values(name: str, given: Sequence[Any], kind: Any) -> Iterator[Any]:
    """Each value once. Raises UserError for one that is not of this kind."""
    seen: list[Any] = []
    for one in given:
        for value in one.split(",") if isinstance(one, str) and not _has_items(kind) else [one]:
            try:
                read = _read(value, kind)
            except (TypeError, ValueError) as error:  # msgspec's errors are both
                what = one_line(str(getattr(kind, "__name__", kind) if isinstance(kind, type) else kind))
                raise UserError(
                    f"--option {name}={_said(value)}: it is not of type {what}; give another value"
                ) from error
            if isinstance(read, Path) and (why := why_no_file(read, or_folder=True)):
                raise UserError(f"--option {name}={_said(value)}: {why}; name another")
            if (same := recordable(name, read)) not in seen:
                seen.append(same)
                yield read


def _said(value: Any) -> str:
    return one_line(value)[:LONGEST_REASON] if isinstance(value, str) else shown(value)


def _has_items(kind: Any) -> bool:
    if get_origin(kind) in (Union, UnionType):
        return any(map(_has_items, get_args(kind)))
    origin = get_origin(kind) or kind
    return isinstance(origin, type) and origin is not str and issubclass(origin, Sequence | Set | Mapping)


def _read(value: Any, kind: Any) -> Any:
    """A value, or text for one, as the type `kind`. Raises TypeError or ValueError if it cannot be that."""
    if get_origin(kind) in (Union, UnionType):
        return _read_first(value, sorted(get_args(kind), key=lambda one: (one in (str, Path), one is bool)))
    if kind is NoneType or kind is None:
        if value is None or (isinstance(value, str) and value.lower() in NONE):
            return None
        raise ValueError(f"{shown(value)} is not none")
    if kind is Any:
        return _read_first(value, (None, int, float, bool, str)) if isinstance(value, str) else value
    origin = get_origin(kind) or kind
    if isinstance(origin, type) and issubclass(origin, Path):
        return Path(value)
    if not _has_items(kind):
        return msgspec.convert(value, kind, strict=False)
    items = value.split(",") if isinstance(value, str) else value
    if issubclass(origin, Mapping):
        pairs = [item.partition(":")[::2] for item in items] if isinstance(value, str) else [*value.items()]
        inner = (get_args(kind) or (str, Any))[1]
        return {key: _read(item, inner) for key, item in pairs}
    return _read_items(items, origin, get_args(kind))


def _read_items(items: Sequence[Any], origin: type, inner: tuple[Any, ...]) -> Any:
    due = inner[:1] * len(items) if not issubclass(origin, tuple) or inner[1:] == (...,) else inner
    due = due or (Any,) * len(items)
    if len(due) != len(items):
        raise ValueError(f"{len(items)} items, not {len(due)}")
    read = (_read(item, one) for item, one in zip(items, due, strict=True))
    return frozenset(read) if issubclass(origin, Set) else [*read] if issubclass(origin, list) else tuple(read)


def _read_first(value: Any, kinds: Sequence[Any]) -> Any:
    for kind in kinds:
        try:
            return _read(value, kind)
        except (TypeError, ValueError):
            continue
    raise ValueError(f"{shown(value)} is none of {kinds}")


def recorded_spec(registry: Registry, record: CellRecord) -> ModelSpec | None:
    """The model of a trained cell with the options of then, None for files that are gone or others now.

    What cannot be read back from a record, say a function, stays as it is. None if the model is not installed.
    """
    known = registry.specs["model"]
    spec = known.get(record.model)
    if spec is None and record.sweep and (parent := known.get(record.parent or "")):
        spec = parent.variant(record.model.rpartition("/")[2])
    if spec is None:
        return None
    own, kinds, changed = spec.option_values, _kinds(spec), dict[str, Any]()
    for key, value in record.made_from.get("options", {}).items():
        if key in own and canonical(own[key]) == value:
            continue
        with suppress(TypeError, ValueError):
            changed[key] = _without_content(value) if names_content(value) else _read(value, kinds.get(key, Any))
    if not isinstance(spec.options, Mapping):
        changed = {key: value for key, value in changed.items() if key in own}
    with suppress(Exception):  # checks of the plugin that it had not then
        spec = spec.with_options(**changed)
    return spec


def without_files(spec: ModelSpec) -> ModelSpec:
    """The model as it is loaded where the files are gone that its options name."""
    recorded = {key: canonical(value) for key, value in spec.option_values.items()}
    gone = {key: _without_content(value) for key, value in recorded.items() if names_content(value)}
    return spec.with_options(**gone)


def names_content(value: Any) -> bool:
    """Whether a recorded option stands for a file or folder, or holds one."""
    if isinstance(value, Mapping):
        return value.keys() in CONTENT or any(map(names_content, value.values()))
    return isinstance(value, list) and any(map(names_content, value))


def _without_content(value: Any) -> Any:
    """A recorded value with None for each file and folder."""
    if isinstance(value, Mapping):
        return None if value.keys() in CONTENT else {key: _without_content(item) for key, item in value.items()}
    return tuple(map(_without_content, value)) if isinstance(value, list) else value
