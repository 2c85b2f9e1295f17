"""All that can be found out about a model before anything is trained, and how long its training will take."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from colorbench.contract import Batch, ModelSpec, Stage
from colorbench.data.cache import Images, open_images
from colorbench.data.loader import to_lab
from colorbench.errors import UserError, reason
from colorbench.harness.cell import Cell, network_before_training
from colorbench.harness.networks import build, build_published, trained_state
from colorbench.harness.predict import colorize, colorize_with_attention
from colorbench.harness.stepper import Stepper, check_stages, frozen
from colorbench.metrics import score
from colorbench.runs.plan import CellRequest, Plugins

SAME_AB = 0.005  # Lab units, and the share of the largest |ab|, within which two answers are the same but for rounding


@dataclass(frozen=True)
class Estimate:
    """What a cell will cost: seconds of training and of prediction, and bytes of its weights."""

    training: float
    prediction: float
    weights: int


def check_model(request: CellRequest) -> Estimate:
    """Build a model, take a step of every stage on training images, and color two test images.

    Its base, if it refines one, is an untrained one. Raises whatever is wrong with it.
    """
    cell = Cell(request)
    spec, preset, where = cell.spec, request.preset, cell.accelerator.device
    base = _untrained_base(cell, spec)
    network = network_before_training(cell, base)
    network.to(where).to(memory_format=torch.channels_last)
    L, _ = to_lab(cell.test.pixels[:2], where)
    colorize(network, L)  # first, since an answer of another shape is the best reason for what its losses do
    stages = () if request.weights or spec.trained_as else tuple(spec.schedule(preset))
    check_stages(network, stages)
    train = open_images(request.splits["train"])
    training = sum(_training_seconds(cell, network, stage, train) for stage in stages)
    prediction = _check_answers(network, L) * len(cell.test)
    weights = sum(tensor.nbytes for tensor in trained_state(network, base).values())
    return Estimate(training, prediction, weights)


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
    except (Exception, SystemExit) as error:  # whatever a plugin raises
        if isinstance(error, UserError):
            raise
        raise UserError(f"{request.model!r} cannot be built for --weights {request.file}: {reason(error)}") from error


def check_metrics(request: CellRequest) -> None:
    """Compute each metric of the plugins on two images. Raises UserError naming those that fail."""
    cell = Cell(request)
    truth = torch.from_numpy(np.array(cell.test.pixels[:2])).permute(0, 3, 1, 2)
    failed = []
    for metric in cell.registry.specs["metric"].values():
        try:
            score(truth, truth, [metric], request.protocol)
        except (Exception, SystemExit) as error:  # whatever a plugin raises, it shall not cost a training
            failed.append(f"the metric {metric.name!r} fails ({type(error).__name__}: {error})")
    if failed:
        raise UserError(f"{'; '.join(failed)}; mend or remove its plugin")


def _untrained_base(cell: Cell, spec: ModelSpec) -> nn.Module | None:
    if not spec.refines:
        return None
    (base,) = cell.registry.find("model", [spec.refines])
    preset = cell.request.preset
    return build(base, preset.width, preset.size, _untrained_base(cell, base)).to(cell.accelerator.device)


def _training_seconds(cell: Cell, network: nn.Module, stage: Stage, train: Images) -> float:
    """What the stage will take by the time of one step. Nothing of the step is kept."""
    images, size = min(stage.images or len(train), len(train)), min(cell.request.preset.batch_size, len(train))
    stepper = Stepper(network, stage, cell.accelerator)
    L, ab = to_lab(train.pixels[:size], cell.accelerator.device)
    network.train()
    with frozen(network, stage.frozen):
        for count in (min(2, size), size):  # the first warms up
            started = time.perf_counter()
            for update in stepper.step(Batch(L[:count], ab[:count], stage.settings), 0.0, count):
                if lost := [name for name, loss in update.losses.items() if not loss.isfinite()]:
                    raise ValueError(f"loss {lost[0]!r} is {float(update.losses[lost[0]])} in the first step")
            _synchronize()
    return (time.perf_counter() - started) * stage.epochs * -(-images // size)


def _check_answers(network: nn.Module, L: Tensor) -> float:
    """Color images twice, and each alone. Returns the seconds of one image.

    Raises ValueError if the answers differ: then a score would depend on the order of the images.
    """
    colorize(network, L)
    started = time.perf_counter()
    first = colorize(network, L)
    _synchronize()
    seconds = (time.perf_counter() - started) / len(L)
    if not _alike(first, colorize(network, L)):
        raise ValueError("the network gives another answer to the same image each time; draw nothing in eval mode")
    if not _alike(first, torch.cat([colorize(network, one) for one in L.split(1)])):
        raise ValueError("an image is colored otherwise alone than in a batch; keep the images of a batch apart")
    if not _alike(first, colorize_with_attention(network, L)[0]):
        raise ValueError("with_attention gives other colors than forward")
    return seconds


def _alike(first: Tensor, second: Tensor) -> bool:
    return bool((first - second).abs().max() <= SAME_AB * max(1.0, float(first.abs().max())))


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
