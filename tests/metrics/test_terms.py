"""The terms of diagnostics: a row per image, and what a plugin gets wrong costs its own terms alone."""

import numpy as np
import pytest
import torch

from colorbench import DiagnosticSpec
from colorbench.metrics import Pair, score_batch
from colorbench.metrics.terms import Terms

IMAGES = 3


def pair(seed=0):
    pictures = np.random.default_rng(seed).integers(0, 256, (2, IMAGES, 3, 16, 16), dtype=np.uint8)
    return Pair(*torch.from_numpy(pictures))


def light(pair):
    return {"light": pair.values[1].mean((1, 2, 3))}


def found(*computes, batches=(0,)):
    terms = Terms([DiagnosticSpec(f"toy-{i}", "a test", compute) for i, compute in enumerate(computes)])
    for seed in batches:
        score_batch(pair(seed), terms=terms)
    return terms.frame(), terms.failed


def test_there_is_a_row_per_image_of_all_batches():
    frame, failed = found(light, lambda pair: {"half": pair.truth.new_full((len(pair.truth),), 2)}, batches=(0, 1))
    expected = torch.cat([pair(seed).truth.double().mean((1, 2, 3)) for seed in (0, 1)])
    assert failed == {}
    assert frame["light"].tolist() == pytest.approx(expected.tolist())
    assert frame["half"].tolist() == [2] * 2 * IMAGES
    assert set(frame.dtypes) == {np.dtype("float64")}


@pytest.mark.parametrize(
    ("compute", "reason"),
    [
        (lambda pair: 1 / 0, "ZeroDivisionError"),
        (lambda pair: None, "NoneType"),
        (lambda pair: {"a": 1.0}, "shape"),
        (lambda pair: {"a": pair.values[1].mean()}, "a number per image is due"),
        (lambda pair: {"a": pair.values[1].mean((1, 2, 3)) / 0}, "infinite for some image: a"),
        (lambda pair: {"image": pair.values[1].mean((1, 2, 3))}, "no term can be called 'image'"),
        (lambda pair: {"a\x1b[31m": pair.values[1].mean((1, 2, 3))}, "no term can be called"),
        (lambda pair: {f"a{pair.truth[0, 0, 0, 0]}": pair.values[1].mean((1, 2, 3))}, "its terms are a"),
        (light, "another diagnostic has terms of these names: light"),
    ],
)
def test_what_fails_is_left_out_of_all_images_with_its_reason(compute, reason):
    frame, failed = found(light, compute, lambda pair: {"dark": -pair.values[1].mean((1, 2, 3))}, batches=(0, 1))
    assert [*failed] == ["toy-1"]
    assert reason in failed["toy-1"]
    assert [*frame] == ["light", "dark"]


class Uncounted:
    """What torch does not count as written into."""

    def __init__(self, tensor):
        self.tensor = tensor

    def zero_(self):
        self.tensor.numpy()[:] = 0


def in_the_pair(of):
    def terms(pair):
        of(pair).zero_()
        return {"dark": pair.values[1].mean((1, 2, 3))}

    return terms


@pytest.mark.parametrize(
    ("field", "of"),
    [
        ("squared_error", lambda pair: pair.squared_error),
        ("truth", lambda pair: pair.truth),
        ("lab", lambda pair: pair.lab[0][1][:, 2:]),
        ("lab", lambda pair: Uncounted(pair.lab[0][1][:, 2:])),
    ],
)
def test_what_writes_into_the_pair_fails_and_the_others_have_their_numbers(field, of):
    def later(pair):
        return {"later": (pair.squared_error.mean(1) + pair.lab[0][1] + pair.truth.sum(1)).mean((1, 2))}

    alone, _ = found(later)
    frame, failed = found(in_the_pair(of), later)
    assert [*failed] == ["toy-0"]
    assert f"it writes into pair.{field}, which others read" in failed["toy-0"]
    assert frame["later"].tolist() == alone["later"].tolist()
    pictures = pair()
    before = pictures.predicted.clone()
    score_batch(pictures, terms=Terms([DiagnosticSpec("toy", "a test", in_the_pair(lambda pair: pair.predicted))]))
    assert torch.equal(pictures.predicted, before)


def test_what_writes_into_a_later_image_alone_fails_too():
    calls = []

    def terms(pair):
        calls.append(pair)
        if len(calls) > 1:
            pair.chroma[1].numpy().sort()
        return {"dark": pair.values[1].mean((1, 2, 3))}

    def later(pair):
        return {"later": pair.chroma[1][:, 0].mean(1)}

    alone, _ = found(later)
    frame, failed = found(terms, later)
    assert [*failed] == ["toy-0"]
    assert "it writes into pair.chroma" in failed["toy-0"]
    assert frame["later"].tolist() == alone["later"].tolist()


def test_an_image_may_lack_a_term():
    frame, failed = found(lambda pair: {"absent": torch.full((len(pair.truth),), torch.nan)})
    assert (failed, frame["absent"].isna().all()) == ({}, True)


def test_without_terms_there_is_no_table():
    assert found(lambda pair: {})[0].empty
    assert found()[0].empty


def test_what_failed_is_not_tried_again():
    tried = []

    def compute(pair):
        tried.append(pair)
        raise ArithmeticError("no luck")

    found(compute, batches=(0, 1))
    assert len(tried) == 1
