"""The PSNR by the number of hints, beside the curve that the authors of siggraph17 print."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from colorbench_siggraph17.curve import AUTHORS, curves, draw, sentences

from colorbench.runs.records import ProtocolRecord

NUMBERS = (0, 1, 10)
GAIN = {"hinted": 2.0, "plain": 0.0}  # dB for each number of hints but 0


def series(varied="hints", size=256, seeds=(0, 1)):
    """A view of a run whose models have PSNRs of 20 dB + seed, and GAIN for each step of the series."""
    protocols = [ProtocolRecord("aaaabbbbcccc", f"x-{n}", {"hints": n, "size": size, "hint_size": 6}) for n in NUMBERS]
    rows = [
        {"model": model, "seed": seed, "image": f"{image}", "protocol": f"x-{n}", "psnr": 20 + seed + step * gain}
        for step, n in reversed([*enumerate(NUMBERS)])
        for model, gain in GAIN.items()
        for seed in seeds
        for image in range(4)
    ]
    record = SimpleNamespace(others=SimpleNamespace(varied=varied, protocols=protocols))
    return SimpleNamespace(results=SimpleNamespace(record=record, protocols=pd.DataFrame(rows)))


def test_a_curve_has_the_mean_over_images_and_seeds_by_the_number_of_hints():
    found = curves(series())
    assert found.keys() == {"hinted"}  # what hints do not change has no curve
    assert [(number, float(psnr.value)) for number, psnr in found["hinted"]] == [(0, 20.5), (1, 22.5), (10, 24.5)]
    assert all(psnr.half_width() > 0 for _, psnr in found["hinted"])


@pytest.mark.parametrize("varied", ["degradation", None])
def test_another_series_has_none(varied):
    assert (draw(series(varied)), sentences(series(varied))) == (None, [])


def test_the_figure_has_each_model_and_the_authors_curve():
    (axes,) = draw(series()).axes
    assert axes.get_legend_handles_labels()[1] == ["the authors', on other data", "hinted"]
    theirs = next(line for line in axes.lines if line.get_linestyle() == "--")
    assert theirs.get_ydata().tolist() == [*AUTHORS.values()]
    assert np.all(np.diff([*AUTHORS.values()]) > 0)
    places = [line.get_xdata().tolist() for line in axes.lines]
    assert [0.4, 1, 10] in places
    assert [text.get_text() for text in axes.get_xticklabels()][:3] == ["0", "1", "2"]


def test_the_sentences_say_how_the_points_compare_with_the_authors():
    text = " ".join(sentences(series()))
    assert "0: 24.43" in text
    assert "501: 32.14" in text
    assert "covers" not in text
    assert "At 64 px such a point covers 16 times the share" in sentences(series(size=64))[-1]
