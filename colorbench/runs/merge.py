"""Runs made apart, say on the machines of a cluster, as one run folder: nothing is trained, predicted or scored."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from colorbench.errors import UserError
from colorbench.runs.folder import (
    CELL,
    PROTOCOLS,
    SCORES,
    TRACEBACK,
    TRAINED_ON,
    TRAINING,
    RunFolder,
    cell_name,
    conditions,
    damaged_files,
    read_checked,
    write_aside,
    write_cell,
)  # fmt: skip
from colorbench.runs.identity import differences
from colorbench.runs.records import DONE, CellRecord, RunRecord, encode

Sources = Mapping[RunFolder, RunRecord]
Cells = Mapping[tuple[str, int], tuple[RunFolder, CellRecord]]  # by model and seed, and the run that it is taken from
BUILT_ON = "base", "trained_as"  # fields of what made a cell


def merge(runs: Sequence[str | Path], out: str | Path) -> RunFolder:
    """Copy the cells of `runs`, which stay as they are, into a new run folder `out`, and return that.

    Of a cell that several runs hold, the one that got furthest is taken. Raises UserError, leaving nothing behind, with
    a line for each field in which the runs differ, each model that was made in two ways, each cell whose weights or
    predictions differ or whose base is not there, and each damaged file; and if `out` is anything but an empty folder.
    """
    sources, target = {source: source.record for source in map(RunFolder, runs)}, RunFolder(out)
    _refuse_target(target.path, sources)
    _refuse(_differing(sources), "merge runs of one protocol, data, preset and version of colorbench and its plugins")
    cells = _furthest(sources)
    _refuse([*_conflicts(sources, cells), *_strangers(sources, cells)], "merge other runs, or train these cells again")
    # Made beside `out`, under a name that the same command finds again if it is killed.
    whole = Path(os.path.abspath(target.path))
    aside = RunFolder(whole.with_name(f".{whole.name}.merging"))
    with aside.held():
        try:
            for entry in aside.path.iterdir():
                if entry.name != ".lock":  # of a merge that was killed
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            damaged = [file for source in sources for file in _copy(source, sources[source], cells, aside)]
            _refuse((f"{file} is damaged or absent" for file in damaged), "restore it, or make it again where it was")
            aside.path.rename(whole)
        except BaseException:
            shutil.rmtree(aside.path, ignore_errors=True)
            raise
    return target


def _refuse(problems: Iterable[str], remedy: str) -> None:
    if lines := list(problems):
        raise UserError("\n".join([*lines, f"nothing was written; {remedy}"]))


def _refuse_target(target: Path, sources: Sources) -> None:
    if os.path.lexists(target) and (target.is_symlink() or not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} is there already, and no empty folder; name another with --out")
    for source, record in sources.items():
        if source.path.resolve() in target.resolve().parents:
            raise UserError(f"{target} lies in {source.path}, which is not changed; name a folder elsewhere with --out")
        if SCORES in record.files:
            raise UserError(f"{source.path} is a published run, without weights; merge the run that it was made of")


def _differing(sources: Sources) -> Iterator[str]:
    """A line for each field in which a run is not as the first."""
    first, due = next(iter(sources)), dict[str, Any]()
    for source, record in sources.items():
        fields = {name: getattr(record, name) for name in ("inputs", "scoring", "trained")}
        found = conditions(record) | fields | {f"checksum of {TRAINED_ON}": record.files.get(TRAINED_ON)}
        due = due or found
        yield from (_unequal(source, name, found[name], first, due[name]) for name in due if found[name] != due[name])


def _unequal(source: RunFolder, name: str, value: Any, other: RunFolder, due: Any) -> str:
    return f"{source.path}: {name} is {value!r}, but {due!r} in {other.path}"


def _furthest(sources: Sources) -> Cells:
    """Every cell, from the run that got furthest with it; of several, from the first that kept most predictions."""
    cells: dict[tuple[str, int], tuple[RunFolder, CellRecord]] = {}
    for source, record in sources.items():
        for key in dict.fromkeys(record.cells):
            cell = source.cell(*key)
            if key not in cells or _progress(cell) > _progress(cells[key][1]):
                cells[key] = source, cell
    return cells


def _progress(cell: CellRecord) -> tuple[bool, bool, int]:
    return cell.status == DONE, cell.has_weights, cell.predictions_kept


def _conflicts(sources: Sources, cells: Cells) -> Iterator[str]:
    """A line for each cell of which another run has other weights or predictions, and got as far."""
    for (model, seed), (owner, cell) in cells.items():
        for source, record in sources.items():
            other = source.cell(model, seed) if (model, seed) in record.cells else cell
            if other.status == cell.status and cell.has_weights:
                for name in ("weights_sha256", "predicted_by"):
                    if (value := getattr(other, name)) != (due := getattr(cell, name)):
                        yield _unequal(source, f"{model} seed {seed}: {name}", value, owner, due)


def _strangers(sources: Sources, cells: Cells) -> Iterator[str]:
    """A line for each cell that was made otherwise than its model in another run, or on weights that are not there.

    What a run uses as it is, and marks, may be made otherwise: it has a row of its own in the tables.
    """
    ways: dict[str, tuple[RunFolder, list[CellRecord]]] = {}
    for (model, seed), (source, cell) in cells.items():
        if not cell.has_weights:
            continue
        made_from: Mapping[str, Any] = cell.made_from
        for on in (made_from[role] for role in BUILT_ON if role in made_from):
            owner, there = cells.get((on["model"], seed), (source, None))
            if there is None:
                yield f"{source.path}: {model} seed {seed} builds on {on['model']}, of which no run has this seed"
            elif there.weights_sha256 != on["weights"]:
                name = f"{model} seed {seed}: weights_sha256 of its base {on['model']}"
                yield _unequal(source, name, on["weights"], owner, there.weights_sha256)
        if cell_name(model, seed) in sources[source].kept:
            continue
        first, known = ways.setdefault(model, (source, []))
        if first is source:
            known.append(cell)
        elif cell.row not in [other.row for other in known]:
            why = "; ".join(differences(_way(known[0]), _way(cell))) or "a value of another type"
            yield f"{source.path}: {model} seed {seed}, beside seed {known[0].seed} of {first.path}: {why}"


def _way(cell: CellRecord) -> dict[str, Any]:
    """What made a cell, seed aside: the weights of its base go with the seed."""
    fields: dict[str, Any] = {name: value for name, value in cell.made_from.items() if name != "seed"}
    return fields | {role: {**fields[role], "weights": None} for role in BUILT_ON if role in fields}


def _copy(source: RunFolder, record: RunRecord, cells: Cells, target: RunFolder) -> list[Path]:
    """Copy the cells that are taken from a run, and its records. Returns the files that are not what a record says."""
    own = {key: cell for key, (owner, cell) in cells.items() if owner is source}
    kept = {name: why for name, why in record.kept.items() if name in {cell_name(*key) for key in own}}
    # What other protocols made of the predictions of one run is for `colorbench score` to make anew of all.
    whole = {name: checksum for name, checksum in record.files.items() if name != PROTOCOLS}
    files = {name: read_checked(source.path / name, checksum) for name, checksum in whole.items()}
    there = target.record if target.exists() else record
    others = {name: getattr(there, name) | getattr(record, name) for name in ("metrics", "diagnostics")}
    asked = msgspec.structs.replace(record, cells=[*own], kept=kept, files=whole, others=None, **others)
    target.begin(asked, files)
    known = target.timings()
    for model, timing in source.timings().items():
        if model not in known or known[model].failed:
            write_aside(target.path / "timing" / f"{model}.json", encode(timing))
    return [source.cell_dir(*key) / name for key, cell in own.items() for name in _copy_cell(source, cell, target)]


def _copy_cell(source: RunFolder, cell: CellRecord, target: RunFolder) -> list[str]:
    """Copy a cell, or how far its training has got. Returns the names of its damaged files."""
    there, here = (folder.cell_dir(cell.model, cell.seed) for folder in (source, target))
    for name in (*cell.files, TRACEBACK, TRAINING):
        if (there / name).exists():
            here.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(there / name, here / name)
    if (there / CELL).exists():
        write_cell(here, cell)
    return damaged_files(here, cell)
