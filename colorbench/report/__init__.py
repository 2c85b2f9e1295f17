"""The report: the rows of a run -> statistics -> tables and figures. A pure function of the run folder's files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from colorbench import plugins
from colorbench.contract import DiagnosticSpec
from colorbench.errors import UserError
from colorbench.report import comparison, diagnostics, figures, pictures, protocols, series
from colorbench.report.comparison import parent_of
from colorbench.report.markdown import render, render_ablations
from colorbench.report.results import Results, read
from colorbench.runs.folder import RunFolder, write_aside

PROTOCOLS = "protocols.md"
LOSSES, ABLATION_LOSSES, PICTURES = "losses.png", "losses-ablations.png", "pictures.png"
OF_LOSSES = "Losses by epoch, as they are weighted in the sum: training solid, validation dashed"
CAPTIONS = {
    LOSSES: OF_LOSSES,
    PICTURES: "The first test images",
    ABLATION_LOSSES: f"{OF_LOSSES}; each parent above its ablations",
}


def write(folder: RunFolder, plugin_files: str | Path | Iterable[str | Path] = ()) -> str:
    """Write comparison.csv, comparison.md, losses.png and pictures.png beside the record.

    Returns the Markdown.

    Ablations, models named parent/change, have a table of their own: ablations.csv and ablations.md, with
    losses-ablations.png.

    What diagnostics, those of installed plugins and of `plugin_files`, make of what lies behind the scores is in
    details.csv and details.md, and in figures named after them; and what other protocols make of the same predictions
    in protocols.csv and protocols.md, with series.png if they are a series. The returned Markdown leaves out both.

    A table or a figure with nothing to show is not written, and one of an earlier report is removed. Raises
    UserError when a file of the folder or a plugin file is damaged, or the folder cannot be written.
    """
    results = read(folder)
    files = _files(results, comparison.compare(results), [*plugins.load(plugin_files).specs["diagnostic"].values()])
    text = "\n".join(str(files[name]) for name in ("comparison.md", "ablations.md") if files.get(name))
    try:
        for name, content in files.items():
            if content is None:
                (folder.path / name).unlink(missing_ok=True)
            else:
                write_aside(folder.path / name, content)
    except OSError as error:
        raise UserError(
            f"cannot write the report to {folder.path}: {error.strerror}; free space or make it writable"
        ) from error
    return text


def _files(results: Results, frame: pd.DataFrame, specs: list[DiagnosticSpec]) -> dict[str, str | bytes | None]:
    """What each file of the report holds, None for one with nothing to show; `frame` has all models."""
    ablated = frame["model"].map(parent_of) != ""
    main = comparison.without_ablations(frame)
    order = list(main["model"])
    everybody = [*order, *frame.loc[ablated, "model"]]
    details = diagnostics.summarize(results, everybody, specs)
    view = diagnostics.View(results, frame.copy(), details.frame.copy(), order)
    pages = ["comparison", "details", *(["ablations"] if ablated.any() else [])]
    drawn, feet = diagnostics.illustrate(specs, view, details, pages)
    drawn |= {LOSSES: figures.losses(results.losses, order), PICTURES: pictures.draw(results, order)}
    shown = {name: CAPTIONS[name] for name in (LOSSES, PICTURES) if drawn[name]} | feet["comparison"].figures
    text = render(main, results, shown, feet["comparison"].notes)
    files: dict[str, str | bytes | None] = {"comparison.csv": _csv(main), "comparison.md": text, **drawn}
    if ablated.any():
        members = comparison.ablations_and_parents(frame)
        losses = figures.losses(results.losses, sorted(members["model"]))  # each parent before its ablations
        shown = feet["ablations"].figures | ({ABLATION_LOSSES: CAPTIONS[ABLATION_LOSSES]} if losses else {})
        text = render_ablations(members, results, shown, feet["ablations"].notes)
        files |= {"ablations.csv": _csv(members), "ablations.md": text, ABLATION_LOSSES: losses}
    compared, others = protocols.summarize(results, everybody), results.record.others
    curve, told = None, None
    if not compared.empty and others and others.varied:
        curve = series.draw(compared, results)
        told = series.render(compared, results, drawn=curve is not None)
    elif not compared.empty:
        told = protocols.render(compared, results)
    return files | {
        "details.csv": None if details.frame.empty else _csv(details.frame),
        "details.md": diagnostics.render(details, results, specs, feet["details"]),
        "protocols.csv": None if compared.empty else _csv(compared),
        PROTOCOLS: told,
        series.FIGURE: curve,
    }


def _csv(frame: pd.DataFrame) -> str:
    # Eight digits are more than any score has, and hide the last bits in which linear algebra libraries differ.
    return frame.to_csv(index=False, float_format="%.8g")
