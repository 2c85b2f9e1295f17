"""The settings of a run, as Python and the command line give them, and the options they resolve to."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, TypedDict

from colorbench import published
from colorbench.api.kinds import refuse_other_kinds
from colorbench.contract import MODEL_NAME, ModelSpec, Preset
from colorbench.data.splits import SHARES, dataset_name
from colorbench.errors import UserError, one_line, refuse_empty, refuse_unknown, refuse_unknown_data, shown
from colorbench.options import configure, parsed
from colorbench.plugins import Registry, load, paths_of
from colorbench.presets import PRESETS
from colorbench.protocol import COLORBENCH

Names = str | Sequence[str]  # in a list, or in one text with commas between
LONGEST_SETTING = 10_000  # characters, in the record of a call
MOST = 2**31 - 1  # of what is counted: tables and records hold no more
SIZES = ("size", "width", "epochs", "batch_size")  # fields of a preset that settings replace
RANGES = {"size": (16, MOST), "epochs": (1, MOST), "batch_size": (1, MOST), "seed": (0, 2**63 - 1)}


class Settings(TypedDict, total=False):
    """Settings of a run besides models and data: the options of `colorbench run`.

    ablations    names of changes, such as "no-prior", or "all": ablations of the models run, too
    preset       a name or a `colorbench.Preset`; default "first"
    seeds        a number or several; default 0
    size, width, epochs, batch_size    replace those of the preset
    weights      files by model, used instead of training; or by metric; "published" for the kept published weights
    initial      files by model: weights to start training from; "published" likewise
    options      options of models, by "MODEL.KEY"; a list of values is a sweep, one row per value
    select       "val" also scores the validation images and names the best row of each sweep by these scores
    protocol     default "colorbench-1"; see `colorbench list protocols`
    pictures     folders or zips of pictures made elsewhere, by row name
    as_is        whether such pictures are scored with their own luminance
    out          the run folder; default results/DATA-PRESET, plus -PROTOCOL if not the default
    predictions  how many predictions of test images to keep; default "all"; "none" for none
    again        models to train again, or "all"
    keep         stale models to use as they are, or "all"
    plugins      Python files with plugins
    timing       whether throughput is timed; default True
    command      the command in the record; default this call
    """

    ablations: Names
    preset: str | Preset
    seeds: int | Sequence[int]
    size: int
    width: float
    epochs: int
    batch_size: int
    weights: Mapping[str, str | Path]
    initial: Mapping[str, str | Path]
    options: Mapping[str, Any] | Sequence[str]
    select: Literal["val"]
    protocol: str
    pictures: Mapping[str, str | Path] | Sequence[str]
    as_is: bool
    out: str | Path
    predictions: int | Literal["all", "none"]
    again: Names
    keep: Names
    plugins: str | Path | Sequence[str | Path]
    timing: bool
    command: str


@dataclass(frozen=True)
class Options:
    """What `run` and `plan` should do.

    `again` names models to train again, `keep` stale models to use as they are; "all" means every model. With `remakes`
    stale cells are made again in place, for cells that are cheap to make. `predictions` is the number of test
    predictions to keep, None for all. `pictures` are rows made elsewhere, also named in `models`. `weights` are files
    by model (instead of training) or by metric; `initial` are files to start training from. `options` has a value or a
    list of values by "MODEL.KEY"; each value of a list is a row. With `select` "val" the validation images are scored,
    too, and the report names the best row of each such sweep by these scores.
    """

    models: Sequence[str]
    data: str
    preset: Preset
    out: Path
    seeds: Sequence[int] = (0,)
    weights: Mapping[str, Path] = field(default_factory=dict)
    initial: Mapping[str, Path] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    select: Literal["", "val"] = ""
    plugin_files: Sequence[Path] = ()
    protocol: str = COLORBENCH.name
    pictures: Sequence[ModelSpec] = ()
    again: Sequence[str] = ()
    keep: Sequence[str] = ()
    remakes: bool = False
    predictions: int | None = None
    timing: bool = True
    command: str = "colorbench.run"


def options_of(models: Names, data: str | Path, settings: Settings) -> Options:
    """The options that settings resolve to. Raises UserError with all errors in the settings at once."""
    refuse_unknown("setting", settings, Settings.__annotations__)
    refuse_other_kinds({"models": models, "data": data, **settings})
    plugin_files = paths_of(settings.get("plugins", ()))
    pictures = specs_of(settings.get("pictures", ()), settings.get("as_is", False))
    registry = load(plugin_files, pictures=pictures)
    _report_faults(registry)
    words: dict[str, Any] = {name: settings.get(name) for name in ("protocol", "out", "ablations", "again", "keep")}
    names = _models(models, words["ablations"], pictures, registry)
    weights, initial = _paths(settings.get("weights", {})), _paths(settings.get("initial", {}))
    asked = settings.get("options", {})
    options = asked if isinstance(asked, Mapping) else parsed(asked)
    others = [name for name in weights if name not in names and name not in registry.specs["metric"]]
    protocol = settings.get("protocol") or COLORBENCH.name
    seeds, preset = _seeds(settings.get("seeds", 0)), settings.get("preset", "first")
    _refuse_all(
        lambda: registry.find("model", [*names, *others]),
        lambda: registry.find("protocol", [protocol]),
        *(partial(published.resolved, registry, files) for files in (weights, initial)),
        lambda: configure(registry, options),
        lambda: _preset(preset, settings),
        lambda: refuse_unknown_data(str(data), registry.specs["dataset"]),
        lambda: _count(settings.get("predictions", "all")),
        *(partial(refuse_number, "seed", seed) for seed in seeds),
        lambda: refuse_empty(**words),
    )
    chosen = _preset(preset, settings)
    return Options(
        models=names,
        data=str(data),
        preset=chosen,
        out=Path(settings.get("out", Path("results", _run_name(str(data), chosen, protocol)))),
        seeds=[int(seed) for seed in seeds],
        weights=published.resolved(registry, weights),
        initial=published.resolved(registry, initial),
        options=options,
        select=settings.get("select", ""),
        protocol=protocol,
        pictures=pictures,
        plugin_files=plugin_files,
        timing=settings.get("timing", True),
        again=listed(settings["again"]) if "again" in settings else (),
        keep=listed(settings["keep"]) if "keep" in settings else (),
        predictions=_count(settings.get("predictions", "all")),
        command=settings.get("command") or _call(models, data, settings),
    )


def _run_name(data: str, preset: Preset, protocol: str) -> str:
    """DATA-PRESET, and the protocol where it is not the usual one: another run than that under the usual one."""
    return "-".join([dataset_name(data), preset.name, *([] if protocol == COLORBENCH.name else [protocol])])


def _paths(files: Mapping[str, str | Path]) -> dict[str, Path]:
    return {name: Path(file) for name, file in files.items()}


def _report_faults(registry: Registry) -> None:
    warn = logging.getLogger("colorbench").warning
    for plugin in registry.plugins:
        if plugin.broken:
            warn(f"plugin {plugin.name} is broken and left out: {plugin.broken}")
        if plugin.changed:
            what = ", ".join(plugin.changed)
            warn(f"plugin {plugin.name} changed {what} when it was imported; this was undone: do it in `build`")


def _models(models: Names, ablations: Names | None, pictures: Sequence[ModelSpec], registry: Registry) -> list[str]:
    """The names of all that runs: the models asked for, the rows made elsewhere, and the ablations of these."""
    every = {name: spec for name, spec in registry.specs["model"].items() if not spec.parent}
    groups = {"all": [name for name, spec in every.items() if spec.in_all], "everything": list(every)}
    names = list(dict.fromkeys(name for given in listed(models) for name in groups.get(given, [given])))
    names += [spec.name for spec in pictures if spec.name not in names]
    return names + (_ablations(ablations, names, registry) if ablations else [])


def _ablations(given: Names, models: Sequence[str], registry: Registry) -> list[str]:
    """The full names of the ablations of `models`: of all, or of the changes that are given."""
    changes: dict[str, list[str]] = {}
    for name, spec in registry.specs["model"].items():
        if spec.parent in models:
            changes.setdefault(name.removeprefix(f"{spec.parent}/"), []).append(name)
    if not changes:
        raise UserError(f"there is no ablation of {', '.join(models)}; leave out --ablations, or name other --models")
    wanted = listed(given)
    wanted = list(changes) if "all" in wanted else wanted
    full = {name for names in changes.values() for name in names}  # as the tables write them
    refuse_unknown(f"ablation of {', '.join(models)}:", [name for name in wanted if name not in full], changes)
    return [name for change in wanted for name in changes.get(change, [change])]


def specs_of(given: Mapping[str, str | Path] | Sequence[str], as_is: bool) -> list[ModelSpec]:
    """The rows made elsewhere, by name, or as NAME=DIR or only DIR. Raises UserError for an invalid name or path."""
    specs = []
    for name, path in given.items() if isinstance(given, Mapping) else map(_named, given):
        if not os.path.exists(path):
            raise UserError(f"there are no pictures {str(path)!r}; name a folder or zip of them, as NAME=DIR")
        if "/" in name or not re.fullmatch(MODEL_NAME, name):
            raise UserError(f"pictures cannot be called {name!r}: write NAME=DIR, NAME of a-z, 0-9, dashes and dots")
        options = {"as_is": True} if as_is else {}
        summary = one_line(f"made elsewhere: pictures of {Path(path).resolve().name}")
        specs.append(ModelSpec(name, summary, options=options, pictures=Path(path)))
    return specs


def _named(text: str) -> tuple[str, str]:
    """The name and the path in NAME=DIR; a DIR alone is called by its own name."""
    name, _, path = text.rpartition("=") if not os.path.exists(text) else ("", "", text)
    return name or re.sub("[^a-z0-9.]+", "-", Path(path).resolve().stem.lower()).strip("-."), path


def listed(names: Names) -> list[str]:
    """Names without repeats. Raises UserError if there are none."""
    parts = names.split(",") if isinstance(names, str) else names
    found = list(dict.fromkeys(name.strip() for name in parts if name.strip()))
    if not found:
        raise UserError(f"{names!r} names nothing; give all, or names separated by commas")
    return found


def _seeds(given: int | Sequence[int]) -> Sequence[int]:
    return (list(dict.fromkeys(given)) or [0]) if isinstance(given, Iterable) else [given]


def _preset(given: str | Preset, settings: Settings) -> Preset:
    """The preset with what the settings have in its place. Raises UserError for sizes that no record can hold."""
    if isinstance(given, str):
        refuse_unknown("preset", [given], PRESETS)
        given = PRESETS[given]
    sizes: dict[str, Any] = {name: settings.get(name, getattr(given, name)) for name in SIZES}
    _refuse_all(
        *(partial(refuse_number, name, value) for name, value in sizes.items()), partial(_refuse_misfit_preset, given)
    )
    sizes = {name: float(value) if name == "width" else int(value) for name, value in sizes.items()}
    return replace(given, **sizes)


def _refuse_misfit_preset(preset: Preset) -> None:
    if not isinstance(preset.name, str) or not re.fullmatch(r"[\w.-]+", preset.name):  # a part of the folder's name
        raise UserError(f"the preset's name is {preset.name!r}; give one of letters, digits, dots and dashes")
    for split in SHARES:
        limit, low = getattr(preset, split), 1 if split == "test" else 0
        if limit is not None and not (isinstance(limit, int) and low <= limit <= MOST):
            raise UserError(
                f"the preset's {split} is {limit!r}; give a number of images from {low} on, or None for all"
            )


def refuse_number(name: str, value: Any) -> None:
    """Raises UserError unless a size, a seed or the like is a number in its range."""
    option = f"--{name.replace('_', '-')} {value}"
    if name == "width":
        if not (isinstance(value, Real) and 0 < float(value) < math.inf):
            raise UserError(f"{option}: give a number above 0, such as 0.5")
        return
    low, high = RANGES[name]
    if not isinstance(value, Integral):
        raise UserError(f"--{name.replace('_', '-')} {value!r} is not a whole number; give one from {low} to {high}")
    if not (low <= int(value) <= high):
        raise UserError(f"{option} is not in the range {low} to {high}")


def _count(given: int | str) -> int | None:
    """How many predictions to keep, None for all."""
    if given in ("all", "none"):
        return None if given == "all" else 0
    if not str(given).isdecimal():
        raise UserError(f"--predictions {given}: give none, all, or a number")
    return int(given)


def _call(models: Names, data: str | Path, settings: Settings) -> str:
    """The call as the record keeps it."""
    given = [f"{name}={shown(value, LONGEST_SETTING)}" for name, value in settings.items()]
    return f"colorbench.run({', '.join([repr(models), repr(str(data)), *given])})"


def _refuse_all(*checks: Callable[[], Any]) -> None:
    """Run every check and raise all that they say at once: nobody wants to mend a command one word at a time."""
    problems = []
    for check in checks:
        try:
            check()
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("; ".join(problems))
