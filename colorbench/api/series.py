"""The trained models of a run under a series of protocols that differ in one field: a curve for each."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from colorbench import report
from colorbench.api.common import load_registry, say
from colorbench.api.evaluate import evaluate, protocol_to_score
from colorbench.api.run import Run, reported
from colorbench.api.score import context_to_score
from colorbench.code import plugin_code
from colorbench.data.splits import dataset_name
from colorbench.errors import UserError, refuse_unknown
from colorbench.harness.preflight import check_protocol
from colorbench.harness.protocols import predict_under
from colorbench.plugins import Registry
from colorbench.protocol import ASKED_WITH, Protocol, damage_of
from colorbench.report import results
from colorbench.runs import executors
from colorbench.runs import folder as files
from colorbench.runs.context import Context
from colorbench.runs.folder import RunFolder, cell_name
from colorbench.runs.identity import key_of
from colorbench.runs.records import DONE, OtherProtocols, protocol_of, protocol_record

EVERY = "all"


def parse_series(text: str, registry: Registry) -> tuple[str, list[str | int]]:
    """The field and its values, each once, of "FIELD=V1,V2": "hints=1,10" or "degradation=blur:2,noise".

    A degradation without a strength has all of its own, and "all" stands for all of all. Raises UserError for anything
    else than a field that a trained network can be asked with, and values of its type.
    """
    field, _, listed = text.partition("=")
    words = [word.strip() for word in listed.split(",") if word.strip()]
    refuse_unknown("field for --vary", [field], ASKED_WITH)
    if not words:
        raise UserError(f"--vary {text} has no values; say {field}=VALUE,VALUE")
    if field == "degradation":
        known = registry.specs["degradation"]
        names = [name for word in words for name in ([*known] if word == EVERY else [word])]
        registry.find("degradation", [name.partition(":")[0] for name in names])
        named = ([name] if ":" in name else [f"{name}:{s:g}" for s in known[name].strengths] for name in names)
        by_damage: dict[tuple[str, float], str | int] = {}
        for value in (value for values in named for value in values):
            by_damage.setdefault(damage_of(value), value)  # noise:5.0 is noise:5
        return field, list(by_damage.values())
    if isinstance(getattr(Protocol, field), str):
        return field, list(dict.fromkeys(words))
    if wrong := [word for word in words if not re.fullmatch(r"\d{1,18}", word)]:
        raise UserError(f"--vary {text}: {', '.join(wrong)} is not a whole number; say {field}=1,10")
    return field, list(dict.fromkeys(map(int, words)))


def evaluate_series(
    run: str | Path, data: str, varied: str, out: str | None = None, plugin_files: Sequence[Path] = (), **others: Any
) -> Run:
    """`evaluate`, and then ask the same trained models under protocols that differ in one field from that one.

    `varied` is "FIELD=V1,V2", see `parse_series`; `others` are further settings of `evaluate`. Values that are
    there already are kept, and stay in the series. Raises UserError for a series that cannot be, with nothing
    changed, and, once all else is written, naming the models that could not be asked.
    """
    registry = load_registry(plugin_files, {})
    field, values = parse_series(varied, registry)
    base = protocol_to_score(RunFolder(run), registry, others.get("protocol"))
    changed: list[dict[str, Any]] = [{field: value} for value in values if value != getattr(base, field)]
    members = [replace(base, name=f"{field}={each[field]}", **each) for each in changed]
    if not members:
        raise UserError(f"--vary {varied} has no value but {getattr(base, field)}, as without it; give others")
    for protocol in members:
        check_protocol(protocol)
    named = filter(None, [dataset_name(data), others.get("protocol"), field])
    target = RunFolder(out or Path(run, "evaluations", "-".join(named)))
    if target.exists():
        _drop_damaged(target)
    evaluated = evaluate(run, data, target.path, plugin_files, **others)
    context = context_to_score(evaluated.folder, registry, data, tuple(plugin_files))
    record = context.folder.record
    command = next(there for there in reversed(record.commands) if " --vary " not in there)
    record.commands = list(dict.fromkeys([*record.commands, f"{command} {shlex.join(['--vary', varied])}"]))
    with context.folder.held():
        context.folder.write(record)
        failed = _ask(context, [base, *members], field, Path(run).resolve())
    series = reported(evaluated.folder, evaluated.cells, plugin_files)
    if failed:
        raise UserError(f"left out of {series.path / report.PROTOCOLS}: {'; '.join(failed)}")
    return series


def _ask(context: Context, protocols: Sequence[Protocol], field: str, trained_in: Path) -> list[str]:
    """Write what each cell answers as soon as it has, and return a reason for each that fails."""
    folder, record, failed = context.folder, context.folder.record, []
    others, there = _there(context, protocols, field)
    every, tables, lacking = [protocol_of(told) for told in others.protocols], dict[str, pd.DataFrame](), []
    for cell in [cell for cell in folder.cells() if cell.status == DONE]:
        name, key = cell_name(cell.model, cell.seed), (cell.predicted_by, cell.scored_by)
        known = there.get((name, key), pd.DataFrame({"protocol": []}))
        if asked := [protocol for protocol in every if protocol.name not in set(known.protocol)]:
            lacking.append((cell, name, key, known, asked))
        else:
            tables[name], others.cells[name] = known, key
    for cell, name, key, known, asked in lacking:
        request = context.request(cell, folder.cell_dir(cell.model, cell.seed), trained_in=trained_in)
        try:
            answers = executors.call(partial(predict_under, asked), request)
        except (RuntimeError, UserError) as error:  # what is raised there, and the end of its process
            failed.append(f"{cell.model} seed {cell.seed}: {error}")
            continue
        tables[name] = pd.concat([known, answers], ignore_index=True) if len(known) else answers
        others.cells[name] = key
        content = files.to_parquet(pd.concat(tables.values(), ignore_index=True))
        record.others, record.files[files.PROTOCOLS] = others, files.sha256(content)
        files.write_aside(folder.path / files.PROTOCOLS, content)
        folder.write(record)
        say(f"{cell.model} seed {cell.seed}: asked with {len(asked)} values of {field}")
    return failed


def _there(
    context: Context, protocols: Sequence[Protocol], field: str
) -> tuple[OtherProtocols, dict[tuple[str, tuple[str, str]], pd.DataFrame]]:
    """The series with the values that the folder has of it already, none asked yet; and the rows that are there, by
    the name of the cell and the keys that it had."""
    folder, registry, there = context.folder, context.registry, context.folder.record.others
    old = _protocols_of(there) if there and there.varied == field else []
    tables: dict[tuple[str, tuple[str, str]], pd.DataFrame] = {}
    if there and old and old[0] == protocols[0] and there.code == _code(registry, old):
        joined = {_value(protocol, field): protocol for protocol in (*protocols, *old)}  # noise:5.0 as noise:5
        protocols = _in_order([*joined.values()], field)
        rows = results.read(folder).protocols
        cells: Any = iter(rows.groupby(["model", "seed"])) if len(rows) else ()
        of_cells = {cell_name(model, int(seed)): of_cell for (model, seed), of_cell in cells}
        tables = {(name, keys): of_cells[name] for name, keys in there.cells.items() if name in of_cells}
    return OtherProtocols([*map(protocol_record, protocols)], {}, field, _code(registry, protocols)), tables


def _protocols_of(there: OtherProtocols) -> list[Protocol]:
    try:
        return [protocol_of(record) for record in there.protocols]
    except UserError:  # of another version, whose answers are asked for again
        return []


def _value(protocol: Protocol, field: str) -> tuple[str, float]:
    """What a protocol has of the field: on which curve it is, and where."""
    if field == "degradation":
        return protocol.damage
    value = getattr(protocol, field)
    return (value, 0.0) if isinstance(value, str) else ("", value)


def _in_order(protocols: Sequence[Protocol], field: str) -> list[Protocol]:
    """The first, and then the others curve by curve, each from the least value on."""
    places = [_value(protocol, field) for protocol in protocols]
    curves = list(dict.fromkeys(curve for curve, _ in places))
    ranked = sorted(zip(places[1:], protocols[1:], strict=True), key=lambda one: (curves.index(one[0][0]), one[0][1]))
    return [protocols[0], *(protocol for _, protocol in ranked)]


def _code(registry: Registry, protocols: Sequence[Protocol]) -> str:
    """The key of the code of the degradations; "" if a plugin of one is not there."""
    names = {name for name, strength in (protocol.damage for protocol in protocols) if strength}
    if not names <= registry.specs["degradation"].keys():
        return ""
    sources = {registry.plugin_of("degradation", name).source for name in names}
    return key_of([plugin_code(source) for source in sorted(sources)])


def _drop_damaged(folder: RunFolder) -> None:
    """Forget protocols.parquet if it is not what was written: it is asked for again."""
    with folder.held():
        record, file = folder.record, folder.path / files.PROTOCOLS
        if files.PROTOCOLS in files.damaged_files(folder.path, record):
            say(f"{file} is damaged or absent, and is made again")
            del record.files[files.PROTOCOLS]
            record.others = None
            folder.write(record)
