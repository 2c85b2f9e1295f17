"""The training loop, the same for every model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from colorbench.contract import Batch, Measures, ModelSpec, Stage, Update
from colorbench.data.cache import Images
from colorbench.data.loader import Loader
from colorbench.harness.checkpoint import Checkpoint, TrainingState
from colorbench.harness.networks import misfit, trained_state
from colorbench.harness.optimizers import learning_rate
from colorbench.harness.progress import Progress
from colorbench.harness.stepper import Stepper, check_stages, frozen, take_statistics, updates_of
from colorbench.seeds import seed_for

if TYPE_CHECKING:
    from timm.utils.model_ema import ModelEmaV3


class DivergedError(RuntimeError):
    """A loss is no longer a finite number."""


@dataclass(frozen=True)
class TrainingJob:
    """What is trained, and on what.

    `seed` and the model's name fix every random choice, whatever ran before. `batch_size` counts the images of a step
    over all processes. `base` is the part of the network that is neither trained nor saved again.
    """

    network: nn.Module
    spec: ModelSpec
    seed: int
    batch_size: int
    train: Images
    val: Images
    base: nn.Module | None = None

    def seed_of(self, purpose: str, *details: str | int) -> int:
        """The seed for one purpose in this training, say ("order", "train", 7)."""
        # A variant sees what its parent saw: the difference between them is then the change, not the draw.
        return seed_for(self.seed, purpose, self.spec.parent or self.spec.name, *details)


class _Running(NamedTuple):
    """The stage that is under way."""

    stage: Stage
    loader: Loader
    stepper: Stepper
    mean: ModelEmaV3 | None


class Trainer:
    """Trains one network by its stages, following its losses on the validation images.

    With a `checkpoint`, a training that was stopped is taken up at the step it had saved and ends as if it had not
    been stopped. The file stays where it is, whatever happens; when all stages are trained it holds the result.
    """

    def __init__(self, job: TrainingJob, accelerator: Accelerator, checkpoint: Checkpoint | None = None) -> None:
        self.job, self.network, self.accelerator, self.checkpoint = job, job.network, accelerator, checkpoint
        self.state = TrainingState()

    @property
    def images_seen(self) -> int:
        """The images trained on, each as often as it was seen."""
        return self.state.images_seen

    @property
    def seconds(self) -> float:
        """The time that training took, over all its tries."""
        return self.state.seconds

    def run(self, stages: Sequence[Stage]) -> pd.DataFrame:
        """Train through the stages. Returns the losses: stage, epoch, component, split, value.

        Raises DivergedError as soon as a loss is seen not to be finite; ValueError for a schedule or for updates that
        break the contract, and without an image to train on.
        """
        check_stages(self.network, stages)
        for stage in stages:  # of all, before the first one trains for a day
            learning_rate(stage, 0, self._loader(stage).length)
        with torch.inference_mode(False), torch.enable_grad():  # whatever a plugin has set
            running = self._take_up(stages)
            for stage in stages[self.state.stage :]:
                (self._measure if stage.measures else self._run_stage)(running or self._begin(stage))
                running = None
                if stage.measures or self.state.stage == len(stages):
                    self._save()  # a kill before the weights are saved elsewhere then costs no training
        return pd.DataFrame(self.state.rows, columns=["stage", "epoch", "component", "split", "value"])

    def _loader(self, stage: Stage) -> Loader:
        return Loader(self.job.train, stage, self.job.batch_size, self.job.seed_of, self.accelerator)

    def _begin(self, stage: Stage) -> _Running:
        loader = self._loader(stage)
        mean = None
        if stage.average:
            from timm.utils.model_ema import ModelEmaV3  # here because it takes seconds to import

            mean = ModelEmaV3(self.network, decay=stage.average, use_warmup=True)
        return _Running(stage, loader, Stepper(self.network, stage, self.accelerator), mean)

    def _progress(self, running: _Running) -> Progress:
        state, images = self.state, running.loader.images
        behind = (state.epoch - 1) * images + min(state.step * running.loader.batch_size, images)
        title = f"{self.job.spec.name} seed {self.job.seed}"
        return Progress(title, running.stage, images, behind, self.accelerator.is_main_process)

    def _measure(self, running: _Running) -> None:
        stage, loader, state = running.stage, running.loader, self.state
        started = time.monotonic() - state.seconds
        torch.manual_seed(self.job.seed_of("measure", stage.name))
        with closing(self._progress(running)) as progress:

            def batches() -> Iterator[Batch]:
                for batch in loader.in_order(self.job.train, loader.chosen(1)):
                    yield batch
                    progress.advance(len(batch.L), dict)

            take_statistics(self.network, batches())
            progress.close_epoch(1, {}, {})
        state.stage, state.seconds = state.stage + 1, time.monotonic() - started

    def _run_stage(self, running: _Running) -> None:
        (stage, loader, stepper, mean), state = running, self.state
        progress, started = self._progress(running), time.monotonic() - state.seconds
        with frozen(self.network, stage.frozen), closing(progress):
            while state.epoch <= stage.epochs:
                self.network.train()
                for step, batch in loader.epoch(state.epoch, state.step):
                    # Every draw of this step comes from here, so that a training can be taken up at any step.
                    draws = (stage.name, state.epoch, step, self.accelerator.process_index)
                    torch.manual_seed(self.job.seed_of("step", *draws))
                    rate = learning_rate(stage, batch.step, batch.steps)
                    for update in stepper.step(batch, rate, loader.size(step)):
                        _add(state.losses, update, len(batch.L))
                    if mean:
                        mean.update(self.network, batch.step)
                    state.step, state.seconds = step + 1, time.monotonic() - started
                    self._after_step(running, progress)
                self._close_epoch(running, progress)
        if mean:
            self.network.load_state_dict(mean.module.state_dict())
        state.stage, state.epoch = state.stage + 1, 1

    def _after_step(self, running: _Running, progress: Progress) -> None:
        # Of several processes, one that stopped before the end of the epoch would leave the others waiting.
        where = self._where(running.stage) if self.accelerator.num_processes == 1 else None
        look = partial(_means, self.state.losses, where)
        progress.advance(running.loader.size(self.state.step - 1), look)
        if self.checkpoint and self.checkpoint.is_due():
            look()  # what has diverged must not be taken up again
            self._save(running)

    def _save(self, running: _Running | None = None) -> None:
        if not (self.checkpoint and self.accelerator.is_main_process):
            return
        network = trained_state(self.network, self.job.base)
        mean = running.mean.module.state_dict() if running and running.mean else {}
        optimizers = running.stepper.state() if running else {}
        mean = {key: mean[key] for key in network if mean}
        self.checkpoint.write(replace(self.state, network=network, mean=mean, optimizers=optimizers))

    def _close_epoch(self, running: _Running, progress: Progress) -> None:
        stage, state = running.stage, self.state
        judged = running.mean.module if running.mean else self.network
        for network in dict.fromkeys((self.network, judged)):
            self._average_buffers(network)
        _join(state.losses, self.accelerator)
        train, val = _means(state.losses, self._where(stage)), self._validate(judged, running)
        for split, means in (("train", train), ("val", val)):
            state.rows += [(stage.name, state.epoch, component, split, value) for component, value in means.items()]
        progress.close_epoch(state.epoch, train, val)
        state.images_seen += running.loader.images
        state.epoch, state.step, state.losses = state.epoch + 1, 0, {}

    def _where(self, stage: Stage) -> str:
        return f"stage {stage.name!r}, epoch {self.state.epoch}"

    def _average_buffers(self, network: nn.Module) -> None:
        # Statistics and counts that each process gathered from its own share: batch normalization's, a model's own.
        if self.accelerator.num_processes > 1:
            measured = self.network.measured if isinstance(self.network, Measures) else ()  # alike in all
            for name, buffer in network.named_buffers():
                if buffer.is_floating_point() and name not in measured:
                    buffer.copy_(self.accelerator.reduce(buffer, reduction="mean"))

    @torch.no_grad()
    def _validate(self, network: nn.Module, running: _Running) -> dict[str, float]:
        network.eval()
        stage, loader, losses = running.stage, running.loader, dict[str, tuple[Tensor, int]]()
        # The same draws in every epoch: the curve then shows the network, not the noise.
        torch.manual_seed(self.job.seed_of("validation", stage.name))
        last = loader.steps_before(self.state.epoch + 1) - 1
        for batch in loader.in_order(self.job.val, np.arange(len(self.job.val)), last):
            for update in updates_of(network, batch, self.accelerator):
                _add(losses, update, len(batch.L))
        return _means(losses, f"stage {stage.name!r}, validation")

    def _take_up(self, stages: Sequence[Stage]) -> _Running | None:
        """Go to where the checkpoint was written. Returns the stage that was under way there, if any."""
        if not (self.checkpoint and stages and (saved := self.checkpoint.read())):
            return None
        try:
            running = self._resumed(stages, saved)
        except ValueError as error:
            self.checkpoint.refuse(error)
            return None
        self.network.load_state_dict(saved.network, strict=self.job.base is None)
        self.state = replace(saved, network={}, mean={}, optimizers={})
        return running

    def _resumed(self, stages: Sequence[Stage], saved: TrainingState) -> _Running | None:
        """The stage under way with its optimizers and mean; raises ValueError if they are of another training."""
        own = trained_state(self.network, self.job.base)
        running = self._begin(stages[saved.stage]) if 0 <= saved.stage < len(stages) else None
        if reason := misfit(saved.network, own) or (running and running.mean and misfit(saved.mean, own)):
            raise ValueError(reason)
        if running is None and saved.stage == len(stages):
            return None
        if not (running and 1 <= saved.epoch <= running.stage.epochs and 0 <= saved.step <= running.loader.steps):
            raise ValueError(f"the schedule has no step {saved.step} of epoch {saved.epoch} of stage {saved.stage}")
        with frozen(self.network, running.stage.frozen):
            running.stepper.load(saved.optimizers)
        if running.mean:
            running.mean.module.load_state_dict(saved.mean, strict=False)  # it has the base already
        return running


def _add(sums: dict[str, tuple[Tensor, int]], update: Update, images: int) -> None:
    for name, value in update.losses.items():
        component = f"{update.player}/{name}" if update.player else name
        total, count = value.detach().float() * images, images
        if component in sums:
            total, count = sums[component][0] + total, sums[component][1] + count
        sums[component] = total, count


def _join(sums: dict[str, tuple[Tensor, int]], accelerator: Accelerator) -> None:
    """Add up what the processes have seen, each of its own share."""
    if accelerator.num_processes > 1:
        for name, (total, count) in sums.items():
            joined = accelerator.reduce(torch.stack((total, torch.full_like(total, count))), reduction="sum")
            sums[name] = joined[0], round(joined[1].item())


def _means(sums: dict[str, tuple[Tensor, int]], where: str | None) -> dict[str, float]:
    """Read the means from the device, which waits for it.

    Raises DivergedError if one is not finite, and `where` says in what: in every process alike, once they are joined.
    """
    means = {name: total.item() / count for name, (total, count) in sums.items()}
    for name, value in means.items():
        if where and not isfinite(value):
            raise DivergedError(f"loss {name!r} is {value} in {where}; try a lower learning rate")
    return means
