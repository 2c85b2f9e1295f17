"""The command line end to end: on the built-in portraits, and on a zip of photographs."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import REPOSITORY, jpeg, one_line
from PIL import Image
from skimage.color import rgb2lab

import colorbench as package
from colorbench.runs import executors


@pytest.fixture
def light(registry):
    """The names of what --models all stands for, but bounds."""
    return [name for name, s in registry.specs["model"].items() if s.in_all and not (s.parent or s.sees_truth)]


def test_a_run_of_all_models_has_every_row_and_file(smoke_run, light, registry):
    result, folder = smoke_run
    assert result.exit_code == 0, result.stderr
    table = pd.read_csv(folder / "comparison.csv")
    bounds = {name for name, spec in registry.specs["model"].items() if spec.sees_truth and not spec.parent}
    assert set(table.model) == {*light, *bounds}
    assert set(table.status) == {"done"}
    assert np.isfinite(table[["mse", "ssim", "ciede2000"]].to_numpy()).all()
    assert list(np.isfinite(table.psnr)) == list(table.mse > 0)  # 32 px of the true ab are all that there are
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


def test_losses_are_kept_for_training_and_validation(smoke_run):
    _, folder = smoke_run
    for cell in folder.rglob("cell.json"):
        file = cell.with_name("losses.parquet")
        assert file.exists() == (json.loads(cell.read_text())["parameters"] > 0), cell
        if file.exists():
            losses = pd.read_parquet(file)
            assert set(losses.split) == {"train", "val"}
            both = losses.groupby(["stage", "epoch", "component"]).split.nunique()
            assert set(both) == {2}


def test_the_same_command_again_makes_nothing_anew(smoke_run, colorbench, monkeypatch):
    result, folder = smoke_run
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("cell.json")}
    monkeypatch.setattr(executors, "call", lambda *_: pytest.fail("made again"))
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
        result = colorbench("colorize", photo, "--model", model, "--run", smoke_run[1], "--out", out, "--overwrite")
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
        kept = pd.read_parquet(folder / "cells" / name / "seed-0" / "scores.parquet")
        np.testing.assert_allclose(scores.mse, kept.mse[: len(scores)], rtol=1e-3, atol=0.05)


def test_published_weights_are_loaded_not_trained(colorbench, registry, tmp_path):
    from colorbench.harness.networks import build

    (spec,) = registry.find("model", ["cnn"])
    torch.save(build(spec, 1.0, 256, seed=7).state_dict(), tmp_path / "w.pth")
    common = ("run", "--models", "cnn", "--preset", "smoke", "--no-timing", "--out", tmp_path / "run")
    result = colorbench(*common, "--weights", f"cnn={tmp_path / 'w.pth'}")
    assert result.exit_code == 0, result.stderr
    cell = json.loads((tmp_path / "run/cells/cnn/seed-0/cell.json").read_text())
    assert (cell["made_from"]["stages"], cell["width"]) == ([], 1.0)
    loaded = package.load_model("cnn", run=tmp_path / "run").state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in torch.load(tmp_path / "w.pth").items())
    other = colorbench(*common)
    assert other.exit_code == 2
    assert "cnn seed 0: " in other.stderr
    assert 'weights {"file": "w.pth"' in other.stderr


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
    none = colorbench(*common, "--models", "cnn", "--ablations", "all")
    assert (none.exit_code, "there is no ablation of cnn" in one_line(none)) == (2, True)
    for asked in ("no-part", "all", "whole/no-part"):
        result = colorbench(*common, "--models", "whole", "--ablations", asked)
        assert result.exit_code == 0, result.stderr
        assert "| whole/no-part |" in (tmp_path / "run/ablations.md").read_text()
        assert pd.read_csv(tmp_path / "run/comparison.csv").model.tolist() == ["whole"]


def test_an_ablation_of_each_kind_runs(colorbench, tmp_path, registry):
    """One for each way in which they differ from their parents; that each trains is a law, which all are under."""
    models, kinds = registry.specs["model"], {}
    for spec in (spec for spec in models.values() if spec.parent in models):
        parent = models[spec.parent]
        kind = spec.trained_as, spec.refines == parent.refines, spec.build == parent.build, spec.takes
        kinds.setdefault((spec.parent, *kind), spec)
    changes = ",".join(dict.fromkeys(spec.name.partition("/")[2] for spec in kinds.values()))
    parents = ",".join(dict.fromkeys(spec.parent for spec in kinds.values()))
    asked = ("run", "--models", parents, "--ablations", changes, "--preset", "smoke", "--no-timing", "--out", tmp_path)
    result = colorbench(*asked)
    assert result.exit_code == 0, result.stderr
    table = pd.read_csv(tmp_path / "ablations.csv").set_index("model")
    assert set(table.index) >= {spec.name for spec in kinds.values()}
    assert set(table.status) == {"done"}
    assert table.loc[table.index.str.contains("/"), ["parent_gain_percent", "parent_verdict"]].notna().all(axis=None)


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


@pytest.mark.parametrize("what", ["models", "datasets", "metrics", "diagnostics", "presets", "plugins"])
def test_list_names_everything(colorbench, registry, what):
    result = colorbench("list", what)
    assert result.exit_code == 0, result.stderr
    kind = what.removesuffix("s")
    names = {"presets": ["smoke", "quick", "paper"], "plugins": [p.name for p in registry.plugins]}.get(
        what, list(registry.specs.get(kind, ()))
    )
    assert all(name in result.stdout for name in names)


def test_a_plugin_of_many_models_does_not_push_the_other_columns_out_of_sight(colorbench):
    for line in colorbench("list", "plugins").stdout.splitlines():
        assert line.index("(colorbench ") < 60


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
