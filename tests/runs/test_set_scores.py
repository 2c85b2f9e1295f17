"""Scores over the set from the run to the page: what makes them again, what is kept of them, and who is told."""

import json

import pandas as pd
import pytest
from conftest import call, jpegs, one_line

METRIC = """
import numpy as np
from pathlib import Path
from colorbench import MetricSpec, hookimpl

FACTORS = Path(__file__).with_name("factors.txt")


def brightness(batches):
    return np.array(np.mean([batch.float().mean().item() for batch in batches]))


def difference(predicted, truth, mean):
    return (predicted.float().mean((1, 2, 3)) - mean)[:, None]


@hookimpl
def register_metrics(register, files):
    factor = float((files["drift"] if "drift" in files else FACTORS).read_text())
    register(MetricSpec(
        "drift", "a test", difference, lambda features: factor * features.mean(), resample=True, prepare=brightness,
        better="zero", settings={"factor": FACTORS}, notes=["of the training images."], takes_weights=True))
    register(MetricSpec("darkest", "a test", ["mse"], lambda features: features.min(), better="lower"))
    register(MetricSpec("lost", "a test", difference, missing="it needs a file; name it", takes_weights=True))
"""


@pytest.fixture
def metric(bench):
    """A file with a metric over the set, which has seen the training images, one of scores, and one that is missing."""
    (bench.folder / "factors.txt").write_text("1")
    file = bench.folder / "metric.py"
    file.write_text(METRIC)
    return file


def _scored(bench, metric, *more):
    result = call("score", bench.run, "--plugin", bench.file, "--plugin", metric, *more)
    assert result.exit_code == 0, result.stderr
    return result


def test_they_stand_in_the_cell_the_tables_and_the_record(bench, metric):
    text = _scored(bench, metric).stdout
    rows = pd.read_parquet(bench.cell() / "set_scores.parquet").set_index("metric")
    assert {"drift", "darkest", "auc_rebalanced", "colorfulness_difference"} <= {*rows.index}
    assert "set_scores.parquet" in bench.record()["files"]
    row = bench.table().loc["tiny"]
    assert row["drift"] == pytest.approx(rows.loc["drift", "value"])
    assert row["drift_low"] < row["drift"] < row["drift_high"]
    assert pd.isna(row["darkest_low"])
    assert all(f" {column} |" in text for column in ("drift → 0", "darkest ↓", "auc ↑"))
    assert "- drift: of the training images.\n" in text
    record = json.loads((bench.run / "record.json").read_text())["metrics"]
    drift = {name: record["drift"].get(name) for name in ("summary", "over", "better", "notes")}
    assert drift == {"summary": "a test", "over": "set", "better": "zero", "notes": ["of the training images."]}
    assert "factors.txt" in str(record["drift"]["settings"]["factor"])
    assert "lost" not in record


@pytest.mark.parametrize(
    ("written", "instead", "said"),
    [
        (
            "return np.array(np.mean(",
            "return (lambda: 0) or np.array(np.mean(",
            "returned object; an array of numbers is due",
        ),
        (
            'settings={"factor": FACTORS}',
            "settings={'deep': reduce(lambda deep, _: [deep], range(200), 0)}",
            "the metric 'drift'",
        ),
    ],
)
def test_what_no_process_or_record_can_hold_is_one_line(bench, metric, written, instead, said):
    metric.write_text("from functools import reduce\n" + METRIC.replace(written, instead))
    result = call("score", bench.run, "--plugin", bench.file, "--plugin", metric)
    assert result.exit_code == 2
    assert said in one_line(result)


def test_they_are_made_again_when_a_file_in_the_settings_changes(bench, metric):
    _scored(bench, metric)
    first = bench.table().loc["tiny", "drift"]
    assert "2 of 2 are done already" in bench("tiny,on-tiny", "--plugin", metric).stderr
    (bench.folder / "factors.txt").write_text("-2")
    again = bench("tiny,on-tiny", "--plugin", metric)
    assert "done already" not in again.stderr
    assert "train 1/" not in again.stderr
    assert bench.table().loc["tiny", "drift"] == pytest.approx(-2 * first)


def test_weights_reach_a_metric_by_its_name(bench, metric):
    (bench.folder / "given.txt").write_text("1")
    (bench.folder / "factors.txt").write_text("7")
    _scored(bench, metric, "--weights", f"drift={bench.folder / 'given.txt'}")
    given = bench.table().loc["tiny", "drift"]
    _scored(bench, metric)
    assert bench.table().loc["tiny", "drift"] == pytest.approx(7 * given)


@pytest.mark.parametrize("verb", ["run", "score", "evaluate"])
@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ("drift=/dev/zero", "cannot read --weights drift=/dev/zero: it is a pipe or a device; name a file"),
        ("drift=nowhere.txt", "cannot read --weights drift=nowhere.txt: there is no such file or folder"),
        ("darkest=metric.py", "darkest"),
        ("lost=metric.py", "--weights lost=metric.py: the metric lost cannot be computed: it needs a file; name it"),
        ("drift", "--weights drift: write NAME=FILE"),
    ],
)
def test_weights_that_nobody_takes_are_refused(bench, metric, monkeypatch, verb, weights, said):
    monkeypatch.chdir(bench.folder)
    arguments = bench.arguments() if verb == "run" else (bench.run, "--plugin", bench.file)
    more = ("--data", "portraits") if verb == "evaluate" else ()
    result = call(verb, *arguments, *more, "--plugin", metric, "--weights", weights)
    assert result.exit_code == 2
    assert said in one_line(result)


def test_what_is_missing_is_listed_with_the_remedy(bench, metric):
    lines = call("list", "metrics", "--plugin", metric).stdout.splitlines()
    assert any(line.startswith("lost ") and "MISSING: it needs a file; name it" in line for line in lines)


def test_data_without_a_training_split_leave_out_what_needs_one(bench, metric):
    photos = jpegs(bench.folder / "photos", 3)
    result = call("evaluate", bench.run, "--data", photos, "--plugin", bench.file, "--plugin", metric)
    assert result.exit_code == 0, result.stderr
    assert "- drift is left out: it needs a training split, which these data have not.\n" in result.stdout
    assert "- auc_rebalanced is left out" in result.stdout
    assert "auc_rebalanced ↑" not in result.stdout
    assert "darkest ↓" in result.stdout


def test_pictures_alone_are_scored_by_what_needs_no_training(tmp_path):
    photos = jpegs(tmp_path / "photos", 3)
    result = call("score", photos, "--truth", photos, "--size", 32, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    row = pd.read_csv(tmp_path / "out" / "comparison.csv").set_index("model").loc["photos"]
    assert row["auc"] == pytest.approx(1, abs=0.01)
    assert "- auc_rebalanced is left out: it needs a training split" in result.stdout


def test_a_published_run_has_them_too(bench, metric):
    from colorbench import report
    from colorbench.report.publish import publish

    _scored(bench, metric)
    published = publish(bench.run, bench.folder / "published")
    assert (published.path / "set_scores.parquet").exists()
    report.write(published)
    columns = ["drift", "drift_low", "drift_high", "darkest", "colorfulness_difference", "auc"]
    found = pd.read_csv(published.path / "comparison.csv").set_index("model")[columns]
    pd.testing.assert_frame_equal(found, bench.table()[columns])


def test_a_damaged_file_of_them_is_refused(bench, metric):
    _scored(bench, metric)
    file = bench.cell() / "set_scores.parquet"
    file.write_bytes(file.read_bytes()[:-20] + b"x" * 20)
    result = call("report", bench.run)
    assert result.exit_code == 2
    assert "set_scores.parquet is damaged" in one_line(result)
