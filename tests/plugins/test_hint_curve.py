"""The PSNR by the number of hints, beside the curve that the authors of siggraph17 print."""

import numpy as np
import pandas as pd
import pytest
from colorbench_siggraph17.curve import AUTHORS, curves, draw, sentences
from run_folders import IMAGES, FakeRun, scores_of

from colorbench import report
from colorbench.protocol import COLORBENCH
from colorbench.report.diagnostics import View
from colorbench.report.results import read
from colorbench.runs.folder import PROTOCOLS, sha256, to_parquet, write_aside
from colorbench.runs.records import OtherProtocols, ProtocolRecord

NUMBERS = (0, 1, 10)
FACTOR = {"hinted": 0.1, "plain": 1.0}  # of the MSE, for each number of hints but 0


def series(path, varied="hints", size=256):
    """A run whose models had an MSE of about 1000, and by FACTOR less for each step of a series of hints."""
    run, tables = FakeRun(path, [*FACTOR]), []
    settings = {**COLORBENCH.settings, "size": size}
    protocols = [ProtocolRecord("aaaabbbbcccc", f"x-{n}", settings | {"hints": n}) for n in NUMBERS]
    mse = np.linspace(900, 1100, IMAGES)
    for model, factor in FACTOR.items():
        for seed in (0, 1):
            run.cell(model, seed, mse * (1 + seed / 100))
            for step, protocol in reversed([*enumerate(protocols)]):
                scores = scores_of(model, seed, mse * (1 + seed / 100) * factor**step)
                tables.append(scores.assign(protocol=protocol.name))
    keys = {f"{cell.model}/seed-{cell.seed}": (cell.predicted_by, cell.scored_by) for cell in run.folder.cells()}
    content = to_parquet(pd.concat(tables, ignore_index=True))
    write_aside(run.folder.path / PROTOCOLS, content)
    run.record.others, run.record.files[PROTOCOLS] = OtherProtocols(protocols, keys, varied), sha256(content)
    run.save()
    return run


def view(run):
    return View(read(run.folder), pd.DataFrame(), pd.DataFrame(), [])


def test_a_curve_has_the_mean_over_images_and_seeds_by_the_number_of_hints(tmp_path):
    run = series(tmp_path)
    found = curves(view(run))
    assert found.keys() == {"hinted"}  # what hints do not change has no curve
    numbers, psnr = zip(*found["hinted"], strict=True)
    assert numbers == NUMBERS
    own = run.frame().loc["hinted", "psnr"]
    assert [float(each.value) for each in psnr] == pytest.approx([own, own + 10, own + 20])
    assert all(each.half_width() > 0 for each in psnr)


def test_another_series_has_none(tmp_path):
    other = view(series(tmp_path, varied="hint_size"))
    assert (draw(other), sentences(other)) == (None, [])


def test_the_figure_has_each_model_and_the_authors_curve(tmp_path):
    (axes,) = draw(view(series(tmp_path))).axes
    assert axes.get_legend_handles_labels()[1] == ["the authors', on other data", "hinted"]
    theirs = next(line for line in axes.lines if line.get_linestyle() == "--")
    assert theirs.get_ydata().tolist() == [*AUTHORS.values()]
    assert np.all(np.diff([*AUTHORS.values()]) > 0)
    assert [0.4, 1, 10] in [line.get_xdata().tolist() for line in axes.lines]
    assert [text.get_text() for text in axes.get_xticklabels()][:3] == ["0", "1", "2"]


def test_the_report_shows_it_with_the_authors_numbers_and_the_size_of_a_point(tmp_path):
    run = series(tmp_path, size=64)
    report.write(run.folder)
    text = (run.folder.path / "comparison.md").read_text()
    assert (run.folder.path / "hint-curve.png").exists()
    assert "(hint-curve.png)" in text
    assert "0: 24.43, 1: 25.37" in text
    assert "501: 32.14" in text
    assert "At 64 px such a point covers 16 times the share" in text


def test_at_the_authors_size_a_point_is_theirs(tmp_path):
    assert "covers" not in " ".join(sentences(view(series(tmp_path))))
