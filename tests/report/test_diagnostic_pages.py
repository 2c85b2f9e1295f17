"""What the report makes of diagnostics that fail, misbehave or are absent: their own section, and nothing else."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from run_folders import IMAGES, FakeRun

from colorbench import DiagnosticSpec, Statistic, ratio, report
from colorbench.errors import UserError
from colorbench.report import diagnostics
from colorbench.report.comparison import compare
from colorbench.report.results import read

HOSTILE = "a|b <script>alert(1)</script> [e](http://f) *i* `d`"
PLUGIN = """
from colorbench import DiagnosticSpec, Statistic, hookimpl

def draw(view):
    from matplotlib.figure import Figure
    assert list(view.details["model"]) == list(view.scores["model"]) == list(view.models) == ["plain", "fine"]
    view.scores["mse"] = view.details["shade"] = 0.0  # nobody else's
    return Figure()

@hookimpl
def register_diagnostics(register):
    shade = Statistic("shade", "shade, % ↓", ("dark", "area"), gain="shade")
    register(DiagnosticSpec("toy", "how dark it is", len, [shade], "Shades", draw=draw, caption="a|b", notes=["Dark."]))
"""


@pytest.fixture
def run(tmp_path):
    """Two models with the terms "dark" and "area", as a plugin computed them, and the plugin's file."""
    run, rng = FakeRun(tmp_path / "run", ["plain", "fine"]), np.random.default_rng(0)
    terms = pd.DataFrame({"dark": rng.uniform(1, 2, IMAGES), "area": rng.uniform(1, 2, IMAGES)})
    for seed in (0, 1):
        run.cell("plain", seed, np.linspace(100, 50, IMAGES), terms)
        run.cell("fine", seed, np.linspace(90, 40, IMAGES), terms.assign(dark=terms["dark"] * 0.75), refines="plain")
    run.record.diagnostics = {"toy": "how dark it is"}
    run.save()
    run.plugin = tmp_path / "toy.py"
    run.plugin.write_text(PLUGIN)
    run.terms = terms
    return run


def page(run, *changes, name="details.md"):
    """What a page says, with the plugin changed like that."""
    text = PLUGIN
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    run.plugin.write_text(text)
    report.write(run.folder, [run.plugin])
    return (run.folder.path / name).read_text()


def columns(run, *statistics):
    """What `summarize` makes of a diagnostic with these statistics: the row of "plain", and why it is left out."""
    results = read(run.folder)
    found = diagnostics.summarize(results, results.models, [DiagnosticSpec("toy", "", len, [*statistics])])
    return (found.frame.iloc[0] if len(found.frame) else {}), found.left_out


def test_a_diagnostic_has_its_table_its_gains_its_figure_and_its_note(run):
    text = page(run)
    assert "## Shades\n\n| model |   shade, % ↓ |" in re.sub(" +", " ", text).replace("| shade", "|   shade")
    assert "## Shades: gain over the base" in text
    (gain,) = [line for line in text.splitlines() if line.startswith("| fine ") and "| plain" in line]
    assert "+25.0 [+25.0, +25.0]" in gain
    assert "- Dark.\n- A gain is paired: the same images and seeds for both models." in text
    assert text.endswith("\n\n![a\\|b](toy.png)\n")
    frame = pd.read_csv(run.folder.path / "details.csv").set_index("model")
    expected = run.terms["dark"].sum() / run.terms["area"].sum()
    assert frame["shade"].to_dict() == pytest.approx({"plain": expected, "fine": 0.75 * expected}, rel=1e-6)
    assert frame.loc["fine", "base_gain_shade_percent"] == pytest.approx(25, rel=1e-6)
    assert (run.folder.path / "toy.png").read_bytes().startswith(diagnostics.PNG)
    before = compare(read(run.folder))
    assert before.set_index("model").loc["fine", "mse"] == pytest.approx(65)


def test_without_a_formula_one_term_is_averaged_where_it_is_there(run):
    half = run.terms.assign(dark=run.terms["dark"].where(np.arange(IMAGES) % 2 == 0))
    for seed in (0, 1):
        run.cell("plain", seed, np.linspace(100, 50, IMAGES), half)
    row, left_out = columns(
        run,
        Statistic("mean", "", ["dark"]),
        Statistic("quotient", "", ["area", "area"]),
        Statistic("product", "", ["area", "area"], lambda first, second: first * second),
        Statistic("absent", "", ["nothing"]),
        Statistic("undefined", "", ["area"], lambda area: ratio(area, 0 * area)),
    )
    assert left_out == {}
    assert row["mean"] == pytest.approx(half["dark"].mean(), rel=1e-6)
    assert row["quotient"] == 1
    assert row["product"] == pytest.approx(run.terms["area"].mean() ** 2, rel=1e-6)
    assert row[["absent", "undefined"]].isna().all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("[shade]", "lambda names: 1 / 0"), "toy is left out: ZeroDivisionError: division by zero."),
        (("[shade]", "lambda names: [1]"), "toy is left out: AttributeError"),
        (('("dark", "area")', '("dark", "model")'), "toy is left out: ValueError: no term is called model."),
        (("[shade]", "[shade, shade]"), "toy is left out: ValueError: its columns are there already: shade"),
        (('"shade",', '"images",'), "toy is left out: ValueError: its columns are there already: images"),
        (('gain="shade"', "formula=lambda *terms: 1 / 0"), "toy is left out: ZeroDivisionError"),
        (('gain="shade"', "formula=lambda dark, area: 'dark'"), "toy is left out: "),
        (("return Figure()", "raise OSError('no|luck')"), "The figure of toy is left out: OSError: no\\|luck."),
        (("return Figure()", "return b'GIF'"), "The figure of toy is left out: TypeError: draw gives bytes"),
        (("return Figure()", "exit()"), "The figure of toy is left out: SystemExit: None."),
        (('["Dark."]', "lambda view: 1 / 0"), "The figure of toy is left out: ZeroDivisionError"),
    ],
)
def test_a_diagnostic_that_fails_at_report_costs_its_own_section(run, change, said):
    whole = page(run)
    text = page(run, change)
    assert f"- {said}" in text
    assert ("## Shades" in text) == said.startswith("The figure")
    assert (run.folder.path / "toy.png").exists() == (not said.startswith("The figure"))
    assert "toy.png" not in text or not said.startswith("The figure")
    for name in ("comparison.md", "comparison.csv"):
        assert (run.folder.path / name).read_text() == page(run, name=name)
    assert page(run) == whole


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"toy"', '"To y"'), ('"toy"', '"losses"'), ('len, [shade], "Shades", draw=draw,', ""), ("[shade]", "[1]"),
        ('"Shades"', "1"), ('["Dark."]', '"Dark."'), ('caption="a|b"', 'page="front"'),
        ('("dark", "area")', '"dark"'), ('("dark", "area")', "()"), ('gain="shade"', 'form="x"'),
    ],
)  # fmt: skip
def test_a_diagnostic_that_no_page_could_hold_is_not_registered(run, old, new):
    with pytest.raises(UserError, match=r"cannot load the plugin .*toy\.py: (Value|Type)Error"):
        page(run, (old, new))


def test_a_diagnostic_that_leaves_or_moves_the_command_costs_its_own_figure(run, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    run.folder.path = run.folder.path.relative_to(tmp_path)  # as a command names it
    said = page(run, ("    return Figure()", "    import os; os.chdir('elsewhere'); os._exit(3)"))
    assert "The figure of toy is left out: SystemExit: 3." in said
    assert Path.cwd() == tmp_path
    assert [*(tmp_path / "elsewhere").iterdir()] == []


def test_two_diagnostics_share_a_table_and_its_text_is_no_markup(run):
    more = '    x = Statistic("x", TITLE, ["area"])\n'
    more += '    register(DiagnosticSpec("more", "", len, [x], "Shades", notes=[TITLE]))\n'
    text = page(run, ("@hookimpl", f"TITLE = {HOSTILE!r}\n\n@hookimpl"), ('notes=["Dark."]))\n', f"))\n{more}"))
    (table,) = re.findall(r"## Shades\n\n((?:\|.*\n)+)", text)
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert table.splitlines()[0].count("shade, % ↓") == 1
    assert "a\\|b &lt;script&gt;" in table
    assert not re.search(r"<|(?<!\\)(`|\*i|\]\(http)", text)


def test_what_no_plugin_here_registers_is_named_and_its_figure_removed(run):
    page(run)
    assert (run.folder.path / "toy.png").exists()
    report.write(run.folder)
    text = (run.folder.path / "details.md").read_text()
    assert "- Not shown: toy (how dark it is), which no plugin here registers; \\`colorbench report\\` with its" in text
    assert "shade" not in text
    assert not (run.folder.path / "toy.png").exists()


def test_what_failed_on_the_predictions_is_told_with_its_models(run):
    for seed in (0, 1):
        run.change("fine", seed, failed_diagnostics={"toy": "ValueError: no luck"})
    run.change("plain", 1, failed_diagnostics={"toy": HOSTILE})
    text = page(run)
    assert "- toy failed on the predictions of fine: ValueError: no luck.\n" in text
    assert "- toy failed on the predictions of plain: a\\|b &lt;script&gt;" in text


def test_a_figure_may_stand_on_another_page(run):
    elsewhere = ('caption="a|b"', 'caption="dark", page="comparison"')
    text = page(run, elsewhere, name="comparison.md")
    assert text.endswith("![dark](toy.png)\n")
    assert "\n- Dark.\n" in text
    assert "toy.png" not in (run.folder.path / "details.md").read_text()
    page(run, ('caption="a|b"', 'page="ablations"'))
    assert not (run.folder.path / "toy.png").exists()  # there are none


def test_every_figure_of_the_installed_plugins_has_a_caption(registry):
    drawn = [spec for spec in registry.specs["diagnostic"].values() if spec.draw]
    assert drawn
    assert all(spec.caption for spec in drawn)
