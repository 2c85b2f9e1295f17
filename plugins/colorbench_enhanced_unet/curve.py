"""What a refiner gains over its own base, against how long that base was trained.

Almost anything refines an undertrained base: a gain counts for what it is once the base has had its fill.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from colorbench.report import statistics
from colorbench.report.comparison import family_of
from colorbench.report.diagnostics import View
from colorbench.report.figures import COLORS, GREY, plain
from colorbench.report.results import Results
from colorbench.runs.records import CellRecord, legs

FEWEST_LENGTHS = 3  # below, there is no curve to speak of
POINT = {
    "base_images_seen": "images", "base_gain_percent": "gain", "base_gain_percent_low": "low",
    "base_gain_percent_high": "high", "mse": "refined_mse",
}  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """A refiner on bases that differ in nothing but their training, the least trained first.

    Each point has the `images` that the base saw, the `gain` over it in percent with its ends `low` and `high`, the
    `base_mse` and the `refined_mse`, and `epochs`, how often the base saw the whole training split, below 1 for a part.
    `published` is the gain in percent that papers print for the two, NaN if they do not.
    """

    refiner: str
    base: str
    points: Sequence[Any]
    published: float

    def gains(self) -> list[tuple[int, float]]:
        """Images seen and gain; bases of one length, such as the preset's own beside a variant's, are averaged."""
        groups = itertools.groupby(self.points, lambda point: point.images)
        return [(images, float(np.mean([point.gain for point in points]))) for images, points in groups]

    def sentence(self) -> str | None:
        """Where the published gain lies on the curve; None without one."""
        if np.isnan(self.published):
            return None
        gains = self.gains()
        said = f"The gain published for {self.refiner} over {self.base}, {self.published:.1f} % on other data, lies"
        if places := list(_crossings(gains, self.published)):
            return f"{said} {', and '.join(places)}."
        above = self.published > max(gain for _, gain in gains)
        side, word, extreme = ("above", "largest", max) if above else ("below", "smallest", min)
        images, gain = extreme(gains, key=lambda point: point[1])
        return f"{said} {side} every point of the curve ({word}: {gain:.1f} % at {images:,} images)."


def curves(frame: pd.DataFrame, results: Results) -> list[Curve]:
    """The curves that the rows of all models, ablations included, make up.

    A curve has a refiner and those of its ablations that differ from it in the base alone, on bases that differ in
    their training alone: same family and same options, and for the refiners the same training. It takes bases of at
    least FEWEST_LENGTHS lengths.
    """
    if "base_gain_percent" not in frame:
        return []
    made = {cell.model: cell for cell in reversed(results.outcomes) if cell.made_from}  # a missing cell tells nothing

    def only_trained_otherwise(model: str, parent: str) -> bool:
        return parent not in made or options(parent) == options(model)

    def options(model: str) -> dict[str, Any]:
        return made[model].made_from.get("options", {})

    def stages(model: str) -> list[dict[str, Any]]:
        # Records of earlier versions may not name the part of the images: it was the whole.
        stages = made[model].made_from.get("stages", []) if model in made else []
        return [{"part": [0.0, 1.0], **stage} for stage in stages]

    def epochs(model: str) -> float:
        return sum(leg.epochs * leg.share for leg in (legs(made[model].made_from) if model in made else ()))

    rows = frame[frame["base_gain_percent"].notna() & (frame["base_images_seen"] > 0)]
    points = rows[["model", "base", *POINT]].rename(columns=POINT)
    points["base_mse"] = rows["base"].map(frame.set_index("model")["mse"])
    points["epochs"] = [epochs(base) for base in rows["base"]]
    families: dict[tuple[str, str], list[Any]] = {}
    point: Any
    for point in points.itertuples():
        refiner, base = family_of(point.model), family_of(point.base)
        on_own_base = refiner in made and point.base == made[refiner].refines
        other_base = point.model == refiner or (not on_own_base and stages(point.model) == stages(refiner))
        if other_base and only_trained_otherwise(point.model, refiner) and only_trained_otherwise(point.base, base):
            families.setdefault((refiner, base), []).append(point)
    return [
        Curve(refiner, base, sorted(points, key=lambda point: point.images), _published_gain(made, refiner, base))
        for (refiner, base), points in families.items()
        if len({point.images for point in points}) >= FEWEST_LENGTHS
    ]


def sentences(view: View) -> list[str]:
    """Where the published gains lie on the curves."""
    return [sentence for curve in curves(view.scores, view.results) if (sentence := curve.sentence())]


def draw(view: View) -> Figure | None:
    """A column per curve: the gain with its interval above, the MSE of both below. None without a curve.

    Dashed: the published gain, which was measured on other data.
    """
    if not (found := curves(view.scores, view.results)):
        return None
    figure = Figure(figsize=(7 * len(found), 6.5), dpi=120, layout="constrained")
    axes = figure.subplots(2, len(found), squeeze=False, sharex="col")
    for (above, below), curve in zip(axes.T, found, strict=True):
        title = f"{curve.refiner} on {curve.base}, by the training of the latter"
        above.set_title(title, loc="left", fontsize=10, fontweight="bold")
        _draw_gains(above, curve)
        _draw_errors(below, curve)
    return figure


def _draw_gains(axes: Axes, curve: Curve) -> None:
    axes.plot(*zip(*curve.gains(), strict=True), color=COLORS[0], linewidth=1.4)
    for point in curve.points:
        axes.plot(point.images, point.gain, "o", color=COLORS[0], markersize=5)
        axes.vlines(point.images, point.low, point.high, color=COLORS[0], linewidth=2.4)
    axes.axhline(0, color=GREY, linewidth=0.8)
    if not np.isnan(curve.published):
        label = f"published: {curve.published:.1f} %, on other data"
        axes.axhline(curve.published, color=COLORS[1], linewidth=1.4, linestyle="--", label=label)
        axes.legend(fontsize=8, frameon=False)
    axes.set_ylabel("MSE gain over its base, %", fontsize=9)
    plain(axes)


def _draw_errors(axes: Axes, curve: Curve) -> None:
    images = [point.images for point in curve.points]
    axes.plot(images, [p.base_mse for p in curve.points], "s-", color=COLORS[4], markersize=4, label=curve.base)
    axes.plot(images, [p.refined_mse for p in curve.points], "o-", color=COLORS[0], markersize=4, label=curve.refiner)
    axes.legend(fontsize=8, frameon=False)
    axes.set_ylabel("MSE", fontsize=9)
    axes.set_xscale("log")
    ticks = {p.images: f"{p.images:,}\n{p.epochs:{'.1g' if p.epochs < 1 else '.0f'}}" for p in curve.points}
    axes.set_xticks([*ticks], [*ticks.values()])
    axes.set_xticks([], minor=True)
    axes.set_xlabel(f"images that {curve.base} saw in training, and epochs", fontsize=9)
    plain(axes)


def _published_gain(made: Mapping[str, CellRecord], refiner: str, base: str) -> float:
    """Of the refiner over the base that it was published with, in percent; NaN over another, or without figures."""
    if refiner not in made or base not in made or made[refiner].refines != base:
        return np.nan
    refined, plain = (made[model].published for model in (refiner, base))
    return float(statistics.gain(refined.mse, plain.mse)) if refined and plain and refined.mse and plain.mse else np.nan


def _crossings(gains: Sequence[tuple[int, float]], level: float) -> Iterator[str]:
    """Each pair of neighbors with `level` between them: one, or several if the gains, by images, are not monotonic."""
    for (n, gain), (n_next, gain_next) in itertools.pairwise(gains):
        if min(gain, gain_next) <= level <= max(gain, gain_next):
            ends = sorted([(gain, np.log(n)), (gain_next, np.log(n_next))])
            at = float(np.exp(np.interp(level, [gain for gain, _ in ends], [place for _, place in ends])))
            yield (
                f"between the bases of {n:,} and {n_next:,} images seen "
                f"(linear in the logarithm: at about {float(f'{at:.2g}'):,.0f})"
            )
