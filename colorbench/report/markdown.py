"""The frame and the record -> the Markdown that a reader sees: tables, the line under them, and notes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from colorbench.errors import one_line
from colorbench.report import notes, statistics
from colorbench.report.comparison import family_of, parent_of
from colorbench.report.curve import CURVE, CURVE_CAPTION, Curve
from colorbench.report.results import Results

NONE, INFINITE = "–", "∞"  # noqa: RUF001
OVER_BASE = "MSE gain over its base, % ↑"
MARKUP = re.compile(r"[\\`*|<>]|(?<!\w)_|_(?!\w)|\](?=\()|&(?=#?\w+;)")
ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
LONGEST_STATUS = 72  # characters; the notes have the whole of it
LOSSES = "Losses by epoch, as they are weighted in the sum: training solid, validation dashed"
CAPTIONS = {
    "losses.png": LOSSES,
    "losses-ablations.png": f"{LOSSES}; each parent above its ablations",
    "pictures.png": "The first test images",
    "refined.png": "The output of a base and of what refines it, and the truth, each with its eyes and lips enlarged: "
    "found by the masks where the data has them, else at places fixed for aligned faces",
    "attention.png": "Output, truth and attention: the brighter, the more attention",
    "scenes.png": "The test images, of those kept, with the most background, and with several faces",
    "worst.png": "Of all test images, those with the largest MSE, the worst first",
}

Row = pd.Series


@dataclass(frozen=True)
class Column:
    """A column of a table: its title, what it shows of a row, and the badness of which the least is set in bold."""

    title: str
    show: Callable[[Row], str]
    badness: Callable[[Row], float] | None = None
    align: str = "right"


def render(frame: pd.DataFrame, results: Results, figures: Iterable[str]) -> str:
    """The whole comparison.md; `figures` are the names of the pictures to show at its end."""
    scored = frame[frame["seeds_done"] > 0]
    timed = frame[frame["model"].isin({*scored["model"], *results.timings})]
    blocks = [
        f"# Comparison on {escaped(results.record.data.name)}",
        table(frame, _headline(frame)),
        escaped(notes.made_with(results)),
        "Lower is better under ↓, higher under ↑. Bold: the best of the models that have parameters.",
    ]
    if len(scored):
        blocks += ["## More scores", table(scored, _more(scored, results.extra)), "## Cost", table(timed, _cost(timed))]
    blocks += ["## Notes", bullets(notes.notes(frame, results))]
    if published := notes.published(results):
        blocks += ["## Published figures", notes.PUBLISHED, table(pd.DataFrame(published), _published())]
    blocks += [f"![{CAPTIONS[name]}]({name})" for name in figures]
    return "\n\n".join(blocks) + "\n"


def render_ablations(frame: pd.DataFrame, results: Results, lengths: Sequence[Curve], figures: Iterable[str]) -> str:
    """The whole ablations.md: `frame` has the rows of the ablations and of their parents, `lengths` what is drawn."""
    parents = frame.set_index("model")
    columns = [
        Column("ablation", model_name, align="left"),
        Column("MSE ↓", lambda row: number(row, "mse", 1, ends=True)),
        Column("MSE gain over the parent, % ↑", lambda row: number(row, "parent_gain_percent", 1, ends=True, sign="+")),
        Column("images won, %", lambda row: number(row, "parent_wins_percent", 0)),
        Column(OVER_BASE, lambda row: number(row, "base_gain_percent", 1, ends=True, sign="+")),
        Column("parameters", lambda row: _against(row, parents, "parameters")),
        Column("training", lambda row: _against(row, parents, "train_n")),
        Column("inference", lambda row: _against(row, parents, "infer_n")),
        Column("peak memory", lambda row: _against(row, parents, "peak_memory_mib")),
        Column("verdict", _verdict, align="left"),
        Column("status", lambda row: _shortened(row["status"]), align="left"),
    ]
    family = frame["model"].map(family_of)
    # By family, the parent first, and otherwise as they come.
    place = frame.groupby(family, sort=False).ngroup()
    shown = frame.iloc[np.lexsort([(frame["model"] != family).to_numpy(), place.to_numpy()])]
    said = [*notes.of_ablations(shown, results), *filter(None, (curve.sentence() for curve in lengths))]
    blocks = [
        f"# Ablations on {escaped(results.record.data.name)}",
        table(shown, columns),
        escaped(notes.made_with(results)),
        "## Notes",
        bullets(said),
        *([f"![{CURVE_CAPTION}]({CURVE})"] if lengths else []),
        *(f"![{CAPTIONS[name]}]({name})" for name in figures),
    ]
    return "\n\n".join(blocks) + "\n"


def escaped(text: str) -> str:
    """Text that may hold what a plugin, a file or an exception said, as Markdown shows it: one line without markup."""
    return MARKUP.sub(lambda found: ENTITIES.get(found[0], f"\\{found[0]}"), one_line(text))


def bullets(sentences: Iterable[str]) -> str:
    """The sentences as a list, a line each."""
    return "\n".join(f"- {escaped(sentence)}" for sentence in sentences)


def _against(row: Row, parents: pd.DataFrame, name: str) -> str:
    """A cost, or a speed, as a multiple of the parent's."""
    other = parent_of(row["model"])
    parent: Any = parents.loc[other] if other in parents.index else {}
    cost: Any = row.get(name)
    of_parent: Any = parent.get(name)
    if pd.isna(cost) or pd.isna(of_parent) or not of_parent:
        return NONE
    return f"{_mark(row, name) or _mark(parent, name)}x {cost / of_parent:.2f}"


def _verdict(row: Row) -> str:
    verdict = row.get("parent_verdict")
    return NONE if pd.isna(verdict) else str(verdict)


def _headline(frame: pd.DataFrame) -> list[Column]:
    return [
        Column("model", model_name, align="left"),
        _score("MSE ↓", "mse", 1, lower=True, ends=True),
        _score("PSNR, dB ↑", "psnr", 2, ends=True),
        _score("SSIM ↑", "ssim", 3, ends=True),
        _score("CIEDE2000 ↓", "ciede2000", 2, lower=True),
        _score(f"MSE gain over {_reference(frame)}, % ↑", "gain_percent", 1, ends=True, sign="+"),
        _score("images won, % ↑", "wins_percent", 0),
        Column(OVER_BASE, _gain_over_other_base),
        Column("status", lambda row: _shortened(row["status"]), align="left"),
    ]


def _reference(frame: pd.DataFrame) -> str:
    """The model over which gains are given; "" if there is none."""
    return ", ".join(frame["reference"].dropna().unique()) if "reference" in frame else ""


def _gain_over_other_base(row: Row) -> str:
    """The gain over the base, unless that is the reference, over which the gain is shown already."""
    return NONE if row.get("base") == row.get("reference") else number(row, "base_gain_percent", 1, ends=True, sign="+")


def _more(frame: pd.DataFrame, extra: Sequence[str]) -> list[Column]:
    over = _reference(frame)
    return [
        Column("model", model_name, align="left"),
        _score("PSNR of the mean MSE, dB ↑", "psnr_pooled", 2),
        _score("PSNR by batches of 8, dB ↑", "psnr_batch8", 2),
        _score(f"PSNR gain over {over}, dB ↑", "psnr_gain", 2, ends=True, sign="+"),
        _score(f"SSIM gain over {over} ↑", "ssim_gain", 4, ends=True, sign="+"),
        Column("colorfulness", lambda row: number(row, "colorfulness", 1, ends=True)),
        Column(
            "colorfulness, predicted − true → 0",  # noqa: RUF001
            lambda row: number(row, "colorfulness_delta", 1, ends=True, sign="+"),
            lambda row: abs(row["colorfulness_delta"]),
        ),
        # The folder does not say which way a plugin's metric points: no arrow, no bold.
        *(Column(name, lambda row, name=name: number(row, name, 3, ends=True)) for name in extra),  # type: ignore[misc]
        Column("sd of the MSE over seeds", lambda row: number(row, "mse_seed_sd", 1)),
    ]


def _cost(frame: pd.DataFrame) -> list[Column]:
    batches = [*frame["batch_n"].dropna().unique()] if "batch_n" in frame else []
    n = batches[0] if len(batches) == 1 else "n"
    return [
        Column("model", model_name, align="left"),
        Column("parameters", lambda row: _scaled(row, "parameters")),
        Column("MACs per image", lambda row: _scaled(row, "macs")),
        Column("training, s", lambda row: number(row, "training_seconds", 1)),
        Column("images seen", lambda row: number(row, "images_seen", 0)),
        Column("training at batch 1, images/s", lambda row: _rate(row, "train_1")),
        Column(f"at {n}", lambda row: _rate(row, "train_n")),
        Column("inference at batch 1, images/s", lambda row: _rate(row, "infer_1")),
        Column(f"at {n} ", lambda row: _rate(row, "infer_n")),
        Column("peak memory, MiB", lambda row: number(row, "peak_memory_mib", 0)),
    ]


def _published() -> list[Column]:
    return [
        Column("model", lambda row: row["model"], align="left"),
        Column("MSE", lambda row: number(row, "mse", 3)),
        Column("PSNR, dB", lambda row: number(row, "psnr", 3)),
        Column("PSNR of that MSE, dB", lambda row: _text_of(float(statistics.psnr(row["mse"])), 3)),
        Column("SSIM", lambda row: number(row, "ssim", 3)),
        Column("source", lambda row: row["source"], align="left"),
        Column("note", lambda row: row["note"] or NONE, align="left"),
    ]


def _score(title: str, name: str, decimals: int, lower: bool = False, ends: bool = False, sign: str = "") -> Column:
    return Column(
        title,
        lambda row: number(row, name, decimals, ends, sign),
        lambda row: row.get(name, float("nan")) * (1 if lower else -1),
    )


def model_name(row: Row) -> str:
    """The model, marked if it is not what would be made now."""
    kept = row.get("kept")
    return f"{row['model']} †" if isinstance(kept, str) and kept else str(row["model"])


def number(row: Row, name: str, decimals: int, ends: bool = False, sign: str = "") -> str:
    """A cell of a table: the value in the column `name`, followed by its interval in brackets if `ends`."""
    text = _text_of(row.get(name), decimals, sign)
    if not ends or pd.isna(row.get(f"{name}_low")):
        return text
    return f"{text} [{', '.join(_text_of(row[f'{name}_{end}'], decimals, sign) for end in ('low', 'high'))}]"


def _text_of(value: Any, decimals: int, sign: str = "") -> str:
    if pd.isna(value):
        return NONE
    return INFINITE if value == float("inf") else f"{value:{sign},.{decimals}f}"


def _scaled(row: Row, name: str) -> str:
    """Three digits and a unit: 2.71 M."""
    value = row.get(name)
    if pd.isna(value):
        return NONE
    power = next((p for p in (4, 3, 2, 1) if value >= 1000**p), 0)
    return f"{value / 1000**power:.3g} {'kMGT'[power - 1]}" if power else f"{value:.0f}"


def _rate(row: Row, name: str) -> str:
    value = row.get(name)
    if pd.isna(value):
        return NONE
    return f"{_mark(row, name)}{value:,.0f}" if value >= 100 else f"{_mark(row, name)}{value:.3g}"


def _mark(row: Mapping[str, Any] | Row, name: str) -> str:
    unreliable = row.get("unreliable")
    return "~" if isinstance(unreliable, str) and name in unreliable.split() else ""


def _shortened(status: str) -> str:
    return status if len(status) <= LONGEST_STATUS else f"{status[: LONGEST_STATUS - 1]}…"


def table(frame: pd.DataFrame, columns: Sequence[Column]) -> str:
    """A Markdown table, padded so that it reads in a terminal too. Columns that show nothing are left out."""
    rows = [row for _, row in frame.iterrows()]
    shown = [(column, _cells(column, rows)) for column in columns]
    shown = [(column, cells) for column, cells in shown if any(cell != NONE for cell in cells)]
    widths = [max(map(len, [column.title, *cells])) for column, cells in shown]

    def line(cells: Iterable[str]) -> str:
        padded = [
            cell.rjust(width) if column.align == "right" else cell.ljust(width)
            for cell, width, (column, _) in zip(cells, widths, shown, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    dashes = ["-" * (width - 1) for width in widths]
    rule = [d + (":" if c.align == "right" else "-") for d, (c, _) in zip(dashes, shown, strict=True)]
    body = zip(*(cells for _, cells in shown), strict=True)
    return "\n".join([line(column.title.strip() for column, _ in shown), line(rule), *map(line, body)])


def _cells(column: Column, rows: Sequence[Row]) -> list[str]:
    cells = [escaped(column.show(row)) for row in rows]
    if column.badness is None:
        return cells
    rated = {i: column.badness(row) for i, row in enumerate(rows) if row["seeds_done"] and row["parameters"] > 0}
    rivals = {i: badness for i, badness in rated.items() if pd.notna(badness)}
    best = {cells[i].partition(" [")[0] for i, bad in rivals.items() if bad == min(rivals.values())}
    # What prints alike is equally good: no digit that is not shown decides.
    return [_bold(cell) if i in rivals and cell.partition(" [")[0] in best else cell for i, cell in enumerate(cells)]


def _bold(cell: str) -> str:
    value, bracket, ends = cell.partition(" [")
    return f"**{value}**{bracket}{ends}"
