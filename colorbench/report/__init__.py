"""The report: the rows of a run -> statistics -> tables and figures. A pure function of the run folder's files."""

from __future__ import annotations

import pandas as pd

from colorbench.errors import UserError
from colorbench.report import figures
from colorbench.report.comparison import compare, parent_of
from colorbench.report.markdown import render, render_ablations
from colorbench.report.results import read
from colorbench.runs.folder import RunFolder, write_aside

ABLATIONS_TABLE, ABLATIONS = "ablations.csv", "ablations.md"
TABLE, PROSE, LOSSES, PICTURES = "comparison.csv", "comparison.md", "losses.png", "pictures.png"


def write(folder: RunFolder) -> str:
    """Write comparison.csv, comparison.md, losses.png and pictures.png beside the record; return the Markdown.

    Ablations, models named parent/change, have a table of their own: ablations.csv and ablations.md.

    A figure that has nothing to show is not written, and one from an earlier report is removed. Raises
    UserError when a file of the folder is damaged or the folder cannot be written.
    """
    results = read(folder)
    frame = compare(results)
    ablated = frame["model"].map(parent_of) != ""
    main = frame[~ablated].drop(columns=[name for name in frame if str(name).startswith("parent")])
    order = list(main["model"])
    drawn = {LOSSES: figures.losses(results.losses, order), PICTURES: figures.pictures(results, order)}
    text = render(main, results, [name for name, content in drawn.items() if content])
    files: dict[str, str | bytes | None] = {TABLE: _csv(main), PROSE: text, **drawn}
    if ablated.any():
        members = frame[ablated | frame["model"].isin(frame["model"].map(parent_of))]
        files |= {ABLATIONS_TABLE: _csv(members), ABLATIONS: (ablations := render_ablations(members, results))}
        text += "\n" + ablations
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
