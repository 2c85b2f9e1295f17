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
from colorbench.runs.records import DONE, CellRecord

RATES = {"step_1": "train_1", "step_n": "train_n", "infer_1": "infer_1", "infer_n": "infer_n"}  # timing -> column
UNSTEADY_IQR, FEWEST_ROUNDS = 0.10, 5  # a timing is unreliable above the one (of the median), or below the other
# 97.5 % quantiles of Student's t for so many seeds; more seeds than that use the last.
STUDENT = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
COUNTS = ("images", "seeds_done", "seeds_asked", "parameters", "macs", "images_seen", "base_images_seen", "batch_n")


def compare(results: Results) -> pd.DataFrame:
    """A row per model that the record names: worst MSE first, those without scores last.

    Columns: `model`, `status`, the counts; each score with the ends of its interval (`mse`, `mse_low`, `mse_high`),
    PSNR also `psnr_pooled` and `psnr_batch8`; `SCORE_infinite`, how many images were left out of a mean, where there
    are any; `gain_percent`, `gain_percent_low`, `gain_percent_high` in MSE over the model in `reference`, `psnr_gain`
    in dB and `ssim_gain` with their ends, and `wins_percent` of the images; the same over the parent of an ablation
    (`parent_gain_percent`, ...), with `parent_verdict`, and over what it refines (`base_gain_percent`, ...), with
    `base_images_seen`, the images that the base saw in training; costs, rates
    in images per second (`train_1`, `infer_n`: at batch 1 and at `batch_n`); and last what was run on what, so that
    rows of several runs can be put together. What a row has no value for is empty.
    """
    scores = _scores(results)
    models = list(results.models)
    blocks = (
        [_standing(results, model) for model in models],
        [scores.get(model, {}) for model in models],
        [_cost(results, model) for model in models],
        [_identity(results, model) for model in models],
    )
    frame = pd.concat([pd.DataFrame(rows, index=models) for rows in blocks], axis=1)
    frame = frame.astype({name: "Int64" for name in COUNTS if name in frame})
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
    made = {"made": "elsewhere"} if any("pictures" in cell.made_from for cell in cells) else {}
    return {"model": model, "status": status(cells), **kept, **made, "seeds_done": len(done), "seeds_asked": len(cells)}


def _scores(results: Results) -> dict[str, dict[str, Any]]:
    """By model, the statistics of its images' scores, each image's first averaged over the seeds that are done."""
    if results.scores.empty:
        return {}
    cells = statistics.by_cell(results.scores, [*SCORES, *results.extra])
    others = {model: _others(results, model, cells) for model in cells}
    pairs = [(model, other) for model in cells for other in (model, *others[model].values())]
    samples = statistics.paired(cells, pairs)
    mse = {model: {seed: rows["mse"].mean() for seed, rows in seeds.items()} for model, seeds in cells.items()}
    rows = {}
    for model in cells:
        row = rows[model] = _means(samples[model, model][0]) | {"mse_seed_sd": _spread([*mse[model].values()])}
        for relation, other in others[model].items():
            prefix = "" if relation == "reference" else f"{relation}_"
            gains = _gain(*samples[model, other]) if (model, other) in samples else {}
            row |= {relation: other} | {f"{prefix}{name}": value for name, value in gains.items()}
            if relation == "base":
                row["base_images_seen"] = results.cells(other, done=True)[0].images_seen
            if prefix:
                row[f"{prefix}seed_noise_percent"] = _seed_noise(mse[model], mse[other])
            if relation == "parent" and gains:
                row["parent_verdict"] = _verdict(row)
    return rows


def _others(results: Results, model: str, scored: Container[str]) -> dict[str, str]:
    """What a model is compared with: the first one with scores that is marked as reference, its base, its parent."""
    reference = next((cell.model for cell in results.outcomes if cell.status == DONE and cell.reference), model)
    base = results.cells(model, done=True)[0].refines
    found = {"reference": "" if reference == model else reference, "base": base or "", "parent": parent_of(model)}
    return {relation: other for relation, other in found.items() if other in scored}


def parent_of(model: str) -> str:
    """The model that an ablation, named parent/change, changes; "" for any other model."""
    return model.rpartition("/")[0]


def family_of(model: str) -> str:
    """The model that an ablation changes; any other model itself."""
    return parent_of(model) or model


def _seed_noise(mse: Mapping[int, float], other: Mapping[int, float]) -> float:
    """Half of the 95 % interval, over seeds, of the difference in mean MSE, in percent of the other's.

    A smaller difference may be the seeds' doing. Student's t, since seeds are few. NaN below two common seeds.
    """
    common = mse.keys() & other.keys()
    if len(common) < 2:
        return np.nan
    error = _spread([mse[seed] - other[seed] for seed in common]) / len(common) ** 0.5
    return float(100 * STUDENT[min(len(common), max(STUDENT))] * error / np.mean([other[seed] for seed in common]))


def _means(sample: statistics.Sample) -> dict[str, Any]:
    """One model's scores."""
    row: dict[str, Any] = {"images": len(sample.values)}
    for metric, values in sample.values.items():
        row |= statistics.with_ends(str(metric), sample.means[metric], len(values))
        if infinite := int(np.isinf(values).sum()):
            row[f"{metric}_infinite"] = infinite
        if metric == "psnr":
            mse = sample.values["mse"].to_numpy()
            row |= {"psnr_pooled": float(statistics.psnr(mse.mean())), "psnr_batch8": statistics.psnr_batched(mse)}
    return row


def _gain(own: statistics.Sample, other: statistics.Sample) -> dict[str, float]:
    """Of MSE what it is smaller by, in percent of the other's; of PSNR and SSIM the difference."""
    images = len(own.values)
    row = statistics.with_ends("gain_percent", statistics.gain(own.means["mse"], other.means["mse"]), images)
    row["wins_percent"] = 100 * float((own.values["mse"] < other.values["mse"]).mean())
    for metric in ("psnr", "ssim"):
        row |= statistics.with_ends(f"{metric}_gain", own.means[metric] - other.means[metric], images)
    return row


def _verdict(row: Mapping[str, Any]) -> str | None:
    """What may be said of an ablation's gain over its parent: the seeds come first, then the test images."""
    gain, noise = row["parent_gain_percent"], row["parent_seed_noise_percent"]
    if np.isnan(gain):
        return None
    if abs(gain) <= noise:
        return "inside seed noise"
    if row["parent_gain_percent_low"] <= 0 <= row["parent_gain_percent_high"]:
        return "no clear difference"
    if np.isnan(noise):
        return "one seed: its noise is unknown"
    return "better" if gain > 0 else "worse"


def _spread(means: list[float]) -> float:
    return float(np.std(means, ddof=1)) if len(means) > 1 else np.nan


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
