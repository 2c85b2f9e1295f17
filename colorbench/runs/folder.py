"""One run on disk. Every file is written aside and renamed, and its checksum stands in a record.

record.json                          what was asked for, on what data, by what code and machine
samples.npz                          the first test images: `names`, `truth`, `grey`, and `parts` where there are masks
trained_on.txt                       the digests of the training images: an evaluation can tell what was seen
cells/MODEL/seed-N/cell.json         the outcome of one model and seed, and what made it
                   weights.safetensors  what was trained
                   losses.parquet    a row per stage, epoch, component and split
                   predictions.zip   a PNG per test image; attention.zip: the network's maps, if it has any
                   scores.parquet    a row per test image
                   val_scores.parquet  a row per validation image, of a run that selects by them
                   set_scores.parquet  a row per metric over the whole test set
                   details.parquet   a row per test image: the terms of diagnostics
                   samples.npz       pictures for the figures: the first predictions and the worst
                   training.pt       how far an unfinished training has got
cells/MODEL/seed-N.new/              the same cell made again, until it takes the old one's place
protocols.parquet                    a row per test image of each cell under each protocol that it was scored under, too
timing/MODEL.json                    throughput and memory

A published run has one file of each kind of scores and of losses for all its cells, and neither weights nor
predictions.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock
import msgspec
import pandas as pd

from colorbench.errors import UserError
from colorbench.runs.identity import key_of
from colorbench.runs.predictions import file_sha256
from colorbench.runs.records import (
    INTERRUPTED,
    MISSING,
    CellRecord,
    Environment,
    RunRecord,
    Timing,
    decode,
    encode,
)  # fmt: skip

RECORD, CELL, TRAINING = "record.json", "cell.json", "training.pt"
WEIGHTS, LOSSES, SCORES, DETAILS = "weights.safetensors", "losses.parquet", "scores.parquet", "details.parquet"
SET_SCORES, VAL_SCORES = "set_scores.parquet", "val_scores.parquet"
PREDICTIONS, ATTENTION, SAMPLES, TRAINED_ON = "predictions.zip", "attention.zip", "samples.npz", "trained_on.txt"
TRACEBACK, PROTOCOLS = "traceback.txt", "protocols.parquet"
AGAIN, REPLACED = ".new", ".old"  # endings of the folder in which a cell is made again, and of the one before it
REFUSED = {
    stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}  # fmt: skip
CELL_FILES = (
    CELL, TRAINING, WEIGHTS, LOSSES, SCORES, SET_SCORES, VAL_SCORES, DETAILS, PREDICTIONS, ATTENTION, SAMPLES,
    TRACEBACK,
)  # fmt: skip


class RunFolder:
    """A run folder, whether it exists yet or not. What somebody else made is input: nothing outside it is touched."""

    def __init__(self, path: str | Path) -> None:
        if not isinstance(path, str | os.PathLike):
            raise UserError(f"{type(path).__name__} is not the path of a run folder; give that as text")
        if not str(path):
            raise UserError("the name of the run folder is empty; name a folder")
        self.path = Path(path)

    def exists(self) -> bool:
        return (self.path / RECORD).is_file()

    @property
    def record(self) -> RunRecord:
        """The run record. Raises UserError when the folder holds none, a damaged one, or what no run folder holds."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file; name the folder of a run")
        if not self.exists():
            raise UserError(f"{self.path} is not a run folder: it has no record.json; name one that a run made")
        self.refuse_foreign()
        return decode(self.path / RECORD, RunRecord)

    def refuse_foreign(self) -> None:
        """Raises UserError if the folder holds other things than a run, or anything but files and folders.

        Writing or removing where a link is would reach elsewhere, and reading a pipe would wait for ever.
        """
        names = os.listdir(self.path) if self.path.is_dir() and not self.exists() else []
        if not all(re.fullmatch(r"\.lock|\.record\.json\.\d+", name) for name in names):
            raise UserError(f"{self.path} is not empty, and no run folder; name another folder with --out")
        for folder, folders, files in os.walk(self.path):
            for name in (*folders, *files):
                entry = Path(folder, name)
                with suppress(FileNotFoundError):  # of a run that is at work there
                    if what := REFUSED.get(stat.S_IFMT(entry.lstat().st_mode)):
                        raise UserError(f"{entry} is {what}, which has no place in a run folder; remove or replace it")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder and keep every other run out of it.

        Raises UserError if one is in it, if it cannot be written, or if it holds other things than a run.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.refuse_foreign()
            # An operating-system lock, gone with its process: a killed run leaves none behind.
            lock = filelock.FileLock(self.path / ".lock", blocking=False)
            lock.acquire()
            remove_litter(self.path)
        except filelock.Timeout as error:
            raise UserError(
                f"another run is working in {self.path}; wait for it, or name another folder with --out"
            ) from error
        except OSError as error:
            raise UserError(f"cannot write to {self.path}: {error.strerror}; name another folder with --out") from error
        try:
            yield
        finally:
            lock.release()

    def check(self, asked: RunRecord) -> None:
        """Raises UserError naming each field in which the record there, if any, differs."""
        self.refuse_foreign()
        there, here = conditions(self.record) if self.exists() else {}, conditions(asked)
        if differing := [name for name in there if there[name] != here[name]]:
            told = "; ".join(f"{name} ({there[name]!r} there, {here[name]!r} here)" for name in differing)
            raise UserError(
                f"{self.path} was made under another {told}; "
                "name another folder with --out, or give the options it was made with"
            )

    def begin(self, asked: RunRecord, files: Mapping[str, bytes]) -> None:
        """Write the record, or add what is asked for now to the one there. `files` are written beside it, by name.

        Raises UserError naming each field in which the record there differs.
        """
        self.check(asked)
        record = self.record if self.exists() else asked
        record.cells = list(dict.fromkeys([*record.cells, *asked.cells]))
        record.models = list(dict.fromkeys(model for model, _ in record.cells))
        record.seeds = sorted({seed for _, seed in record.cells})
        record.commands = list(dict.fromkeys([*record.commands, *asked.commands]))
        record.environments |= asked.environments
        record.scoring, record.metrics, record.inputs = asked.scoring, asked.metrics, asked.inputs
        record.validation = asked.validation or record.validation
        record.diagnostics = asked.diagnostics
        now = {cell_name(*cell) for cell in asked.cells}
        record.kept = {name: why for name, why in record.kept.items() if name not in now} | asked.kept
        record.files |= {name: sha256(content) for name, content in files.items()}
        self.write(record)  # first: a folder with other files and no record would be taken for somebody else's
        for name, content in files.items():
            write_aside(self.path / name, content)

    def write(self, record: RunRecord) -> None:
        """Replace the run record."""
        write_aside(self.path / RECORD, encode(record))

    def cell_dir(self, model: str, seed: int) -> Path:
        """Where the cell of this model and seed lies."""
        return self.path / "cells" / model / f"seed-{seed}"

    def again_dir(self, model: str, seed: int) -> Path:
        """Where this cell is made again."""
        return self.path / "cells" / model / f"seed-{seed}{AGAIN}"

    def cell(self, model: str, seed: int) -> CellRecord:
        """The cell's record; for a cell that has none yet, one with the status "missing" or "interrupted".

        Raises UserError if it is damaged, or is that of another model or seed.
        """
        folder = self.cell_dir(model, seed)
        try:
            return read_cell(folder, model, seed)
        except FileNotFoundError:
            status = INTERRUPTED if (folder / TRAINING).exists() else MISSING
            return CellRecord(model=model, seed=seed, status=status, reason=f"{status}: run the same command again")

    def cells(self) -> list[CellRecord]:
        """The records of every model and seed that was asked for, by model in the record's order."""
        record = self.record
        order = {model: i for i, model in enumerate(record.models)}
        cells = dict.fromkeys(record.cells)  # each once, or its images would count twice
        return [self.cell(*cell) for cell in sorted(cells, key=lambda cell: (order.get(cell[0], -1), cell[1]))]

    def read_file(self, cell: CellRecord, name: str) -> bytes | None:
        """A file of the cell, None if it has none of that name. Raises UserError if it is damaged."""
        if name not in cell.files:
            return None
        return read_checked(self.cell_dir(cell.model, cell.seed) / name, cell.files[name])

    def timings(self) -> dict[str, Timing]:
        """Throughput by model, as the timing wrote it."""
        found = [decode(file, Timing) for file in sorted((self.path / "timing").rglob("*.json"))]
        return {timing.model: timing for timing in found}


def cell_name(model: str, seed: int) -> str:
    """What a record calls a cell."""
    return f"{model}/seed-{seed}"


def conditions(record: RunRecord) -> dict[str, Any]:
    """What all cells of a run have in common, by field."""
    preset = {f"preset.{name}": value for name, value in msgspec.structs.asdict(record.preset).items()}
    return {"protocol.id": record.protocol.id, "data.fingerprint": record.data.fingerprint} | preset


def read_cell(folder: Path, model: str, seed: int) -> CellRecord:
    """The record in a cell's folder. Raises FileNotFoundError without one, UserError for one of another cell."""
    record = decode(folder / CELL, CellRecord)
    if (record.model, record.seed) != (model, seed):
        raise UserError(f"{folder / CELL} is the record of {record.model} seed {record.seed}; put it where it belongs")
    return record


def write_cell(folder: Path, record: CellRecord) -> None:
    """Replace the record in a cell's folder: the last of its files, so that it speaks only of what is there."""
    write_aside(folder / CELL, encode(record))


def add_files(folder: Path, record: CellRecord, files: Mapping[str, bytes]) -> None:
    """Write files of a cell and note their checksums in its record, which is not written yet."""
    for name, content in files.items():
        write_aside(folder / name, content)
        record.files[name] = sha256(content)


def damaged_files(folder: Path, record: CellRecord | RunRecord) -> list[str]:
    """The files of a cell or run that are absent, or are not what its record says."""
    bad = []
    for name, checksum in record.files.items():
        try:
            if file_sha256(folder / name) != checksum:
                bad.append(name)
        except OSError:
            bad.append(name)
    return bad


def recover(folder: Path) -> None:
    """End what a killed `promote` has begun."""
    new, old = folder.with_name(folder.name + AGAIN), folder.with_name(folder.name + REPLACED)
    if old.exists() and not folder.exists():
        (new if (new / CELL).exists() else old).rename(folder)
    if old.exists():
        for name in CELL_FILES:
            (old / name).unlink(missing_ok=True)
        for file in old.iterdir():  # somebody else's, which goes along
            target = folder / file.name
            while target.exists():
                target = target.with_name(target.name + REPLACED)
            file.rename(target)
        old.rmdir()


def promote(new: Path) -> Path:
    """Let a cell that was made again take the place of the old one, and remove that. Returns its folder."""
    folder = new.with_suffix("")
    folder.rename(new.with_suffix(REPLACED))
    recover(folder)
    return folder


def remove_litter(folder: Path) -> None:
    """Remove what a killed process was writing aside. Only for whoever holds the run."""
    names = "|".join([*map(re.escape, (TRAINED_ON, PROTOCOLS, *CELL_FILES)), r"[a-z0-9.-]+\.(json|csv|md|png)"])
    for file in (*folder.glob(".*.*"), *folder.glob("timing/**/.*.*")):
        if re.fullmatch(rf"\.({names})\.\d+", file.name):
            file.unlink(missing_ok=True)


def read_checked(file: Path, checksum: str) -> bytes:
    """The content of a file. Raises UserError if it is absent, unreadable, or not what its checksum says."""
    try:
        content = file.read_bytes()
    except FileNotFoundError as error:
        raise UserError(
            f"{file} is absent, though a record names it; restore it, or run the same command again"
        ) from error
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}; make it readable") from error
    if sha256(content) != checksum:
        raise UserError(
            f"{file} is damaged: it is not what was written (its checksum differs); restore it, or run "
            "the same command again"
        )
    return content


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def environment_key(env: Environment) -> str:
    """Eight hexadecimal digits that differ when anything in the environment does."""
    return key_of(msgspec.to_builtins(env))[:8]


def to_parquet(frame: pd.DataFrame) -> bytes:
    """The bytes of a Parquet file, as small as it gets: numbers as float32, which is what networks and scores are
    computed in, and byte by byte; words by reference."""
    frame = frame.astype(dict.fromkeys(frame.select_dtypes("float64"), "float32"))
    numbers = [str(name) for name in frame.select_dtypes("number")]
    buffer = io.BytesIO()
    frame.to_parquet(
        buffer, index=False, compression="zstd", compression_level=19,
        use_dictionary=[str(name) for name in frame if name not in numbers], use_byte_stream_split=numbers,
    )  # fmt: skip
    return buffer.getvalue()


def write_aside(file: Path, content: str | bytes) -> None:
    """Write `content` beside `file`, then rename: a reader sees the old content or the new, never a part."""
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)
        aside.replace(file)
    except OSError as error:
        error.filename = error.filename or str(file)  # a full disk names no file: whoever reads of it asks which disk
        raise
    finally:
        aside.unlink(missing_ok=True)
