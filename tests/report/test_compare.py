"""Two runs compared, written by hand: what each row is called, what a script is told, what is refused."""

import msgspec
import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY, call
from run_folders import IMAGES, FakeRun

import colorbench
from colorbench import UserError
from colorbench.report.compare import compare
from colorbench.report.publish import publish
from colorbench.runs.folder import RunFolder

ERRORS = np.random.default_rng(7).lognormal(5, 0.8, IMAGES)
NOISE = np.random.default_rng(8).normal(0, 1, IMAGES)
# Models that are called what they shall be found to be.
CHANGED = {  # of the MSE from A to B
    "same": 0 * NOISE,
    "better": -0.1 * ERRORS,
    "worse": 0.1 * ERRORS,
    "within-noise": NOISE - NOISE.mean() + 0.01,
}
OUTCOMES = {  # whether the cells of both seeds are done, in A and in B
    "newly-failing": ((True, True), (True, False)),
    "newly-done": ((False, False), (True, False)),
    "done-in-neither": ((False, False), (False, False)),
    "no-seed-in-common": ((True, False), (False, True)),
    "only-in-a": ((True, True), None),
    "only-in-b": (None, (True, True)),
}


def named(verdict):
    return verdict.replace(" ", "-").lower()


def written(path, outcomes, factors=None):
    """A run with a row per outcome, (done with seed 0, done with seed 1), named after it; without those of None."""
    run = FakeRun(path, [name for name, done in outcomes.items() if done])
    for name, done in outcomes.items():
        for seed, finished in enumerate(done or ()):
            mse = ERRORS * (1 + 0.01 * seed) + (factors or {}).get(name, 0)
            run.cell(name, seed, **({"mse": mse} if finished else {"reason": "no luck"}))
    return run


@pytest.fixture
def runs(tmp_path):
    """Runs A and B that have a row of every kind."""
    both = dict.fromkeys(CHANGED, ((True, True), (True, True)))
    both |= OUTCOMES | {"no-seed-in-common": ((True, None), (None, True))}
    outcomes = [{name: sides[side] for name, sides in both.items()} for side in (0, 1)]
    a, b = written(tmp_path / "a", outcomes[0]), written(tmp_path / "b", outcomes[1], CHANGED)
    for run, seed in ((a, 1), (b, 0)):
        run.record.cells.remove(("no-seed-in-common", seed))
        run.save()
    return a.folder.path, b.folder.path


def test_every_row_is_called_by_what_became_of_it(runs):
    frame = compare(*map(RunFolder, runs)).set_index("model")
    assert frame["verdict"].map(named).to_dict() == {name: name for name in (*CHANGED, *OUTCOMES)}
    assert frame.loc["better", "gain_percent"] == pytest.approx(10 / 1.005)
    assert 9 < frame.loc["better", "gain_percent_low"] < frame.loc["better", "gain_percent_high"] < 11
    assert frame.loc["better", "mse_b"] < frame.loc["better", "mse_a"]
    assert frame.loc["newly-failing", "mse_a":].isna().all()


def test_python_compares_as_the_command_does(runs):
    pd.testing.assert_frame_equal(colorbench.compare(*runs), compare(*map(RunFolder, runs)))
    with pytest.raises(UserError, match="is not a run folder"):
        colorbench.compare(runs[0], runs[0].parent)


def test_the_command_prints_a_table_and_writes_nothing(runs):
    before = {file: file.read_bytes() for run in runs for file in run.rglob("*") if file.is_file()}
    result = call("compare", *runs)
    assert result.exit_code == 0, result.stderr
    cells = [line.split("|") for line in result.stdout.splitlines() if "|" in line]
    rows = {row[1].strip(): named(row[-2].strip()) for row in cells}
    assert {name: rows[name] for name in (*CHANGED, *OUTCOMES)} == {name: name for name in (*CHANGED, *OUTCOMES)}
    assert {file: file.read_bytes() for run in runs for file in run.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("name", [*CHANGED, *OUTCOMES])
def test_a_script_is_told_of_what_is_worse_or_fails_now(runs, name):
    for run in map(RunFolder, runs):
        record = run.record
        run.write(
            msgspec.structs.replace(
                record,
                models=[model for model in record.models if model in (name, "same")],
                cells=[cell for cell in record.cells if cell[0] in (name, "same")],
            )
        )
    assert call("compare", *runs).exit_code == 0
    told = call("compare", *runs, "--fail-on", "worse")
    assert told.exit_code == (name in ("worse", "newly-failing", "only-in-a"))
    assert (f"--fail-on worse applies to {name} (" in told.stderr) == bool(told.exit_code)
    uncompared = name in ("done-in-neither", "no-seed-in-common", "only-in-b")
    assert (f"colorbench: not compared: {name} (" in told.stderr) == uncompared


@pytest.mark.parametrize("name", ["no-seed-in-common", "done-in-neither"])
def test_a_script_is_not_told_that_all_is_well_where_nothing_was_compared(tmp_path, name):
    both = OUTCOMES | {"no-seed-in-common": ((True, None), (None, True))}
    for side, path in enumerate((tmp_path / "a", tmp_path / "b")):
        run = written(path, {name: both[name][side]})
        if name == "no-seed-in-common":
            run.record.cells.remove((name, 1 - side))
            run.save()
    result = call("compare", tmp_path / "a", tmp_path / "b", "--fail-on", "worse")
    assert result.exit_code == 2
    assert "nothing was compared" in result.stderr
    assert call("compare", tmp_path / "a", tmp_path / "b").exit_code == 0


def test_what_was_perfect_can_only_get_worse_and_a_single_image_tells_nothing(tmp_path):
    for first, images, verdict in ((0 * ERRORS, IMAGES, "worse"), (ERRORS, 1, "cannot be told")):
        folders = [tmp_path / f"{verdict}-{side}" for side in "ab"]
        for path, mse in zip(folders, (first, ERRORS + 9), strict=True):
            FakeRun(path, ["net"], seeds=(0,)).cell("net", 0, mse=mse[:images])
        assert [*compare(*map(RunFolder, folders))["verdict"]] == [verdict]


def test_holm_asks_more_of_one_row_among_many(tmp_path):
    for others in (0, 19):
        names = dict.fromkeys(("first", *map(str, range(others))), (True, True))
        a, b = tmp_path / f"a{others}", tmp_path / f"b{others}"
        written(a, names)
        run = written(b, names)
        for seed in (0, 1):
            run.cell("first", seed, ERRORS * (1 + 0.01 * seed) * (1.05 + 0.002 * seed))
            for other in range(others):
                run.cell(str(other), seed, ERRORS * (1 + 0.02 * seed))
        verdict = compare(RunFolder(a), RunFolder(b)).set_index("model").loc["first", "verdict"]
        assert verdict == ("within noise" if others else "worse")


@pytest.mark.parametrize(
    ("part", "field", "value"), [("protocol", "id", "other"), ("data", "fingerprint", "other"), ("preset", "epochs", 7)]
)
def test_runs_that_differ_are_refused_in_one_line_that_names_the_field(runs, part, field, value):
    b = RunFolder(runs[1])
    changed = msgspec.structs.replace(getattr(b.record, part), **{field: value})
    b.write(msgspec.structs.replace(b.record, **{part: changed}))
    result = call("compare", *runs)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert f"{part}.{field} (" in line
    assert repr(value) in line


def test_a_folder_that_is_no_run_is_refused_in_one_line(runs, tmp_path):
    result = call("compare", runs[0], tmp_path / "absent")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "absent" in line


def test_published_runs_are_compared(runs, tmp_path):
    copies = [publish(run, tmp_path / f"published-{run.name}").path for run in runs]
    frames = [compare(*map(RunFolder, pair)) for pair in (runs, copies)]
    assert frames[1].drop(columns="p").equals(frames[0].drop(columns="p"))
    committed = RunFolder(REPOSITORY / "results" / "published" / "utkface-all")
    assert (compare(committed, committed)["verdict"] == "same").all()
