"""The run folder: nothing half-written, nothing mixed, nothing lost; and one that somebody else made is input."""

import errno
import json
import multiprocessing
import os
import shutil
import socket
from pathlib import Path

import msgspec
import pandas as pd
import pytest
from conftest import call, contents, one_line

from colorbench.errors import UserError
from colorbench.runs import folder as folder_module
from colorbench.runs.environment import environment
from colorbench.runs.folder import RunFolder, environment_key, promote, recover, write_aside, write_cell
from colorbench.runs.records import (
    CellRecord,
    DataRecord,
    PresetRecord,
    ProtocolRecord,
    RunRecord,
    Split,
    decode,
    encode,
)

DEVICE = {"device": "cpu", "accelerators": [], "precision": "no", "processes": 1, "threads": 1}
CELLS = [("a", 0), ("a", 1), ("b/c", 0), ("b/c", 1)]


@pytest.fixture(scope="module")
def machine():
    return environment((), DEVICE)


@pytest.fixture
def asked(machine):
    return RunRecord(
        protocol=ProtocolRecord("p", "a protocol"),
        data=DataRecord("photos", "d", {"test": Split(1, 0, {})}),
        preset=PresetRecord("smoke", 64, 1.0, 8, 6),
        cells=list(CELLS),
        commands=["colorbench run"],
        environments={environment_key(machine): machine},
    )


@pytest.fixture
def folder(tmp_path, asked):
    folder = RunFolder(tmp_path / "run")
    folder.begin(asked, {"trained_on.txt": b"digest\n"})
    return folder


def finish(folder, model, seed, status="done"):
    write_cell(folder.cell_dir(model, seed), CellRecord(model=model, seed=seed, status=status))


def test_every_cell_has_an_outcome(folder):
    finish(folder, "a", 0)
    finish(folder, "b/c", 1, "failed")
    (folder.cell_dir("a", 1)).mkdir(parents=True)
    (folder.cell_dir("a", 1) / "training.pt").touch()
    statuses = {(cell.model, cell.seed): cell.status for cell in folder.cells()}
    assert statuses == {("a", 0): "done", ("a", 1): "interrupted", ("b/c", 0): "missing", ("b/c", 1): "failed"}


@pytest.mark.parametrize(
    ("part", "changed", "field"),
    [
        ("protocol", ProtocolRecord("q", "a protocol"), r"protocol\.id \('p' there, 'q' here\)"),
        ("data", DataRecord("photos", "e", {}), r"data\.fingerprint"),
        ("preset", PresetRecord("smoke", 64, 1.0, 8, 7), r"preset\.epochs \(6 there, 7 here\)"),
    ],
)
def test_other_conditions_are_refused_with_the_field_that_differs(folder, asked, part, changed, field):
    before = contents(folder.path)
    with pytest.raises(UserError, match=field):
        folder.begin(msgspec.structs.replace(asked, cells=[("a", 0)], **{part: changed}), {})
    assert contents(folder.path) == before


def test_more_models_and_seeds_join_the_record(folder, asked, machine):
    other = msgspec.structs.replace(machine, python="4")
    more = {"commands": ["colorbench run --models d"], "environments": {environment_key(other): other}}
    folder.begin(msgspec.structs.replace(asked, cells=[("d", 2), ("a", 0)], **more), {})
    record = folder.record
    assert (record.models, record.seeds, len(record.environments)) == (["a", "b/c", "d"], [0, 1, 2], 2)
    assert record.cells == [*CELLS, ("d", 2)]
    assert record.commands == ["colorbench run", "colorbench run --models d"]


def test_a_kill_while_a_run_begins_costs_nothing(tmp_path, asked, monkeypatch):
    """At each write in turn: what is left is taken for a run of ours, and the same command goes on."""
    for nth in range(4):
        run, count = RunFolder(tmp_path / f"run{nth}"), 0

        def write(file, content, nth=nth):
            nonlocal count
            count += 1
            if count > nth:
                file.with_name(f".{file.name}.123").write_bytes(b"half")
                raise KeyboardInterrupt
            write_aside(file, content)

        with run.held(), monkeypatch.context() as patched:
            patched.setattr(folder_module, "write_aside", write)
            if nth < 2:
                with pytest.raises(KeyboardInterrupt):
                    run.begin(asked, {"trained_on.txt": b"digest\n"})
        with run.held():
            run.begin(asked, {"trained_on.txt": b"digest\n"})
        assert run.record.cells == CELLS


def test_a_kill_while_a_cell_takes_the_place_of_another_loses_neither(tmp_path, monkeypatch):
    for nth in range(4):
        old, new = tmp_path / f"{nth}/seed-0", tmp_path / f"{nth}/seed-0.new"
        write_cell(old, CellRecord(model="a", seed=0, status="done", reason="old"))
        write_cell(new, CellRecord(model="a", seed=0, status="done", reason="new"))
        count = 0

        def rename(path, target, nth=nth, real=Path.rename):
            nonlocal count
            count += 1
            if count > nth:
                raise KeyboardInterrupt
            return real(path, target)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", rename)
            if nth < 2:
                with pytest.raises(KeyboardInterrupt):
                    promote(new)
            else:
                promote(new)
        recover(old)
        assert decode(old / "cell.json", CellRecord).reason == ("old" if nth == 0 else "new")
        assert not old.with_name("seed-0.old").exists()


def test_what_somebody_else_put_into_a_cell_goes_along_when_it_is_made_again(tmp_path):
    old, new = tmp_path / "seed-0", tmp_path / "seed-0.new"
    write_cell(old, CellRecord(model="a", seed=0, status="done", reason="0"))
    (old / "notes.txt").write_text("0")
    (old / "figures").mkdir()
    (old / "figures" / "one.png").write_text("0")
    for nth in ("1", "2", "3"):
        write_cell(new, CellRecord(model="a", seed=0, status="done", reason=nth))
        (new / "notes.txt").write_text(nth)
        promote(new)
        assert decode(old / "cell.json", CellRecord).reason == nth
    assert [file.name for file in tmp_path.iterdir()] == ["seed-0"]
    assert sorted(file.read_text() for file in old.rglob("notes.txt*")) == ["0", "1", "2", "3"]
    assert (old / "figures" / "one.png").read_text() == "0"


def test_what_a_killed_command_was_writing_is_removed_and_nothing_else(folder):
    ours = ["record.json", "trained_on.txt", "samples.npz", "comparison.csv", "details.md", "base-curve.png"]
    ours += ["timing/grey.json", "timing/enhanced-unet/no-prior.json"]
    litter = [(folder.path / name).with_name(f".{Path(name).name}.123") for name in ours]
    theirs = [folder.path / name for name in (".notes.txt.123", ".comparison.csv", "comparison.csv.123", ".a.csv.x")]
    theirs += [folder.path / "evaluations" / "other" / ".comparison.csv.123"]
    for file in (*litter, *theirs):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("half")
    with folder.held():
        pass
    assert not any(file.exists() for file in litter)
    assert all(file.exists() for file in theirs)


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
    with pytest.raises(UserError, match="another run is working"), folder.held():
        pass
    other.kill()  # a killed run must not lock its folder for ever
    other.join()
    with folder.held():
        pass


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"), RunFolder(tmp_path / "file" / "run").held():
        pass


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not a run folder"),
        (b'{"half', "damaged"),
        (b"", "damaged"),
        (b"\xff\xfe", "damaged"),
        (b"[" * 100_000, "damaged"),
        (b'{"name": "another tool", "version": 3}', "damaged, or not a record of this version"),
        (b"[1, 2]", "damaged, or not a record of this version"),
    ],
)
def test_no_run_folder_and_a_record_that_is_none_are_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "record.json").write_bytes(content)
    for arguments in (("report", tmp_path), ("evaluate", tmp_path, "--data", "portraits"), ("score", tmp_path)):
        result = call(*arguments)
        assert result.exit_code == 2
        assert message in one_line(result)
        assert len(result.stderr.splitlines()) == 1


def test_writing_aside_leaves_the_old_content_when_it_fails(tmp_path, monkeypatch):
    write_aside(tmp_path / "a.txt", "old")

    def full(file, content):
        file.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left") as raised:
        write_aside(tmp_path / "a.txt", "new")
    assert raised.value.filename == str(tmp_path / "a.txt")  # or nobody knew which disk is full
    assert [f.name for f in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_the_environment_names_code_and_packages(machine):
    assert machine.packages["torch"]
    assert len(machine.code.fingerprint) == 12
    assert machine.cores >= 1


# A folder that somebody else gave, or that was edited: each is one line, and nothing outside of it is touched.


@pytest.fixture
def victim(tmp_path):
    """A folder beside the run, as one would lose it."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "thesis.txt").write_text("years of work")
    (tmp_path / "victim" / "cell.json").write_text("{}")
    return tmp_path / "victim"


def refused(bench, *words, touched=()):
    """`report` and `run` each say all `words` in one line; no file changes but those of the report."""
    before = contents(bench.folder)
    for result in (call("report", bench.run), bench("tiny,on-tiny")):
        assert result.exit_code == 2, result.stderr
        assert "Traceback" not in result.stderr
        assert all(word in result.stderr for word in words), result.stderr
    after = contents(bench.folder)
    assert {name for name in before | after if before.get(name) != after.get(name)} <= set(touched)
    return result.stderr


def resealed(file, **changes):
    """Change the fields of a record as somebody would who knows how its checksum is made."""
    tree = json.loads(file.read_text()) | changes | {"checksum": ""}
    for kind in (RunRecord, CellRecord):
        try:
            file.write_bytes(encode(msgspec.convert(tree, kind)))
            return
        except msgspec.ValidationError:
            pass
    file.write_text(json.dumps(tree))


@pytest.mark.parametrize("seed", ["x/../../victim", "../../../victim", -1, 1.5, 2**70, None])
def test_a_seed_that_leads_elsewhere_is_refused(bench, victim, seed):
    cell = bench.cell() / "cell.json"
    resealed(cell, seed=seed)
    refused(bench, str(cell), "damaged")


@pytest.mark.parametrize("cells", [[["tiny", "x/../../victim"]], [["../../victim", 0]], [["/victim", 0]], [["tiny"]]])
def test_a_cell_that_leads_elsewhere_is_refused(bench, victim, cells):
    resealed(bench.run / "record.json", cells=cells)
    refused(bench, "record.json", "damaged")


@pytest.mark.parametrize(
    "files", [{"../../victim/thesis.txt": "0" * 64}, {"/etc/passwd": "0" * 64}, {"a.exe": "0" * 64}]
)
def test_a_file_that_leads_elsewhere_is_refused(bench, victim, files):
    resealed(bench.cell() / "cell.json", files=files)
    refused(bench, "cell.json", "damaged")


@pytest.mark.parametrize(
    "name",
    [
        "cells/tiny/seed-0",
        "cells/tiny/seed-0.new",
        "cells/tiny",
        "cells",
        "record.json",
        "samples.npz",
        "cells/tiny/seed-0/weights.safetensors",
        "timing",
    ],
)
def test_a_link_is_refused_and_not_followed(bench, victim, name):
    link = bench.run / name
    if link.is_dir():
        shutil.rmtree(link)
    else:
        link.unlink(missing_ok=True)
    link.symlink_to(victim if "." not in link.name or link.name.endswith(".new") else victim / "thesis.txt")
    refused(bench, str(link), "is a link")
    again = bench("tiny", "--again", "tiny")
    assert (again.exit_code, "is a link" in again.stderr) == (2, True)
    assert (victim / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("make", ["pipe", "socket"])
@pytest.mark.parametrize("name", ["cells/tiny/seed-0/cell.json", "samples.npz", "timing/tiny.json", "cells/extra"])
def test_a_pipe_or_socket_is_refused_and_not_opened(bench, make, name, monkeypatch):
    file = bench.run / name
    file.parent.mkdir(exist_ok=True)
    file.unlink(missing_ok=True)
    if make == "pipe":
        os.mkfifo(file)
    else:
        monkeypatch.chdir(file.parent)  # the path of a socket has a hundred characters at most
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(file.name)
    refused(bench, str(file), f"is a {make}")
    (bench.run / "record.json").unlink()
    planned = bench.plan()
    assert (planned.exit_code, "is not empty, and no run folder" in one_line(planned)) == (2, True)


def test_a_folder_that_is_no_run_is_left_alone(bench, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for name in ("losses.png", "comparison.csv"):
        (theirs / name).write_text("mine")
    before = contents(theirs)
    for command in (("run", "--models", "grey", "--preset", "smoke"), ("evaluate", bench.run, "--data", "portraits")):
        more = ("--plugin", bench.file) if command[0] == "evaluate" else ()
        result = call(*command, *more, "--out", theirs)
        assert result.exit_code == 2
        assert "is not empty, and no run folder" in one_line(result)
    assert contents(theirs) == before
    assert sorted(file.name for file in theirs.iterdir()) == ["comparison.csv", "losses.png"]


def test_weights_exchanged_under_a_record_are_refused(bench):
    shutil.copy(bench.cell("on-tiny") / "weights.safetensors", bench.cell() / "weights.safetensors")
    stale = bench("tiny,on-tiny")
    assert stale.exit_code == 2
    assert f"tiny seed 0: {bench.cell() / 'weights.safetensors'} is damaged or absent" in stale.stderr
    photo = bench.folder / "photo.png"
    from PIL import Image

    Image.new("RGB", (20, 20)).save(photo)
    colored = call("colorize", photo, "--model", "tiny", "--run", bench.run, "--plugin", bench.file)
    assert (colored.exit_code, "weights.safetensors is damaged" in one_line(colored)) == (2, True)
    evaluated = call("evaluate", bench.run, "--data", "portraits", "--plugin", bench.file)
    assert (evaluated.exit_code, "weights.safetensors is damaged" in evaluated.stderr) == (1, True)
    mended = bench("tiny,on-tiny", "--again", "all")
    assert mended.exit_code == 0, mended.stderr


def test_an_edited_score_is_never_averaged_and_made_again(bench):
    file = bench.cell() / "scores.parquet"
    table = pd.read_parquet(file)
    true = table.copy()
    table.loc[0, "mse"] += 1
    table.to_parquet(file, index=False)
    result = call("report", bench.run)
    assert result.exit_code == 2
    assert f"{file} is damaged" in one_line(result)
    mended = bench("tiny,on-tiny")
    assert mended.exit_code == 0, mended.stderr
    assert "train" not in mended.stderr
    pd.testing.assert_frame_equal(pd.read_parquet(file), true)


@pytest.mark.parametrize("name", ["scores.parquet", "details.parquet", "samples.npz", "predictions.zip"])
@pytest.mark.parametrize("how", ["truncated", "absent"])
def test_what_can_be_made_again_is_made_again_unasked(bench, name, how):
    file, weights = bench.cell() / name, (bench.cell() / "weights.safetensors").stat().st_mtime_ns
    true = pd.read_parquet(bench.cell() / "scores.parquet")
    file.write_bytes(file.read_bytes()[:100]) if how == "truncated" else file.unlink()
    mended = bench("tiny,on-tiny")
    assert mended.exit_code == 0, mended.stderr
    assert "train" not in mended.stderr
    assert (bench.cell() / "weights.safetensors").stat().st_mtime_ns == weights
    pd.testing.assert_frame_equal(pd.read_parquet(bench.cell() / "scores.parquet"), true)
    assert "2 of 2 are done already" in bench("tiny,on-tiny").stderr


def test_damaged_losses_are_said_and_cost_no_training(bench):
    file, weights = bench.cell() / "losses.parquet", contents(bench.cell())["weights.safetensors"]
    file.write_bytes(file.read_bytes()[:100])
    result = call("report", bench.run)
    assert result.exit_code == 2
    assert f"{file} is damaged" in one_line(result)
    assert "restore it, or run the same command again" in one_line(result)
    again = bench("tiny,on-tiny")
    assert again.exit_code == 0, again.stderr
    assert f"{file} is damaged: the figure of losses leaves it out" in again.stderr
    assert "train" not in again.stderr
    assert contents(bench.cell())["weights.safetensors"] == weights
    assert call("report", bench.run).exit_code == 0
    assert "2 of 2 are done already" in bench("tiny,on-tiny").stderr


@pytest.mark.parametrize("name", ["samples.npz", "trained_on.txt"])
def test_a_damaged_file_of_the_run_is_refused_and_mended_by_the_next_run(bench, name):
    (bench.run / name).write_bytes(b"other")
    verb = ("report", bench.run) if name == "samples.npz" else ("evaluate", bench.run, "--data", "portraits")
    result = call(*verb, *(("--plugin", bench.file) if verb[0] == "evaluate" else ()))
    assert (result.exit_code, f"{bench.run / name} is damaged" in one_line(result)) == (2, True)
    assert bench("tiny,on-tiny").exit_code == 0
    assert call("report", bench.run).exit_code == 0


def test_a_record_cut_to_fewer_cells_is_refused(bench):
    tree = json.loads((bench.run / "record.json").read_text())
    tree["cells"] = tree["cells"][:1]
    (bench.run / "record.json").write_text(json.dumps(tree))
    refused(bench, "record.json was changed after it was written")


def test_a_damaged_cell_record_is_one_line_and_again_mends_it(bench):
    (bench.cell() / "cell.json").write_text('{"model": "tiny", "see')
    said = refused(bench, "cell.json is damaged")
    assert "--again" in said
    mended = bench("tiny,on-tiny", "--again", "all")
    assert mended.exit_code == 0, mended.stderr


def test_a_cell_of_another_model_is_refused(bench):
    shutil.copy(bench.cell("on-tiny") / "cell.json", bench.cell() / "cell.json")
    refused(bench, "is the record of on-tiny seed 0; put it where it belongs")


LATE = """import time
            time.sleep(0.03)
            self.steps = getattr(self, "steps", 0) + self.training
            if self.steps == STEP:
                raise RuntimeError("CUDA out of memory")
            yield Update"""


@pytest.fixture
def stopped(fresh):
    """A training that ran out of memory at step 45 of 80, with a checkpoint from about step 33."""
    fresh.change("yield Update", LATE)
    fresh.change('"train", 1,', '"train", 20,')
    text = fresh.file.read_text()
    fresh.write(text.replace("STEP", "int(open(__file__ + '.step').read())"))
    (fresh.folder / "tiny.py.step").write_text("45")
    failed = fresh()
    assert failed.exit_code == 1
    assert "tiny seed 0 failed: RuntimeError: CUDA out of memory" in one_line(failed)
    assert (fresh.cell() / "training.pt").exists()
    (fresh.folder / "tiny.py.step").write_text("-1")
    return fresh


def test_a_training_that_ran_out_of_memory_is_taken_up_again(stopped):
    result = stopped()
    assert result.exit_code == 0, result.stderr
    assert "train 1/20" not in result.stderr
    assert "train 20/20" in result.stderr
    assert not (stopped.cell() / "training.pt").exists()
    assert stopped.record()["images_seen"] == 20 * 32


@pytest.mark.parametrize("content", ["half", b"PK another tool", b""])
def test_a_checkpoint_that_is_none_is_said_and_training_starts_over(stopped, content):
    file = stopped.cell() / "training.pt"
    file.write_bytes(file.read_bytes()[:-100] if content == "half" else content)
    result = stopped()
    assert result.exit_code == 0, result.stderr
    assert "training.pt: training starts over" in result.stderr
    assert "train 1/20" in result.stderr


def test_a_file_that_cannot_be_read_is_one_line(bench):
    if os.geteuid() == 0:
        pytest.skip("nothing is unreadable for root")
    (bench.cell() / "scores.parquet").chmod(0)
    result = call("report", bench.run)
    assert (result.exit_code, "make it readable" in one_line(result)) == (2, True)
