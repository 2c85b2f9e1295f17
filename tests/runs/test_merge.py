"""Runs made apart and merged: the table of one run that made all itself; what does not belong together is refused."""

import os
import shutil

import msgspec
import pandas as pd
import pytest
from conftest import TINY, Bench, call, contents, one_line

from colorbench.runs import merge as merge_module
from colorbench.runs.folder import RunFolder, write_cell
from colorbench.runs.records import CellRecord, MetricRecord, RunRecord, Timing, decode, encode


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    """Both models and two seeds made in one run, and in three runs of which the last holds the refiner alone."""
    bench = Bench(tmp_path_factory.mktemp("apart"))
    bench.write(TINY)
    for out, models, seeds in (("whole", "tiny,on-tiny", (0, 1)), ("a", "tiny", (0,)), ("b", "tiny,on-tiny", (1,))):
        bench.run = bench.folder / out
        result = bench(models, *(word for seed in seeds for word in ("--seed", seed)))
        assert result.exit_code == 0, result.stderr
    bench.run = bench.folder / "c"
    shutil.copytree(bench.folder / "a", bench.run)
    assert bench("on-tiny").exit_code == 0
    record = decode(bench.run / "record.json", RunRecord)
    (bench.run / "record.json").write_bytes(encode(msgspec.structs.replace(record, cells=[("on-tiny", 0)])))
    shutil.rmtree(bench.cell("tiny"))
    return bench


@pytest.fixture
def three(apart, tmp_path):
    """The three runs, of one's own: a bench whose run folder is what they are merged into."""
    shutil.copytree(apart.folder, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("whole"))
    bench = Bench(tmp_path)
    bench.run = tmp_path / "merged"
    return bench


def merged(bench, *runs):
    return call("merge", *(bench.folder / run for run in runs or ("a", "b", "c")), "--out", bench.run)


def refused(bench, *runs):
    """What merging says when it refuses to: it leaves nothing behind and no run changed."""
    before = contents(bench.folder)
    result = merged(bench, *runs)
    assert result.exit_code == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert contents(bench.folder) == before
    assert not [*bench.folder.glob("*merg*")]
    return result.stderr


def change(bench, run, model="tiny", seed=0, **fields):
    """Change the record of a cell as if it had been made like that."""
    folder = RunFolder(bench.folder / run)
    write_cell(folder.cell_dir(model, seed), msgspec.structs.replace(folder.cell(model, seed), **fields))


def change_run(bench, run, **fields):
    file = bench.folder / run / "record.json"
    file.write_bytes(encode(msgspec.structs.replace(decode(file, RunRecord), **fields)))


def table(folder):
    return pd.read_csv(folder / "comparison.csv").set_index("model").sort_index()


def test_the_table_is_that_of_one_run_which_made_all_cells_itself(three, apart):
    before = {run: contents(three.folder / run) for run in "abc"}
    result = merged(three)
    assert result.exit_code == 0, result.stderr
    assert {run: contents(three.folder / run) for run in "abc"} == before
    whole = table(apart.folder / "whole")
    costs = [column for column in whole if "seconds" in column or "per_s" in column]
    pd.testing.assert_frame_equal(table(three.run).drop(columns=costs), whole.drop(columns=costs))
    assert "# Comparison on portraits" in result.stdout
    assert (three.run / "losses.png").exists()
    record = RunFolder(three.run).record
    assert (record.models, record.seeds) == (["tiny", "on-tiny"], [0, 1])
    assert not [*three.folder.glob(".merged*")]


def test_what_comes_after_a_run_works_on_a_merged_one(three, photo_zip):
    assert merged(three).exit_code == 0
    asked = ("tiny,on-tiny", "--seed", 0, "--seed", 1)
    plan = three.plan(*asked)
    assert plan.exit_code == 0
    assert [line.split()[3] for line in plan.stdout.splitlines()[:-1]] == ["done"] * 4
    again = three(*asked)
    assert (again.exit_code, "4 of 4 are done already" in again.stderr) == (0, True)
    for verb in (("report",), ("score",), ("evaluate", "--data", photo_zip)):
        more = () if verb[0] == "report" else ("--plugin", three.file)
        result = call(verb[0], three.run, *verb[1:], *more)
        assert result.exit_code == 0, result.stderr
    assert call("merge", three.run, "--out", three.folder / "copy").exit_code == 0


def test_timings_marks_and_environments_come_along(three):
    shutil.copytree(three.folder / "b", three.folder / "d")
    why = ["stages[0].learning_rate 0.1 -> 0.001"]
    change_run(three, "d", kept={"tiny/seed-1": why, "on-tiny/seed-1": ["taken from b"]})
    change(three, "b", model="tiny", seed=1, status="trained", reason="not scored")
    change_run(three, "b", commands=["colorbench run --seed 1"])
    environments = RunFolder(three.folder / "a").record.environments
    (here,) = environments
    change_run(three, "a", environments={**environments, "e0000001": environments[here]})
    for run, timing in (("a", {"environment": here, "failed": "no time"}), ("b", {"environment": here})):
        (three.folder / run / "timing").mkdir()
        timing = Timing(model="tiny", batch=8, **timing)
        (three.folder / run / "timing" / "tiny.json").write_bytes(encode(timing))
    assert merged(three, "a", "b", "c", "d").exit_code == 0
    record = RunFolder(three.run).record
    assert record.kept == {"tiny/seed-1": why}, "only the cell that was taken from there"
    assert record.commands[1:] == ["colorbench run --seed 1"]
    assert set(record.environments) == {here, "e0000001"}
    assert RunFolder(three.run).timings()["tiny"].failed is None


def test_what_is_known_of_metrics_is_united(three):
    change_run(three, "a", metrics={"hue": MetricRecord("a test", better="lower")})
    change_run(three, "b", metrics={"drift": MetricRecord("a test", over="set")})
    change_run(three, "c", metrics={})
    assert merged(three).exit_code == 0
    assert {name: metric.over for name, metric in RunFolder(three.run).record.metrics.items()} == {
        "hue": "image",
        "drift": "set",
    }


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"inputs": "0" * 16}, "inputs is '0000000000000000', but '"),
        ({"scoring": "1" * 16}, "scoring is '1111111111111111', but '"),
        ({"preset": ("epochs", 7)}, "preset.epochs is 7, but 1 in "),
        ({"protocol": ("id", "other")}, "protocol.id is 'other', but '"),
        ({"data": ("fingerprint", "other")}, "data.fingerprint is 'other', but '"),
    ],
)
def test_other_conditions_are_refused_with_the_field_and_both_values(three, fields, line):
    ((name, value),) = fields.items()
    if isinstance(value, tuple):
        part = getattr(RunFolder(three.folder / "b").record, name)
        value = msgspec.structs.replace(part, **dict([value]))
    change_run(three, "b", **{name: value})
    said = refused(three)
    assert f"colorbench: {three.folder / 'b'}: {line}" in said
    assert f" in {three.folder / 'a'}\n" in said
    assert len(said.splitlines()) == 2


def test_a_model_that_was_made_otherwise_is_refused_with_the_fields(three):
    three.change("learning_rate=0.001", "learning_rate=0.1")
    three.run = three.folder / "other"
    assert three("tiny", "--seed", 1).exit_code == 0
    three.run = three.folder / "merged"
    said = refused(three, "a", "other")
    line = f"{three.folder / 'other'}: tiny seed 1, beside seed 0 of {three.folder / 'a'}: stages[0].learning_rate"
    assert f"{line} 0.001 -> 0.1; code of plugin tiny.py" in said
    assert len(said.splitlines()) == 2
    change_run(three, "other", kept={"tiny/seed-1": ["used as it is"]})
    assert merged(three, "a", "other").exit_code == 0
    assert len(table(three.run)) == 2, "a row of its own"


def test_the_weights_of_its_base_are_no_other_way_to_make_a_refiner(three):
    made_from = RunFolder(three.folder / "b").cell("on-tiny", 1).made_from
    change(three, "b", "on-tiny", 1, row="0" * 16, made_from=made_from | {"options": {"depth": 2}})
    line = f"{three.folder / 'c'}: on-tiny seed 0, beside seed 1 of {three.folder / 'b'}: options.depth 2 -> null"
    assert f"colorbench: {line}" in refused(three).splitlines()


def test_the_same_cell_is_taken_once_and_another_is_refused(three):
    assert merged(three, "a", "b", "a").exit_code == 0
    assert len(RunFolder(three.run).record.cells) == 3
    shutil.rmtree(three.run)
    shutil.copytree(three.folder / "a", three.folder / "twin")
    change(three, "twin", weights_sha256="0" * 64, predicted_by="1" * 16)
    said = refused(three, "a", "twin")
    assert f"{three.folder / 'twin'}: tiny seed 0: weights_sha256 is '{'0' * 64}', but '" in said
    assert f"{three.folder / 'twin'}: tiny seed 0: predicted_by is '{'1' * 16}', but '" in said


@pytest.mark.parametrize("order", [("failed", "a"), ("a", "failed")])
def test_a_failed_cell_gives_way_to_a_finished_one_and_else_stays(three, order):
    shutil.copytree(three.folder / "a", three.folder / "failed")
    shutil.rmtree(three.folder / "failed" / "cells" / "tiny" / "seed-0")
    (three.folder / "failed" / "cells" / "tiny" / "seed-1").mkdir()
    (three.folder / "failed" / "cells" / "tiny" / "seed-1" / "training.pt").write_bytes(b"half")
    change_run(three, "failed", cells=[("tiny", 0), ("tiny", 1), ("tiny", 2)])
    failed = CellRecord(model="tiny", seed=0, status="failed", reason="out of memory", row="0" * 16)
    write_cell(three.folder / "failed" / "cells" / "tiny" / "seed-0", failed)
    (three.folder / "failed" / "cells" / "tiny" / "seed-0" / "traceback.txt").write_text("Traceback")
    assert merged(three, *order).exit_code == 0
    assert [cell.status for cell in RunFolder(three.run).cells()] == ["done", "interrupted", "missing"]
    assert (three.run / "cells" / "tiny" / "seed-1" / "training.pt").read_bytes() == b"half"
    assert not (three.run / "cells" / "tiny" / "seed-0" / "traceback.txt").exists()
    assert three("tiny", "--seed", 0, "--seed", 1, "--seed", 2).exit_code == 0


def test_a_refiner_without_the_weights_it_was_trained_on_is_refused(three):
    said = refused(three, "b", "c")
    assert f"{three.folder / 'c'}: on-tiny seed 0 builds on tiny, of which no run has this seed" in said
    change(three, "a", weights_sha256="0" * 64)
    said = refused(three, "a", "c")
    assert f"{three.folder / 'c'}: on-tiny seed 0: weights_sha256 of its base tiny is '" in said
    assert f"', but '{'0' * 64}' in {three.folder / 'a'}" in said


def test_every_damaged_file_is_named(three):
    weights, zipped = (
        three.folder / "b" / "cells" / "tiny" / "seed-1" / n for n in ("weights.safetensors", "predictions.zip")
    )
    weights.write_bytes(weights.read_bytes()[:-1])
    zipped.unlink()
    said = refused(three)
    assert {f"colorbench: {file} is damaged or absent" for file in (weights, zipped)} <= set(said.splitlines())
    (three.folder / "a" / "trained_on.txt").write_text("other")
    assert f"{three.folder / 'a' / 'trained_on.txt'} is damaged" in refused(three)
    (three.folder / "a" / "record.json").write_text("{}")
    assert "record.json is damaged" in refused(three)


def test_links_and_what_is_no_run_are_refused(three, tmp_path):
    (tmp_path / "secret").write_text("mine")
    cell = three.folder / "b" / "cells" / "tiny" / "seed-1"
    (cell / "traceback.txt").symlink_to(tmp_path / "secret")
    assert f"{cell / 'traceback.txt'} is a link" in refused(three)
    assert "is not a run folder" in refused(three, "a", "nowhere")


def test_what_is_there_already_is_left_alone(three, tmp_path):
    three.run.mkdir()
    assert merged(three).exit_code == 0, "an empty folder will do"
    before = contents(three.folder)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    for out in (three.run, three.file, tmp_path / "link"):
        result = call("merge", three.folder / "a", "--out", out)
        assert (result.exit_code, "is there already, and no empty folder" in one_line(result)) == (2, True)
    inside = call("merge", three.folder / "a", "--out", three.folder / "a" / "cells" / "all")
    assert (inside.exit_code, "lies in" in one_line(inside)) == (2, True)
    assert contents(three.folder) == before
    assert call("merge", three.folder / "a", "--out", "").exit_code == 2


def test_a_published_run_is_refused(three):
    from colorbench.report.publish import publish

    publish(three.folder / "a", three.folder / "published")
    assert "is a published run, without weights" in refused(three, "b", "published")


@pytest.mark.parametrize("nth", [1, 4, 9])
def test_a_merge_that_is_killed_leaves_no_run_and_goes_through_the_next_time(three, nth, monkeypatch):
    """At one of the files that are copied; and with an exception in the same place, which leaves nothing behind."""
    real, count = shutil.copyfile, 0

    def copy(source, target):
        nonlocal count
        count += 1
        if count == nth:
            raise KeyboardInterrupt
        return real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(merge_module.shutil, "copyfile", copy)
        assert merged(three).exit_code == 130
        assert not [*three.folder.glob("*merg*")]
        count = 0
        patched.setattr(merge_module.shutil, "rmtree", lambda *_, **__: None)  # a kill cleans up nothing
        assert merged(three).exit_code == 130
    assert not three.run.exists()
    (three.folder / ".merged.merging" / "cells" / "other").mkdir()
    assert merged(three).exit_code == 0
    assert sorted(os.listdir(three.run / "cells")) == ["on-tiny", "tiny"]
    assert not [*three.folder.glob(".merged*")]
