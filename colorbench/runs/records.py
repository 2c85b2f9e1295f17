"""The records of a run as types: whatever is no seed, name, hash or status of ours is refused when it is read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, TypeVar

import msgspec
from msgspec import Meta, Struct

from colorbench.contract import DIAGNOSTIC_NAME, Published
from colorbench.errors import CONTROL, UserError, reason, without_control
from colorbench.protocol import Protocol
from colorbench.specs import Name

DONE, TRAINED, FAILED, SKIPPED = "done", "trained", "failed", "skipped"
INTERRUPTED, MISSING = "interrupted", "missing"  # of a cell without a record
LARGEST = 2**63 - 1  # of the integers in the tables
DEEPEST = 100  # levels of a record: more would exhaust the stack of whoever walks through it

DiagnosticName = Annotated[str, Meta(pattern=rf"^{DIAGNOSTIC_NAME}\Z")]
Status = Annotated[str, Meta(pattern=rf"^({'|'.join((DONE, TRAINED, FAILED, SKIPPED, INTERRUPTED, MISSING))})\Z")]
Seed = Annotated[int, Meta(ge=0, le=LARGEST)]
Count = Annotated[int, Meta(ge=0, le=LARGEST)]
PositiveInt = Annotated[int, Meta(ge=1, le=LARGEST)]
PositiveFloat = Annotated[float, Meta(gt=0)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Key = Annotated[str, Meta(pattern=r"^[0-9a-f]{0,16}\Z")]
File = Annotated[str, Meta(pattern=r"^[a-z_]+\.(safetensors|parquet|zip|npz|txt)\Z")]


class Record(Struct, kw_only=True, forbid_unknown_fields=True):
    """`checksum` is the SHA-256 of all the other fields: a record edited by hand is refused."""

    checksum: str = ""


class WeightFile(TypedDict):
    """The weight file that stood in for a training, or that one began with."""

    file: str
    sha256: Sha256


class BuiltOn(TypedDict):
    """Another cell that a cell builds on: its row, and its weights, None or in words if they are to be made."""

    model: Name
    row: Key
    weights: str | None


class MadeFrom(TypedDict, total=False):
    """What the weights of a cell depend on. A stage is what the plugin made it, even one that cannot be trained."""

    seed: Seed
    options: dict[str, Any]
    stages: list[dict[str, Any]]
    code: dict[str, str]
    preset: dict[str, int | float]
    data: dict[str, str]
    input: str
    weights: WeightFile
    initial: WeightFile
    pictures: dict[str, str] | str
    base: BuiltOn
    trained_as: BuiltOn


class Chosen(Struct):
    """The images that a function of a stage chooses, as a share of all."""

    share: float = 1.0


class Leg(Struct):
    """What is read of a stage. Earlier versions named a part of the images, from one share to another, or none."""

    epochs: Count = 0
    part: tuple[float, float] = (0.0, 1.0)
    images: Chosen | Count | None = None

    @property
    def share(self) -> float:
        """Of the training images, those that an epoch could see; a limit on their number is left out."""
        return self.images.share if isinstance(self.images, Chosen) else self.part[1] - self.part[0]


class CellRecord(Record, kw_only=True):
    """One model and seed. What may be UNSET is left out of the record then.

    `options_given` are the options that the command gave, by name, and `sweep` is the one of which the row has one of
    several values. `validated_by` is the key of its scores on the validation images.
    `trained_on` is the data that published weights were trained on; it is unset if the cell was trained here.
    `made_from` has the fields that the weights depend on and `key` is its hash; `row` is the same without the seed:
    what is averaged over seeds has one `row`. `files` has the checksum of each file of the cell. `predicted_by` and
    `scored_by` are the keys of its predictions and of what scored them; "" if there are none, or if the cell is
    older than keys. `predicted_with` is the code of plugins that predicted, if not the code that trained. `given`
    names what the model was given beside L for its predictions. `failed_diagnostics` has the reason of each that
    failed on them.
    """

    model: Name
    seed: Seed
    status: Status
    reason: str | None = None
    summary: str = ""
    origin: str = ""
    made_from: MadeFrom = {}
    key: Key = ""
    row: Key = ""
    refines: Name | None = None
    trained_as: Name | None = None
    parent: Name | None = None
    reference: bool = False
    anchor: Literal["", "floor", "bound"] = ""
    sees_truth: bool = False
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
    given: list[str] = []
    failed_diagnostics: dict[str, str] = {}
    files: dict[File, Sha256] = {}
    options_given: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    sweep: str | msgspec.UnsetType = msgspec.UNSET
    validated_by: Key | msgspec.UnsetType = msgspec.UNSET
    predicted_with: Key | msgspec.UnsetType = msgspec.UNSET
    trained_on: str | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        if self.has_weights:
            legs(self.made_from)

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


class ProtocolRecord(Struct, forbid_unknown_fields=True, omit_defaults=True):
    id: str
    name: str
    settings: dict[str, str | int | float | bool] = {}
    summary: str = ""
    source: str = ""


class OtherProtocols(Struct, forbid_unknown_fields=True):
    """What protocols.parquet holds: under which protocols the cells ("NAME/seed-0") were scored, by what a cell was
    then: its `predicted_by` and `scored_by`. Protocols that differ from the first in the field `varied` alone are a
    series, for which the networks were asked again, by the plugins' code of the key `code`."""

    protocols: list[ProtocolRecord]
    cells: dict[str, tuple[Key, Key]]
    varied: str | msgspec.UnsetType = msgspec.UNSET
    code: Key | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        if self.varied and not all(self.varied in protocol.settings for protocol in self.protocols):
            raise ValueError(f"a protocol of the series has no {self.varied}")


class PresetRecord(Struct, forbid_unknown_fields=True):
    name: str
    size: PositiveInt
    width: PositiveFloat
    batch_size: PositiveInt
    epochs: PositiveInt
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


class MetricRecord(Struct, forbid_unknown_fields=True):
    """A metric of a plugin, as the report has to know it. `left_out` is why there are no scores."""

    summary: str
    over: Literal["image", "set"] = "image"
    better: Literal["lower", "higher", "zero", ""] = ""
    settings: dict[str, Any] = {}
    notes: list[str] = []
    left_out: str = ""


class RunRecord(Record, kw_only=True):
    """What a run was asked for, on what data, by what code and machine.

    `inputs` is the key of what the predictions are made from, `scoring` that of what scores them: a cell predicted
    from, or scored by, anything else stays out of the tables. `validation`, left out without such scores, is the key
    of what the scores on the validation images are made from and by. `metrics` are those of plugins, by name;
    `diagnostics` has the summary of each. `kept` has, by cell ("NAME/seed-0"), the fields in which a cell that is used
    as it is differs from what would be made now.
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
    metrics: dict[str, MetricRecord] = {}
    diagnostics: dict[DiagnosticName, str] = {}
    kept: dict[str, list[str]] = {}
    others: OtherProtocols | None = None
    files: dict[File, Sha256] = {}
    validation: Key | msgspec.UnsetType = msgspec.UNSET


class Rate(Struct, forbid_unknown_fields=True):
    median: PositiveFloat
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


def protocol_record(protocol: Protocol) -> ProtocolRecord:
    """The protocol as records keep it."""
    return ProtocolRecord(protocol.id, protocol.name, protocol.settings, protocol.summary, protocol.source)


def protocol_of(record: ProtocolRecord) -> Protocol:
    """The protocol that a record keeps. Raises UserError if it is none of this version."""
    try:
        protocol = Protocol(record.name, record.summary, record.source, **record.settings)  # type: ignore[arg-type]
    except TypeError as error:
        raise UserError(
            f"protocol {record.name} has other fields ({reason(error)}); use the version that made the run"
        ) from error
    if protocol.id != record.id:
        raise UserError(
            f"protocol {record.name} ({record.id}) is {protocol.id} here; use the version that made the run"
        )
    return protocol


def legs(made_from: MadeFrom) -> list[Leg]:
    """The stages of a cell. Raises ValueError for those of no training."""
    return msgspec.convert(made_from.get("stages", []), list[Leg])


def encode(record: Record) -> bytes:
    """The record as indented JSON under a fresh checksum, its texts without control characters.

    Raises UserError for one that `decode` would refuse: it would lock its owner out.
    """
    tree = cleaned(msgspec.to_builtins(record))
    record.checksum = tree["checksum"] = checksum_of(tree)
    content = msgspec.json.encode(tree)
    try:
        _parsed(content, type(record))
    except (ValueError, RecursionError) as error:
        raise UserError(f"what was asked for cannot be recorded ({reason(error)}); ask for something else") from error
    return msgspec.json.format(content, indent=2) + b"\n"


def decode(file: Path, kind: type[R]) -> R:
    """Read a record. Raises UserError naming the file and what is wrong with it, FileNotFoundError if it is absent."""
    try:
        tree, record = _parsed(file.read_bytes(), kind)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}; make it readable") from error
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise UserError(f"{file} is damaged, or not a record of this version ({reason(error)}); restore it") from error
    if record.checksum != checksum_of(tree):
        raise UserError(f"{file} was changed after it was written (its checksum differs); restore it")
    return record


def _parsed(content: bytes, kind: type[R]) -> tuple[dict[str, Any], R]:
    """The fields as they stand there, and the record. Raises ValueError, or RecursionError, for what is none."""
    tree = msgspec.json.decode(content, type=dict[str, Any])
    refuse_hostile(tree)
    return tree, msgspec.convert(tree, type=kind)


def checksum_of(tree: dict[str, Any]) -> str:
    """Of the fields as they stand in the file: a field that later versions add changes no record that is there."""
    return hashlib.sha256(msgspec.json.encode(tree | {"checksum": ""})).hexdigest()


def cleaned(value: Any) -> Any:
    """The same tree with the text of plugins, files and exceptions as `refuse_hostile` lets it pass."""
    if isinstance(value, str):
        return without_control(value)
    if isinstance(value, dict):
        return {cleaned(key): cleaned(item) for key, item in value.items()}
    return [cleaned(item) for item in value] if isinstance(value, list) else value


def refuse_hostile(value: Any, level: int = 0) -> None:
    """Raises ValueError for text that a terminal would act on, and for a tree of too many levels."""
    if level > DEEPEST:
        raise ValueError(f"more than {DEEPEST} levels")
    if isinstance(value, str) and CONTROL.search(value):
        raise ValueError(f"control characters in {value[:60]!r}")
    for item in (*value, *value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ():
        refuse_hostile(item, level + 1)
