"""Pictures, folders and datasets that somebody made badly, or to do harm."""

import io
import os
import struct
import zipfile
from dataclasses import dataclass, replace

import numpy as np
import pytest
from conftest import jpeg, jpegs
from PIL import Image

from colorbench.contract import DatasetSpec
from colorbench.data import sources
from colorbench.data.cache import decode_all
from colorbench.data.sources import FilePicture, pictures
from colorbench.data.splits import open_splits
from colorbench.errors import UserError
from colorbench.protocol import COLORBENCH

TEST = {"test": None}
SMALL = replace(COLORBENCH, size=16)


@pytest.fixture
def folder(tmp_path):
    """40 JPEGs, so that one more that cannot be read is left out."""
    return jpegs(tmp_path / "photos", 40)


def unreadable(data, registry):
    images = decode_all(str(data), open_splits(str(data), registry, TEST), SMALL).splits["test"]
    assert len(images) == 40
    return images.unreadable


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("states", [None, 1000])
def test_a_member_that_unfolds_to_a_huge_file_is_left_out_by_name(
    folder, tmp_path, registry, method, states, monkeypatch
):
    monkeypatch.setattr(sources, "LARGEST_FILE", 1 << 20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
        archive.writestr("huge.jpg", bytes(3 << 20))
    if states:  # the size that the zip states is false
        content = bytearray((tmp_path / "a.zip").read_bytes())
        place = content.rindex(b"huge.jpg") - 46
        content[place + 24 : place + 28] = struct.pack("<I", states)
        (tmp_path / "a.zip").write_bytes(content)
    (reason,) = unreadable(tmp_path / "a.zip", registry).values()
    assert reason == "larger than 1 MiB" if not states else reason


def test_a_huge_file_is_never_read_as_a_whole(monkeypatch):
    class Endless(io.RawIOBase):
        total = 0

        def read(self, size=-1):
            assert 0 < size <= 1 << 20
            self.total += size
            return bytes(size)

    monkeypatch.setattr(sources, "LARGEST_FILE", 4 << 20)
    for read in (lambda p: p.digest, lambda p: p.load(16)):
        endless = Endless()
        with pytest.raises(OSError, match="larger than 4 MiB"):
            read(FilePicture("a.jpg", lambda: endless))  # noqa: B023
        assert endless.total < 6 << 20


def test_a_format_that_is_not_listed_reaches_no_decoder(folder, registry, monkeypatch):
    from PIL import EpsImagePlugin

    (folder / "eps.jpg").write_bytes(saved(Image.new("RGB", (20, 20)), "EPS"))
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("Ghostscript was called"))
    assert unreadable(folder, registry)["eps.jpg"].startswith("not an image in one of the formats BMP, GIF, JPEG")


@pytest.mark.parametrize("kind", sources.FORMATS)
def test_every_listed_format_is_read(kind):
    content = saved(Image.new("RGB", (20, 30), (200, 100, 50)), kind)
    loaded = FilePicture("a", lambda: io.BytesIO(content)).load(16)
    np.testing.assert_allclose(loaded.reshape(-1, 3).mean(0), (200, 100, 50), atol=20)


def test_a_decompression_bomb_is_left_out_in_one_line(folder, registry, monkeypatch, capsys):
    (folder / "bomb.png").write_bytes(saved(Image.new("1", (300, 300)), "PNG"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40_000)
    assert "decompression bomb" in unreadable(folder, registry)["bomb.png"]
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "written"),
    [
        (b"\xff\xfe.jpg", "\\udcff\\udcfe.jpg"),
        (b"a\rb.jpg", "a\\rb.jpg"),
        (b"a\nb.jpg", "a\\nb.jpg"),
        (b"a\x1b[2Jb.jpg", "a\\x1b[2Jb.jpg"),
        ("a\u2028b.jpg".encode(), "a\\u2028b.jpg"),
        (b"a" * 245 + b".jpg", "a" * 245 + ".jpg"),
    ],
)
def test_a_file_whose_name_cannot_be_written_down_is_left_out(folder, registry, capsys, name, written):
    with open(os.path.join(os.fsencode(folder), name), "wb") as file:
        file.write(jpeg(99))
    assert "its name" in unreadable(folder, registry)[written]
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert f"left out {written}: its name" in message


@pytest.mark.parametrize("name", ["../a.jpg", "/a.jpg", "b/../../a.jpg"])
def test_a_name_that_leads_out_of_its_zip_is_left_out(folder, tmp_path, registry, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
        archive.writestr(name, jpeg(99))
    assert "leads out" in unreadable(tmp_path / "a.zip", registry)[name]


def test_usual_names_of_many_languages_stay(folder, registry):
    names = {"Ünïcode é.jpg", "写真\u3000一.jpg", "👩\u200d🎨.jpg", "a b,c;'\".jpg", "\\x.jpg", "NA.jpg"}
    for index, name in enumerate(names):
        (folder / name).write_bytes(jpeg(100 + index))
    images = decode_all("photos", open_splits(str(folder), registry, TEST), SMALL).splits["test"]
    assert names < set(images.names)
    assert {type(name) for name in images.names} == {str}


def test_a_zip_with_names_that_begin_with_a_dot_and_a_slash(folder, tmp_path, registry):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in folder.iterdir():
            archive.writestr(f"./test/{file.name}", file.read_bytes())
    assert unreadable(tmp_path / "a.zip", registry) == {}
    assert pictures(tmp_path / "a.zip")[0].name == "test/000.jpg"


def test_a_zip_that_holds_a_name_twice_is_refused(tmp_path, registry):
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        for name in ("a.jpg", "./a.jpg"):  # which of them is meant?
            archive.writestr(name, jpeg(0))
    with pytest.raises(UserError, match=r"more than one file called a.jpg; pack it anew"):
        open_splits(str(tmp_path / "twice.zip"), registry, {"test": None})


def test_hidden_folders_are_skipped(folder, tmp_path, registry):
    (folder / ".git" / "x").mkdir(parents=True)
    (folder / ".git" / "x" / "y.jpg").write_bytes(jpeg(99))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in folder.rglob("*.jpg"):
            archive.write(file, file.relative_to(folder))
    for data in (folder, tmp_path / "a.zip"):
        assert len(pictures(data)) == 40


def test_a_folder_that_cannot_be_listed_is_named(folder, registry, capsys, monkeypatch):
    (folder / "locked").mkdir()
    scandir = os.scandir

    def denied(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert unreadable(folder, registry) == {}
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert f"left out the folder '{folder}/locked': Permission denied" in message


def test_pipes_are_skipped_and_loops_of_links_end(folder, registry):
    os.mkfifo(folder / "pipe.jpg")
    (folder / "null.jpg").symlink_to("/dev/null")
    (folder / "loop").symlink_to(folder)
    (folder / "sub").mkdir()
    (folder / "sub" / "up").symlink_to("..")
    assert unreadable(folder, registry) == {}


def test_a_link_to_nothing_is_named(folder, registry):
    (folder / "gone.jpg").symlink_to("nothing")
    (folder / "self.jpg").symlink_to("self.jpg")
    assert unreadable(folder, registry) == {
        "gone.jpg": "No such file or directory",
        "self.jpg": "Too many levels of symbolic links",
    }


def gradient(dtype, top):
    return Image.fromarray(np.linspace(0, top, 400).reshape(20, 20).astype(dtype))


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (gradient(np.uint8, 255), "TIFF"),
        (gradient(np.uint16, 65535), "TIFF"),
        (gradient(np.uint16, 65535), "PNG"),
        (gradient(np.int32, 65535), "PPM"),
        (gradient(np.float32, 1), "TIFF"),
    ],
)
def test_deep_pixels_of_an_evident_range_are_scaled(image, kind):
    content = saved(image, kind)
    loaded = FilePicture("a", lambda: io.BytesIO(content)).load(16)
    np.testing.assert_allclose(loaded[..., 0], np.linspace(0, 255, 400).reshape(20, 20), atol=1)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (gradient(np.float32, 255), "float pixels outside of 0..1"),
        (gradient(np.float32, -1), "float pixels outside of 0..1"),
        (Image.fromarray(np.full((20, 20), np.nan, np.float32)), "float pixels outside of 0..1"),
        (gradient(np.int32, 255), "integer pixels of 32 bit"),
        (gradient(np.int32, 2**31 - 1), "integer pixels of 32 bit"),
    ],
)
def test_deep_pixels_of_an_unknown_range_are_left_out(folder, registry, image, reason):
    (folder / "deep.tif").write_bytes(saved(image, "TIFF"))
    assert reason in unreadable(folder, registry)["deep.tif"]


def test_two_pictures_whose_predictions_would_be_one_file_are_refused(folder, registry):
    (folder / "000.jpg.png").write_bytes(saved(Image.new("RGB", (20, 20)), "PNG"))
    with pytest.raises(UserError, match=r"000\.jpg.* would both be stored as 000\.jpg\.png; rename one"):
        open_splits(str(folder), registry, TEST)


@dataclass
class Drawn:
    name: object = "a"
    digest: object = "1"
    pixels: object = None

    def load(self, size):
        if isinstance(self.pixels, BaseException):
            raise self.pixels
        return np.zeros((size, size, 3), np.uint8) if self.pixels is None else self.pixels


class Nameless:
    @property
    def name(self):
        raise KeyError("no name")


def opened(registry, monkeypatch, found):
    """What `--data hostile` gives, whose `open` returns or raises `found`."""

    def open_dataset(argument):
        if isinstance(found, BaseException):
            raise found
        return found

    monkeypatch.setitem(registry.specs["dataset"], "hostile", DatasetSpec("hostile", "", open_dataset))
    return decode_all("hostile", open_splits("hostile", registry, TEST), SMALL).splits["test"]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (KeyError("x"), "KeyError: 'x'"),
        (SystemExit(0), "SystemExit: 0"),
        (OSError(2, "No such file"), "FileNotFoundError"),
        (UserError("say which year"), "say which year"),
        (None, "AttributeError"),
        ({"test": None}, "TypeError"),
        ({}, "it has no test images"),
        ({"test": []}, "it has no test images"),
        ({"test": [object()]}, "AttributeError"),
        ({"test": [Nameless()]}, "KeyError: 'no name'"),
        ({"test": [Drawn(name=None)]}, "its name must be text"),
        ({"test": [Drawn(name="")]}, "its name must be text"),
        ({"test": [Drawn(), Drawn(digest="2")]}, "would both be stored as a.png"),
        ({"test": [Drawn(), Drawn("a.png")]}, "would both be stored as a.png"),
        ({"test": [Drawn(digest=7)]}, "its digest is 7"),
        ({"test": [Drawn(digest="\udcff")]}, "its digest is"),
        ({"test": [Drawn(pixels=KeyError("x"))]}, "1 of 1 test images .*KeyError: 'x'"),
        ({"test": [Drawn(pixels=SystemExit(0))]}, "1 of 1 test images .*SystemExit: 0"),
        ({"test": [Drawn(pixels=np.zeros((20, 20, 3)))]}, "float64 .* is due"),
        ({"test": [Drawn(pixels=np.zeros((20, 20), np.uint8))]}, r"uint8 \(20, 20\); uint8 \(h, w, 3\) is due"),
        ({"test": [Drawn(pixels="picture")]}, "is due"),
        ({"test": [Drawn(pixels=np.broadcast_to(np.uint8(7), (2**20, 2**20, 3)))]}, "a picture of 3,298,534,883,328 b"),
    ],
)
def test_a_dataset_that_misbehaves_is_one_line(registry, monkeypatch, found, message):
    with pytest.raises(UserError, match=message) as raised:
        opened(registry, monkeypatch, found)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"all": np.ones((17, 16), bool)}, r"mask all as \(17, 16\); \(16, 16\) is due"),
        ({"depth": np.ones((16, 16))}, "depth as float64; one of bool, uint8, int64, float32 is due"),
        ({"hints": np.ones((16, 16), bool)}, "calls an array 'hints'"),
        ({"a" * 65: np.ones((16, 16), bool)}, "calls an array 'a+'; use up to 64 lower-case letters"),
        (
            dict.fromkeys([f"m{i}" for i in range(256)], np.ones((16, 16), bool)),
            "gave 256 masks of parts; give up to 255",
        ),
        ({"../x": np.ones((16, 16), bool)}, r"calls an array '\.\./x'"),
        ({"depth": np.broadcast_to(np.float32(0), (2**20, 2**20))}, "depth of 4,398,046,511,104 bytes; give up to"),
        (7, "AttributeError"),
    ],
)
def test_arrays_that_break_the_contract_are_left_out(registry, monkeypatch, arrays, message):
    class More(Drawn):
        def arrays(self, size):
            return arrays

    with pytest.raises(UserError, match=message):
        opened(registry, monkeypatch, {"test": [More(digest=f"more {message}")]})


def test_a_picture_whose_arrays_are_not_those_of_the_first_is_left_out(registry, monkeypatch):
    class More(Drawn):
        def arrays(self, size):
            return {"caption": np.zeros(3 if self.name == "9" else 4, np.float32)}

    images = opened(registry, monkeypatch, {"test": [More(str(i), f"more {i}") for i in range(40)]})
    assert list(images.unreadable) == ["9"]
    assert images.arrays["caption"].shape == (39, 4)


@pytest.mark.parametrize("kind", ["", "fifo", "file", "denied", "long"])
def test_data_that_is_none_is_one_line(colorbench, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    data = {"": "", "long": "x" * 5000}.get(kind, str(tmp_path / kind))
    if kind == "fifo":
        os.mkfifo(data)
    elif kind in ("file", "denied"):
        (tmp_path / kind).write_text("hello")
    if kind == "denied":
        monkeypatch.setattr(zipfile, "ZipFile", lambda path: (path / "x").read_bytes())
    result = colorbench("run", "--models", "grey", "--data", data, "--preset", "smoke", "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    expected = {"": "--data is empty", "denied": "cannot read", "long": "unknown dataset or path"}
    assert expected.get(kind, "neither a folder nor a zip") in result.stderr
