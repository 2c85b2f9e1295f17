"""What protocols differ in: each fork, and each built-in one, against a second implementation."""

import re
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import lab2rgb, rgb2lab
from skimage.io import imsave
from skimage.metrics import structural_similarity
from torchvision.transforms import CenterCrop, InterpolationMode, Resize
from torchvision.transforms.functional import adjust_saturation

from colorbench import plugins, score
from colorbench.color import luminance, recolored, recombine, reference, rgb_to_lab
from colorbench.data.decode import CROPS, RESIZES, decode_picture, fitted
from colorbench.errors import UserError
from colorbench.harness.preflight import check_protocol
from colorbench.harness.protocols import _remade
from colorbench.hints import draw
from colorbench.protocol import _WORDS, COLORBENCH, Protocol

BUILT_IN = {name: p for name, p in plugins.load().specs["protocol"].items() if name != COLORBENCH.name}


def photograph(height=64, width=80, seed=1):
    """Smooth and colorful, with some noise: uint8 (h, w, 3)."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(small, float) + rng.normal(0, 4, (height, width, 3)), 0, 255).astype(np.uint8)


def tensor(*pictures):
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def array(pictures):
    return pictures.permute(0, 2, 3, 1).numpy()


def guess(truth, protocol):
    """A prediction that is too pale and off in hue, under the protocol."""
    L = luminance(truth, protocol)
    return recombine(L, rgb_to_lab(truth / 255)[:, 1:] * 0.7 + torch.tensor([6.0, -9.0])[:, None, None], protocol)


@pytest.fixture
def truth():
    return tensor(photograph(), photograph(seed=2))


# ---- from L and ab to a picture


def test_truncation_takes_the_level_below(truth):
    lab = rgb2lab(array(truth))
    lab[..., 1:] *= 0.7
    exact = lab2rgb(lab) * 255
    made = array(recombine(*tensor(*lab).float().split((1, 2), dim=1), replace(COLORBENCH, rounding="truncate")))
    clear = np.abs(exact - exact.round()) > 0.01  # elsewhere the digits of float32 decide
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(made[clear], np.floor(exact[clear]))
    assert (exact[clear] % 1 > 0.5).any()  # which rounding to the nearest would have taken up


def test_a_truth_through_lab_loses_a_level_here_and_there_when_truncated(truth):
    through = replace(COLORBENCH, truth="through-lab")
    assert torch.equal(reference(truth, through), truth)
    lost = truth.int() - reference(truth, replace(through, rounding="truncate")).int()
    assert set(lost.unique().tolist()) == {0, 1}
    assert 0.2 < lost.double().mean() < 0.8


def test_the_files_are_those_of_scikit_image_as_it_saves_them(truth, tmp_path):
    imsave(tmp_path / "saved.jpeg", array(truth)[0], check_contrast=False)
    L, ab = rgb_to_lab(truth[:1] / 255).split((1, 2), dim=1)
    saved = recombine(L, ab, replace(COLORBENCH, saved_as="jpeg-75"))
    np.testing.assert_array_equal(array(saved)[0], np.asarray(Image.open(tmp_path / "saved.jpeg")))


def test_the_truth_is_as_saturated_as_torchvision_makes_it(truth):
    strong = reference(truth, replace(COLORBENCH, truth_saturation=1.2))
    expected = (adjust_saturation(truth.double() / 255, 1.2) * 255).round()
    assert (strong - expected).abs().max() <= 1  # where a half is rounded
    assert (strong == expected).double().mean() > 0.999


def test_kept_pictures_are_remade_as_from_the_predicted_ab_where_they_were_clipped_too(truth):
    """Out of the gamut the true L with the clipped color would be another color."""
    lab = rgb_to_lab(truth / 255)
    L, ab = lab[:, :1], 2 * lab[:, 1:]
    protocol = replace(COLORBENCH, rounding="truncate")
    kept, due = recombine(L, ab), recombine(L, ab, protocol)
    assert ((kept == 0) | (kept == 255)).any(1).double().mean() > 0.2
    assert (_remade(kept, L, protocol).int() - due.int()).abs().max() <= 2
    assert (recolored(kept, L, protocol).int() - due.int()).abs().max() > 20


# ---- scores


def colorfulness(image):
    """As CT2 and DDColor have it, with numpy."""
    red, green, blue = np.moveaxis(image.astype(float), -1, 0)
    rg, yb = np.abs(red - green), np.abs((red + green) / 2 - blue)
    return np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())


def mse_of_luma(predicted, true):
    """As Open Model Zoo's accuracy checker has it: of pictures in BGR, with the weights of RGB."""
    inside = (predicted.astype(float) - true)[4:-4, 4:-4, ::-1]
    return ((inside @ np.array([65.738, 129.057, 25.064]) / 256) ** 2).mean()


def ssim_of_all(predicted, true):
    """As Open Model Zoo's accuracy checker has it."""
    x, y = predicted.astype(float), true.astype(float)
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    c1, c2 = (0.01 * 2**8 - 1) ** 2, (0.03 * 2**8 - 1) ** 2
    above = (2 * x.mean() * y.mean() + c1) * (2 * covariance + c2)
    return above / ((x.mean() ** 2 + y.mean() ** 2 + c1) * (x.var() + y.var() + c2))


def mse(border=0):
    inside = slice(border, -border or None)
    return lambda p, t: ((p.astype(float) - t)[inside, inside] ** 2).mean()


def ssim(**settings):
    return lambda p, t: structural_similarity(p, t, channel_axis=-1, **settings)


GAUSSIAN = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
SECOND = {
    "zhang-sweep": {"mse": mse()},
    "ct2": {"mse": mse(), "ssim": ssim(data_range=225), "colorfulness": lambda p, t: colorfulness(p)},
    "ddcolor": {"mse": mse(4), "ssim": ssim(**GAUSSIAN), "colorfulness": lambda p, t: colorfulness(p)},
    "omz": {"mse": mse_of_luma, "ssim": ssim_of_all},
}
UNIFORM = {"ssim_window_shape": "uniform", "ssim_window": 7}
FORKS = [
    (UNIFORM, ssim(data_range=255, use_sample_covariance=False)),
    (UNIFORM | {"ssim_covariance": "sample"}, ssim(data_range=255)),
    ({"ssim_data_range": 225}, ssim(**GAUSSIAN | {"data_range": 225})),
]


@pytest.mark.parametrize(("name", "column"), [(name, column) for name, found in SECOND.items() for column in found])
def test_the_scores_of_a_protocol_are_those_of_its_source(name, column, truth):
    protocol = BUILT_IN[name]
    truth = torch.cat((truth, truth[:1] // 60))  # dark, where the constants of SSIM count
    predicted = guess(truth, protocol)
    frame = score(predicted, truth, protocol=protocol)
    pairs = list(zip(array(predicted), array(reference(truth, protocol)), strict=True))
    expected = [SECOND[name][column](*pair) for pair in pairs]
    np.testing.assert_allclose(frame[column], expected, rtol=2e-4 if column == "ssim" else 1e-6)
    np.testing.assert_allclose(frame.psnr, 10 * np.log10(255**2 / frame.mse))


@pytest.mark.parametrize(("changes", "second"), FORKS)
def test_each_fork_of_ssim_alone_agrees_with_scikit_image(changes, second, truth):
    predicted = guess(truth, COLORBENCH)
    expected = [second(*pair) for pair in zip(array(predicted), array(truth), strict=True)]
    frame = score(predicted, truth, protocol=replace(COLORBENCH, **changes))
    np.testing.assert_allclose(frame.ssim, expected, rtol=2e-4)


def test_the_truth_is_what_the_sources_compare_with(truth):
    """Zhang and CT2: truncated after Lab, 0 or 1 level below; DDColor: more saturated; Open Model Zoo: as it is."""
    changed = {name: (truth.int() - reference(truth, protocol)) for name, protocol in BUILT_IN.items()}
    for name in ("zhang-sweep", "ct2"):
        assert set(changed[name].unique().tolist()) == {0, 1}
    saturated = (adjust_saturation(truth.double() / 255, 1.2) * 255).round()
    assert (truth - changed["ddcolor"] - saturated).abs().max() <= 1
    assert not changed["omz"].any()


def test_every_built_in_protocol_has_a_second_implementation_and_says_where_it_is_from():
    assert BUILT_IN.keys() == SECOND.keys()
    for protocol in BUILT_IN.values():
        assert re.match(r"github\.com/[\w-]+/[\w-]+: .*\w+\.(py|yml)", protocol.source)
        assert protocol.summary != COLORBENCH.summary
    assert len({protocol.id for protocol in (COLORBENCH, *BUILT_IN.values())}) == 5


def test_a_border_that_leaves_nothing_is_one_line():
    with pytest.raises(UserError, match=r"at 24 px: a border of 12 pixels leaves nothing.*larger images"):
        check_protocol(replace(COLORBENCH, name="odd", size=24, error_border=12))


# ---- from a file to pixels


@pytest.mark.parametrize(("height", "width"), [(50, 75), (75, 50), (60, 60), (51, 82)])
def test_crop_and_resize_are_those_of_torchvision(height, width):
    """Zhang: Resize of both sides; CT2: CenterCrop to the shorter side, then Resize."""
    image = Image.fromarray(photograph(height, width))
    square = CenterCrop(min(image.size))(image)
    for name, due in (("zhang-sweep", image), ("ct2", square)):
        made = fitted(np.asarray(image), replace(BUILT_IN[name], size=32))
        expected = Resize((32, 32), InterpolationMode.BILINEAR)(due)
        np.testing.assert_array_equal(made, np.asarray(expected), err_msg=name)


def test_opencv_s_resize_takes_the_two_nearest_pixels_alone():
    """From 64 to 16 a new pixel lies between the second and the third of four."""
    image = photograph(64, 64).astype(float)
    middle = (image[1::4] + image[2::4]) / 2
    expected = (middle[:, 1::4] + middle[:, 2::4]) / 2
    made = fitted(image.astype(np.uint8), replace(COLORBENCH, resize="opencv-bilinear", size=16))
    assert np.abs(made - expected).max() <= 0.5


# ---- every field is read


def alternatives(field):
    """The other values of a field that the code knows, by what it says of one that it does not know."""
    if field in ("crop", "resize"):
        return {"crop": CROPS, "resize": RESIZES}[field].keys() - {getattr(COLORBENCH, field)}
    with pytest.raises(UserError, match=f"unknown {field} in protocol colorbench-1: '\\?'") as refused:
        check_protocol(replace(COLORBENCH, size=64, hints=5, **{field: "?"}))
    return {*str(refused.value).partition("there is: ")[2].split(", ")} - {getattr(COLORBENCH, field)}


def outcome(protocol):
    """What a protocol makes of a picture, as text: its input, and the scores of a prediction."""
    image = photograph(73, 96)

    class Picture:
        def load(self, size):
            return image // 8 + 100  # near grey, or not

    pixels = fitted(image, protocol)
    truth = tensor(pixels)
    scores = score(guess(truth, protocol), truth, protocol=protocol)
    near_grey = decode_picture(Picture(), protocol, with_arrays=False).near_grey
    given = draw(truth[:, :2].float(), ["digest"], protocol)
    return str((near_grey, pixels.tolist(), given.tolist(), scores.values.tolist()))


NUMBERS = {"size": 48, "near_grey": 40.0, "peak": 1023, "truth_saturation": 1.3, "error_border": 3, "ssim_window": 7}
NUMBERS |= {"ssim_sigma": 1.0, "ssim_data_range": 225, "ssim_k1": 0.02, "ssim_k2": 0.05, "ciede2000_kl": 2.0}
NUMBERS |= {"colorfulness_mean_weight": 0.5, "hints": 3, "hint_size": 4}
ELSEWHERE = ("name", "degradation", *_WORDS)  # degradations are plugins, with tests of their own


@pytest.mark.parametrize("field", [field.name for field in fields(Protocol) if field.name not in ELSEWHERE])
def test_every_other_value_of_every_field_changes_an_input_or_a_score(field):
    base = replace(COLORBENCH, size=64)
    if field == "truth":  # rounded to the nearest, a picture is the same after Lab
        base = replace(base, rounding="truncate")
    if field.startswith("hint_"):
        base = replace(base, hints=5)
    values = [NUMBERS[field]] if field in NUMBERS else alternatives(field)
    for value in values:
        changed = replace(base, **{field: value})
        assert changed.id != base.id
        assert outcome(changed) != outcome(base), value


def test_a_word_is_read_by_the_reader_alone():
    for field in _WORDS:
        assert replace(COLORBENCH, **{field: "another"}).id == COLORBENCH.id
    assert replace(COLORBENCH, name="another").id != COLORBENCH.id
