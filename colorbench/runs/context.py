"""What all cells of a command share, and what making one of them takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from colorbench.code import own_code, plugin_code
from colorbench.contract import MetricSpec, ModelSpec, Preset
from colorbench.data.cache import Data
from colorbench.errors import UserError, reason, whatever_raised
from colorbench.options import configure
from colorbench.plugins import Registry, load
from colorbench.protocol import Protocol
from colorbench.runs.folder import RunFolder, environment_key
from colorbench.runs.identity import PREDICTION_CODE, SCORING_CODE, canonical, key_of, refuse_deep
from colorbench.runs.records import (
    CellRecord,
    DataRecord,
    Environment,
    MetricRecord,
    PresetRecord,
    RunRecord,
    protocol_record,
)


@dataclass(frozen=True)
class Plugins:
    """What a process has to load: installed plugins by their entry points' names, files, rows made elsewhere, weights
    of metrics, and options of models."""

    installed: frozenset[str]
    files: tuple[str, ...]
    pictures: tuple[ModelSpec, ...] = ()
    weights: Mapping[str, Path] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> Registry:
        registry = load(self.files, only=self.installed, pictures=self.pictures, weights=self.weights)
        configure(registry, self.options)
        return registry


@dataclass(frozen=True)
class CellRequest:
    """All that making a cell needs; it can be pickled.

    `record` is what is known of the cell, or there of it already: one that has weights is not trained. `run` holds
    the cells it builds on, `cell_dir` is where its own files go. `splits` are folders of the decoded cache. `keep` is
    how many predictions to keep, None for all. `inputs` and `scored_by` are keys. `resume` says which unfinished
    training can be gone on with.
    """

    record: CellRecord
    run: Path
    cell_dir: Path
    preset: Preset
    protocol: Protocol
    splits: Mapping[str, Path]
    plugins: Plugins
    inputs: str
    scored_by: str
    keep: int | None = None
    weights: Path | None = None
    initial: Path | None = None  # weights that the training begins with
    resume: str = ""
    statistics: Mapping[str, np.ndarray] = field(default_factory=dict)  # by metric, of the training images
    rescores: bool = False  # what is kept, whatever key it has
    validation: str = ""  # the key of what scores on the validation images are made from; "" for none
    trained_in: Path | None = None  # of an evaluation: the run whose weights are scored


@dataclass(frozen=True)
class Context:
    """What all cells of a command share. `source` is the data as the command named it, `weights` are published weight
    files by model, `initial` those that a training begins with, `options` the options given to models, by "MODEL.KEY".
    If it `validates`, the validation images are scored, too.
    `statistics` are what metrics make of the training images, by name; empty until something is scored.
    """

    folder: RunFolder
    registry: Registry
    source: str
    data: Data
    preset: Preset
    protocol: Protocol
    environment: Environment
    plugin_files: tuple[Path, ...] = ()
    weights: Mapping[str, Path] = field(default_factory=dict)
    keep: int | None = None
    statistics: dict[str, np.ndarray] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    initial: Mapping[str, Path] = field(default_factory=dict)
    validates: bool = False

    @cached_property
    def scoring(self) -> str:
        """The key of what scores: the protocol's half, our code, and that of the plugins' metrics and diagnostics."""
        return scoring_key(self.protocol, self.registry)

    @cached_property
    def inputs(self) -> str:
        """The key of what predictions depend on beside the weights: the test images, as they are fed, and our code."""
        return self._inputs("test")

    def _inputs(self, split: str) -> str:
        name, strength = self.protocol.damage
        damage = [plugin_code(self.registry.plugin_of("degradation", name).source)] if strength else []
        return key_of([self.protocol.input_id, self.data.fingerprint_of(split), own_code(PREDICTION_CODE), *damage])

    @cached_property
    def validation(self) -> str:
        """The key of the scores on the validation images, by the protocol alone; "" if there are to be none."""
        return key_of([self._inputs("val"), scoring_key(self.protocol, Registry())]) if self.validates else ""

    def run_record(self) -> RunRecord:
        """What the folder's record has to say of this command; the cells it asks for are still to be added."""
        preset = {key: value for key, value in dataclasses.asdict(self.preset).items() if key != "summary"}
        return RunRecord(
            protocol=protocol_record(self.protocol),
            data=DataRecord(source=self.source, **self.data.record()),
            preset=PresetRecord(**preset),
            environments={environment_key(self.environment): self.environment},
            inputs=self.inputs,
            scoring=self.scoring,
            validation=self.validation or msgspec.UNSET,
            metrics={name: self._metric_record(metric) for name, metric in self.registry.metrics.items()},
            diagnostics={name: spec.summary for name, spec in self.registry.specs["diagnostic"].items()},
        )

    def _metric_record(self, metric: MetricSpec) -> MetricRecord:
        lacking = [name for name in metric.takes if name not in self.data.splits["test"].arrays]
        left_out = f"it needs {', '.join(lacking)}, which these data have not" if lacking else ""
        if metric.prepare is not None and not self.has_training_images:
            left_out = "it needs a training split, which these data have not"
        return MetricRecord(
            summary=metric.summary,
            over="set" if metric.reduce else "image",
            better=metric.better,
            settings=metric_settings(metric),
            notes=[*metric.notes],
            left_out=left_out,
        )

    @property
    def has_training_images(self) -> bool:
        return "train" in self.data.splits and len(self.data.splits["train"]) > 0

    def request(self, record: CellRecord, cell_dir: Path, **others: Any) -> CellRequest:
        """What making this cell in this folder takes; `others` are further fields of the request."""
        env, splits = self.environment, self.data.splits
        # What may go on with an unfinished training: the same cell, on the same kind of machine.
        resume = key_of([record.key, env.packages, env.device, env.precision, env.processes])
        return CellRequest(
            record=record,
            run=self.folder.path.resolve(),
            cell_dir=cell_dir.resolve(),
            preset=self.preset,
            protocol=self.protocol,
            splits={split: images.entry for split, images in splits.items() if images.entry},
            plugins=self.plugins_for([record.model]),
            inputs=self.inputs,
            scored_by=self.scoring,
            validation=self.validation,
            keep=self.keep,
            weights=self.weights.get(record.model),
            initial=self.initial_of(self.registry.specs["model"].get(record.model)),
            resume=resume,
            statistics=self.statistics,
            **others,
        )

    def initial_of(self, spec: ModelSpec | None) -> Path | None:
        """The weights that a model is trained from: its own, or those of the model that it is an ablation of."""
        if spec is None or spec.trained_as:
            return None
        return self.initial.get(spec.name) or self.initial.get(spec.parent or "")

    def plugins_for(self, names: Collection[str]) -> Plugins:
        """Those that these models, what they build on, the metrics and the diagnostics come from."""
        known = self.registry.specs["model"]
        # A row of a sweep that another command made is known by its model.
        there = {name if name in known else name.rpartition("/")[0] for name in names} & known.keys()
        needed = {spec.name for spec in with_needed([known[name] for name in sorted(there)], self.registry)}
        inherited = {known[name].parent for name in needed} & {name.rpartition(".")[0] for name in self.options}
        needed |= {name for name in inherited if name}
        kinds = [("model", name) for name in needed] + [("metric", name) for name in self.registry.metrics]
        kinds += [("diagnostic", name) for name in computed(self.registry)]
        kinds += [("degradation", name) for name in self.registry.specs["degradation"]]
        used = {self.registry.plugin_of(*kind) for kind in kinds}
        files = sorted(plugin.source for plugin in used if plugin.source.endswith(".py"))
        installed = frozenset(plugin.name for plugin in used if plugin.source and plugin.source not in files)
        pictures = tuple(known[plugin.name] for plugin in used if not plugin.source)
        provided = {name for plugin in used for name in plugin.provides}
        options = {name: of for name, of in self.options.items() if f"model {name.rpartition('.')[0]}" in provided}
        return Plugins(installed, tuple(files), pictures, self.registry.weights, options)


def scoring_key(protocol: Protocol, registry: Registry) -> str:
    """The key of what scores under a protocol: its scoring half, our code, that of the plugins' metrics and their
    settings, files by content, and that of the terms of diagnostics."""
    metrics = {
        name: [plugin_code(registry.plugin_of("metric", name).source), metric_settings(metric)]
        for name, metric in registry.metrics.items()
    }
    diagnostics = {name: plugin_code(registry.plugin_of("diagnostic", name).source) for name in computed(registry)}
    return key_of([protocol.scoring_id, own_code(SCORING_CODE), metrics, diagnostics])


def computed(registry: Registry) -> list[str]:
    """The diagnostics of which there is something to compute beside the scores."""
    return [name for name, spec in registry.specs["diagnostic"].items() if spec.terms is not None]


def metric_settings(metric: MetricSpec) -> dict[str, Any]:
    """The settings as a record holds them. Raises UserError for what cannot be compared from run to run."""
    try:
        settings = {str(name): canonical(value) for name, value in metric.settings.items()}
        msgspec.json.encode(settings)
        refuse_deep(settings)
    except whatever_raised() as error:  # whatever a plugin's own objects raise
        raise UserError(
            f"the settings of the metric {metric.name!r} cannot be recorded ({reason(error)}); "
            "give plain values and paths of files that can be read, or remove its plugin"
        ) from error
    return settings


def with_needed(specs: Sequence[ModelSpec], registry: Registry) -> list[ModelSpec]:
    """The models to run, each once; before each what it refines and whose weights it takes, if that is installed."""
    ordered: dict[str, ModelSpec] = {}

    def add(spec: ModelSpec, needed_by: tuple[str, ...]) -> None:
        if spec.name in needed_by:
            raise UserError(f"model {spec.name!r} refines itself, or takes its own weights; repair its plugin")
        for name in (spec.refines, spec.trained_as):
            if other := registry.specs["model"].get(name or ""):
                add(other, (*needed_by, spec.name))
        ordered.setdefault(spec.name, spec)

    for spec in specs:
        add(spec, ())
    return list(ordered.values())
