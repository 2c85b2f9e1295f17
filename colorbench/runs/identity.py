"""What made a result, as fields that can be compared one by one, and keys: hashes of such fields."""

from __future__ import annotations

import copyreg
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from math import isfinite
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import msgspec
import numpy as np

from colorbench.contract import ModelSpec, Stage
from colorbench.errors import UserError, reason, whatever_raised, without_control
from colorbench.runs.predictions import file_sha256
from colorbench.runs.records import CellRecord, cleaned, refuse_hostile

# The code that moves the weights, the predictions and the scores, beside that of the plugins.
TRAINING_CODE = (
    "color.py", "data/decode.py", "data/loader.py", "data/sources.py", "harness/networks.py", "harness/optimizers.py",
    "harness/stepper.py", "harness/trainer.py", "hints.py", "seeds.py",
)  # fmt: skip
PREDICTION_CODE = ("color.py", "harness/predict.py", "hints.py")
ELSEWHERE_CODE = ("data/decode.py", "data/sources.py", "harness/elsewhere.py")
SCORING_CODE = ("color.py", "harness/scoring.py", "metrics")
CURVE = 32  # places at which a decay of the learning rate is sampled
MOST_FILES, LARGEST_FOLDER = 100_000, 64 << 30  # bytes; of what an option names
COUNTS = (1_000, 60_000)  # of training images, for which the choice of a stage is sampled


def key_of(fields: Any) -> str:
    """16 hexadecimal digits of the SHA-256 of `fields`, which JSON can hold."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def predictions_key(record: CellRecord, inputs: str) -> str:
    """The key of the predictions that the weights of a cell give, by the code that the record names."""
    return key_of([record.weights_sha256, record.key, inputs, *filter(None, [record.predicted_with])])


def differences(there: Any, here: Any, name: str = "") -> Iterator[str]:
    """Each field in which two trees of dicts and lists differ: "stages[0].learning_rate 0.001 -> 0.1"."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        if name in ("base", "trained_as"):  # what a cell builds on
            if there != here:
                yield f"{name} {here['model']}: other weights"
            return
        for key in dict.fromkeys([*there, *here]):
            yield from differences(there.get(key), here.get(key), f"{name}.{key}" if name else str(key))
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for i, (old, new) in enumerate(zip(there, here, strict=True)):
            yield from differences(old, new, f"{name}[{i}]")
    elif there != here:
        if name.startswith("code."):
            yield f"code of {name.removeprefix('code.')}"
        else:
            yield f"{name} {shown(there)} -> {shown(here)}"


def shown(value: Any) -> str:
    """A recorded value in a few words."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def option_fields(spec: ModelSpec) -> dict[str, Any]:
    """The options of a model as the record keeps them. Raises UserError for one that cannot be told from another."""
    return {name: recordable(f"{spec.name}.{name}", value) for name, value in spec.option_values.items()}


def recordable(name: str, value: Any) -> Any:
    """`canonical(value)`. Raises UserError, which names the option, for what no record could hold and give back."""
    try:
        found = canonical(value)
        if msgspec.json.decode(msgspec.json.encode(found)) != found:
            raise ValueError("a number is too large")
        refuse_deep(found)
    except whatever_raised() as error:  # whatever a plugin's own objects raise
        raise UserError(
            f"option {name} cannot be compared from run to run ({reason(error)}); "
            "give plain values, paths, arrays, functions, or objects that can be pickled"
        ) from error
    return found


def canonical(value: Any) -> Any:
    """An option or a stage's field as JSON can hold it, the same in every process.

    A file or folder counts by name and content, an array by its numbers, a function by its name and the values it
    holds, since its code counts with its plugin, any other object by what pickle keeps of it. Raises the TypeError of
    what cannot be pickled, and the OSError of a file that cannot be read.
    """
    if value is None or type(value) in (bool, int):
        return value
    if type(value) is float:
        return value if isfinite(value) else str(value)
    if type(value) is str or isinstance(value, Path):
        return _word_or_path(value)
    if isinstance(value, Mapping):
        if all(type(key) is str for key in value):
            return {key: canonical(item) for key, item in value.items()}
        return sorted(([canonical(key), canonical(item)] for key, item in value.items()), key=json.dumps)
    if isinstance(value, set | frozenset):
        return sorted(map(canonical, value), key=json.dumps)
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if isinstance(value, type | ModuleType):
        return value.__name__
    return _state_of(value)


def _state_of(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return canonical({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if isinstance(value, bytes | bytearray):
        return {"bytes": len(value), "sha256": hashlib.sha256(value).hexdigest()}
    if isinstance(value, FunctionType):
        held = [cell.cell_contents for cell in value.__closure__ or ()], value.__defaults__, value.__kwdefaults__
        return [_name_of(value), *canonical(held)] if any(held) else _name_of(value)
    if hasattr(value, "dtype") and hasattr(value, "tolist"):  # an array or tensor, or a scalar of theirs
        numbers = canonical(value.tolist())
        if not isinstance(numbers, list):
            return numbers
        return {"dtype": str(value.dtype), "shape": [*value.shape], "values": key_of(numbers)}
    reduced = copyreg.dispatch_table.get(type(value), lambda value: value.__reduce_ex__(4))(value)  # type: ignore[no-untyped-call]
    if isinstance(reduced, str):  # a name, as of a built-in function
        return reduced
    return [canonical(list(part) if isinstance(part, Iterator) else part) for part in reduced]


def _word_or_path(value: str | Path) -> Any:
    # A word such as "none" is no file, even if one of that name lies in the working directory.
    named = isinstance(value, Path) or "/" in value or "." in value
    if named and os.path.isfile(value):  # False, too, for what is too long for a name
        return {"file": Path(value).name, "sha256": _content(Path(value))}
    if isinstance(value, Path) and os.path.isdir(value):
        return {"folder": value.name, "content": key_of(_contents(value))}
    return without_control(str(value))  # as a record can hold it


def _contents(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file under a folder. Raises ValueError for more than can be read in minutes."""
    files, total = list[Path](), 0
    for file in filter(Path.is_file, folder.rglob("*")):
        files.append(file)
        total += file.stat().st_size
        if len(files) > MOST_FILES or total > LARGEST_FOLDER:
            most = f"{MOST_FILES:,} files or {LARGEST_FOLDER >> 30} GiB"
            raise ValueError(f"the folder {folder} holds more than {most}; name a smaller one")
    return {str(file.relative_to(folder)): _content(file) for file in files}


def _content(file: Path) -> str:
    if (status := file.stat()).st_size > LARGEST_FOLDER:
        raise ValueError(f"{file} has more than {LARGEST_FOLDER >> 30} GiB; name a smaller one")
    return _hashed(file.resolve(), status.st_size, status.st_mtime_ns)


@cache  # since a plan asks for each model and seed, and weights may have half a gigabyte
def _hashed(file: Path, size: int, changed: int) -> str:
    # What the kernel invents has no size, and may never end.
    return file_sha256(file) if size else hashlib.sha256().hexdigest()


def stage_fields(stage: Stage) -> dict[str, Any]:
    """A stage as the record keeps it. Its functions count by their values: a partial or a lambda has no name to go by.

    Raises ValueError for one that calls for more levels than a record may have, and whatever its functions raise.
    """
    fields = {field.name: getattr(stage, field.name) for field in dataclasses.fields(stage)}
    values = [float(f"{stage.decay(i / CURVE):.9g}") for i in range(CURVE)]
    fields["decay"] = f"{_name_of(stage.decay)} {key_of(values)[:8]}"
    if callable(stage.images):
        try:
            asked = [(epoch, count) for epoch in (1, 2, stage.epochs) for count in COUNTS]
            chosen = b"".join(np.asarray(stage.images(*of), np.int64).tobytes() for of in asked)
            share = len(stage.images(1, COUNTS[-1])) / COUNTS[-1]
        except whatever_raised() as error:
            why = f"stage {stage.name!r}: images fails ({reason(error)})"
            raise ValueError(f"{why}; let it return a list or array of indices for any epoch and count") from error
        name = f"{_name_of(stage.images)} {hashlib.sha256(chosen).hexdigest()[:8]}"
        fields["images"] = {"function": name, "share": float(f"{share:.3g}")}
    found: dict[str, Any] = canonical(fields)
    refuse_deep(found)
    return found


def refuse_deep(value: Any) -> None:
    """Raises ValueError for what has more levels than a record may have, in which it is three deep."""
    refuse_hostile(cleaned(value), level=3)


def _name_of(function: Callable[..., Any]) -> str:
    function = getattr(function, "func", function)  # of a functools.partial
    return str(getattr(function, "__name__", type(function).__name__))
