"""What diagnostics make of a run: the rows of details.csv, the whole of details.md, and figures on every page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from colorbench.contain import contained
from colorbench.contract import DiagnosticSpec, Statistic, ratio
from colorbench.errors import reason, whatever_raised
from colorbench.protocol import KEYS
from colorbench.report import notes, statistics
from colorbench.report.comparison import parent_of
from colorbench.report.figures import png
from colorbench.report.markdown import MODEL, Column, bullets, escaped, number, pictures, table, text
from colorbench.report.results import Results
from colorbench.runs.records import DONE

OTHERS = ("base", "parent")  # over which the gains are
OWN = ("model", "images", "kept", *OTHERS)
NOTHING = statistics.Estimate(np.nan)
PNG = b"\x89PNG\r\n\x1a\n"

Specs = Sequence[DiagnosticSpec]
Terms = Mapping[str, np.ndarray]  # each (S, I), of one model


@dataclass(frozen=True)
class Details:
    """`frame` has a row per model with details, in which a statistic `x` has the ends `x_low` and `x_high`.

    `columns` are the statistics by diagnostic, and `left_out` has the reason of each diagnostic without.
    """

    frame: pd.DataFrame
    columns: dict[str, Sequence[Statistic]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def shows(self, spec: DiagnosticSpec) -> bool:
        """Whether a diagnostic has a number of any model."""
        names = [each.name for each in self.columns.get(spec.name, ()) if len(self.frame)]
        return bool(self.frame[names].notna().any(axis=None))


@dataclass(frozen=True)
class View:
    """What a figure or a note is made from: the run, its scores and details, a row per model, and `models`.

    These are the models of the main table, which has no ablations, worst MSE first.
    """

    results: Results
    scores: pd.DataFrame
    details: pd.DataFrame
    models: Sequence[str]


@dataclass(frozen=True)
class Foot:
    """What stands at the foot of a page: the captions of its figures, by file, and sentences for its notes."""

    figures: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def summarize(results: Results, order: Sequence[str], specs: Specs) -> Details:
    """The statistics of every diagnostic for each model of `order` that has details.

    Columns: `model`, `images`, `base` and `parent` (what it refines, and what it is an ablation of, if that has details
    too); then each statistic with its ends, `_low` and `_high`; of one with a gain those in percent over the two,
    `base_gain_NAME_percent` and `parent_gain_NAME_percent`, too.
    """
    terms = [str(name) for name in results.details if name not in KEYS]
    left_out: dict[str, str] = {}
    columns = dict(_columns(specs, terms, left_out))
    if not any(columns.values()) or results.details.empty:
        return Details(pd.DataFrame(), left_out=left_out)
    cells = _cells(results.details, columns)
    models = [model for model in order if model in cells]
    rows: list[dict[str, Any]] = []
    numbers: dict[str, list[dict[str, float]]] = {name: [] for name in columns}
    for model in models:
        (own,) = statistics.paired(cells, model)
        row: dict[str, Any] = {"model": model, "images": next(iter(own.values())).shape[1]}
        if results.kept.keys() & {*models}:
            row["kept"] = "; ".join(results.kept.get(model, ())) or None
        others = {"base": results.cells(model, done=True)[0].refines or "", "parent": parent_of(model)}
        rows.append(row | {over: other if other in models else None for over, other in others.items()})
        pairs = {over: statistics.paired(cells, model, other) for over, other in others.items()}
        for name in [name for name in columns if name not in left_out]:
            try:
                with contained():
                    numbers[name].append(_numbers(columns[name], own, pairs))
            except whatever_raised() as error:
                left_out[name] = reason(error)
    columns = {name: of_one for name, of_one in columns.items() if name not in left_out}
    frame = pd.concat([pd.DataFrame(rows), *(pd.DataFrame(numbers[name]) for name in columns)], axis=1)
    return Details(frame, columns, left_out)


def render(details: Details, results: Results, specs: Specs, foot: Foot) -> str | None:
    """The whole details.md; None if there is nothing to say."""
    frame, blocks = details.frame, [f"# Details on {escaped(results.record.data.name)}"]
    said = [*_notes(details, results, specs, foot.notes), *_absent(details, results, specs)]
    if not said and not foot.figures:
        return None
    headings = {spec.name: spec.table or spec.summary for spec in specs if details.shows(spec)}
    for heading in dict.fromkeys(headings.values()):
        own = [spec for spec in specs if headings.get(spec.name) == heading]
        shown = [each for spec in own for each in details.columns[spec.name]]
        heads = [number(escaped(each.title), each.name, each.form, ends=True) for each in shown]
        blocks += [f"## {escaped(heading)}", table(frame, [MODEL, *heads])]
        for over in OTHERS if any(each.gain for each in shown) else ():
            if len(paired := frame[frame[over].notna()]):
                gains = next((spec.gains for spec in own if spec.gains), f"{heading}: gain over the {{}}")
                blocks += [f"## {escaped(gains.replace('{}', over))}", table(paired, _gains(shown, over))]
    said += notes.of_rows(frame, results) if len(frame) else []
    blocks += [escaped(notes.made_with(results)), "## Notes", bullets(said), *pictures(foot.figures)]
    return "\n\n".join(blocks) + "\n"


def illustrate(
    specs: Specs, view: View, details: Details, pages: Sequence[str]
) -> tuple[dict[str, bytes | None], dict[str, Foot]]:
    """Every figure by its file, None if it has nothing to show, and the foot of each of the pages that there are."""
    figures: dict[str, bytes | None] = {f"{spec.name}.png": None for spec in specs if spec.draw}
    figures |= {f"{name}.png": None for name in absent(view.results, specs)}  # of an earlier report
    feet = {page: Foot() for page in pages}
    for spec in (spec for spec in specs if spec.page in pages):
        foot, file, content = feet[spec.page], f"{spec.name}.png", None
        own = replace(view, scores=view.scores.copy(), details=view.details.copy(), models=[*view.models])
        try:
            with contained():
                content = _drawn(spec.draw(own)) if spec.draw else None
                if content or details.shows(spec):
                    foot.notes.extend([*map(str, spec.notes(own) if callable(spec.notes) else spec.notes)])
        except whatever_raised() as error:
            content = None
            foot.notes.append(f"The figure of {spec.name} is left out: {reason(error)}.")
        if content:
            figures[file], foot.figures[file] = content, spec.caption or spec.summary
    return figures, feet


def _drawn(picture: Any) -> bytes | None:
    """The bytes of what a diagnostic has drawn. Raises TypeError for anything but what is due."""
    content = png(picture) if isinstance(picture, Figure) else picture
    if content is None or (isinstance(content, bytes) and content.startswith(PNG)):
        return content
    raise TypeError(f"draw gives {type(picture).__name__}; a Matplotlib figure, the bytes of a PNG or None is due")


def _columns(specs: Specs, terms: Sequence[str], left_out: dict[str, str]) -> Iterator[tuple[str, Sequence[Statistic]]]:
    """The statistics of each diagnostic; of those that fail to give them the reason is added to `left_out`."""
    known = [*OWN]
    for spec in specs:
        try:
            with contained():
                found = list(spec.statistics(terms) if callable(spec.statistics) else spec.statistics)
            names = [name for each in found for name in _names(each)]
            if taken := [name for name, count in Counter([*known, *names]).items() if count > 1]:
                raise ValueError(f"its columns are there already: {', '.join(taken)}")
            if wrong := {term for each in found for term in each.terms} & {*KEYS}:
                raise ValueError(f"no term is called {', '.join(sorted(wrong))}")
        except whatever_raised() as error:
            left_out[spec.name] = reason(error)
        else:
            known += names
            yield spec.name, found


def _names(statistic: Statistic) -> list[str]:
    """Its columns in details.csv."""
    names = [statistic.name, *(f"{over}_gain_{statistic.gain}_percent" for over in OTHERS if statistic.gain)]
    return [f"{name}{end}" for name in names for end in ("", "_low", "_high")]


def _cells(details: pd.DataFrame, columns: dict[str, Sequence[Statistic]]) -> statistics.Cells:
    """The terms of the statistics, NaN where a cell lacks one."""
    if details.empty:
        return {}
    terms = list(dict.fromkeys(term for found in columns.values() for each in found for term in each.terms))
    return statistics.by_cell(details.reindex(columns=["model", "seed", *terms]), terms) if terms else {}


def _numbers(found: Sequence[Statistic], own: Terms, pairs: Mapping[str, Sequence[Terms]]) -> dict[str, float]:
    """A model's statistics with their ends, and the gains over the models that it is paired with."""
    row: dict[str, float] = {}
    for each in found:
        row |= statistics.estimate(_arrays(each, own), each.formula or ratio).fields(each.name)
        for over, pair in pairs.items() if each.gain else ():
            both = [array for terms in pair for array in _arrays(each, terms)]
            gain = statistics.estimate(both, _gain_of(each.formula or ratio)) if both else NOTHING
            row |= gain.fields(f"{over}_gain_{each.gain}_percent")
    return row


def _arrays(statistic: Statistic, terms: Terms) -> list[np.ndarray]:
    """What its formula gets the means of, each (S, I)."""
    arrays = [terms[name] for name in statistic.terms]
    if statistic.formula is None and len(arrays) == 1:  # what an image lacks adds neither to the sum nor to the count
        return [np.nan_to_num(arrays[0]), (~np.isnan(arrays[0])).astype(float)]
    return arrays


def _gain_of(formula: Callable[..., Any]) -> Callable[..., Any]:
    def gain(*means: Any) -> Any:
        half = len(means) // 2
        return statistics.gain(formula(*means[:half]), formula(*means[half:]))

    return gain


def _gains(shown: Sequence[Statistic], over: str) -> list[Column]:
    named = [(f"{escaped(each.gain)}, % ↑", f"{over}_gain_{each.gain}_percent") for each in shown if each.gain]
    return [MODEL, text(over), *(number(title, name, "+,.1f", ends=True) for title, name in named)]


def _notes(details: Details, results: Results, specs: Specs, said: Sequence[str]) -> Iterator[str]:
    """What the intervals cover, how the numbers come about, what diagnostics say, and of what the gains are."""
    frame = details.frame
    if len(frame):
        yield from notes.intervals(frame["model"], results)
        summed = ", and ".join(spec.summed for spec in specs if spec.summed)
        yield f"All is pooled over seeds and the pixels of all images before it is divided{summed and f'; {summed}'}."
    yield from said
    gains = any(each.gain for found in details.columns.values() for each in found)
    if gains and frame[[*OTHERS]].notna().any(axis=None):
        yield "A gain is paired: the same images and seeds for both models."


def _absent(details: Details, results: Results, specs: Specs) -> Iterator[str]:
    """Which diagnostics are not shown, and why."""
    for name, why in details.left_out.items():
        yield f"{name} is left out: {why.rstrip('.')}."
    failed: dict[tuple[str, str], list[str]] = {}
    for cell in results.outcomes:
        for failure in cell.failed_diagnostics.items() if cell.status == DONE else ():
            failed.setdefault(failure, []).append(cell.model)
    for (name, why), models in failed.items():
        yield f"{name} failed on the predictions of {notes.listed(list(dict.fromkeys(models)))}: {why.rstrip('.')}."
    for name in absent(results, specs):
        what = results.record.diagnostics[name].rstrip(".")
        yield f"Not shown: {name} ({what}), which no plugin here registers; `colorbench report` with its --plugin does."


def absent(results: Results, specs: Specs) -> list[str]:
    """The diagnostics that the run had and that are not among `specs`."""
    return sorted(results.record.diagnostics.keys() - {spec.name for spec in specs})
