"""Each degradation against another implementation, or a case worked by hand."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from colorbench.color import luminance
from colorbench.testing.pictures import guesses

damage = pytest.importorskip("colorbench_degradations.damage")
SIDE = 64
RGB = guesses(2, SIDE, seed=3)[1]
L = luminance(RGB)


def flat(*color):
    return torch.tensor(color, dtype=torch.uint8)[None, :, None, None].expand(1, 3, SIDE, SIDE)


def test_noise_has_the_standard_deviation_asked_for_and_is_scaled_by_the_strength():
    grey = flat(119, 119, 119)  # L 50: nothing is clipped
    weak, strong = (damage.noise(grey, strength, [7]) - 50 for strength in (5, 10))
    assert strong.std().item() == pytest.approx(10 * 100 / 255, rel=0.05)
    torch.testing.assert_close(strong - strong.mean(), 2 * (weak - weak.mean()), atol=1e-3, rtol=0)
    assert not torch.equal(damage.noise(grey, 5, [8]) - 50, weak)


def test_blur_is_that_of_scipy_in_parts_of_the_side():
    expected = np.stack(
        [gaussian_filter(plane.numpy(), 8 * SIDE / 256, mode="mirror", truncate=4) for plane in L[:, 0]]
    )
    torch.testing.assert_close(damage.blur(RGB, 8, [0, 0])[:, 0], torch.from_numpy(expected), atol=1e-3, rtol=0)
    assert damage.blur(RGB, 1e4, [0, 0]).std((2, 3)).max() < 1  # farther than the picture is wide


def test_jpeg_is_a_grey_file_of_that_quality():
    grey = flat(90, 90, 90).clone()
    grey[..., 20:40] = 160
    Image.fromarray(grey[0, 0].numpy()).save(file := io.BytesIO(), "JPEG", quality=10)
    decoded = torch.from_numpy(np.array(Image.open(file))).expand(1, 3, SIDE, SIDE)
    torch.testing.assert_close(damage.jpeg(grey, 90, [0]), luminance(decoded), atol=1e-3, rtol=0)
    assert damage.jpeg(grey, 100, [0]).shape == (1, 1, SIDE, SIDE)


def test_fading_is_a_line_through_middle_grey():
    torch.testing.assert_close(damage.fading(RGB, 0.4, [0, 0]), 0.6 * L + 20)
    assert (damage.fading(RGB, 2, [0, 0]) == 50).all()


def test_scratches_are_white_upright_as_wide_as_said_and_the_first_ones_stay():
    black = flat(0, 0, 0)
    one, three = (damage.scratches(black, number, [5])[0, 0] for number in (1, 3))
    assert (three >= one - 1e-3).all()
    rows = one.sum(1)
    rows = rows[rows > 1]
    assert rows[1:-1].numpy() == pytest.approx(100 * SIDE / 256, rel=0.3)  # a quarter of a pixel
    assert one.max() <= 100


@pytest.mark.parametrize(
    ("color", "light"),
    # By hand: the Y of a primary is its weight, and L = 116 Y^(1/3) - 16.
    [((255, 0, 0), 0.1), ((0, 255, 0), 0.4), ((0, 0, 255), 0.5), ((255, 255, 255), 1.0)],
)
def test_orthochromatic_film_weighs_linear_light(color, light):
    assert damage.orthochromatic(flat(*color), 1, [0]).mean().item() == pytest.approx(
        116 * light ** (1 / 3) - 16, abs=0.01
    )


def test_without_a_share_of_orthochromatic_film_the_luminance_is_the_true_one():
    torch.testing.assert_close(damage.orthochromatic(RGB, 0, [0, 0]), L, atol=2e-3, rtol=0)


def test_a_strength_without_an_end_or_of_nothing_is_no_trap():
    with pytest.raises(ValueError, match="give up to 10000"):
        damage.scratches(RGB, 1e300, [0, 0])
    torch.testing.assert_close(damage.blur(RGB, 1e-300, [0, 0]), L, atol=1e-3, rtol=0)
