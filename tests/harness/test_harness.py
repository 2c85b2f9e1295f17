"""Predicting and scoring, the order of a run, and a network that breaks the contract."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from toys import Toy, spec, toy_images

from colorbench.contract import DiagnosticSpec
from colorbench.data.cache import Images
from colorbench.errors import UserError
from colorbench.harness import device, trained
from colorbench.harness.predict import colorize, predict
from colorbench.harness.scoring import SAMPLES, WORST, score_all
from colorbench.harness.trained import load_model
from colorbench.metrics.pair import mean
from colorbench.protocol import COLORBENCH
from colorbench.runs.context import with_needed

SMALL = replace(COLORBENCH, size=16)


SEEN = DiagnosticSpec("seen", "a test", lambda pair: {f"share_{name}": mean(mask) for name, mask in pair.masks.items()})


def scored(network, images, diagnostics=()):
    predictions = predict(network, spec("toy"), images, torch.device("cpu"), SMALL)
    return score_all(predictions, images, (), SMALL, diagnostics)


@pytest.fixture
def images():
    return toy_images()


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (lambda L: torch.zeros(1, 3, 16, 16), r"float32 \(B, 2, H, W\) is due"),
        (lambda L: torch.zeros(1, 2, 16, 16, dtype=torch.float64), "float64"),
        (lambda L: torch.full((1, 2, 16, 16), float("nan")), "not finite"),
    ],
)
def test_a_network_that_breaks_the_contract_is_refused(output, reason):
    network = Toy()
    network.forward = output
    with pytest.raises(ValueError, match=reason):
        colorize(network, torch.zeros(1, 1, 16, 16))


def test_scores_have_a_row_for_every_image_in_order(images):
    result = scored(Toy(), images)
    assert result.scores.image.tolist() == images.names
    assert result.details.empty
    assert result.samples["predicted"].shape == (10, 16, 16, 3)
    assert "attention" not in result.samples


def test_the_worst_images_are_kept_the_worst_first(images):
    many = Images(np.tile(images.pixels, (2, 1, 1, 1)), [str(i) for i in range(20)], images.digests * 2, None, {})
    many.pixels[17] = (0, 0, 255)  # in the second batch
    grey = Toy()
    for parameter in grey.parameters():
        nn.init.zeros_(parameter)
    result = scored(grey, many)
    samples, mse = result.samples, result.scores.mse
    assert len(samples["predicted"]) == SAMPLES
    assert samples["worst_name"][0] == "17"
    assert (samples["worst_truth"][0] == many.pixels[17]).all()
    assert samples["worst_mse"].tolist() == mse.sort_values(ascending=False)[:WORST].tolist()
    error = (samples["worst"][0].astype(float) - samples["worst_truth"][0]) ** 2
    assert error.mean() == pytest.approx(samples["worst_mse"][0])


def test_masks_reach_the_details(images):
    lips = np.zeros((10, 16, 16), bool)
    lips[:, :4] = True
    details = scored(Toy(), replace(images, arrays={"skin": ~lips, "lips": lips}), [SEEN]).details
    assert details.image.tolist() == images.names
    assert details["share_lips"].tolist() == [0.25] * 10


def test_a_diagnostic_that_fails_on_one_image_is_left_out_of_all_and_costs_no_score(images):
    def fails(pair):
        if pair.truth[0, 0, 0, 0] == images.pixels[7, 0, 0, 0]:
            raise ArithmeticError("no luck")
        return {"late": mean(pair.chroma[0])}

    masked = replace(images, arrays={"all": np.ones((10, 16, 16), bool)})
    result = scored(network := Toy(), masked, [DiagnosticSpec("late", "a test", fails), SEEN])
    assert result.failed == {"late": "ArithmeticError: no luck"}
    assert [*result.details] == ["image", "share_all"]
    pd.testing.assert_frame_equal(result.scores, scored(network.eval(), images).scores)


def test_an_attention_map_is_kept_and_one_that_breaks_the_contract_is_refused(images):
    network = Toy()
    network.with_attention = lambda L: (network(L), L[:, :, ::4, ::4] / 100)
    samples = scored(network, images).samples
    assert samples["attention"].shape == (10, 4, 4)
    assert 50 < samples["attention"].mean() < 200
    network.with_attention = lambda L: (network(L), L)
    with pytest.raises(ValueError, match="with_attention returned a map"):
        scored(network, images)


def test_what_others_need_comes_first_and_once(registry):
    registry.specs["model"] |= (
        known := {s.name: s for s in (spec("c", "b", "d"), spec("b", "a"), spec("a"), spec("d", "a"))}
    )
    try:
        assert [s.name for s in with_needed([known["c"], known["d"]], registry)] == ["a", "b", "d", "c"]
        known["a"] = registry.specs["model"]["a"] = spec("a", "c")
        with pytest.raises(UserError, match="refines itself"):
            with_needed([known["c"]], registry)
    finally:
        for name in "abcd":
            del registry.specs["model"][name]


@pytest.mark.parametrize("given", [{}, {"weights": "a.pth", "run": "b"}])
def test_load_model_wants_either_weights_or_a_run(registry, given):
    with pytest.raises(UserError, match="either weights=FILE or run=FOLDER"):
        load_model(next(iter(registry.specs["model"])), **given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": 5}, "unknown model 5; there is"),
        ({"weights": 5}, "weights is 5; give the path of a file"),
        ({"weights": None, "run": 5}, "int is not the path of a run folder"),
        ({"plugins": 5}, r"plugins has \[5\]; give a file, or several in a list"),
        ({"plugins": [None]}, r"plugins has \[None\]; give a file"),
    ],
)
def test_load_model_names_what_is_of_another_type(given, said):
    with pytest.raises(UserError, match=f"^{said}"):
        load_model(**{"name": "grey", "weights": "a.pth"} | given)


def test_a_device_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"^device is 'gpu', which cannot be used \(RuntimeError: Expected one of cpu"):
        trained._placed(torch.nn.Identity(), "gpu")


@pytest.mark.parametrize(
    ("isa", "bf16"), [("AVX2", False), ("avx512_core", False), ("AVX512_CORE_BF16", True), ("ALL", True)]
)
def test_bf16_is_left_where_one_dnn_is_kept_from_it(monkeypatch, isa, bf16):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", isa)
    assert device.describe()["precision"] == ("bf16" if bf16 else "no")


@pytest.mark.parametrize(("version", "bf16"), [("2.11.0+cu130", False), ("2.14.1", True), ("3.0.0", True)])
def test_an_older_torch_trains_in_float32_on_the_cpu(monkeypatch, version, bf16):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.setattr(torch, "__version__", version)
    assert device.describe()["precision"] == ("bf16" if bf16 else "no")
