"""What a run has to do: which cells are done, stale, unfinished or missing, in order of dependency."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np

from colorbench.code import own_code, plugin_code
from colorbench.contain import contained
from colorbench.contract import MetricSpec, ModelSpec, Preset
from colorbench.data.cache import Data
from colorbench.errors import UserError, reason, whatever_raised
from colorbench.options import configure, names_content, recorded_spec
from colorbench.plugins import Registry, load
from colorbench.protocol import Protocol
from colorbench.runs.folder import (
    AGAIN,
    TRAINING,
    WEIGHTS,
    RunFolder,
    damaged_files,
    environment_key,
    read_cell,
)
from colorbench.runs.identity import (
    ELSEWHERE_CODE,
    PREDICTION_CODE,
    SCORING_CODE,
    TRAINING_CODE,
    canonical,
    differences,
    key_of,
    option_fields,
    predictions_key,
    refuse_deep,
    stage_fields,
)  # fmt: skip
from colorbench.runs.records import (
    FAILED,
    CellRecord,
    DataRecord,
    Environment,
    MadeFrom,
    MetricRecord,
    PresetRecord,
    RunRecord,
    protocol_record,
)

READY, KEPT, UNSCORED, STALE, RESUMABLE, TO_DO = "done", "kept", "to be scored", "stale", "resumable", "missing"


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


@dataclass(frozen=True)
class Planned:
    """A cell and what is to be done with it; `why` it is stale or kept, field by field.

    `record` is what is there, or what would be made.
    """

    spec: ModelSpec
    seed: int
    state: str
    record: CellRecord
    cell_dir: Path
    why: tuple[str, ...] = ()

    @property
    def is_again(self) -> bool:
        """Whether it is made beside an old one, whose place it will take."""
        return self.cell_dir.name.endswith(AGAIN)

    @property
    def trains(self) -> bool:
        return self.state in (RESUMABLE, TO_DO)


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


def plan(
    context: Context, specs: Sequence[ModelSpec], seeds: Sequence[int], again: Collection[str], keep: Collection[str]
) -> list[Planned]:
    """Every cell with its state, bases first. `again` are models to train anew, `keep` stale ones to use as is."""
    planned: dict[tuple[str, int], Planned] = {}
    for seed in seeds:
        for spec in specs:
            planned[spec.name, seed] = _plan_cell(context, spec, seed, planned, (spec.name in again, spec.name in keep))
    return list(planned.values())


def waiting(context: Context, cells: Sequence[Planned]) -> Iterator[str]:
    """A line for each cell that lies half made again beside the old one, and that this command leaves there."""
    for cell in cells:
        name, beside = cell.spec.name, context.folder.again_dir(cell.spec.name, cell.seed)
        if beside.exists() and beside != cell.cell_dir:
            yield (
                f"{name} seed {cell.seed}: it was being made again in {beside}; "
                f"--again {name} goes on with that, or delete the folder"
            )


def refuse_stale(cells: Sequence[Planned]) -> None:
    """Raises UserError that names each stale cell and the fields in which it differs."""
    if stale := [cell for cell in cells if cell.state == STALE]:
        told = [f"{cell.spec.name} seed {cell.seed}: {'; '.join(cell.why)}" for cell in stale]
        names = ",".join(dict.fromkeys(cell.spec.name for cell in stale))
        sound = ",".join(dict.fromkeys(cell.spec.name for cell in stale if cell.record.has_weights))
        uses = f", --keep {sound} uses as it is" if sound else ""
        raise UserError("\n".join([*told, f"nothing was touched; --again {names} trains again{uses}"]))


def _plan_cell(
    context: Context, spec: ModelSpec, seed: int, planned: Mapping[tuple[str, int], Planned], asked: tuple[bool, bool]
) -> Planned:
    again, keep = asked
    folder = context.folder.cell_dir(spec.name, seed)
    fresh = new_record(context, spec, seed, planned)
    if again and _may_be_trained(context, spec, seed):
        return _plan_anew(context, spec, seed, fresh)
    try:
        there = context.folder.cell(spec.name, seed)
    except UserError as error:  # its record is damaged: what was trained may be sound all the same
        return Planned(spec, seed, STALE, fresh, folder, (str(error),))
    if not there.has_weights:
        return Planned(spec, seed, _unfinished(folder), fresh, folder)
    damaged = damaged_files(folder, there)
    lost = _lost(folder, damaged)
    why = (*changes(there, fresh), *lost)
    if lost:
        return Planned(spec, seed, STALE, fresh, folder, why)
    if why and not keep:
        return Planned(spec, seed, STALE, there, folder, why)
    if damaged or not is_scored(context, there):
        return Planned(spec, seed, UNSCORED, there, folder, why)
    return Planned(spec, seed, KEPT if why else READY, there, folder, why)


def _may_be_trained(context: Context, spec: ModelSpec, seed: int) -> bool:
    """Whether there is something that another training would replace: a cell, or a damaged record of one."""
    try:
        return context.folder.cell(spec.name, seed).has_weights
    except UserError:
        return True


def _plan_anew(context: Context, spec: ModelSpec, seed: int, fresh: CellRecord) -> Planned:
    """The cell beside the old one, as far as it is there already."""
    folder = context.folder.again_dir(spec.name, seed)
    try:
        begun = read_cell(folder, spec.name, seed)
    except (FileNotFoundError, UserError):
        begun = fresh
    damaged = damaged_files(folder, begun)
    if not begun.has_weights or begun.key != fresh.key or _lost(folder, damaged):
        return Planned(spec, seed, _unfinished(folder), fresh, folder)
    scored = is_scored(context, begun) and not damaged
    return Planned(spec, seed, READY if scored else UNSCORED, begun, folder)


def _unfinished(folder: Path) -> str:
    return RESUMABLE if (folder / TRAINING).exists() else TO_DO


def changes(there: CellRecord, fresh: CellRecord) -> list[str]:
    """The fields in which what made a cell differs from what would make it now."""
    if there.key == fresh.key:
        return []
    return list(differences(there.made_from, fresh.made_from)) or ["a value of another type"]  # such as 1, true


def _lost(folder: Path, damaged: Collection[str]) -> list[str]:
    """A line for each damaged file that only another training can make again."""
    return [f"{folder / name} is damaged or absent" for name in damaged if name == WEIGHTS]


def is_scored(context: Context, record: CellRecord) -> bool:
    """Whether the scores of a cell are made under the keys of today, and as many predictions kept as are asked for."""
    predicted = record.predicted_by == predictions_key(record, context.inputs)
    kept = min(len(context.data.splits["test"]), 2**63 if context.keep is None else context.keep)
    validated = not context.validation or is_validated(record, context.validation)
    return predicted and validated and record.scored_by == context.scoring and record.predictions_kept >= kept


def is_validated(record: CellRecord, validation: str) -> bool:
    """Whether a cell has scores on the validation images under this key; pictures made elsewhere never have."""
    return "pictures" in record.made_from or record.validated_by == predictions_key(record, validation)


def new_record(
    context: Context, spec: ModelSpec, seed: int, planned: Mapping[tuple[str, int], Planned] | None = None
) -> CellRecord:
    """The record of a cell that is not made yet, with the fields that its weights will depend on."""
    fields = training_fields(context, spec, seed)
    for role, name in (("base", spec.refines), ("trained_as", spec.trained_as)):
        if name:
            fields[role] = _other(context, name, seed, (planned or {}).get((name, seed)))
    without_seed = {key: value for key, value in fields.items() if key != "seed"}
    for role in ("base", "trained_as"):
        if role in fields:
            without_seed[role] = fields[role]["row"]
    return CellRecord(
        model=spec.name, seed=seed, status=FAILED, reason="it was not made", summary=spec.summary,
        origin=context.registry.origins["model", spec.name], made_from=cast(MadeFrom, fields), key=key_of(fields),
        row=key_of(without_seed), refines=spec.refines, trained_as=spec.trained_as, parent=spec.parent,
        reference=spec.reference, anchor=spec.anchor, sees_truth=spec.sees_truth,
        published=spec.published,
        environment=environment_key(context.environment),
        options_given=context.registry.given.get(spec.name, msgspec.UNSET),
        sweep=context.registry.sweeps.get(spec.name, msgspec.UNSET),
        trained_on=_trained_on(spec, fields["weights"]["sha256"]) if "weights" in fields else msgspec.UNSET,
    )  # fmt: skip


def _trained_on(spec: ModelSpec, sha256: str) -> str:
    """What published weights were trained on; "" if their plugin does not know the file."""
    return next((weights.trained_on for weights in spec.weights if sha256.startswith(weights.sha256)), "")


def _other(context: Context, name: str, seed: int, cell: Planned | None) -> dict[str, Any]:
    """What a cell builds on: its key, and the weights that it has now, None if they are to be made."""
    there = cell.record if cell else context.folder.cell(name, seed)
    anew = cell is not None and (cell.trains or cell.state == STALE)
    weights = "to be trained" if anew else there.weights_sha256
    return {"model": name, "row": there.row, "weights": weights}


def training_fields(context: Context, spec: ModelSpec, seed: int) -> dict[str, Any]:
    """What the weights of a cell depend on, beside other cells."""
    file, preset = context.weights.get(spec.name), context.preset
    fields = {"seed": seed, **own_fields(spec, preset, context.registry, untrained=bool(file or spec.trained_as))}
    fields["preset"] = {"size": preset.size, "width": preset.width}
    if file:
        fields["weights"] = canonical(file)
    elif initial := context.initial_of(spec):
        fields["initial"] = canonical(initial)
    if spec.pictures:
        fields["pictures"] = canonical(spec.pictures.resolve())
    if fields["stages"]:
        fields["preset"] |= {"batch_size": preset.batch_size}
        fields["data"] = {split: context.data.fingerprint_of(split) for split in ("train", "val")}
        fields["input"] = context.protocol.automatic.input_id
    return fields


def own_fields(spec: ModelSpec, preset: Preset, registry: Registry, untrained: bool) -> dict[str, Any]:
    """The code, options and stages of a model. A schedule that fails is a field that says so.

    Raises UserError for an option that cannot be told from another.
    """
    try:
        with contained():
            stages = [] if untrained else [stage_fields(stage) for stage in spec.schedule(preset)]
    except whatever_raised() as error:  # said again, with all else that is wrong with the model, before it trains
        stages = [{"fails": reason(error)}]
    known = spec.name in registry.specs["model"]
    source = registry.plugin_of("model", spec.name if known else spec.parent or "").source
    code = plugin_code(source, spec.build, spec.schedule, reports=False) if source else {}
    named = {f"plugin {name}": code[name] for name in code}
    if stages:
        named |= {"colorbench's training": own_code(TRAINING_CODE)}
    if spec.pictures:
        named |= {"colorbench's reading of pictures": own_code(ELSEWHERE_CODE)}
    return {"options": option_fields(spec), "stages": stages, "code": named}


def changes_since(folder: RunFolder, record: CellRecord, registry: Registry) -> list[str]:
    """The fields of a trained cell that its plugin would set otherwise now: code, options, schedule."""
    spec = recorded_spec(registry, record)
    preset = Preset(summary="", **msgspec.structs.asdict(folder.record.preset))
    if spec is None:
        return []
    untrained = bool(record.made_from.get("weights")) or not record.made_from.get("stages")
    fields = own_fields(spec, preset, registry, untrained=untrained)
    there = {key: record.made_from.get(key) for key in fields}
    # A file that an option named is not needed again: what was made of it lies in the weights.
    for name, value in record.made_from.get("options", {}).items():
        if names_content(value):
            fields["options"][name] = value
    return list(differences(there, fields))
