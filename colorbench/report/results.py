"""All that the report reads, read at once and checked: what follows computes and draws."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from colorbench.errors import UserError
from colorbench.protocol import KEYS, SCORES
from colorbench.runs.folder import DONE, RunFolder

DAMAGED = (ValueError, OSError, zipfile.BadZipFile)  # what the readers of JSON, CSV and .npz raise


@dataclass(frozen=True)
class Results:
    """A run as the report sees it.

    `scores`, `details` and `losses` are the frames of the finished cells, of which some may have no details. `samples`
    holds the arrays of the run's samples.npz, and `pictures` those of each model's first finished seed; both are empty
    if the run kept none. A run of an earlier version lacks some of the arrays.
    """

    record: dict[str, Any]
    outcomes: list[dict[str, Any]]
    scores: pd.DataFrame
    details: pd.DataFrame
    losses: pd.DataFrame
    timings: dict[str, dict[str, Any]]
    samples: dict[str, np.ndarray]
    pictures: dict[str, dict[str, np.ndarray]]

    @property
    def extra(self) -> list[str]:
        """The score columns that came with plugins."""
        return [str(name) for name in self.scores if name not in (*KEYS, *SCORES)]

    def cells(self, model: str, *, done: bool = False) -> list[dict[str, Any]]:
        """The outcomes of a model, by seed; only the finished ones if `done`."""
        return [o for o in self.outcomes if o["model"] == model and (o["status"] == DONE or not done)]


def read(folder: RunFolder) -> Results:
    """Read a run folder. Raises UserError that names the file which is damaged, or lacks what it should hold."""
    try:
        outcomes = folder.outcomes()
        done = [o for o in outcomes if o["status"] == DONE]
        first = {o["model"]: folder.place(o["model"], o["seed"]) for o in reversed(done)}
        samples = _arrays(folder.path / "samples.npz")
        results = Results(
            record=folder.record,
            outcomes=outcomes,
            scores=folder.frame("scores"),
            details=folder.frame("details"),
            losses=folder.frame("losses"),
            timings=folder.timings(),
            samples=samples,
            pictures={model: _arrays(place / "samples.npz") for model, place in first.items()} if samples else {},
        )
    except DAMAGED as error:
        named = "; ".join(_damaged(folder.path)) or str(error)
        raise UserError(f"the run is damaged: {named}; remove what is named and run the same command again") from error
    _refuse_holes(results.scores, done)
    _refuse_strangers(results.record, done)
    _refuse_other_images(results.details, results.scores)
    return results


def _refuse_holes(scores: pd.DataFrame, done: list[dict[str, Any]]) -> None:
    """Raises UserError unless every finished cell has the protocol's scores of the same images in the same order."""
    if done and not {*KEYS, *SCORES} <= {*scores.columns}:
        absent = [name for name in (*KEYS, *SCORES) if name not in scores.columns]
        raise UserError(f"the score tables lack {', '.join(absent)}; they were not made by this version of colorbench")
    images = {key: list(names) for key, names in scores.groupby(["model", "seed"])["image"]} if done else {}
    for outcome in done:
        cell = outcome["model"], outcome["seed"]
        if images.get(cell) is None or images[cell] != next(iter(images.values())):
            raise UserError(
                f"cells/{cell[0]}/seed-{cell[1]} is done, but its scores.csv is absent or has other images than the "
                "other cells; remove that folder and run the same command again"
            )


def _refuse_strangers(record: dict[str, Any], done: list[dict[str, Any]]) -> None:
    """Raises UserError for a cell of an environment that the record does not tell of, say one of another run."""
    for outcome in done:
        if outcome["environment"] not in record["environments"]:
            raise UserError(
                f"cells/{outcome['model']}/seed-{outcome['seed']} was made in environment {outcome['environment']}, "
                "of which this record.json tells nothing; copy that entry from the record of the run it is from, or "
                "remove that folder and run the same command again"
            )


def _refuse_other_images(details: pd.DataFrame, scores: pd.DataFrame) -> None:
    """Raises UserError unless all details are of the images that have scores, in the same order."""
    if details.empty:
        return
    if absent := [name for name in KEYS if name not in details]:
        raise UserError(
            f"the tables of details lack {', '.join(absent)}; they were not made by this version of colorbench"
        )
    images = dict(iter(scores.groupby(["model", "seed"])["image"]))
    for cell, names in details.groupby(["model", "seed"])["image"]:
        if list(names) != list(images.get(cell, ())):
            raise UserError(
                f"cells/{cell[0]}/seed-{cell[1]}: its details.csv has other images than its scores.csv; "
                "remove that folder and run the same command again"
            )


def _arrays(file: Path) -> dict[str, np.ndarray]:
    if not file.exists():
        return {}
    with np.load(file) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _damaged(folder: Path) -> Iterator[str]:
    readers: dict[str, Callable[[Path], Any]] = {
        ".json": lambda file: json.loads(file.read_text()),
        ".csv": pd.read_csv,
        ".npz": _arrays,
    }
    for file in sorted(file for file in folder.rglob("*") if file.parent.suffix != ".part"):
        try:
            readers.get(file.suffix, Path.exists)(file)
        except DAMAGED as error:
            yield f"{file} ({error})"
