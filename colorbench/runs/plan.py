"""What a run has to do: which cells are done, stale, unfinished or missing, in order of dependency."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec

from colorbench.contract import ModelSpec
from colorbench.errors import UserError
from colorbench.runs.context import Context
from colorbench.runs.fields import code_to_predict, training_fields
from colorbench.runs.folder import AGAIN, TRAINING, WEIGHTS, damaged_files, environment_key, read_cell
from colorbench.runs.identity import differences, key_of, predictions_key
from colorbench.runs.records import FAILED, CellRecord, MadeFrom

READY, KEPT, UNSCORED, STALE, RESUMABLE, TO_DO = "done", "kept", "to be scored", "stale", "resumable", "missing"


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
        lines = [f"{cell.spec.name} seed {cell.seed}: {'; '.join(cell.why)}" for cell in stale]
        names = ",".join(dict.fromkeys(cell.spec.name for cell in stale))
        sound = ",".join(dict.fromkeys(cell.spec.name for cell in stale if cell.record.has_weights))
        uses = f", --keep {sound} uses as it is" if sound else ""
        raise UserError("\n".join([*lines, f"nothing was touched; --again {names} trains again{uses}"]))


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
    if there.predicted_with and not why:  # by code that was another, and may be so no more
        now = code_to_predict(context.folder, there, context.registry)
        there = msgspec.structs.replace(there, predicted_with=now)
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
