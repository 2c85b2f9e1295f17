"""Diagnostics in a run: what an edit recomputes, what a failure costs, and the example."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import REPOSITORY, call
from skimage.color import lab2rgb

from colorbench import code, plugins
from colorbench.metrics import Pair, score_batch
from colorbench.metrics.terms import Terms
from colorbench.presets import PRESETS
from colorbench.runs.context import computed
from colorbench.runs.fields import own_fields

EXAMPLE = REPOSITORY / "examples" / "error_by_hue.py"
DIAGNOSTIC = '''
from colorbench import DiagnosticSpec, Statistic

def terms(pair):
    """Twice the mean."""
    return {"light": 2 * pair.values[1].mean((1, 2, 3))}

@hookimpl
def register_diagnostics(register):
    register(DiagnosticSpec("light", "a test", terms, [Statistic("light", "light", ["light"])], "Light"))
'''


@pytest.fixture
def lit(bench):
    """A finished run, in which a diagnostic of a second plugin file has been computed since."""
    bench.other = bench.folder / "light.py"
    bench.other.write_text("from colorbench import hookimpl\n" + DIAGNOSTIC)
    result = bench("tiny", "--plugin", bench.other)
    assert result.exit_code == 0, result.stderr
    return bench


def light(bench):
    return pd.read_csv(bench.run / "details.csv").set_index("model").loc["tiny", "light"]


def weights(bench):
    return (bench.cell() / "weights.safetensors").stat().st_mtime_ns


def test_an_edited_diagnostic_is_computed_anew_from_what_is_kept(lit):
    first, trained = light(lit), weights(lit)
    predictions = (lit.cell() / "predictions.zip").stat().st_mtime_ns
    text = lit.other.read_text()
    lit.other.write_text(text.replace("Twice the mean", "2 x the mean"))
    assert "1 of 1 are done already" in lit("tiny", "--plugin", lit.other).stderr
    lit.other.write_text(text.replace("2 * pair", "3 * pair"))
    assert lit("tiny", "--plugin", lit.other).exit_code == 0
    assert light(lit) == pytest.approx(1.5 * first)
    assert (weights(lit), (lit.cell() / "predictions.zip").stat().st_mtime_ns) == (trained, predictions)


def test_a_diagnostic_that_fails_costs_no_score(lit):
    scores = lit.table()["mse"]
    lit.other.write_text(lit.other.read_text().replace("2 * pair", "None * pair"))
    result = lit("tiny", "--plugin", lit.other)
    assert result.exit_code == 0, result.stderr
    assert lit.table()["mse"].equals(scores)
    assert list(lit.record()["failed_diagnostics"]) == ["light"]
    assert "tiny seed 0: the diagnostic light failed: TypeError" in result.stderr
    text = (lit.run / "details.md").read_text()
    assert "- light failed on the predictions of tiny, on-tiny: TypeError" in text
    assert "## Colors" in text
    assert "## Light" not in text


def test_what_is_computed_is_there_without_the_plugin_and_named(lit):
    assert call("report", lit.run).exit_code == 0
    assert "- Not shown: light (a test), which no plugin here registers" in (lit.run / "details.md").read_text()
    call("report", lit.run, "--plugin", lit.other)
    assert "## Light" in (lit.run / "details.md").read_text()


def test_without_any_diagnostic_there_are_no_details(bench, monkeypatch, registry):
    computing = {registry.plugin_of("diagnostic", name).name for name in computed(registry)}
    entries = [entry for entry in plugins.entry_points(group="colorbench") if entry.name not in computing]
    monkeypatch.setattr(plugins, "entry_points", lambda group: entries)
    trained, scores = weights(bench), bench.table()["mse"]
    result = bench("tiny,on-tiny")
    assert result.exit_code == 0, result.stderr
    assert (weights(bench), bench.table()["mse"].equals(scores)) == (trained, True)
    assert not (bench.cell() / "details.parquet").exists()
    assert not [file.name for file in bench.run.glob("details.*")]


def test_what_draws_is_no_code_of_a_model(tmp_path, monkeypatch):
    package = tmp_path / "drawing"
    package.mkdir()
    (package / "__init__.py").write_text("A = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = {reports: code.plugin_code("drawing", reports=reports) for reports in (True, False)}
    (package / "figures.py").write_text("from colorbench.report import figures\n\nB = 2\n")
    assert code.plugin_code("drawing", reports=False) == before[False]
    assert code.plugin_code("drawing") != before[True]
    for text in ("from colorbench.report import figures\nimport torch\n", "def f():\n    import colorbench.report\n"):
        (package / "figures.py").write_text(text)
        assert code.plugin_code("drawing", reports=False) != before[False]
    (package / "figures.py").unlink()
    (package / "__init__.py").write_text("from colorbench.report import figures\n")
    assert code.plugin_code("drawing", reports=False) != before[False]


def test_the_curve_beside_a_model_is_no_code_of_it(registry):
    """An edit of a figure shall make nothing stale that took days to train."""
    (curve,) = [spec for spec in registry.specs["diagnostic"].values() if spec.page == "ablations"]
    plugin = registry.plugin_of("diagnostic", curve.name)
    model = next(
        registry.specs["model"][name] for name in registry.specs["model"] if f"model {name}" in plugin.provides
    )
    made = own_fields(model, PRESETS["smoke"], registry, untrained=False)["code"][f"plugin {plugin.source}"]
    without, whole = (code.plugin_code(plugin.source, reports=reports)[plugin.source] for reports in (False, True))
    assert made == without != whole


def test_the_example_tells_the_error_by_hue(bench):
    assert len(EXAMPLE.read_text().splitlines()) <= 40
    (spec,) = plugins.load([EXAMPLE], only=()).specs["diagnostic"].values()
    lab = np.array([[60, 30 * np.cos(np.radians(hue)), 30 * np.sin(np.radians(hue))] for hue in (100, 100, 250, 0)])
    lab[3, 1:] = 0  # grey: of no hue
    truth = np.round(lab2rgb(lab[None].repeat(16, 0).repeat(4, 1)) * 255).astype(np.uint8)  # (16, 16, 3)
    predicted = truth.copy()
    predicted[:, :4, 0] += 6  # 36 in one channel of three, in half of the pixels of this hue
    terms = Terms([spec])
    score_batch(Pair(*(torch.from_numpy(image).permute(2, 0, 1)[None] for image in (predicted, truth))), terms=terms)
    row = terms.frame().iloc[0]
    assert row[["pixels_hue_90", "pixels_hue_240"]].tolist() == [0.5, 0.25]
    assert row.filter(like="pixels_").sum() == 0.75
    assert row[["error_hue_90", "error_hue_240"]].tolist() == pytest.approx([3, 0])
    result = bench("tiny", "--plugin", EXAMPLE)
    assert result.exit_code == 0, result.stderr
    text = (bench.run / "details.md").read_text()
    assert "## MSE by hue" in text
    assert text.rstrip().endswith("(error-by-hue.png)")
    assert (bench.run / "error-by-hue.png").exists()
