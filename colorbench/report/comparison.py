"""Results -> one flat frame, a row per model: what comparison.csv holds and the Markdown shows."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from colorbench.errors import one_line
from colorbench.protocol import SCORES
from colorbench.report import statistics
from colorbench.report.results import Results
from colorbench.report.selection import selections
from colorbench.runs.records import DONE, CellRecord

RATES = {"step_1": "train_1", "step_n": "train_n", "infer_1": "infer_1", "infer_n": "infer_n"}  # timing -> column
UNSTEADY_IQR, FEWEST_ROUNDS = 0.10, 5  # a timing is unreliable above the one (of the median), or below the other
POSSIBLE = {"mse": (0.0,), "ssim": (-1.0, 1.0), "ciede2000": (0.0,), "colorfulness": (0.0,)}  # least, and most
AUTOMATIC = "automatic"  # of a model that had L alone where others had more
NO_DIFFERENCE, ONE_SEED = "no clear difference", "one seed: no verdict"
COUNTS = ("images", "seeds_done", "seeds_asked", "parameters", "macs", "images_seen", "base_images_seen", "batch_n")


def compare(results: Results) -> pd.DataFrame:
    """A row per model that the record names: worst MSE first, those without scores last.

    Columns: `model`, `status`, `made` and `trained`, "elsewhere" if that is so, `given`, what a model had beside L,
    where some had more than L; the counts; each score with the ends of its interval (`mse`, `mse_low`, `mse_high`),
    `psnr_pooled`, too, and `psnr_batch8`; `SCORE_infinite`, how many images were left out of a mean, where there are
    any; `skill`, 1 - MSE / MSE of the model whose `anchor` is "floor", and `to_bound_percent`, where its MSE stands
    between that and the "bound"; `gain_percent`, `gain_percent_low`, `gain_percent_high` in MSE over the model in
    `reference`, `psnr_gain` in dB and `ssim_gain` with their ends, and `wins_percent` of the pairs of seed and image;
    the same over the parent of an ablation (`parent_gain_percent`, ...), with `parent_p`, which Holm corrected over all
    ablations, and `parent_verdict`, and over what it refines (`base_gain_percent`, ...), with `base_images_seen`, the
    images that the base saw in training; `val_mse`, of the validation images, and whether the row is `selected` by it
    among those that differ in one option; costs, rates in images per second (`train_1`, `infer_n`: at batch 1 and at
    `batch_n`); and last what was run on what, so that rows of several runs can be put together. What a row has no value
    for is empty.
    """
    scores = _scores(results)
    models = list(results.models)
    blocks = (
        [_standing(results, model) for model in models],
        [scores.get(model, {}) for model in models],
        [_validation(results, model) for model in models],
        [_cost(results, model) for model in models],
        [_identity(results, model) for model in models],
    )
    frame = pd.concat([pd.DataFrame(rows, index=models) for rows in blocks], axis=1)
    frame = frame.astype({name: "Int64" for name in COUNTS if name in frame})
    if "parent_p" in frame:
        frame["parent_p"] = statistics.holm(frame["parent_p"])
        frame["parent_verdict"] = [_verdict(row) for _, row in frame.iterrows()]
    if "mse" not in frame:
        return frame.reset_index(drop=True)
    return frame.sort_values("mse", ascending=False, na_position="last", kind="stable", ignore_index=True)


def status(cells: Sequence[CellRecord]) -> str:
    """How many of a model's seeds are done, and why the others are not: "2 of 3 seeds; seed 2 failed: reason"."""
    said = {cell.seed: outcome(cell) for cell in cells if cell.status != DONE}
    if not said:
        return DONE
    if len(said) == len(cells) and len(set(said.values())) == 1:
        return next(iter(said.values()))
    seeds = "; ".join(f"seed {seed} {why}" for seed, why in said.items())
    return f"{len(cells) - len(said)} of {len(cells)} seeds; {seeds}"


def outcome(cell: CellRecord) -> str:
    """The status of a cell that is not done, and its reason."""
    reason = one_line(cell.reason or "no reason given")
    return reason if reason.startswith(cell.status) else f"{cell.status}: {reason}"


def _standing(results: Results, model: str) -> dict[str, Any]:
    cells, done = results.cells(model), results.cells(model, done=True)
    kept = {"kept": "; ".join(results.kept[model])} if model in results.kept else {}
    kept |= {"sees_truth": "yes"} if any(cell.sees_truth for cell in cells) else {}
    made = {"made": "elsewhere"} if any("pictures" in cell.made_from for cell in cells) else {}
    if cells and "weights" in cells[0].made_from:
        made["trained"] = f"elsewhere, on {cells[0].trained_on}" if cells[0].trained_on else "elsewhere"
    made |= {"given": _given(done)} if results.gives_inputs and done else {}
    return {"model": model, "status": status(cells), **kept, **made, "seeds_done": len(done), "seeds_asked": len(cells)}


def _given(cells: Sequence[CellRecord]) -> str:
    """What a model had beside L, in words."""
    if any(cell.sees_truth for cell in cells):
        return "the truth"
    return ", ".join(dict.fromkeys(name for cell in cells for name in cell.given)) or AUTOMATIC


def _scores(results: Results) -> dict[str, dict[str, Any]]:
    """By model, the statistics of its images' scores."""
    if results.scores.empty:
        return {}
    cells = statistics.by_cell(results.scores, [*SCORES, *results.extra])
    ends = [anchored(results, "floor"), anchored(results, "bound")]
    rows = {}
    for model in cells:
        row = rows[model] = _means(statistics.paired(cells, model)[0]) | _on_scale(cells, model, ends)
        row |= _over_set(results.set_scores, model)
        for relation, other in _others(results, model, cells).items():
            prefix = "" if relation == "reference" else f"{relation}_"
            row[relation] = other
            if both := statistics.paired(cells, model, other):
                row |= {f"{prefix}{name}": value for name, value in _gain(*both).items()}
            if both and relation == "parent":
                row["parent_p"] = _p(*both)
            if relation == "base":
                row["base_images_seen"] = results.cells(other, done=True)[0].images_seen
    return rows


def _validation(results: Results, model: str) -> dict[str, Any]:
    if results.val_scores.empty:
        return {}
    own = results.val_scores.loc[results.val_scores["model"] == model, "mse"]
    chosen = [selection.option for selection in selections(results) if selection.best == model]
    return {"val_mse": own.mean(), "selected": ", ".join(chosen) or None}


def anchored(results: Results, anchor: str) -> str:
    """The first model with scores of this anchor, "floor" or "bound"; "" if there is none."""
    return next((cell.model for cell in results.outcomes if cell.status == DONE and cell.anchor == anchor), "")


def _on_scale(cells: statistics.Cells, model: str, ends: Sequence[str]) -> dict[str, float]:
    """How far the model is above the floor, and on the way from there to the bound, as far as there are these two."""
    row: dict[str, float] = {}
    for names, name, statistic in ((ends[:1], "skill", _skill), (ends, "to_bound_percent", _to_bound)):
        if all(names) and (found := statistics.paired(cells, model, *names)):
            row |= statistics.estimate([columns["mse"] for columns in found], statistic).fields(name)
    return row


def _skill(mse: Any, floor: Any) -> Any:
    return statistics.gain(mse, floor) / 100


def _to_bound(mse: Any, floor: Any, bound: Any) -> Any:
    return np.where(floor > bound, 100 * (floor - mse) / (floor - bound), np.nan)


def _others(results: Results, model: str, scored: Container[str]) -> dict[str, str]:
    """What a model is compared with: the first one with scores that is marked as reference, its base, its parent."""
    reference = next((cell.model for cell in results.outcomes if cell.status == DONE and cell.reference), model)
    base = results.cells(model, done=True)[0].refines
    found = {"reference": "" if reference == model else reference, "base": base or "", "parent": parent_of(model)}
    return {relation: other for relation, other in found.items() if other in scored}


def parent_of(model: str) -> str:
    """The model that an ablation, named parent/change, changes; "" for any other model."""
    return model.rpartition("/")[0]


def without_ablations(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of comparison.csv."""
    rows = _rows(frame, frame["model"].map(parent_of) == "")
    return rows.drop(columns=[name for name in frame if str(name).startswith("parent")])


def ablations_and_parents(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of ablations.csv; if there is no ablation none, with the columns `model` and `status` alone."""
    parents = frame["model"].map(parent_of)
    if not parents.any():
        return frame.loc[[], ["model", "status"]]
    return _rows(frame, (parents != "") | frame["model"].isin(parents))


def _rows(frame: pd.DataFrame, chosen: pd.Series) -> pd.DataFrame:
    """The chosen rows; with a column `kept` only if one of them is."""
    rows = frame[chosen]
    return rows.drop(columns=["kept"]) if "kept" in rows and rows["kept"].isna().all() else rows


def family_of(model: str) -> str:
    """The model that an ablation changes; any other model itself."""
    return parent_of(model) or model


def _means(own: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """One model's scores, each (S, I)."""
    row: dict[str, Any] = {"images": own["mse"].shape[1]}
    for metric, values in own.items():
        row |= statistics.estimate([values]).fields(metric, *POSSIBLE.get(metric, ()))
        if infinite := int(np.isinf(values).any(0).sum()):
            row[f"{metric}_infinite"] = infinite
        if metric == "psnr":
            row |= statistics.estimate([own["mse"]], statistics.psnr).fields("psnr_pooled")
            row["psnr_batch8"] = statistics.psnr_batched(own["mse"].mean(0))
    means = own["mse"].mean(1)
    return row | {"mse_seed_sd": means.std(ddof=1) if len(means) > 1 else np.nan}


def _over_set(set_scores: pd.DataFrame, model: str) -> dict[str, float]:
    """A model's scores over the set, and the ends of those that have an interval, each the mean over the seeds."""
    row: dict[str, float] = {}
    if set_scores.empty:
        return row
    with np.errstate(invalid="ignore"):  # between infinite values
        for metric, cells in set_scores[set_scores["model"] == model].groupby("metric", sort=False):
            value, low, high = cells[["value", "low", "high"]].to_numpy().mean(axis=0)
            row |= {str(metric): value, f"{metric}_low": low, f"{metric}_high": high}
    return row


def _gain(own: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Of MSE what it is smaller by, in percent of the other's; of PSNR and SSIM the difference."""
    row = statistics.estimate([own["mse"], other["mse"]], statistics.gain).fields("gain_percent")
    row["wins_percent"] = 100 * float((own["mse"] < other["mse"]).mean())
    for metric in ("psnr", "ssim"):
        row |= statistics.estimate([own[metric], other[metric]], np.subtract).fields(f"{metric}_gain")
    return row


def _p(own: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> float:
    """Of no gain in MSE; NaN with one seed, which tells nothing of the others."""
    return statistics.estimate([own["mse"], other["mse"]], statistics.gain).p() if len(own["mse"]) > 1 else np.nan


def _verdict(row: pd.Series) -> str | None:
    """What may be said of an ablation's gain over its parent; None without a gain."""
    if pd.isna(row["parent_p"]):
        return None if pd.isna(row["parent_gain_percent"]) else ONE_SEED
    if row["parent_p"] > 1 - statistics.CONFIDENCE:
        return NO_DIFFERENCE
    return "better" if row["parent_gain_percent"] > 0 else "worse"


def _cost(results: Results, model: str) -> dict[str, Any]:
    done, timing = results.cells(model, done=True), results.timings.get(model)
    row: dict[str, Any] = {}
    if done and "pictures" not in done[0].made_from:
        row["parameters"] = done[0].parameters
        row["training_seconds"] = float(np.mean([cell.seconds for cell in done]))
        row["images_seen"] = done[0].images_seen
    if timing is None or timing.failed is not None:
        return row
    row |= {"macs": timing.macs, "batch_n": timing.batch}
    unsteady = []
    for name, column in RATES.items():
        row[column] = np.nan
        if measured := getattr(timing, name):
            row[column] = (timing.batch if name.endswith("_n") else 1) / measured.median
            if measured.iqr > UNSTEADY_IQR * measured.median or measured.rounds < FEWEST_ROUNDS:
                unsteady.append(column)
    row |= {"peak_memory_mib": timing.peak_memory_mib, "peak_memory_of": timing.peak_memory_of}
    return row | {"unreliable": " ".join(unsteady) or None}


def _identity(results: Results, model: str) -> dict[str, Any]:
    record, preset, done = results.record, results.record.preset, results.cells(model, done=True)
    ids = [cell.environment for cell in done] + [
        results.timings[model].environment if model in results.timings else None
    ]
    return {
        "protocol": record.protocol.name,
        "protocol_id": record.protocol.id,
        "data": record.data.name,
        "data_fingerprint": record.data.fingerprint,
        "preset": preset.name,
        "size": preset.size,
        "width": done[0].width if done else np.nan,
        "epochs": preset.epochs,
        "batch_size": preset.batch_size,
        "seeds": " ".join(str(cell.seed) for cell in done) or None,
        "environments": " ".join(dict.fromkeys(filter(None, ids))) or None,
    }
