"""`colorbench colorize`: photos of any size in bounded memory, and what it refuses."""

import os

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import jpeg
from PIL import Image
from torch import nn
from torch.nn import functional as F

from colorbench.cli import main
from colorbench.color import recombine
from colorbench.data.loader import to_lab
from colorbench.harness import photo
from colorbench.harness.photo import colorize_image
from colorbench.harness.predict import colorize


class Wavy(nn.Module):
    def forward(self, L):
        return torch.cat((torch.sin(L / 20) * 40, torch.cos(L / 30) * 30), 1)


def smooth(width, height):
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 255, (5, 7, 3), np.uint8)).resize((width, height))


def squared(image, size):
    """The rule in its plain form: all of the photo padded to a square, all of ab enlarged."""
    pixels = np.asarray(image)
    height, width = pixels.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.pad(pixels, ((top, side - height - top), (left, side - width - left), (0, 0)), mode="symmetric")
    small = np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.BICUBIC))
    ab = colorize(Wavy(), to_lab(small[None], torch.device("cpu"))[0])
    ab = F.interpolate(ab, (side, side), mode="bicubic", antialias=True)[..., top : top + height, left : left + width]
    return recombine(to_lab(pixels[None], torch.device("cpu"))[0], ab)[0].permute(1, 2, 0).numpy()


@pytest.fixture(scope="module")
def run_of_grey(photo_zip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "grey"
    arguments = ["run", "--models", "grey", "--data", photo_zip, "--preset", "smoke", "--out", folder, "--no-timing"]
    assert CliRunner().invoke(main, [str(argument) for argument in arguments]).exit_code == 0
    return folder


@pytest.mark.parametrize("size", [(300, 200), (200, 301), (300, 20), (9, 400), (40, 40), (30, 50)])
def test_bands_give_what_the_whole_photo_gives(size, monkeypatch):
    monkeypatch.setattr(photo, "BAND", 1000)
    image = smooth(*size)
    difference = np.abs(np.asarray(colorize_image(Wavy(), image, 32)).astype(int) - squared(image, 32))
    assert np.percentile(difference, 99) <= 2  # one level in the network's input may be more in single pixels
    assert difference.mean() < 0.2


def test_no_step_takes_more_than_a_band_of_a_photo(monkeypatch):
    seen = []
    monkeypatch.setattr(photo, "BAND", 5000)
    monkeypatch.setattr(photo, "to_lab", lambda pixels, device: seen.append(pixels.size // 3) or to_lab(pixels, device))
    assert colorize_image(Wavy(), smooth(640, 480), 32).size == (640, 480)
    assert max(seen) <= 5000
    assert sum(seen) == 640 * 480 + 32 * 32


def test_what_is_colored_is_not_written_among_the_photos(colorbench, run_of_grey, tmp_path, monkeypatch):
    photos, here = tmp_path / "photos", tmp_path / "here"
    photos.mkdir()
    here.mkdir()
    smooth(60, 40).save(photos / "a.png")
    monkeypatch.chdir(here)
    result = colorbench("colorize", photos / "a.png", "--model", "grey", "--run", run_of_grey)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "a-grey.png\n"
    assert [path.name for path in here.iterdir()] == ["a-grey.png"]
    assert [path.name for path in photos.iterdir()] == ["a.png"]


def test_a_photo_beyond_the_limit_of_pillow_is_colored(colorbench, run_of_grey, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    smooth(60, 40).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    arguments = ("colorize", tmp_path / "a.png", "--model", "grey", "--run", run_of_grey)
    result = colorbench(*arguments)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "a-grey.png\n"
    assert Image.MAX_IMAGE_PIXELS == 1000
    monkeypatch.setattr(photo, "MOST_PIXELS", 2000)
    result = colorbench(*arguments)
    assert result.exit_code == 2
    assert "exceeds limit of 2000 pixels" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("", "name a file that ends in .png"),
        ("x.jpg", "name a file that ends in .png"),
        ("x", "name a file that ends in .png"),
        ("absent/x.png", "there is no folder absent"),
        ("photo.png", "it is the photo itself"),
        ("symlink.png", "it is the photo itself"),
        ("hardlink.png", "it is the photo itself"),
        ("folder.png", "cannot write folder.png"),
    ],
)
def test_where_no_png_can_be_written_is_one_line(colorbench, run_of_grey, tmp_path, monkeypatch, out, message):
    monkeypatch.chdir(tmp_path)
    smooth(60, 40).save("photo.png")
    os.symlink("photo.png", "symlink.png")
    os.link("photo.png", "hardlink.png")
    os.mkdir("folder.png")
    before = (tmp_path / "photo.png").read_bytes()
    result = colorbench("colorize", "photo.png", "--model", "grey", "--run", run_of_grey, "--out", out)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert (tmp_path / "photo.png").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize(
    ("name", "message"),
    [("", "cannot read"), (".", "cannot read"), ("float.tif", "float pixels"), ("x.jpg", "No such")],
)
def test_a_photo_that_cannot_be_read_is_one_line(colorbench, run_of_grey, tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.full((20, 20), 7, np.float32)).save("float.tif")
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    result = colorbench("colorize", name, "--model", "grey", "--run", run_of_grey)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
