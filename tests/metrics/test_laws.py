"""What every metric has to keep, of the protocol and of all plugins; FID, KID and LPIPS have weights of chance."""

import colorbench_metrics
import numpy as np
import pandas as pd
import pytest
import torch
from colorbench_metrics import inception
from hypothesis import given, settings
from hypothesis import strategies as st

from colorbench import plugins
from colorbench.color import bytes_to_lab, recombine, rgb_to_lab
from colorbench.metrics import extra, score_batch
from colorbench.metrics.pair import Pair
from colorbench.protocol import COLORBENCH, SCORES

IMAGES, SIDE = 8, 32
OF_PROTOCOL = {
    "mse": "lower", "psnr": "higher", "ssim": "higher", "ciede2000": "lower", "colorfulness": "",
    "colorfulness_delta": "zero",
}  # fmt: skip
# Single precision of a network's features, of which two nearly equal ones are taken from each other.
ROUGH = {"lpips": 1e-4, "frechet": 2e-3, "kernel": 2e-3}


@pytest.fixture(scope="module", params=["without weights", "with weights"])
def metrics(request, random_inception, random_lpips, tmp_path_factory):
    """The metrics of all plugins, ready to be computed: those that need no weights, or those that do."""
    with pytest.MonkeyPatch.context() as change:
        change.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("empty")))
        change.setattr(extra, "RESAMPLES", 10)
        change.setattr(inception, "LAYER", "64")  # the covariance of 2,048 features takes half a minute
        change.setattr(colorbench_metrics, "VGG16", next(random_lpips.glob("vgg16-*")).name)
        found = plugins.load().metrics
        if request.param == "with weights":
            every = plugins.load(weights={"fid": random_inception, "lpips": random_lpips}).metrics
            found = {name: metric for name, metric in every.items() if name not in found}
        rgb = _pictures(99)[1]
        batches = {"rgb": rgb, "lab": torch.stack(bytes_to_lab(rgb, COLORBENCH), dim=1)}
        asking = {name: metric for name, metric in found.items() if metric.prepare}
        statistics = {
            name: np.asarray(metric.prepare(iter([batches[metric.space]]))) for name, metric in asking.items()
        }
        yield extra.with_statistics(found.values(), statistics)


def _pictures(seed, strength=0.5, noise=4, grey=0):
    """Predicted and true pictures, uint8 (IMAGES, 3, SIDE, SIDE): the first `grey` predictions have no color."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((IMAGES, 3, 5, 5), dtype=np.float32))
    smooth = torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic").clamp(0, 1) * 255
    truth = (smooth + torch.from_numpy(rng.normal(0, noise, smooth.shape).astype(np.float32))).clamp(0, 255).byte()
    L, ab = rgb_to_lab(truth / 255).split((1, 2), dim=1)
    ab = strength * ab
    ab[:grey] = 0
    return recombine(L, ab), truth


pictures = st.builds(
    _pictures, st.integers(0, 2**32 - 1), st.floats(0, 1.5), st.integers(0, 40), st.integers(0, IMAGES)
)
law = settings(max_examples=3, deadline=None, derandomize=True)


def _scores(metrics, predicted, truth, batches=(IMAGES,)):
    """Per image (N,), or over the set (1,), by metric."""
    pairs = zip(predicted.split(batches), truth.split(batches), strict=True)
    parts = [score_batch(Pair(*both), metrics) for both in pairs]
    columns = {name: np.concatenate([part.scores[name] for part in parts]) for name in parts[0].scores}
    features = {key: np.concatenate([part.features[key] for part in parts]) for key in parts[0].features}
    over_set = extra.join(metrics, features, pd.DataFrame(columns)).set_index("metric")["value"]
    return columns | {str(name): np.array([value]) for name, value in over_set.items()}


def _tolerance(name):
    return ROUGH.get(name.partition("_")[0], 1e-6)


def _close(found, expected):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        scale = _tolerance(name)
        np.testing.assert_allclose(found[name], values, rtol=scale, atol=scale, err_msg=name)


def _badness(better, values):
    return {"lower": values, "higher": -values, "zero": np.abs(values)}[better]


@law
@given(both=pictures)
def test_nothing_is_better_than_the_truth_itself(metrics, both):
    predicted, truth = both
    better = OF_PROTOCOL | {metric.name: metric.better for metric in metrics}
    best, found = _scores(metrics, truth, truth), _scores(metrics, predicted, truth)
    assert found.keys() == better.keys()
    assert OF_PROTOCOL.keys() == SCORES.keys()
    for name in (name for name, way in better.items() if way):
        assert (_badness(better[name], found[name]) >= _badness(better[name], best[name]) - _tolerance(name)).all(), (
            name
        )


@law
@given(both=pictures)
def test_a_score_is_a_number(metrics, both):
    for name, values in _scores(metrics, *both).items():
        assert not np.isnan(values).any(), name
        assert np.isfinite(values).all() or name == "psnr", name


@law
@given(both=pictures, order=st.permutations(range(IMAGES)))
def test_scores_follow_the_order_of_the_images(metrics, both, order):
    there, here = _scores(metrics, *both), _scores(metrics, *(images[order] for images in both))
    _close(here, {name: values[order] if len(values) > 1 else values for name, values in there.items()})


@law
@given(both=pictures, first=st.integers(1, IMAGES - 1))
def test_scores_do_not_depend_on_the_batch(metrics, both, first):
    _close(_scores(metrics, *both, batches=(first, IMAGES - first)), _scores(metrics, *both))


@law
@given(both=pictures)
def test_scores_do_not_depend_on_how_pictures_are_stored(metrics, both):
    last = (images.contiguous(memory_format=torch.channels_last) for images in both)
    _close(_scores(metrics, *last), _scores(metrics, *both))


def test_every_metric_says_what_is_better(metrics):
    assert len(metrics) >= 3
    assert all(metric.better for metric in metrics)
