"""A failed model, a kill, a second process, a missing base: each is a row with its reason, and the rest goes on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch
from conftest import FAILING, jpeg, one_line


def test_a_failed_model_is_a_row_and_the_others_go_on(colorbench, doomed, tmp_path):
    run = tmp_path / "run"
    arguments = ("--preset", "smoke", "--out", run, "--no-timing", "--plugin", doomed)
    result = colorbench("run", "--models", "on-doomed,grey", *arguments)
    assert result.exit_code == 1
    table = pd.read_csv(run / "comparison.csv").set_index("model")
    assert table.status.str.extract("([a-z]+)")[0].to_dict() == {
        "grey": "done",
        "doomed": "failed",
        "on-doomed": "skipped",
    }
    assert "loss 'l2' is nan" in (run / "comparison.md").read_text()
    assert "Traceback" in (run / "cells/doomed/seed-0/traceback.txt").read_text()
    doomed.write_text(FAILING.replace("FACTOR", "1.0"))
    mended = colorbench("run", "--models", "on-doomed,grey", *arguments)
    assert mended.exit_code == 0, mended.stderr
    assert set(pd.read_csv(run / "comparison.csv").status) == {"done"}


def test_a_model_that_fails_on_other_images_is_a_row_of_the_evaluation(colorbench, doomed, photo_zip, tmp_path):
    run, out, sound = tmp_path / "run", tmp_path / "evaluated", FAILING.replace("FACTOR", "1.0")
    doomed.write_text(sound)
    arguments = ("--preset", "smoke", "--out", run, "--no-timing", "--plugin", doomed)
    assert colorbench("run", "--models", "doomed,grey", *arguments).exit_code == 0
    evaluate = ("evaluate", run, "--data", photo_zip, "--out", out, "--plugin", doomed)
    doomed.write_text(
        sound.replace("        def updates", "        forward = lambda self, L: [][0]\n        def updates")
    )
    failed = colorbench(*evaluate)
    assert failed.exit_code == 1
    assert one_line(failed) == "colorbench: doomed seed 0 failed: IndexError: list index out of range"
    assert "IndexError" in (out / "comparison.md").read_text()
    doomed.write_text(sound)
    assert colorbench(*evaluate).exit_code == 0
    assert set(pd.read_csv(out / "comparison.csv").status) == {"done"}


def test_a_model_that_cannot_be_built_again_is_one_line(colorbench, doomed, tmp_path):
    run, sound = tmp_path / "run", FAILING.replace("FACTOR", "1.0")
    doomed.write_text(sound)
    arguments = ("--preset", "smoke", "--out", run, "--no-timing", "--plugin", doomed)
    assert colorbench("run", "--models", "doomed", *arguments).exit_code == 0
    doomed.write_text(sound.replace("    from torch import nn", "    raise ValueError('its file is gone')"))
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(jpeg(0))
    result = colorbench("colorize", photo, "--model", "doomed", "--run", run, "--plugin", doomed)
    assert result.exit_code == 2
    assert one_line(result).endswith("cannot be built again: its file is gone")


def test_a_network_that_breaks_the_contract_fails_before_it_trains(colorbench, doomed, tmp_path):
    doomed.write_text(
        FAILING.replace("FACTOR", "1.0").replace("nn.Conv2d):", "nn.Conv2d):\n        forward = lambda self, L: L")
    )
    arguments = ("--preset", "smoke", "--no-timing", "--out", tmp_path / "run", "--plugin", doomed)
    result = colorbench("run", "--models", "doomed", *arguments)
    assert result.exit_code == 1
    assert "float32 (B, 2, H, W) is due" in result.stdout
    assert "train 1/1" not in result.stderr


# One killed among others that are done, and one in the middle of its second stage, behind the training of its base.
@pytest.mark.parametrize(
    ("models", "epochs", "behind", "stage", "past"),
    [("grey,cnn,gan", 150, 2, 0, "train 1/150"), ("enhanced-unet", 60, 1, 1, "warm-up")],
)
def test_a_killed_run_is_taken_up_where_it_was(tmp_path, colorbench, models, epochs, behind, stage, past):
    last, common = models.split(",")[-1], ["--preset", "smoke", "--epochs", str(epochs), "--no-timing", "--out"]
    arguments = ["run", "--models", models, *common]
    run, undisturbed = tmp_path / "run", tmp_path / "undisturbed"
    command = [sys.executable, "-m", "colorbench", *arguments, str(run)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=env)
    deadline = time.monotonic() + 120
    checkpoint = run / f"cells/{last}/seed-0.part/training.pt"
    while not checkpoint.exists() or torch.load(checkpoint, weights_only=True)["training"]["stage"] < stage:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert torch.load(checkpoint, weights_only=True)["training"]["stage"] == stage
    finished = {file: file.stat().st_mtime_ns for file in run.rglob("cell.json")}
    assert len(finished) == behind
    assert "interrupted" in colorbench("report", run).stdout
    again = colorbench(*arguments, run)
    assert again.exit_code == 0, again.stderr
    assert {file: file.stat().st_mtime_ns for file in finished} == finished
    assert "starts over" not in again.stderr
    assert f"{last} seed 0  {past}" not in again.stderr
    assert not list(run.rglob("training.pt"))
    assert colorbench(*arguments, undisturbed).exit_code == 0
    states = [
        torch.load(folder / f"cells/{last}/seed-0/weights.pt", weights_only=True) for folder in (run, undisturbed)
    ]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def two_processes(*arguments):
    """Run the command line in two processes. torchrun is what `accelerate launch` calls for several GPUs."""
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "-m",
        "colorbench",
    ]
    env = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = [*launch, *map(str, arguments)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


def test_two_processes_share_the_work(tmp_path, colorbench):
    """Counts are joined, gradients averaged, and one process alone saves and reports."""
    arguments = ("run", "--models", "mean-color,gan", "--preset", "smoke", "--no-timing", "--out")
    done = two_processes(*arguments, tmp_path / "two")
    assert done.stdout.count("# Comparison on") == 1
    (env,) = json.loads((tmp_path / "two" / "record.json").read_text())["environments"].values()
    assert env["processes"] == 2
    assert colorbench(*arguments, tmp_path / "one").exit_code == 0
    one, two = (pd.read_csv(tmp_path / n / "comparison.csv").set_index("model").mse for n in ("one", "two"))
    assert one["mean-color"] == pytest.approx(two["mean-color"], rel=1e-6)
    assert one["gan"] == pytest.approx(two["gan"], rel=0.1)


def test_a_few_images_left_over_are_no_trap_for_several_processes(tmp_path):
    arguments = ("run", "--models", "cnn", "--preset", "smoke", "--batch-size", "31", "--no-timing", "--out")
    two_processes(*arguments, tmp_path / "run")


METRIC = """
from colorbench import MetricSpec, hookimpl

@hookimpl
def register_metrics(register):
    register(MetricSpec("largest_error", "a test", lambda p, t: (p.int() - t.int()).abs().amax((1, 2, 3)).FAIL()))
"""


def test_a_metric_of_a_plugin_is_a_column_and_one_that_fails_costs_no_training(colorbench, tmp_path):
    arguments = ("run", "--models", "grey", "--preset", "smoke", "--no-timing", "--plugin", tmp_path / "m.py")
    (tmp_path / "m.py").write_text(METRIC)
    failing = colorbench(*arguments, "--out", tmp_path / "failing")
    assert failing.exit_code == 2
    assert "the metric 'largest_error' fails (AttributeError" in one_line(failing)
    (tmp_path / "m.py").write_text(METRIC.replace(".FAIL()", ""))
    assert colorbench(*arguments, "--out", tmp_path / "run").exit_code == 0
    assert pd.read_csv(tmp_path / "run/comparison.csv").largest_error[0] > 0


def test_a_model_whose_base_is_not_installed_is_a_row(colorbench, tmp_path, doomed):
    doomed.write_text(FAILING.replace("FACTOR", "1.0").replace('refines="doomed"', 'refines="gone"'))
    arguments = ("--preset", "smoke", "--no-timing", "--out", tmp_path / "run", "--plugin", doomed)
    result = colorbench("run", "--models", "on-doomed,grey", *arguments)
    assert result.exit_code == 1
    assert "its base gone is not installed" in result.stdout


def test_a_refiner_whose_base_was_made_anew_is_made_anew(colorbench, tmp_path, doomed):
    doomed.write_text(FAILING.replace("FACTOR", "1.0"))
    arguments = ("run", "--models", "on-doomed", "--preset", "smoke", "--no-timing", "--out", tmp_path / "run")
    assert colorbench(*arguments, "--plugin", doomed).exit_code == 0
    doomed.write_text(FAILING.replace("FACTOR", "-1.0"))
    shutil.rmtree(tmp_path / "run/cells/doomed")
    again = colorbench(*arguments, "--plugin", doomed)
    assert "on-doomed seed 0: done" in again.stderr


AT_TEST = """
import dataclasses

@hookimpl
def register_models(register):
    spec = ModelSpec("doomed", "a test", build, lambda preset: [Stage("train", 1)])
    register(spec)
    register(dataclasses.replace(spec, name="brighter", build=build_brighter, trained_as="doomed"))

def build_brighter(**_):
    network = build()
    network.register_forward_hook(lambda module, inputs, output: 2 * output)
    return network
"""


def test_a_model_that_differs_at_test_alone_takes_the_weights_of_the_other(colorbench, tmp_path, doomed):
    run, sound = tmp_path / "run", FAILING[: FAILING.index("@hookimpl")] + AT_TEST
    arguments = ("run", "--models", "brighter", "--preset", "smoke", "--no-timing", "--out", run, "--plugin", doomed)
    doomed.write_text(sound.replace("FACTOR", "float('nan')"))
    failed = colorbench(*arguments)
    assert failed.exit_code == 1
    assert "brighter seed 0 skipped: the model whose weights it takes, doomed is not there" in failed.stderr
    for factor in ("1.0", "-1.0"):  # trained otherwise, it makes the other anew
        doomed.write_text(sound.replace("FACTOR", factor))
        done = colorbench(*arguments)
        assert done.exit_code == 0, done.stderr
        assert "doomed seed 0  train 1/1" in done.stderr
        assert "brighter seed 0  train" not in done.stderr
        cells = [json.loads((run / f"cells/{model}/seed-0/cell.json").read_text()) for model in ("doomed", "brighter")]
        for key in ("weights_sha256", "images_seen", "stages"):
            assert cells[0][key] == cells[1][key]
        table = pd.read_csv(run / "comparison.csv").set_index("model")
        assert table.mse["brighter"] != table.mse["doomed"]
        shutil.rmtree(run / "cells/doomed")
