"""The loss curves, as the bytes of a PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from colorbench.errors import one_line

# Okabe and Ito: told apart with any color vision. Their yellow is too light for a line on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES: dict[str, Any] = {"train": "-", "val": "--"}
GREY = "#666666"
MANY_TICKS = 300  # range of a logarithmic axis from which only powers of ten are named


def losses(frame: pd.DataFrame, models: Sequence[str]) -> bytes | None:
    """Loss by epoch, counted on over the stages: an axes for each of `models` that has losses, None if none has.

    Shows the first finished seed as it was: a mean over seeds would smooth away what went wrong in one of them.
    Training is solid, validation dashed, a color for each component. Logarithmic if all values are positive.
    """
    rows_of = {} if frame.empty else dict(iter(frame.groupby("model")))
    shown = {model: rows_of[model] for model in models if model in rows_of}
    if not shown:
        return None
    figure = Figure(figsize=(9, 2.3 * len(shown) + 0.3), dpi=120, layout="constrained")
    for axes, (model, rows) in zip(np.ravel(figure.subplots(len(shown), 1)), shown.items(), strict=True):
        first = rows["seed"].iloc[0]
        pad = 26 if rows["stage"].nunique() > 1 else 8  # room for the names of the stages
        axes.set_title(f"{model}, seed {first}", loc="left", fontsize=10, fontweight="bold", pad=pad)
        _draw(axes, rows[rows["seed"] == first])
    axes.set_xlabel("epoch", fontsize=9)
    return png(figure)


def _draw(axes: Axes, rows: pd.DataFrame) -> None:
    axes.set_yscale("log" if (rows["value"] > 0).all() else "linear")
    colors = {str(name): COLORS[i % len(COLORS)] for i, name in enumerate(rows["component"].unique())}
    start = 0
    for i, (stage, legs) in enumerate(rows.groupby("stage", sort=False)):
        epochs = int(legs["epoch"].max())
        if start:
            axes.axvline(start + 0.5, color=GREY, linewidth=0.6)
        if len(legs) < len(rows):
            place = axes.get_xaxis_transform()  # x in epochs, y in heights of the axes
            height = 1.01 + 0.07 * (i % 2)  # in turn, since a short stage may have a long name
            axes.text(start + 0.5, height, f" {literal(str(stage))}", transform=place, fontsize=8, color=GREY)
        # A stage at a time: a line across the boundary would join losses of different settings.
        for (component, split), curve in legs.groupby(["component", "split"], sort=False):
            style = {"color": colors[str(component)], "linestyle": STYLES[str(split)], "linewidth": 1.4}
            if epochs == 1:  # no line: a point, hollow for the dashed
                style |= {"marker": "o", "markersize": 4, "fillstyle": "full" if split == "train" else "none"}
            axes.plot(start + curve["epoch"], curve["value"], **style)
        start += epochs
    axes.set_xlim(0.5, start + 0.5)
    _finish(axes, colors)


def _finish(axes: Axes, colors: dict[str, str]) -> None:
    keys = [Line2D([], [], color=color, label=literal(name)) for name, color in colors.items()]
    keys += [Line2D([], [], color=GREY, linestyle=style, label=split) for split, style in STYLES.items()]
    axes.legend(
        handles=keys, loc="upper left", bbox_to_anchor=(1.01, 1.02), fontsize=8, frameon=False, handlelength=2.2
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12, min_n_ticks=1))
    if axes.get_yscale() == "log":  # plain numbers instead of powers of ten
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < MANY_TICKS else (1,)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    plain(axes)


def literal(text: str) -> str:
    """Text of a plugin as Matplotlib shows it: one line without formulas, of which a wrong one raises."""
    return one_line(text).replace("$", r"\$")


def plain(axes: Axes) -> None:
    """The look of every plot: faint horizontal lines, no frame above and to the right, small figures."""
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def png(figure: Figure) -> bytes:
    """The bytes of a PNG, drawn without pyplot: no window system, no global state, and half the time to import."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
