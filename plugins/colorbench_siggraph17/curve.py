"""Hint efficiency: the PSNR by the number of points whose true ab is given, beside what the authors print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from colorbench.report import statistics
from colorbench.report.diagnostics import View
from colorbench.report.figures import COLORS, GREY, literal, plain

# Mean PSNR in dB by the number of points: psnrs_siggraph.npy of github.com/richzhang/colorization-pytorch, which its
# test_sweep.py draws beside a network of one's own. Of 29 numbers of points those that are next to round ones.
AUTHORS: Mapping[int, float] = {
    0: 24.43, 1: 25.37, 2: 26.20, 5: 27.39, 10: 28.42, 20: 29.34, 50: 30.42, 100: 31.13, 200: 31.70, 501: 32.14,
}  # fmt: skip
AUTHORS_SIZE, AUTHORS_POINT = 256, 6  # pixels to a side, of an image and of a point
NONE_AT = 0.4  # where 0 points stand on the logarithmic axis, as in the authors' figure
TICKS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500)

Curve = Sequence[tuple[int, statistics.Estimate]]  # number of points, PSNR


def curves(view: View) -> dict[str, Curve]:
    """By model, of those that hints make a difference to; empty unless the run has a series of numbers of hints."""
    others, frame = view.results.record.others, view.results.protocols
    if others is None or others.varied != "hints" or frame.empty:
        return {}
    numbers: dict[str, int] = {protocol.name: int(protocol.settings["hints"]) for protocol in others.protocols}
    found: dict[str, Curve] = {}
    for model, rows in frame.groupby("model"):
        psnr = {
            numbers[str(name)]: np.stack([of_seed["psnr"] for _, of_seed in own.groupby("seed")])  # (S, I)
            for name, own in rows.groupby("protocol")
        }
        first, *more = psnr.values()
        if any(not np.array_equal(first, other) for other in more):
            found[str(model)] = [(number, statistics.estimate([psnr[number]])) for number in sorted(psnr)]
    return found


def draw(view: View) -> Figure | None:
    """A line per model that takes hints, with its 95 % intervals, and the authors' dashed. None without one."""
    if not (found := curves(view)):
        return None
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    for index, (model, curve) in enumerate(found.items()):
        style: dict[str, Any] = {"color": COLORS[index % len(COLORS)], "linewidth": 1.4}
        places = [_place(number) for number, _ in curve]
        axes.errorbar(
            places, [float(psnr.value) for _, psnr in curve], [float(psnr.half_width()) for _, psnr in curve],
            marker="o", markersize=4, label=literal(model), **style,
        )  # fmt: skip
    axes.plot([_place(n) for n in AUTHORS], [*AUTHORS.values()], "--", color=GREY, label="the authors', on other data")
    _name_axes(axes)
    return figure


def sentences(view: View) -> list[str]:
    """What the curve is of, and the authors' figures; nothing without a curve."""
    others = view.results.record.others
    if others is None or not curves(view):
        return []
    size, point = (int(others.protocols[0].settings[name]) for name in ("size", "hint_size"))
    printed = ", ".join(f"{number}: {psnr:.2f}" for number, psnr in AUTHORS.items())
    said = [
        f"Hint curve: points of {point} x {point} px with the mean of their true ab, the same for every model; more "
        "points are those of a lower number and others. Models whose colors they do not change are left out.",
        f"The authors' curve, as points: PSNR in dB, is {printed}. It is of their own network on 1,000 images of "
        f"ImageNet at {AUTHORS_SIZE} px with points of {AUTHORS_POINT} px, scored as the protocol zhang-sweep does.",
    ]
    if (times := (point / size / (AUTHORS_POINT / AUTHORS_SIZE)) ** 2) != 1:
        said.append(f"At {size} px such a point covers {times:.3g} times the share of the picture that it does there.")
    return said


def _place(number: int) -> float:
    return number or NONE_AT


def _name_axes(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set_xticks([_place(number) for number in TICKS], [str(number) for number in TICKS])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("points whose true ab is given", fontsize=9)
    axes.set_ylabel("PSNR, dB", fontsize=9)
    axes.legend(fontsize=8, frameon=False)
    plain(axes)
