"""A run without weights and predictions: what can be committed, and from which the same tables come out."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pandas as pd

from colorbench.errors import UserError
from colorbench.protocol import KEYS
from colorbench.report.files import OF_DETAILS
from colorbench.report.results import Results, read
from colorbench.runs.folder import (
    LOSSES,
    PROTOCOLS,
    SAMPLES,
    SCORES,
    SET_SCORES,
    VAL_SCORES,
    RunFolder,
    sha256,
    to_parquet,
    write_aside,
    write_cell,
)  # fmt: skip
from colorbench.runs.records import DONE, encode


def publish(run: str | Path, target: str | Path, pictures: bool = False) -> RunFolder:
    """Copy the records of a run, and one table each of its scores and details, of its scores over the set and of its
    losses, into an empty folder.

    With `pictures` also the sample pictures, from which figures are drawn: they show images of the data. Raises
    UserError if the run is damaged or the folder cannot be written, or is not empty.
    """
    source, copy = RunFolder(run), RunFolder(target)
    results, record, cells = read(source), source.record, source.cells()
    if copy.path.is_dir() and any(copy.path.iterdir()):
        raise UserError(f"{copy.path} is not empty; name a folder that is, or that does not exist yet")
    files = {name: to_parquet(frame) for name, frame in _tables(results).items() if not frame.empty}
    if pictures and SAMPLES in record.files:
        files[SAMPLES] = (source.path / SAMPLES).read_bytes()
    with copy.held():
        for cell, outcome in zip(cells, results.outcomes, strict=True):
            folder, kept = copy.cell_dir(cell.model, cell.seed), {}
            first = outcome.status == DONE and outcome is results.cells(outcome.model, done=True)[0]
            if pictures and first and (content := source.read_file(cell, SAMPLES)) is not None:
                write_aside(folder / SAMPLES, content)
                kept = {SAMPLES: cell.files[SAMPLES]}
            write_cell(folder, msgspec.structs.replace(cell, files=kept, predictions_kept=0))
        for timing in results.timings.values():
            write_aside(copy.path / "timing" / f"{timing.model}.json", encode(timing))
        for name, content in files.items():
            write_aside(copy.path / name, content)
        record.files = {name: sha256(content) for name, content in files.items()}
        copy.write(record)
    return copy


def _tables(results: Results) -> dict[str, pd.DataFrame]:
    scores, details = results.scores, results.details
    if not details.empty:
        own = {name: f"{OF_DETAILS}{name}" for name in map(str, details) if name not in KEYS}
        scores = scores.merge(details.rename(columns=own), on=[*KEYS], how="left", validate="1:1")
    frames = {
        SCORES: scores, SET_SCORES: results.set_scores, VAL_SCORES: results.val_scores,
        LOSSES: results.losses, PROTOCOLS: results.protocols,
    }  # fmt: skip
    # Rows "net@1a2b3c4d" are told apart by the cells' records.
    return {name: f if f.empty else f.assign(model=f["model"].str.partition("@")[0]) for name, f in frames.items()}
