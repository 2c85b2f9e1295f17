"""The tables and pictures of a run folder, which anybody may have made: what is not of the declared form is refused.

What follows relies on it and checks nothing again.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from colorbench.errors import CONTROL, UserError, reason
from colorbench.protocol import KEYS, SCORES
from colorbench.runs.folder import DETAILS, LOSSES, PROTOCOLS, SET_SCORES, VAL_SCORES
from colorbench.runs.folder import SCORES as SCORES_FILE
from colorbench.specs import is_metric_name

OF_DETAILS = "details."  # how the columns of details begin in the scores of a published run
REQUIRED = {
    SCORES_FILE: (*KEYS, *SCORES),
    VAL_SCORES: (*KEYS, *SCORES),
    DETAILS: KEYS,
    PROTOCOLS: (*KEYS, "protocol", *SCORES),
    LOSSES: ("model", "seed", "stage", "epoch", "component", "split", "value"),
    SET_SCORES: ("model", "seed", "metric", "value", "low", "high", "images"),
}
WORDS = ("model", "image", "stage", "component", "split", "metric", "protocol")
LARGEST = float(np.finfo(np.float32).max)
WHOLE = ("seed", "epoch", "images")
RANGES = {
    "seed": (0, 2**63),
    "epoch": (1, 2**31),
    "images": (1, 2**31),
    "mse": (0, LARGEST),
    "psnr": (-LARGEST, np.inf),
}
# A small file can claim to hold any number of values.
MOST_VALUES, MOST_BYTES, MOST_PICTURES, LONGEST_NAME = 2**28, 2**30, 256, 4096

# By array its type and its lengths, of which those with one name are equal. A file has all arrays of a group or none,
# and those of the first.
Groups = Sequence[Mapping[str, tuple[Any, ...]]]
RUN_ARRAYS: Groups = (
    {"truth": (np.uint8, "images", "size", "size", 3), "grey": (np.uint8, "images", "size", "size", 3)},
    {"parts": (np.uint8, "images", "size", "size"), "part_names": (np.str_, "parts")},
)
CELL_ARRAYS: Groups = (
    {"predicted": (np.uint8, "predicted", "size", "size", 3)},
    {"attention": (np.uint8, "predicted", "height", "width")},
    {
        "worst": (np.uint8, "worst", "size", "size", 3),
        "worst_truth": (np.uint8, "worst", "size", "size", 3),
        "worst_mse": (np.floating, "worst"),
        "worst_name": (np.str_, "worst"),
    },
)


def read_table(content: bytes, file: Path, name: str) -> pd.DataFrame:
    """The table in a Parquet file, numbers as float64, but for losses that are none. `name` is a key of REQUIRED.

    Raises UserError naming `file` and what is wrong with it.
    """
    try:
        parquet = pq.ParquetFile(io.BytesIO(content))
        if parquet.metadata.num_rows * parquet.metadata.num_columns > MOST_VALUES:
            raise ValueError(f"{parquet.metadata.num_rows} rows")
        table = parquet.read().replace_schema_metadata(None)  # which can make a column an index
        if not table.num_rows:
            return pd.DataFrame()
        if len({*table.column_names}) < table.num_columns:
            raise ValueError("with two columns of one name")
        if absent := [column for column in REQUIRED[name] if column not in table.column_names]:
            raise ValueError(f"without {', '.join(absent)}")
        if wrong := [f"{column.type} in {column.name}" for column in table.schema if not _is_due(column, name)]:
            raise ValueError(f"with {', '.join(wrong)}")
        frame = table.to_pandas()
        frame = frame.astype({column: "float64" for column in frame if column not in (*WORDS, *WHOLE)})
        frame = frame[np.isfinite(frame["value"])] if name == LOSSES else frame
        if wrong := [str(column) for column in frame if not _is_sound(frame[column], name)]:
            raise ValueError(f"with values in {', '.join(wrong)} that cannot be")
    except Exception as error:  # of what is no Parquet file, pyarrow and pandas raise all kinds
        raise UserError(
            f"{file} is not a Parquet file of this version of colorbench ({reason(error)}); restore it"
        ) from error
    return frame


def _is_due(column: pa.Field, table: str) -> bool:
    """Whether a table may have a column of this name and type."""
    kind, types = column.type, pa.types
    if column.name in WORDS:
        return types.is_string(kind) or types.is_large_string(kind)
    if column.name in WHOLE:
        return types.is_integer(kind)
    known = column.name in REQUIRED[table] or column.name.startswith(OF_DETAILS)
    named = known or table != SCORES_FILE or is_metric_name(column.name)
    return (types.is_floating(kind) or types.is_integer(kind)) and named and not CONTROL.search(column.name)


def _is_sound(values: pd.Series, table: str) -> bool:
    """Whether a column holds what can have been computed: NaN of details alone, anything of a plugin's metric."""
    column = str(values.name)
    if column in WORDS:
        known = {"split": ("train", "val"), "metric": list(filter(is_metric_name, set(values) - {*SCORES, *KEYS}))}
        return bool(values.notna().all() and (column not in known or values.isin(known[column]).all()))
    required = column in REQUIRED[table]
    if not required and table == SCORES_FILE and not column.startswith(OF_DETAILS):
        return True
    if table == SET_SCORES and column in ("value", "low", "high"):
        return True
    low, high = RANGES.get(column, (-LARGEST, LARGEST))
    return bool((values.between(low, high) | (values.isna() & (not required))).all())


def read_arrays(content: bytes, file: Path, groups: Groups, lengths: dict[Any, int]) -> dict[str, np.ndarray]:
    """The arrays of `groups` in an .npz file. Adds to `lengths`, by name, what it lacks.

    Raises UserError naming `file` and what is wrong with it.
    """
    try:
        with np.load(io.BytesIO(content)) as archive:
            if sum(member.file_size for member in archive.zip.infolist()) > MOST_BYTES:
                raise ValueError(f"more than {MOST_BYTES} bytes")
            held = [group for group in groups if group is groups[0] or not group.keys().isdisjoint(archive.files)]
            arrays = {name: archive[name] for group in held for name in group}
        for name, (kind, *due) in (item for group in held for item in group.items()):
            if not _fits(arrays[name], kind, due, lengths):
                raise ValueError(f"{name} is {arrays[name].dtype} {arrays[name].shape}")
    except Exception as error:  # of what is no .npz file, numpy, zipfile and zlib raise all kinds
        raise UserError(f"{file} is not an .npz file of a run's pictures ({reason(error)}); restore it") from error
    return arrays


def _fits(array: np.ndarray, kind: type, due: Sequence[Any], lengths: dict[Any, int]) -> bool:
    """Whether an array is of the type and the lengths that are due. Raises ValueError for text that is none."""
    if not np.issubdtype(array.dtype, kind) or array.ndim != len(due) or not array.size:
        return False
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return False
    if array.dtype.kind == "U" and max(map(len, array.tolist())) > LONGEST_NAME:
        return False
    given = zip(due, array.shape, strict=True)
    same = all((lengths.setdefault(name, n) if isinstance(name, str) else name) == n for name, n in given)
    return same and len(array) <= MOST_PICTURES
