"""Kept predictions under other protocols: no network, and only what still is what it was then."""

import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import call, jpeg, jpegs, one_line
from PIL import Image, ImageEnhance

from colorbench.color import luminance, recombine
from colorbench.protocol import COLORBENCH, SCORES
from colorbench.report.publish import publish
from colorbench.runs.folder import RunFolder, sha256

NAMES = ["colorbench-1", "zhang-sweep", "ct2", "ddcolor", "omz"]
OWN = """
from dataclasses import replace
from colorbench import Protocol, hookimpl

@hookimpl
def register_protocols(register):
    register(Protocol("ours", "a test", "a paper", rounding="truncate"))
    FURTHER
"""


@pytest.fixture
def compared(bench):
    """A bench with a finished run that was scored under all protocols."""
    result = call("score", bench.run, "--protocol", "all")
    assert result.exit_code == 0, result.stderr
    return bench


def table(bench):
    return pd.read_csv(bench.run / "protocols.csv")


def test_all_protocols_need_neither_weights_nor_the_plugin_of_the_model(bench):
    for file in bench.run.rglob("weights.safetensors"):
        file.unlink()
    bench.file.unlink()
    result = call("score", bench.run, "--protocol", "all")
    assert result.exit_code == 0, result.stderr
    assert "no network ran" in result.stdout
    frame = table(bench)
    assert frame.protocol.tolist() == 2 * NAMES
    assert frame.groupby("model").psnr.agg(np.ptp).to_dict() == pytest.approx(
        frame.groupby("model").psnr_range.first().to_dict()
    )
    assert (frame.psnr_range > 1).all()
    shown = [line for line in result.stdout.splitlines() if line.startswith("| tiny")]
    assert f"{frame.psnr_range[frame.model == 'tiny'].iloc[0]:.2f} |" in shown[0]


def test_under_the_run_s_own_protocol_the_scores_are_those_of_the_run(compared):
    columns = ["model", "seed", "image", *SCORES]
    own = pd.read_parquet(compared.run / "protocols.parquet").query(f"protocol == '{COLORBENCH.name}'")[columns]
    scores = [pd.read_parquet(compared.cell(model) / "scores.parquet")[columns] for model in ("tiny", "on-tiny")]
    pd.testing.assert_frame_equal(
        own.sort_values(["model", "image"], ignore_index=True),
        pd.concat(scores).sort_values(["model", "image"], ignore_index=True),
        check_exact=True,
    )


def test_each_protocol_says_what_it_does_and_where_that_was_read(compared):
    text = (compared.run / "protocols.md").read_text()
    assert "omz: squeezed to a square" in text
    assert "Other than in the run: rounding truncate; saved_as jpeg-75; truth through-lab" in text
    assert "github.com/richzhang/colorization-pytorch" in text


def test_a_cell_made_again_loses_its_rows_until_it_is_scored_again(compared):
    compared.change("10 * self", "11 * self")
    assert compared("tiny", "--again", "tiny").exit_code == 0
    assert table(compared).model.unique().tolist() == ["on-tiny"]
    assert "Left out, as not the same since: tiny;" in (compared.run / "protocols.md").read_text()
    assert call("score", compared.run, "--protocol", "omz").exit_code == 0
    frame = table(compared)
    assert {*frame.model} == {"tiny", "on-tiny"}
    assert {*frame.protocol} == {"colorbench-1", "omz"}
    assert "Left out" not in (compared.run / "protocols.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--protocol", "omz,cp2"), "unknown protocol 'cp2' (did you mean 'ct2'?); there is: colorbench-1, "),
        (("--protocol", ","), "',' names nothing; give all, or names separated by commas"),
    ],
)
def test_an_unknown_name_is_one_line_and_changes_nothing(bench, arguments, said):
    before = (bench.run / "record.json").read_bytes()
    result = call("score", bench.run, *arguments)
    assert result.exit_code == 2
    assert said in one_line(result)
    assert (bench.run / "record.json").read_bytes() == before
    for verb in (
        ("run", *bench.arguments()),
        ("plan", *bench.arguments()),
        ("evaluate", bench.run, "--data", "shapes"),
    ):
        refused = call(*verb, "--protocol", "cp2")
        assert refused.exit_code == 2
        assert "unknown protocol 'cp2' (did you mean 'ct2'?)" in one_line(refused)


@pytest.mark.parametrize("kept", ["none", "3"])
def test_predictions_that_were_not_kept_are_refused(fresh, kept):
    assert fresh("tiny", "--predictions", kept).exit_code == 0
    result = call("score", fresh.run, "--protocol", "all")
    assert result.exit_code == 2
    assert "has not kept all predictions of tiny; nothing was scored: `colorbench run`" in one_line(result)
    assert not (fresh.run / "protocols.parquet").exists()


def test_a_damaged_file_is_one_line(compared):
    file = compared.run / "protocols.parquet"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    result = call("report", compared.run)
    assert result.exit_code == 2
    assert "protocols.parquet" in one_line(result)
    file.unlink()
    assert "`colorbench score` with --protocol makes it again" in one_line(call("report", compared.run))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda frame: frame[(frame.protocol != "omz") | (frame.image != frame.image[0])],
            "scores under protocol omz are of other images than its scores",
        ),
        (lambda frame: frame.drop(columns="psnr"), "protocols.parquet"),
        (lambda frame: frame.assign(protocol=1), "protocols.parquet"),
    ],
)
def test_rows_that_do_not_fit_are_refused(compared, change, said):
    """Of a file that belongs to the record, but not to the cells."""
    file, folder = compared.run / "protocols.parquet", RunFolder(compared.run)
    change(pd.read_parquet(file)).to_parquet(file)
    record = folder.record
    record.files[file.name] = sha256(file.read_bytes())
    folder.write(record)
    assert said in one_line(call("report", compared.run))


def test_a_published_run_gives_the_same_page(compared, tmp_path):
    copy = publish(compared.run, tmp_path / "copy").path
    assert call("report", copy).exit_code == 0
    for name in ("protocols.md", "protocols.csv"):
        assert (copy / name).read_bytes() == (compared.run / name).read_bytes()


def test_merged_runs_are_scored_under_protocols_anew(compared, tmp_path):
    assert call("merge", compared.run, "--out", tmp_path / "merged").exit_code == 0
    assert call("report", tmp_path / "merged").exit_code == 0
    assert not (tmp_path / "merged/protocols.md").exists()
    assert call("score", tmp_path / "merged", "--protocol", "all").exit_code == 0
    assert (tmp_path / "merged/protocols.csv").read_bytes() == (compared.run / "protocols.csv").read_bytes()


def test_others_bring_protocols_by_a_hook(bench):
    file = bench.folder / "ours.py"
    file.write_text(OWN.replace("FURTHER", ""))
    result = call("score", bench.run, "--protocol", "ours", "--plugin", file)
    assert result.exit_code == 0, result.stderr
    assert "ours: a test. Other than in the run: rounding truncate. Source: a paper." in result.stdout
    assert call("report", bench.run).exit_code == 0  # without the plugin
    assert {*table(bench).protocol} == {"colorbench-1", "ours"}


@pytest.mark.parametrize(
    ("further", "said"),
    [
        ('register(Protocol("all"))', "'all'"),
        ('register(Protocol("odd name"))', "'odd name'"),
        ('register(Protocol("ct2"))', "'ct2'"),
        ('register(Protocol("odd", size="big"))', "size cannot be 'big'"),
        ('register(Protocol("odd", size=8193))', "pictures of 8193 px are too large; give a size up to 8192"),
        ('register("odd")', "str was registered as a protocol"),
        ('register(type("Odd", (Protocol,), {})("odd"))', "Odd was registered as a protocol; Protocol is due"),
        ('register(Protocol("odd", ssim_window=99))', "protocol odd at 16 px: SSIM needs sides of 99"),
        ('register(Protocol("odd", peak=10**400))', "protocol odd at 16 px: OverflowError"),
        ('register(Protocol("odd", ciede2000_kl=1e-320))', "ciede2000 would be no number; take larger images"),
    ],
)
def test_a_protocol_that_cannot_be_is_refused_in_one_line(bench, further, said):
    file = bench.folder / "ours.py"
    file.write_text(OWN.replace("FURTHER", further))
    result = call("score", bench.run, "--protocol", "all", "--plugin", file)
    assert result.exit_code == 2
    assert said in one_line(result)


def test_a_value_that_the_code_does_not_know_is_one_line(bench):
    file = bench.folder / "ours.py"
    file.write_text(OWN.replace("FURTHER", "").replace("truncate", "up"))
    result = call("score", bench.run, "--protocol", "ours", "--plugin", file)
    assert result.exit_code == 2
    said = "unknown rounding in protocol ours: 'up'; there is: nearest, truncate"
    assert said in one_line(result)
    new = bench("tiny", "--protocol", "ours", "--plugin", file, "--out", bench.folder / "new")
    assert new.exit_code == 2
    assert said in one_line(new)
    assert "train" not in new.stderr


def test_a_protocol_that_has_changed_since_the_run_is_not_scored_beside_itself(bench):
    file, run = bench.folder / "ours.py", bench.folder / "own"
    file.write_text(OWN.replace("FURTHER", ""))
    assert bench("tiny", "--protocol", "ours", "--plugin", file, "--out", run).exit_code == 0
    changed = bench.folder / "changed.py"
    changed.write_text(OWN.replace("FURTHER", "").replace('rounding="truncate"', 'saved_as="jpeg-75"'))
    result = call("score", run, "--protocol", "ours", "--plugin", changed)
    assert result.exit_code == 2
    assert "protocol ours has changed since" in one_line(result)
    assert call("report", run).exit_code == 0


def test_the_list_has_origins_and_summaries_without_torch():
    code = (
        "import sys; from colorbench.cli import main; main(['list', 'protocols'], standalone_mode=False); "
        "assert not {'torch', 'pandas', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert list(lines) == NAMES
    assert COLORBENCH.summary in lines[COLORBENCH.name]
    assert "colorbench_protocols" in lines["ct2"]


def test_a_run_under_another_protocol_has_a_folder_of_its_own(bench):
    refused = bench("tiny", "--protocol", "ct2")
    assert refused.exit_code == 2
    assert "protocol" in one_line(refused)
    shutil.rmtree(bench.run)
    result = bench("tiny", "--protocol", "ct2")
    assert result.exit_code == 0, result.stderr
    assert "ct2" in (bench.run / "comparison.md").read_text()
    evaluated = call("evaluate", bench.run, "--data", "portraits", "--protocol", "omz", "--plugin", bench.file)
    assert evaluated.exit_code == 0, evaluated.stderr
    assert "omz" in (bench.run / "evaluations/portraits-omz/comparison.md").read_text()


@pytest.fixture
def photos(tmp_path):
    """A folder of photographs, and the same as if colored by another tool: paler."""
    folder = jpegs(tmp_path / "photos", 5)
    (tmp_path / "colored").mkdir()
    for file in folder.iterdir():
        picture = ImageEnhance.Color(Image.open(file)).enhance(0.5)
        picture.save(tmp_path / "colored" / f"{file.stem}.png")
    return folder


def test_pictures_made_elsewhere_are_scored_under_one_protocol_or_all(photos, tmp_path):
    def scored(out, *more):
        result = call("score", tmp_path / "colored", "--truth", photos, "--size", 32, "--out", tmp_path / out, *more)
        assert result.exit_code == 0, result.stderr
        return pd.read_csv(tmp_path / out / "comparison.csv").set_index("model").psnr["colored"], result.stdout

    one, _ = scored("one", "--protocol", "omz")
    ours, _ = scored("ours")
    every, shown = scored("every", "--protocol", "all")
    assert one > ours + 3  # of luma
    assert every == ours
    assert "# Protocols on" in shown
    frame = pd.read_csv(tmp_path / "every/protocols.csv")
    assert {*frame.protocol} == {*NAMES}
    assert {*frame.model} >= {"colored", "grey"}


def test_pictures_that_keep_their_own_luminance_keep_it_under_every_protocol(photos, tmp_path):
    for file in (tmp_path / "colored").iterdir():
        Image.fromarray(np.asarray(Image.open(file)) // 2 + 60).save(file)
    arguments = (tmp_path / "colored", "--truth", photos, "--size", 32, "--out", tmp_path / "out", "--as-is")
    result = call("score", *arguments, "--protocol", "all")
    assert result.exit_code == 0, result.stderr
    frame = pd.read_csv(tmp_path / "out/protocols.csv").query("model == 'colored'").set_index("protocol")
    assert abs(frame.psnr["zhang-sweep"] - frame.psnr["colorbench-1"]) < 0.1  # else the true L would gain decibels


def test_the_export_is_fed_as_the_protocol_crops(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/wide.jpg").write_bytes(jpeg(0, side=(96, 48)))
    for name in ("colorbench-1", "zhang-sweep", "ct2"):
        result = call("export", tmp_path / "photos", tmp_path / name, "--size", 32, "--protocol", name)
        assert result.exit_code == 0, result.stderr
    wide = Image.open(tmp_path / "photos/wide.jpg").resize((32, 32), Image.Resampling.BILINEAR)
    truth = np.asarray(Image.open(next((tmp_path / "zhang-sweep/truth").iterdir())))
    np.testing.assert_array_equal(truth, np.asarray(wide))
    grey, truth = (np.asarray(Image.open(tmp_path / "ct2" / kind / "wide.jpg.png")) for kind in ("input", "truth"))
    L = luminance(torch.from_numpy(truth.copy()).permute(2, 0, 1)[None])
    expected = recombine(L, L.new_zeros(1, 2, 32, 32))  # rounded, no JPEG: truncation and files are for predictions
    np.testing.assert_array_equal(grey, expected[0, 0])
    assert "unknown protocol" in one_line(
        call("export", tmp_path / "photos", tmp_path / "x", "--size", 32, "--protocol", "x")
    )
