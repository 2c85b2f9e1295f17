"""Named data sets: the published test sets by rule or list, complete or refused with one line that says where to go."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import jpeg

from colorbench import UserError
from colorbench.data import sources
from colorbench.data.cache import decode_all
from colorbench.data.splits import has_to_be_complete, open_splits
from colorbench.protocol import COLORBENCH

datasets = pytest.importorskip("colorbench_datasets")
SMALL = replace(COLORBENCH, size=16)


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """A function that lets files of these names be found in a folder: nothing is read of so many thousands."""

    def pack(names):
        monkeypatch.setattr(sources, "pictures", lambda path: sources.Files(sorted(names), open))
        return str(tmp_path)

    return pack


def imagenet(numbers):
    return [f"val/ILSVRC2012_val_{number:08}.JPEG" for number in numbers]


def numbers_of(pictures):
    return [int("".join(filter(str.isdigit, picture.name.rpartition("_")[2]))) for picture in pictures]


def refusal(name, argument):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the callers compare the message
        datasets.DATASETS[name][0](argument)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", datasets.DATASETS)
def test_what_is_absent_is_told_with_its_source(name, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"")
    for argument in ("", str(tmp_path / "nowhere"), str(tmp_path)):
        said = refusal(name, argument)
        assert name in said
        assert "image-net.org" in said or "github.com" in said or "cocodataset.org" in said or "ethz.ch" in said


def test_val5k_is_the_first_5000_of_all(packed):
    splits = datasets.imagenet_val5k(packed(imagenet(range(1, 5101))))
    assert numbers_of(splits["test"]) == [*range(1, 5001)]
    assert [*splits] == ["test"]


def test_one_that_is_absent_is_named(packed):
    said = refusal("imagenet-val5k", packed(imagenet([*range(1, 77), *range(78, 5001)])))
    assert "imagenet-val5k lacks 1 of its 5,000 images" in said
    assert "number 77 first; get ILSVRC2012_img_val.tar" in said


def test_one_that_is_there_twice_is_refused(packed):
    names = ["a/ILSVRC2012_val_00000001.JPEG", "b/ILSVRC2012_val_00000001.JPEG"]
    assert "two of number 1: a/ILSVRC2012_val_00000001.JPEG and b/" in refusal("imagenet-val5k", packed(names))


def test_none_may_be_left_out(registry, tmp_path):
    for number in range(801, 901):
        (tmp_path / f"{number:04}.png").write_bytes(b"" if number == 850 else jpeg(number))
    for data, complete in ((f"div2k:{tmp_path}", True), (str(tmp_path), False)):
        assert has_to_be_complete(data, registry) == complete
        found = open_splits(data, registry, {"test": None})
        if not complete:
            assert len(decode_all(data, found, SMALL).splits["test"]) == 99
            continue
        with pytest.raises(
            UserError, match=r"1 of 100 test images .* first 0850\.png .* none may be left out: get them"
        ):
            decode_all(data, found, SMALL, complete)


@pytest.mark.parametrize(
    "indices",
    [np.arange(1e4) + 0.7, np.zeros(1, "datetime64[s]"), np.zeros(1, [("a", "i4")]), b"\x93NUMPY\x01\x00v\x00{"],
)
def test_a_list_that_is_no_array_of_whole_numbers_is_refused(packed, tmp_path, indices):
    file = tmp_path / "ilsvrclin12_val_inds.npy"
    file.write_bytes(indices) if isinstance(indices, bytes) else np.save(file, indices)
    assert "the list cannot be read" in refusal("imagenet-ctest10k", packed(imagenet(range(1, 3))))


@pytest.mark.parametrize("form", ["npy", "txt"])
def test_ctest10k_follows_the_list_that_lies_there(packed, tmp_path, form):
    chosen = np.arange(20_000, 40_000, 2)
    if form == "npy":
        np.save(tmp_path / "ilsvrclin12_val_inds.npy", chosen - 1)  # counted from 0
    else:
        (tmp_path / "ctest10k.txt").write_text("".join(f"/data/{name} 0\n" for name in imagenet(chosen)))
    splits = datasets.imagenet_ctest10k(packed(imagenet([*range(1, 1001), *range(20_000, 40_000)])))
    assert numbers_of(splits["test"]) == chosen.tolist()
    assert numbers_of(splits["val"]) == [*range(1, 1001)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no list; DIR, or the folder of the zip, needs the list of its 10,000 images"),
        (np.arange(9_999), "the list has 9,999 images, not 10,000"),
        (np.arange(45_000, 55_000), "the list has 5,000 images, not 10,000"),
        (np.array([{}]), "the list cannot be read (Object arrays cannot be loaded when allow_pickle=False)"),
        (b"\x93NUMPY", "the list cannot be read"),
    ],
)
def test_a_list_that_is_none_is_refused(packed, tmp_path, content, said):
    if isinstance(content, bytes):
        (tmp_path / "ilsvrclin12_val_inds.npy").write_bytes(content)
    elif content is not None:
        np.save(tmp_path / "ilsvrclin12_val_inds.npy", content, allow_pickle=True)
    assert said in refusal("imagenet-ctest10k", packed(imagenet([1])))


def test_coco_is_val2017_and_train2017_apart(packed):
    names = [f"val2017/{number:012}.jpg" for number in [139, *range(200, 5198), 581_781]]
    splits = datasets.coco_stuff(packed(names))
    assert len(splits["test"]) == 5000
    assert "coco-stuff has 4,999 images" in refusal("coco-stuff", packed(names[:-1]))
    assert "coco-stuff has 5,000 images" in refusal("coco-stuff", packed([*names[1:], "val2017/000000000140.jpg"]))
    assert "1 of the 118,287 images of train2017" in refusal(
        "coco-stuff", packed([*names, "train2017/000000000009.jpg"])
    )


def test_celeba_hq_is_split_as_its_originals_are(packed, tmp_path):
    originals = [*range(1, 24_184), *range(162_771, 165_764), *range(182_638, 185_462)]
    rows = [f"{i:>5}   {original - 1}   {original:06}.jpg" for i, original in enumerate(originals)]
    (tmp_path / datasets.MAPPING).write_text("\n".join(["idx   orig_idx   orig_file", *rows]) + "\n")
    names = [f"CelebA-HQ-img/{i}.jpg" for i in range(30_000)]
    splits = datasets.celeba_hq(packed(names))
    assert {split: len(pictures) for split, pictures in splits.items()} == {"train": 24183, "val": 2993, "test": 2824}
    assert splits["val"][0].name == "CelebA-HQ-img/24183.jpg"
    assert "lacks 1 of its 24,183 images" in refusal("celeba-hq", packed(names[1:]))
    for twice in ([*rows, rows[0]], [*rows[:-1], "0 1 190000.jpg"]):  # in one split, and in two
        (tmp_path / datasets.MAPPING).write_text("\n".join(twice))
        assert "of them distinct" in refusal("celeba-hq", packed(names))
    (tmp_path / datasets.MAPPING).write_text("\n".join(rows[1:]))
    assert "gives splits of [24182, 2993, 2824] images" in refusal("celeba-hq", packed(names))
    (tmp_path / datasets.MAPPING).unlink()
    assert f"there is no {datasets.MAPPING}" in refusal("celeba-hq", packed(names))


def test_div2k_is_tested_on_its_validation_images(packed):
    names = [f"DIV2K_valid_HR/{number:04}.png" for number in range(801, 901)]
    assert [*datasets.div2k(packed(names))] == ["test"]
    training = [f"DIV2K_train_HR/{number:04}.png" for number in range(1, 801)]
    splits = datasets.div2k(packed(names + training))
    assert (len(splits["train"]), splits["test"][0].name) == (800, "DIV2K_valid_HR/0801.png")
    assert "div2k lacks 1 of its 800 images" in refusal("div2k", packed(names + training[1:]))
