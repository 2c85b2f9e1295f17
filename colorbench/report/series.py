"""Protocols that differ in one field, a series: the curve of each model over the values, as a table and a figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from colorbench.report import notes
from colorbench.report.figures import COLORS, literal, plain, png
from colorbench.report.markdown import MODEL, bullets, escaped, number, pictures, table
from colorbench.report.protocols import CHANGE
from colorbench.report.results import Results
from colorbench.runs.records import DONE

FIGURE = "series.png"
WIDE = 20  # largest over least value from which the axis is logarithmic
CAPTION = (
    "PSNR by {}, a line for each model, with its 95 % interval; the first value is that of the evaluation. The change "
    "along a line is more certain than the line, since the images are the same: see the tables"
)
NAMED = "degradation"  # a field whose values are NAME:NUMBER, a curve for each name


def curves(frame: pd.DataFrame, results: Results) -> dict[str, pd.DataFrame]:
    """The rows of `protocols.summarize` for each curve, "" if there is one, with the number of each value as `x`.

    The first protocol, that of the run, is in each with 0, if its value is no number.
    """
    (base, *others), field = _values(results), str(results.record.others and results.record.others.varied)
    groups: dict[str, list[tuple[str, float]]] = {}
    for i, (name, value) in enumerate(others):
        group, _, strength = str(value).partition(":") if field == NAMED else ("", "", str(value))
        groups.setdefault(group, []).append((name, _number(strength, i + 1)))
    found = {}
    for group, members in groups.items():
        x = {base[0]: _number(str(base[1]), 0)} | dict(members)
        rows = frame[frame["protocol"].isin(x)]
        rows = rows.assign(x=rows["protocol"].map(x), order=rows["model"].map([*frame["model"].unique()].index))
        found[group] = rows.sort_values(["order", "x"], kind="stable", ignore_index=True).drop(columns="order")
    return found


def render(frame: pd.DataFrame, results: Results, drawn: bool) -> str:
    """The whole protocols.md of a series; `drawn` says whether there is its figure."""
    assert results.record.others
    field = str(results.record.others.varied)
    blocks = [f"# Series of {escaped(field)} on {escaped(results.record.data.name)}"]
    values = {name: str(value) for name, value in _values(results)}
    for group, rows in curves(frame, results).items():
        ordered = rows.sort_values("x", kind="stable")["protocol"].unique()
        blocks += [
            f"## PSNR in dB by {escaped(f'{field} {group}'.strip())}",
            _table(rows, "psnr", ",.2f", {name: values[name] for name in ordered}),
            f"Change of MSE from {escaped(values[ordered[0]])}, in percent:",
            _table(rows, CHANGE, "+,.1f", {name: values[name] for name in ordered[1:]}),
        ]
    caption = {FIGURE: CAPTION.format(field)} if drawn else {}
    said = [*_notes(frame, results), *notes.of_rows(frame.drop_duplicates("model"), results)]
    blocks += [escaped(notes.made_with(results)), "## Notes", bullets(said), *pictures(caption)]
    return "\n\n".join(blocks) + "\n"


def _table(rows: pd.DataFrame, score: str, form: str, titles: Mapping[str, str]) -> str:
    """A score with its intervals: a row per model, a column per protocol of `titles`."""
    ends = [
        rows.pivot(index="model", columns="protocol", values=f"{score}{end}").add_suffix(end)
        for end in ("", "_low", "_high")
    ]
    wide = pd.concat(ends, axis=1).reindex(rows["model"].unique()).reset_index()
    return table(wide, [MODEL, *(number(escaped(title), name, form, ends=True) for name, title in titles.items())])


def draw(frame: pd.DataFrame, results: Results) -> bytes | None:
    """PSNR over the values, an axes for each curve; None if nothing has a finite PSNR."""
    groups = curves(frame[np.isfinite(frame["psnr"])], results)
    groups = {group: rows for group, rows in groups.items() if len(rows)}
    if not groups:
        return None
    columns = min(3, len(groups))
    lines = -(-len(groups) // columns)
    figure = Figure(figsize=(4.2 * columns + 1.6, 2.9 * lines + 0.3), dpi=120, layout="constrained")
    places = np.ravel(figure.subplots(lines, columns, sharey=True))
    for axes in places[len(groups) :]:
        axes.set_visible(False)
    for axes, (group, rows) in zip(places, groups.items(), strict=False):
        for i, (model, curve) in enumerate(rows.groupby("model", sort=False)):
            style = {"color": COLORS[i % len(COLORS)], "linestyle": ("-", "--", ":")[i // len(COLORS) % 3]}
            axes.plot(curve["x"], curve["psnr"], label=literal(str(model)), marker="o", markersize=3, **style)
            axes.fill_between(curve["x"], curve["psnr_low"], curve["psnr_high"], color=style["color"], alpha=0.1, lw=0)
        above = rows.loc[rows["x"] > 0, "x"]
        if len(above) and above.max() / above.min() >= WIDE:
            axes.set_xscale("symlog", linthresh=float(above.min()))
            axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel(literal(group or str(results.record.others and results.record.others.varied)), fontsize=9)
        plain(axes)
    places[0].set_ylabel("PSNR, dB", fontsize=9)
    figure.legend(*places[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8, frameon=False)
    return png(figure)


def _values(results: Results) -> Sequence[tuple[str, object]]:
    """Each protocol's name and its value of the varied field."""
    assert results.record.others
    field = str(results.record.others.varied)
    return [(protocol.name, protocol.settings[field]) for protocol in results.record.others.protocols]


def _number(text: str, otherwise: int) -> float:
    try:
        return float(text)
    except ValueError:
        return float(otherwise)


def _notes(frame: pd.DataFrame, results: Results) -> Iterator[str]:
    (base, value), field = _values(results)[0], str(results.record.others and results.record.others.varied)
    yield (
        f"The trained networks were asked again with each value of {field}; nothing was trained. {base}, the protocol "
        f"of the evaluation, has {value}. All compare with the same truth, and the predicted ab gets the true L."
    )
    yield (
        "In brackets: 95 % intervals over test images and training seeds together. The change of MSE is paired: the "
        "same images and seeds under both values. A model that does not see what is varied has a flat line."
    )
    if of_one := sorted(frame.loc[frame["seeds"] == 1, "model"].unique()):
        yield f"Of one seed, so that the intervals are over the images alone: {', '.join(of_one)}."
    if left := sorted({cell.model for cell in results.outcomes if cell.status == DONE} - {*frame["model"]}):
        yield f"Left out, as not asked or not the same since: {', '.join(left)}; the same command asks them."
