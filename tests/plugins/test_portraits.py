"""The built-in portraits: deterministic, exactly masked, the same composition at every size, diverse."""

import numpy as np
import pytest
from colorbench_portraits import register_datasets
from colorbench_portraits.canvas import PARTS
from colorbench_portraits.drawing import draw
from colorbench_portraits.scene import STYLES, scene

INDICES = range(0, 60, 2)


@pytest.fixture(scope="module")
def spec():
    specs = []
    register_datasets(specs.append)
    return specs[0]


@pytest.fixture(scope="module")
def splits(spec):
    return spec.open("")


def halved(image):
    h, w, _ = image.shape
    return image.reshape(h // 2, 2, w // 2, 2, 3).mean(axis=(1, 3))


def test_an_index_always_draws_the_same():
    first, second = draw(7, 48), draw(7, 48)
    np.testing.assert_array_equal(first.image, second.image)
    for part in PARTS:
        np.testing.assert_array_equal(first.masks[part], second.masks[part])
    assert not np.array_equal(first.image, draw(8, 48).image)


@pytest.mark.parametrize("size", [16, 33, 512])
def test_any_size_from_16_to_512(size):
    portrait = draw(5, size)
    assert portrait.image.shape == (size, size, 3)
    assert portrait.image.dtype == np.uint8


@pytest.mark.parametrize("size", [15, 513])
def test_other_sizes_are_refused(size):
    with pytest.raises(ValueError, match=str(size)):
        draw(5, size)


def test_masks_partition_the_image():
    for index in INDICES:
        masks = draw(index, 64).masks
        assert tuple(masks) == PARTS
        assert all(mask.dtype == bool and mask.shape == (64, 64) for mask in masks.values())
        assert (sum(mask.astype(int) for mask in masks.values()) == 1).all()


def test_every_part_shows_in_nearly_every_picture():
    complete = [all(mask.any() for mask in draw(index, 64).masks.values()) for index in INDICES]
    assert np.mean(complete) > 0.9


def test_size_does_not_change_the_composition():
    for index in INDICES:
        large, small = draw(index, 128), draw(index, 64)
        assert np.abs(halved(large.image) - small.image).mean() < 5
        for part in PARTS:
            assert (large.masks[part][::2, ::2] != small.masks[part]).mean() < 0.06
    # The bound means something: two different portraits are far apart.
    assert np.abs(halved(draw(0, 128).image) - draw(2, 64).image).mean() > 25


def test_masks_show_what_they_name():
    red_minus_green = {part: [] for part in PARTS}
    for index in INDICES:
        portrait = draw(index, 64)
        image = portrait.image.astype(int)
        for part, mask in portrait.masks.items():
            red_minus_green[part].extend((image[..., 0] - image[..., 1])[mask])
    assert np.percentile(red_minus_green["skin"], 5) > 8, "skin is redder than it is green"
    assert np.mean(red_minus_green["lips"]) > np.mean(red_minus_green["skin"]), "lips are redder than skin"


def test_skin_and_hair_span_the_range_of_tones():
    people = [person for index in range(400) for person in scene(index).people]
    skin = np.array([person.skin for person in people])
    assert np.percentile(skin, 5) < 30
    assert np.percentile(skin, 95) > 76
    assert np.histogram(skin, bins=5, range=(24, 82))[0].min() > 0.1 * len(skin)
    assert {person.hair.style for person in people} == {*STYLES, "bald"}
    assert 0.08 < np.mean([len(scene(index).people) > 1 for index in range(400)]) < 0.22


def test_the_hue_of_clothes_cannot_be_told_from_their_tone():
    cloths = [cloth for index in range(2000) for person in scene(index).people for cloth in person.cloths]
    tone, hue = np.array([cloth.tone for cloth in cloths]), np.array([cloth.hue for cloth in cloths])
    for low in range(25, 85, 10):
        assert np.linalg.norm(hue[(tone >= low) & (tone < low + 10)].mean(axis=0)) < 0.15


def test_no_picture_is_grey():
    for index in INDICES:
        image = draw(index, 64).image.astype(int)
        assert np.ptp(image, axis=2).max() > 40


def test_splits_are_disjoint(splits):
    assert {split: len(pictures) for split, pictures in splits.items()} == {"train": 6000, "val": 500, "test": 1000}
    pictures = [picture for split in splits.values() for picture in split]
    assert len({picture.name for picture in pictures}) == len({picture.digest for picture in pictures}) == 7500


def test_a_picture_loads_at_the_size_asked_for(splits):
    picture = splits["val"][3]
    assert picture.name == "portrait-006003"
    np.testing.assert_array_equal(picture.load(32), draw(6003, 32).image)
    np.testing.assert_array_equal(picture.arrays(32)["skin"], draw(6003, 32).masks["skin"])
