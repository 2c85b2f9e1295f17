"""The report: the rows of a run -> statistics -> tables and figures. A pure function of the run folder's files."""

from __future__ import annotations

import pandas as pd

from colorbench.errors import UserError
from colorbench.report import comparison, details, figures, pictures, protocols
from colorbench.report.comparison import parent_of
from colorbench.report.curve import CURVE, curves, draw
from colorbench.report.markdown import render, render_ablations
from colorbench.report.results import read
from colorbench.runs.folder import RunFolder, write_aside

PROTOCOLS = "protocols.md"
LOSSES, ABLATION_LOSSES = "losses.png", "losses-ablations.png"


def write(folder: RunFolder) -> str:
    """Write comparison.csv, comparison.md, losses.png and the sheets of pictures beside the record.

    Returns the Markdown.

    Ablations, models named parent/change, have a table of their own: ablations.csv and ablations.md, with
    losses-ablations.png, and base-curve.png if some of them differ in how long the base of a refiner was trained.

    What lies behind the scores is in details.csv and details.md, and what other protocols make of the same predictions
    in protocols.csv and protocols.md, which the returned Markdown leaves out.

    Details or a figure with nothing to show are not written, and those of an earlier report are removed. Raises
    UserError when a file of the folder is damaged or the folder cannot be written.
    """
    results = read(folder)
    frame = comparison.compare(results)
    ablated = frame["model"].map(parent_of) != ""
    main = comparison.without_ablations(frame)
    order = list(main["model"])
    drawn = {LOSSES: figures.losses(results.losses, order), **pictures.draw(results, order)}
    text = render(main, results, [name for name, content in drawn.items() if content])
    files: dict[str, str | bytes | None] = {"comparison.csv": _csv(main), "comparison.md": text, **drawn}
    if ablated.any():
        members = comparison.ablations_and_parents(frame)
        losses = figures.losses(results.losses, sorted(members["model"]))  # each parent before its ablations
        linked = [ABLATION_LOSSES] if losses else []
        ablations = render_ablations(members, results, lengths := curves(frame, results), linked)
        files |= {"ablations.csv": _csv(members), "ablations.md": ablations}
        files |= {ABLATION_LOSSES: losses, CURVE: draw(lengths)}
        text += "\n" + ablations
    detailed = details.summarize(results, [*order, *frame.loc[ablated, "model"]])
    files |= {"details.csv": None, "details.md": None}
    if not detailed.empty:
        files |= {"details.csv": _csv(detailed), "details.md": details.render(detailed, results)}
    compared = protocols.summarize(results, [*order, *frame.loc[ablated, "model"]])
    files |= {"protocols.csv": None, PROTOCOLS: None}
    if not compared.empty:
        files |= {"protocols.csv": _csv(compared), PROTOCOLS: protocols.render(compared, results)}
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


def _csv(frame: pd.DataFrame) -> str:
    # Eight digits are more than any score has, and hide the last bits in which linear algebra libraries differ.
    return frame.to_csv(index=False, float_format="%.8g")
