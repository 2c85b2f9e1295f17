"""A result belongs to what made it: what is changed makes it stale, and what only reads otherwise does not."""

import enum
import functools
import hashlib
import os
import random
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import call, contents, jpegs, one_line

from colorbench import ModelSpec, Stage, load_model, plugins
from colorbench.code import plugin_code
from colorbench.errors import UserError
from colorbench.harness import throughput
from colorbench.runs import identity
from colorbench.runs.identity import canonical, option_fields, stage_fields
from colorbench.runs.records import legs

FORWARD, RATE = "ab = 10 * self", "learning_rate=0.001"


@pytest.fixture
def photos(tmp_path):
    return jpegs(tmp_path / "photos", 60)


def refused(bench, models="tiny", *more):
    """What `run` says instead of running; nothing was touched."""
    before = contents(bench.run)
    result = bench(models, *more)
    assert result.exit_code == 2, result.stderr
    assert contents(bench.run) == before
    assert "Traceback" not in result.stderr
    return result.stderr


def test_other_code_is_stale(bench):
    bench.change(FORWARD, "ab = 60 + 0 * self")
    said = refused(bench)
    assert "colorbench: tiny seed 0: code of plugin tiny.py\n" in said
    assert "nothing was touched; --again tiny trains again, --keep tiny uses as it is" in said


def test_another_learning_rate_and_a_seed_are_not_averaged(bench):
    bench.change(RATE, "learning_rate=0.1")
    said = refused(bench, "tiny", "--seed", 0, "--seed", 1)
    assert "tiny seed 0: stages[0].learning_rate 0.001 -> 0.1; code of plugin tiny.py\n" in said
    assert "tiny seed 1" not in said


@pytest.mark.parametrize("decay", ["lambda p: 1 - p", "functools.partial(line, end=0.0)"])
def test_a_decay_without_a_name_counts_by_its_values(fresh, decay):
    fresh.change(RATE, f"{RATE}, decay={decay}")
    fresh.change(
        "OPTIONS = {}", "import functools\n\n\ndef line(p, end):\n    return 1 - (1 - end) * p\n\n\nOPTIONS = {}"
    )
    assert fresh().exit_code == 0
    assert "1 of 1 are done already" in fresh().stderr
    fresh.change("1 - p" if "lambda" in decay else "end=0.0", "1 - p / 2" if "lambda" in decay else "end=0.5")
    assert "stages[0].decay" in refused(fresh)


def some(epoch, count, first, share):
    return range(first, first + round(share * count))


@pytest.mark.parametrize(
    "images",
    [
        lambda first, share: lambda epoch, count: some(epoch, count, first, share),
        lambda first, share: functools.partial(some, first=first, share=share),
    ],
)
def test_a_choice_of_images_counts_by_its_name_and_its_values(images):
    choices = [stage_fields(Stage("train", 2, images=images(*of))) for of in ((0, 0.5), (0, 0.5), (1, 0.5), (0, 0.6))]
    kept, same, other, more = (fields["images"] for fields in choices)
    assert kept == same
    assert len({choice["function"] for choice in (kept, other, more)}) == 3
    assert [leg.share for leg in legs({"stages": choices})] == [0.5, 0.5, 0.5, 0.6]


def test_an_optimizer_of_one_s_own_counts_by_its_name_and_what_it_holds():
    def own(momentum):
        return lambda groups, lr: torch.optim.SGD(groups, lr, momentum)

    kept, same, other = (stage_fields(Stage("train", optimizer=own(momentum))) for momentum in (0.5, 0.5, 0.9))
    assert kept == same != other
    named = [stage_fields(Stage("train", optimizer=kind))["optimizer"] for kind in ("adamw", torch.optim.AdamW)]
    assert named == ["adamw", "AdamW"]


def test_stages_of_earlier_versions_stay_readable():
    whole, part, limited = legs({"stages": [{"epochs": 2}, {"part": [0.0, 0.6]}, {"images": 500, "rolling": True}]})
    assert [leg.share for leg in (whole, part, limited)] == [1, 0.6, 1]


def test_an_option_is_stale_and_an_option_file_by_its_content(fresh):
    table = fresh.folder / "table.txt"
    table.write_text("1 2 3")
    fresh.change("OPTIONS = {}", f"OPTIONS = {{'bins': 3, 'table': {str(table)!r}}}")
    assert fresh().exit_code == 0
    os.utime(table)
    assert "1 of 1 are done already" in fresh().stderr
    table.write_text("1 2 4")
    assert "tiny seed 0: options.table.sha256" in refused(fresh)
    table.write_text("1 2 3")
    fresh.change("'bins': 3", "'bins': 4")
    assert "options.bins 3 -> 4" in refused(fresh)


class Kind(enum.IntEnum):
    ONE, TWO = 1, 2


@dataclass
class Sizes:
    first: int


class Scaled:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, value):
        return self.factor * value


def times(factor):
    return lambda value: factor * value


# What makes a value, and what makes one that does something else.
VALUES = {
    "array": (lambda: np.arange(5000), lambda: np.arange(5000) + (np.arange(5000) == 2500)),
    "dtype": (lambda: np.zeros(3, np.float32), lambda: np.zeros(3, np.float64)),
    "shape": (lambda: torch.zeros(2, 3), lambda: torch.zeros(3, 2)),
    "bfloat16": (lambda: torch.ones(2, dtype=torch.bfloat16), lambda: torch.zeros(2, dtype=torch.bfloat16)),
    "objects": (lambda: np.array([1, "a"], object), lambda: np.array([1, "b"], object)),
    "number": (lambda: np.float32(0.5), lambda: np.float32(0.25)),
    "nan": (lambda: [float("nan")], lambda: [float("inf")]),
    "partial": (lambda: functools.partial(pow, exp=2), lambda: functools.partial(pow, exp=3)),
    "partial of a value": (lambda: functools.partial(pow, 2), lambda: functools.partial(pow, 3)),
    "closure": (lambda: times(2), lambda: times(3)),
    "default": (lambda: lambda value, factor=2: factor, lambda: lambda value, factor=3: factor),
    "callable": (lambda: Scaled(2), lambda: Scaled(3)),
    "method": (lambda: Scaled(2).__call__, lambda: Scaled(3).__call__),
    "module": (lambda: times(torch.nn), lambda: times(torch)),
    "network": (lambda: torch.nn.GroupNorm(1, 2), lambda: torch.nn.GroupNorm(2, 2)),
    "generator": (lambda: random.Random(1), lambda: random.Random(2)),
    "dataclass": (lambda: Sizes(1), lambda: Sizes(2)),
    "type": (lambda: Sizes, lambda: Scaled),
    "enum": (lambda: Kind.ONE, lambda: Kind.TWO),
    "torch dtype": (lambda: torch.float32, lambda: torch.float64),
    "keys": (lambda: {1: "a", "1": "b"}, lambda: {1: "c", "1": "b"}),
    "set": (lambda: {"a", 1, None}, lambda: {"a", 2, None}),
    "bytes": (lambda: b"12", lambda: b"13"),
    "built-in": (lambda: torch.relu, lambda: torch.sigmoid),
    "sentence": (lambda: "a." * 300, lambda: "b." * 300),
}


@pytest.mark.parametrize("kind", VALUES)
def test_every_kind_of_option_counts_by_its_value(kind):
    value, other = VALUES[kind]
    first, same, another = (
        option_fields(ModelSpec("m", "", print, print, {"x": make()})) for make in (value, value, other)
    )
    assert first == same
    assert first != another


def test_a_folder_as_an_option_counts_by_its_files(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "bins.txt").write_text("1 2 3")
    first = canonical(tmp_path)
    (tmp_path / "tables" / "bins.txt").write_text("1 2 3 4")
    second = canonical(tmp_path)
    (tmp_path / "tables" / "bins.txt").rename(tmp_path / "tables" / "other.txt")
    assert len({str(fields) for fields in (first, second, canonical(tmp_path))}) == 3


@pytest.mark.parametrize("make", [threading.Lock, lambda: (i for i in [1])])
def test_an_option_that_nothing_tells_from_another_is_refused(make):
    with pytest.raises(
        UserError, match=r"^option m\.lock cannot be compared from run to run \(TypeError: cannot pickle"
    ):
        option_fields(ModelSpec("m", "", print, print, {"size": 1, "lock": make()}))


class Unsayable:
    """Neither pickle nor repr can say what it is."""

    def __reduce_ex__(self, protocol):
        raise GeneratorExit("no pickle")

    __repr__ = None


def test_what_cannot_even_be_said_is_refused_as_an_option():
    with pytest.raises(UserError, match=r"^option m\.odd cannot be compared .*\(GeneratorExit: no pickle\)"):
        option_fields(ModelSpec("m", "", print, print, {"odd": Unsayable()}))


@pytest.mark.parametrize(("most", "said"), [("MOST_FILES", "more than 2 files"), ("LARGEST_FOLDER", "or 0 GiB; name")])
def test_a_folder_that_has_no_end_is_refused_as_an_option(tmp_path, monkeypatch, most, said):
    monkeypatch.setattr(identity, most, 2)
    for name in "abc":
        (tmp_path / name).write_text(name)
    with pytest.raises(UserError, match=f"holds {said}|{said}"):
        option_fields(ModelSpec("m", "", print, print, {"tables": tmp_path}))


def test_a_file_that_the_kernel_invents_is_not_read_to_its_end():
    assert canonical(Path("/proc/self/status"))["sha256"] == hashlib.sha256(b"").hexdigest()


def test_an_option_too_deep_for_a_record_is_refused():
    deep = {}
    for _ in range(150):
        deep = {"a": deep}
    with pytest.raises(UserError, match=r"^option m\.deep cannot be compared from run to run .*levels"):
        option_fields(ModelSpec("m", "", print, print, {"deep": deep}))
    with pytest.raises(ValueError, match="levels"):
        stage_fields(Stage("train", 1, settings=deep))


def test_such_an_option_stops_the_run_before_it_begins(fresh):
    fresh.change("OPTIONS = {}", "import threading\n\nOPTIONS = {'lock': threading.Lock()}")
    result = fresh()
    assert result.exit_code == 2
    assert one_line(result).startswith("colorbench: option tiny.lock cannot be compared")
    assert not (fresh.run / "record.json").exists()


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        (RATE, "learning_rate=random.random()", "stages[0].learning_rate 0."),
        ("OPTIONS = {}", "OPTIONS = {'x': random.random()}", "options.x 0."),
    ],
)
def test_what_is_drawn_anew_each_time_is_not_trained(fresh, old, new, field):
    fresh.change(old, new)
    fresh.change("from colorbench", "import random\nfrom colorbench")
    result = fresh()
    assert result.exit_code == 1
    assert f"tiny seed 0 failed: ValueError: it is no longer what was planned: {field}" in one_line(result)
    assert "train 1/" not in result.stderr


def test_a_base_that_changed_makes_its_refiner_stale(bench):
    bench.change("a test", "another text")  # of the summary: code as well, though it moves nothing
    said = refused(bench, "on-tiny")
    assert "tiny seed 0: code of plugin tiny.py" in said
    assert "on-tiny seed 0: code of plugin tiny.py; base tiny: other weights" in said
    said = refused(bench, "on-tiny", "--again", "tiny")
    assert "on-tiny seed 0: code of plugin tiny.py; base tiny: other weights" in said
    made = bench("on-tiny", "--again", "tiny,on-tiny")
    assert made.exit_code == 0, made.stderr
    assert bench.record("on-tiny")["made_from"]["base"]["weights"] == bench.record()["weights_sha256"]


def test_a_refiner_is_never_put_on_another_base_than_its_own(bench):
    bench.change(RATE, "learning_rate=0.1")
    assert bench("tiny", "--again", "tiny").exit_code == 0
    with pytest.raises(UserError, match="'on-tiny' was trained on other weights of 'tiny' than"):
        load_model("on-tiny", run=bench.run, plugins=[bench.file])
    evaluated = call("evaluate", bench.run, "--data", "portraits", "--plugin", bench.file)
    assert evaluated.exit_code == 1
    assert "was trained on other weights of 'tiny'" in one_line(evaluated)


def test_prose_and_layout_make_nothing_stale(bench):
    for old, new in (
        ('"""A small network, and one that refines it."""', '"""Two networks.\n\nOne refines the other."""\n# really'),
        ('    """A convolution of one pixel."""\n', ""),
        (
            "ab = 10 * self.convolution(L / 100)",
            "ab = (\n                10 * self.convolution(L/100)  # Lab\n            )",
        ),
    ):
        bench.change(old, new)
    cells = {name: content for name, content in contents(bench.run).items() if name.startswith("cells")}
    result = bench("tiny,on-tiny")
    assert (result.exit_code, "2 of 2 are done already" in result.stderr) == (0, True)
    assert {name: content for name, content in contents(bench.run).items() if name in cells} == cells


def test_published_weights_belong_to_the_cell(bench):
    state = {"convolution.weight": torch.ones(2, 1, 1, 1), "convolution.bias": torch.zeros(2)}
    torch.save(state, bench.folder / "w.pth")
    other = bench.file.read_text().replace('"tiny"', '"told"').replace('"on-tiny"', '"on-told"')
    (bench.folder / "told.py").write_text(other)
    asked = ("--plugin", bench.folder / "told.py", "--weights", f"told={bench.folder / 'w.pth'}")
    added = bench("tiny,told", *asked)
    assert added.exit_code == 0, added.stderr
    assert "1 of 2 are done already" in added.stderr
    assert bench.record("told")["made_from"]["weights"]["file"] == "w.pth"
    assert not bench.record("told")["made_from"]["stages"]
    said = refused(bench, "tiny,told", *asked[:2])
    assert "told seed 0: " in said
    assert 'weights {"file": "w.pth"' in said


def test_again_trains_anew_and_keeps_the_old_cell_until_that_is_done(bench):
    old = contents(bench.cell())
    bench.change("yield Update", "raise MemoryError('late')\n            yield Update")
    failed = bench("tiny", "--again", "tiny")
    assert failed.exit_code == 1
    assert "tiny seed 0 failed: MemoryError: late" in failed.stderr
    assert contents(bench.cell()) == old
    assert load_model("tiny", run=bench.run, plugins=[bench.file]) is not None
    bench.change("raise MemoryError('late')\n            yield Update", "yield Update")
    bench.change(RATE, "learning_rate=0.1")
    made = bench("tiny", "--again", "tiny")
    assert made.exit_code == 0, made.stderr
    assert "tiny seed 0  train 1/1" in made.stderr
    assert bench.record()["made_from"]["stages"][0]["learning_rate"] == 0.1
    assert [path.name for path in (bench.run / "cells/tiny").iterdir()] == ["seed-0"]
    assert bench().exit_code == 0


def test_an_abandoned_second_training_leaves_the_old_cell_in_use(bench):
    """A kill in the middle of `--again` leaves a folder beside the cell, which is said and no obstacle."""
    text = bench.file.read_text()
    bench.change(FORWARD, "ab = 60 + 0 * self")
    bench.change(
        "yield Update",
        "import os, pathlib\n            pathlib.Path('x').exists() or os._exit(9)\n            yield Update",
    )
    assert bench("tiny", "--again", "tiny").exit_code == 1
    bench.write(text)
    done, planned = bench(), bench.plan()
    assert (done.exit_code, planned.exit_code) == (0, 0)
    assert bench.table().status["tiny"] == "done"
    waits = f"tiny seed 0: it was being made again in {bench.cell()}.new; --again tiny goes on with that"
    assert waits in done.stderr
    assert waits in planned.stderr
    assert waits not in bench.plan("tiny", "--again", "tiny").stderr
    shutil.rmtree(f"{bench.cell()}.new")
    assert "being made again" not in bench.plan().stderr


def test_keep_uses_the_old_cell_and_every_table_marks_it(bench):
    bench.change(FORWARD, "ab = 60 + 0 * self")
    weights = (bench.cell() / "weights.safetensors").stat().st_mtime_ns
    kept = bench("tiny,on-tiny", "--keep", "all")
    assert kept.exit_code == 0, kept.stderr
    assert (bench.cell() / "weights.safetensors").stat().st_mtime_ns == weights
    for name in ("comparison.md", "details.md"):
        rows = [line for line in (bench.run / name).read_text().splitlines() if line.startswith("| tiny")]
        assert rows, name
        assert all(line.startswith("| tiny †") for line in rows), (name, rows)
    assert "code of plugin tiny.py" in kept.stdout
    assert bench.table().kept["tiny"] == "code of plugin tiny.py"
    bench.change("ab = 60 + 0 * self", FORWARD)
    assert "†" not in bench("tiny,on-tiny").stdout


def test_other_verbs_say_that_a_cell_was_made_otherwise(bench, capsys):
    bench.change(RATE, "learning_rate=0.1")
    said = "stages[0].learning_rate 0.001 -> 0.1; code of plugin tiny.py"
    load_model("tiny", run=bench.run, plugins=[bench.file])
    assert said in capsys.readouterr().err
    evaluated = call("evaluate", bench.run, "--data", "portraits", "--plugin", bench.file)
    assert evaluated.exit_code == 0, evaluated.stderr
    assert said in evaluated.stderr
    assert "| tiny †" in evaluated.stdout
    from conftest import jpeg

    photo = bench.folder / "photo.jpg"
    photo.write_bytes(jpeg(0))
    out = bench.folder / "colored.png"  # not the current folder, into which it is written otherwise
    colored = call("colorize", photo, "--model", "tiny", "--run", bench.run, "--plugin", bench.file, "--out", out)
    assert colored.exit_code == 0, colored.stderr
    assert said in capsys.readouterr().err + colored.stderr


TEN, SIXTY = "10 * self.convolution", "60 * self.convolution"


@pytest.mark.parametrize("model", ["tiny", "on-tiny"])
def test_an_evaluation_by_other_code_is_made_anew_when_the_code_changes(bench, photo_zip, model):
    """Also a refiner's, whose base is what the edit changes."""
    arguments = ("evaluate", bench.run, "--data", photo_zip, "--plugin", bench.file, "--out", bench.folder / "out")

    def mse():
        result = call(*arguments)
        assert result.exit_code == 0, result.stderr
        return pd.read_csv(bench.folder / "out/comparison.csv").set_index("model").mse[model]

    before = mse()
    bench.change(TEN, SIXTY)
    assert mse() != before
    bench.change(SIXTY, TEN)
    assert mse() == before


def test_predictions_by_other_code_are_made_anew_in_the_run_itself(bench):
    before = bench.table().mse["tiny"]
    bench.change(TEN, SIXTY)
    (bench.cell() / "predictions.zip").unlink()
    kept = bench("tiny", "--keep", "tiny")
    assert kept.exit_code == 0, kept.stderr
    assert bench.table().mse.filter(like="tiny").iloc[0] != before
    bench.change(SIXTY, TEN)
    assert "to be scored" in bench.plan("tiny").stdout
    assert bench("tiny").exit_code == 0
    assert bench.table().mse["tiny"] == before


def test_an_expression_too_deep_to_be_read_as_a_tree_counts_by_its_text(tmp_path):
    file = tmp_path / "deep.py"
    file.write_text(f"x = {'+'.join(['1'] * 5000)}")
    before = plugin_code(str(file))
    file.write_text(file.read_text() + "+2")
    assert plugin_code(str(file)) != before


def test_a_library_below_a_virtual_environment_does_not_count(tmp_path, monkeypatch):
    (tmp_path / "dist-packages").mkdir()
    (tmp_path / "dist-packages" / "some_library.py").write_text("x = 1")
    (tmp_path / "net.py").write_text("import some_library")
    monkeypatch.syspath_prepend(tmp_path / "dist-packages")
    assert list(plugin_code(str(tmp_path / "net.py"))) == ["net.py"]


def test_a_helper_of_a_package_counts_and_a_library_does_not(tmp_path):
    package = tmp_path / "their_package"
    package.mkdir()
    (package / "__init__.py").write_text("import torch\nimport their_helper\nfrom . import layers\n")
    (package / "layers.py").write_text("A = 1\n")
    (tmp_path / "their_helper.py").write_text("import json\nB = 1\n")

    def code():
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        env = os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        program = "from colorbench.code import plugin_code; print(plugin_code('their_package'))"
        asked = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
        return asked.stdout

    first = code()
    assert "their_helper" in first
    assert "torch" not in first
    (package / "layers.py").write_text('"""Layers."""\nA = 1  # one\n')
    assert code() == first
    (package / "layers.py").write_text("A = 2\n")
    second = code()
    assert second != first
    (tmp_path / "their_helper.py").write_text("import json\nB = 2\n")
    assert code() not in (first, second)


@pytest.mark.parametrize(
    "line", ["importlib.import_module('{}.part')", "import_module('{}')", "__import__('{}')", "from {}.part import x"]
)
def test_a_helper_that_is_imported_by_its_name_counts(line, tmp_path, monkeypatch):
    name = f"named_helper_{abs(hash(line))}"
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"{name}.py").write_text("A = 1\n")
    (tmp_path / "plugin.py").write_text(line.format(name))
    assert [*plugin_code(str(tmp_path / "plugin.py"))] == [name, "plugin.py"]


def test_a_model_is_timed_again_when_another_cell_is_in_its_place(bench, monkeypatch):
    timed, rate = [], {"median": 0.5, "iqr": 0.01, "rounds": 7}
    monkeypatch.setattr(throughput, "_measure", lambda request, *_: timed.append(request["seed"]) or {"infer_1": rate})
    table = bench.folder / "table.txt"
    table.write_text("1 2 3")
    bench.change("OPTIONS = {}", f"OPTIONS = {{'table': {str(table)!r}}}")
    for arguments in (("--again", "tiny"), (), ("--seed", 1)):
        assert call("run", *bench.arguments(), *arguments).exit_code == 0
        assert timed == [0]
    assert bench.table()["infer_1"]["tiny"] == 2.0
    table.write_text("1 2 4")
    assert call("run", *bench.arguments(), "--again", "tiny").exit_code == 0
    assert timed == [0, 0]
    assert bench.table()["infer_1"].notna().sum() == 1  # of the row that was timed


METRIC = """
from colorbench import MetricSpec, hookimpl

@hookimpl
def register_metrics(register):
    register(MetricSpec("largest_error", "a test", lambda p, t: (p.int() - t.int()).abs().amax((1, 2, 3)) * 1.0))
"""


def test_scores_are_made_again_unasked_when_metrics_change(bench):
    weights = (bench.cell() / "weights.safetensors").stat().st_mtime_ns
    metric = bench.folder / "metric.py"
    metric.write_text(METRIC)
    added = bench("tiny", "--plugin", metric)
    assert added.exit_code == 0, added.stderr
    assert "train" not in added.stderr
    assert (bench.cell() / "weights.safetensors").stat().st_mtime_ns == weights
    first = bench.table().largest_error["tiny"]
    metric.write_text(METRIC.replace("* 1.0", "* 2.0"))
    assert bench("tiny", "--plugin", metric).exit_code == 0
    assert bench.table().largest_error["tiny"] == pytest.approx(2 * first)
    assert bench().exit_code == 0
    assert "largest_error" not in bench.table()


def test_two_plugin_files_of_one_name_do_not_meet_and_know_where_they_are(fresh):
    other = fresh.folder / "other" / "tiny.py"
    other.parent.mkdir()
    other.write_text(fresh.file.read_text().replace('tiny"', 'small"') + "\nassert 'other' in __file__\n")
    registry = plugins.load([fresh.file, other])
    assert {"tiny", "small"} <= registry.specs["model"].keys()
    result = fresh("tiny,small", "--plugin", other)
    assert result.exit_code == 0, result.stderr
    other.write_text(other.read_text().replace(FORWARD, "ab = 5 * self"))
    said = refused(fresh, "tiny,small", "--plugin", other)
    assert "small seed 0: code of plugin tiny.py" in said
    assert one_line(fresh("tiny")).startswith("in ")


def test_an_evaluation_goes_on_without_a_model_that_is_not_installed(bench, photos):
    bench.change('"on-tiny"', '"renamed"')
    result = call("evaluate", bench.run, "--data", photos, "--plugin", bench.file)
    assert result.exit_code == 1
    assert "on-tiny seed 0 failed: it is not installed; give its plugin, which was" in one_line(result)
    assert "| tiny" in result.stdout


def test_a_cell_of_other_test_images_stays_out_of_the_table(bench, photos):
    other = bench.folder / "other"
    arguments = [*bench.arguments()[:-1], other, "--no-timing", "--data", photos]
    made = call("run", *arguments)
    assert made.exit_code == 0, made.stderr
    cell = Path("cells/tiny/seed-0")
    for name in ("record.json", "samples.npz", "trained_on.txt"):  # as if this run's cells had been put into the other
        shutil.copy(other / name, bench.run / name)
    assert "predicted from other images" in call("report", bench.run).stdout
    for name in ("cell.json", "scores.parquet", "details.parquet", "samples.npz", "losses.parquet"):
        shutil.copy(other / cell / name, bench.run / cell / name)
    assert "predicted from other images" not in call("report", bench.run).stdout
