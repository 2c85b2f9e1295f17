"""Records are input: text that no terminal acts on, types all the way down, nothing too deep, nothing edited."""

import json
import re

import msgspec
import pytest
from conftest import REPOSITORY

from colorbench.errors import CONTROL, UserError
from colorbench.runs.folder import read_cell, write_cell
from colorbench.runs.identity import canonical, differences
from colorbench.runs.records import CellRecord, RunRecord, Timing, checksum_of, decode, encode

HOSTILE = "\ud800 \x1b[31m red\n\x9b2J \u202e tab\t\u2028"
SHA = "0" * 64


def refused(folder):
    """The one line that is said of the cell in this folder."""
    with pytest.raises(UserError) as raised:
        read_cell(folder, "net", 0)
    (line,) = str(raised.value).splitlines()
    assert str(folder / "cell.json") in line
    assert not CONTROL.search(line)
    return line


def sealed(folder, **fields):
    """A cell's record as somebody writes it who knows how its checksum is made."""
    fields = {"checksum": "", "model": "net", "seed": 0, "status": "done"} | fields
    content = json.dumps(fields | {"checksum": checksum_of(fields)})
    (folder / "cell.json").write_text(content)


def test_control_characters_of_others_are_escaped_when_written(tmp_path):
    text = {"reason": HOSTILE, "summary": HOSTILE, "origin": HOSTILE, "notes": [HOSTILE, "plain 写真\u3000"]}
    made = {"options": {HOSTILE: [HOSTILE]}, "stages": [{"fails": HOSTILE}]}
    write_cell(tmp_path, CellRecord(model="net", seed=0, status="failed", made_from=made, **text))
    record = read_cell(tmp_path, "net", 0)
    assert not CONTROL.search((tmp_path / "cell.json").read_text().replace("\n", ""))
    assert record.notes == ["\\ud800 \\x1b[31m red \\x9b2J \\u202e tab  ", "plain 写真\u3000"]
    assert record.reason == record.summary == record.origin == record.notes[0]
    assert canonical(made["options"]["\ud800 \x1b[31m red\n\x9b2J \u202e tab\t\u2028"]) == [record.notes[0]]


@pytest.mark.parametrize("fields", [{"width": float("nan")}, {"parameters": 2**63}, {"anchor": "top"}])
def test_a_record_that_could_not_be_read_again_is_not_written(tmp_path, fields):
    with pytest.raises(UserError, match="what was asked for cannot be recorded"):
        write_cell(tmp_path, CellRecord(model="net", seed=0, status="failed", **fields))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "fields",
    [{"reason": "\x1b[2J"}, {"notes": ["a\nb"]}, {"origin": "\x9b31m"}, {"made_from": {"options": {"\x07": 1}}}],
)
def test_control_characters_of_a_forger_are_refused(tmp_path, fields):
    sealed(tmp_path, **fields)
    assert "control characters" in refused(tmp_path)


@pytest.mark.parametrize("levels", [101, 990, 100_000])
def test_no_record_is_deeper_than_whoever_reads_it_can_go(tmp_path, levels):
    sealed(tmp_path, made_from={"options": {"a": None}})
    text = (tmp_path / "cell.json").read_text()
    (tmp_path / "cell.json").write_text(text.replace("null", "[" * levels + "]" * levels))
    assert "levels" in refused(tmp_path) or "RecursionError" in refused(tmp_path)


@pytest.mark.parametrize(
    "made_from",
    [
        {"base": {"weights": None}},
        {"base": {"model": "../x", "row": "", "weights": None}},
        {"base": "tiny"},
        {"weights": "w.pth"},
        {"weights": {"file": "w.pth", "sha256": 5}},
        {"stages": {"epochs": 1}},
        {"stages": [{"epochs": "many"}]},
        {"stages": [{"epochs": 1, "part": [0]}]},
        {"options": []},
        {"seed": "0"},
    ],
)
def test_what_made_a_cell_is_typed(tmp_path, made_from):
    sealed(tmp_path, made_from=made_from)
    assert "made_from" in refused(tmp_path) or "epochs" in refused(tmp_path) or "part" in refused(tmp_path)


@pytest.mark.parametrize("number", ["parameters", "images_seen", "seconds", "predictions_kept"])
def test_one_number_edited_is_noticed(tmp_path, number):
    write_cell(tmp_path, CellRecord(model="net", seed=0, status="done", **{number: 4}))
    file = tmp_path / "cell.json"
    edited, count = re.subn(rf'("{number}": )4', r"\g<1>5", file.read_text())
    assert count == 1
    file.write_text(edited)
    assert "was changed after it was written" in refused(tmp_path)
    file.write_text(edited.replace(f'"{number}": 5', f'"{number}": 4'))
    assert getattr(read_cell(tmp_path, "net", 0), number) == 4


def test_an_option_is_called_what_it_likes():
    there, here = ({"options": {"table": {"row": 1, "model": model}}} for model in ("a", "b"))
    assert list(differences(there, here)) == ["options.table.model a -> b"]
    base = {"model": "tiny", "row": "0" * 16, "weights": SHA}
    assert list(differences({"base": base}, {"base": base | {"weights": None}})) == ["base tiny: other weights"]
    assert list(differences({"options": {"row": 1}}, {"options": {"row": {"row": 2}}})) == [
        'options.row 1 -> {"row": 2}'
    ]


def test_the_committed_records_can_be_read_and_stay_as_they_are():
    files = [*(REPOSITORY / "results" / "published").rglob("*.json")]
    assert len(files) > 300
    for file in files:
        kind = {"record.json": RunRecord, "cell.json": CellRecord}.get(file.name, Timing)
        record = decode(file, kind)
        written = msgspec.json.decode(encode(record))
        assert {**written, **msgspec.json.decode(file.read_bytes()), "checksum": ""} == written | {"checksum": ""}
