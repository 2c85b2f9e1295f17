"""The report: the rows of a run -> statistics -> tables and figures. A pure function of the run folder's files."""

from __future__ import annotations

from colorbench.errors import UserError
from colorbench.report import figures
from colorbench.report.comparison import compare
from colorbench.report.markdown import render
from colorbench.report.results import read
from colorbench.runs.folder import RunFolder, write_aside

TABLE, PROSE, LOSSES, PICTURES = "comparison.csv", "comparison.md", "losses.png", "pictures.png"


def write(folder: RunFolder) -> str:
    """Write comparison.csv, comparison.md, losses.png and pictures.png beside the record; return the Markdown.

    A figure that has nothing to show is not written, and one from an earlier report is removed. Raises
    UserError when a file of the folder is damaged or the folder cannot be written.
    """
    results = read(folder)
    frame = compare(results)
    order = list(frame["model"])
    drawn = {LOSSES: figures.losses(results.losses, order), PICTURES: figures.pictures(results, order)}
    text = render(frame, results, [name for name, content in drawn.items() if content])
    # Eight digits are more than any score has, and hide the last bits in which linear algebra libraries differ.
    table = frame.to_csv(index=False, float_format="%.8g")
    try:
        for name, content in {TABLE: table, PROSE: text, **drawn}.items():
            if content is None:
                (folder.path / name).unlink(missing_ok=True)
            else:
                write_aside(folder.path / name, content)
    except OSError as error:
        raise UserError(
            f"cannot write the report to {folder.path}: {error.strerror}; free space or make it writable"
        ) from error
    return text
