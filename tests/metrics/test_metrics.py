"""Every standard metric against a second implementation."""

from dataclasses import fields, replace

import numpy as np
import pandas as pd
import piq
import pytest
import torch
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from colorbench import MetricSpec, plugins, score
from colorbench.color import recombine, rgb_to_lab
from colorbench.errors import UserError
from colorbench.metrics import score_batch
from colorbench.metrics.pair import Pair
from colorbench.metrics.terms import Terms
from colorbench.protocol import COLORBENCH, SCORES, Protocol


def _pairs():
    """Noise; a small error; a picture and its grey; saturated colors; nearly equal greys."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 256, (5, 40, 44, 3)).astype(np.uint8)
    smooth = np.linspace(0, 255, 40 * 44 * 3).reshape(40, 44, 3).astype(np.uint8)
    truth[1], truth[2] = smooth, smooth[::-1]
    predicted = rng.integers(0, 256, truth.shape).astype(np.uint8)
    predicted[1] = np.clip(smooth + rng.integers(-3, 4, smooth.shape), 0, 255)
    predicted[2] = truth[2].mean(-1, keepdims=True)
    truth[3], predicted[3] = (0, 0, 255), (255, 255, 0)
    truth[4], predicted[4] = 128, 127
    return predicted, truth


def _scores(predicted, truth, extra=()):
    return score(*(torch.from_numpy(images).permute(0, 3, 1, 2) for images in (predicted, truth)), extra)


def _colorfulness(image):
    """Hasler and Suesstrunk 2003, equations for M3, with numpy."""
    r, g, b = np.moveaxis(image.astype(float), -1, 0)
    rg, yb = r - g, (r + g) / 2 - b
    return np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())


REFERENCES = {
    "mse": (mean_squared_error, 1e-9),
    "psnr": (lambda p, t: peak_signal_noise_ratio(t, p), 1e-9),
    "ssim": (
        lambda p, t: structural_similarity(
            p, t, channel_axis=-1, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        ),
        1e-4,
    ),
    "ciede2000": (lambda p, t: deltaE_ciede2000(rgb2lab(p), rgb2lab(t)).mean(), 1e-5),
    "colorfulness": (lambda p, t: _colorfulness(p), 1e-6),
    "colorfulness_delta": (lambda p, t: _colorfulness(p) - _colorfulness(t), 1e-6),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_agrees_with_a_second_implementation(name):
    reference, tolerance = REFERENCES[name]
    predicted, truth = _pairs()
    expected = [reference(p, t) for p, t in zip(predicted, truth, strict=True)]
    np.testing.assert_allclose(_scores(predicted, truth)[name], expected, atol=tolerance)


def test_every_column_has_a_reference():
    assert list(_scores(*_pairs()).columns) == list(REFERENCES) == list(SCORES)


def test_ssim_does_not_shrink_large_pictures():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 256, (1, 400, 400, 3)).astype(np.uint8)
    predicted = np.clip(truth.astype(int) + rng.integers(-40, 40, truth.shape), 0, 255).astype(np.uint8)
    assert _scores(predicted, truth)["ssim"][0] == pytest.approx(
        REFERENCES["ssim"][0](predicted[0], truth[0]), abs=1e-4
    )


def test_an_exact_copy():
    predicted, _ = _pairs()
    row = _scores(predicted, predicted).iloc[0]
    assert (row.mse, row.psnr, row.ciede2000, row.colorfulness_delta) == (0, np.inf, 0, 0)
    assert row.ssim == pytest.approx(1)


def _kinds():
    """Predicted and true pictures, uint8 (2, 3, 64, 80), by what is special about them."""
    rng = np.random.default_rng(1)

    def noise(low=0, high=256):
        return torch.from_numpy(rng.integers(low, high, (2, 3, 64, 80), dtype=np.uint8))

    coarse = torch.from_numpy(rng.random((2, 3, 5, 6), dtype=np.float32))
    smooth = (torch.nn.functional.interpolate(coarse, size=(64, 80), mode="bicubic").clamp(0, 1) * 255).byte()
    L, ab = rgb_to_lab(smooth / 255).split((1, 2), dim=1)
    black_white = noise(0, 2) * 255
    return {
        "noise": (noise(), noise()),
        "smooth": (recombine(L, 0.6 * ab + 3), smooth),
        "copy": (smooth, smooth),
        "grey prediction": (recombine(L, 0 * ab), smooth),
        "greys": (noise()[:, :1].expand(-1, 3, -1, -1), noise()[:, :1].expand(-1, 3, -1, -1)),
        "corners of the cube": (black_white, noise(0, 2) * 255),
        "opposite": (255 - smooth, smooth),
        "dark": (noise(0, 30), noise(0, 30)),
        "bright": (noise(252, 256), noise(252, 256)),
    }


@pytest.mark.parametrize("kind", _kinds())
def test_float32_keeps_five_digits_of_float64(kind):
    predicted, truth = _kinds()[kind]
    row = score(predicted, truth)
    p, t = (images.permute(0, 2, 3, 1).numpy() for images in (predicted, truth))
    with np.errstate(divide="ignore"):
        expected = {
            name: [reference(*each) for each in zip(p, t, strict=True)] for name, (reference, _) in REFERENCES.items()
        }
    # Of the same window; that of scikit-image ends at 3.5 sigma.
    ssim = piq.ssim(predicted.double(), truth.double(), data_range=255, reduction="none", downsample=False)
    for name, values in (expected | {"ssim": ssim}).items():
        atol = 1e-6 if name == "colorfulness_delta" else 0  # a difference, which may be small
        np.testing.assert_allclose(row[name], values, rtol=1e-5, atol=atol, err_msg=name)


def test_a_score_does_not_depend_on_its_batch():
    predicted, truth = _pairs()
    together = _scores(predicted, truth)
    alone = [_scores(predicted[i : i + 1], truth[i : i + 1]) for i in range(len(truth))]
    pd.testing.assert_frame_equal(together, pd.concat(alone, ignore_index=True), check_exact=True)


def test_scores_do_not_depend_on_the_number_of_threads():
    generator = torch.Generator().manual_seed(0)  # large enough to be shared out
    images = torch.randint(0, 256, (2, 1, 3, 250, 301), dtype=torch.uint8, generator=generator)
    pair = Pair(*images, {"half": images[0, :, 0] > 127}, torch.rand(1, 1, 32, 32, generator=generator))
    before, frames = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            terms = Terms(plugins.load(only={"diagnostics"}).specs["diagnostic"].values())
            scores = score_batch(pair, terms=terms).scores
            frames.append(pd.concat([scores, terms.frame()], axis=1))
    finally:
        torch.set_num_threads(before)
    for frame in frames[1:]:
        pd.testing.assert_frame_equal(frame, frames[0], rtol=1e-7, atol=0)


def test_pictures_stored_with_channels_last_score_the_same():
    predicted, truth = _kinds()["smooth"]
    last = [images.contiguous(memory_format=torch.channels_last) for images in (predicted, truth)]
    pd.testing.assert_frame_equal(score(*last), score(predicted, truth), check_exact=True)


HALVES = {"name": 0, "summary": 0, "source": 0}  # changed: 1 the input half, 2 the scoring half
IN_INPUT = "crop", "resize", "size", "luminance", "near_grey", "hints", "hint_size", "hint_places", "degradation"
HALVES |= dict.fromkeys(IN_INPUT, 1)


@pytest.mark.parametrize("field", [field.name for field in fields(Protocol)])
def test_every_field_belongs_to_a_half(field):
    value = getattr(COLORBENCH, field)
    changed = replace(COLORBENCH, **{field: "another:1" if isinstance(value, str) else type(value)(value + 1)})
    assert (changed.id != COLORBENCH.id) == (field not in ("summary", "source"))
    halves = (changed.input_id != COLORBENCH.input_id) + 2 * (changed.scoring_id != COLORBENCH.scoring_id)
    assert halves == HALVES.get(field, 2)


def test_the_protocol_has_the_id_of_its_published_tables():
    """Another value, or field, is another protocol: rename it when this changes."""
    assert (COLORBENCH.name, COLORBENCH.id) == ("colorbench-1", "a1d172c07ec1")


@pytest.mark.parametrize("change", [{"size": "64"}, {"ssim_window": 0}, {"ssim_sigma": float("nan")}, {"crop": None}])
def test_a_value_that_no_protocol_has_is_refused(change):
    (field,) = change
    with pytest.raises(UserError, match=f"the protocol's {field} cannot be"):
        replace(COLORBENCH, **change)


def test_a_plugin_s_metric_is_a_further_column():
    largest = MetricSpec("largest_error", "", lambda p, t: (p.int() - t.int()).abs().amax((1, 2, 3)))
    predicted, truth = _pairs()
    assert _scores(predicted, truth, [largest])["largest_error"].tolist()[3:] == [255, 1]


def _damaging(predicted, truth):
    predicted.zero_()
    truth.zero_()
    return predicted.sum((1, 2, 3)).float()


def test_a_metric_that_writes_into_its_pictures_changes_no_other_score():
    predicted, truth = _pairs()
    extra = [MetricSpec(compute.__name__, "", compute) for compute in (_damaging, _brightness)]
    frame = _scores(predicted, truth, extra)
    pd.testing.assert_frame_equal(frame[list(SCORES)], _scores(predicted, truth), check_exact=True)
    np.testing.assert_allclose(frame["_brightness"], predicted.mean((1, 2, 3)), rtol=1e-6)


def _brightness(predicted, truth):
    return predicted.float().mean((1, 2, 3))


@pytest.mark.parametrize(
    ("compute", "reason"),
    [
        (lambda p, t: p.float(), r"returned torch.float32 \(5, 3, 40, 44\)"),
        (lambda p, t: p.float().mean(), r"returned torch.float32 \(\)"),
        (lambda p, t: torch.zeros(5, dtype=torch.complex64), "returned torch.complex64"),
        (lambda p, t: 1.0, "fails"),
        (lambda p, t: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_metric_that_fails_is_named_with_what_is_due(compute, reason):
    with pytest.raises(ValueError, match=rf"the metric 'mine' .*{reason}.*one number per image.* \(5,\)"):
        _scores(*_pairs(), [MetricSpec("mine", "", compute)])


@pytest.mark.parametrize(
    ("predicted", "message"),
    [
        (torch.zeros(1, 3, 16, 16), "float32"),
        (torch.zeros(3, 16, 16, dtype=torch.uint8), "shape"),
        (torch.zeros(1, 3, 16, 17, dtype=torch.uint8), "differ"),
        (None, "predicted is no tensor but None; scores need uint8 RGB"),
    ],
)
def test_bad_pictures_are_refused(predicted, message):
    with pytest.raises(ValueError, match=message):
        score(predicted, torch.zeros(1, 3, 16, 16, dtype=torch.uint8))


def test_a_protocol_by_its_name_is_refused():
    with pytest.raises(ValueError, match="protocol is 'ct2'; give a"):
        score(*[torch.zeros(1, 3, 16, 16, dtype=torch.uint8)] * 2, protocol="ct2")


def test_pictures_smaller_than_the_window_are_refused():
    small = torch.zeros(1, 3, 16, 10, dtype=torch.uint8)
    with pytest.raises(ValueError, match="11 pixels or more"):
        score(small, small)
