"""One model and one seed: trained, predicted, scored. A function of a request, which touches only its own folder."""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from colorbench.contract import ModelSpec, Preset, Stage
from colorbench.data.cache import Images, open_images
from colorbench.errors import DISK_FULL, reason, whatever_raised
from colorbench.harness import device
from colorbench.harness.checkpoint import Checkpoint
from colorbench.harness.elsewhere import Elsewhere
from colorbench.harness.networks import (
    build,
    build_published,
    count_parameters,
    load_published,
    notes_of,
    packed_weights,
    trained_state,
)  # fmt: skip
from colorbench.harness.predict import (
    Keeper,
    Predicted,
    check_answers,
    colorize,
    damage_of,
    given_to,
    inputs_of,
    keeps_all,
    kept,
    predict,
)
from colorbench.harness.scoring import score_all
from colorbench.harness.stepper import check_fields
from colorbench.harness.trained import load_base, load_cell, with_weights
from colorbench.harness.trainer import Trainer, TrainingJob
from colorbench.metrics.extra import with_statistics
from colorbench.options import recorded_spec
from colorbench.runs.context import CellRequest
from colorbench.runs.executors import end_if_alone
from colorbench.runs.fields import code_to_predict
from colorbench.runs.folder import (
    DETAILS,
    LOSSES,
    SAMPLES,
    SCORES,
    SET_SCORES,
    TRACEBACK,
    TRAINING,
    VAL_SCORES,
    WEIGHTS,
    RunFolder,
    add_files,
    damaged_files,
    remove_litter,
    to_parquet,
    write_aside,
    write_cell,
)  # fmt: skip
from colorbench.runs.identity import differences, option_fields, predictions_key, stage_fields
from colorbench.runs.plan import is_validated
from colorbench.runs.records import DONE, FAILED, TRAINED, CellRecord


class Cell:
    """A request, and what its process opens for it."""

    def __init__(self, request: CellRequest) -> None:
        self.request = request
        self.registry = request.plugins.load()
        self.accelerator = device.accelerator()
        self.test = open_images(request.splits["test"])
        self.network: nn.Module | None = None  # once it is trained, or loaded

    @cached_property
    def spec(self) -> ModelSpec:
        record = self.request.record
        if record.has_weights and (spec := recorded_spec(self.registry, record)):
            return spec
        (spec,) = self.registry.find("model", [record.model])
        return spec

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """What the network is trained by; none if its weights come from elsewhere.

        Raises ValueError naming the fields in which they, or the options, are not those of the record.
        """
        request, spec = self.request, self.spec
        stages = () if request.weights or spec.trained_as else _schedule(spec, request.preset)
        here = {"options": option_fields(spec), "stages": [stage_fields(stage) for stage in stages]}
        if why := list(differences({key: request.record.made_from.get(key) for key in here}, here)):
            raise ValueError(
                f"it is no longer what was planned: {'; '.join(why)}; let its plugin give the same options and "
                "schedule each time it is asked, or run the same command again"
            )
        return stages

    @property
    def is_main(self) -> bool:
        return self.accelerator.is_main_process


def _schedule(spec: ModelSpec, preset: Preset) -> tuple[Stage, ...]:
    """The stages of a model. Raises ValueError for what are none, before anything is asked of them."""
    stages = spec.schedule(preset)
    if not isinstance(stages, Iterable) or isinstance(stages, str | Mapping):
        raise ValueError(f"schedule returned {type(stages).__name__}; a sequence of Stage is due")
    check_fields(found := tuple(stages))
    return found


def make(request: CellRequest) -> CellRecord:
    """Train, predict and score a cell, as far as that is not done, and write it.

    Whatever the model raises is the reason in its record. Raises the OSError of a full disk.
    """
    record, main = request.record, device.world()[0] == 0
    if main:
        request.cell_dir.mkdir(parents=True, exist_ok=True)
        remove_litter(request.cell_dir)
    try:
        cell = Cell(request)
        if not record.has_weights and not cell.spec.pictures:
            cell.network = _train(cell, record)
        _score(cell, record)
        if request.validation and not is_validated(record, request.validation):
            _validate(cell, record)
        record.status, record.reason = DONE, None
        (request.cell_dir / TRACEBACK).unlink(missing_ok=True)  # of an earlier try
    except whatever_raised() as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise  # not the model's fault: the command ends, and takes the model up again next time
        end_if_alone(error, request.cell_dir, *device.world())
        record.status = TRAINED if record.has_weights else FAILED
        record.reason = f"not scored: {reason(error)}" if record.has_weights else reason(error)
        if main:
            write_aside(request.cell_dir / TRACEBACK, traceback.format_exc().encode(errors="backslashreplace"))
    if main:
        write_cell(request.cell_dir, record)
    return record


def _train(cell: Cell, record: CellRecord) -> nn.Module:
    """Train the network and save it: whatever happens to its predictions, it need not be trained again."""
    request, spec = cell.request, cell.spec
    base = load_cell(RunFolder(request.run), spec.refines, record.seed, cell.registry) if spec.refines else None
    network, record.width = network_before_training(cell, base), width_of(cell)
    network.to(cell.accelerator.device).to(memory_format=torch.channels_last)
    L, inputs = inputs_of(spec, cell.test, slice(1), cell.accelerator.device, request.protocol)
    colorize(network, L, **inputs)  # what breaks the contract shall not train for a day first
    # Without stages these are not looked at: there may be test images alone.
    opened = (open_images(request.splits.get(split, request.splits["test"])) for split in ("train", "val"))
    train, val = (images.taking(spec.takes) for images in opened)
    checkpoint = Checkpoint(request.cell_dir / TRAINING, request.resume, cell.accelerator.device)
    job = TrainingJob(network, spec, record.seed, request.preset.batch_size, train, val, base)
    trainer = Trainer(job, cell.accelerator, checkpoint)
    losses = trainer.run(cell.stages)
    record.seconds, record.images_seen = round(trainer.seconds, 2), trainer.images_seen
    if spec.trained_as:  # what its weights cost, though not by itself
        trained = RunFolder(request.run).cell(spec.trained_as, record.seed)
        record.seconds, record.images_seen = trained.seconds, trained.images_seen
    record.parameters = count_parameters(network, L, **inputs)
    record.notes = [*notes_of(network)]
    if file := record.made_from.get("initial"):
        record.notes.append(f"trained on from {file['file']} (SHA-256 {file['sha256'][:12]})")
    record.status = TRAINED
    if cell.is_main:
        state = packed_weights(trained_state(network, base))
        tables = {LOSSES: to_parquet(_labelled(losses, record))} if len(losses) else {}
        add_files(request.cell_dir, record, {WEIGHTS: state} | tables)
        record.weights_sha256 = record.files[WEIGHTS]
        write_cell(request.cell_dir, record)
        checkpoint.file.unlink(missing_ok=True)
    return network


def network_before_training(cell: Cell, base: nn.Module | None) -> nn.Module:
    """The network as its training starts from it, or with the weights that it is given instead of a training."""
    request, spec = cell.request, cell.spec
    run, seed, size = RunFolder(request.run), request.record.seed, request.preset.size
    if request.weights:
        return build_published(spec, size, request.weights)
    if spec.trained_as and run.exists() and (other := run.cell(spec.trained_as, seed)).has_weights:
        return with_weights(other, run.cell_dir(other.model, seed), spec, base, size)
    network = build(spec, request.preset.width, size, base, seed)
    if request.initial:
        load_published(network, spec, request.initial, base, request.preset.width)
    return network


def width_of(cell: Cell) -> float:
    """The factor on the channels that its network has."""
    if cell.request.weights:
        return cell.spec.published_width
    other = cell.spec.trained_as
    return (
        RunFolder(cell.request.run).cell(other, cell.request.record.seed).width if other else cell.request.preset.width
    )


def _trained(cell: Cell, record: CellRecord) -> nn.Module:
    """The network with the weights that the cell, or the run that is evaluated, holds."""
    request, spec = cell.request, cell.spec
    if request.trained_in:
        return load_cell(RunFolder(request.trained_in), record.model, record.seed, cell.registry)
    base = load_base(RunFolder(request.run), record, spec, cell.registry)
    return with_weights(record, request.cell_dir, spec, base, request.preset.size)


def _score(cell: Cell, record: CellRecord) -> None:
    """Score the predictions that are kept; without them all, predict again from the weights."""
    request, where = cell.request, cell.accelerator.device
    test = cell.test
    metrics = with_statistics(cell.registry.metrics.values(), request.statistics, test.arrays)
    by = metrics, request.protocol, cell.registry.specs["diagnostic"].values()
    key = predictions_key(record, request.inputs)
    if request.rescores or keeps_all(request.cell_dir, record, key, len(test)):
        scored = score_all(kept(request.cell_dir, record, test, where), test, *by)
    else:
        predictions = predictions_of(cell, record, test)
        with Keeper(request.cell_dir, test.names[: request.keep] if cell.is_main else ()) as keeper:
            scored = score_all(keeper.follow(predictions), test, *by)
            keeper.commit(record)
        trained_in = RunFolder(request.trained_in or request.run)
        record.predicted_with = code_to_predict(trained_in, record, cell.registry)
        record.predicted_by = predictions_key(record, request.inputs)
        record.given = given_to(cell.spec, test, request.protocol)
    if cell.is_main:
        tables = {SCORES: scored.scores, DETAILS: scored.details, SET_SCORES: scored.set_scores}
        content = {name: to_parquet(_labelled(table, record)) for name, table in tables.items() if len(table)}
        add_files(request.cell_dir, record, content | {SAMPLES: packed(**scored.samples)})
        for name in tables.keys() & record.files.keys() - content.keys():  # of metrics or diagnostics that are no more
            del record.files[name]
            (request.cell_dir / name).unlink(missing_ok=True)
    record.scored_by, record.failed_diagnostics = request.scored_by, scored.failed
    damaged = damaged_files(request.cell_dir, record)
    if VAL_SCORES in damaged:
        del record.files[VAL_SCORES]
        record.validated_by = ""
    if LOSSES in damaged:  # only a figure needs them: no reason to train anew
        print(f"{request.cell_dir / LOSSES} is damaged: the figure of losses leaves it out", file=sys.stderr)
        del record.files[LOSSES]


def _validate(cell: Cell, record: CellRecord) -> None:
    """Score the validation images as the test images are, but by the protocol alone."""
    request, val = cell.request, open_images(cell.request.splits["val"])
    scored = score_all(predictions_of(cell, record, val), val, (), request.protocol)
    if cell.is_main:
        add_files(request.cell_dir, record, {VAL_SCORES: to_parquet(_labelled(scored.scores, record))})
    record.validated_by = predictions_key(record, request.validation)


def predictions_of(cell: Cell, record: CellRecord, images: Images) -> Iterator[Predicted]:
    """The predictions of the cell's network for a split, or the pictures that were made elsewhere."""
    request, where, spec = cell.request, cell.accelerator.device, cell.spec
    if spec.pictures:
        record.width = request.preset.width
        elsewhere = Elsewhere(spec, images, request.protocol)
        yield from elsewhere.predictions(where)
        record.notes = elsewhere.notes()
        return
    if cell.network is None:
        cell.network = _trained(cell, record)
    network = cell.network.to(where).to(memory_format=torch.channels_last)
    damaged = damage_of(request.protocol, cell.registry)
    # After training, which shows what a first layer of zeros hides.
    L, inputs = inputs_of(spec, images, slice(2), where, request.protocol, damaged)
    check_answers(network, L, **inputs)
    yield from predict(network, spec, images, where, request.protocol, damaged)


def _labelled(frame: pd.DataFrame, record: CellRecord) -> pd.DataFrame:
    return pd.concat([pd.DataFrame({"model": record.model, "seed": record.seed}, index=frame.index), frame], axis=1)


def packed(**arrays: Any) -> bytes:
    """The bytes of an .npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()
