"""A run from Python: the same as from the command line, and an object to look at it with."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import psutil
import pytest
from conftest import FAILING, TINY, call, jpeg, jpegs, one_line
from PIL import Image

import colorbench
from colorbench import Preset, UserError, plugins
from colorbench.api.settings import options_of
from colorbench.api.train import prepare
from colorbench.presets import PRESETS
from colorbench.runs.executors import shows_bars
from colorbench.runs.fields import own_fields
from colorbench.runs.folder import TRAINING, RunFolder
from colorbench.runs.plan import RESUMABLE

SMALL = {"preset": "smoke", "size": 16, "timing": False}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two plugin files: a small network with what refines it, and a model that fails."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "tiny.py").write_text(TINY)
    (folder / "doomed.py").write_text(FAILING.replace("FACTOR", "float('nan')"))
    return [folder / "tiny.py", folder / "doomed.py"]


@pytest.fixture(scope="module")
def run(files, tmp_path_factory):
    """A run of two models, two seeds and a failure, not to be changed."""
    out = tmp_path_factory.mktemp("runs") / "run"
    return colorbench.run(["tiny", "grey", "doomed"], seeds=[0, 1], plugins=files, out=out, **SMALL)


def test_a_failed_model_is_a_row_with_its_reason(run):
    table = run.comparison.set_index("model")
    assert list(table.loc[["tiny", "grey"], "status"]) == ["done", "done"]
    assert "failed" in table.loc["doomed", "status"]
    assert {cell.model for cell in run.cells if cell.status != "done"} == {"doomed"}


def test_the_tables_are_those_of_the_folder(run):
    assert list(run.comparison.columns) == list(pd.read_csv(run.path / "comparison.csv").columns)
    assert set(run.scores.groupby(["model", "seed"]).size()) == {8}
    assert set(run.losses["split"]) == {"train", "val"}
    assert (len(run.ablations), [*run.ablations]) == (0, ["model", "status"])
    assert run.markdown == (run.path / "comparison.md").read_text()
    assert run.record.seeds == [0, 1]
    assert run.record.commands[0].startswith("colorbench.run(['tiny', 'grey', 'doomed'], 'portraits', seeds=[0, 1]")


def test_the_command_line_finds_it_done(run, files):
    given = [word for file in files for word in ("--plugin", file)]
    again = call(
        "run", "--models", "tiny,grey", "--preset", "smoke", "--size", 16, "--seed", 0, "--seed", 1, "--no-timing",
        "--out", run.path, *given,
    )  # fmt: skip
    assert again.exit_code == 0, again.stderr
    assert "4 of 4 are done already" in again.stderr


def test_a_notebook_shows_the_table_the_reason_and_the_protocol(run):
    html = run._repr_html_()
    assert run.record.protocol.id in html
    assert "<td>tiny</td>" in html
    assert "FloatingPointError" in html or "not finite" in html or "nan" in html.lower()
    assert "tiny" in repr(run)


def test_predictions_are_those_in_the_zip_by_model_and_seed(run):
    assert set(run.predictions) == {"tiny", "grey"}
    first, other = run.predictions["tiny"], run.pictures("tiny", seed=1)
    name = run.scores["image"].iloc[0]
    assert len(first) == len(list(first)) == 8
    assert (first[name].mode, first[name].size) == ("RGB", (16, 16))
    assert np.any(np.asarray(first[name]) != np.asarray(other[name]))
    assert ("strange.png" in first, "nope" in run.predictions, run.predictions.get("nope")) == (False, False, None)
    for mapping, key, said in (
        (first, f"{name}x", f"did you mean '{name}'"),
        (run.predictions, "tinny", r"did you mean 'tiny'"),
        (run.predictions, "doomed", "keeps no predictions of doomed"),
    ):
        with pytest.raises(UserError, match=said) as missing:
            mapping[key]
        assert isinstance(missing.value, KeyError)
        assert not str(missing.value).startswith(("'", '"'))
    with pytest.raises(UserError, match=r"unknown model 'tinny' \(did you mean 'tiny'\?\)"):
        run.pictures("tinny")
    with pytest.raises(UserError, match="keeps no predictions of doomed"):
        run.pictures("doomed")


def test_a_picture_is_colored_from_a_file_an_image_or_an_array(run, tmp_path):
    (photo := tmp_path / "old.jpg").write_bytes(jpeg(3))
    image = Image.open(photo)
    given = (photo, str(photo), image, np.asarray(image))
    colored = [np.asarray(run.colorize(picture, model="tiny")) for picture in given]
    assert colored[0].shape == (40, 48, 3)
    assert all(np.array_equal(colored[0], other) for other in colored)
    assert run.scores.groupby("model")["mse"].mean().idxmin() == "grey"  # which has no parameters, and no color
    assert np.array_equal(np.asarray(run.colorize(photo)), colored[0])
    with pytest.raises(UserError, match="cannot read the picture"):
        run.colorize(np.zeros((4, 4)) + 0.5)


def test_a_run_is_evaluated_scored_and_merged_in_silence_but_for_what_fails(run, files, tmp_path, capsys, caplog):
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)
    with caplog.at_level("INFO", "colorbench"):
        evaluated = colorbench.evaluate(copy, jpegs(tmp_path / "photos", 3), plugins=files[0])
    assert evaluated.path.is_relative_to(copy)
    assert [*evaluated.comparison["model"]] == ["grey", "tiny"] or [*evaluated.comparison["model"]] == ["tiny", "grey"]
    assert "tiny seed 1: done" in caplog.messages
    scored = colorbench.score_run(copy, plugins=files)
    merged = colorbench.merge([copy], tmp_path / "merged")
    for other in (scored, merged):
        pd.testing.assert_frame_equal(other.scores, run.scores)
    assert capsys.readouterr().err == ""
    for runs in (3, [], "run"):
        with pytest.raises(UserError, match=r"runs is .*; give the paths of run folders, in a list"):
            colorbench.merge(runs, tmp_path / "other")
    with pytest.raises(UserError, match="data is 3; give a dataset"):
        colorbench.evaluate(copy, 3)
    with pytest.raises(UserError, match="plugins is 3; give a file"):
        colorbench.score_run(copy, plugins=3)


def test_test_images_are_exported_as_the_command_does(tmp_path):
    photos, out = jpegs(tmp_path / "photos", 3), tmp_path / "out"
    assert colorbench.export(photos, out, size=16) == 3
    assert [len([*(out / kind).iterdir()]) for kind in ("input", "truth")] == [3, 3]
    with pytest.raises(UserError, match="--size 8 is not in the range 16 to"):
        colorbench.export(photos, tmp_path / "other", size=8)
    with pytest.raises(UserError, match="is not an empty folder"):
        colorbench.export(photos, out, size=16)


def test_a_folder_is_opened_without_reading_its_tables(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "copy")
    for name in ("scores.parquet", "predictions.zip"):
        (tmp_path / "copy/cells/tiny/seed-0" / name).write_bytes(b"no more")
    opened = colorbench.open_run(tmp_path / "copy")
    assert opened.record.seeds == [0, 1]
    with pytest.raises(UserError, match=r"scores.parquet is damaged"):
        opened.scores  # noqa: B018
    shutil.copy(run.path / "cells/tiny/seed-0/scores.parquet", tmp_path / "copy/cells/tiny/seed-0")
    with pytest.raises(UserError, match=r"predictions.zip is damaged"):
        opened.predictions["tiny"][run.scores["image"].iloc[0]]
    with pytest.raises(UserError, match="is not a run folder"):
        colorbench.open_run(tmp_path)


@pytest.mark.parametrize(
    ("models", "settings", "arguments"),
    [
        ("cnnn,gann", {"preset": "quik"}, ["--models", "cnnn,gann", "--preset", "quik"]),
        (["cnn"], {"ablations": "all"}, ["--models", "cnn", "--ablations", "all"]),
        ("cnn", {"ablations": ""}, ["--models", "cnn", "--ablations", ""]),
        ("cnn", {"size": 10, "epochs": 0}, ["--models", "cnn", "--size", "10", "--epochs", "0"]),
        ("cnn", {"width": float("nan")}, ["--models", "cnn", "--width", "nan"]),
        ("cnn", {"seeds": [-1]}, ["--models", "cnn", "--seed", "-1"]),
        ("cnn", {"protocol": "zhang"}, ["--models", "cnn", "--protocol", "zhang"]),
        ("cnn", {"predictions": "some"}, ["--models", "cnn", "--predictions", "some"]),
        ("cnn", {"pictures": {"a": "absent"}}, ["--models", "cnn", "--pictures", "a=absent"]),
        ("cnn", {"weights": {"gan": "absent"}}, ["--models", "cnn", "--weights", "gan=absent"]),
        ("grey", {"again": "cnn"}, ["--models", "grey", "--again", "cnn"]),
        (" , ", {}, ["--models", " , "]),
    ],
)
def test_the_same_mistake_is_told_in_the_same_line(models, settings, arguments, tmp_path):
    """Also in the same words, from Python and from the command line."""
    size = {} if "size" in settings else {"size": 16}
    with pytest.raises(UserError) as told:
        colorbench.run(models, out=tmp_path / "run", **{"preset": "smoke", **size, **settings})
    more = ["--size", "16"] if size else []
    preset = [] if "preset" in settings else ["--preset", "smoke"]
    result = call("run", *arguments, *more, *preset, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert one_line(result) == f"colorbench: {told.value}"
    assert told.value._render_traceback_() == [one_line(result)]


@pytest.mark.parametrize(
    ("models", "settings", "line"),
    [
        (5, {}, "models is 5; give names, in a list or with commas between"),
        (["grey", None], {"plugins": 3}, "models is ['grey', None]; give names"),
        ("grey", {"seeds": "01"}, "seeds is '01'; give a whole number, or several in a list"),
        ("grey", {"seeds": [[1]]}, "seeds is [[1]]; give"),
        ("grey", {"preset": 5}, "preset is 5; give a name, or a colorbench.Preset"),
        ("grey", {"weights": "a.pth"}, "weights is 'a.pth'; give files by name"),
        ("grey", {"initial": {"cnn": None}}, "initial is {'cnn': None}; give files by name"),
        ("grey", {"options": "cnn.depth=2"}, "options is 'cnn.depth=2'; give values by 'MODEL.KEY'"),
        ("grey", {"options": {5: 1}}, "options is {5: 1}; give values"),
        ("grey", {"select": "test"}, "select is 'test'; give 'val'"),
        ("grey", {"protocol": ["colorbench-1"]}, "protocol is ['colorbench-1']; give a name"),
        ("grey", {"pictures": 5, "keep": None}, "pictures is 5; give folders or zips by name"),
        ("grey", {"preset": Preset("a", "", 16, 0.1, 2, 1, train=-1)}, "the preset's train is -1; give a number"),
        ("grey", {"preset": Preset("a", "", 16, 0.1, 2, 1, test=0)}, "the preset's test is 0; give a number of images"),
        ("grey", {"preset": Preset("../a", "", 16, 0.1, 2, 1)}, "the preset's name is '../a'; give one of letters"),
        ("grey", {"timing": "no"}, "timing is 'no'; give True or False"),
    ],
)
def test_a_setting_of_another_kind_is_told_in_one_line(models, settings, line, tmp_path):
    with pytest.raises(UserError) as told:
        colorbench.run(models, **{"preset": "smoke", "out": tmp_path / "run", **settings})
    assert line in str(told.value)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("path", [5, None, b"run"])
def test_a_run_folder_that_is_no_path_is_told_in_one_line(path):
    with pytest.raises(UserError, match=rf"^{type(path).__name__} is not the path of a run folder; give that as text$"):
        colorbench.open_run(path)


def test_an_unknown_setting_is_named_with_the_nearest(tmp_path):
    with pytest.raises(UserError, match=r"unknown setting 'seed' \(did you mean 'seeds'\?\)"):
        colorbench.run("grey", seed=1, out=tmp_path / "run")


def test_a_number_as_text_is_refused(tmp_path):
    with pytest.raises(UserError, match="--size '64' is not a whole number; give one from 16 to "):
        colorbench.run("grey", preset="smoke", out=tmp_path / "run", size="64")
    assert not (tmp_path / "run").exists()


def test_a_model_whose_plugin_is_not_given_says_which(run):
    with pytest.raises(UserError, match=r"'tiny' of .* is not installed; give its plugin, which was \S*tiny\.py"):
        colorbench.open_run(run.path).colorize(np.zeros((16, 16, 3), np.uint8), model="tiny")
    with pytest.raises(UserError, match=r"unknown model of \S* 'tinny' \(did you mean 'tiny'\?\); there is: \S*"):
        colorbench.open_run(run.path).colorize(np.zeros((16, 16, 3), np.uint8), model="tinny")


def test_importing_costs_no_torch_and_every_name_is_there():
    code = (
        "import sys, colorbench; assert colorbench.__version__; colorbench.spec('cnn');"
        "assert not {'torch', 'pandas', 'matplotlib'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert all(hasattr(colorbench, name) for name in dir(colorbench))
    assert {"run", "open_run", "spec", "load_model", "score", "evaluate", "__version__"} <= {*dir(colorbench)}


def test_all_leaves_out_what_asks_for_it_and_everything_does_not(tmp_path, registry):
    text = TINY.replace("schedule, OPTIONS)", "schedule, OPTIONS, in_all=False)")
    (tmp_path / "tiny.py").write_text(text)

    def models(names):
        return list(options_of(names, "portraits", {"plugins": [tmp_path / "tiny.py"]}).models)

    every = {name: spec for name, spec in registry.specs["model"].items() if not spec.parent}
    usual = [name for name, spec in every.items() if spec.in_all]
    assert models("all") == [*usual, "on-tiny"]
    assert models("all,tiny,cnn") == [*usual, "on-tiny", "tiny"]
    assert models("everything") == [*every, "tiny", "on-tiny"]
    assert {*usual} > {"grey", "mean-color", "cnn", "gan", "siggraph17", "enhanced-unet"}


VARIED = """
import colorbench

@colorbench.hookimpl
def register_models(register):
    register(colorbench.spec("cnn").variant("wide", channels=128))
"""


def test_the_code_of_the_model_that_a_plugin_varies_is_part_of_the_key(tmp_path):
    (tmp_path / "varied.py").write_text(VARIED)
    registry = plugins.load([tmp_path / "varied.py"])
    fields = own_fields(registry.specs["model"]["cnn/wide"], PRESETS["smoke"], registry, untrained=False)
    assert {"plugin varied.py", "plugin colorbench_cnn"} <= {*fields["code"]}
    own = own_fields(registry.specs["model"]["cnn"], PRESETS["smoke"], registry, untrained=False)
    assert "plugin varied.py" not in own["code"]


def test_an_installed_plugin_may_vary_the_model_of_another(monkeypatch):
    loaded = []

    def load():
        loaded.append("varied")
        exec(VARIED, names := {})
        return SimpleNamespace(**names)

    entry = SimpleNamespace(
        name="varied", value="varied", module="varied", dist=SimpleNamespace(name="varied", version="1"),
        load=load,
    )  # fmt: skip
    entries = plugins.entry_points(group="colorbench")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [*entries, entry])
    registry = plugins.load()
    assert registry.origins["model", "cnn/wide"] == "varied (varied 1)"
    assert loaded == ["varied"]  # not again each time that it asks for the model


SLOW = TINY.replace('"train", 1,', '"train", 100,').replace(
    "yield Update", "import time\n            time.sleep(0.2)\n            yield Update"
)


def test_an_interrupted_cell_leaves_no_process_and_can_go_on(tmp_path):
    (plugin := tmp_path / "slow.py").write_text(SLOW)
    folder = RunFolder(tmp_path / "run")

    def interrupt():
        while not (folder.cell_dir("tiny", 0) / TRAINING).exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    settings = {**SMALL, "plugins": [plugin], "out": folder.path}
    with pytest.raises(KeyboardInterrupt):
        colorbench.run("tiny", **settings)
    # A cell is the child of the server that forks them, which itself stays.
    cells = [process for process in psutil.Process().children(recursive=True) if process.ppid() != os.getpid()]
    assert cells == []
    with folder.held():
        work = prepare(options_of("tiny", "portraits", settings))
    (cell,), (estimate,) = work.cells, work.estimates.values()
    assert cell.state == RESUMABLE
    assert not work.timing
    assert work.seconds > estimate.training + estimate.prediction  # the report
    assert replace(work, timing=True).seconds - work.seconds == pytest.approx(estimate.timing)
    assert estimate.timing > 3  # four measurements, in a process of its own


def test_a_notebook_counts_as_a_place_for_bars(monkeypatch):
    assert not shows_bars()
    kernel = SimpleNamespace(get_ipython=lambda: SimpleNamespace(config={"IPKernelApp": {}}))
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    assert shows_bars()
    kernel.get_ipython = lambda: None  # imported, say by pandas, in a script
    assert not shows_bars()


SCRIPT = """
import colorbench
from colorbench import Run

run: Run = colorbench.run(["cnn"], "photos/", preset="smoke", seeds=[0, 1], out="results/photos")
names: list[str] = list(run.predictions["cnn"])
colorbench.run("cnn", sizes=3)
colorbench.open_run(3)
"""


def test_a_type_checker_knows_every_public_name(tmp_path, monkeypatch):
    api = pytest.importorskip("mypy.api")
    monkeypatch.chdir(tmp_path)  # or the sources that lie here would be checked, not the package that is installed
    revealed = "".join(f"reveal_type(colorbench.{name})\n" for name in colorbench.__all__)
    (script := tmp_path / "user.py").write_text(SCRIPT + revealed)
    (config := tmp_path / "mypy.ini").write_text(
        "[mypy]\nstrict = True\nfollow_imports = skip\n"  # libraries are large: only our own names count
        "[mypy-colorbench.*,pluggy.*]\nfollow_imports = silent\n"
    )
    said, problems, _ = api.run([str(script), "--config-file", str(config), "--cache-dir", str(tmp_path / "cache")])
    lines = [line for line in said.splitlines() if Path(line.partition(":")[0]).name == "user.py"]
    assert problems == ""
    errors = [line for line in lines if ": error:" in line]
    assert [int(line.split(":")[1]) for line in errors] == [7, 8], said
    notes = [line for line in lines if "Revealed type" in line]
    assert len(notes) == len(colorbench.__all__)
    assert [note for note in notes if note.endswith('"Any"')] == []
