"""A run folder by somebody who knows how checksums are made: tables, or one line; never another exception."""

import io
import os
import random
import warnings

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_folders import IMAGES, FakeRun, npz, published, scores_of

from colorbench import report
from colorbench.errors import CONTROL, UserError
from colorbench.report.files import read_table
from colorbench.runs.folder import DETAILS, LOSSES, SAMPLES, SCORES, SET_SCORES, sha256, to_parquet
from colorbench.runs.records import checksum_of

CASES = int(os.environ.get("COLORBENCH_FORGED_CASES", "30"))
SIDE, PARTS = 64, ("skin", "lips", "eyes", "background")
DEEP = b"[" * 300 + b"]" * 300
HOSTILE = [
    None, True, -1, 0, 1, 2.5, 2**40, 2**63, 10**30, -1e308, 1e308, 5e-324, "", "a|b", "x" * 5000, "\x1b[31m", "a\nb",
    "../x", [], {}, [None], [[]], {"a": 1}, {"row": 1, "model": 2}, {"": None}, msgspec.json.decode(DEEP),
]  # fmt: skip
NAMES = "", "status", "mse_low", "a|b", "\x1b[31m", "share_x", "details.x", "hue2", "share_", "share_lips", "model@x"
NUMBERS = np.nan, np.inf, -np.inf, -1.0, 0.0, 1e300, -1e300, 1e-300
WORDS = "", "$\\frac$", "\x00", "x" * 5000, "\x1b[31m", "plain"
INDEX = {"pandas": '{"index_columns": ["model"], "columns": [], "column_indexes": []}'}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Every file of a run that has all that a report shows, by its path, and the folder."""
    run = FakeRun(tmp_path_factory.mktemp("forged") / "run", ["plain", "fine"])
    rng = np.random.default_rng(0)
    errors = rng.lognormal(5, 0.8, IMAGES)
    names = ["chroma_true", "chroma_predicted", "chroma_true_squared", "chroma_product", "cool_share"]
    names += ["cool_recalled_share", "lip_contrast_true", "lip_contrast_product", "attention_correlation"]
    names += [f"{of}_{part}" for part in PARTS for of in ("squared_error", "share")]
    details = pd.DataFrame({name: rng.uniform(0.1, 0.9, IMAGES) for name in names})

    def cell(model, seed, factor, **fields):
        hue = {"hue": np.linspace(0, 1 + seed, IMAGES)}
        made = run.cell(model, seed, errors * factor, details * factor, scores=hue, width=0.5, **fields)
        shown = rng.integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)
        arrays = {"predicted": shown, "worst": shown, "worst_truth": shown, "worst_mse": np.arange(4.0)}
        arrays |= {"worst_name": np.array(["a.png", "b.png", "c.png", "d.png"])}
        arrays |= {"attention": rng.integers(0, 256, (4, 8, 8), dtype=np.uint8)} if model == "fine" else {}
        run.write(made, {SAMPLES: npz(**arrays)})

    for seed in (0, 1):
        row = {"row": f"{seed}" * 16, "notes": ["a note"], "weights": {"file": "w.pth", "sha256": "5" * 64}}
        cell("plain", seed, 1 + seed, reference=True, published=published(80.0), **(row if seed else {}))
        base = {"model": "plain", "row": "0" * 16, "weights": "1" * 64}
        cell("fine", seed, 0.9, refines="plain", published=published(64.0), base=base, options={"a": {"row": 1}})
        run.losses("fine", seed, {"train": 3}, ("l2",))
    for epochs in (1, 2, 4):
        stages = [{"epochs": epochs, "part": [0.0, 1.0]}]
        cell(f"plain/{epochs}", 0, 1.1, images_seen=epochs * 1000, stages=stages, options={"a": [1]})
        cell(f"fine/{epochs}", 0, 0.8, refines=f"plain/{epochs}", images_seen=10, options={"a": {"row": 1}})
        run.ask((f"plain/{epochs}", 0), (f"fine/{epochs}", 0))
    parts = np.full((4, SIDE, SIDE), PARTS.index("background"), np.uint8)
    parts[:, 20:24, 10:30], parts[:, 40:44, 30:38] = PARTS.index("eyes"), PARTS.index("lips")
    truth = rng.integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)
    names = np.array(["a.png", "b.png", "c.png", "d.png"])
    run.samples()
    content = npz(names=names, truth=truth, grey=truth, parts=parts, part_names=np.array(PARTS))
    (run.folder.path / SAMPLES).write_bytes(content)
    run.record.files[SAMPLES] = sha256(content)
    run.record.kept = {"fine/seed-1": ["options.a 1 -> 2"]}
    run.save()
    run.timing("plain")
    report.write(run.folder)
    assert (run.folder.path / "base-curve.png").exists()
    drawn = {file.name for file in run.folder.path.glob("*.png")}
    assert {"pictures.png", "refined.png", "attention.png", "worst.png", "losses.png"} <= drawn
    written = {".png", ".md", ".csv", ".lock"}
    files = [file for file in run.folder.path.rglob("*") if file.is_file() and file.suffix not in written]
    return run.folder, {file: file.read_bytes() for file in files}


def leaves(tree, path=()):
    """The path to every value in a tree of dicts and lists, the trees in it included."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from leaves(value, (*path, key))


def forged_record(content, rng):
    tree = msgspec.json.decode(content)
    for _ in range(rng.choice((1, 1, 2))):
        path = rng.choice([path for path in leaves(tree) if path != ("checksum",)])
        parent = tree
        for key in path[:-1]:
            parent = parent[key]
        how = rng.choice(("replace", "replace", "replace", "drop", "another", "double"))
        if how == "replace":
            parent[path[-1]] = rng.choice(HOSTILE)
        elif how == "drop":
            parent.pop(path[-1])
        elif isinstance(parent, dict):
            parent[rng.choice(("", "row", "a|b", "model", "checksum!", "\x1b[2J"))] = rng.choice(HOSTILE)
        else:
            parent.append(rng.choice((*HOSTILE, *parent)))
    return sealed(tree)


def sealed(tree):
    return msgspec.json.encode(tree | {"checksum": checksum_of(tree)})


def forged_table(content, rng):
    table = pq.read_table(io.BytesIO(content))
    place, rows = rng.randrange(table.num_columns), table.num_rows
    name, values = table.column_names[place], table[place].to_pylist()
    number, word, other = rng.choice(NUMBERS), rng.choice(WORDS), rng.choice(NAMES)
    columns = [
        pa.array(map(str, values)),
        pa.array(map(str, values)).dictionary_encode(),
        pa.array([None, *values[1:]], table[place].type),
        pa.array([number, *[1.0] * (rows - 1)]),
        pa.array([2**63 + 1] * rows, pa.uint64()),
        pa.array([0] * rows, pa.timestamp("ns")),
        pa.array([1] * rows, pa.decimal128(30)),
        pa.nulls(rows),
    ]
    alike = word, number, np.float16(1), 0, -1, 2**62, True, b"\xff", [1.0], {"a": 1}
    columns += [pa.array([value] * rows) for value in alike]
    changed = [
        table.drop([name]),
        table.rename_columns([*table.column_names[:place], other, *table.column_names[place + 1 :]]),
        table.append_column(name, table[place]),
        table.append_column(other, pa.array([number] * rows)),
        table.slice(0, rows // 2),
        table.slice(0, 0),
        pa.concat_tables([table, table]),
        table.take([*range(rows)][::-1]),
        table.replace_schema_metadata(INDEX),
        *(table.set_column(place, name, column) for column in columns),
    ]
    buffer = io.BytesIO()
    pq.write_table(rng.choice(changed), buffer)
    return buffer.getvalue()


def forged_arrays(content, rng):
    with np.load(io.BytesIO(content)) as archive:
        arrays = dict(archive)
    name, number, word = rng.choice([*arrays]), rng.choice(NUMBERS), rng.choice(WORDS)
    array = arrays.pop(name)
    shape, no_character = array.shape, np.full(array.shape, 0x7FFFFFFF, np.uint32)
    values = number, word, -1, 1j, True, b"x", np.zeros((), [("a", "u1")]), np.datetime64(0, "s")
    shapes = array[:1], array[:0], array[::2], np.concatenate([array] * 3), array.reshape(-1), array.reshape(-1)[0]
    changed = [np.full(shape, value) for value in values] + [*shapes, array[None], array[:, None], array[..., :1]]
    changed += [*arrays.values(), np.full(shape, {}, dtype=object), no_character.view("U1"), array.astype(str), None]
    new = changed[rng.randrange(len(changed))]
    held = arrays if new is None else {**arrays, name: new}
    return npz(**held) if rng.random() < 0.9 else rng.choice((b"", content[:-9], b"\x93NUMPY" + content))


FORGERS = {".json": forged_record, ".parquet": forged_table, ".npz": forged_arrays}


def forge(files, rng):
    """The same files, one of them forged, with the checksums of the records as they have to be."""
    victim = rng.choice([*files])
    forged = {**files, victim: FORGERS[victim.suffix](files[victim], rng)}
    record = victim.with_name("cell.json")
    record = record if record in files else victim.with_name("record.json")
    if victim.suffix != ".json":
        tree = msgspec.json.decode(files[record])
        tree["files"][victim.name] = sha256(forged[victim])
        forged[record] = sealed(tree)
    return victim, forged


def test_a_forged_folder_is_tables_or_one_line(original):
    (folder, files), rng, refused = original, random.Random(0), 0
    for case in range(CASES):
        victim, forged = forge(files, rng)
        for file, content in forged.items():
            file.write_bytes(content)
        try:
            with warnings.catch_warnings(action="error", category=RuntimeWarning):
                said = report.write(folder)
        except UserError as error:
            said, refused = str(error), refused + 1
            lines = len(said.splitlines())
        except Exception as error:
            error.add_note(f"case {case}, {victim.relative_to(folder.path)}")
            raise
        else:
            lines = 1
        assert lines == 1, said
        assert not CONTROL.search(said.replace("\n", "")), said
    assert CASES / 3 < refused < CASES


TABLES = {
    SCORES: scores_of("net", 0, np.linspace(1, 9, 9)).assign(hue=1.0),
    DETAILS: pd.DataFrame({"model": "net", "seed": 0, "image": ["a", "b"], "share_lips": 0.5}),
    LOSSES: pd.DataFrame(
        {"model": "net", "seed": 0, "stage": "s", "epoch": [1, 2], "component": "c", "split": "val", "value": 1.0}
    ),
    SET_SCORES: pd.DataFrame(
        {"model": "net", "seed": 0, "metric": ["fid", "kid"], "value": 1.0, "low": 0.5, "high": np.nan, "images": 9}
    ),
}


@pytest.mark.parametrize(
    ("name", "column", "value"),
    [
        *((SCORES, "mse", value) for value in (-1.0, np.nan, np.inf, 1e300, "1", True, None)),
        *((SCORES, "psnr", value) for value in (np.nan, -np.inf)),
        *((SCORES, "ssim", value) for value in (np.nan, np.inf)),
        *((SCORES, "seed", value) for value in (-1, 0.5, None)),
        *((SCORES, "image", value) for value in (None, 1, b"a")),
        *((SCORES, column, 1.0) for column in ("status", "a b", "mse_low", "", "\x1b[31m")),
        *((DETAILS, "share_lips", value) for value in (np.inf, 1e300, "a", [1.0])),
        *((DETAILS, column, 1.0) for column in ("\x1b[31m", "a\nb")),
        *((LOSSES, "epoch", value) for value in (0, -1, 2**40, 1.5)),
        *((LOSSES, "value", value) for value in (1e300, "a")),
        (LOSSES, "split", "test"),
        *((SET_SCORES, "metric", value) for value in ("mse", "image", "a b", "mse_low", "", "\x1b[31m", None, 1)),
        *((SET_SCORES, "images", value) for value in (0, -1, 1.5, None)),
        *((SET_SCORES, column, "a") for column in ("value", "low", "high")),
    ],
)
def test_what_cannot_have_been_computed_is_refused(tmp_path, name, column, value):
    buffer = io.BytesIO()
    TABLES[name].assign(**{column: [value] * len(TABLES[name])}).to_parquet(buffer, index=False)
    with pytest.raises(UserError) as raised:
        read_table(buffer.getvalue(), tmp_path / name, name)
    assert str(tmp_path / name) in str(raised.value)
    assert not CONTROL.search(str(raised.value))


@pytest.mark.parametrize("name", TABLES)
def test_what_can_have_been_computed_is_read(tmp_path, name):
    changes = {SCORES: {"psnr": np.inf, "hue": np.nan}, DETAILS: {"share_lips": np.nan}, LOSSES: {"value": 3}}
    changes[SET_SCORES] = {"value": np.inf}
    frame = TABLES[name].assign(**changes[name])
    read = read_table(to_parquet(frame), tmp_path / name, name)
    pd.testing.assert_frame_equal(read, frame, check_dtype=False)
    assert set(read.select_dtypes("number").dtypes.map(str)) <= {"float64", "int64"}


def test_losses_that_are_no_numbers_are_left_out(tmp_path):
    frame = TABLES[LOSSES].assign(value=[np.nan, 2.0])
    assert read_table(to_parquet(frame), tmp_path / LOSSES, LOSSES)["epoch"].tolist() == [2]
