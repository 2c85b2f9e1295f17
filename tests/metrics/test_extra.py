"""What a plugin's metric may be, and what is refused: per image, over the set, with what it saw of the training."""

import sys

import numpy as np
import pandas as pd
import pytest
import torch

from colorbench import MetricSpec
from colorbench.metrics import score_batch
from colorbench.metrics.extra import join, with_statistics
from colorbench.metrics.pair import Pair
from colorbench.specs import refuse_misfit


def _brightness(predicted, truth):
    return torch.stack([images.float().mean((1, 2, 3)) for images in (predicted, truth)], dim=1)


def _ratio(features):
    predicted, truth = features.sum(axis=0)
    return predicted / truth


def _pair(images=7):
    return Pair(*torch.randint(0, 256, (2, images, 3, 16, 18), dtype=torch.uint8, generator=torch.manual_seed(0)))


def _joined(*metrics, pair=None):
    scored = score_batch(pair or _pair(), metrics)
    return join(metrics, scored.features, scored.scores).set_index("metric")


def test_a_score_over_the_set_is_what_reduce_makes_of_all_images():
    pair, metric = _pair(), MetricSpec("gain", "", _brightness, _ratio)
    row = _joined(metric, pair=pair).loc["gain"]
    assert row["value"] == pytest.approx(pair.predicted.sum().item() / pair.truth.sum().item(), rel=1e-6)
    assert row[["low", "high"]].isna().all()
    assert row["images"] == 7
    assert "gain" not in score_batch(pair, [metric]).scores


def test_its_interval_is_that_of_resampled_images():
    pair = _pair(40)
    row = _joined(MetricSpec("gain", "", _brightness, _ratio, resample=True), pair=pair).loc["gain"]
    features, rng = _brightness(pair.predicted, pair.truth).double().numpy(), np.random.default_rng(1)
    others = [_ratio(features[rng.choice(40, 40)]) for _ in range(4000)]
    np.testing.assert_allclose(row[["low", "high"]].astype(float), np.quantile(others, [0.025, 0.975]), atol=2e-3)
    alone = _joined(MetricSpec("gain", "", _brightness, _ratio, resample=True), pair=_pair(1)).loc["gain"]
    assert alone[["low", "high"]].isna().all()


def test_names_of_scores_stand_for_features():
    pair = _pair()
    row = _joined(MetricSpec("spread", "", ["mse", "ssim"], lambda f: f[:, 0].max() - f[:, 1].min()), pair=pair).iloc[0]
    scores = score_batch(pair).scores
    assert row["value"] == pytest.approx(scores["mse"].max() - scores["ssim"].min())


def test_metrics_with_one_compute_share_its_features():
    calls = []

    def compute(predicted, truth):
        calls.append(len(predicted))
        return _brightness(predicted, truth)

    rows = _joined(MetricSpec("gain", "", compute, _ratio), MetricSpec("most", "", compute, np.max))
    assert calls == [7]
    assert len(rows) == 2


def test_lab_is_that_of_the_protocol_and_is_made_once():
    pair = _pair()
    seen = []

    def compute(predicted, truth):
        seen.append(predicted)
        return predicted[:, 0].mean((1, 2))

    score_batch(pair, [MetricSpec("luminance", "", compute, space="lab")])
    expected = [torch.stack(chunk.lab[0], dim=1) for chunk in pair.chunks()]
    torch.testing.assert_close(torch.cat(seen), torch.cat(expected))


def test_what_it_saw_of_the_training_is_its_third_argument():
    metric = MetricSpec(
        "shifted", "", lambda p, t, mean: p.float().mean((1, 2, 3)) - float(mean), prepare=lambda batches: np.mean([1])
    )
    (ready,) = with_statistics([metric], {"shifted": np.array(100.0)})
    pair = _pair()
    expected = pair.predicted.float().mean((1, 2, 3)) - 100
    np.testing.assert_allclose(score_batch(pair, [ready]).scores["shifted"], expected, rtol=1e-6)
    assert with_statistics([metric], {}) == [], "there is no training split"


@pytest.mark.parametrize(
    ("compute", "returned"),
    [
        (lambda p, t: p.float().mean((1, 2, 3)), r"returned torch.float32 \(7,\)"),
        (lambda p, t: torch.zeros(6, 4), r"returned torch.float32 \(6, 4\)"),
        (lambda p, t: torch.zeros(7, 2, 2), r"returned torch.float32 \(7, 2, 2\)"),
        (lambda p, t: torch.zeros(7, 2, dtype=torch.complex64), "returned torch.complex64"),
        (lambda p, t: 1 / 0, "ZeroDivisionError"),
        (lambda p, t: sys.exit(0), "SystemExit"),
    ],
)
def test_features_of_another_shape_are_refused_by_name(compute, returned):
    with pytest.raises(ValueError, match=rf"the metric 'mine' .*{returned}.*floats of shape \(7, k\)"):
        score_batch(_pair(), [MetricSpec("mine", "", compute, _ratio)])


@pytest.mark.parametrize(
    "reduce", [lambda f: f, lambda f: None, lambda f: f[9999], lambda f: "much", lambda f: sys.exit(0)]
)
def test_a_reduce_that_returns_no_number_is_refused_by_name(reduce):
    with pytest.raises(ValueError, match=r"the metric 'mine' fails over the set .*`reduce` has to return a number"):
        _joined(MetricSpec("mine", "", _brightness, reduce))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"better": "more"}, "better is 'more'; it has to be one of 'lower', 'higher', 'zero', ''"),
        ({"space": "hsv"}, "space is 'hsv'"),
        ({"compute": ["mse"]}, "compute is neither a function nor scores"),
        ({"compute": ["hue"], "reduce": np.mean}, "compute is neither a function nor scores"),
        ({"notes": "a sentence"}, "notes is not a sequence of text"),
        ({"missing": None}, "missing is not text"),
    ],
)
def test_a_spec_that_says_something_else_is_refused_by_name(fields, said):
    spec = MetricSpec(**{"name": "mine", "summary": "", "compute": _brightness} | fields)
    with pytest.raises(ValueError, match="metric 'mine'") as error:
        refuse_misfit("metric", spec)
    assert said in str(error.value)


def test_without_metrics_over_the_set_there_are_no_rows():
    assert join([MetricSpec("mine", "", _brightness)], {}, pd.DataFrame()).empty


@pytest.mark.parametrize("name", ["worst-channel", "Worst", "mse_low", "2nd"])
def test_a_name_that_no_column_can_have_is_refused_with_what_it_can_be(name):
    with pytest.raises(ValueError, match="name it in lower-case letters, digits and _"):
        refuse_misfit("metric", MetricSpec(name, "", _brightness))
