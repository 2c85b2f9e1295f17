"""A failed model, a kill, a second process, a missing base: each is a row with its reason, and the rest goes on."""

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from conftest import FAILING, REPOSITORY, call, jpeg, one_line
from safetensors.torch import load_file

EXAMPLE = REPOSITORY / "examples" / "classifier_prior.py"


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
    assert one_line(failed) == "colorbench: doomed seed 0 trained: not scored: IndexError: list index out of range"
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
    assert one_line(result).endswith("cannot be built again: ValueError: its file is gone")


def test_a_network_that_breaks_the_contract_fails_before_it_trains(colorbench, doomed, tmp_path):
    doomed.write_text(
        FAILING.replace("FACTOR", "1.0").replace("nn.Conv2d):", "nn.Conv2d):\n        forward = lambda self, L: L")
    )
    arguments = ("--preset", "smoke", "--no-timing", "--out", tmp_path / "run", "--plugin", doomed)
    result = colorbench("run", "--models", "doomed", *arguments)
    assert result.exit_code == 1
    assert "float32 (B, 2, H, W) is due" in result.stdout
    assert "train 1/1" not in result.stderr


def position(checkpoint):
    """Stage, epoch and step, from the checkpoint's second line."""
    return json.loads(checkpoint.read_bytes().split(b"\n", 2)[1])["position"]


def test_a_killed_run_is_taken_up_where_it_was(fresh, tmp_path):
    """Killed in the middle of a second stage, behind the training of its base and another model."""
    fresh.change("yield Update", "import time\n            time.sleep(0.02)\n            yield Update")
    fresh.change('build, schedule, refines="tiny"', 'build, stages, refines="tiny"')
    fresh.change(
        "OPTIONS = {}", "def stages(preset):\n    return [Stage('first', 1), Stage('second', 10)]\n\n\nOPTIONS = {}"
    )
    command = [sys.executable, "-m", "colorbench", "run", *map(str, fresh.arguments("grey,on-tiny")), "--no-timing"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    checkpoint = fresh.cell("on-tiny") / "training.pt"
    while not checkpoint.exists() or position(checkpoint)[0] < 1:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert position(checkpoint)[0] == 1
    finished = {file: file.stat().st_mtime_ns for file in fresh.run.rglob("cell.json")}
    assert len(finished) == 2
    assert "interrupted" in call("report", fresh.run).stdout
    again = fresh("grey,on-tiny")
    assert again.exit_code == 0, again.stderr
    assert {file: file.stat().st_mtime_ns for file in finished} == finished
    assert "starts over" not in again.stderr
    assert "on-tiny seed 0  first" not in again.stderr
    assert not list(fresh.run.rglob("training.pt"))
    weights = (fresh.cell("on-tiny") / "weights.safetensors").read_bytes()
    fresh.run = tmp_path / "undisturbed"
    assert fresh("on-tiny").exit_code == 0
    assert weights == (fresh.cell("on-tiny") / "weights.safetensors").read_bytes()


def two_processes(*arguments):
    """Run the command line in two processes. torchrun is what `accelerate launch` calls for several GPUs."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "colorbench"]
    env = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launch, *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=300)


def test_two_processes_share_the_work(tmp_path, colorbench):
    """Counts are joined, gradients averaged, statistics alike, and one process alone saves and reports."""
    models = ("--models", "mean-color,gan,classifier-prior", "--plugin", EXAMPLE)
    # Of 32 images one is left over, for one of the two.
    arguments = ("run", *models, "--preset", "smoke", "--batch-size", 31, "--no-timing", "--out")
    done = two_processes(*arguments, tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("# Comparison on") == 1
    (env,) = json.loads((tmp_path / "two" / "record.json").read_text())["environments"].values()
    assert env["processes"] == 2
    assert colorbench(*arguments, tmp_path / "one").exit_code == 0
    one, two = (pd.read_csv(tmp_path / n / "comparison.csv").set_index("model").mse for n in ("one", "two"))
    assert one["mean-color"] == pytest.approx(two["mean-color"], rel=1e-6)
    assert one["gan"] == pytest.approx(two["gan"], rel=0.1)
    weights = (tmp_path / n / "cells/classifier-prior/seed-0/weights.safetensors" for n in ("one", "two"))
    alone, shared = (load_file(file)["prior"] for file in weights)
    assert alone.equal(shared)


def test_one_of_two_processes_that_fails_ends_both_with_its_reason(fresh):
    fresh.change(
        "yield Update",
        """import os
            if os.environ.get("RANK") == WHO:
                raise ValueError("no such luck")
            yield Update""",
    )
    text = fresh.file.read_text()
    fresh.write(text.replace("WHO", "'1'"))
    alone = two_processes("run", *fresh.arguments("tiny,grey"), "--no-timing")
    assert alone.returncode != 0
    assert "colorbench: process 1 of 2 failed alone: ValueError: no such luck" in alone.stderr
    fresh.write(text.replace("WHO", "os.environ.get('RANK')"))
    both = two_processes("run", *fresh.arguments("tiny,grey"), "--no-timing")
    assert "colorbench: tiny seed 0 failed: ValueError: no such luck" in both.stderr
    assert fresh.table().status["grey"] == "done"


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
    for factor in ("1.0", "-1.0"):
        doomed.write_text(sound.replace("FACTOR", factor))
        done = colorbench(*arguments, "--again", "all")
        assert done.exit_code == 0, done.stderr
        assert "doomed seed 0  train 1/1" in done.stderr
        assert "brighter seed 0  train" not in done.stderr
        cells = [json.loads((run / f"cells/{model}/seed-0/cell.json").read_text()) for model in ("doomed", "brighter")]
        for key in ("weights_sha256", "images_seen"):
            assert cells[0][key] == cells[1][key]
        table = pd.read_csv(run / "comparison.csv").set_index("model")
        assert table.mse["brighter"] != table.mse["doomed"]


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ("None", "ValueError: schedule returned NoneType; a sequence of Stage is due"),
        ("['train']", "ValueError: schedule returned str among its stages; each has to be a Stage"),
        (
            "[Stage('train', decay=0.5)]",
            "ValueError: stage 'train': decay is 0.5; a function from 0..1 to finite numbers",
        ),
        ("[Stage('train', images=lambda *_: 3)]", "ValueError: stage 'train': images fails (TypeError: object of type"),
    ],
)
def test_a_schedule_that_is_none_is_a_row_that_says_so(fresh, schedule, said):
    fresh.change('[Stage("train", 1, learning_rate=0.001)]', schedule)
    assert said in one_line(fresh())
