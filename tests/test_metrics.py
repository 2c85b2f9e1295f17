"""Every standard metric against a second implementation."""

import numpy as np
import pytest
import torch
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from colorbench import MetricSpec, score


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
    "ciede2000": (lambda p, t: deltaE_ciede2000(rgb2lab(p), rgb2lab(t)).mean(), 1e-6),
    "colorfulness": (lambda p, t: _colorfulness(p), 1e-9),
    "colorfulness_delta": (lambda p, t: _colorfulness(p) - _colorfulness(t), 1e-9),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_agrees_with_a_second_implementation(name):
    reference, tolerance = REFERENCES[name]
    predicted, truth = _pairs()
    expected = [reference(p, t) for p, t in zip(predicted, truth, strict=True)]
    np.testing.assert_allclose(_scores(predicted, truth)[name], expected, atol=tolerance)


def test_every_column_has_a_reference():
    assert list(_scores(*_pairs()).columns) == list(REFERENCES)


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


def test_a_score_does_not_depend_on_its_batch():
    predicted, truth = _pairs()
    together = _scores(predicted, truth)
    alone = [_scores(predicted[i : i + 1], truth[i : i + 1]).iloc[0] for i in range(len(truth))]
    np.testing.assert_allclose(together.to_numpy(), np.stack(alone), rtol=1e-6)


def test_a_plugin_s_metric_is_a_further_column():
    largest = MetricSpec("largest_error", "", lambda p, t: (p.int() - t.int()).abs().amax((1, 2, 3)))
    predicted, truth = _pairs()
    assert _scores(predicted, truth, [largest])["largest_error"].tolist()[3:] == [255, 1]


@pytest.mark.parametrize(
    ("predicted", "message"),
    [
        (torch.zeros(1, 3, 16, 16), "float32"),
        (torch.zeros(3, 16, 16, dtype=torch.uint8), "shape"),
        (torch.zeros(1, 3, 16, 17, dtype=torch.uint8), "differ"),
    ],
)
def test_bad_pictures_are_refused(predicted, message):
    with pytest.raises(ValueError, match=message):
        score(predicted, torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
