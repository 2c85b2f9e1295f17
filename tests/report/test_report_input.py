"""A run folder that was edited, damaged, mixed, or filled by plugins that misbehave: one line, or the right table."""

import os
import re
import shutil

import msgspec
import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY
from run_folders import HERE, IMAGES, FakeRun, npz, published

from colorbench import report
from colorbench.errors import UserError
from colorbench.protocol import SCORES
from colorbench.report.markdown import escaped, number
from colorbench.report.publish import publish
from colorbench.runs.folder import SAMPLES, SET_SCORES, RunFolder, to_parquet, write_cell
from colorbench.runs.records import MetricRecord, Split
from colorbench.specs import COLUMNS

TABLES = "comparison.csv", "comparison.md", "ablations.csv", "ablations.md", "details.csv", "details.md"
RECORDS = "record.json", "cells/plain/seed-0/cell.json", "timing/plain.json"
HOSTILE = "a|b <script>alert(1)</script>\n# c\x1b[31m\x07 `d` [e](http://f) ![g](h) *i* \\| &lt; $\\frac$ \u202e\u2028-"


@pytest.fixture
def errors():
    return np.random.default_rng(7).lognormal(5, 0.8, IMAGES)


@pytest.fixture
def details():
    rng = np.random.default_rng(8)
    names = [
        "chroma_true", "chroma_predicted", "chroma_true_squared", "chroma_product", "cool_share", "cool_recalled_share",
        "lip_contrast_true", "lip_contrast_product", "squared_error_lips", "share_lips", "attention_correlation",
    ]  # fmt: skip
    return pd.DataFrame({name: rng.uniform(0.1, 0.9, IMAGES) for name in names})


@pytest.fixture
def whole(tmp_path, errors, details):
    """All that a report shows: a reference, a refiner, an ablation, metrics of plugins, details, losses, timings."""
    run = FakeRun(tmp_path / "run", ["plain", "fine", "fine/less"])
    for seed in (0, 1):
        hue = {"hue": np.linspace(0, 1 + seed, IMAGES)}
        run.cell("plain", seed, errors + seed, details, scores=hue, reference=True, published=published(80.0))
        run.cell("fine", seed, errors * 0.9, details * 0.9, scores=hue, refines="plain", published=published(64.0))
        run.cell("fine/less", seed, errors * (0.8 + 0.3 * seed), details * 0.8, scores=hue, refines="plain")
        run.losses("plain", seed, {"train": 3}, ("l2",))
        for model, value in (("plain", 3.0), ("fine", 2.0 + seed)):
            run.over_set(model, seed, drift=(value, value - 1, value + 1), reach=(value, np.nan, np.nan))
    run.record.metrics["drift"] = MetricRecord("a test", "set", "lower", notes=["of a test"])
    run.timing("plain")
    run.samples()
    return run


def tables_of(folder):
    report.write(folder)
    return {name: (folder.path / name).read_bytes() for name in TABLES if (folder.path / name).exists()}


def one_line_of(folder):
    with pytest.raises(UserError) as raised:
        report.write(folder)
    (line,) = str(raised.value).splitlines()
    return line


# ---- what was changed after it was written


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_edited_by_hand_is_named(whole, name):
    file = whole.folder.path / name
    content = file.read_bytes()
    edits = (
        (b"16", b"32"), (b'"seed": 0', b'"seed": 1'), (b'"model', b'"mo\\n\x7fdel'), (b"}", b""), (b"{", b"{{"),
        (b"0", b"1"),
    )  # fmt: skip
    changed = {content.replace(*edit) for edit in edits} - {content}
    assert len(changed) >= 5
    for edited in (*changed, b"", b"null", b"\xff", b"[" * 10_000):
        file.write_bytes(edited)
        assert str(file) in one_line_of(whole.folder)
    file.write_bytes(content)
    report.write(whole.folder)


@pytest.mark.parametrize(
    "name", [*RECORDS, "cells/fine/seed-1/scores.parquet", "cells/fine/seed-1/set_scores.parquet", SAMPLES]
)
def test_a_flipped_bit_is_named_or_changes_nothing(whole, name):
    file, tables = whole.folder.path / name, tables_of(whole.folder)
    content, rng = file.read_bytes(), np.random.default_rng(0)
    for bit in rng.integers(0, 8 * len(content), 25):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        try:
            assert tables_of(whole.folder) == tables
        except UserError as error:
            (line,) = str(error).splitlines()
            assert str(file) in line
    file.write_bytes(content[: len(content) // 2])
    assert str(file) in one_line_of(whole.folder)


def test_a_record_of_another_cell_is_named(whole):
    file = whole.file("fine", 0, "cell.json")
    file.write_bytes(whole.file("plain", 0, "cell.json").read_bytes())
    assert f"{file} is the record of plain seed 0" in one_line_of(whole.folder)


def test_the_name_of_a_run_folder_is_checked(whole, tmp_path, colorbench):
    link = whole.folder.path / "cells" / "elsewhere"
    link.symlink_to(tmp_path)
    for folder, line in (
        (whole.folder.path, f"{link} is a link"),
        (whole.folder.path / "record.json", "record.json is a file; name the folder of a run"),
        (tmp_path, f"{tmp_path} is not a run folder: it has no record.json"),
        (tmp_path / "absent", "absent is not a run folder"),
        ("", "the name of the run folder is empty; name a folder"),
    ):
        result = colorbench("report", folder)
        assert (result.exit_code, result.stdout) == (2, "")
        (said,) = result.stderr.splitlines()
        assert line in said
    assert not (whole.folder.path / "comparison.csv").exists()


def test_a_score_over_the_set_stands_once(whole):
    whole.over_set("fine", 1, hue=(1.0, 0.5, 1.5))
    assert "hue: scores per image and over the set at once" in one_line_of(whole.folder)
    row = {"model": "fine", "seed": 1, "metric": ["drift", "drift"], "value": 1.0, "low": 0.5, "high": 1.5, "images": 9}
    whole.change("fine", 1, {SET_SCORES: to_parquet(pd.DataFrame(row))})
    assert "set_scores.parquet has a score of one model and seed more than once" in one_line_of(whole.folder)


def test_a_record_that_names_no_cell_is_one_line(tmp_path):
    assert "names no model, so that there is nothing to report" in one_line_of(FakeRun(tmp_path, []).folder)


def test_no_cell_counts_twice(tmp_path, errors):
    run = FakeRun(tmp_path, ["plain"])
    for seed in (0, 1):
        run.cell("plain", seed, errors)
    once = run.text("comparison.csv")
    run.ask(("plain", 0), ("plain", 1))
    assert run.text("comparison.csv") == once


# ---- rows of several keys, kept cells, scores of another key


def test_seeds_that_were_made_in_two_ways_are_two_rows(tmp_path, errors):
    run = FakeRun(tmp_path, ["plain", "cnn", "fine"], seeds=(0, 1, 2))
    rates = {0: 0.001, 1: 0.1, 2: 0.001}
    for seed, rate in rates.items():
        run.cell("plain", seed, errors, reference=True, row="0" * 16)
        base = {"model": "plain", "row": "0" * 16, "weights": f"{seed}" * 64}  # other weights in every seed
        made = {
            "base": base,
            "stages": [{"learning_rate": rate}],
            "row": "aaaaaaaa00000000" if rate == 0.1 else "bbbbbbbb00000000",
        }
        run.cell("cnn", seed, errors * (3 if rate == 0.1 else 0.5), **made)
        run.losses("cnn", seed, {"train": 3}, ("l2",))
    run.cell("fine", 1, errors, refines="cnn")
    frame = run.frame()
    assert list(frame.index) == ["cnn@aaaaaaaa", "plain", "fine", "cnn@bbbbbbbb"]
    assert frame["mse"].tolist() == pytest.approx([errors.mean() * factor for factor in (3, 1, 1, 0.5)])
    assert frame.loc[["cnn@aaaaaaaa", "cnn@bbbbbbbb"], "seeds"].tolist() == ["1", "0 2"]
    assert frame.loc[["cnn@aaaaaaaa", "cnn@bbbbbbbb"], "seeds_asked"].tolist() == [1, 2]
    # Built on the seed 1 of cnn, not on a mean of all.
    assert frame.loc["fine", ["base", "base_gain_percent"]].tolist() == ["cnn@aaaaaaaa", pytest.approx(200 / 3)]
    text = run.text("comparison.md")
    assert "- The seeds of cnn were not all made in one way" in text
    assert "- From cnn@bbbbbbbb to cnn@aaaaaaaa: stages[0].learning_rate 0.001 -&gt; 0.1." not in text
    assert "- From cnn@aaaaaaaa to cnn@bbbbbbbb: stages[0].learning_rate 0.1 -&gt; 0.001." in text


def test_seeds_that_other_code_predicted_are_a_row_of_their_own(tmp_path, errors):
    run = FakeRun(tmp_path, ["cnn"], seeds=(0, 1, 2))
    for seed, code in ((0, {}), (1, {"predicted_with": "c" * 16}), (2, {"predicted_with": "c" * 16})):
        run.cell("cnn", seed, errors, **code)
    frame = run.frame()
    assert sorted(frame.seeds) == ["0", "1 2"]
    assert frame.index.str.fullmatch("cnn@(older|[0-9a-f]{8,16})").all()
    assert "code that predicts as trained -&gt; cccccccccccccccc" in run.text("comparison.md")


def test_a_timing_stands_beside_the_row_that_was_timed_alone(tmp_path, errors):
    run = FakeRun(tmp_path, ["cnn", "old", "other"], seeds=(0, 1))
    for seed, row in enumerate("ab"):
        run.cell("cnn", seed, errors, row=row * 16)
        run.cell("old", seed, errors, row="a" * 16)
        run.cell("other", seed, errors, row="a" * 16)
    run.timing("cnn", row="b" * 16)
    run.timing("old")  # by a version that did not say what it timed
    run.timing("other", row="b" * 16, failed="out of memory")
    timed = run.frame()["infer_1"].notna()
    assert timed.to_dict() == {"cnn@aaaaaaaa": False, "cnn@bbbbbbbb": True, "old": True, "other": False}
    assert "out of memory" not in run.text("comparison.md")


def test_keys_that_begin_alike_are_not_one_row(tmp_path, errors):
    run = FakeRun(tmp_path, ["cnn"], seeds=(0, 1, 2))
    for seed, row in enumerate(("aaaaaaaa00000000", "aaaaaaaa00000001", "")):
        run.cell("cnn", seed, errors, row=row)
    assert sorted(run.frame().index) == ["cnn@aaaaaaaa00000000", "cnn@aaaaaaaa00000001", "cnn@older"]


def test_a_failed_seed_does_not_split_a_model_and_a_split_one_keeps_its_failures(tmp_path, errors):
    run = FakeRun(tmp_path, ["cnn"], seeds=(0, 1, 2))
    run.cell("cnn", 0, errors, row="a" * 16)
    run.cell("cnn", 1, status="failed", reason="no luck", row="b" * 16)
    run.cell("cnn", 2, errors, row="a" * 16)
    assert run.frame()["status"].to_dict() == {"cnn": "2 of 3 seeds; seed 1 failed: no luck"}
    run.change("cnn", 2, row="c" * 16)
    assert run.frame()["status"].to_dict() == {"cnn@aaaaaaaa": "done", "cnn@cccccccc": "done", "cnn": "failed: no luck"}


def test_what_is_kept_is_marked_in_every_table(whole):
    for name, content in tables_of(whole.folder).items():
        assert "†" not in content.decode()
        assert "kept" not in content.decode().splitlines()[0], name
    why = ["stages[0].learning_rate 0.001 -> 0.1", "code of plugin fine"]
    whole.record.kept = {"fine/seed-0": why, "fine/seed-1": why}
    whole.save()
    note = "- † fine is used as it was made, though it would be made otherwise now: "
    note += "stages[0].learning_rate 0.001 -&gt; 0.1; code of plugin fine."
    for table in ("comparison", "ablations", "details"):
        text = whole.text(f"{table}.md")
        assert text.count(note) == 1
        lines = [line for line in text.partition("## Published")[0].splitlines() if re.match(r"\| fine(?!/)", line)]
        assert lines
        assert all(line.startswith("| fine †") for line in lines)
        assert text.count("†") == len(lines) + 1
        frame = whole.frame(table)
        assert frame["kept"].dropna().to_dict() == {"fine": "; ".join(why)}


def test_a_kept_ablation_leaves_the_comparison_as_it_is(whole):
    whole.record.kept = {"fine/less/seed-1": ["options.width 1 -> 2"]}
    whole.save()
    assert "kept" not in whole.frame()
    assert "†" not in whole.text("comparison.md")
    assert whole.frame("ablations")["kept"].dropna().to_dict() == {"fine/less": "options.width 1 -> 2"}
    assert "| fine/less † " in whole.text("ablations.md")


def test_scores_of_another_key_are_not_averaged_but_told(tmp_path, errors):
    run = FakeRun(tmp_path, ["plain", "old"])
    run.record.scoring = "5c" * 8
    run.save()
    for seed in (0, 1):
        run.cell("plain", seed, errors * (1 + seed), scored_by="5c" * 8 if seed == 0 else "0d" * 8, reference=True)
        run.cell("old", seed, errors, scored_by="0d" * 8)
    frame = run.frame()
    assert frame.loc["plain", "mse"] == pytest.approx(errors.mean())
    assert frame.loc["plain", ["seeds_done", "seeds_asked", "seeds"]].tolist() == [1, 2, 0]
    why = "trained: scored by other code or metrics: run the same command again, or colorbench score"
    assert frame["status"].to_dict() == {"plain": f"1 of 2 seeds; seed 1 {why}", "old": why}
    assert pd.isna(frame.loc["old", "mse"])
    assert f"- old, seed 0, {why}." in run.text("comparison.md")


# ---- text of plugins


def test_text_that_somebody_else_wrote_is_not_markup(tmp_path, errors, details):
    run = FakeRun(tmp_path, ["plain", "worse", "failing", "plain/less"], seeds=(0,))
    kept = {"worst": np.zeros((2, 64, 64, 3), np.uint8), "worst_name": np.array([HOSTILE, "b.png"])}
    kept |= {"worst_truth": kept["worst"], "worst_mse": np.array([2.0, 1.0])}
    run.record.data.name = run.record.data.fingerprint = run.record.protocol.name = run.record.preset.name = HOSTILE
    run.record.kept = {"worse/seed-0": [HOSTILE]}
    run.record.environments[HERE] = msgspec.structs.replace(run.record.environments[HERE], cpu=HOSTILE, device=HOSTILE)
    run.record.data.splits["test"] = Split(IMAGES, 1, {HOSTILE: HOSTILE})
    run.samples()
    cell = run.cell("plain", 0, errors, details, notes=[HOSTILE], published=published(80.0, HOSTILE), reference=True)
    run.write(cell, {SAMPLES: npz(predicted=np.zeros((2, 64, 64, 3), np.uint8), **kept)})
    run.losses("plain", 0, {HOSTILE: 2, "$": 3}, (HOSTILE, "$$", "_"))
    run.cell("worse", 0, errors * 2, weights={"file": HOSTILE, "sha256": "0" * 64})
    run.cell("failing", 0, status="failed", reason=HOSTILE)
    run.cell("plain/less", 0, errors, details, notes=[HOSTILE])
    run.timing("worse", failed=HOSTILE)
    printed = report.write(run.folder)
    for name in ("comparison.md", "ablations.md", "details.md"):
        text = (tmp_path / name).read_text()
        assert all(character.isprintable() for character in text.replace("\n", ""))
        shown = text.partition("\n\n![")[0]  # our own pictures come last
        assert "alert(1)" in shown
        assert not re.search(r"<|(?<!\\)(`|\*i|\]\()|^# c", shown, flags=re.MULTILINE)
        for table in re.findall(r"(?:^\|.*\n)+", shown, flags=re.MULTILINE):
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert printed.startswith("# Comparison on a\\|b &lt;script&gt;")
    with (tmp_path / "comparison.csv").open(newline="") as file:
        assert len(pd.read_csv(file)) == 3


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a|b", "a\\|b"), ("a\\|b", "a\\\\\\|b"), ("a <b> c", "a &lt;b&gt; c"), ("a\n- b\r\n\tc", "a - b c"),
     ("\x1b[31mred", "\\\\x1b[31mred"), ("[a](b)", "[a\\](b)"), ("1.0 [0.9, 1.1]", "1.0 [0.9, 1.1]"),
     ("a_b.png _c_", "a_b.png \\_c\\_"), ("&lt; & &#9;", "&amp;lt; & &amp;#9;"), ("\ud800", "\\\\ud800")],
)  # fmt: skip
def test_markup_is_escaped_and_nothing_else(text, shown):
    assert escaped(text) == shown


@pytest.mark.parametrize(
    ("value", "form", "shown"),
    [(0.12345, ",.4g", "0.1235"), (9999.7, ",.4g", "10,000"), (12345.6, ",.4g", "12,346"), (1e300, ",.4g", "1e+300"),
     (-0.001, ",.2f", "0.00"), (-0.001, "+,.1f", "-0.0"), (np.inf, ",.2f", "∞")],
)  # fmt: skip
def test_a_number_has_no_exponent_and_a_score_of_0_no_sign(value, form, shown):
    column = number("score", "score", form)
    assert column.show(value, pd.Series()) == shown


# ---- the columns that no metric may be called


def test_no_metric_can_be_called_like_a_column(whole):
    whole.record.kept = {"fine/seed-0": ["options"]}
    whole.save()
    whole.cell("fine/less", 1, np.zeros(IMAGES), scores={"hue": np.full(IMAGES, np.inf)})
    details = {"chroma_slope", "cool_recall", "lip_contrast", "attention_correlation", "mse_lips"}
    for table in ("comparison", "ablations", "details"):
        scores = {*SCORES, "hue", "drift", "reach", *(details if table == "details" else ())}
        columns = {*whole.frame(table).reset_index().columns} - scores
        assert len(columns) > 10
        assert [name for name in columns if not COLUMNS.fullmatch(name)] == []
    assert "hue_infinite" in whole.frame("ablations")
    assert not [name for name in ("hue", "lpips", "fid_64", "mse_rgb") if COLUMNS.fullmatch(name)]


# ---- publish


@pytest.mark.parametrize("pictures", [False, True])
def test_a_published_run_gives_the_same_tables(whole, tmp_path, pictures):
    whole.cell("fine/less", 1, status="failed", reason="no luck")  # with the files of before beside its record
    tables = tables_of(whole.folder)
    assert len(tables) == len(TABLES)
    before = {file: file.read_bytes() for file in whole.folder.path.rglob("*") if file.is_file()}
    copy = publish(whole.folder.path, tmp_path / "copy", pictures)
    assert {file: file.read_bytes() for file in whole.folder.path.rglob("*") if file.is_file()} == before
    again = publish(copy.path, tmp_path / "again", pictures)  # of one that is published already
    for folder in (copy, again):
        others = tables_of(folder)
        if not pictures:
            tables["comparison.md"] = re.sub(rb"\n!\[[^\n]*\]\((?!losses)[^\n]*\n", b"", tables["comparison.md"])
        assert others == tables
        drawn = {file.name for file in whole.folder.path.glob("*.png")}
        assert {file.name for file in folder.path.glob("*.png")} == (drawn if pictures else {"losses.png", *()} & drawn)
        kinds = {file.name for file in folder.path.rglob("*") if file.is_file()} - {*TABLES, *drawn, ".lock"}
        assert len([*folder.path.rglob(SAMPLES)]) == (4 if pictures else 0)  # the run's, and a seed of each model
        expected = {"record.json", "cell.json", "plain.json", "scores.parquet", "set_scores.parquet", "losses.parquet"}
        assert kinds == expected | ({SAMPLES} if pictures else set())


def test_what_is_split_kept_or_scored_otherwise_is_published_as_it_is(tmp_path, errors, details):
    run = FakeRun(tmp_path / "run", ["cnn", "old", "plain"], seeds=(0, 1))
    run.record.scoring, run.record.kept = "5c" * 8, {"cnn/seed-1": ["options"]}
    run.samples()
    for seed in (0, 1):
        run.cell("cnn", seed, errors * (1 + seed), details, row=f"{seed}" * 16, scored_by="5c" * 8)
        run.cell("old", seed, errors, details, scored_by="0d" * 8, scores={"hue": 1.0})
        run.cell("plain", seed, errors, scored_by="5c" * 8 if seed else "")
        run.losses("old", seed, {"train": 3}, ("l2",))
        run.losses("cnn", seed, {"train": 3}, ("l2",))
    tables = tables_of(run.folder)
    figures = {file.name: file.read_bytes() for file in run.folder.path.glob("*.png")}
    copy = publish(run.folder.path, tmp_path / "copy", pictures=True)
    assert tables_of(copy) == tables
    assert {file.name: file.read_bytes() for file in copy.path.glob("*.png")} == figures
    assert {"losses.png", "pictures.png"} <= {*figures}


def test_of_a_published_table_only_the_finished_cells_count(whole, tmp_path):
    copy = publish(whole.folder.path, tmp_path / "copy")
    for folder in (whole.folder, copy):
        for model in whole.record.models:
            failed = msgspec.structs.replace(folder.cell(model, 1), status="failed", reason="no luck")
            write_cell(folder.cell_dir(model, 1), failed)
    ours, theirs = tables_of(whole.folder), tables_of(copy)
    assert [name for name in ours if ours[name] != theirs[name]] == ["comparison.md"]  # which shows pictures
    assert ours["comparison.csv"].count(b"1 of 2 seeds") == 2


def test_a_run_without_scores_or_details_can_be_published(tmp_path, errors):
    run = FakeRun(tmp_path / "run", ["plain", "other"], seeds=(0,))
    run.cell("plain", 0, status="failed", reason="no luck")
    assert tables_of(publish(run.folder.path, tmp_path / "none")) == tables_of(run.folder)
    run.cell("plain", 0, errors)
    assert tables_of(publish(run.folder.path, tmp_path / "scores")) == tables_of(run.folder)


def test_a_run_is_published_into_an_empty_folder_alone(whole, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = {file: os.stat(file).st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    for target in (whole.folder.path, tmp_path / "full", tmp_path / "file"):
        with pytest.raises(UserError, match=re.escape(str(target))) as raised:
            publish(whole.folder.path, target)
        assert len(str(raised.value).splitlines()) == 1
    with pytest.raises(UserError, match="not a run folder"):
        publish(tmp_path / "full", tmp_path / "new")
    with pytest.raises(UserError, match="empty"):
        publish("", tmp_path / "new")
    assert {file: os.stat(file).st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()} == before
    whole.file("fine", 0, "scores.parquet").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"fine/seed-0/scores\.parquet is damaged"):
        publish(whole.folder.path, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_published_run_is_read_as_carefully_as_any(whole, tmp_path):
    copy = publish(whole.folder.path, tmp_path / "copy")
    file = copy.path / "scores.parquet"
    content = file.read_bytes()
    for damaged in (content[:-1], b"", content.replace(b"PAR1", b"PAR2")):
        file.write_bytes(damaged)
        assert str(file) in one_line_of(RunFolder(copy.path))
    file.unlink()
    assert str(file) in one_line_of(copy)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", npz(a=np.array([object()], dtype=object))])
def test_pictures_that_are_none_are_named(whole, content):
    whole.change("fine", 0, {SAMPLES: content})
    assert f"{whole.file('fine', 0, SAMPLES)} is not an .npz file" in one_line_of(whole.folder)


@pytest.mark.parametrize("name", ["utkface-val", "utkface-all"])
def test_the_committed_tables_come_out_again(tmp_path, name):
    committed = REPOSITORY / "results" / "published" / name
    shutil.copytree(committed, tmp_path / name)
    for table, content in tables_of(RunFolder(tmp_path / name)).items():
        assert content == (committed / table).read_bytes(), table
