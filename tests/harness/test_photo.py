"""`colorbench colorize`: photos of any size and kind in bounded memory, many at once, and what it refuses."""

import os
import struct
import zlib

import numpy as np
import pytest
import tifffile
import torch
from click.testing import CliRunner
from conftest import call, jpeg, one_line
from PIL import Image, ImageCms
from skimage.color import rgb2lab
from torch import nn
from torch.nn import functional as F

import colorbench as package
from colorbench import UserError
from colorbench.cli import main
from colorbench.color import recombine
from colorbench.contract import ModelSpec
from colorbench.data.loader import to_lab
from colorbench.harness import photo, recolor
from colorbench.harness.predict import colorize
from colorbench.harness.recolor import color_picture
from colorbench.harness.trained import Loaded


class Wavy(nn.Module):
    def forward(self, L):
        return torch.cat((torch.sin(L / 20) * 40, torch.cos(L / 30) * 30), 1)


def wavy(size=32, **fields):
    return Loaded(Wavy(), ModelSpec("wavy", "", Wavy, **fields), size)


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
    monkeypatch.setattr(recolor, "BAND", 1000)
    image = smooth(*size)
    difference = np.abs(np.asarray(color_picture(wavy(), image)).astype(int) - squared(image, 32))
    assert np.percentile(difference, 99) <= 2  # one level in the network's input may be more in single pixels
    assert difference.mean() < 0.2


def test_no_step_takes_more_than_a_band_of_a_photo(monkeypatch):
    seen = []
    monkeypatch.setattr(recolor, "BAND", 5000)
    monkeypatch.setattr(
        recolor, "to_lab", lambda pixels, device: seen.append(pixels.size // 3) or to_lab(pixels, device)
    )
    assert color_picture(wavy(), smooth(640, 480)).size == (640, 480)
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
    result = colorbench(*arguments, "--overwrite")
    assert result.exit_code == 2
    assert "exceeds limit of 2000 pixels" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("", "--out is empty"),
        ("x.jpg", "name a file that ends in .png"),
        ("absent/x.png", "there is no folder absent"),
        ("photo.png", "it is the photo itself"),
        ("symlink.png", "it is the photo itself"),
        ("hardlink.png", "it is the photo itself"),
        ("full", "cannot write into full: full is a file; name a folder"),
        ("x" * 300, "File name too long"),
    ],
)
def test_where_no_png_can_be_written_is_one_line(colorbench, run_of_grey, tmp_path, monkeypatch, out, message):
    monkeypatch.chdir(tmp_path)
    smooth(60, 40).save("photo.png")
    os.symlink("photo.png", "symlink.png")
    os.link("photo.png", "hardlink.png")
    os.link("photo.png", "full")
    before = (tmp_path / "photo.png").read_bytes()
    result = colorbench("colorize", "photo.png", "--model", "grey", "--run", run_of_grey, "--out", out)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert (tmp_path / "photo.png").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize(
    ("name", "message"),
    [("", "--photo is empty"), (".", "lies among the photos '.'"), ("float.tif", "float pixels"), ("x.jpg", "No such")],
)
def test_a_photo_that_cannot_be_read_is_one_line(colorbench, run_of_grey, tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.full((20, 20), 7, np.float32)).save("float.tif")
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    result = colorbench("colorize", name, "--model", "grey", "--run", run_of_grey)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def deep(levels, profile=None):
    """A PNG of uint16 (h, w, channels)."""
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[levels.shape[2]]
    header = struct.pack(">2I5B", levels.shape[1], levels.shape[0], 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    if profile:
        parts.insert(1, (b"iCCP", b"a\0\0" + zlib.compress(profile)))
    crc = lambda kind, data: struct.pack(">I", zlib.crc32(kind + data))  # noqa: E731
    chunks = [struct.pack(">I", len(data)) + kind + data + crc(kind, data) for kind, data in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def levels_of(file):
    """The levels of a PNG, (h, w, channels); of 16 bit, in rows that are as they are or less the pixel to the left."""
    content = file.read_bytes()
    if content[24] == 8:
        return np.asarray(Image.open(file)).astype(int)
    width, height, _, kind = struct.unpack(">2I2B", content[16:26])
    channels, packed, place = {2: 3, 6: 4}[kind], b"", 8
    while place < len(content):
        length, name = struct.unpack(">I4s", content[place : place + 8])
        packed += content[place + 8 : place + 8 + length] if name == b"IDAT" else b""
        place += 12 + length
    rows = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, -1)
    pixels = rows[:, 1:].reshape(height, width, -1)
    filtered = (rows[:, 0] == 1)[:, None, None]
    pixels = np.where(filtered, np.cumsum(pixels, axis=1, dtype=np.uint8), pixels)
    return pixels.reshape(height, -1).copy().view(">u2").reshape(height, width, channels).astype(int)


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
RAMP = np.linspace(0, 65535, 24 * 20).reshape(24, 20, 1).astype(np.uint16)
ALPHA = np.arange(24 * 20).reshape(24, 20, 1).astype(np.uint16) * 100


def twelve_odd_files(folder):
    """Photos of all kinds, of which nine can be colored."""
    smooth(24, 20).convert("L").save(folder / "01 grey.png", icc_profile=SRGB.replace(b"RGB XYZ", b"GRAYXYZ"))
    smooth(24, 20).convert("LA").save(folder / "02-grey-alpha.png")
    transparent = smooth(24, 20)
    transparent.putalpha(Image.fromarray((ALPHA[:20, :, 0] % 256).astype(np.uint8)).resize((24, 20)))
    transparent.save(folder / "03-rgba.png", icc_profile=SRGB)
    smooth(24, 20).convert("CMYK").save(folder / "04-cmyk.jpg")
    (folder / "05-deep.png").write_bytes(deep(RAMP, SRGB))
    (folder / "06-deep-alpha.png").write_bytes(deep(np.concatenate((RAMP, RAMP // 2, RAMP // 3, ALPHA), 2)))
    Image.fromarray(RAMP[..., 0]).save(folder / "07-deep.tif")
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned to the right
    smooth(24, 20).save(folder / "08-turned.jpg", exif=turned)
    (folder / "sub").mkdir()
    smooth(24, 20).quantize(8).save(folder / "sub/09 palette.gif")
    (folder / "10-cut.jpg").write_bytes(jpeg(0)[:300])
    (folder / "11-text.png").write_text("no picture")
    smooth(24, 20).save(folder / "sub/09 palette.png")
    return folder


MODELS = """
from pathlib import Path
from colorbench import ModelSpec, hookimpl

with Path(__file__).with_name("imports").open("a") as imports:
    imports.write("x")


def build(a=0, b=0, **_):
    import torch
    from torch import nn

    class Network(nn.Module):
        def forward(self, L, hints=None):
            ab = torch.tensor([a, b]).float()[:, None, None].expand(len(L), 2, *L.shape[2:])
            return ab if hints is None else hints[:, :2]

    return Network()


@hookimpl
def register_models(register):
    for name, options, takes in (("warm", {"a": 6, "b": 8}, ()), ("neutral", {}, ()), ("hinted", {}, ("hints",))):
        register(ModelSpec(name, "a test", build, options=options, takes=takes, published_size=32))
"""


class Album:
    """A folder with photos, a plugin and weights of its models."""

    def __init__(self, folder):
        self.folder, self.out = folder, folder / "out"
        (folder / "models.py").write_text(MODELS)
        torch.save({}, folder / "empty.pth")

    def colorize(self, photos, *models, more=()):
        weights = [
            word for model in models for word in ("--model", model, "--weights", f"{model}={self.folder}/empty.pth")
        ]
        return call("colorize", photos, *weights, "--plugin", self.folder / "models.py", "--out", self.out, *more)

    def levels(self, name):
        return levels_of(self.out / name)


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """The twelve files, colored by two models; `result` is that of the command."""
    album = Album(tmp_path_factory.mktemp("album"))
    (album.folder / "photos").mkdir()
    album.result = album.colorize(twelve_odd_files(album.folder / "photos"), "warm", "neutral")
    return album


@pytest.fixture
def empty(tmp_path):
    return Album(tmp_path)


def test_of_twelve_odd_files_those_that_can_be_are_colored_and_the_others_named(album):
    names = ["01 grey", "02-grey-alpha", "03-rgba", "04-cmyk", "05-deep", "06-deep-alpha", "07-deep", "08-turned"]
    due = {
        str(album.out / f"{name}-{model}.png") for name in [*names, "sub/09 palette"] for model in ("warm", "neutral")
    }
    assert {*album.result.stdout.splitlines()} == due == {str(path) for path in album.out.rglob("*.*")}
    assert album.result.exit_code == 1
    said = album.result.stderr
    assert "10-cut.jpg: broken image" in said
    assert "11-text.png: not an image" in said
    assert said.count(" was made of ") == said.count("palette.png is left out: ") == 2
    assert len(said.splitlines()) == 4
    assert (album.folder / "imports").read_text() == "x"


def test_the_luminance_stays_and_the_color_is_that_of_the_model(album):
    for name in ("01 grey", "04-cmyk", "sub/09 palette", "02-grey-alpha"):
        lab = {model: rgb2lab(album.levels(f"{name}-{model}.png")[..., :3] / 255) for model in ("warm", "neutral")}
        inside = (lab["neutral"][..., 0] > 20) & (lab["neutral"][..., 0] < 85)
        assert inside.sum() > 100
        difference = (lab["warm"] - lab["neutral"])[inside]
        np.testing.assert_allclose(difference, np.tile([0, 6, 8], (len(difference), 1)), atol=1)
    given = rgb2lab(np.stack([np.asarray(Image.open(album.folder / "photos/01 grey.png"))] * 3, 2))
    np.testing.assert_allclose(rgb2lab(album.levels("01 grey-neutral.png") / 255), given, atol=0.6)


@pytest.mark.parametrize(("name", "of"), [("05-deep", (1, 1, 1)), ("06-deep-alpha", None), ("07-deep", (1, 1, 1))])
def test_sixteen_bit_are_kept(album, name, of):
    levels = album.levels(f"{name}-neutral.png")
    if of:
        np.testing.assert_allclose(levels, np.repeat(RAMP.astype(int), 3, 2), atol=3)
        assert len(np.unique(levels[..., 0])) > 450
    else:
        given = np.concatenate((RAMP, RAMP // 2, RAMP // 3), 2) / 65535
        np.testing.assert_allclose(rgb2lab(levels[..., :3] / 65535)[..., 0], rgb2lab(given)[..., 0], atol=0.02)
        assert np.array_equal(levels[..., 3:], ALPHA)


def test_alpha_and_an_rgb_profile_are_kept_and_a_turned_photo_is_upright(album):
    for name in ("02-grey-alpha", "03-rgba"):
        given, made = (
            Image.open(path) for path in (album.folder / f"photos/{name}.png", album.out / f"{name}-warm.png")
        )
        assert np.array_equal(np.asarray(given.getchannel("A")), np.asarray(made.getchannel("A")))
    profiles = {path.name: Image.open(path).info.get("icc_profile") for path in album.out.glob("*-warm.png")}
    assert {name for name, profile in profiles.items() if profile == SRGB} == {"03-rgba-warm.png", "05-deep-warm.png"}
    assert {*profiles.values()} == {SRGB, None}
    assert Image.open(album.out / "08-turned-warm.png").size == (20, 24)


def test_nothing_is_overwritten_unasked(empty):
    smooth(24, 20).save(empty.folder / "a.jpg")
    made = empty.out / "a-warm.png"
    assert empty.colorize(empty.folder / "a.jpg", "warm").stdout == f"{made}\n"
    made.write_bytes(b"mine")
    result = empty.colorize(empty.folder / "a.jpg", "warm", "neutral")
    assert result.exit_code == 1
    assert one_line(result).endswith(f"there is {made} already; --overwrite replaces it")
    assert result.stdout == f"{empty.out / 'a-neutral.png'}\n"
    assert made.read_bytes() == b"mine"
    assert empty.colorize(str(empty.folder / "*.jpg"), "warm", more=("--overwrite",)).exit_code == 0
    assert Image.open(made).size == (24, 20)


def test_no_photo_is_overwritten_by_the_colors_of_another(empty):
    empty.out.mkdir()
    photos = empty.out / "a.jpg", empty.out / "a-warm.png"
    for file in photos:
        smooth(24, 20).save(file)
    before = photos[1].read_bytes()
    result = empty.colorize(str(empty.out / "a*"), "warm", more=("--overwrite",))
    assert result.exit_code == 1
    assert one_line(result).endswith(f"{photos[1]}: it is one of the photos; name another file or folder with --out")
    assert photos[1].read_bytes() == before
    assert result.stdout == f"{empty.out / 'a-warm-warm.png'}\n"


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_webp_is_colored(empty, mode, lossless):
    given = smooth(24, 20)
    if mode == "RGBA":
        given.putalpha(128)
    given.save(empty.folder / "a.webp", lossless=lossless)
    result = empty.colorize(empty.folder / "a.webp", "warm")
    assert result.exit_code == 0, result.stderr
    made = Image.open(empty.out / "a-warm.png")
    assert (made.mode, made.size) == (mode, (24, 20))


@pytest.mark.parametrize("tall", [False, True])
def test_hints_are_where_they_were_painted_and_intensity_multiplies(empty, tall):
    turned = (lambda pixels: pixels.swapaxes(0, 1)) if tall else (lambda pixels: pixels)
    Image.fromarray(turned(np.asarray(smooth(60, 40).convert("L"))).copy()).save(empty.folder / "a.png")
    layer = np.zeros((40, 60, 4), np.uint8)
    layer[10:18, 20:30] = 200, 60, 60, 255
    layer[30:, 50:] = 0, 0, 255, 100  # too transparent to count
    Image.fromarray(turned(layer).copy()).save(empty.folder / "layer.png")
    more = ("--hints", empty.folder / "layer.png")
    chroma = []
    for intensity in ("1", "0.5"):
        result = empty.colorize(empty.folder / "a.png", "hinted", more=(*more, "--intensity", intensity, "--overwrite"))
        assert result.exit_code == 0, result.stderr
        chroma.append(turned(np.hypot(*np.moveaxis(rgb2lab(empty.levels("a-hinted.png") / 255)[..., 1:], 2, 0))))
    red = np.hypot(*rgb2lab(np.array([[[200, 60, 60]]]) / 255)[0, 0, 1:])
    assert chroma[0][12:16, 23:27].mean() == pytest.approx(red, rel=0.1)
    assert chroma[1][12:16, 23:27].mean() == pytest.approx(red / 2, rel=0.1)
    assert chroma[0][:, 36:].max() < 2


@pytest.mark.parametrize(
    ("model", "more", "said"),
    [
        ("warm", ("--hints", "layer.png"), "'warm' takes no hints"),
        ("hinted", ("--hints", "a.png"), "the picture has no transparency; give a layer of 60x40 pixels"),
        ("hinted", ("--hints", "small.png"), "the picture is 20x24 pixels; give a layer of 60x40 pixels"),
        ("hinted", ("--hints", "layer.png"), "no pixel of the picture is opaque"),
        ("hinted", ("--hints", "absent.png"), "cannot read absent.png"),
        ("hinted", ("a.png", "--hints", "layer.png"), "hints are for one photo"),
        ("warm", ("--intensity", "-1"), "the intensity is -1.0; give a number from 0 to 100"),
        ("warm", ("--intensity", "nan"), "the intensity is nan"),
        ("warm", ("--intensity", "1e308"), "the intensity is 1e+308"),
        ("warm", ("nothing*.jpg",), "no file matches 'nothing*.jpg'"),
        ("warm", ("--weights", "empty.pth", "--model", "neutral"), "--weights empty.pth: say MODEL=FILE"),
        ("warm", ("a.png", "--out", "x.png"), "it is one file, for several pictures"),
    ],
)
def test_what_cannot_be_asked_of_colorize_is_one_line(empty, monkeypatch, model, more, said):
    monkeypatch.chdir(empty.folder)
    smooth(60, 40).save("a.png")
    Image.new("RGBA", (60, 40)).save("layer.png")
    Image.new("RGBA", (20, 24)).save("small.png")
    result = empty.colorize("a.png", model, more=more)
    assert result.exit_code == 2
    assert said in one_line(result)
    assert len(result.stderr.splitlines()) == 1
    assert not list(empty.out.glob("*"))


def test_python_colors_as_the_command_does(empty):
    smooth(60, 40).save(empty.folder / "a.png")
    empty.colorize(empty.folder / "a.png", "warm")
    given = {"weights": empty.folder / "empty.pth", "plugins": empty.folder / "models.py"}
    made = package.colorize(empty.folder / "a.png", "warm", **given)
    assert np.array_equal(np.asarray(made), np.asarray(Image.open(empty.out / "a-warm.png")))
    assert package.colorize(Image.new("LA", (20, 20)), "warm", **given).mode == "RGBA"
    with pytest.raises(UserError, match="the intensity is -1"):
        package.colorize(empty.folder / "a.png", "warm", intensity=-1, **given)
    with pytest.raises(UserError, match="weights is 13; give the path of a file"):
        package.colorize(empty.folder / "a.png", "warm", weights=13)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_all_bits_of_a_png_are_read(channels, tmp_path):
    levels = np.random.default_rng(0).integers(0, 65536, (24, 20, channels)).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(deep(levels))
    read = photo.read(tmp_path / "a.png")
    parts = [read.deep] if read.alpha is None else [read.deep, read.alpha[..., None]]
    assert np.array_equal(np.concatenate(parts, 2), levels)
    assert (read.alpha is None) == (channels in (1, 3))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_all_bits_of_a_tiff_in_color_are_read(order, compression, tmp_path):
    levels = np.random.default_rng(0).integers(0, 65536, (24, 20, 3)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", levels, byteorder=order, compression=compression, photometric="rgb")
    assert np.array_equal(photo.read(tmp_path / "a.tif").deep, levels)
