"""All that the report reads, read at once and checked: what follows computes and draws."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from colorbench.errors import UserError, one_line
from colorbench.protocol import KEYS, SCORES
from colorbench.report.files import CELL_ARRAYS, OF_DETAILS, RUN_ARRAYS, read_arrays, read_table
from colorbench.runs.folder import (
    DETAILS,
    LOSSES,
    PROTOCOLS,
    SAMPLES,
    SET_SCORES,
    VAL_SCORES,
    RunFolder,
    cell_name,
    read_checked,
)  # fmt: skip
from colorbench.runs.folder import SCORES as SCORES_FILE
from colorbench.runs.identity import key_of, predictions_key
from colorbench.runs.records import DONE, TRAINED, CellRecord, RunRecord, Timing

SHORT_KEY = 8  # digits that tell the rows of one model apart

Rows = Mapping[tuple[str, int], str]  # the row of each cell (model, seed)


@dataclass(frozen=True)
class Results:
    """A run as the report sees it.

    `models` are its rows: the models, and of one whose seeds were not all made alike one for each way, "net@1a2b3c4d".
    That is what a cell is called, and what it refines, in all that follows.
    `kept` says by row how what is used as it is differs from what would be made now. `scores`, `details` and `losses`
    are the frames of the finished cells, of which some may have no details; `set_scores` has a row per cell and metric
    over the set; `val_scores` are those of the validation images, where there are any; `protocols` has the scores under
    several protocols, a column, of the cells that are still what they were then. `samples` holds the arrays of the
    run's samples.npz, and `pictures` those of each row's first finished
    seed; both are empty if the run kept none. `timings` are by row.
    """

    record: RunRecord
    models: Sequence[str]
    outcomes: Sequence[CellRecord]
    kept: Mapping[str, Sequence[str]]
    scores: pd.DataFrame
    details: pd.DataFrame
    losses: pd.DataFrame
    protocols: pd.DataFrame
    timings: Mapping[str, Timing]
    samples: Mapping[str, np.ndarray]
    pictures: Mapping[str, Mapping[str, np.ndarray]]
    set_scores: pd.DataFrame = field(default_factory=pd.DataFrame)
    val_scores: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def extra(self) -> list[str]:
        """The score columns that came with plugins."""
        return [str(name) for name in self.scores if name not in (*KEYS, *SCORES)]

    @property
    def over_set(self) -> list[str]:
        """The scores over the set, which came with plugins as well."""
        return [] if self.set_scores.empty else list(dict.fromkeys(self.set_scores["metric"]))

    @property
    def gives_inputs(self) -> bool:
        """Whether a model could have more than L, or had it."""
        return bool(self.record.protocol.settings.get("hints")) or any(cell.given for cell in self.outcomes)

    def cells(self, model: str, *, done: bool = False) -> list[CellRecord]:
        """The cells of a row, by seed; only the finished ones if `done`."""
        return [cell for cell in self.outcomes if cell.model == model and (cell.status == DONE or not done)]


def read(folder: RunFolder) -> Results:
    """Read a run folder. Raises UserError that names the file which is damaged, or lacks what it should hold."""
    record, timings = folder.record, folder.timings()
    cells = [_as_scored(record, cell) for cell in folder.cells()]
    if not cells:
        raise UserError(f"{folder.path} names no model, so that there is nothing to report; run one into it")
    done, rows = [cell for cell in cells if cell.status == DONE], _rows(cells)
    _refuse_strangers(record, done, timings)
    scores, details, losses, set_scores = (
        _table(folder, record, done, rows, name) for name in (SCORES_FILE, DETAILS, LOSSES, SET_SCORES)
    )
    then = record.others.cells if record.others else {}
    same = [cell for cell in done if then.get(cell_name(cell.model, cell.seed)) == (cell.predicted_by, cell.scored_by)]
    try:
        protocols = _table(folder, record, same, rows, PROTOCOLS)
    except UserError as error:  # no other command makes this one again
        verb = "evaluate` with --vary" if record.others and record.others.varied else "score` with --protocol"
        raise UserError(f"{error}; `colorbench {verb} makes it again") from error
    validated = [cell for cell in done if cell.validated_by == predictions_key(cell, record.validation or "")]
    val_scores = _table(folder, record, validated, rows, VAL_SCORES)
    samples, pictures = _pictures(folder, record, {rows[cell.model, cell.seed]: cell for cell in reversed(done)})
    outcomes = [
        msgspec.structs.replace(
            cell, model=rows[cell.model, cell.seed], refines=rows.get((cell.refines or "", cell.seed), cell.refines)
        )
        for cell in cells
    ]
    _refuse_holes(scores, [cell for cell in outcomes if cell.status == DONE])
    for what, table in (("details", details), *_by_protocol(protocols)):
        _refuse_other_images(what, table, scores)
    _refuse_doubles(set_scores, scores)
    models, kept = list(dict.fromkeys(rows.values())), _kept(record, done, rows)
    timings = dict(_rows_timed(timings.values(), done, rows))
    return Results(
        record, models, outcomes, kept, scores, details, losses, protocols, timings, samples, pictures, set_scores,
        val_scores,
    )  # fmt: skip


def _as_scored(record: RunRecord, cell: CellRecord) -> CellRecord:
    """The cell, or the same as not done if its scores are of other images, or by other code, than this folder's."""
    if cell.status != DONE:
        return cell
    if record.inputs and cell.predicted_by != predictions_key(cell, record.inputs):
        why = "predicted from other images, or by other code: run the same command again"
    elif cell.scored_by != record.scoring:
        why = "scored by other code or metrics: run the same command again, or colorbench score"
    else:
        return cell
    return msgspec.structs.replace(cell, status=TRAINED, reason=why)


def _rows(cells: Sequence[CellRecord]) -> Rows:
    """The row of the tables that each cell belongs to: what was made in two ways is never averaged."""
    ways: dict[str, set[str]] = {}
    for cell in cells:
        if cell.status == DONE:
            ways.setdefault(cell.model, set()).add(_way(cell))
    rows = {}
    for cell in cells:
        keys = ways.get(cell.model, set())
        digits = SHORT_KEY if len({key[:SHORT_KEY] for key in keys}) == len(keys) else None
        split = len(keys) > 1 and cell.status == DONE
        rows[cell.model, cell.seed] = f"{cell.model}@{_way(cell)[:digits] or 'older'}" if split else cell.model
    return rows


def _way(cell: CellRecord) -> str:
    """How a cell was made: its row, and the code that predicted if that is not the code that trained."""
    return key_of([cell.row, cell.predicted_with]) if cell.predicted_with else cell.row


def _rows_timed(timings: Iterable[Timing], done: Sequence[CellRecord], rows: Rows) -> Iterator[tuple[str, Timing]]:
    """Each timing under the row that was timed; one that does not say which under the model's name."""
    for timing in timings:
        if timing.row is msgspec.UNSET:
            yield timing.model, timing
        for cell in done:
            if (cell.model, cell.row) == (timing.model, timing.row):
                yield rows[cell.model, cell.seed], timing


def _kept(record: RunRecord, done: Sequence[CellRecord], rows: Rows) -> dict[str, list[str]]:
    """By row, how the cells that are used as they are differ from what would be made now."""
    kept: dict[str, list[str]] = {}
    weights = {(cell.model, cell.seed): cell.weights_sha256 for cell in done}
    for cell in done:
        reasons = record.kept.get(f"{cell.model}/seed-{cell.seed}", [])
        base = cell.made_from.get("base", {}).get("weights")
        if base and weights.get((cell.refines or "", cell.seed), base) != base:
            reasons = [*reasons, f"its base {cell.refines} has been trained again since"]
        if cell.predicted_with and not reasons:
            reasons = ["its predictions are by other code than its training"]
        for why in reasons:
            kept.setdefault(rows[cell.model, cell.seed], []).append(one_line(why))
    return {row: list(dict.fromkeys(why)) for row, why in kept.items()}


def _table(folder: RunFolder, record: RunRecord, cells: Sequence[CellRecord], rows: Rows, name: str) -> pd.DataFrame:
    """One tidy frame of the finished cells, in which `model` is the row; empty if none has such a table.

    A published run has one file for all cells, in which details stand beside the scores.
    """
    source = folder.path / (SCORES_FILE if name == DETAILS else name)
    if source.name in record.files:
        frames = [_part(read_table(read_checked(source, record.files[source.name]), source, source.name), name)]
    else:
        files = {folder.cell_dir(cell.model, cell.seed) / name: cell.files.get(name) for cell in cells}
        frames = [read_table(read_checked(file, checksum), file, name) for file, checksum in files.items() if checksum]
    if not (frames := [frame for frame in frames if len(frame)]):
        return pd.DataFrame()
    frame = pd.concat(frames, ignore_index=True)
    row = {(cell.model, cell.seed): rows[cell.model, cell.seed] for cell in cells}
    frame["model"] = [row.get(key) for key in zip(frame["model"], frame["seed"], strict=True)]
    return frame[frame["model"].notna()].reset_index(drop=True)


def _part(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """Of a published table the scores alone, or the details alone."""
    details = [str(column) for column in frame if str(column).startswith(OF_DETAILS)]
    if name != DETAILS:
        return frame.drop(columns=details)
    own = frame[[*KEYS, *details]].dropna(subset=details, how="all") if details else frame[:0]
    return own.rename(columns=lambda column: column.removeprefix(OF_DETAILS))


def _refuse_holes(scores: pd.DataFrame, done: Sequence[CellRecord]) -> None:
    """Raises UserError unless every finished cell has scores of the same images in the same order."""
    images = {} if scores.empty else {key: list(of) for key, of in scores.groupby(["model", "seed"])["image"]}
    for cell in done:
        names = images.get((cell.model, cell.seed))
        if names is None or names != next(iter(images.values())):
            raise UserError(
                f"{cell.model} seed {cell.seed} is done, but its scores are absent or of other images than those of "
                f"the other cells; restore them, or run with --again {cell.model.partition('@')[0]}"
            )


def _refuse_strangers(record: RunRecord, done: Sequence[CellRecord], timings: Mapping[str, Timing]) -> None:
    """Raises UserError for a cell or timing of an environment that the record does not tell of, say of another run."""
    made_in = {f"cells/{cell.model}/seed-{cell.seed}": cell.environment for cell in done}
    made_in |= {f"timing/{model}.json": timing.environment for model, timing in timings.items()}
    for name, environment in made_in.items():
        if environment not in record.environments:
            raise UserError(
                f"{name} was made in environment {environment}, of which this record.json tells nothing; it is from "
                "another run: put it back there"
            )


def _by_protocol(protocols: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for name, rows in protocols.groupby("protocol") if len(protocols) else ():
        yield f"scores under protocol {one_line(str(name))}", rows


def _refuse_other_images(what: str, table: pd.DataFrame, scores: pd.DataFrame) -> None:
    """Raises UserError unless all rows of a table are of the images that have scores, in the same order."""
    if table.empty:
        return
    images = dict(iter(scores.groupby(["model", "seed"])["image"]))
    for (model, seed), names in table.groupby(["model", "seed"])["image"]:
        if list(names) != list(images.get((model, seed), ())):
            raise UserError(f"{model} seed {seed}: its {what} are of other images than its scores; restore them")


def _refuse_doubles(set_scores: pd.DataFrame, scores: pd.DataFrame) -> None:
    """Raises UserError unless each score over the set stands once, and is no score per image."""
    if set_scores.empty:
        return
    if double := sorted({*set_scores["metric"]} & {*scores}):
        raise UserError(f"{', '.join(double)}: scores per image and over the set at once; restore {SET_SCORES}")
    if set_scores.duplicated(["model", "seed", "metric"]).any():
        raise UserError(f"{SET_SCORES} has a score of one model and seed more than once; restore it")


def _pictures(
    folder: RunFolder, record: RunRecord, cells: Mapping[str, CellRecord]
) -> tuple[dict[str, np.ndarray], dict[str, dict[str, np.ndarray]]]:
    """The arrays of the run, and by row those of its cell; none if the run kept none."""
    if SAMPLES not in record.files:
        return {}, {}
    file, sizes = folder.path / SAMPLES, dict[Any, int]()
    samples = read_arrays(read_checked(file, record.files[SAMPLES]), file, RUN_ARRAYS, sizes)
    pictures = {}
    for row, cell in cells.items():
        if (content := folder.read_file(cell, SAMPLES)) is not None:
            file, lengths = folder.cell_dir(cell.model, cell.seed) / SAMPLES, {"size": sizes["size"]}
            pictures[row] = read_arrays(content, file, CELL_ARRAYS, lengths)
    return samples, pictures
