"""The decoded cache: what its entries depend on, what happens to damaged and unfinished ones."""

import json
import os
import pickle
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
from conftest import jpeg

from colorbench.code import code_hash
from colorbench.data import cache, decode
from colorbench.data.cache import ARRAY, INDEX, PIXELS, decode_all, open_images
from colorbench.data.sources import FilePicture, pictures
from colorbench.data.splits import open_splits
from colorbench.errors import UserError
from colorbench.protocol import COLORBENCH

SMALL = replace(COLORBENCH, size=16)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("COLORBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def splits(photo_zip, registry):
    return open_splits(str(photo_zip), registry, {"train": None, "test": None})


@pytest.fixture
def decoded(root, splits):
    return decode_all("photos", splits, SMALL)


def entries(root):
    return {entry.name for entry in root.iterdir()}


@pytest.mark.parametrize(("field", "known"), [("crop", "center-square"), ("resize", "pillow-bicubic")])
def test_an_unknown_field_of_the_protocol_names_what_is_known(root, splits, field, known):
    with pytest.raises(UserError, match=rf"unknown {field}.*'nearest'.*there is: {known}"):
        decode_all("photos", splits, replace(SMALL, **{field: "nearest"}))


def test_the_limit_of_near_grey_is_read_from_the_protocol(root, splits):
    strict, all_grey = (decode_all("photos", splits, replace(SMALL, near_grey=limit)) for limit in (5.0, 500.0))
    assert not strict.splits["test"].near_grey.any()
    assert all_grey.splits["test"].near_grey.all()


def test_one_pixel_of_color_is_enough():
    pixels = np.full((32, 32, 3), 128, np.uint8)
    assert decode._is_near_grey(pixels, 5.0)
    pixels[9, 17] = 200, 40, 40
    assert not decode._is_near_grey(pixels, 5.0)


def test_an_entry_belongs_to_the_protocol_and_to_the_code_that_decodes(root, splits, decoded, monkeypatch):
    first = entries(root)
    decode_all("photos", splits, SMALL)
    assert entries(root) == first
    decode_all("photos", splits, replace(SMALL, luminance="other"))
    assert len(entries(root)) == 4
    monkeypatch.setattr(cache, "own_code", lambda names: "other code")
    decode_all("photos", splits, SMALL)
    assert len(entries(root)) == 6


def test_the_code_is_hashed_without_its_prose(tmp_path):
    def hashed(source):
        (tmp_path / "a.py").write_text(source)
        return code_hash([tmp_path / "a.py"])

    first = hashed('"""Prose."""\ndef f():\n    """More."""\n    return 1\n')
    assert hashed("def f():  # a comment\n\n    return 1\n") == first
    assert hashed("def f():\n    return 2\n") != first


def test_the_fingerprint_of_some_splits(decoded):
    assert decoded.fingerprint_of("train", "test") == decoded.fingerprint_of("test", "train") == decoded.fingerprint
    assert len({decoded.fingerprint_of(*some) for some in (("train",), ("test",), ("train", "test"))}) == 3


def test_a_pickle_holds_the_path_and_opens_the_entry_again(decoded):
    images = decoded.splits["train"]
    content = pickle.dumps(images)
    assert len(content) < 500
    again = pickle.loads(content)
    np.testing.assert_array_equal(again.pixels, images.pixels)
    assert (again.names, again.digests, again.entry) == (images.names, images.digests, images.entry)
    in_memory = replace(images, entry=None, pixels=np.array(images.pixels))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(in_memory)).pixels, images.pixels)


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGES = {
    "flipped pixels": (PIXELS, flip),
    "truncated pixels": (PIXELS, lambda file: os.truncate(file, 100)),
    "no pixels": (PIXELS, lambda file: file.unlink()),
    "flipped index": (INDEX, flip),
    "truncated index": (INDEX, lambda file: os.truncate(file, 100)),
    "empty index": (INDEX, lambda file: file.write_text("")),
    "edited index": (INDEX, lambda file: file.write_text(file.read_text().replace("/000.jpg", "/00X.jpg"))),
    "another index": (INDEX, lambda file: file.write_text("{}")),
    "no object": (INDEX, lambda file: file.write_text("[1]")),
    "no text": (INDEX, lambda file: file.write_bytes(b"\xff\xfe")),
    "a folder for a file": (INDEX, lambda file: (file.unlink(), file.mkdir())),
    "a file for the folder": (".", lambda folder: (shutil.rmtree(folder), folder.write_text(""))),
    "a link to nothing": (".", lambda folder: (shutil.rmtree(folder), folder.symlink_to("nothing"))),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_decoded_again_with_one_line(root, splits, decoded, capsys, damage):
    images = decoded.splits["train"]
    pixels = np.array(images.pixels)
    name, do = DAMAGES[damage]
    do(images.entry / name)
    with pytest.raises(UserError, match="cannot be used"):
        open_images(images.entry)
    capsys.readouterr()
    again = decode_all("photos", splits, SMALL).splits["train"]
    np.testing.assert_array_equal(again.pixels, pixels)
    assert again.names == images.names
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert str(images.entry) in message
    assert len(entries(root)) == 2
    decode_all("photos", splits, SMALL)
    assert capsys.readouterr().err == ""


def test_a_damaged_array_is_decoded_again(root, registry):
    pictures = registry.specs["dataset"]["portraits"].open("")["test"][:2]
    hashed = {"test": [(picture.digest, picture) for picture in pictures]}
    images = decode_all("portraits", hashed, SMALL).splits["test"]
    skin = np.array(images.arrays["skin"])
    for _, damage in (DAMAGES["flipped pixels"], DAMAGES["no pixels"]):
        damage(images.entry / ARRAY.format("skin"))
        with pytest.raises(UserError, match="cannot be used"):
            open_images(images.entry)
        images = decode_all("portraits", hashed, SMALL).splits["test"]
        np.testing.assert_array_equal(images.arrays["skin"], skin)


def test_hints_change_neither_the_pixels_nor_the_entry(root, splits, decoded):
    first = entries(root)
    decode_all("photos", splits, replace(SMALL, hints=3, hint_size=2))
    assert entries(root) == first


def test_every_flipped_bit_of_an_index_is_noticed(decoded):
    file = decoded.splits["test"].entry / INDEX
    content = file.read_bytes()
    for place in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged)
        try:
            images = open_images(file.parent)
        except UserError:
            continue
        assert json.loads(damaged) == json.loads(content)  # such as a space that became another
        assert images.names == decoded.splits["test"].names


@dataclass(frozen=True)
class Absent:
    """A picture whose digest needs no file, as a dataset with a list of checksums has it."""

    name: str
    path: object

    @property
    def digest(self):
        return self.name

    def load(self, size):
        return FilePicture(self.name, lambda: self.path.open("rb")).load(size)


def test_a_failure_to_read_is_tried_again(root, tmp_path, capsys):
    paths = [tmp_path / f"{i}.jpg" for i in range(40)]
    for i, path in enumerate(paths[1:]):
        path.write_bytes(jpeg(i))
    hashed = [(str(i), Absent(f"{i}.jpg", path)) for i, path in enumerate(paths)]
    for _ in range(2):
        assert decode_all("photos", {"test": hashed}, SMALL).splits["test"].unreadable == {
            "0.jpg": "No such file or directory"
        }
    assert len(entries(root)) == 1
    paths[0].write_bytes(jpeg(99))
    images = decode_all("photos", {"test": hashed}, SMALL).splits["test"]
    assert (len(images), images.unreadable) == (40, {})
    assert len(entries(root)) == 1


def test_a_file_that_could_not_be_hashed_is_left_out_even_if_it_can_be_read_later(root, tmp_path, registry):
    for i in range(40):
        (tmp_path / f"{i}.jpg").write_bytes(jpeg(i))
    (tmp_path / "x.jpg").symlink_to(tmp_path / "later")
    hashed = open_splits(str(tmp_path), registry, {"test": None})
    (tmp_path / "later").write_bytes(jpeg(99))
    assert decode_all("photos", hashed, SMALL).splits["test"].unreadable == {"x.jpg": "No such file or directory"}
    hashed = open_splits(str(tmp_path), registry, {"test": None})
    assert decode_all("photos", hashed, SMALL).splits["test"].unreadable == {}


def test_an_entry_is_as_readable_as_the_umask_says(root, splits):
    before = os.umask(0o027)
    try:
        decode_all("photos", splits, SMALL)
    finally:
        os.umask(before)
    for entry in root.iterdir():
        assert stat.S_IMODE(entry.stat().st_mode) == 0o750
        assert {stat.S_IMODE(file.stat().st_mode) for file in entry.iterdir()} == {0o640}


def test_the_folders_of_killed_processes_are_removed_and_no_others(root, splits):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    kept = [f"{cache.UNFINISHED}{os.getpid()}-abc", f".decoding-elsewhere-{ended.pid}-abc", ".decoding-", ".other"]
    for name in (f"{cache.UNFINISHED}{ended.pid}-abc", *kept):
        (root / name / "entry").mkdir(parents=True)
    decode_all("photos", splits, SMALL)
    assert {name for name in entries(root) if name.startswith(".")} == set(kept)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device"), RuntimeError])
def test_a_decoding_that_stops_leaves_nothing(root, splits, monkeypatch, error):
    def stop(*_):
        raise error

    monkeypatch.setattr(decode, "_is_near_grey", stop)
    with pytest.raises(error if isinstance(error, type) else type(error)):
        decode_all("photos", splits, SMALL)
    assert entries(root) == set()


def test_pictures_of_a_folder_and_their_order(tmp_path):
    for name in ("b.jpg", "a.jpg"):
        (tmp_path / name).write_bytes(jpeg(0))
    assert [picture.name for picture in pictures(tmp_path)] == ["a.jpg", "b.jpg"]
