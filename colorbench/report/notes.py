"""What a reader must know beside the numbers: the line under the table, the notes, the published figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import msgspec
import pandas as pd

from colorbench.report.comparison import AUTOMATIC, FEWEST_ROUNDS, NO_DIFFERENCE, UNSTEADY_IQR, anchored, outcome
from colorbench.report.results import Results
from colorbench.report.selection import selections
from colorbench.runs.identity import differences, shown
from colorbench.runs.records import DONE, CellRecord, Environment, RunRecord

PUBLISHED = (
    "What papers print, measured on other data: not to be compared with the rows above. Nor is the PSNR to be compared "
    "from row to row: it is not aggregated in the same way in each, as the PSNR of the printed MSE shows."
)
MOST_NAMES = 3  # files, models or the like that a note names; the record has all


def made_with(results: Results) -> str:
    """One line: protocol, data, preset, seeds, and the environment if there was one only."""
    record = results.record
    protocol, data, preset, seeds = record.protocol, record.data, record.preset, record.seeds
    images = ", ".join(f"{split.images} {name}" for name, split in data.splits.items())
    used = [*_environments(results)]
    made = f"{len(used)} environments, see the notes of comparison.md" if used else "nothing finished yet"
    if len(used) == 1:
        made = _environment(record.environments[used[0]])
    training = f", width {preset.width:g}, {_count(preset.epochs, 'epoch', 'epochs')}, batch size {preset.batch_size}"
    if "train" not in data.splits and not record.trained:
        training = ""  # nothing was
    return (
        f"Protocol {protocol.name} ({protocol.id}); data {data.name} ({data.fingerprint}): {images} images; "
        f"preset {preset.name}: {preset.size} px{training}; {'seeds' if len(seeds) > 1 else 'seed'} "
        f"{', '.join(map(str, seeds))}; {made}."
    )


def notes(frame: pd.DataFrame, results: Results) -> list[str]:
    """The sentences under the tables, the general ones first."""
    return [
        *_reading(frame, results),
        *_left_out(frame, results.extra),
        *_metrics(frame, results),
        *_failures(frame, results),
        *_models(frame, results),
        *(selection.sentence() for selection in selections(results)),
        *of_rows(frame, results),
        *_environments_and_timings(frame, results),
        *_data(results.record),
    ]


def of_ablations(frame: pd.DataFrame, results: Results) -> list[str]:
    """The sentences under the table of ablations, of which `frame` has the rows."""
    return [
        *_remaining(frame),
        *intervals(frame["model"], results),
        "The gain is in MSE, paired by image and seed; below zero the ablation is worse than its parent. Costs and "
        "speeds are multiples of the parent's.",
        *_said(list(frame["model"]), results),
        *(selection.sentence() for selection in selections(results)),
        *of_rows(frame, results),
    ]


def _remaining(frame: pd.DataFrame) -> Iterator[str]:
    """How many of the ablations differ from their parents, and how many would by their intervals alone."""
    if "parent_p" not in frame or not (tested := frame["parent_p"].notna()).any():
        return
    low, high = (frame[f"parent_gain_percent_{end}"] for end in ("low", "high"))
    alone = (tested & ((low > 0) | (high < 0))).sum()
    clear = (tested & (frame["parent_verdict"] != NO_DIFFERENCE)).sum()
    yield (
        f"Of {_count(tested.sum(), 'row', 'rows')} {clear} {'remains' if clear == 1 else 'remain'} after Holm's "
        f"correction at 5 %: these are called better or worse. By their intervals alone, as if there were no other "
        f"rows, {alone} would be."
    )


def intervals(models: Iterable[str], results: Results) -> Iterator[str]:
    """What the intervals of these rows cover."""
    seeds = {model: len(results.cells(model, done=True)) for model in models}
    single = [model for model, count in seeds.items() if count == 1]
    if max(seeds.values(), default=0) > 1:
        yield (
            "In brackets: 95 % intervals over test images and training seeds together: where the number would lie on "
            "other images of the same source, with other seeds."
            + (" With two seeds they may be wider than need be, and cover up to 98 %." if 2 in seeds.values() else "")
        )
    if single:
        which = listed(single) if len(single) < len([*filter(None, seeds.values())]) else "all rows"
        yield (
            f"Of one seed: {which}. Their intervals cover the choice of test images alone; what another seed "
            "would change is unknown."
        )


def of_rows(frame: pd.DataFrame, results: Results) -> Iterator[str]:
    """Which rows of `frame` saw the truth, were given options, or are not what would be made now, and in what the rows
    of one model differ."""
    if seeing := [row for row in frame["model"] if any(cell.sees_truth for cell in results.cells(row))]:
        yield f"Made from the true colors, which no colorization has, and never in bold: {', '.join(seeing)}."
    ways: dict[str, list[str]] = {}
    for row in frame["model"]:
        for cell in results.cells(row, done=True)[:1]:
            if cell.options_given and not cell.sweep:  # of a sweep the name says it
                given = ", ".join(f"{key} {shown(value)}" for key, value in cell.options_given.items())
                yield f"{row} was made with the option {given}."
        if why := results.kept.get(row):
            yield f"† {row} is used as it was made, though it would be made otherwise now: {'; '.join(why)}."
        if "@" in row:
            ways.setdefault(row.partition("@")[0], []).append(row)
    for model, (first, *others) in ways.items():
        yield f"The seeds of {model} were not all made in one way: rows of their own, of which no mean is taken."
        for other in others:
            there, here = (_made_from(results.cells(row, done=True)[0]) for row in (first, other))
            yield f"From {first} to {other}: {'; '.join(differences(there, here)) or 'nothing that is recorded'}."


def _made_from(cell: CellRecord) -> dict[str, Any]:
    """What made a cell, but for its seed and the weights, which depend on the seed, of what it builds on."""
    code = cell.predicted_with or "as trained"
    fields: dict[str, Any] = {**cell.made_from, "seed": None, "code that predicts": code}
    return fields | {name: {**fields[name], "weights": None} for name in ("base", "trained_as") if name in fields}


def published(results: Results) -> list[dict[str, Any]]:
    """A row per model for which a paper prints figures, in the record's order."""
    figures = {cell.model: cell.published for cell in results.outcomes if cell.published}
    return [{"model": model, **asdict(printed)} for model, printed in figures.items()]


def _reading(frame: pd.DataFrame, results: Results) -> Iterator[str]:
    if not (frame["seeds_done"] > 0).any():
        return
    yield from intervals(frame["model"], results)
    yield "PSNR is the mean over images; its other two aggregations are under More scores."
    yield from _other_seeds(frame, results)
    if "gain_percent" in frame and frame["gain_percent"].notna().any():
        yield (
            "The gain is paired: the same images and seeds for both models. Images are won where the MSE is below that "
            f"of {frame['reference'].dropna().iloc[0]}, of all images of all seeds."
        )
    yield from _given(frame, results)
    if floor := anchored(results, "floor"):
        bound = anchored(results, "bound")
        yield f"Skill: 1 - MSE / MSE of {floor}." + (f" To the bound: 0 % is {floor}, 100 % {bound}." if bound else "")


def _given(frame: pd.DataFrame, results: Results) -> Iterator[str]:
    """What some models were given beside L, and which had none of it."""
    if "given" not in frame:
        return
    alone = frame["given"] == AUTOMATIC
    hinted = frame["given"].str.contains(r"\bhints\b", na=False)
    settings = results.record.protocol.settings
    if points := settings.get("hints"):
        side, which = settings.get("hint_size"), ", ".join(frame.loc[hinted, "model"]) or "no model, for none takes any"
        yield (
            f"Hints: {points} in each image, of {side} x {side} px with the mean of their true ab, the same for every "
            f"model. Given to: {which}."
        )
    if alone.any() and not alone[frame["given"].notna()].all():
        yield (
            f"Automatic, from L alone, and not to be compared with rows that had more: "
            f"{', '.join(frame.loc[alone, 'model'])}."
        )


def _other_seeds(frame: pd.DataFrame, results: Results) -> Iterator[str]:
    """Which rows have other seeds than most of them have."""
    seeds = {model: tuple(cell.seed for cell in results.cells(model, done=True)) for model in frame["model"]}
    having = [own for own in seeds.values() if own]
    most = max(having, key=having.count)
    for other in sorted({own for own in having if own != most}):
        models = ", ".join(model for model, own in seeds.items() if own == other)
        yield f"Seeds of {models}: {', '.join(map(str, other))}; of most rows: {', '.join(map(str, most))}."


def _left_out(frame: pd.DataFrame, extra: Sequence[str]) -> Iterator[str]:
    for name in frame.columns[frame.columns.str.endswith("_infinite")]:
        metric = "PSNR" if name == "psnr_infinite" else name.removesuffix("_infinite")
        counts = [f"{row['model']} {row[name]:.0f}" for _, row in frame[frame[name].notna()].iterrows()]
        yield f"{metric} is infinite for some images, which its mean leaves out: {', '.join(counts)}."
    for name in extra:
        if absent := list(frame.loc[(frame["seeds_done"] > 0) & frame[name].isna(), "model"]):
            yield f"No mean of {name} for {', '.join(absent)}: some image has no value of it."


def _metrics(frame: pd.DataFrame, results: Results) -> Iterator[str]:
    """What the metrics of plugins want the reader to know, and which of them were left out."""
    if over_set := results.over_set:
        yield f"Over the whole test set, not image by image: {', '.join(over_set)}."
        if any(name in frame and frame[f"{name}_low"].notna().any() for name in over_set):
            yield (
                "Their intervals, where there are any, are of resamples of the test images, too; with several seeds "
                "each end is the mean over them."
            )
    known = {*results.extra, *over_set}
    for name, metric in results.record.metrics.items():
        if metric.left_out:
            yield f"{name} is left out: {metric.left_out.rstrip('.')}."
        elif name in known:
            yield from (f"{name}: {note.rstrip('.')}." for note in metric.notes)


def _failures(frame: pd.DataFrame, results: Results) -> Iterator[str]:
    for cell in results.outcomes:
        if cell.status != DONE and cell.model in set(frame["model"]):
            yield f"{cell.model}, seed {cell.seed}, {outcome(cell).rstrip('.')}."


def _models(frame: pd.DataFrame, results: Results) -> Iterator[str]:
    preset, models = results.record.preset, [model for model in results.models if model in set(frame["model"])]
    for model in models:
        done = results.cells(model, done=True)
        for width in dict.fromkeys(cell.width for cell in done):
            if width != preset.width:
                yield f"{model} has width {width:g}, not the preset's {preset.width:g}."
        if done and (file := done[0].made_from.get("weights")):
            on = f", trained on {done[0].trained_on}" if done[0].trained_on else ""
            yield f"{model} was not trained: published weights {file['file']} (SHA-256 {file['sha256'][:12]}){on}."
        if done and (base := done[0].refines):
            yield f"{model} refines {base}: its training comes on top of that of {base}."
    yield from _said(models, results)


def _said(models: Sequence[str], results: Results) -> Iterator[str]:
    """What the networks of these models want the reader to know, once for all that say the same."""
    said: dict[str, list[str]] = {}
    for model in models:
        for note in dict.fromkeys(note for cell in results.cells(model, done=True) for note in cell.notes):
            said.setdefault(note, []).append(model)
    for note, by in said.items():
        yield f"{listed(by)}: {note.rstrip('.')}."


def _environments_and_timings(frame: pd.DataFrame, results: Results) -> Iterator[str]:
    if len(used := _environments(results)) > 1:
        told: dict[str, str] = {}
        for key, what in used.items():
            text = _environment(results.record.environments[key])
            if (first := told.setdefault(text, key)) != key:  # they differ in what is not said of either
                there, here = (msgspec.to_builtins(results.record.environments[name]) for name in (first, key))
                changed = differences({"environment": there}, {"environment": here})
                text += f"; from {first} it differs in {listed([*changed], '; ')}"
            yield f"Environment {key} ({listed(what)}): {text}."
    for model, timing in results.timings.items():
        if timing.failed is not None:
            yield f"{model} could not be timed: {timing.failed.rstrip('.')}."
    if "unreliable" in frame and frame["unreliable"].notna().any():
        yield (
            f"~ marks an unreliable timing: its quartiles lie more than {UNSTEADY_IQR * 100:.0f} % of the median "
            f"apart, or it has fewer than {FEWEST_ROUNDS} rounds."
        )
    if "peak_memory_of" in frame:
        for of, rows in frame.groupby("peak_memory_of"):
            whose = "" if frame["peak_memory_of"].nunique() == 1 else f" of {', '.join(rows['model'])}"
            yield f"The peak memory{whose} is that of the {of}."


def _data(record: RunRecord) -> Iterator[str]:
    if trained := record.trained:
        data = f"{trained.name} ({trained.fingerprint})"
        yield f"Nothing was trained here: the weights are those of the run {trained.run}, trained on {data}."
        if seen := trained.seen:
            yield f"{_count(seen, 'of these images was', 'of these images were')} trained on in that run."
    for name, split in record.data.splits.items():
        said = []
        if grey := split.near_grey:
            fate = ", left out of training" if name == "train" else ""
            said.append(f"{_count(grey, 'image is', 'images are')} near grey{fate}")
        if leaked := split.also_in_train:
            said.append(f"{_count(leaked, 'image is', 'images are')} also in train")
        if unreadable := split.unreadable:
            count = _count(len(unreadable), "file that cannot be read is", "files that cannot be read are")
            said.append(f"{count} left out: {listed([f'{file} ({why})' for file, why in unreadable.items()])}")
        if said:
            yield f"In {name}, {'; '.join(said)}."


def listed(names: list[str], between: str = ", ") -> str:
    """The first names, and how many more there are."""
    more = [f"{len(names) - MOST_NAMES} more"] if len(names) > MOST_NAMES else []
    return between.join(names[:MOST_NAMES] + more)


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _environments(results: Results) -> dict[str, list[str]]:
    """Which finished cells and timings came from which environment."""
    used: dict[str, list[str]] = {}
    for cell in results.outcomes:
        if cell.status == DONE:
            used.setdefault(cell.environment, []).append(f"{cell.model} seed {cell.seed}")
    for model, timing in results.timings.items():
        if timing.failed is None:
            used.setdefault(timing.environment, []).append(f"{model} timing")
    return used


def _environment(env: Environment) -> str:
    code, packages = env.code, env.packages
    accelerators = [f"{env.accelerators.count(name)} x {name}" for name in dict.fromkeys(env.accelerators)]
    processes = [f"{env.processes} processes"] if env.processes > 1 else []
    precision = "float32" if env.precision == "no" else env.precision
    versions = [f"{name} {packages[name]}" for name in ("colorbench", "torch") if packages.get(name)]
    commit = f"commit {code.commit[:12]}" if code.commit else f"code {code.fingerprint} of no commit"
    return ", ".join(
        [
            *accelerators, env.cpu, f"{env.cores} cores", f"{env.memory_gib} GiB",
            f"computed on {env.device}, training in {precision}", *processes,
            *versions, f"Python {env.python}", commit + (" with uncommitted changes" if code.dirty else ""),
        ]
    )  # fmt: skip
