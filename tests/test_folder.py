"""The run folder: nothing half-written, nothing mixed, nothing lost."""

import errno
import json
import multiprocessing
from pathlib import Path

import pytest

from colorbench.errors import UserError
from colorbench.runs.environment import environment
from colorbench.runs.folder import RunFolder, write_aside

COMMON = {"protocol": {"id": "p"}, "data": {"fingerprint": "d"}, "preset": {"size": 64, "epochs": 6}, "weights": {}}


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.begin(COMMON, [("a", 0), ("a", 1), ("b/c", 0), ("b/c", 1)], "colorbench run", {"python": "3"})
    return folder


def finish(folder, model, seed, status="done"):
    with folder.making(model, seed) as place:
        record = {"model": model, "seed": seed, "status": status, "reason": None}
        (place / "cell.json").write_text(json.dumps(record))
        (place / "scores.csv").write_text(f"image,model,seed,mse\nx.png,{model},{seed},1.5\n")


def test_every_cell_has_an_outcome(folder):
    finish(folder, "a", 0)
    finish(folder, "b/c", 1, "failed")
    statuses = {(o["model"], o["seed"]): o["status"] for o in folder.outcomes()}
    assert statuses == {("a", 0): "done", ("a", 1): "missing", ("b/c", 0): "missing", ("b/c", 1): "failed"}
    assert folder.frame("scores")[["model", "seed"]].to_numpy().tolist() == [["a", 0]]


def test_a_cell_that_was_killed_is_interrupted_and_can_be_made_again(folder):
    with pytest.raises(KeyboardInterrupt), folder.making("a", 0):
        raise KeyboardInterrupt
    assert folder.outcome("a", 0)["status"] == "interrupted"
    finish(folder, "a", 0)
    assert folder.outcome("a", 0)["status"] == "done"


def test_a_failed_cell_is_replaced(folder):
    finish(folder, "a", 0, "failed")
    finish(folder, "a", 0)
    assert folder.outcome("a", 0)["status"] == "done"


@pytest.mark.parametrize(
    ("part", "changed", "field"),
    [
        ("protocol", {"id": "q"}, r"protocol\.id \('p' there, 'q' here\)"),
        ("data", {"fingerprint": "e"}, r"data\.fingerprint"),
        ("preset", {"size": 64, "epochs": 7}, r"preset\.epochs \(6 there, 7 here\)"),
        ("weights", {"a": {"sha256": "0"}}, r"weights\.a"),
    ],
)
def test_other_conditions_are_refused_with_the_field_that_differs(folder, part, changed, field):
    before = folder.record
    with pytest.raises(UserError, match=field):
        folder.begin(COMMON | {part: changed}, [("a", 0)], "colorbench run", {"python": "3"})
    assert folder.record == before


def test_more_models_and_seeds_join_the_record(folder):
    folder.begin(COMMON, [("d", 2), ("a", 0)], "colorbench run --models d", {"python": "4"})
    record = folder.record
    assert (record["models"], record["seeds"], len(record["environments"])) == (["a", "b/c", "d"], [0, 1, 2], 2)
    asked = {(o["model"], o["seed"]) for o in folder.outcomes()}
    assert asked == {("a", 0), ("a", 1), ("b/c", 0), ("b/c", 1), ("d", 2)}


def _hold(path, held, done):
    with RunFolder(path).held():
        held.set()
        done.wait(20)


def test_a_second_run_at_the_same_time_is_refused(folder):
    context = multiprocessing.get_context("spawn")
    held, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(folder.path, held, done))
    other.start()
    assert held.wait(20)
    with pytest.raises(UserError, match="another run is at work"), folder.held():
        pass
    other.kill()  # a killed run must not lock its folder for ever
    other.join()
    with folder.held():
        pass


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"), RunFolder(tmp_path / "file" / "run").held():
        pass


def test_no_run_folder_and_a_damaged_record_are_refused(tmp_path):
    with pytest.raises(UserError, match="no run folder"):
        _ = RunFolder(tmp_path).record
    (tmp_path / "record.json").write_text('{"half')
    with pytest.raises(UserError, match="damaged"):
        _ = RunFolder(tmp_path).record


def test_writing_aside_leaves_the_old_content_when_it_fails(tmp_path, monkeypatch):
    write_aside(tmp_path / "a.txt", "old")

    def full(file, content):
        file.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_aside(tmp_path / "a.txt", "new")
    assert [f.name for f in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_the_environment_names_code_and_packages():
    env = environment()
    assert env["packages"]["torch"]
    assert len(env["code"]["fingerprint"]) == 12
    assert env["cores"] >= 1
