"""Predictions are kept as plain pictures and scored from there: nothing is trained again for the sake of a score."""

import io
import re
import tracemalloc
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import call, contents, jpeg, one_line
from PIL import Image

from colorbench import score
from colorbench.runs.predictions import read_pictures


def pictures(bench, model="tiny"):
    """The kept predictions by the images' names."""
    with zipfile.ZipFile(bench.cell(model) / "predictions.zip") as archive:
        return {name: np.array(Image.open(io.BytesIO(archive.read(name)))) for name in archive.namelist()}


def scores(bench, model="tiny"):
    return pd.read_parquet(bench.cell(model) / "scores.parquet")


def weights_time(bench):
    return (bench.cell() / "weights.safetensors").stat().st_mtime_ns


def test_they_are_pngs_under_the_images_names_and_what_was_scored(bench):
    kept, table = pictures(bench), scores(bench)
    assert [name.removesuffix(".png") for name in kept] == table.image.tolist()
    with np.load(bench.run / "samples.npz") as samples:
        truth = torch.from_numpy(samples["truth"]).permute(0, 3, 1, 2)
    predicted = torch.from_numpy(np.stack([*kept.values()])).permute(0, 3, 1, 2)
    np.testing.assert_allclose(score(predicted, truth).mse, table.mse, rtol=1e-5)


@pytest.mark.parametrize(("asked", "kept"), [("none", 0), ("3", 3), ("100", 8), ("all", 8)])
def test_as_many_are_kept_as_was_asked_for(fresh, asked, kept):
    result = fresh("tiny", "--predictions", asked)
    assert result.exit_code == 0, result.stderr
    assert fresh.record()["predictions_kept"] == kept
    assert len(scores(fresh)) == 8
    assert (len(pictures(fresh)) if kept else not (fresh.cell() / "predictions.zip").exists()) == (kept or True)


def test_what_was_not_kept_is_predicted_again(fresh):
    assert fresh("tiny", "--predictions", "none").exit_code == 0
    before, table = weights_time(fresh), scores(fresh)
    assert "1 of 1 are done already" in fresh("tiny", "--predictions", "none").stderr
    result = fresh("tiny", "--predictions", "all")
    assert result.exit_code == 0, result.stderr
    assert "train" not in result.stderr
    assert (len(pictures(fresh)), weights_time(fresh)) == (8, before)
    pd.testing.assert_frame_equal(scores(fresh), table)


@pytest.mark.parametrize("asked", ["x", "-1", "1.5", ""])
def test_another_word_is_refused(fresh, asked):
    result = fresh("tiny", "--predictions", asked)
    assert result.exit_code == 2
    assert "--predictions" in one_line(result)


METRIC = """
from colorbench import MetricSpec, hookimpl

def largest(p, t):
    LATE
    return (p.int() - t.int()).abs().amax((1, 2, 3)) * 1.0

@hookimpl
def register_metrics(register):
    register(MetricSpec("largest_error", "a test", largest))
"""


def test_a_failure_at_scoring_costs_no_training(fresh):
    metric = fresh.folder / "metric.py"
    metric.write_text(METRIC.replace("LATE", "assert len(p) <= 2, 'so many'"))
    failed = fresh("tiny", "--plugin", metric)
    assert failed.exit_code == 1
    assert "tiny seed 0  train 1/1" in failed.stderr
    assert "tiny seed 0 trained: not scored: ValueError: the metric 'largest_error' fails" in one_line(failed)
    assert "so many" in one_line(failed)
    before = weights_time(fresh)
    metric.write_text(METRIC.replace("LATE", ""))
    repaired = fresh("tiny", "--plugin", metric)
    assert repaired.exit_code == 0, repaired.stderr
    assert "train 1/" not in repaired.stderr
    assert weights_time(fresh) == before
    assert fresh.table().largest_error["tiny"] > 0


def test_scores_with_a_metric_added_later_need_no_network(bench):
    metric = bench.folder / "metric.py"
    metric.write_text(METRIC.replace("LATE", ""))
    before = weights_time(bench)
    for cell in (bench.cell(), bench.cell("on-tiny")):
        (cell / "weights.safetensors").rename(cell / "aside")  # nothing may need them
    result = call("score", bench.run, "--plugin", metric)
    assert result.exit_code == 0, result.stderr
    assert "tiny seed 0: scored" in result.stderr
    assert (bench.table().largest_error > 0).all()
    assert "largest_error" in result.stdout
    for cell in (bench.cell(), bench.cell("on-tiny")):
        (cell / "aside").rename(cell / "weights.safetensors")
    assert weights_time(bench) == before
    assert "2 of 2 are done already" in bench("tiny,on-tiny", "--plugin", metric).stderr


def test_a_cell_without_predictions_says_so(fresh):
    assert fresh("tiny", "--predictions", "none").exit_code == 0
    metric = fresh.folder / "metric.py"
    metric.write_text(METRIC.replace("LATE", ""))
    table = (fresh.run / "comparison.md").read_bytes()
    result = call("score", fresh.run, "--plugin", metric)
    assert result.exit_code == 2
    assert "has not kept all predictions of tiny; nothing was scored" in result.stderr
    assert (fresh.run / "comparison.md").read_bytes() == table
    assert call("report", fresh.run).exit_code == 0
    assert (fresh.run / "comparison.md").read_bytes() == table


def png(mode, width, height, **more):
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, "PNG", **more)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (png("RGB", 16, 15), "RGB", "RGB, 16 x 15 pixels"),
        (png("RGBA", 16, 16), "RGB", "RGBA, 16 x 16 pixels"),
        (png("L", 16, 16), "RGB", "L, 16 x 16 pixels"),
        (png("L", 17, 2), "L", "L, 17 x 2 pixels"),
        (png("RGB", 8, 8), "L", "RGB, 8 x 8 pixels"),
        (png("RGB", 2000, 2000), "RGB", "RGB, 2000 x 2000 pixels"),
        (bytes(20_000_000), "RGB", "20000000 bytes"),
        (png("RGB", 16, 16)[:45], "RGB", "has no picture of a.jpg"),
        (b"", "L", "UnidentifiedImageError"),
        (None, "RGB", "KeyError"),
    ],
    ids=["height", "alpha", "grey", "wide map", "map in color", "pixels", "bytes", "cut", "empty", "absent"],
)
def test_a_picture_of_another_form_is_refused_before_it_is_unpacked(tmp_path, content, mode, said):
    file = tmp_path / "predictions.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b.jpg.png", png(mode, 16, 16))
        if content is not None:
            archive.writestr("a.jpg.png", content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=re.escape(said)) as raised:
        [*read_pictures(file, ["b.jpg", "a.jpg"], mode, 16)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "has no picture of a.jpg" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    assert peak < 5_000_000
    (only,) = read_pictures(file, ["b.jpg"], mode, 16)
    assert only.shape[:2] == (16, 16)


def photos(folder, start, count=40):
    folder.mkdir()
    for index in range(start, start + count):
        (folder / f"{index:03}.jpg").write_bytes(jpeg(index))
    return folder


def test_scoring_finds_moved_data_and_refuses_other_data(fresh):
    data = photos(fresh.folder / "photos", 0)
    assert fresh("tiny", "--data", data).exit_code == 0
    first = scores(fresh)
    data.rename(fresh.folder / "moved")
    gone = call("score", fresh.run)
    assert (gone.exit_code, "photos" in one_line(gone)) == (2, True)
    other = call("score", fresh.run, "--data", photos(fresh.folder / "other", 100))
    assert (other.exit_code, "data.fingerprint" in one_line(other)) == (2, True)
    before = contents(fresh.cell())
    moved = call("score", fresh.run, "--data", fresh.folder / "moved")
    assert moved.exit_code == 0, moved.stderr
    pd.testing.assert_frame_equal(scores(fresh), first)
    assert before.keys() == contents(fresh.cell()).keys()


def test_a_network_that_writes_into_its_input_does_not_change_the_truth(fresh):
    fresh.change("ab = 10 * self.convolution(L / 100)", "ab = 0 * self.convolution(L / 100)")
    assert fresh().exit_code == 0
    plain = scores(fresh)
    fresh.change("ab = 0 *", "L.mul_(0.5)\n            ab = 0 *")
    result = fresh("tiny", "--again", "tiny")
    assert result.exit_code == 0, result.stderr
    pd.testing.assert_frame_equal(scores(fresh), plain)


# What a change of the tiny network's text makes of it, and the reason that is given before anything is trained.
FLAWS = {
    "randomness": (("L / 100)", "L / 100) + torch.randn(L.shape)"), "another answer to the same image each time"),
    "batch": (("return ab if", "ab = ab - ab.mean()\n            return ab if"), "otherwise alone than in a batch"),
    "player": (("/ 1000})", "/ 1000}, player='convolutoin')"), "'convolutoin': the network has no such submodule"),
    "frozen": (("=0.001)", "=0.001, frozen=('convolutoin',))"), "'convolutoin': the network has no such submodule"),
    "optimizer": (("=0.001)", "=0.001, optimizer='admw')"), "no optimizer 'admw' (did you mean 'adamw'"),
    "warm-up": (("=0.001)", "=0.001, warm_up=500)"), "warm_up is 500 steps, and the stage has 4; give fewer"),
    "measures": (("    return [Stage", "    return [Stage('count', measures=True), Stage"), "needs a method measure"),
    "misspelt": (
        ("def updates", "def update"),
        "the network has 'update', which is not used; did you mean 'up",
    ),
    "schedule": (("    return [Stage", "    raise KeyError('steps')\n    return [Stage"), "KeyError: 'steps'"),
    "epochs": (("1, learning", "0, learning"), "epochs is 0; a whole number from 1 is due"),
    "updates": (("yield Update", "return\n            yield Update"), "updates yielded nothing in stage 'train'"),
    "shape": (("return ab if", "return L if"), "float32 (B, 2, H, W) is due"),
    "nan": (("return ab if", "return ab / 0 if"), "not finite"),
    "build": (("return Network()", "raise ValueError('no table')"), "ValueError: no table"),
    "result": (("return Network()", "return [Network]"), "returned list; a torch.nn.Module is due"),
    "loss": ((").mean() / 1000", ") / 1000"), "loss 'l2' is torch.float32"),
    "decay": (("=0.001)", "=0.001, decay=lambda p: 1 / (p - p))"), "ZeroDivisionError"),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_what_is_wrong_is_found_before_anything_is_trained(fresh, flaw):
    change, reason = FLAWS[flaw]
    fresh.change(*change)
    result = fresh.plan()
    assert result.exit_code == 1, result.stderr
    assert reason in result.stdout
    assert not fresh.run.exists()


def test_a_flaw_that_training_brings_out_leaves_the_cell_unscored(fresh):
    fresh.change("self.base = base", "self.base, self.mixes = base, nn.Parameter(torch.zeros(()))")
    fresh.change("return ab if", "ab = ab + 10 * self.mixes * (L - L.mean(0, keepdim=True))\n            return ab if")
    for _ in range(2):
        result = fresh()
        assert result.exit_code == 1
        assert "tiny seed 0 trained: not scored: ValueError: an image is colored otherwise alone" in one_line(result)
    assert "train 1/" not in result.stderr


def test_two_bad_models_are_two_lines_and_the_third_is_trained(fresh):
    fresh.change("def build(", "def bad(**_):\n    raise ValueError('no table')\n\n\ndef build(")
    fresh.change(
        '"a test", build, schedule, OPTIONS))',
        '"a test", build, schedule, OPTIONS))\n'
        '    register(ModelSpec("bad", "a test", bad, schedule))\n'
        '    register(ModelSpec("worse", "a test", build, lambda preset: [Stage("train", 0)]))',
    )
    result = fresh("bad,tiny,worse")
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert lines[-2:] == [
        "colorbench: bad seed 0 failed: ValueError: no table",
        "colorbench: worse seed 0 failed: ValueError: stage 'train': epochs is 0; a whole number from 1 is due",
    ]
    assert fresh.table().status["tiny"] == "done"
    assert next(line for line in lines if "train 1/" in line).startswith("tiny seed 0")


@pytest.mark.parametrize(
    ("value", "said"),
    [("torch.zeros(len(p), 2)", "(2, 2)"), ("0.0", "AttributeError"), ("sys.exit(0)", "SystemExit")],
)
def test_a_metric_that_fails_stops_the_run_before_anything_is_trained(fresh, value, said):
    metric = fresh.folder / "metric.py"
    metric.write_text(f"import sys\nimport torch\n{METRIC}".replace("LATE", f"return {value}"))
    result = fresh("tiny", "--plugin", metric)
    assert result.exit_code == 2
    assert "'largest_error'" in one_line(result)
    assert said in one_line(result)
    assert "train 1/" not in result.stderr


def test_a_process_that_ends_while_it_predicts_has_not_cost_the_training(fresh):
    saved = f"__import__('os').path.exists({str(fresh.cell() / 'weights.safetensors')!r})"
    change = "return ab if", f"{saved} and __import__('os')._exit(3)\n            return ab if"
    fresh.change(*change)
    ended = fresh()
    assert "tiny seed 0 trained: its process ended with status 3 before it was done" in ended.stderr
    weights = fresh.record()["weights_sha256"]
    fresh.change(*reversed(change))
    assert fresh("tiny", "--keep", "tiny").exit_code == 0
    assert fresh.record()["weights_sha256"] == weights
