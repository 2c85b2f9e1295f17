"""An existing run as an object: its tables, predictions and models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from PIL import Image

from colorbench import report
from colorbench.api.kinds import refuse_other_kinds
from colorbench.errors import UserError, UserKeyError, refuse_unknown
from colorbench.plugins import load
from colorbench.report import comparison, markdown, results
from colorbench.report.compare import compare as compare_runs
from colorbench.runs.folder import PREDICTIONS, RunFolder
from colorbench.runs.merge import merge as join
from colorbench.runs.predictions import file_sha256, read_pictures
from colorbench.runs.records import DONE, CellRecord, RunRecord

if TYPE_CHECKING:
    from colorbench.harness.photo import Picture
    from colorbench.harness.trained import Loaded


def open_run(path: str | Path, plugins: str | Path | Sequence[str | Path] = ()) -> Run:
    """The run in a folder; `plugins` are the files given to `run`, which its models need to color anything.

    Raises UserError if the folder has no run, or a damaged record.
    """
    folder = RunFolder(path)
    return Run(folder, folder.cells(), plugins)


def merge(runs: Sequence[str | Path], out: str | Path) -> Run:
    """Join runs with separately trained models or seeds into a new run folder `out`; they are not changed.

    Raises UserError, leaving nothing behind, with a line for each difference that forbids it, and if `out` is anything
    but an empty folder.
    """
    refuse_other_kinds({"runs": runs, "out": out})
    folder = join(runs, out)
    return reported(folder, folder.cells(), ())


def compare(a: str | Path, b: str | Path) -> pd.DataFrame:
    """What is better, is worse or fails now in the run in folder `b` compared with that in `a`: a row per model.

    Columns: `model`, `verdict`, and for models with scores of the same seeds in both runs `mse_a`, `mse_b`,
    `gain_percent` of b over a with the ends of its interval, `p` (after Holm's correction) and `seeds`. Raises
    UserError if protocol, data or preset differ, or a file is damaged.
    """
    return compare_runs(RunFolder(a), RunFolder(b))


def reported(folder: RunFolder, cells: Sequence[CellRecord], plugins: Sequence[Path]) -> Run:
    """The run in a folder, after writing its tables and figures into it."""
    run = Run(folder, cells, plugins)
    run.report()
    return run


class Pictures(Mapping[str, Image.Image]):
    """The kept predictions of one model and seed, by image name, RGB. Each is read on access.

    Raises UserError on access if the file is damaged, and one that is a KeyError, too, for an image without any.
    """

    def __init__(self, file: Path, checksum: str, names: Sequence[str], size: int) -> None:
        self.file, self.checksum, self.names, self.size = file, checksum, dict.fromkeys(names), size

    def __getitem__(self, name: str) -> Image.Image:
        if name not in self.names:
            near = f"; did you mean {found[0]!r}?" if (found := get_close_matches(str(name), self.names, n=1)) else ""
            raise UserKeyError(f"{self.file} has no prediction of {name!r}{near}; list(...) of this gives all names")
        if not self._is_sound:
            raise UserError(f"{self.file} is damaged or absent; run the same again, which predicts what is missing")
        (pixels,) = read_pictures(self.file, [name], "RGB", self.size)
        return Image.fromarray(pixels)

    @cached_property
    def _is_sound(self) -> bool:
        return self.file.exists() and file_sha256(self.file) == self.checksum

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"Pictures({str(self.file)!r}: {len(self)} of {self.size} px)"


class Predictions(dict[str, Pictures]):
    """The kept predictions by model. What has none raises a UserError that is a KeyError, too."""

    def __init__(self, run: Run, models: Iterable[str]) -> None:
        super().__init__({model: run.pictures(model) for model in models})
        self._run = run

    def __missing__(self, model: str) -> Pictures:
        try:
            return self._run.pictures(model)
        except UserError as error:
            raise UserKeyError(str(error)) from error


class Run:
    """A run folder. Its tables are read and checked on first access.

    `cells` are the records of the requested models and seeds. Later changes of the folder are not read: open it again.
    Everything that reads raises UserError naming the damaged file.
    """

    def __init__(
        self, folder: RunFolder, cells: Sequence[CellRecord], plugins: str | Path | Sequence[str | Path]
    ) -> None:
        self.path, self.cells, self.plugins = folder.path, cells, plugins
        self.folder = RunFolder(folder.path.absolute())  # wherever one goes from here
        self._loaded = cache(self._load)

    @cached_property
    def record(self) -> RunRecord:
        """What was requested, on what data, under which protocol, with what code and machine."""
        return self.folder.record

    @property
    def scores(self) -> pd.DataFrame:
        """One row per model, seed and test image: `mse`, `psnr`, `ssim` and the others of `colorbench list metrics`."""
        return self._results.scores

    @property
    def losses(self) -> pd.DataFrame:
        """One row per model, seed, stage, epoch, component and split ("train" or "val"), with its `value`."""
        return self._results.losses

    @property
    def comparison(self) -> pd.DataFrame:
        """comparison.csv: one row per model except ablations, worst MSE first; a failed model has the reason."""
        return comparison.without_ablations(self._compared)

    @property
    def ablations(self) -> pd.DataFrame:
        """ablations.csv: one row per ablation and parent; empty, without scores, if there are none."""
        return comparison.ablations_and_parents(self._compared)

    @property
    def markdown(self) -> str:
        """The tables as `report` last wrote them into the folder."""
        files = (self.folder.path / name for name in ("comparison.md", "ablations.md"))
        return "\n".join(file.read_text(encoding="utf-8") for file in files if file.exists())

    def report(self) -> str:
        """Write the tables and figures into the folder. Returns the tables as Markdown."""
        return report.write(self.folder, self.plugins)

    @cached_property
    def predictions(self) -> Predictions:
        """The kept predictions by model and image name, from each model's first finished seed."""
        kept = [cell.model for cell in self._results.outcomes if PREDICTIONS in cell.files]
        return Predictions(self, dict.fromkeys(kept))

    def pictures(self, model: str, seed: int | None = None) -> Pictures:
        """The kept predictions of a model, from its first finished seed or `seed`. Raises UserError if none."""
        refuse_unknown("model", [model], self._results.models)
        done = [cell for cell in self._results.cells(model, done=True) if seed in (None, cell.seed)]
        if not done or PREDICTIONS not in done[0].files:
            raise UserError(f"{self.path} keeps no predictions of {model}; run the same again, without --predictions")
        scores, cell = self.scores, done[0]
        names = scores.loc[(scores["model"] == model) & (scores["seed"] == cell.seed), "image"]
        file = self.folder.cell_dir(model.partition("@")[0], cell.seed) / PREDICTIONS
        return Pictures(file, cell.files[PREDICTIONS], [*names[: cell.predictions_kept]], self.record.preset.size)

    def colorize(
        self, image: Picture, model: str | None = None, hints: Picture | None = None, intensity: float = 1.0
    ) -> Image.Image:
        """Color a picture of any size with a trained model: the one with the lowest MSE unless one is named.

        A model without parameters, such as one color for all, is only taken if there is no other. See
        `colorbench.colorize`. Raises UserError if there is no such trained model, too.
        """
        from colorbench.harness.recolor import color_picture  # which imports torch

        return color_picture(self._loaded(model or self._best()), image, hints, intensity)

    def _best(self) -> str:
        """The finished network of the lowest MSE: of those with parameters, if there are any."""
        done = [cell for cell in self._results.outcomes if cell.status == DONE]
        networks = {c.model: bool(c.parameters) for c in done if not c.sees_truth and "pictures" not in c.made_from}
        ranked = reversed(self._compared["model"].to_list())  # the worst MSE comes first, those without scores last
        for model in sorted(filter(networks.__contains__, ranked), key=lambda model: not networks[model]):
            return str(model).partition("@")[0]
        raise UserError(f"{self.path} has no finished model that can color a picture; finish the run first")

    def _load(self, model: str) -> Loaded:
        from colorbench.harness.trained import find_model

        return find_model(load(self.plugins), model, None, self.folder.path)

    @cached_property
    def _results(self) -> results.Results:
        return results.read(self.folder)

    @cached_property
    def _compared(self) -> pd.DataFrame:
        return comparison.compare(self._results)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}: {', '.join(self.record.models)})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the comparison, and under which protocol it was made."""
        return markdown.html(self.comparison, self._results)
