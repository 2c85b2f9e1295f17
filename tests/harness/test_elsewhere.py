"""Pictures made elsewhere are rows like any other: matched by name, with the true L, or refused by name."""

import errno
import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import call, jpeg, one_line
from PIL import Image

from colorbench import ModelSpec
from colorbench.color import recombine
from colorbench.harness.elsewhere import carries, matched

FORMULA = """
from colorbench import ModelSpec, hookimpl

def build(**_):
    import torch
    from torch import nn

    class Formula(nn.Module):
        def forward(self, L):
            return torch.cat((2 * (L - 60), 90 * torch.sin(L / 12)), dim=1)

        def updates(self, batch):
            yield from ()

    return Formula()

@hookimpl
def register_models(register):
    register(ModelSpec("formula", "ab by a formula of L, often out of gamut", build))
"""


@pytest.fixture
def photos(tmp_path):
    """A folder of six photographs, two of one base name, and no splits."""
    for index, name in enumerate(("a.jpg", "b.jpg", "c.jpeg", "deep/a.jpg", "deep/d.jpg", "e f.jpg")):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(jpeg(index))
    return tmp_path / "photos"


@pytest.fixture
def exported(photos, tmp_path):
    """The same, exported."""
    result = call("export", photos, tmp_path / "exported", "--size", 32)
    assert result.exit_code == 0, result.stderr
    return tmp_path / "exported"


@pytest.fixture
def colored(exported, tmp_path):
    """A folder of pictures with other colors and other luminance than the truth."""
    for file in (exported / "truth").rglob("*.png"):
        picture = Image.fromarray(255 - np.asarray(Image.open(file)) // 2)
        target = tmp_path / "colored" / file.relative_to(exported / "truth")
        target.parent.mkdir(parents=True, exist_ok=True)
        picture.save(target)
    return tmp_path / "colored"


@pytest.fixture
def score(photos, tmp_path):
    """`colorbench score` against the photographs, at 32 px."""
    return lambda *more: call("score", *more, "--truth", photos, "--size", 32, "--out", tmp_path / "out")


def row(tmp_path, model="colored"):
    return pd.read_csv(tmp_path / "out" / "comparison.csv").set_index("model").loc[model]


def notes(tmp_path):
    return (tmp_path / "out" / "comparison.md").read_text().partition("## Notes")[2]


def cell(tmp_path, model, run="out"):
    return tmp_path / run / "cells" / model / "seed-0"


def scores(folder):
    return pd.read_parquet(folder / "scores.parquet").drop(columns=["model", "seed"])


def test_the_export_is_what_the_protocol_feeds_and_takes_no_full_folder(photos, exported):
    names = {"a.jpg", "b.jpg", "c.jpeg", "deep/a.jpg", "deep/d.jpg", "e f.jpg"}
    for kind, mode in (("truth", "RGB"), ("input", "L")):
        files = {file.relative_to(exported / kind).as_posix(): Image.open(file) for file in exported.rglob("*.png")
                 if exported / kind in file.parents}  # fmt: skip
        assert {*files} == {f"{name}.png" for name in names}
        assert {(picture.mode, picture.size) for picture in files.values()} == {(mode, (32, 32))}
    result = call("export", photos, exported, "--size", 32)
    assert result.exit_code == 2
    assert "not an empty folder" in one_line(result)


def test_a_full_disk_leaves_no_export_that_looks_whole(photos, tmp_path, monkeypatch):
    save, saved = Image.Image.save, []

    def full(self, file, *arguments):
        saved.append(file)
        if len(saved) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(self, file, *arguments)

    monkeypatch.setattr(Image.Image, "save", full)
    for said in ("the disk is full: free some space", ""):
        result = call("export", photos, tmp_path / "exported", "--size", 32)
        assert said in (one_line(result) if said else result.stderr)
        assert [*(tmp_path / "exported").iterdir()] == [] if said else result.exit_code == 0


def test_a_damage_that_fails_stops_the_export_in_one_line(photos, tmp_path):
    plugin = tmp_path / "burst.py"
    plugin.write_text(
        "from colorbench import DegradationSpec, Protocol, hookimpl\n\n\n"
        "def apply(rgb, strength, seeds):\n    rgb.zero_()\n    raise GeneratorExit('burst')\n\n\n"
        "@hookimpl\ndef register_degradations(register):\n"
        "    register(DegradationSpec('burst', 'a test', apply, [1.0]))\n\n\n"
        "@hookimpl\ndef register_protocols(register):\n"
        "    register(Protocol('burst', 'a test', 'a test', degradation='burst:1'))\n"
    )
    arguments = ("--size", 32, "--plugin", plugin, "--protocol", "burst")
    result = call("export", photos, tmp_path / "exported", *arguments)
    assert result.exit_code == 2
    assert "the images cannot be damaged: GeneratorExit: burst; mend the plugin of that" in one_line(result)
    assert [*(tmp_path / "exported").iterdir()] == []


def test_the_grey_input_has_the_luminance_of_the_truth(exported):
    for file in (exported / "truth").rglob("*.png"):
        grey = np.asarray(Image.open(exported / "input" / file.relative_to(exported / "truth")).convert("RGB"))
        truth = np.asarray(Image.open(file))
        L, a, b = colors(truth)
        assert np.abs(colors(grey)[0] - L).max() < 0.25
        assert np.abs(a).max() + np.abs(b).max() > 5


def colors(rgb):
    from skimage.color import rgb2lab

    return rgb2lab(rgb).transpose(2, 0, 1)


def test_folders_alone_give_a_table_without_training_or_a_train_split(score, colored, tmp_path):
    result = score(colored)
    assert result.exit_code == 0, result.stderr
    assert "colored (made elsewhere)" in result.stdout
    assert {"grey", "best-constant", "true-ab-8px"} < {*pd.read_csv(tmp_path / "out" / "comparison.csv").model}
    assert "mean-color" not in result.stdout
    assert row(tmp_path).made == "elsewhere"
    assert np.isnan(row(tmp_path).parameters)
    assert f"in {tmp_path / 'out'}" in result.stderr


def test_their_ab_is_scored_with_the_true_luminance(score, colored, tmp_path):
    assert score(colored).exit_code == 0
    kept = zipfile.ZipFile(cell(tmp_path, "colored") / "predictions.zip")
    for name in kept.namelist():
        predicted, mine = np.asarray(Image.open(io.BytesIO(kept.read(name)))), np.asarray(Image.open(colored / name))
        truth = np.asarray(Image.open(tmp_path / "exported" / "truth" / name))
        inside = ((predicted > 2) & (predicted < 253)).all(-1)
        assert np.abs(colors(predicted)[0] - colors(truth)[0])[inside].max() < 1
        assert np.abs(colors(mine)[0] - colors(truth)[0]).mean() > 5
    assert "of which 0 carry the true L" in notes(tmp_path)


def test_as_is_scores_the_pictures_themselves_and_says_so(score, colored, tmp_path):
    assert score(colored).exit_code == 0
    with_true_L = row(tmp_path).mse
    assert score(colored, "--as-is").exit_code == 0
    kept = zipfile.ZipFile(cell(tmp_path, "colored") / "predictions.zip")
    for name in kept.namelist():
        np.testing.assert_array_equal(Image.open(io.BytesIO(kept.read(name))), Image.open(colored / name))
    assert row(tmp_path).mse > with_true_L
    assert "with their own luminance" in notes(tmp_path)


def test_the_same_model_as_a_plugin_has_equal_scores_to_the_last_digit(score, exported, tmp_path):
    """Also where its colors are clipped, and where two recombinations would differ by more than a rounding."""
    (tmp_path / "formula.py").write_text(FORMULA)
    assert score(exported / "truth", "--plugin", tmp_path / "formula.py").exit_code == 0
    shutil.copy(cell(tmp_path, "formula") / "predictions.zip", tmp_path / "outside.zip")
    assert score(tmp_path / "outside.zip").exit_code == 0
    pd.testing.assert_frame_equal(
        scores(cell(tmp_path, "outside")), scores(cell(tmp_path, "formula")), check_exact=True
    )
    assert "6 pictures of outside.zip, all of which carry the true L" in notes(tmp_path)


def test_whatever_the_colors_rounding_is_told_from_another_luminance():
    L, ab = torch.rand(8, 1, 32, 32) * 100, (torch.rand(8, 2, 32, 32) - 0.5) * 200
    pictures = recombine(L, ab)
    assert carries(pictures, L).all()
    L[:, :, 5, 5] = 50
    assert not carries(recombine((L + 1).clamp(0, 100), ab / 10), L).any()
    one_pixel_off = recombine(L, ab / 10)
    one_pixel_off[:, :, 5, 5] += 2
    assert not carries(one_pixel_off, L).any()
    black, white = torch.zeros_like(pictures), torch.full_like(pictures, 255)
    assert not (carries(black, L) | carries(white, L)).any()


def test_a_missing_picture_fails_the_row_by_name(score, colored, tmp_path):
    for name in ("a.jpg.png", "deep/d.jpg.png"):
        (colored / name).unlink()
    result = score(colored)
    assert result.exit_code == 1
    assert "no picture of 2 of 6 test images: " in one_line(result)
    assert "a.jpg" in one_line(result)
    assert "deep/d.jpg" in one_line(result)
    assert np.isnan(row(tmp_path).mse)


def test_a_surplus_picture_is_named(score, colored, tmp_path):
    (colored / "unasked.png").write_bytes((colored / "a.jpg.png").read_bytes())
    assert score(colored).exit_code == 0
    assert "belong to no test image: 1 of colored, unasked.png" in notes(tmp_path)


@pytest.mark.parametrize(
    ("images", "files", "due"),
    [
        (["a.jpg", "x/b.jpg"], ["a.jpg.png", "x/b.jpg.png"], ["a.jpg.png", "x/b.jpg.png"]),
        (["a.jpg", "x/b.jpg"], ["a.jpg", "x/b.jpg"], ["a.jpg", "x/b.jpg"]),
        (["a.jpg", "x/b.png"], ["a.webp", "x/b.jpg"], ["a.webp", "x/b.jpg"]),
        (["a.jpg", "x/b.jpg"], ["out/a.png", "b.jpg.png"], ["out/a.png", "b.jpg.png"]),
        (["a.v2.jpg"], ["a.v2.png"], ["a.v2.png"]),
        (["x/a.jpg", "y/a.jpg"], ["x/a.png", "y/a.png"], ["x/a.png", "y/a.png"]),
        (["a.jpg"], ["a.jpg.png", "a.png", "x/a.png"], ["a.jpg.png"]),
        (["x/a.jpg", "y/a.jpg"], ["x/a.png", "a.png"], None),
        (["a.jpg", "b.jpg"], ["x/a.png", "y/a.png", "b.png"], None),
        (["a.jpg", "a.png"], ["a.webp"], None),
        (["ab.jpg"], ["a.png"], None),
        (["caf\u00e9.jpg"], ["cafe\u0301.png"], ["cafe\u0301.png"]),
    ],
)  # fmt: skip
def test_pictures_are_matched_by_name(tmp_path, images, files, due):
    for name in files:
        (tmp_path / "made" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "made" / name).write_bytes(jpeg(0))
    if due is None:
        with pytest.raises(ValueError, match=r"no picture of [12] of"):
            matched(tmp_path / "made", images)
        return
    found, surplus = matched(tmp_path / "made", images)
    assert [picture.name for picture in found] == due
    assert surplus == sorted({*files} - {*due})


def test_what_would_add_to_the_images_is_not_written_among_them(photos):
    for arguments in (
        ("export", photos, photos / "out", "--size", 16),
        ("score", photos, "--truth", photos, "--out", photos / "out"),
    ):
        result = call(*arguments)
        assert result.exit_code == 2
        assert "out lies among the images" in one_line(result)
        assert not (photos / "out/record.json").exists()


def test_another_size_is_cropped_and_resized_like_the_truth_and_counted(score, photos, tmp_path):
    result = score(f"same={photos}", "--as-is")
    assert result.exit_code == 0, result.stderr
    assert row(tmp_path, "same").mse == 0
    assert "another size than 32 px: 6 of its pictures" in notes(tmp_path)


def test_uncolored_pictures_are_counted(score, exported, colored, tmp_path):
    for name in ("a.jpg.png", "b.jpg.png"):
        shutil.copy(exported / "input" / name, colored / name)
    assert score(colored).exit_code == 0
    assert "though the truth is not: 2 of its pictures" in notes(tmp_path)


def bomb(folder: Path) -> None:
    with zipfile.ZipFile(folder / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg.png", b"\0" * (300 << 20))
        for name in ("b.jpg", "c.jpeg", "deep/a.jpg", "deep/d.jpg", "e f.jpg"):
            archive.writestr(f"{name}.png", jpeg(0))


def damaged(folder: Path) -> None:
    content = bytearray((folder / "colored.zip").read_bytes())
    content[len(content) // 2 :] = b"\0" * (len(content) - len(content) // 2)
    (folder / "damaged.zip").write_bytes(content)


def script(folder: Path) -> None:
    with zipfile.ZipFile(folder / "colored.zip") as good, zipfile.ZipFile(folder / "script.zip", "w") as bad:
        for name in good.namelist():
            bad.writestr(name, b"%!PS-Adobe-3.0 EPSF-3.0\n" if name == "a.jpg.png" else good.read(name))


@pytest.mark.parametrize(
    ("make", "said"),
    [(bomb, "a.jpg.png (larger than 256 MiB"), (damaged, "neither a folder nor a zip"), (script, "a.jpg.png (not an")],
)
def test_a_hostile_zip_is_a_failed_row_with_one_line(score, colored, tmp_path, make, said):
    shutil.make_archive(str(tmp_path / "colored"), "zip", colored)
    make(tmp_path)
    result = score(tmp_path / f"{make.__name__}.zip", tmp_path / "colored.zip")
    assert result.exit_code == 1
    assert said in one_line(result)
    assert row(tmp_path, make.__name__).status.startswith("failed")
    assert row(tmp_path, "colored").status == "done"


def test_a_name_that_leads_out_of_the_zip_writes_nothing(score, colored, tmp_path):
    shutil.make_archive(str(tmp_path / "colored"), "zip", colored)
    with zipfile.ZipFile(tmp_path / "colored.zip", "a") as archive:
        archive.writestr("../../evil.png", jpeg(0))
        archive.writestr("\x1b[31m.png", jpeg(0))
    result = score(tmp_path / "colored.zip")
    assert result.exit_code == 0, result.stderr
    assert not list(tmp_path.parent.rglob("evil*"))
    assert "\x1b" not in result.stdout + result.stderr + notes(tmp_path)


def test_changed_pictures_make_the_row_stale_in_a_run_and_are_scored_again_by_score(
    score, colored, photo_zip, tmp_path
):
    for index in range(30, 36):
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / f"{index:03}.jpg").write_bytes(jpeg(index + 100))
    common = (
        "--models", "grey", "--data", photo_zip, "--preset", "smoke", "--size", 16, "--out", tmp_path / "run",
        "--pictures", f"mine={tmp_path / 'mine'}",
    )  # fmt: skip
    result = call("run", *common, "--no-timing", "--seed", 0, "--seed", 1)
    assert result.exit_code == 0, result.stderr
    assert call("plan", *common).exit_code == 0
    (tmp_path / "mine" / "030.jpg").write_bytes(jpeg(7))
    planned = call("plan", *common)
    assert planned.exit_code == 1
    assert "stale" in planned.stdout
    assert "pictures.content" in planned.stdout
    assert "--again mine" in one_line(call("run", *common, "--no-timing"))
    before = scores(cell(tmp_path, "mine", "run"))
    shutil.rmtree(tmp_path / "mine")
    assert call("score", tmp_path / "run").exit_code == 0  # the predictions are kept
    pd.testing.assert_frame_equal(scores(cell(tmp_path, "mine", "run")), before)

    assert score(colored).exit_code == 0
    first = row(tmp_path).mse
    (colored / "a.jpg.png").write_bytes(jpeg(9))
    assert score(colored).exit_code == 0
    assert row(tmp_path).mse != first


def test_a_row_made_elsewhere_colors_nothing_else(score, colored, photos, tmp_path):
    assert score(colored).exit_code == 0
    for model, why in (("colored", "was made elsewhere"), ("best-constant", "needs the true colors")):
        result = call("colorize", photos / "a.jpg", "--model", model, "--run", tmp_path / "out")
        assert result.exit_code == 2
        assert why in one_line(result)
    result = call("evaluate", tmp_path / "out", "--data", photos, "--out", tmp_path / "other")
    assert result.exit_code == 0, result.stderr
    assert "left out, made elsewhere, with pictures of that run's test images alone: colored" in result.stderr
    evaluated = pd.read_csv(tmp_path / "other" / "comparison.csv").set_index("model")
    assert evaluated.loc["best-constant"].status == "done"
    assert "colored" not in evaluated.index


def test_neither_they_nor_the_bounds_are_timed(photo_zip, tmp_path):
    with zipfile.ZipFile(photo_zip) as archive:
        archive.extractall(tmp_path)
    models = ("--models", "best-constant", "--pictures", f"mine={tmp_path / 'photos' / 'test'}")
    result = call("run", *models, "--data", photo_zip, "--preset", "smoke", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert not (tmp_path / "out" / "timing").exists()
    assert row(tmp_path, "mine").status == "done"


def test_a_plugin_can_register_a_published_set_of_pictures(score, colored, tmp_path):
    text = f"""
from pathlib import Path
from colorbench import ModelSpec, hookimpl

@hookimpl
def register_models(register):
    register(ModelSpec("published", "a set of pictures", pictures=Path({str(colored)!r})))
"""
    (tmp_path / "published.py").write_text(text)
    assert score(colored, "--plugin", tmp_path / "published.py").exit_code == 0
    assert row(tmp_path, "published").mse == row(tmp_path).mse


def test_a_model_has_a_network_or_pictures():
    with pytest.raises(ValueError, match="neither build nor pictures"):
        ModelSpec("nothing", "a test")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["x=absent"], "no pictures 'absent'"),
        (["X Y=HERE"], "cannot be called 'X Y'"),
        (["a/b=HERE"], "cannot be called 'a/b'"),
        (["grey=HERE"], "registered twice"),
        (["x=HERE", "x=HERE"], "registered twice"),
    ],
)
def test_what_is_no_row_is_refused(score, colored, tmp_path, given, said):
    result = score(*(text.replace("HERE", str(colored)) for text in given))
    assert result.exit_code == 2
    assert said in one_line(result)
    assert not (tmp_path / "out").exists()


def test_without_the_truth_score_says_what_is_missing(colored):
    result = call("score", colored, "--as-is")
    assert result.exit_code == 2
    assert "--truth" in one_line(result)
