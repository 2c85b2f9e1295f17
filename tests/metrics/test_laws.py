"""What every metric has to keep, of those that `colorbench check` does not see: the protocol's own, and those that need
weights, here of chance."""

import colorbench_metrics
import pytest
import torch
from colorbench_metrics import inception

from colorbench import MetricSpec, plugins, score
from colorbench.protocol import SCORES
from colorbench.testing import check_metric

OF_PROTOCOL = {
    "mse": "lower", "psnr": "higher", "ssim": "higher", "ciede2000": "lower", "colorfulness": "",
    "colorfulness_delta": "zero",
}  # fmt: skip


def broken(spec):
    return [check for check in check_metric(spec) if not check.passed]


@pytest.fixture(scope="module")
def registry(random_inception, random_lpips):
    with pytest.MonkeyPatch.context() as change:
        change.setattr(inception, "LAYER", "64")  # the covariance of 2,048 features takes half a minute
        change.setattr(colorbench_metrics, "VGG16", next(random_lpips.glob("vgg16-*")).name)
        yield plugins.load(weights={"fid": random_inception, "lpips": random_lpips})


@pytest.mark.parametrize("kind", ["lpips", "frechet", "kernel"])
def test_a_metric_with_weights_keeps_every_law(registry, kind):
    (spec,) = (spec for name, spec in registry.metrics.items() if name.startswith(kind))
    assert not spec.missing
    assert broken(spec) == []


@pytest.mark.parametrize("name", SCORES)
def test_a_score_of_the_protocol_keeps_every_law(name):
    def compute(predicted, truth):
        return torch.tensor(score(predicted, truth)[name])

    assert broken(MetricSpec(f"own_{name}", "a test", compute, better=OF_PROTOCOL[name])) == []


def test_every_metric_says_what_is_better(registry):
    assert all(spec.better for spec in registry.specs["metric"].values())
