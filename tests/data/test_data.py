"""Sources, splits and the decoded cache."""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from conftest import jpeg, jpegs
from PIL import Image

from colorbench.contract import DatasetSpec
from colorbench.data import decode, splits
from colorbench.data.cache import decode_all
from colorbench.data.decode import fitted
from colorbench.data.sources import FilePicture, pictures
from colorbench.data.splits import ALL_READ, open_splits
from colorbench.errors import UserError
from colorbench.protocol import COLORBENCH

with_digest = splits._with_digest
ALL = {"train": None, "val": None, "test": None}


@pytest.fixture
def photo_folder(tmp_path):
    """60 JPEGs in a folder, without splits."""
    return jpegs(tmp_path / "photos", 60)


def at(size):
    return replace(COLORBENCH, size=size)


def names(splits):
    return {split: {picture.name for _, picture in pairs} for split, pairs in splits.items()}


def test_a_zip_with_splits_inside(photo_zip, registry):
    splits = open_splits(str(photo_zip), registry, ALL)
    assert {split: len(pairs) for split, pairs in splits.items()} == {"train": 24, "val": 6, "test": 6}


def test_a_folder_and_its_zip_are_the_same_data(photo_folder, tmp_path, registry):
    with zipfile.ZipFile(tmp_path / "same.zip", "w") as archive:
        for file in photo_folder.iterdir():
            archive.write(file, file.name)
    folder, zipped = (open_splits(str(p), registry, ALL) for p in (photo_folder, tmp_path / "same.zip"))
    assert names(folder) == names(zipped)
    assert decode_all("a", folder, at(16)).fingerprint == decode_all("b", zipped, at(16)).fingerprint


def test_a_folder_of_zips_is_split_by_their_names(tmp_path, photo_zip, registry):
    for split in ALL:
        with zipfile.ZipFile(photo_zip) as archive, zipfile.ZipFile(tmp_path / f"{split}.zip", "w") as out:
            for name in archive.namelist():
                if f"/{split}/" in name:
                    out.writestr(name.rpartition("/")[2], archive.read(name))
    splits = open_splits(str(tmp_path), registry, ALL)
    assert {split: len(pairs) for split, pairs in splits.items()} == {"train": 24, "val": 6, "test": 6}


def test_the_split_by_content_covers_all_and_adding_a_file_moves_no_other(photo_folder, registry):
    before = names(open_splits(str(photo_folder), registry, ALL))
    assert sum(map(len, before.values())) == 60
    assert all(before.values())
    (photo_folder / "000_new.jpg").write_bytes(jpeg(1000))
    (photo_folder / "renamed.jpg").write_bytes((photo_folder / "007.jpg").read_bytes())
    after = names(open_splits(str(photo_folder), registry, ALL))
    assert all(before[split] <= after[split] for split in ALL)
    assert any({"007.jpg", "renamed.jpg"} <= after[split] for split in ALL), "equal content must stay together"


def test_a_limit_takes_the_same_first_images(photo_folder, registry):
    digests = [digest for digest, _ in open_splits(str(photo_folder), registry, ALL)["train"]]
    limited = open_splits(str(photo_folder), registry, ALL | {"train": 5})["train"]
    assert [digest for digest, _ in limited] == digests[:5]


def test_an_unsplit_folder_is_all_test_when_only_that_is_asked_for(photo_folder, registry):
    assert len(open_splits(str(photo_folder), registry, {"test": None})["test"]) == 60


def test_a_missing_val_is_taken_from_train(photo_folder, registry, tmp_path):
    folder = tmp_path / "two"
    photo_folder.rename(folder / "train") if folder.mkdir() is None else None
    (folder / "test").mkdir()
    (folder / "test" / "a.jpg").write_bytes(jpeg(99))
    splits = names(open_splits(str(folder), registry, ALL))
    assert splits["val"]
    assert not splits["val"] & splits["train"]


def test_later_runs_decode_nothing(photo_zip, registry, monkeypatch):
    first = decode_all("photos", open_splits(str(photo_zip), registry, ALL), at(24))
    monkeypatch.setattr(FilePicture, "load", lambda self, size: pytest.fail("decoded again"))
    again = decode_all("photos", open_splits(str(photo_zip), registry, ALL), at(24))
    for split in ALL:
        np.testing.assert_array_equal(first.splits[split].pixels, again.splits[split].pixels)
    assert isinstance(again.splits["test"].pixels, np.memmap)


def test_the_arrays_of_a_dataset_are_decoded_with_its_pictures(registry, monkeypatch):
    pictures = registry.specs["dataset"]["portraits"].open("")["test"][:3]
    hashed = [(picture.digest, picture) for picture in pictures]
    for _ in range(2):  # drawn, and read again from the cache
        images = decode_all("portraits", {"test": hashed}, at(32)).splits["test"]
        for i, picture in enumerate(pictures):
            drawn = picture.arrays(32)
            assert [*images.arrays] == [*drawn]
            assert all((images.arrays[name][i] == array).all() for name, array in drawn.items())
        monkeypatch.setattr(type(pictures[0]), "load", None)


def test_photographs_have_no_arrays(photo_zip, registry):
    images = decode_all(str(photo_zip), open_splits(str(photo_zip), registry, {"test": None}), at(32)).splits["test"]
    assert images.arrays == {}


def test_another_size_is_another_entry(photo_zip, registry):
    splits = open_splits(str(photo_zip), registry, ALL)
    assert decode_all("photos", splits, at(24)).splits["test"].pixels.shape == (6, 24, 24, 3)
    assert decode_all("photos", splits, at(28)).splits["test"].pixels.shape == (6, 28, 28, 3)


def test_the_resize_rule_is_center_crop_and_pillow_bicubic():
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    expected = Image.fromarray(image[:, 10:60]).resize((16, 16), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(fitted(image, at(16)), np.asarray(expected))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no image at all", "not an image"),
        (jpeg(0)[:200], "broken image"),
        (b"", "not an image"),
        (jpeg(0, (1, 1)), "1x1 pixels"),
    ],
)
def test_an_unreadable_file_is_left_out_by_name(photo_folder, registry, capsys, content, reason):
    (photo_folder / "bad.jpg").write_bytes(content)
    splits = {"test": open_splits(str(photo_folder), registry, {"test": None})["test"]}
    data = decode_all("photos", splits, at(16))
    assert len(data.splits["test"]) == 60
    assert reason in data.record()["splits"]["test"]["unreadable"]["bad.jpg"]
    assert "bad.jpg" in capsys.readouterr().err


def test_a_damaged_member_of_a_zip_is_left_out_by_name(photo_folder, tmp_path, registry):
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in photo_folder.iterdir():
            archive.write(file, file.name)
    content = bytearray(path.read_bytes())
    content[content.index(b"030.jpg") + 200] ^= 0xFF
    path.write_bytes(content)
    images = decode_all("photos", open_splits(str(path), registry, {"test": None}), at(16)).splits["test"]
    assert len(images) == 59
    assert "CRC" in images.unreadable["030.jpg"]


def test_a_damaged_zip_is_one_clear_line(photo_zip, tmp_path, registry):
    content = bytearray(photo_zip.read_bytes())
    content[content.rindex(b"PK\x01\x02") :][:4] = b"PK__"
    content[content.index(b"PK\x01\x02")] ^= 0xFF
    (tmp_path / "bad.zip").write_bytes(content)
    with pytest.raises(UserError, match="damaged zip"):
        open_splits(str(tmp_path / "bad.zip"), registry, ALL)


def test_the_notes_that_macos_puts_into_a_zip_are_no_images(tmp_path, registry):
    with zipfile.ZipFile(tmp_path / "mac.zip", "w") as archive:
        for name in ("a.jpg", "b.jpg", "__MACOSX/._a.jpg", "._b.jpg"):
            archive.writestr(name, jpeg(len(name)))
    assert [p.name for p in pictures(tmp_path / "mac.zip")] == ["a.jpg", "b.jpg"]


def test_a_cache_that_cannot_be_written_is_one_clear_line(photo_zip, tmp_path, registry, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COLORBENCH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"cannot write the cache .*COLORBENCH_CACHE"):
        decode_all("photos", open_splits(str(photo_zip), registry, ALL), at(16))


def test_more_than_a_twentieth_unreadable_is_refused(photo_folder, registry):
    for index in range(4):
        (photo_folder / f"bad{index}.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"4 of 64 test images .* cannot be read, first bad\d.jpg .*at most 5%"):
        decode_all("photos", open_splits(str(photo_folder), registry, {"test": None}), at(16))


def test_near_grey_images_are_counted(photo_folder, registry):
    grey = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8))
    grey.save(photo_folder / "grey.png")
    images = decode_all("photos", open_splits(str(photo_folder), registry, {"test": None}), at(16)).splits["test"]
    assert [n for n, g in zip(images.names, images.near_grey, strict=True) if g] == ["grey.png"]


def test_an_image_of_the_training_in_the_test_is_counted(tmp_path, registry):
    for split, indices in (("train", range(20)), ("val", (30,)), ("test", (3, 40))):
        (tmp_path / split).mkdir()
        for index in indices:
            (tmp_path / split / f"{index}.jpg").write_bytes(jpeg(index))
    record = decode_all("photos", open_splits(str(tmp_path), registry, ALL), at(16)).record()
    assert record["splits"]["test"]["also_in_train"] == 1


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "I;16", "1"])
def test_every_usual_mode_becomes_rgb(mode):
    buffer = io.BytesIO()
    source = Image.fromarray(np.full((20, 30, 3), 200, np.uint8))
    if mode == "I;16":
        Image.fromarray(np.full((20, 30), 200 * 257, np.uint16)).save(buffer, "PNG")
    else:
        source.convert(mode).save(buffer, "TIFF")
    loaded = FilePicture("a", lambda: io.BytesIO(buffer.getvalue())).load(16)
    assert loaded.shape == (20, 30, 3)
    if mode not in ("1", "P"):  # their few colors hold no such grey
        np.testing.assert_allclose(loaded, 200, atol=1)


def test_a_rotated_photo_is_set_upright():
    image, exif = Image.new("RGB", (30, 20)), Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    assert FilePicture("a", lambda: io.BytesIO(buffer.getvalue())).load(16).shape == (30, 20, 3)


@pytest.mark.parametrize("what", ["empty folder", "text file", "nothing"])
def test_no_images_is_one_clear_line(tmp_path, registry, what):
    path = tmp_path / "data"
    if what == "empty folder":
        path.mkdir()
    elif what == "text file":
        path.write_text("hello")
    with pytest.raises(UserError, match=r"holds no image|neither a folder nor a zip|unknown dataset or path"):
        open_splits(str(path), registry, ALL)


def test_a_missing_split_is_named(tmp_path, registry):
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "a.jpg").write_bytes(jpeg(0))
    with pytest.raises(UserError, match="no train images"):
        open_splits(str(tmp_path), registry, ALL)


def test_a_dataset_that_refuses_its_argument(registry, monkeypatch):
    def refuse(argument):
        raise ValueError(f"no such year: {argument}")

    monkeypatch.setitem(registry.specs["dataset"], "yearly", DatasetSpec("yearly", "", refuse))
    with pytest.raises(UserError, match=r"yearly:1890.*no such year: 1890"):
        open_splits("yearly:1890", registry, ALL)


def test_a_decode_that_stops_leaves_no_entry(photo_zip, registry, monkeypatch, tmp_path):
    monkeypatch.setenv("COLORBENCH_CACHE", str(tmp_path))

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(decode, "_is_near_grey", interrupted)
    with pytest.raises(KeyboardInterrupt):
        decode_all("photos", open_splits(str(photo_zip), registry, ALL), at(16))
    assert list(tmp_path.iterdir()) == []


def test_pictures_are_sorted_and_only_images(photo_folder):
    (photo_folder / "notes.txt").write_text("hello")
    assert [p.name for p in pictures(photo_folder)] == [f"{index:03}.jpg" for index in range(60)]


@dataclass(frozen=True)
class Numbered:
    """A picture whose digest comes from no file."""

    index: int

    @property
    def name(self):
        return f"picture-{self.index}"

    @property
    def digest(self):
        return f"{self.index * 7919:x}"

    def load(self, size):
        return np.full((size, size, 3), self.index % 256, np.uint8)


class Many(Sequence):
    """Millions of them, of which it counts those that it makes."""

    def __init__(self, count):
        self.count, self.made = count, 0

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        assert isinstance(index, int), "one by one"
        self.made += 1
        return Numbered(index)


def many(registry, monkeypatch, count, limits=ALL):
    """What a run takes of a dataset of so many training pictures, and the sequence."""
    found = Many(count)
    splits = {"train": found, "test": [Numbered(-1)]}
    monkeypatch.setitem(registry.specs["dataset"], "many", DatasetSpec("many", "", lambda argument: splits))
    return open_splits("many", registry, limits), found


def test_of_ten_million_pictures_a_limit_makes_no_more_than_it_needs(registry, monkeypatch):
    limits = {"train": 30, "val": 5, "test": 1}
    splits, found = many(registry, monkeypatch, 10_000_000, limits)
    assert {split: len(pairs) for split, pairs in splits.items()} == limits
    assert found.made < 5000
    assert not names(splits)["train"] & names(splits)["val"]
    assert max(picture.index for _, picture in splits["train"]) > 1_000_000, "from all over the split"
    again, _ = many(registry, monkeypatch, 10_000_000, limits)
    assert again == splits


def test_up_to_twenty_thousand_pictures_the_content_alone_says_which_a_limit_takes(registry, monkeypatch):
    whole, found = many(registry, monkeypatch, ALL_READ)
    limited, _ = many(registry, monkeypatch, ALL_READ, ALL | {"train": 50, "val": 7})
    assert found.made == ALL_READ
    assert limited == {"train": whole["train"][:50], "val": whole["val"][:7], "test": whole["test"]}
    more, found = many(registry, monkeypatch, ALL_READ + 1, ALL | {"train": 50})
    assert found.made == ALL_READ + 1, "val has no limit, and comes from the same pictures"
    assert len(more["train"]) == 50


@pytest.mark.parametrize("limit", [3, 40])
def test_a_limited_folder_of_many_files_is_split_by_content_and_read_as_far_as_needed(
    photo_folder, registry, monkeypatch, limit
):
    whole = names(open_splits(str(photo_folder), registry, ALL))
    order, read = [digest for digest, _ in open_splits(str(photo_folder), registry, ALL)["train"]], []
    monkeypatch.setattr(splits, "ALL_READ", 10)
    monkeypatch.setattr(splits, "CHUNK", 4)
    monkeypatch.setattr(splits, "_with_digest", lambda *asked: read.append(asked) or with_digest(*asked))
    limited = open_splits(str(photo_folder), registry, {"train": limit, "val": 1, "test": 1})
    assert {split: len(pairs) for split, pairs in limited.items()} == {"train": limit, "val": 1, "test": 1}
    assert all(found <= whole[split] for split, found in names(limited).items())
    digests = [digest for digest, _ in limited["train"]]
    assert digests == [digest for digest in order if digest in digests]
    assert len(read) < 60 or limit == 40


def test_two_splits_may_share_names(registry, monkeypatch, tmp_path):
    for split, index in (("train", 0), ("val", 1), ("test", 2)):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.jpg").write_bytes(jpeg(index))
    assert names(open_splits(str(tmp_path), registry, ALL)) == {split: {"a.jpg"} for split in ALL}
