"""The gain of a refiner over its own base, by how long that base was trained: columns, sentence, figure, example."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from colorbench_enhanced_unet.curve import curves
from PIL import Image
from run_folders import IMAGES, FakeRun, published

from colorbench import report
from colorbench.report.comparison import compare
from colorbench.report.results import read
from colorbench.runs.folder import RunFolder
from colorbench.runs.records import legs

EXAMPLE = Path(__file__).parents[2] / "examples" / "base_epochs.py"


def family(path, gains, printed=(80.0, 64.0)):
    """A refiner "fine" on bases that saw 1000 images an epoch, MSE 400 / epochs: {epochs: its gain in percent}.

    The preset's own base is that of 4 epochs. `printed`: the MSE published for base and refiner, or None.
    """
    pairs = {e: ("plain", "fine") if e == 4 else (f"plain/{e}", f"fine/on-{e}") for e in gains}
    run = FakeRun(path, [name for pair in pairs.values() for name in pair], seeds=(0,))
    del run.record.data.splits["train"]  # an evaluation has none
    run.save()
    for epochs, (plain, fine) in pairs.items():
        own = epochs == 4
        mse = np.full(IMAGES, 400 / epochs)
        figures = [published(value) for value in printed] if printed and own else [None, None]
        seen = 1000 * epochs
        stages = [{"name": "train", "epochs": 2 * epochs, "part": [0.0, 0.5]}]
        run.cell(plain, 0, mse, images_seen=seen, stages=stages, options={}, reference=own, published=figures[0])
        refined = mse * (1 - gains[epochs] / 100 + np.linspace(-0.05, 0.05, IMAGES))
        run.cell(fine, 0, refined, refines=plain, options={}, published=figures[1])
    return run


def ablations(run):
    report.write(run.folder)
    return (run.folder.path / "ablations.md").read_text()


def table_of(text):
    """The first table of a Markdown text: its titles and its rows."""
    lines = [line for line in text.split("\n\n")[1].splitlines() if line.startswith("|")]
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return head, rows


def sentences(run):
    return [line for line in ablations(run).splitlines() if "published" in line]


def found(run):
    results = read(run.folder)
    return curves(compare(results), results)


def test_the_gain_over_the_own_base_is_not_that_over_the_reference(tmp_path):
    run = family(tmp_path, {1: 50, 4: 10})
    report.write(run.folder)
    rows = pd.read_csv(tmp_path / "ablations.csv").set_index("model")
    row = rows.loc["fine/on-1"]
    assert (row["base"], row["base_images_seen"], row["base_wins_percent"]) == ("plain/1", 1000, 100)
    assert row["base_gain_percent"] == pytest.approx(50)
    # The gains of the images are spread evenly over 10 percent of the base's MSE, which is that of every image.
    half = 1.96 * 10 / 12**0.5 / IMAGES**0.5
    assert row["base_gain_percent_low"] == pytest.approx(50 - half, abs=0.1 * half)
    assert row["base_gain_percent_high"] == pytest.approx(50 + half, abs=0.1 * half)
    assert row["gain_percent"] == pytest.approx(-100)  # 200 against the 100 of "plain"
    assert rows.loc[["plain", "plain/1"], "base_gain_percent"].isna().all()


def test_a_gain_is_over_the_seeds_that_both_have(tmp_path):
    run = FakeRun(tmp_path, ["plain", "fine"], seeds=(0, 1, 2))
    for seed, mse in enumerate((100.0, 100.0, 400.0)):
        run.cell("plain", seed, np.full(IMAGES, mse), reference=True)
    for seed in (0, 1):
        run.cell("fine", seed, np.full(IMAGES, 90.0), refines="plain")
    row = compare(read(run.folder)).set_index("model").loc["fine"]
    assert (row["gain_percent"], row["base_gain_percent"]) == (pytest.approx(10), pytest.approx(10))
    assert row["base_gain_percent_high"] == pytest.approx(10)


@pytest.mark.parametrize(("gains", "clear"), [((9, 10, 11), True), ((-12, 2, 12), False)])
def test_the_interval_of_a_gain_has_what_the_seeds_may_do(tmp_path, gains, clear):
    run = FakeRun(tmp_path, ["plain", "fine"], seeds=(0, 1, 2))
    for seed, gain in enumerate(gains):
        run.cell("plain", seed, np.full(IMAGES, 100.0), reference=True)
        run.cell("fine", seed, np.full(IMAGES, 100.0 - gain), refines="plain")
    row = run.frame().loc["fine"]
    half = 4.303 * np.std(gains, ddof=1) / 3**0.5
    assert row["base_gain_percent_high"] == pytest.approx(np.mean(gains) + half, rel=1e-3)
    assert (row["base_gain_percent_low"] > 0) == clear


def test_ablations_show_the_gain_over_the_base_and_the_parent_first(tmp_path):
    head, rows = table_of(ablations(family(tmp_path, {1: 50, 4: 10, 16: 2})))
    assert [row[0] for row in rows] == ["plain", "plain/1", "plain/16", "fine", "fine/on-1", "fine/on-16"]
    gains = {row[0]: row[head.index("MSE gain over its base, % ↑")] for row in rows}
    assert gains["plain/1"] == "–"  # noqa: RUF001
    assert [gains[name].partition(" [")[0] for name in ("fine", "fine/on-1", "fine/on-16")] == [
        "+10.0",
        "+50.0",
        "+2.0",
    ]
    parent = rows[3]
    assert parent[head.index("MSE ↓")].startswith("90.0 [")
    assert parent[head.index("verdict")] == parent[head.index("MSE gain over the parent, % ↑")] == "–"  # noqa: RUF001


def test_the_comparison_shows_the_gain_over_the_base_only_where_that_is_not_the_reference(tmp_path):
    run = family(tmp_path, {4: 10})
    assert "gain over its base" not in report.write(run.folder)
    run = FakeRun(tmp_path / "other", ["plain", "weak", "fine"], seeds=(0,))
    for name, mse, fields in (
        ("plain", 100, {"reference": True}),
        ("weak", 200, {}),
        ("fine", 150, {"refines": "weak"}),
    ):
        run.cell(name, 0, np.full(IMAGES, float(mse)), **fields)
    head, rows = table_of(report.write(run.folder))
    (fine,) = (row for row in rows if row[0] == "fine")
    assert fine[head.index("MSE gain over its base, % ↑")].startswith("+25.0")
    assert fine[head.index("MSE gain over plain, % ↑")].startswith("**-50.0**")


# The published gain is 20 percent; by the logarithm it lies halfway between 1000 and 4000 images, at 2000.
@pytest.mark.parametrize(
    ("gains", "said"),
    [
        ({1: 30, 4: 10, 16: 1}, "between the bases of 1,000 and 4,000 images seen "
                                "(linear in the logarithm: at about 2,000)."),
        ({1: 9, 4: 12, 16: 3}, "above every point of the curve (largest: 12.0 % at 4,000 images)."),
        ({1: 40, 4: 30, 16: 25}, "below every point of the curve (smallest: 25.0 % at 16,000 images)."),
        ({1: 10, 4: 30, 16: 10}, "between the bases of 1,000 and 4,000 images seen "
                                 "(linear in the logarithm: at about 2,000), and "
                                 "between the bases of 4,000 and 16,000 images seen "
                                 "(linear in the logarithm: at about 8,000)."),
    ],
)  # fmt: skip
def test_one_sentence_says_where_the_published_gain_lies(tmp_path, gains, said):
    start = "- The gain published for fine over plain, 20.0 % on other data, lies "
    assert sentences(family(tmp_path, gains)) == [start + said]


@pytest.mark.parametrize("printed", [None, (80.0, None), (None, 64.0)])
def test_without_both_published_figures_there_is_a_curve_and_no_sentence(tmp_path, printed):
    run = family(tmp_path, {1: 30, 4: 10, 16: 1}, printed)
    assert sentences(run) == []
    assert (tmp_path / "base-curve.png").exists()


def test_the_gain_over_another_base_than_the_published_one_is_not_published(tmp_path):
    run = family(tmp_path, {1: 30, 2: 20, 4: 10, 16: 1})
    run.change("fine", 0, refines="plain/1")
    (curve,) = found(run)
    assert np.isnan(curve.published)


def test_ablations_without_their_parents_have_a_curve_and_no_published_gain(tmp_path):
    run = family(tmp_path, {1: 30, 2: 20, 4: 10, 16: 1})
    run.record.cells = [cell for cell in run.record.cells if "/" in cell[0]]
    run.save()
    (curve,) = found(run)
    assert [point.images for point in curve.points] == [1000, 2000, 16000]
    assert np.isnan(curve.published)


def test_bases_of_one_length_are_averaged_in_the_sentence(tmp_path):
    run = family(tmp_path, {1: 30, 4: 14, 16: 1})
    run.ask(("plain/again", 0), ("fine/on-again", 0))
    run.cell("plain/again", 0, np.full(IMAGES, 100.0), images_seen=4000, options={})
    run.cell("fine/on-again", 0, np.full(IMAGES, 94.0), refines="plain/again", options={})
    (curve,) = found(run)
    assert [point.images for point in curve.points] == [1000, 4000, 4000, 16000]
    assert curve.gains() == [(1000, pytest.approx(30)), (4000, pytest.approx(10)), (16000, pytest.approx(1))]


def test_several_seeds_widen_the_interval_of_a_point(tmp_path):
    run = family(tmp_path, {1: 30, 4: 10, 16: 1})
    (curve,) = found(run)
    before = [point.high - point.low for point in curve.points]
    for model, mse in (("plain/1", 400), ("fine/on-1", 284)):
        first = run.folder.cell(model, 0)
        fields = {"images_seen": first.images_seen, "refines": first.refines, "options": {}}
        run.cell(model, 1, np.full(IMAGES, float(mse)), **fields, stages=first.made_from.get("stages", []))
        run.ask((model, 1))
    (curve,) = found(run)
    first, *others = curve.points
    # Differences of -120 and -116: a standard error of 2, times 12.71 of Student's t for two seeds, in percent of 400.
    assert first.high - first.low == pytest.approx(2 * 12.71 * 2 / 4, rel=0.02)
    assert first.gain == pytest.approx(29.5)
    assert [point.high - point.low for point in others] == pytest.approx(before[1:])


def test_the_figure_is_drawn_linked_and_taken_away_again(tmp_path):
    run = family(tmp_path, {1: 30, 4: 10, 16: -1})
    text = ablations(run)
    assert text.rstrip().endswith("(base-curve.png)")
    first = (tmp_path / "base-curve.png").read_bytes()
    with Image.open(BytesIO(first)) as picture:
        assert np.asarray(picture.convert("L")).std() > 5  # not an empty sheet
    assert ablations(run) == text
    assert (tmp_path / "base-curve.png").read_bytes() == first
    run.cell("fine/on-16", 0, status="failed", reason="no luck")
    assert "base-curve.png" not in ablations(run)
    assert not (tmp_path / "base-curve.png").exists()


def test_what_changes_more_than_the_base_is_not_on_the_curve(tmp_path):
    run = family(tmp_path, {1: 30, 4: 10, 16: 1})
    others = {
        "fine/other-net": {"refines": "plain", "options": {}},  # on the parent's own base: it changes something else
        "fine/smaller-on-1": {"refines": "plain/1", "options": {"small": True}},
        "fine/on-other-family": {"refines": "cnn", "options": {}},
        "fine/on-other-options": {"refines": "plain/wide", "options": {}},
        "fine/of-other-images-on-1": {
            "refines": "plain/1",
            "options": {},
            "stages": [{"name": "refine", "part": [0.6, 1]}],
        },
    }
    for name in ("cnn", "plain/wide"):
        options = {"wide": True} if name == "plain/wide" else {}
        run.cell(name, 0, np.full(IMAGES, 90.0), images_seen=2000, options=options)
    for name, fields in others.items():
        run.cell(name, 0, np.full(IMAGES, 50.0), **fields)
    run.ask(*((name, 0) for name in ("cnn", "plain/wide", *others)))
    (curve,) = found(run)
    assert [(point.images, point.epochs) for point in curve.points] == [(1000, 1), (4000, 4), (16000, 16)]
    assert [point.gain for point in curve.points] == pytest.approx([30, 10, 1])
    assert [(point.base_mse, point.refined_mse) for point in curve.points] == [
        pytest.approx(pair) for pair in ((400, 280), (100, 90), (25, 24.75))
    ]


def test_a_base_that_was_not_trained_has_no_place_on_a_logarithmic_axis(tmp_path):
    run = family(tmp_path, {1: 30, 4: 10, 16: 1})
    run.change("plain", 0, images_seen=0)
    assert found(run) == []


def test_the_example_trains_each_refiner_on_its_own_base(colorbench, tmp_path):
    asked = ["--models", "enhanced-unet", "--ablations", "base-3-epochs,base-10-epochs", "--preset", "smoke"]
    result = colorbench("run", "--plugin", EXAMPLE, *asked, "--no-timing", "--out", tmp_path)
    assert result.exit_code == 0, result.stderr
    folder = RunFolder(tmp_path)
    bases, refiners = (
        [folder.cell(f"{model}{name}", 0) for name in names]
        for model, names in (
            ("siggraph17", ("", "/3-epochs", "/10-epochs")),
            ("enhanced-unet", ("", "/base-3-epochs", "/base-10-epochs")),
        )
    )
    assert [sum(leg.epochs for leg in legs(base.made_from)) for base in bases] == [1, 3, 10]
    assert [refiner.refines for refiner in refiners] == [base.model for base in bases]
    assert [refiner.made_from["base"]["weights"] for refiner in refiners] == [base.weights_sha256 for base in bases]
    assert len({base.weights_sha256 for base in bases}) == 3
    stages = [refiner.made_from["stages"] for refiner in refiners]
    assert stages[1] == stages[2] == stages[0]  # the preset's, whatever the base's
    assert (tmp_path / "base-curve.png").exists()
