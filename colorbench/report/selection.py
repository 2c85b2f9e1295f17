"""The best row of each sweep, by the scores on the validation images: no score of a test image enters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from colorbench.report.results import Results


@dataclass(frozen=True)
class Selection:
    """The rows that differ in one option, the model itself among them.

    `mse` has by row the mean over the validation `images` and over the `seeds` that all of them have, the least first;
    `without` are rows without such scores.
    """

    option: str
    mse: Mapping[str, float]
    images: int
    seeds: Sequence[int]
    without: Sequence[str]

    @property
    def best(self) -> str:
        return next(iter(self.mse))

    def sentence(self) -> str:
        """Which row is selected, by what, and from which."""
        (best, least), *others = self.mse.items()
        count = f"{self.images} validation images, seed{'s' * (len(self.seeds) > 1)} {', '.join(map(str, self.seeds))}"
        absent = f"; without validation scores: {', '.join(self.without)}" if self.without else ""
        return (
            f"Of the values of {self.option}, {best} is selected: it has the least MSE on {count}: {least:,.1f}; "
            f"{', '.join(f'{row} {mse:,.1f}' for row, mse in others)}{absent}. No score of a test image entered."
        )


def selections(results: Results) -> list[Selection]:
    """A selection for each sweep of which two rows or more have validation scores of one seed or more."""
    if results.val_scores.empty:
        return []
    by_cell = results.val_scores.groupby(["model", "seed"])["mse"].agg(["mean", "size"])
    sweeps: dict[tuple[str, str], list[str]] = {}
    for cell in results.outcomes:
        if cell.sweep and cell.parent:
            own = [row for row in results.models if row.partition("@")[0] == cell.parent]
            rows = sweeps.setdefault((cell.parent, cell.sweep), own)
            rows += [cell.model] if cell.model not in rows else []
    found = []
    for (_, option), rows in sweeps.items():
        scored = [row for row in rows if row in by_cell.index.get_level_values("model")]
        seeds = set.intersection(*({*by_cell.loc[row].index} for row in scored)) if scored else set()
        if len(scored) > 1 and seeds:
            means = {row: float(by_cell.loc[row].loc[sorted(seeds), "mean"].mean()) for row in scored}
            mse = dict(sorted(means.items(), key=lambda item: item[1]))
            without = [row for row in rows if row not in scored]
            found.append(Selection(option, mse, int(by_cell["size"].iloc[0]), sorted(seeds), without))
    return found
