"""What made a result, as fields that can be compared one by one, and keys: hashes of such fields."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from colorbench.contract import Stage
from colorbench.runs.records import CellRecord

# The code that moves the weights, the predictions and the scores, beside that of the plugins.
TRAINING_CODE = (
    "color.py", "data/decode.py", "data/loader.py", "data/sources.py", "harness/networks.py", "harness/stepper.py",
    "harness/trainer.py", "seeds.py",
)  # fmt: skip
PREDICTION_CODE = ("color.py", "harness/predict.py")
SCORING_CODE = ("color.py", "harness/scoring.py", "metrics")
CURVE = 32  # places at which a decay of the learning rate is sampled


def key_of(fields: Any) -> str:
    """16 hexadecimal digits of the SHA-256 of `fields`, which JSON can hold."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def predictions_key(record: CellRecord, inputs: str) -> str:
    """The key of the predictions that the weights of a cell give."""
    return key_of([record.weights_sha256, record.key, inputs])


def differences(there: Any, here: Any, name: str = "") -> Iterator[str]:
    """Each field in which two trees of dicts and lists differ: "stages[0].learning_rate 0.001 -> 0.1"."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        if "row" in there and "row" in here:  # what a cell builds on
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
            yield f"{name} {_shown(there)} -> {_shown(here)}"


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def canonical(value: Any) -> Any:
    """An option or a stage's field as JSON can hold it; a file by its name and content."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str | Path):
        # A word such as "none" is no file, even if one of that name lies in the working directory.
        named = isinstance(value, Path) or "/" in value or "." in value
        if named and (file := Path(value)).is_file():
            return {"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): canonical(item) for key, item in value.items()}
    if isinstance(value, Sequence | set | frozenset):
        return [canonical(item) for item in (sorted(value, key=repr) if isinstance(value, set | frozenset) else value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return canonical({f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
    return _name_of(value) if callable(value) else repr(value)


def stage_fields(stage: Stage) -> dict[str, Any]:
    """A stage as the record keeps it. Its decay counts by its values: a partial or a lambda has no name to go by."""
    fields = {field.name: canonical(getattr(stage, field.name)) for field in dataclasses.fields(stage)}
    values = [float(f"{stage.decay(i / CURVE):.9g}") for i in range(CURVE)]
    return fields | {"decay": f"{_name_of(stage.decay)} {key_of(values)[:8]}"}


def _name_of(function: Callable[..., Any]) -> str:
    function = getattr(function, "func", function)  # of a functools.partial
    return str(getattr(function, "__name__", type(function).__name__))
