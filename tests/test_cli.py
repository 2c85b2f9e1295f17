"""The command line end to end: on the built-in portraits, on a zip of photographs, and on bad input."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import REPOSITORY, jpeg
from PIL import Image
from skimage.color import rgb2lab

import colorbench as package
from colorbench.harness import run as harness_run

FAILING = """
from colorbench import ModelSpec, Stage, Update, hookimpl

def build(base=None, **_):
    from torch import nn
    class Network(nn.Conv2d):
        def updates(self, batch):
            loss = self(batch.L).mean() * FACTOR
            yield Update({"l2": loss})
    return Network(1, 2, 1)

@hookimpl
def register_models(register):
    register(ModelSpec("doomed", "a test", build, lambda preset: [Stage("train", 1)]))
    register(ModelSpec("on-doomed", "a test", build, lambda preset: [], refines="doomed"))
"""


@pytest.fixture
def light(registry):
    """The names of models that cost next to nothing, and of all models but ablations."""
    return [name for name, spec in registry.specs["model"].items() if not spec.parent]


@pytest.fixture
def doomed(tmp_path):
    file = tmp_path / "doomed.py"
    file.write_text(FAILING.replace("FACTOR", "float('nan')"))
    return file


def one_line(result):
    """The last line of standard error, where nothing else may look like a traceback."""
    assert "Traceback" not in result.stderr
    return result.stderr.strip().splitlines()[-1]


def test_a_run_of_all_models_has_every_row_and_file(smoke_run, light):
    result, folder = smoke_run
    assert result.exit_code == 0, result.stderr
    table = pd.read_csv(folder / "comparison.csv")
    assert set(table.model) == set(light)
    assert set(table.status) == {"done"}
    assert np.isfinite(table[["mse", "psnr", "ssim", "ciede2000"]].to_numpy()).all()
    for name in ("record.json", "comparison.md", "losses.png", "pictures.png"):
        assert (folder / name).stat().st_size > 0
    assert all((folder / "timing" / f"{name}.json").exists() for name in light)


def test_the_printed_table_is_the_file(smoke_run):
    result, folder = smoke_run
    assert (folder / "comparison.md").read_text().strip() in result.stdout


def test_the_record_says_what_made_the_numbers(smoke_run):
    _, folder = smoke_run
    record = json.loads((folder / "record.json").read_text())
    (env,) = record["environments"].values()
    assert record["protocol"]["id"]
    assert record["data"]["splits"]["test"]["images"] == 8
    assert record["preset"]["size"] == 32
    assert record["commands"][0].startswith("colorbench")
    assert env["device"]
    assert env["code"]["fingerprint"]
    assert env["packages"]["torch"] == torch.__version__.split("+")[0] or env["packages"]["torch"] == torch.__version__


def test_losses_are_kept_for_training_and_validation(smoke_run, registry):
    _, folder = smoke_run
    learning = 0
    for cell in folder.rglob("cell.json"):
        losses = pd.read_csv(cell.with_name("losses.csv"))
        if len(losses):
            learning += 1
            assert set(losses.split) == {"train", "val"}
            both = losses.groupby(["stage", "epoch", "component"]).split.nunique()
            assert set(both) == {2}
    assert learning == 4


def test_the_same_command_again_makes_nothing_anew(smoke_run, colorbench, monkeypatch):
    result, folder = smoke_run
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("cell.json")}
    monkeypatch.setattr(harness_run, "_make", lambda *_: pytest.fail("made again"))
    again = colorbench("run", "--models", "all", "--preset", "smoke", "--out", folder)
    assert again.exit_code == 0
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("cell.json")} == before
    assert again.stdout == result.stdout


def test_report_gives_the_same_table_without_torch(smoke_run):
    result, folder = smoke_run
    code = (
        "import sys; from colorbench.cli import main; main(['report', sys.argv[1]], standalone_mode=False); "
        "assert not {'torch', 'torchvision', 'accelerate'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == result.stdout


def test_a_zip_of_photographs_is_trained_scored_and_evaluated(photo_zip, colorbench, tmp_path):
    run = tmp_path / "run"
    models = "cnn,mean-color"
    result = colorbench(
        "run", "--models", models, "--data", photo_zip, "--preset", "smoke", "--out", run, "--no-timing"
    )
    assert result.exit_code == 0, result.stderr
    assert not (run / "timing").exists()
    evaluated = colorbench("evaluate", run, "--data", photo_zip, "--out", tmp_path / "evaluated")
    assert evaluated.exit_code == 0, evaluated.stderr
    first, second = (pd.read_csv(p / "comparison.csv").set_index("model") for p in (run, tmp_path / "evaluated"))
    pd.testing.assert_series_equal(first.mse, second.mse)


@pytest.mark.parametrize("size", [(31, 57), (300, 20)])
def test_a_photo_of_any_size_is_colored_and_keeps_its_luminance(smoke_run, colorbench, tmp_path, size, light):
    photo, out = tmp_path / "old.jpg", tmp_path / "new.png"
    photo.write_bytes(jpeg(5, size))
    Image.open(photo).convert("L").save(photo)
    for model in light:
        result = colorbench("colorize", photo, "--model", model, "--run", smoke_run[1], "--out", out)
        assert result.exit_code == 0, result.stderr
        colored = np.array(Image.open(out))
        assert colored.shape == (*size[::-1], 3)
        inside = ((colored > 0) & (colored < 255)).all(-1)  # clipping to the gamut takes luminance along
        L = [rgb2lab(image)[..., 0] for image in (colored, np.array(Image.open(photo).convert("RGB")))]
        np.testing.assert_allclose(L[0][inside], L[1][inside], atol=0.5)
        assert inside.any()


def test_load_model_gives_what_the_run_scored(smoke_run, light):
    folder = smoke_run[1]
    with np.load(folder / "samples.npz") as samples:
        truth = torch.from_numpy(samples["truth"]).permute(0, 3, 1, 2)
    L = package.rgb_to_lab(truth.float() / 255)[:, :1]
    for name in light:
        model = package.load_model(name, run=folder)
        assert not model.training
        with torch.no_grad():
            picture = package.lab_to_rgb(torch.cat((L, model(L)), dim=1))
        scores = package.score((picture * 255).round().to(torch.uint8), truth)
        kept = pd.read_csv(folder / "cells" / name / "seed-0" / "scores.csv")
        np.testing.assert_allclose(scores.mse, kept.mse[: len(scores)], rtol=1e-3, atol=0.05)


def test_published_weights_are_loaded_not_trained(colorbench, registry, tmp_path):
    from colorbench.harness.load import build

    (spec,) = registry.find("model", ["cnn"])
    torch.save(build(spec, 1.0, 256, seed=7).state_dict(), tmp_path / "w.pth")
    common = ("run", "--models", "cnn", "--preset", "smoke", "--no-timing", "--out", tmp_path / "run")
    result = colorbench(*common, "--weights", f"cnn={tmp_path / 'w.pth'}")
    assert result.exit_code == 0, result.stderr
    cell = json.loads((tmp_path / "run/cells/cnn/seed-0/cell.json").read_text())
    assert (cell["stages"], cell["width"]) == ([], 1.0)
    loaded = package.load_model("cnn", run=tmp_path / "run").state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in torch.load(tmp_path / "w.pth").items())
    other = colorbench(*common)
    assert other.exit_code == 2
    assert "weights.cnn" in one_line(other)


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


def test_a_network_that_breaks_the_contract_fails_before_it_trains(colorbench, doomed, tmp_path):
    doomed.write_text(
        FAILING.replace("FACTOR", "1.0").replace("nn.Conv2d):", "nn.Conv2d):\n        forward = lambda self, L: L")
    )
    arguments = ("--preset", "smoke", "--no-timing", "--out", tmp_path / "run", "--plugin", doomed)
    result = colorbench("run", "--models", "doomed", *arguments)
    assert result.exit_code == 1
    assert "float32 (B, 2, H, W) is due" in result.stdout
    assert "train 1/1" not in result.stderr


def test_a_killed_run_is_taken_up_where_it_was(tmp_path, colorbench):
    arguments = ["run", "--models", "grey,cnn,gan", "--preset", "smoke", "--epochs", "150", "--no-timing", "--out"]
    run, undisturbed = tmp_path / "run", tmp_path / "undisturbed"
    command = [sys.executable, "-m", "colorbench", *arguments, str(run)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=env)
    deadline = time.monotonic() + 120
    while not (run / "cells/gan/seed-0.part/training.pt").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = {file: file.stat().st_mtime_ns for file in run.rglob("cell.json")}
    assert len(finished) == 2
    assert "interrupted" in colorbench("report", run).stdout
    again = colorbench(*arguments, run)
    assert again.exit_code == 0, again.stderr
    assert {file: file.stat().st_mtime_ns for file in finished} == finished
    assert "starts over" not in again.stderr
    assert "gan seed 0  train 1/150" not in again.stderr
    assert not list(run.rglob("training.pt"))
    assert colorbench(*arguments, undisturbed).exit_code == 0
    states = [torch.load(folder / "cells/gan/seed-0/weights.pt", weights_only=True) for folder in (run, undisturbed)]
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


ABLATED = """
from colorbench import ModelSpec, hookimpl
from colorbench_bounds.model import Grey

@hookimpl
def register_models(register):
    spec = ModelSpec("whole", "a test", lambda part=True, **_: Grey(), lambda preset: [])
    register(spec)
    register(spec.variant("no-part", part=False))
"""


def test_ablations_run_beside_their_parent_and_all_leaves_them_out(colorbench, tmp_path):
    (tmp_path / "p.py").write_text(ABLATED)
    common = ("run", "--preset", "smoke", "--no-timing", "--plugin", tmp_path / "p.py", "--out", tmp_path / "run")
    wrong = colorbench(*common, "--models", "whole", "--ablations", "no-parts")
    assert (wrong.exit_code, "(did you mean 'no-part'?)" in one_line(wrong)) == (2, True)
    for asked in ("no-part", "all"):
        result = colorbench(*common, "--models", "whole", "--ablations", asked)
        assert result.exit_code == 0, result.stderr
        assert "| whole/no-part |" in (tmp_path / "run/ablations.md").read_text()
        assert pd.read_csv(tmp_path / "run/comparison.csv").model.tolist() == ["whole"]


def test_seeds_join_and_none_is_run_twice(colorbench, tmp_path):
    common = ("run", "--preset", "smoke", "--no-timing", "--out", tmp_path / "run")
    assert "already" not in colorbench(*common, "--models", "grey", "--seed", 0, "--seed", 0).stderr
    assert colorbench(*common, "--models", "mean-color", "--seed", 1).exit_code == 0
    assert set(pd.read_csv(tmp_path / "run/comparison.csv").status) == {"done"}


def test_an_evaluation_says_whose_weights_it_used_and_what_they_had_seen(colorbench, tmp_path, photo_zip):
    run = tmp_path / "run"
    common = ("--preset", "smoke", "--no-timing", "--out", run)
    assert colorbench("run", "--models", "mean-color", "--data", photo_zip, *common).exit_code == 0
    with zipfile.ZipFile(photo_zip) as archive, zipfile.ZipFile(tmp_path / "seen.zip", "w") as seen:
        for name in archive.namelist()[:3]:
            seen.writestr(Path(name).name, archive.read(name))
    result = colorbench("evaluate", run, "--data", tmp_path / "seen.zip")
    assert result.exit_code == 0, result.stderr
    assert "the weights are those of the run run, trained on photos" in result.stdout
    assert "3 of these images were trained on in that run" in result.stdout


def test_all_bad_names_are_told_at_once(colorbench, tmp_path):
    result = colorbench(
        "run", "--models", "cnnn,gann", "--preset", "quik", "--data", "portrait", "--out", tmp_path / "r"
    )
    assert result.exit_code == 2
    for hint in ("'cnnn' (did you mean 'cnn'?)", "'gann' (did you mean 'gan'?)", "'quick'?", "'portraits'?", "smoke"):
        assert hint in one_line(result)
    assert not (tmp_path / "r").exists()


def test_bad_weights_are_refused_before_anything_is_trained(colorbench, tmp_path):
    (tmp_path / "w.pth").write_bytes(b"PK no weights")
    common = ("run", "--models", "grey,cnn", "--preset", "smoke", "--out", tmp_path / "run")
    result = colorbench(*common, "--weights", f"cnn={tmp_path / 'w.pth'}")
    assert (result.exit_code, list((tmp_path / "run").rglob("cell.json"))) == (2, [])
    assert "truncated" in one_line(result)
    refiner = colorbench(
        "run", "--models", "enhanced-unet", *common[3:], "--weights", f"enhanced-unet={tmp_path / 'w.pth'}"
    )
    assert "which a weight file does not hold" in one_line(refiner)
    stranger = colorbench(*common, "--weights", f"gan={tmp_path / 'w.pth'}")
    assert "unknown model for --weights among those that run 'gan'" in one_line(stranger)
    assert "say MODEL=FILE" in one_line(colorbench(*common, "--weights", "w.pth"))
    assert "unknown model 'cnm' (did you mean 'cnn'?)" in one_line(colorbench(*common, "--weights", "cnm=w.pth"))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no image"),
        ({f"{i}.jpg": b"broken %d" % i for i in range(30)}, "cannot be read"),
        ({f"{i}.jpg": jpeg(i, (1, 1)) for i in range(30)}, "1x1 pixels"),
        ({"notes.txt": b"hello"}, "holds no image"),
    ],
)
def test_data_without_a_usable_image_is_one_line(colorbench, tmp_path, files, message):
    data = tmp_path / "photos"
    data.mkdir()
    for name, content in files.items():
        (data / name).write_bytes(content)
    result = colorbench("run", "--models", "grey", "--data", data, "--preset", "smoke", "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert message in one_line(result)


def test_a_truncated_zip_is_one_line(colorbench, tmp_path, photo_zip):
    (tmp_path / "half.zip").write_bytes(photo_zip.read_bytes()[:2000])
    result = colorbench("run", "--data", tmp_path / "half.zip", "--preset", "smoke", "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "neither a folder nor a zip" in one_line(result)


def test_another_setting_in_the_same_folder_is_refused(smoke_run, colorbench):
    result = colorbench("run", "--models", "grey", "--preset", "smoke", "--size", 48, "--out", smoke_run[1])
    assert result.exit_code == 2
    assert "preset.size (32 there, 48 here)" in one_line(result)


def test_a_full_disk_is_one_line_and_keeps_what_is_finished(colorbench, tmp_path, monkeypatch):
    write = Path.write_bytes

    def full(file, content):
        if file.name == "weights.pt" and "mean" in str(file):
            raise OSError(errno.ENOSPC, "No space left on device", file.name)
        return write(file, content)

    arguments = ("run", "--models", "grey,mean-color", "--preset", "smoke", "--no-timing", "--out", tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        result = colorbench(*arguments)
    assert result.exit_code == 2
    assert "the disk is full" in one_line(result)
    assert len(list((tmp_path / "run").rglob("cell.json"))) == 1
    assert colorbench(*arguments).exit_code == 0


def test_ctrl_c_says_how_to_go_on(colorbench, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(harness_run, "_make", stop)
    result = colorbench("run", "--models", "grey", "--preset", "smoke", "--out", tmp_path / "run")
    assert result.exit_code == 130
    assert "run the same command again" in one_line(result)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("report", "absent"), "no run folder"),
        (("evaluate", "absent", "--data", "portraits"), "no run folder"),
        (("colorize", "absent.jpg", "--model", "grey", "--run", "absent"), "no run folder"),
        (("colorize", "absent.jpg", "--model", "grey"), "either weights=FILE or run=FOLDER"),
        (("colorize", "absent.jpg", "--model", "gray", "--run", "absent"), "did you mean 'grey'?"),
        (("list", "models", "--plugin", "absent.py"), "cannot load the plugin absent.py"),
    ],
)
def test_other_verbs_refuse_bad_input_in_one_line(colorbench, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = colorbench(*arguments)
    assert result.exit_code == 2
    assert message in one_line(result)


def test_a_photo_that_cannot_be_read_is_one_line(colorbench, smoke_run, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    for photo, message in ((tmp_path / "a.jpg", "not an image"), (tmp_path / "b.jpg", "No such file")):
        result = colorbench("colorize", photo, "--model", "grey", "--run", smoke_run[1])
        assert result.exit_code == 2
        assert message in one_line(result)
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    result = colorbench(
        "colorize", tmp_path / "a.jpg", "--model", "grey", "--run", smoke_run[1], "--out", tmp_path / "a.jpg" / "b.png"
    )
    assert result.exit_code == 2
    assert "cannot write" in one_line(result)


@pytest.mark.parametrize("what", ["models", "datasets", "metrics", "presets", "plugins"])
def test_list_names_everything(colorbench, registry, what):
    result = colorbench("list", what)
    assert result.exit_code == 0, result.stderr
    kind = what.removesuffix("s")
    names = {"presets": ["smoke", "quick", "paper"], "plugins": [p.name for p in registry.plugins]}.get(
        what, list(registry.specs.get(kind, ()))
    )
    assert all(name in result.stdout for name in names)


PHOTOGRAPHS = Path(os.environ.get("COLORBENCH_PHOTOGRAPHS", REPOSITORY / "../shared/data/natural/test.zip"))


@pytest.mark.skipif(not PHOTOGRAPHS.exists(), reason="needs a zip of photographs: COLORBENCH_PHOTOGRAPHS=FILE")
def test_real_photographs(colorbench, tmp_path):
    with zipfile.ZipFile(PHOTOGRAPHS) as archive, zipfile.ZipFile(tmp_path / "some.zip", "w") as some:
        for name in archive.namelist()[:60]:
            some.writestr(name, archive.read(name))
    result = colorbench(
        "run", "--data", tmp_path / "some.zip", "--preset", "smoke", "--no-timing", "--out", tmp_path / "run"
    )
    assert result.exit_code == 0, result.stderr
