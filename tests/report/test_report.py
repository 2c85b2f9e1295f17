"""The report, on a run folder written by hand: what a reader is told must follow from the files, all of them."""

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from run_folders import ELSEWHERE, HERE, IMAGES, FakeRun, published, scores_of

from colorbench import report
from colorbench.errors import UserError
from colorbench.runs.folder import SCORES, to_parquet
from colorbench.runs.records import MetricRecord, Rate, Split

FILES = "comparison.csv", "comparison.md", "losses.png", "pictures.png"


@pytest.fixture
def errors() -> np.ndarray:
    return np.random.default_rng(7).lognormal(5, 0.8, IMAGES)


@pytest.fixture
def mixed(tmp_path: Path, errors: np.ndarray) -> FakeRun:
    """Good and bad: two finished models, one with a failed seed, one that failed, one that was interrupted."""
    run = FakeRun(tmp_path / "run", ["plain", "better", "broken", "stopped"])
    unreadable = {f"{name}.png": "truncated" for name in "abcd"}
    run.record.data.splits["train"] = Split(1500, 3, unreadable)
    run.record.data.splits["test"] = Split(IMAGES, 0, {}, also_in_train=1)
    run.save()
    printed = published(337.021, note="a mean over images")
    for seed in (0, 1):
        run.cell("plain", seed, errors + seed, reference=True, published=printed, notes=["no ImageNet weights"])
        run.losses("plain", seed, {"train": 6}, ("l2",))
        run.cell("broken", seed, status="failed", reason="Diverged: the loss | is\nnot finite")
    copied = np.where(np.arange(IMAGES) == 3, 0.0, errors * 0.8)
    weights = {"file": "better.pth", "sha256": "5" * 64}
    run.cell("better", 0, copied, refines="plain", environment=ELSEWHERE, width=1.0, weights=weights)
    run.cell("better", 1, status="skipped", reason="its base plain is not there")
    run.losses("better", 0, {"warm-up": 2, "normal": 4}, ("residual", "style"))
    unfinished = run.file("stopped", 0, "training.pt")
    unfinished.parent.mkdir(parents=True)
    unfinished.touch()
    run.samples()
    run.timing("plain", step_n=Rate(median=0.5, iqr=0.2, rounds=7))
    run.timing("better", failed="out of memory")
    return run


def rows_of(text: str) -> dict[str, list[str]]:
    """The cells of the first table of a Markdown text, by the first of them."""
    lines = [line for line in text.split("\n\n")[1].splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.replace("\\|", "\0").strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in cells}


def notes_of(text: str) -> str:
    return text.partition("## Notes")[2].partition("##")[0]


def test_psnr_three_ways(tmp_path, errors):
    run = FakeRun(tmp_path, ["plain"])
    for seed in (0, 1):
        run.cell("plain", seed, errors * (1 + seed))
    row = run.frame().loc["plain"]
    mean = errors * 1.5  # over the seeds
    batches = [10 * np.log10(65025 / mean[i : i + 8].mean()) for i in range(0, IMAGES, 8)]
    per_image = (10 * np.log10(65025 / errors)).mean() - 10 * np.log10(2) / 2
    assert row["psnr"] == pytest.approx(per_image)
    assert row["psnr_pooled"] == pytest.approx(10 * np.log10(65025 / row["mse"]))
    assert row["psnr_batch8"] == pytest.approx(np.mean(batches))
    assert row["psnr_low"] < row["psnr"] < row["psnr_high"]


def test_seeds_are_averaged_by_image_and_their_spread_is_told(tmp_path, errors):
    run = FakeRun(tmp_path, ["plain"])
    for seed in (0, 1):
        run.cell("plain", seed, errors + 10 * seed)
    row = run.frame().loc["plain"]
    assert row["mse"] == pytest.approx(errors.mean() + 5)
    assert row["mse_seed_sd"] == pytest.approx(10 / np.sqrt(2))
    assert (row["images"], row["seeds_done"], row["seeds"]) == (IMAGES, 2, "0 1")


def test_a_gain_that_every_image_shares_has_no_uncertainty(tmp_path, errors):
    run = FakeRun(tmp_path, ["plain", "better"], seeds=(0,))
    run.cell("plain", 0, errors, reference=True)
    run.cell("better", 0, errors * 0.8)
    frame = run.frame()
    gain = frame.loc["better", ["gain_percent", "gain_percent_low", "gain_percent_high", "wins_percent"]]
    assert list(gain) == pytest.approx([20, 20, 20, 100])
    assert frame.loc["better", "reference"] == "plain"
    assert pd.isna(frame.loc["plain", "gain_percent"])


def test_the_interval_of_a_gain_is_paired(tmp_path, errors):
    run = FakeRun(tmp_path, ["plain", "better"], seeds=(0,))
    noise = np.random.default_rng(3).normal(10, 20, IMAGES)
    run.cell("plain", 0, errors + 200, reference=True)
    run.cell("better", 0, errors + 200 - noise)
    row = run.frame().loc["better"]
    reference = (errors + 200).mean()
    half = 100 * 1.96 * noise.std(ddof=1) / np.sqrt(IMAGES) / reference
    assert row["gain_percent"] == pytest.approx(100 * noise.mean() / reference)
    assert row["gain_percent_high"] - row["gain_percent_low"] == pytest.approx(2 * half, rel=0.15)
    assert row["wins_percent"] == pytest.approx(100 * (noise > 0).mean())


def test_gains_in_psnr_and_ssim_are_paired_differences(tmp_path, errors):
    run = FakeRun(tmp_path, ["plain", "better", "copy"], seeds=(0,))
    run.cell("plain", 0, errors, reference=True)
    run.cell("better", 0, errors / 10)
    run.cell("copy", 0, 0 * errors)
    text = report.write(run.folder)
    table = pd.read_csv(tmp_path / "comparison.csv").set_index("model")
    gains = [f"psnr_gain{end}" for end in ("", "_low", "_high")]
    assert table.loc["better", gains].tolist() == pytest.approx([10, 10, 10])  # a tenth of the error, in every image
    assert np.isinf(table.psnr_gain["copy"])
    assert table.ssim_gain["better"] == pytest.approx(0.9 * errors.mean() / 5000)
    assert "PSNR gain over plain, dB ↑" in text
    assert "+10.00 [+10.00, +10.00]" in text


def test_without_a_reference_there_is_no_gain(tmp_path, errors):
    run = FakeRun(tmp_path, ["plain", "better"], seeds=(0,))
    run.cell("plain", 0, errors)
    run.cell("better", 0, status="failed", reason="no", reference=True)
    assert "gain_percent" not in run.frame()
    assert "gain" not in report.write(run.folder)


def test_every_model_has_a_row_worst_first_and_without_scores_last(mixed):
    assert list(mixed.frame().index) == ["plain", "better", "broken", "stopped"]
    rows = rows_of(report.write(mixed.folder))
    assert list(rows)[2:] == ["plain", "better (trained elsewhere)", "broken", "stopped"]
    assert rows["plain"][-1] == "done"
    assert rows["better (trained elsewhere)"][-1] == "1 of 2 seeds; seed 1 skipped: its base plain is not there"
    assert rows["broken"][-1] == "failed: Diverged: the loss \0 is not finite"
    assert rows["broken"][0] == "–"  # noqa: RUF001
    assert rows["stopped"][-1].startswith("0 of 2 seeds; seed 0 interrupted: run the same command again; seed 1 mi")
    assert "seed 1 missing: run the same command again" in mixed.frame().loc["stopped", "status"]


def test_the_notes_tell_what_the_numbers_do_not(mixed):
    notes = notes_of(report.write(mixed.folder))
    for told in (
        "with other seeds. With two seeds they may be wider than need be, and cover up to 98 %.",
        "Of one seed: better. Their intervals cover the choice of test images alone",
        "PSNR is infinite for some images, which its mean leaves out: better 1.",
        "broken, seed 0, failed: Diverged: the loss \\| is not finite.",
        "better, seed 1, skipped: its base plain is not there.",
        "plain: no ImageNet weights.",
        "better has width 1, not the preset's 0.25.",
        "better was not trained: published weights better.pth (SHA-256 555555555555).",
        "better refines plain",
        "Environment e0000001 (plain seed 0, plain seed 1, plain timing): AMD EPYC 9R14, 2 cores",
        "Environment e0000002 (better seed 0): 1 x NVIDIA H200",
        "better could not be timed: out of memory.",
        "~ marks an unreliable timing",
        "The peak memory is that of the process.",
        "In train, 3 images are near grey, left out of training; 4 files that cannot be read are left out: "
        "a.png (truncated), b.png (truncated), c.png (truncated), 1 more.",
        "In test, 1 image is also in train.",
    ):
        assert told in notes


def test_bold_is_explained_where_something_is_bold_alone(tmp_path, errors):
    run = FakeRun(tmp_path, ["plain", "better"], seeds=(0,))
    run.cell("plain", 0, errors)
    for done in (False, True):
        run.cell("better", 0, **({"mse": errors * 0.8} if done else {"reason": "no"}))
        text = report.write(run.folder)
        assert "Lower is better under ↓, higher under ↑." in text
        assert ("Bold: the best" in text, "| **" in text) == (done, done)


def test_a_note_on_an_environment_names_a_few_cells_and_counts_the_others(tmp_path, errors):
    run = FakeRun(tmp_path, ["plain"], seeds=tuple(range(6)))
    for seed in run.record.seeds:
        run.cell("plain", seed, errors, environment=ELSEWHERE if seed == 5 else HERE)
    assert "(plain seed 0, plain seed 1, plain seed 2, 2 more): AMD EPYC" in notes_of(report.write(run.folder))


def test_one_line_names_what_was_compared(tmp_path, errors):
    run = FakeRun(tmp_path, ["plain"], seeds=(0,))
    run.cell("plain", 0, errors)
    (line,) = [line for line in report.write(run.folder).splitlines() if "Protocol" in line]
    for named in (
        "colorbench-1 (aaaabbbbcccc)", "portraits (ddddeeeeffff)", "200 train, 200 test", "quick", "64 px",
        "width 0.25", "6 epochs", "batch size 16", "seed 0", "AMD EPYC 9R14", "float32", "colorbench 0.1.0",
        "torch 2.9.0",        "commit fedcba987654 with uncommitted changes",
    ):  # fmt: skip
        assert named in line


def test_the_best_of_the_models_with_parameters_is_bold(tmp_path, errors):
    run = FakeRun(tmp_path, ["bound", "plain", "better"], seeds=(0,))
    for name, factor, parameters in (("bound", 0.1, 0), ("plain", 2, 9), ("better", 1, 9)):
        run.cell(name, 0, errors * factor, parameters=parameters)
    rows = rows_of(report.write(run.folder))
    assert [rows[name][0].startswith("**") for name in ("bound", "plain", "better")] == [False, False, True]
    assert [rows[name][1].startswith("**") for name in ("bound", "plain", "better")] == [False, False, True]


def test_models_stand_between_the_floor_and_the_bound(tmp_path, errors):
    run = FakeRun(tmp_path, ["constant", "worse", "plain", "best"])
    for seed in (0, 1):
        run.cell("worse", seed, errors * 0.9)
        run.cell("constant", seed, errors, anchor="floor", parameters=0)
        run.cell("plain", seed, errors * 0.7, reference=True)
        run.cell("best", seed, errors * 0.4, anchor="bound", sees_truth=True)
    frame, text = run.frame(), report.write(run.folder)
    assert frame["skill"].to_dict() == pytest.approx({"constant": 0, "worse": 0.1, "plain": 0.3, "best": 0.6})
    expected = {"constant": 0, "worse": 100 / 6, "plain": 50, "best": 100}
    assert frame["to_bound_percent"].to_dict() == pytest.approx(expected, abs=1e-5)
    assert frame.loc["plain", ["skill_low", "skill_high"]].tolist() == pytest.approx([0.3, 0.3])
    assert "to the bound, % ↑" in text
    assert "Made from the true colors, which no colorization has, and never in bold: best." in notes_of(text)
    rows = rows_of(text)
    assert [rows[name][0].startswith("**") for name in ("constant", "worse", "plain", "best")] == [
        False,
        False,
        True,
        False,
    ]


def test_an_ablation_that_sees_the_truth_is_named_on_its_own_page_alone(tmp_path, errors):
    run = FakeRun(tmp_path, ["plain", "plain/seeing"], seeds=(0,))
    run.cell("plain", 0, errors)
    run.cell("plain/seeing", 0, errors * 0.5, parent="plain", sees_truth=True)
    said = "Made from the true colors, which no colorization has, and never in bold"
    assert said not in notes_of(report.write(run.folder))
    assert f"{said}: plain/seeing." in (run.folder.path / "ablations.md").read_text()


def test_without_a_bound_there_is_only_the_skill(tmp_path, errors):
    run = FakeRun(tmp_path, ["constant", "plain"], seeds=(0,))
    run.cell("constant", 0, errors, anchor="floor")
    run.cell("plain", 0, errors * 0.7)
    assert "skill" in run.frame()
    assert "to_bound_percent" not in run.frame()
    run.change("constant", 0, anchor="")
    assert "skill" not in run.frame()


def test_wins_are_counted_by_seed_and_image(tmp_path, errors):
    run = FakeRun(tmp_path, ["plain", "better"])
    for seed, factor in ((0, 0.5), (1, 1.1)):
        run.cell("plain", seed, errors, reference=True)
        run.cell("better", seed, errors * factor)
    assert run.frame().loc["better", "wins_percent"] == 50  # of the means over the seeds it would be all


def test_one_seed_gives_no_verdict_and_the_page_says_why(tmp_path, errors):
    run = FakeRun(tmp_path, ["parent", "parent/less"], seeds=(0,))
    run.cell("parent", 0, errors)
    run.cell("parent/less", 0, errors * 2)
    text = report.write(run.folder)
    assert "one seed: no verdict" in text
    assert "what another seed would change is unknown" in text
    assert "Holm" not in text


def test_holm_asks_more_of_one_among_many(tmp_path, errors):
    """The same difference is clear alone, and not among 20 rows."""
    for others in (0, 19):
        models = ["parent", "parent/first", *(f"parent/{i}" for i in range(others))]
        run = FakeRun(tmp_path / str(others), models)
        for seed in (0, 1):
            run.cell("parent", seed, errors)
            for model in models[1:]:
                run.cell(model, seed, errors * (1.05 + 0.002 * seed if model.endswith("first") else 1 + 0.01 * seed))
        verdict = run.frame("ablations").loc["parent/first", "parent_verdict"]
        assert verdict == ("no clear difference" if others else "worse")


def test_published_figures_stand_apart_and_never_in_the_table(mixed):
    text = report.write(mixed.folder)
    ours, _, printed = text.partition("## Published figures")
    assert "337.021" not in ours
    assert "337.021 | " in printed
    assert "22.854" in printed  # the PSNR of that MSE, unlike the one printed
    assert "not to be compared" in printed
    assert 337.021 not in mixed.frame().to_numpy()


def test_a_plugin_metric_is_a_column_and_a_hole_in_it_is_told(tmp_path, errors):
    run = FakeRun(tmp_path, ["plain", "better"], seeds=(0,))
    for name, values in (("plain", errors), ("better", np.where(np.arange(IMAGES) == 5, np.nan, 0.25))):
        run.cell(name, 0, errors, scores={"hue": values})
    frame = run.frame()
    assert frame.loc["plain", "hue"] == pytest.approx(errors.mean())
    assert pd.isna(frame.loc["better", "hue"])
    assert "No mean of hue for better" in report.write(run.folder)


def test_a_score_over_the_set_is_the_mean_over_seeds_and_bold_where_it_is_best(tmp_path, errors):
    run = FakeRun(tmp_path, ["plain", "better"])
    for better in ("lower", "higher", "zero", ""):
        run.record.metrics[f"is_{better or 'any'}"] = MetricRecord("a test", "set", better)
    run.save()
    values = {"plain": -4.0, "better": 3.0}
    for name, value in values.items():
        for seed in (0, 1):
            run.cell(name, seed, errors)
            shifted = (value + seed, value - 1, value + 2 * seed)
            run.over_set(name, seed, is_lower=shifted, is_higher=shifted, is_zero=shifted, is_any=shifted)
    frame = run.frame()
    assert frame.loc["plain", ["is_zero", "is_zero_low", "is_zero_high"]].tolist() == [-3.5, -5, -3]
    more = report.write(run.folder).partition("## More scores")[2].partition("## Cost")[0]
    rows = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:]]
        for line in more.splitlines()
        if "|" in line
    }
    column = {name.partition(" ")[0]: index for index, name in enumerate(rows["model"])}
    assert {name for name in rows["model"] if name.startswith("is_")} == {
        "is_lower ↓",
        "is_higher ↑",
        "is_zero → 0",
        "is_any",
    }
    bold = {
        name: [model for model in values if "**" in rows[model][column[name]]]
        for name in column
        if name.startswith("is_")
    }
    assert bold == {"is_lower": ["plain"], "is_higher": ["better"], "is_zero": ["plain", "better"], "is_any": []}


def test_rates_are_images_per_second(tmp_path, errors):
    run = FakeRun(tmp_path, ["plain"], seeds=(0,))
    run.cell("plain", 0, errors)
    run.timing("plain", infer_1=Rate(0.02, 0.003, 9), step_n=Rate(2.0, 0, 4))
    row = run.frame().loc["plain"]
    assert (row["infer_1"], row["infer_n"], row["train_n"]) == (50, 32, 8)
    assert pd.isna(row["train_1"])  # it does not train
    assert set(row["unreliable"].split()) == {"infer_1", "train_n"}
    text = report.write(run.folder)
    assert "~50 " in text
    assert "~32" not in text


def test_the_table_of_numbers_reads_back(mixed):
    frame = mixed.frame()
    assert frame["mse"].dtype == frame["gain_percent"].dtype == float
    assert frame.loc["plain", "parameters"] == 1000
    assert frame.loc[["broken", "stopped"], "mse"].isna().all()
    assert set(frame["protocol_id"]) == {"aaaabbbbcccc"}
    assert frame.loc["better", "width"] == 1.0
    assert frame.loc["better", "psnr_infinite"] == 1


def test_the_same_files_give_the_same_report(mixed):
    report.write(mixed.folder)
    first = {name: (mixed.folder.path / name).read_bytes() for name in FILES}
    report.write(mixed.folder)
    assert {name: (mixed.folder.path / name).read_bytes() for name in FILES} == first


def test_figures_without_content_are_absent(mixed, tmp_path):
    run = FakeRun(tmp_path / "other", ["plain"])
    for name in FILES:
        (run.folder.path / name).write_text("of an earlier report")
    text = report.write(run.folder)
    assert "missing: run the same command again" in text
    assert "; nothing finished yet." in text
    assert "png" not in text
    assert [(run.folder.path / name).exists() for name in FILES] == [True, True, False, False]


def test_a_model_without_losses_leaves_the_figure_to_the_others(mixed, errors):
    mixed.cell("stopped", 0, errors)
    mixed.losses("stopped", 0, {}, ())
    report.write(mixed.folder)
    assert (mixed.folder.path / "losses.png").exists()


def test_what_is_from_a_run_of_another_environment_is_refused_in_one_line(mixed):
    del mixed.record.environments[ELSEWHERE]
    mixed.save()
    with pytest.raises(UserError, match=r"^cells/better/seed-0 was made in environment e0000002, of which"):
        report.write(mixed.folder)
    mixed.change("better", 0, environment=HERE)
    mixed.timing("stopped", environment=ELSEWHERE)
    with pytest.raises(UserError, match=r"^timing/stopped\.json was made in environment e0000002, of which"):
        report.write(mixed.folder)


@pytest.mark.parametrize(
    "name",
    ["cells/plain/seed-0/cell.json", "cells/plain/seed-0/scores.parquet", "cells/plain/seed-0/losses.parquet",
     "timing/plain.json", "cells/better/seed-0/samples.npz", "samples.npz", "record.json"],
)  # fmt: skip
def test_a_damaged_file_is_named(mixed, name):
    (mixed.folder.path / name).write_text('{"model": ')
    with pytest.raises(UserError, match=f"^[^\n]*{name}[^\n]*$"):
        report.write(mixed.folder)


def test_scores_with_holes_are_refused(mixed, errors):
    table = scores_of("plain", 1, errors)
    for other in (table[:-1], table[["image", "model", "seed"]], table[:0], table.assign(ssim="high"), table[::-1]):
        mixed.change("plain", 1, {SCORES: to_parquet(other)})
        with pytest.raises(UserError, match="plain"):
            report.write(mixed.folder)
    mixed.change("plain", 1, {SCORES: b"no table at all"})
    with pytest.raises(UserError, match=r"plain/seed-1/scores\.parquet is not a Parquet file"):
        report.write(mixed.folder)
    mixed.file("plain", 1, SCORES).unlink()
    with pytest.raises(UserError, match="plain/seed-1"):
        report.write(mixed.folder)
    mixed.change("plain", 1, files={})
    with pytest.raises(UserError, match="plain seed 1 is done, but its scores are absent"):
        report.write(mixed.folder)


def test_the_report_needs_no_torch(tmp_path):
    names, rng = [f"m{i}" for i in range(2)], np.random.default_rng(0)
    run = FakeRun(tmp_path, names, seeds=(0,))
    for name in names:
        run.cell(name, 0, rng.lognormal(5, 1, 20), reference=name == "m0")
    code = "import sys, pathlib; from colorbench import report; from colorbench.runs.folder import RunFolder;"
    code += "report.write(RunFolder(sys.argv[1])); print('torch' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_ablations_stand_in_a_table_of_their_own(tmp_path):
    """Means over images, by seed: the parent 100; one clearly worse in every seed, one that the seeds disagree on."""
    models = ["parent", "parent/worse", "parent/noisy", "parent/broken"]
    run = FakeRun(tmp_path, models)
    spread = np.linspace(-20, 20, IMAGES)
    for seed, noisy in ((0, 80.0), (1, 130.0)):
        run.cell("parent", seed, 100 + spread)
        run.cell("parent/worse", seed, 110 + seed / 2 + spread)
        run.cell("parent/noisy", seed, noisy + spread)
        run.cell("parent/broken", seed, status="failed", reason="no luck")
    run.timing("parent", infer_n=Rate(1.0, 0.0, 7))
    run.timing("parent/worse")
    text = report.write(run.folder)
    assert "parent/worse" not in (tmp_path / "comparison.md").read_text()
    assert list(pd.read_csv(tmp_path / "comparison.csv").model) == ["parent"]
    table = pd.read_csv(tmp_path / "ablations.csv").set_index("model")
    assert set(table.index) == set(models)
    assert table.parent_gain_percent["parent/worse"] == pytest.approx(-10.25)
    assert table.parent_gain_percent["parent/noisy"] == pytest.approx(-5)
    # Per seed -20 and +30: the standard error of their mean is 25, of which Student's t for two seeds makes 318.
    ends = table.loc["parent/noisy", ["parent_gain_percent_low", "parent_gain_percent_high"]]
    assert np.diff(ends.astype(float)) == pytest.approx(2 * 317.66, rel=0.01)
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| parent/")}
    assert "| worse " in rows["parent/worse"].split("|", 2)[2]
    assert "| no clear difference " in rows["parent/noisy"]
    assert table.parent_verdict[["parent/worse", "parent/noisy"]].tolist() == ["worse", "no clear difference"]
    assert "Of 2 rows 1 remains after Holm's correction at 5 %" in text
    assert "no luck" in rows["parent/broken"]
    assert "| x 2.00 |" in " ".join(rows["parent/worse"].split())
    run.timing("parent", infer_n=Rate(1.0, 0.2, 7))
    assert "| ~x 2.00 |" in " ".join(report.write(run.folder).split())  # an unsteady timing makes an unsteady ratio


def test_the_losses_of_ablations_have_a_figure_of_their_own(mixed, errors):
    report.write(mixed.folder)
    folder = mixed.folder.path
    alone = (folder / "losses.png").read_bytes()
    assert not (folder / "losses-ablations.png").exists()
    mixed.ask(("better/less", 0))
    mixed.cell("better/less", 0, errors, parent="better")
    mixed.losses("better/less", 0, {"normal": 4}, ("residual",))
    report.write(mixed.folder)
    assert (folder / "losses.png").read_bytes() == alone
    assert (folder / "losses-ablations.png").exists()
    assert "(losses-ablations.png)" in (folder / "ablations.md").read_text()
    assert "losses-ablations" not in (folder / "comparison.md").read_text()


def test_rows_of_other_seeds_are_named(tmp_path, errors):
    run = FakeRun(tmp_path / "run", ["a", "b", "c"], seeds=(0,))
    run.ask(("c", 1))
    for model, seed in run.record.cells:
        run.cell(model, seed, errors)
    assert "Seeds of c: 0, 1; of most rows: 0." in run.text("comparison.md")


def test_environments_that_read_alike_say_in_what_they_differ(tmp_path, errors):
    run = FakeRun(tmp_path / "run", ["a"])
    here = run.record.environments[HERE]
    run.record.environments[ELSEWHERE] = msgspec.structs.replace(here, packages={**here.packages, "numpy": "9"})
    run.save()
    run.cell("a", 0, errors)
    run.cell("a", 1, errors, environment=ELSEWHERE)
    assert f"from {HERE} it differs in environment.packages.numpy" in run.text("comparison.md")
