"""The FFHQ plugin: the paper's split by index, from a folder or a zip, and what it says to other folders."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from colorbench import plugins
from colorbench.testing import check_dataset

FFHQ = plugins.load().specs["dataset"]["ffhq"]


def picture(file, shade=0):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((16, 16, 3), shade, np.uint8)).save(file)


@pytest.fixture
def faces(tmp_path):
    """The first and the last image of each split, in the sub-folders of a thousand that FFHQ comes in."""
    folder = tmp_path / "thumbnails128x128"
    for index in (0, 59_999, 60_000, 64_999, 65_000, 69_999):
        picture(folder / f"{index // 1000 * 1000:05}" / f"{index:05}.png", shade=index % 251)
    return folder


SPLIT = {
    "train": ["00000/00000.png", "59000/59999.png"],
    "val": ["60000/60000.png", "64000/64999.png"],
    "test": ["65000/65000.png", "69000/69999.png"],
}


def names(splits):
    return {split: [picture.name for picture in pictures] for split, pictures in splits.items()}


def test_a_folder_is_split_by_index(faces):
    splits = FFHQ.open(str(faces))
    assert names(splits) == SPLIT
    assert (splits["val"][0].load(16) == 60_000 % 251).all()


def test_a_folder_keeps_every_law_of_a_dataset(faces):
    checks = check_dataset(FFHQ, str(faces))
    assert [check for check in checks if not check.passed] == []
    assert "digests" in {check.law for check in checks}


def test_a_zip_is_split_alike(faces, tmp_path):
    with zipfile.ZipFile(tmp_path / "ffhq.zip", "w") as archive:
        for file in faces.rglob("*.png"):
            archive.write(file, file.relative_to(faces))
    assert names(FFHQ.open(str(tmp_path / "ffhq.zip"))) == SPLIT


def test_a_split_without_an_image_is_left_out(tmp_path):
    picture(tmp_path / "00010.png")
    picture(tmp_path / "00009.png")
    assert names(FFHQ.open(str(tmp_path))) == {"train": ["00009.png", "00010.png"]}


def test_the_argument_may_start_at_home(faces, monkeypatch):
    monkeypatch.setenv("HOME", str(faces.parent))
    monkeypatch.setenv("USERPROFILE", str(faces.parent))
    assert names(FFHQ.open("~/thumbnails128x128")) == SPLIT


def refusal(argument):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the callers compare the message
        FFHQ.open(str(argument))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_argument_is_told():
    assert "--data ffhq:PATH" in refusal("")


def test_a_missing_folder_is_named(tmp_path):
    assert "nowhere" in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["face.png", "70000.png", "-1.png", "²³.png", "1.5.png"])
def test_a_name_that_is_no_index_is_named(tmp_path, name):
    picture(tmp_path / name)
    assert name in refusal(tmp_path)


def test_two_resolutions_of_one_image_are_refused(tmp_path):
    picture(tmp_path / "images1024x1024" / "00007.png")
    picture(tmp_path / "thumbnails128x128" / "00007.png")
    said = refusal(tmp_path)
    assert "images1024x1024/00007.png" in said
    assert "thumbnails128x128/00007.png" in said
