"""The fields that the weights of a cell depend on: its code, options, stages, data and preset."""

from __future__ import annotations

from typing import Any

import msgspec

from colorbench.code import own_code, plugin_code
from colorbench.contain import contained
from colorbench.contract import ModelSpec, Preset
from colorbench.errors import UserError, reason, whatever_raised
from colorbench.options import names_content, recorded_spec
from colorbench.plugins import Registry
from colorbench.runs.context import Context
from colorbench.runs.folder import RunFolder
from colorbench.runs.identity import (
    ELSEWHERE_CODE,
    TRAINING_CODE,
    canonical,
    differences,
    key_of,
    option_fields,
    stage_fields,
)
from colorbench.runs.records import CellRecord


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
    named = _code_of(spec, registry)
    if stages:
        named |= {"colorbench's training": own_code(TRAINING_CODE)}
    if spec.pictures:
        named |= {"colorbench's reading of pictures": own_code(ELSEWHERE_CODE)}
    return {"options": option_fields(spec), "stages": stages, "code": named}


def _code_of(spec: ModelSpec, registry: Registry) -> dict[str, str]:
    known = spec.name in registry.specs["model"]
    source = registry.plugin_of("model", spec.name if known else spec.parent or "").source
    code = plugin_code(source, spec.build, spec.schedule, reports=False) if source else {}
    return {f"plugin {name}": code[name] for name in code}


def code_to_predict(folder: RunFolder, record: CellRecord, registry: Registry) -> str | msgspec.UnsetType:
    """The key of the code by which a trained cell, and what it refines, would predict now.

    UNSET if that is the code by which they were trained, or if their plugins are not there.
    """
    trained, now, cell = [], [], record
    while cell.has_weights and (spec := recorded_spec(registry, cell)):
        code = cell.made_from.get("code", {})
        trained.append({name: code[name] for name in code if name.startswith("plugin ")})
        now.append(_code_of(spec, registry))
        if not cell.refines:
            return msgspec.UNSET if now == trained else key_of(now)
        try:
            cell = folder.cell(cell.refines, cell.seed)
        except UserError:  # said when it is loaded
            break
    return msgspec.UNSET


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
