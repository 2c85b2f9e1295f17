"""The frame and the record -> the Markdown that a reader sees: tables, the line under them, and notes."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from colorbench.errors import one_line
from colorbench.report import notes, statistics
from colorbench.report.comparison import family_of, parent_of
from colorbench.report.results import Results

NONE, INFINITE = "–", "∞"  # noqa: RUF001
MARKUP = re.compile(r"[\\`*|<>]|(?<!\w)_|_(?!\w)|\](?=\()|&(?=#?\w+;)")
ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
Row = pd.Series


@dataclass(frozen=True)
class Column:
    """A column of a table: its title, the field of a row that it shows, and how it shows a value that is there.

    The value of the least `badness` is set in bold.
    """

    title: str
    name: str
    show: Callable[[Any, Row], str] = lambda value, row: value
    badness: Callable[[Any], float] | None = None
    align: str = "right"


def number(title: str, name: str, form: str, *, ends: bool = False, best: Callable[..., Any] | None = None) -> Column:
    """A column of numbers, by their format specification, with their intervals if `ends`. `best` is min or max."""

    def show(value: Any, row: Row) -> str:
        if not ends or pd.isna(row.get(f"{name}_low")):
            return _shown(value, form)
        return f"{_shown(value, form)} [{_shown(row[f'{name}_low'], form)}, {_shown(row[f'{name}_high'], form)}]"

    return Column(title, name, show, {None: None, min: operator.pos, max: operator.neg}[best])


def text(title: str, name: str = "", show: Callable[[Any, Row], str] = lambda value, row: value) -> Column:
    """A column of words."""
    return Column(title, name or title, show, align="left")


def _marked(model: str, row: Row) -> str:
    where = {verb: row.get(verb) for verb in ("made", "trained")}
    made = "".join(f" ({verb} {place})" for verb, place in where.items() if isinstance(place, str))
    return f"{model}{made} †" if isinstance(row.get("kept"), str) else f"{model}{made}"


MODEL = text("model", show=_marked)
STATUS = text("status", show=lambda said, row: said if len(said) <= 72 else f"{said[:71]}…")  # the notes have all of it
VAL_MSE = number("MSE on the validation images ↓", "val_mse", ",.1f")
OVER_BASE = number("MSE gain over its base, % ↑", "base_gain_percent", "+,.1f", ends=True)


def render(frame: pd.DataFrame, results: Results, figures: Mapping[str, str], said: Sequence[str]) -> str:
    """The whole comparison.md; `figures` are the captions, by file, of its figures, `said` are further notes."""
    scored = frame[frame["seeds_done"] > 0]
    timed = frame[frame["model"].isin({*scored["model"], *results.timings})]
    tables = [table(frame, _headline(frame))]
    if len(scored):
        tables += ["## More scores", table(scored, _more(scored, results)), "## Cost", table(timed, _cost(timed))]
    others = " or were made elsewhere" if "made" in frame else ""
    bold = f" Bold: the best of the models that have parameters{others}." if "**" in "".join(tables) else ""
    blocks = [
        f"# Comparison on {escaped(results.record.data.name)}",
        tables[0],
        escaped(notes.made_with(results)),
        f"Lower is better under ↓, higher under ↑.{bold}",
        *tables[1:],
    ]
    blocks += ["## Notes", bullets([*notes.notes(frame, results), *said])]
    if published := notes.published(results):
        blocks += ["## Published figures", notes.PUBLISHED, table(pd.DataFrame(published), _published())]
    blocks += pictures(figures)
    return "\n\n".join(blocks) + "\n"


def render_ablations(frame: pd.DataFrame, results: Results, figures: Mapping[str, str], said: Sequence[str]) -> str:
    """The whole ablations.md: `frame` has the rows of the ablations and of their parents; the rest as in `render`."""
    parents = frame.set_index("model")
    columns = [
        replace(MODEL, title="ablation"),
        number("MSE ↓", "mse", ",.1f", ends=True),
        number("MSE gain over the parent, % ↑", "parent_gain_percent", "+,.1f", ends=True),
        number("images won, %", "parent_wins_percent", ",.0f"),
        OVER_BASE,
        Column("parameters", "parameters", partial(_against, "parameters", parents)),
        Column("training", "train_n", partial(_against, "train_n", parents)),
        Column("inference", "infer_n", partial(_against, "infer_n", parents)),
        Column("peak memory", "peak_memory_mib", partial(_against, "peak_memory_mib", parents)),
        text("verdict", "parent_verdict"),
        VAL_MSE,
        text("selected by it", "selected"),
        STATUS,
    ]
    family = frame["model"].map(family_of)
    # By family, the parent first, and otherwise as they come.
    place = frame.groupby(family, sort=False).ngroup()
    shown = frame.iloc[np.lexsort([(frame["model"] != family).to_numpy(), place.to_numpy()])]
    blocks = [
        f"# Ablations on {escaped(results.record.data.name)}",
        table(shown, columns),
        escaped(notes.made_with(results)),
        "## Notes",
        bullets([*notes.of_ablations(shown, results), *said]),
        *pictures(figures),
    ]
    return "\n\n".join(blocks) + "\n"


def escaped(text: str) -> str:
    """Text that may hold what a plugin, a file or an exception said, as Markdown shows it: one line without markup."""
    return MARKUP.sub(lambda found: ENTITIES.get(found[0], f"\\{found[0]}"), one_line(text))


def bullets(sentences: Iterable[str]) -> str:
    """The sentences as a list, a line each."""
    return "\n".join(f"- {escaped(sentence)}" for sentence in sentences)


def pictures(figures: Mapping[str, str]) -> list[str]:
    """The figures in the same folder, by file, each with its caption."""
    return [f"![{escaped(caption)}]({file})" for file, caption in figures.items()]


def _against(name: str, parents: pd.DataFrame, cost: Any, row: Row) -> str:
    """A cost, or a speed, as a multiple of the parent's."""
    if (other := parent_of(row["model"])) not in parents.index or not parents.loc[other].get(name, 0) > 0:
        return NONE
    parent: Any = parents.loc[other]
    return f"{_mark(row, name) or _mark(parent, name)}x {cost / parent[name]:.2f}"


def _headline(frame: pd.DataFrame) -> list[Column]:
    return [
        MODEL,
        text("given"),
        number("MSE ↓", "mse", ",.1f", ends=True, best=min),
        number("PSNR, dB ↑", "psnr", ",.2f", ends=True, best=max),
        number("SSIM ↑", "ssim", ",.3f", ends=True, best=max),
        number("CIEDE2000 ↓", "ciede2000", ",.2f", best=min),
        number(f"MSE gain over {_reference(frame)}, % ↑", "gain_percent", "+,.1f", ends=True, best=max),
        number("images won, % ↑", "wins_percent", ",.0f", best=max),
        replace(OVER_BASE, show=_over_other_base),
        STATUS,
    ]


def _over_other_base(gain: float, row: Row) -> str:
    """The gain over the base, unless that is the reference, over which the gain is shown already."""
    return NONE if row["base"] == row.get("reference") else OVER_BASE.show(gain, row)


def _reference(frame: pd.DataFrame) -> str:
    """The model over which gains are given; "" if there is none."""
    return ", ".join(frame["reference"].dropna().unique()) if "reference" in frame else ""


def _plugged(name: str, results: Results) -> Column:
    """The column of a plugin's metric; no arrow and no bold if the record does not say which way it points."""
    better = metric.better if (metric := results.record.metrics.get(name)) else ""
    arrow = {"lower": " ↓", "higher": " ↑", "zero": " → 0", "": ""}[better]
    best = {"lower": min, "higher": max}.get(better)
    column = number(f"{name}{arrow}", name, ",.4g", ends=True, best=best)
    return replace(column, badness=abs) if better == "zero" else column


def _more(frame: pd.DataFrame, results: Results) -> list[Column]:
    over = _reference(frame)
    delta = number("colorfulness, predicted − true → 0", "colorfulness_delta", "+,.1f", ends=True)  # noqa: RUF001
    return [
        MODEL,
        number("skill ↑", "skill", ",.3f", ends=True, best=max),
        number("to the bound, % ↑", "to_bound_percent", ",.1f", ends=True, best=max),
        number("PSNR of the mean MSE, dB ↑", "psnr_pooled", ",.2f", best=max),
        number("PSNR by batches of 8, dB ↑", "psnr_batch8", ",.2f", best=max),
        number(f"PSNR gain over {over}, dB ↑", "psnr_gain", "+,.2f", ends=True, best=max),
        number(f"SSIM gain over {over} ↑", "ssim_gain", "+,.4f", ends=True, best=max),
        number("colorfulness", "colorfulness", ",.1f", ends=True),
        replace(delta, badness=abs),
        VAL_MSE,
        *(_plugged(name, results) for name in (*results.extra, *results.over_set)),
        number("sd of the MSE over seeds", "mse_seed_sd", ",.1f"),
    ]


def _cost(frame: pd.DataFrame) -> list[Column]:
    batches = [*frame["batch_n"].dropna().unique()] if "batch_n" in frame else []
    n = batches[0] if len(batches) == 1 else "n"
    return [
        MODEL,
        Column("parameters", "parameters", _scaled),
        Column("MACs per image", "macs", _scaled),
        number("training, s", "training_seconds", ",.1f"),
        number("images seen", "images_seen", ",.0f"),
        Column("training at batch 1, images/s", "train_1", partial(_rate, "train_1")),
        Column(f"at {n}", "train_n", partial(_rate, "train_n")),
        Column("inference at batch 1, images/s", "infer_1", partial(_rate, "infer_1")),
        Column(f"at {n} ", "infer_n", partial(_rate, "infer_n")),
        number("peak memory, MiB", "peak_memory_mib", ",.0f"),
    ]


def _published() -> list[Column]:
    return [
        MODEL,
        number("MSE", "mse", ",.3f"),
        number("PSNR, dB", "psnr", ",.3f"),
        Column("PSNR of that MSE, dB", "mse", lambda mse, row: _shown(statistics.psnr(mse), ",.3f")),
        number("SSIM", "ssim", ",.3f"),
        text("source"),
        text("note", show=lambda note, row: note or NONE),
    ]


def _shown(value: Any, form: str) -> str:
    if pd.isna(value):
        return NONE
    if value == np.inf:
        return INFINITE
    if form.endswith("g") and 9999.5 <= abs(value) < 1e15:  # which it would write with an exponent
        form = ",.0f"
    # The sign of a rounded 0 says on which side of 0 the end of an interval is; of a score it says nothing.
    return f"{value:{form}}" if form.startswith("+") else f"{value:z{form}}"


def _scaled(value: Any, row: Row) -> str:
    """Three digits and a unit: 2.71 M."""
    power = next((p for p in (4, 3, 2, 1) if value >= 1000**p), 0)
    return f"{value / 1000**power:.3g} {'kMGT'[power - 1]}" if power else f"{value:.0f}"


def _rate(name: str, value: Any, row: Row) -> str:
    return f"{_mark(row, name)}{value:,.0f}" if value >= 100 else f"{_mark(row, name)}{value:.3g}"


def _mark(row: Row, name: str) -> str:
    unreliable = row.get("unreliable")
    return "~" if isinstance(unreliable, str) and name in unreliable.split() else ""


def table(frame: pd.DataFrame, columns: Sequence[Column]) -> str:
    """A Markdown table, padded so that it reads in a terminal too. Columns that show nothing are left out."""
    shown = _shown_columns(frame, columns)
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


def html(frame: pd.DataFrame, results: Results) -> str:
    """The first table of comparison.md, and the line under it, as HTML."""
    shown = _shown_columns(frame, _headline(frame), lambda value: escape(one_line(value)), "<b>{}</b>")
    cells = pd.DataFrame({escape(column.title): cells for column, cells in shown})
    with pd.option_context("display.max_colwidth", None):
        shown_cells = cells.to_html(index=False, escape=False, border=0)
    return f"{shown_cells}\n<p>{escape(notes.made_with(results))}</p>"


def _shown_columns(
    frame: pd.DataFrame, columns: Sequence[Column], escape: Callable[[str], str] = escaped, bold: str = "**{}**"
) -> list[tuple[Column, list[str]]]:
    shown = [(column, _cells(column, frame, escape, bold)) for column in columns]
    return [(column, cells) for column, cells in shown if any(cell != NONE for cell in cells)]


def _cells(column: Column, frame: pd.DataFrame, escape: Callable[[str], str], bold: str) -> list[str]:
    if column.name not in frame:
        return [NONE] * len(frame)
    values = zip(frame[column.name], frame.iterrows(), strict=True)
    cells = pd.Series([NONE if pd.isna(x) else escape(column.show(x, row)) for x, (_, row) in values], frame.index)
    if column.badness is None:
        return list(cells)
    rival = frame["parameters"].ne(0).fillna(True) & (frame["sees_truth"].isna() if "sees_truth" in frame else True)
    rivals = frame.loc[rival, column.name].dropna().map(column.badness)
    if len(rivals) < 2:
        return list(cells)  # nothing is the best of one
    value, bracket, ends = (cells.str.partition(" [")[i] for i in range(3))
    # What prints alike is equally good: no digit that is not shown decides.
    best = value[rivals.index].isin(value[rivals.index[rivals == rivals.min()]])
    emphasized = value.map(bold.format) + bracket + ends
    return list(cells.mask(best.reindex(cells.index, fill_value=False), emphasized))
