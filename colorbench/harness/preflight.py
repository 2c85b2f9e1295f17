"""All that can be found out about a model before anything is trained, and how long its training will take."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from colorbench import hints
from colorbench.color import bytes_to_lab, luminance, recombine
from colorbench.contract import Batch, Stage
from colorbench.data.cache import Images, open_images
from colorbench.data.loader import Loader, arrays_at
from colorbench.errors import UserError, reason, whatever_raised
from colorbench.harness.cell import Cell, network_before_training, width_of
from colorbench.harness.elsewhere import matched
from colorbench.harness.networks import (
    build,
    build_published,
    misfit,
    refuse_misspelt,
    trained_state,
    untrained,
)  # fmt: skip
from colorbench.harness.optimizers import learning_rate
from colorbench.harness.predict import BATCH, SAME_AB, check_answers, colorize, inputs_of
from colorbench.harness.stepper import Stepper, check_stages, frozen, take_statistics
from colorbench.harness.throughput import timed_batch, timing_seconds
from colorbench.metrics import score, score_batch
from colorbench.metrics.extra import compute, join, with_statistics
from colorbench.metrics.pair import Pair
from colorbench.options import without_files
from colorbench.protocol import Protocol
from colorbench.runs.context import CellRequest, Plugins
from colorbench.seeds import seed_for

MOST = 2000  # training images that a metric sees: more change its statistics little, and cost each command


@dataclass(frozen=True)
class Estimate:
    """What a cell will cost: seconds of training, of prediction and of its throughput timing, and bytes of weights."""

    training: float
    prediction: float
    timing: float
    weights: int


def check_model(request: CellRequest) -> Estimate:
    """Build a model, take a step of every stage on training images, and color two test images.

    Its base, if it refines one, is an untrained one; of what was made elsewhere the names are matched. Raises
    whatever is wrong with it.
    """
    cell = Cell(request)
    spec, where = cell.spec, cell.accelerator.device
    if spec.pictures:
        matched(spec.pictures, cell.test.names)
        return Estimate(0, 0, 0, 0)
    preset = request.preset
    base = untrained(cell.registry, spec.refines, preset.width, preset.size).to(where) if spec.refines else None
    network = network_before_training(cell, base)
    refuse_misspelt(network)
    network.to(where).to(memory_format=torch.channels_last)
    L, inputs = inputs_of(spec, cell.test, slice(2), where, request.protocol)
    colorize(network, L, **inputs)  # first, since an answer of another shape is the best reason for what its losses do
    if spec.takes:
        colorize(network, L)  # which it has alone under another protocol, or with other data
    check_stages(network, cell.stages)
    steps = [_steps(cell, network, stage) for stage in cell.stages]
    check_answers(network, L, **inputs)
    _check_without_files(cell, network, base, {"L": L} | inputs)
    started = time.perf_counter()
    colorize(network, L, **inputs)
    _synchronize()
    image = (time.perf_counter() - started) / len(L)
    timing = timing_seconds(steps[-1][1] if steps else 0.0, image * timed_batch(preset))
    weights = sum(tensor.nbytes for tensor in trained_state(network, base).values())
    return Estimate(sum(count * step for count, step in steps), image * len(cell.test), timing, weights)


@dataclass(frozen=True)
class PublishedRequest:
    """Published weights that a model shall take."""

    plugins: Plugins
    model: str
    size: int
    file: Path


def check_weights(request: PublishedRequest) -> None:
    """Load published weights. Raises UserError when they, or the model, are not fit for it."""
    (spec,) = request.plugins.load().find("model", [request.model])
    try:
        build_published(spec, request.size, request.file)
    except whatever_raised() as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{request.model!r} cannot be built for --weights {request.file}: {reason(error)}") from error


def check_protocol(protocol: Protocol) -> None:
    """Score two pictures under a protocol. Raises UserError if one of its fields says what the code does not know, if
    nothing is left to score at its size, or if its numbers lead to none."""
    L = torch.full((1, 1, protocol.size, protocol.size), 50.0)
    protocol.choose("hint_places", hints.PLACES)
    try:
        picture, truth = (recombine(L * share, torch.cat((L, L), dim=1), protocol) for share in (1.0, 0.5))
        luminance(picture, protocol)
        if protocol.hints:
            hints.draw(torch.cat((L, L), dim=1), [""], protocol)
        scores = score(picture, truth, protocol=protocol)
        if wrong := [str(name) for name in scores if not np.isfinite(scores[name]).all()]:
            raise ValueError(f"{', '.join(wrong)} would be no number")
    except (ValueError, OverflowError, ZeroDivisionError) as error:
        where = f"protocol {protocol.name} at {protocol.size} px"
        raise UserError(f"{where}: {reason(error)}; take larger images, or correct its fields") from error


def check_metrics(request: CellRequest) -> dict[str, np.ndarray]:
    """What metrics make of the training images, by name, for those that ask; all are then computed on two images.

    Raises UserError naming those that fail.
    """
    failed, statistics, test = [], dict[str, np.ndarray](), open_images(request.splits["test"])
    truth = torch.from_numpy(np.array(test.pixels[:2])).permute(0, 3, 1, 2)
    pair = Pair(truth, truth, arrays_at(test, slice(2), truth.device), protocol=request.protocol)
    train = open_images(request.splits["train"]) if "train" in request.splits else None
    for metric in request.plugins.load().metrics.values():
        try:
            if metric.prepare and train:
                made = np.asarray(metric.prepare(_batches(train, metric.space, request.protocol)))
                if made.dtype.kind not in "biuf":
                    raise TypeError(f"its `prepare` returned {made.dtype}; an array of numbers is due")
                statistics[metric.name] = made
            for ready in with_statistics([metric], statistics, test.arrays):
                if callable(ready.compute):
                    compute(ready, pair)  # of both at once, where a mistake in the shape shows
                join([ready], (scored := score_batch(pair, [ready])).features, scored.scores)
        except whatever_raised() as error:  # it shall not cost a training
            failed.append(f"the metric {metric.name!r} fails ({reason(error)})")
    if failed:
        raise UserError(f"{'; '.join(failed)}; repair or remove its plugin")
    return statistics


def _batches(train: Images, space: str, protocol: Protocol) -> Iterator[Tensor]:
    """Up to MOST pictures of the training split, evenly spread over it, as a metric gets them."""
    places = np.unique(np.linspace(0, len(train) - 1, min(MOST, len(train))).round().astype(int))
    for chunk in np.array_split(places, -(-len(places) // BATCH)):
        rgb = torch.from_numpy(train.pixels[chunk]).permute(0, 3, 1, 2).contiguous()
        yield torch.stack(bytes_to_lab(rgb, protocol), dim=1) if space == "lab" else rgb


def _check_without_files(cell: Cell, network: nn.Module, base: nn.Module | None, given: Mapping[str, Tensor]) -> None:
    """Raises ValueError if the network, once trained, cannot be loaded without the files that its options name."""
    before, after = cell.spec.option_values, (spec := without_files(cell.spec)).option_values
    if not (files := [name for name in before if after[name] is not before[name]]):
        return
    remedy = "let build take None for it, and keep what colors in parameters and buffers"
    try:
        again = build(spec, width_of(cell), cell.request.preset.size, base)
        own, state = trained_state(again, base), trained_state(network, base)
        if not (why := misfit(state, own)):
            again.load_state_dict(state, strict=base is None)
            again.to(given["L"].device).to(memory_format=torch.channels_last)
            same = torch.allclose(colorize(network, **given), colorize(again, **given), SAME_AB, SAME_AB)
            why = "" if same else "it then gives other colors"
    except whatever_raised() as error:
        why = reason(error)
    if why:
        raise ValueError(f"it cannot be loaded without the file of its option {', '.join(files)} ({why}); {remedy}")


def _steps(cell: Cell, network: nn.Module, stage: Stage) -> tuple[int, float]:
    """How many steps the stage has, and the seconds of one. Nothing of the step is kept."""
    request, train = cell.request, open_images(cell.request.splits["train"]).taking(cell.spec.takes)
    seed_of = partial(seed_for, request.record.seed)
    loader = Loader(train, stage, request.preset.batch_size, seed_of, cell.accelerator)
    learning_rate(stage, 0, loader.length)
    if stage.measures:
        started = time.perf_counter()
        take_statistics(network, itertools.islice(loader.in_order(train, loader.chosen(1)), 2))
        return loader.steps, (time.perf_counter() - started) / min(loader.steps, 2)
    stepper, (_, batch) = Stepper(network, stage, cell.accelerator), next(loader.epoch(1))
    network.train()
    with frozen(network, stage.frozen):
        for count in (min(2, len(batch.L)), len(batch.L)):  # the first warms up
            started = time.perf_counter()
            for update in stepper.step(first(batch, count), 0.0, count):
                if lost := [name for name, loss in update.losses.items() if not loss.isfinite()]:
                    raise ValueError(f"loss {lost[0]!r} is {float(update.losses[lost[0]].detach())} in the first step")
            _synchronize()
    return loader.length, time.perf_counter() - started


def first(batch: Batch, count: int) -> Batch:
    """The first images of a batch."""
    inputs = {name: array[:count] for name, array in batch.inputs.items()}
    return replace(batch, L=batch.L[:count], ab=batch.ab[:count], inputs=inputs)


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
