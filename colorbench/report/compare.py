"""Two runs of the same models, row by row: what got better, what worse, and what fails now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from colorbench.errors import UserError
from colorbench.report import markdown, statistics
from colorbench.report.results import Results, read
from colorbench.runs.folder import RunFolder, conditions

BETTER, WORSE, NOISE, SAME = "better", "worse", "within noise", "same"
FAILING, DONE_NOW, IN_NEITHER = "newly failing", "newly done", "done in neither"
ONLY_A, ONLY_B, NO_SEED, UNTOLD = "only in A", "only in B", "no seed in common", "cannot be told"
TOLD = (BETTER, WORSE, NOISE, SAME, FAILING, DONE_NOW)  # what says something of both runs
COLUMNS = [
    markdown.MODEL,
    markdown.number("MSE in A ↓", "mse_a", ",.1f"),
    markdown.number("MSE in B ↓", "mse_b", ",.1f"),
    markdown.number("MSE gain of B over A, % ↑", "gain_percent", "+,.1f", ends=True),
    markdown.text("seeds"),
    markdown.text("verdict"),
]


def compare(a: RunFolder, b: RunFolder) -> pd.DataFrame:
    """A row per model of either run: `model`, `verdict`, and of those with scores of the same seeds in both `mse_a`,
    `mse_b`, `gain_percent` of B over A with its ends, `p`, Holm's over the rows, and `seeds`.

    Raises UserError naming each field in which protocol, data or preset differ, or the file that is damaged.
    """
    runs = read(a), read(b)
    there, here = (conditions(run.record) for run in runs)
    if differing := [f"{name} ({there[name]!r} and {here[name]!r})" for name in there if there[name] != here[name]]:
        raise UserError(f"{a.path} and {b.path} differ in {'; '.join(differing)}: compare runs that do not")
    cells = [statistics.by_cell(run.scores, ["mse"]) if len(run.scores) else {} for run in runs]
    models = list(dict.fromkeys(model for run in runs for model in run.models))
    frame = pd.DataFrame([_row(model, runs, cells) for model in models])
    if "p" in frame:
        frame["p"] = statistics.holm(frame["p"])
        clear = frame["p"] <= 1 - statistics.CONFIDENCE
        frame.loc[clear, "verdict"] = frame.loc[clear, "gain_percent"].gt(0).map({True: BETTER, False: WORSE})
    return frame


def render(frame: pd.DataFrame, a: str, b: str) -> str:
    """The frame as Markdown, with what it takes to read it; the runs in `a` and `b` are compared."""
    notes = [
        f"A: {a}. B: {b}.",
        "The gain is paired by image and seed. Better and worse: after Holm's correction over the rows, at 5 %; what "
        "does not remain is within noise. Same: equal in every image. Of a single image nothing can be told.",
        "With several seeds the interval, in brackets, covers images and seeds; with one the images alone: it does not "
        "tell a change from what another training would do.",
    ]
    return f"{markdown.table(frame, COLUMNS)}\n\n{markdown.bullets(notes)}"


def _row(model: str, runs: Sequence[Results], cells: Sequence[statistics.Cells]) -> dict[str, Any]:
    asked, done = ([{cell.seed for cell in run.cells(model, done=d)} for run in runs] for d in (False, True))
    row: dict[str, Any] = {"model": model, "verdict": _standing(asked, done)}
    sides: Mapping[str, Any] = {name: own[model] for name, own in zip("ab", cells, strict=True) if model in own}
    if row["verdict"] == NOISE and (both := statistics.paired(sides, "a", "b")):
        old, new = (columns["mse"] for columns in both)
        gain = statistics.estimate([new, old], statistics.gain)
        row |= {"mse_a": old.mean(), "mse_b": new.mean(), **gain.fields("gain_percent")}
        row["seeds"] = ", ".join(map(str, sorted(done[0] & done[1])))
        p = gain.p()  # NaN of a single image, which has no interval, and over an error of 0, which can only grow
        untold: dict[str, Any] = {"verdict": UNTOLD if old.any() else WORSE}
        return row | ({"verdict": SAME} if (old == new).all() else untold if np.isnan(p) else {"p": p})
    return row


def _standing(asked: Sequence[set[int]], done: Sequence[set[int]]) -> str:
    """What the seeds that a row has in either run say of it; "within noise" of those with scores to compare."""
    if not all(asked):
        return ONLY_A if asked[0] else ONLY_B
    if done[0] & asked[1] - done[1]:
        return FAILING
    if not (done[0] | done[1]):
        return IN_NEITHER
    if not done[0]:
        return DONE_NOW
    return NOISE if done[0] & done[1] else NO_SEED
