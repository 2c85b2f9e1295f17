"""The best row of a sweep, by validation scores alone."""

import msgspec
import numpy as np
import pytest
from run_folders import IMAGES, FakeRun, scores_of

from colorbench import report
from colorbench.report.publish import publish
from colorbench.report.results import read
from colorbench.report.selection import selections
from colorbench.runs.folder import VAL_SCORES, to_parquet
from colorbench.runs.identity import predictions_key

VALIDATION = "5a" * 8


@pytest.fixture
def swept(tmp_path):
    """A model and two values of an option; what is best on the test images is worst on the validation images."""
    run = FakeRun(tmp_path / "run", ["net", "net/depth-2", "net/depth-3", "grey"])
    run.record.validation = VALIDATION
    run.save()
    for row, mse, val in (("net", 90, 100), ("net/depth-2", 100, 80), ("net/depth-3", 70, 110), ("grey", 300, 300)):
        for seed in (0, 1):
            fields = {"parent": "net", "sweep": "depth"} if "/" in row else {}
            cell = run.cell(row, seed, np.full(IMAGES, float(mse)), **fields)
            content = {VAL_SCORES: to_parquet(scores_of(row, seed, np.full(30, float(val))))}
            run.change(row, seed, content, validated_by=predictions_key(cell, VALIDATION))
    return run


def test_the_least_validation_error_is_selected_whatever_the_test_scores(swept):
    frame = swept.frame("ablations")
    assert frame.val_mse.to_dict() == {"net": 100, "net/depth-2": 80, "net/depth-3": 110}
    assert frame.selected.dropna().to_dict() == {"net/depth-2": "depth"}
    said = (
        "Of the values of depth, net/depth-2 is selected: it has the least MSE on 30 validation images, seeds 0, 1: "
        "80.0; net 100.0, net/depth-3 110.0. No score of a test image entered."
    )
    for name in ("comparison.md", "ablations.md"):
        assert said in swept.text(name)
    assert swept.frame().val_mse["grey"] == 300
    assert "selected by it" in swept.text("ablations.md")


def test_only_scores_under_the_key_of_the_run_and_of_the_same_seeds_choose(swept):
    swept.change("net/depth-2", 1, validated_by="1" * 16)
    (selection,) = selections(read(swept.folder))
    assert (selection.best, selection.seeds) == ("net/depth-2", [0])
    swept.change("net/depth-2", 0, validated_by=msgspec.UNSET)
    (selection,) = selections(read(swept.folder))
    assert (selection.best, list(selection.without)) == ("net", ["net/depth-2"])
    assert "; without validation scores: net/depth-2." in swept.text("ablations.md")
    for seed in (0, 1):
        swept.change("net", seed, validated_by="1" * 16)
    assert not selections(read(swept.folder))


def test_without_validation_scores_nothing_is_said_of_them(swept):
    swept.record.validation = msgspec.UNSET
    swept.save()
    assert not {"val_mse", "selected"} & {*swept.frame("ablations")}
    assert "selected" not in swept.text("comparison.md")


def test_a_published_run_keeps_its_validation_scores(swept, tmp_path):
    copy = publish(swept.folder.path, tmp_path / "published")
    assert report.write(copy) == report.write(swept.folder)
