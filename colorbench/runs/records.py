"""The records of a run as types: whatever is no seed, name, hash or status of ours is refused when it is read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from colorbench.contract import MODEL_NAME
from colorbench.errors import UserError, reason

DONE, TRAINED, FAILED, SKIPPED = "done", "trained", "failed", "skipped"
INTERRUPTED, MISSING = "interrupted", "missing"  # of a cell without a record

Name = Annotated[str, Meta(pattern=rf"^{MODEL_NAME}\Z")]
Status = Annotated[str, Meta(pattern=rf"^({'|'.join((DONE, TRAINED, FAILED, SKIPPED, INTERRUPTED, MISSING))})\Z")]
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Count = Annotated[int, Meta(ge=0)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Key = Annotated[str, Meta(pattern=r"^[0-9a-f]{0,16}\Z")]
File = Annotated[str, Meta(pattern=r"^[a-z_]+\.(safetensors|parquet|zip|npz|txt)\Z")]


class Record(Struct, kw_only=True, forbid_unknown_fields=True):
    """`checksum` is the SHA-256 of all the other fields: a record edited by hand is refused."""

    checksum: str = ""


class Published(Struct, forbid_unknown_fields=True):
    source: str
    mse: float | None = None
    psnr: float | None = None
    ssim: float | None = None
    note: str = ""


class CellRecord(Record, kw_only=True):
    """One model and seed.

    `made_from` has the fields that the weights depend on and `key` is its hash; `row` is the same without the seed:
    what is averaged over seeds has one `row`. `files` has the checksum of each file of the cell. `predicted_by` and
    `scored_by` are the keys of its predictions and of what scored them; "" if there are none, or if the cell is older
    than keys.
    """

    model: Name
    seed: Seed
    status: Status
    reason: str | None = None
    summary: str = ""
    origin: str = ""
    made_from: dict[str, Any] = {}
    key: Key = ""
    row: Key = ""
    refines: Name | None = None
    trained_as: Name | None = None
    parent: Name | None = None
    reference: bool = False
    published: Published | None = None
    environment: Key = ""
    width: float = 0.0
    seconds: float = 0.0
    images_seen: Count = 0
    parameters: Count = 0
    notes: list[str] = []
    weights_sha256: Sha256 | None = None
    predicted_by: Key = ""
    predictions_kept: Count = 0
    scored_by: Key = ""
    files: dict[File, Sha256] = {}

    @property
    def options(self) -> Any:
        return self.made_from.get("options", {})

    @property
    def stages(self) -> list[dict[str, Any]]:
        return self.made_from.get("stages", [])

    @property
    def base(self) -> dict[str, Any]:
        return self.made_from.get("base") or {}

    @property
    def published_weights(self) -> dict[str, str] | None:
        """`file` and `sha256` of the weight file that stood in for a training."""
        return self.made_from.get("weights")

    @property
    def has_weights(self) -> bool:
        return self.status in (DONE, TRAINED)


class Split(Struct, forbid_unknown_fields=True, omit_defaults=True):
    images: Count
    near_grey: Count
    unreadable: dict[str, str]
    also_in_train: Count | None = None


class DataRecord(Struct, forbid_unknown_fields=True):
    """`source` is the data as the command named it."""

    name: str
    fingerprint: str
    splits: dict[str, Split]
    source: str = ""


class ProtocolRecord(Struct, forbid_unknown_fields=True):
    id: str
    name: str
    settings: dict[str, str | int | float | bool] = {}


class PresetRecord(Struct, forbid_unknown_fields=True):
    name: str
    size: Annotated[int, Meta(ge=1)]
    width: Annotated[float, Meta(gt=0)]
    batch_size: Annotated[int, Meta(ge=1)]
    epochs: Annotated[int, Meta(ge=1)]
    train: int | None = None
    val: int | None = None
    test: int | None = None


class Code(Struct, forbid_unknown_fields=True):
    fingerprint: str
    commit: str | None
    dirty: bool | None


class Environment(Struct, forbid_unknown_fields=True, kw_only=True):
    python: str
    system: str
    packages: dict[str, str | None]
    cpu: str
    cores: int | None
    memory_gib: int | None
    code: Code
    device: str
    accelerators: list[str]
    precision: str
    processes: int
    threads: int | None = None


class Trained(Struct, forbid_unknown_fields=True):
    """The run that the weights of an evaluation are from; `seen` of the images were trained on there."""

    run: str
    name: str
    fingerprint: str
    seen: Count


class RunRecord(Record, kw_only=True):
    """What a run was asked for, on what data, by what code and machine.

    `inputs` is the key of what the predictions are made from, `scoring` that of what scores them: a cell predicted
    from, or scored by, anything else stays out of the tables. `kept` has, by cell ("NAME/seed-0"), the fields in which
    a cell that is used as it is differs from what would be made now.
    """

    format: Literal[2] = 2
    protocol: ProtocolRecord
    data: DataRecord
    preset: PresetRecord
    trained: Trained | None = None
    models: list[Name] = []
    seeds: list[Seed] = []
    cells: list[tuple[Name, Seed]] = []
    commands: list[str] = []
    environments: dict[Key, Environment] = {}
    inputs: Key = ""
    scoring: Key = ""
    kept: dict[str, list[str]] = {}
    files: dict[File, Sha256] = {}


class Rate(Struct, forbid_unknown_fields=True):
    median: Annotated[float, Meta(gt=0)]
    iqr: float
    rounds: Count


class Timing(Record, kw_only=True):
    """Seconds of an inference or a training step at batch 1 and `batch`; `failed` is why there are none.

    `row` is that of the cell that was timed; those that are older than rows have none.
    """

    model: Name
    environment: Key
    batch: Count
    failed: str | None = None
    infer_1: Rate | None = None
    infer_n: Rate | None = None
    step_1: Rate | None = None
    step_n: Rate | None = None
    macs: Count | None = None
    peak_memory_mib: float | None = None
    peak_memory_of: str | None = None
    row: Key | msgspec.UnsetType = msgspec.UNSET


R = TypeVar("R", bound=Record)


def encode(record: Record) -> bytes:
    """The record as indented JSON, under a fresh checksum."""
    record.checksum = ""
    record.checksum = _checksum(msgspec.json.encode(record))
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"


def decode(file: Path, kind: type[R]) -> R:
    """Read a record. Raises UserError naming the file and what is wrong with it, FileNotFoundError if it is absent."""
    try:
        content = file.read_bytes()
        record = msgspec.json.decode(content, type=kind)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}; make it readable") from error
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise UserError(f"{file} is damaged, or no record of this version ({reason(error)}); restore it") from error
    if record.checksum != _checksum(content):
        raise UserError(f"{file} was changed after it was written (its checksum differs); restore it")
    return record


def _checksum(content: bytes) -> str:
    """Of the fields as they stand in the file: a field that later versions add changes no record that is there."""
    return hashlib.sha256(msgspec.json.encode(msgspec.json.decode(content) | {"checksum": ""})).hexdigest()
