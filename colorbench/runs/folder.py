"""One run on disk. Everything is written aside and renamed, so that a kill leaves nothing half-written.

record.json                     what was asked for, on what data, by what code and machine
samples.npz                     the first test images: `names`, `truth`, `grey`, and `parts` where there are masks
trained_on.txt                  the digests of the training images, so that an evaluation can tell what was seen
cells/MODEL/seed-N/cell.json    the outcome of one model and seed
                   scores.csv   a row per test image
                   details.csv  a row per test image: the sums that errors by part and by color are made from
                   losses.csv   a row per stage, epoch, component and split
                   weights.pt   what was trained
                   samples.npz  pictures: the first predictions, their attention maps, the worst predictions
cells/MODEL/seed-N.part/        the same while it is being made: what a killed run leaves behind
                   training.pt  how far its training had got
timing/MODEL.json               throughput and memory
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import pandas as pd

from colorbench.errors import UserError
from colorbench.runs.environment import identity

TRAINING = "training.pt"
DONE, FAILED, SKIPPED, INTERRUPTED, MISSING = "done", "failed", "skipped", "interrupted", "missing"
# What all cells of one folder have in common, and what of it tells one from another.
COMMON = {"protocol": ("id",), "data": ("fingerprint",), "preset": None, "weights": None}


class RunFolder:
    """A run folder, whether it exists yet or not."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def record(self) -> dict[str, Any]:
        """The run record. Raises UserError when the folder holds none."""
        try:
            return json.loads((self.path / "record.json").read_text())
        except FileNotFoundError as error:
            raise UserError(f"{self.path} is no run folder: it has no record.json; name one that a run made") from error
        except json.JSONDecodeError as error:
            raise UserError(
                f"{self.path / 'record.json'} is damaged ({error}); restore it or start another run"
            ) from error

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder and keep every other run out of it. Raises UserError if one is in it, or if
        it cannot be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # An operating-system lock, gone with its process: a killed run leaves none behind.
            lock = filelock.FileLock(self.path / ".lock", blocking=False)
            lock.acquire()
        except filelock.Timeout as error:
            raise UserError(
                f"another run is at work in {self.path}; wait for it, or name another folder with --out"
            ) from error
        except OSError as error:
            raise UserError(f"cannot write to {self.path}: {error.strerror}; name another folder with --out") from error
        try:
            yield
        finally:
            lock.release()

    def begin(
        self, common: Mapping[str, Any], cells: Sequence[tuple[str, int]], command: str, env: dict[str, Any]
    ) -> None:
        """Write the record, or add this command and the cells (model, seed) that it asks for to the one there.

        `common` has the fields of COMMON. Raises UserError naming each field in which the record there differs.
        """
        record: dict[str, Any] = {**common, "models": [], "seeds": [], "cells": [], "commands": [], "environments": {}}
        if (self.path / "record.json").exists():
            record = self.record
            if differing := list(_differences(record, common)):
                raise UserError(
                    f"{self.path} was made under another {'; '.join(differing)}; "
                    "name another folder with --out, or give the options it was made with"
                )
        record["cells"] += [[model, seed] for model, seed in cells if [model, seed] not in record["cells"]]
        record["models"] = list(dict.fromkeys(model for model, _ in record["cells"]))
        record["seeds"] = sorted({seed for _, seed in record["cells"]})
        record["commands"] += [command] if command not in record["commands"] else []
        record["environments"][identity(env)] = env
        write_aside(self.path / "record.json", json.dumps(record, indent=2) + "\n")

    def place(self, model: str, seed: int) -> Path:
        """Where the cell of this model and seed lies once it is finished."""
        return self.path / "cells" / model / f"seed-{seed}"

    def unfinished(self, model: str, seed: int) -> Path:
        """Where the cell of this model and seed is made."""
        place = self.place(model, seed)
        return place.with_name(place.name + ".part")

    def outcome(self, model: str, seed: int) -> dict[str, Any]:
        """The cell's record; for a cell that has none yet, one with the status "missing" or "interrupted"."""
        place = self.place(model, seed)
        if (place / "cell.json").exists():
            return json.loads((place / "cell.json").read_text())
        status = INTERRUPTED if self.unfinished(model, seed).exists() else MISSING
        return {
            "model": model,
            "seed": seed,
            "status": status,
            "reason": f"{status}: run the same command again",
        }

    def outcomes(self) -> list[dict[str, Any]]:
        """The outcome of every model and seed that was asked for, by model in the record's order."""
        record = self.record
        asked = sorted(record["cells"], key=lambda cell: (record["models"].index(cell[0]), cell[1]))
        return [self.outcome(model, seed) for model, seed in asked]

    @contextmanager
    def making(self, model: str, seed: int) -> Iterator[Path]:
        """A folder to make the cell in; it becomes the cell when the block ends without an exception.

        A TRAINING file that an earlier try left in it is still there, and is gone from the finished cell.
        """
        place, aside = self.place(model, seed), self.unfinished(model, seed)
        aside.mkdir(parents=True, exist_ok=True)
        for left in aside.iterdir():
            if left.name != TRAINING:
                left.unlink()
        yield aside
        (aside / TRAINING).unlink(missing_ok=True)
        shutil.rmtree(place, ignore_errors=True)  # a failed try before this one
        aside.rename(place)

    def frame(self, name: str) -> pd.DataFrame:
        """The "scores", "losses" or "details" of all finished cells as one tidy frame, empty if there are none."""
        files = [self.place(o["model"], o["seed"]) / f"{name}.csv" for o in self.outcomes() if o["status"] == DONE]
        # An image may be called "NA": only what is empty is missing.
        frames = [pd.read_csv(file, keep_default_na=False, na_values=[""]) for file in files if file.exists()]
        # A model that trains nothing has a table of headings alone, which would leave the columns without a type.
        full = [frame for frame in frames if len(frame)]
        return pd.concat(full, ignore_index=True) if full else pd.DataFrame()

    def timings(self) -> dict[str, dict[str, Any]]:
        """Throughput by model, as the timing wrote it."""
        folder = self.path / "timing"
        return {
            f.relative_to(folder).with_suffix("").as_posix(): json.loads(f.read_text())
            for f in sorted(folder.rglob("*.json"))
        }


def write_aside(file: Path, content: str | bytes) -> None:
    """Write `content` beside `file`, then rename: a reader sees the old content or the new, never a part."""
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)
        aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    for part, fields in COMMON.items():
        for key in fields or sorted({*there[part], *here[part]}):
            old, new = there[part].get(key), here[part].get(key)
            if old != new:
                yield f"{part}.{key} ({old!r} there, {new!r} here)"
