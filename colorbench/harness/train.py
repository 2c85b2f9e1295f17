"""The training loop, the same for every model."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from colorbench.contract import Batch, ModelSpec, Stage, Update
from colorbench.data.cache import Images
from colorbench.harness.checkpoint import Checkpoint
from colorbench.harness.load import trained_state
from colorbench.harness.predict import to_lab
from colorbench.harness.progress import Progress
from colorbench.harness.seeds import seed_for


class DivergedError(RuntimeError):
    """A loss is no longer a finite number."""


class Stepper:
    """Takes the optimizer steps of one stage: one Adam for each player, made when the player first appears."""

    def __init__(self, network: nn.Module, stage: Stage, accelerator: Accelerator) -> None:
        self.network, self.stage, self.accelerator = network, stage, accelerator
        self.optimizers: dict[str, torch.optim.Optimizer] = {}

    def step(self, batch: Batch, rate: float, images: int) -> Iterator[Update]:
        """Train on this process's share of a batch of `images`, yielding each update once its step is taken."""
        updates: Iterator[Update] = self.network.updates(batch)  # type: ignore[operator]
        while True:
            with self.accelerator.autocast():
                update = next(updates, None)
            if update is None:
                return
            if update.player not in self.optimizers:
                self.optimizers[update.player] = self._adam(update.player)
            optimizer = self.optimizers[update.player]
            optimizer.zero_grad()  # here, not after the step: another player's update may have left gradients
            self.accelerator.backward(sum(update.losses.values()))
            self._average_gradients(optimizer, share=len(batch.L) / images)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            yield update

    def load(self, states: Mapping[str, Any]) -> None:
        """Take the optimizers up where `states`, their state dicts by player, left them."""
        for player, state in states.items():
            self.optimizers[player] = self._adam(player)
            self.optimizers[player].load_state_dict(state)

    def _adam(self, player: str) -> torch.optim.Optimizer:
        parameters = [p for p in self.network.get_submodule(player).parameters() if p.requires_grad]
        return torch.optim.Adam(parameters, betas=self.stage.betas, weight_decay=self.stage.weight_decay, fused=True)

    def _average_gradients(self, optimizer: torch.optim.Optimizer, share: float) -> None:
        # By hand: DistributedDataParallel hooks into one forward per step, and a generator of updates has any number.
        if self.accelerator.num_processes == 1:
            return
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        flat = self.accelerator.reduce(torch.cat([g.flatten() for g in gradients]) * share, reduction="sum")
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


class RunningMean:
    """An exponential mean of a network's weights and buffers; `network` is a copy that holds it."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        from timm.utils import ModelEmaV3  # here because it takes seconds to import

        self.mean = ModelEmaV3(network, decay=decay, use_warmup=True)
        self.network: nn.Module = self.mean.module

    def follow(self, network: nn.Module, step: int) -> None:
        self.mean.update(network, step)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take up a mean that was saved without the network's base."""
        self.network.load_state_dict(state, strict=False)


class Trainer:
    """Trains one network by its stages on `train`, following its losses on `val`.

    Flips images at random from left to right, as the field does; nothing else augments. `batch_size` counts
    the images of a step over all processes. `seed` and the model's name fix every random choice, whatever ran before.
    With a `checkpoint`, a training that was stopped is taken up at the step it had saved and ends as if it
    had not been stopped; `base` is left out of the file.
    """

    def __init__(
        self,
        network: nn.Module,
        train: Images,
        val: Images,
        accelerator: Accelerator,
        spec: ModelSpec,
        seed: int,
        batch_size: int,
        base: nn.Module | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.network, self.train_images, self.val_images = network, train, val
        self.accelerator, self.seed, self.batch_size = accelerator, seed, batch_size
        # A variant sees what its parent saw: the difference between them is then the change, not the draw.
        self.title, self.name = f"{spec.name} seed {seed}", spec.parent or spec.name
        self.base, self.checkpoint = base, checkpoint
        self.colorful = np.flatnonzero(~train.near_grey)
        self.images_seen, self.seconds = 0, 0.0
        self._rows: list[tuple[str, int, str, str, float]] = []

    def run(self, stages: Sequence[Stage]) -> pd.DataFrame:
        """Train through the stages. Returns the losses: stage, epoch, component, split, value.

        Raises DivergedError as soon as a loss is seen not to be finite, ValueError without an image to train on.
        """
        if stages and not len(self.colorful):
            raise ValueError(f"all {len(self.train_images)} training images are near grey: there is no color to learn")
        saved = self.checkpoint.read() if self.checkpoint else None
        if saved:
            self.network.load_state_dict(saved["network"], strict=self.base is None)
            self.images_seen, self.seconds, self._rows = saved["images_seen"], saved["seconds"], saved["rows"]
        for index, stage in enumerate(stages):
            if saved and index < saved["stage"]:
                continue
            self._run_stage(index, stage, saved if saved and index == saved["stage"] else None)
        return pd.DataFrame(self._rows, columns=["stage", "epoch", "component", "split", "value"])

    def _run_stage(self, index: int, stage: Stage, saved: dict[str, Any] | None) -> None:
        available = available_to(stage, self.colorful)
        images = len(available[: stage.images])
        if not images:
            raise ValueError(f"stage {stage.name!r} has no image to train on: too few are in its part of the split")
        stopped = freeze(self.network, stage.frozen)
        stepper = Stepper(self.network, stage, self.accelerator)
        first, done = (saved["epoch"], saved["step"]) if saved else (1, 0)
        mean = RunningMean(self.network, stage.average) if stage.average else None
        if saved:
            stepper.load(saved["optimizers"])
            if mean:
                mean.load(saved["mean"])
        steps = -(-images // self.batch_size)  # of an epoch
        if 0 < images % self.batch_size < self.accelerator.num_processes and steps > 1:
            steps -= 1  # the last few are not enough for a share each
        behind = (first - 1) * images + min(done * self.batch_size, images)
        progress = Progress(self.title, stage, images, behind, self.accelerator.is_main_process)
        before, started = self.seconds, time.monotonic()
        for epoch in range(first, stage.epochs + 1):
            order = np.random.default_rng(seed_for(self.seed, "order", self.name, stage.name, epoch))
            place = (epoch - 1) * images if stage.rolling else 0
            chosen = available.take(range(place, place + images), mode="wrap")
            shuffled, flips = order.permutation(chosen), order.random(images) < 0.5
            sums = _Sums(f"stage {stage.name!r}, epoch {epoch}", saved)
            # Of several processes, one that stopped before the end of the epoch would leave the others waiting.
            look = sums.finite_means if self.accelerator.num_processes == 1 else sums.means
            self.network.train()
            for step in range(done, steps):
                taken = (epoch - 1) * steps + step  # in this stage
                rate = stage.learning_rate * stage.decay(taken / (stage.epochs * steps))
                part = slice(step * self.batch_size, (step + 1) * self.batch_size)
                mine = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
                batch = self._batch(self.train_images, shuffled[part][mine], stage, flips[part][mine])
                # Every draw of this step comes from here, so that a training can be taken up at any step.
                draws = (self.name, stage.name, epoch, step, self.accelerator.process_index)
                torch.manual_seed(seed_for(self.seed, "step", *draws))
                for update in stepper.step(batch, rate, len(shuffled[part])):
                    sums.add(update, len(batch.L))
                if mean:
                    mean.follow(self.network, taken)
                progress.advance(len(shuffled[part]), look)
                self.seconds = before + time.monotonic() - started
                if self.checkpoint and self.checkpoint.is_due() and self.accelerator.is_main_process:
                    look()  # what has diverged must not be taken up again
                    self.checkpoint.write(self._state(stepper, mean, sums, stage=index, epoch=epoch, step=step + 1))
            for network in [self.network, *([mean.network] if mean else [])]:
                self._average_buffers(network)
            self.images_seen += images
            sums.join(self.accelerator)
            train, val = sums.finite_means(), self._validate(mean.network if mean else self.network, stage)
            for split, means in (("train", train), ("val", val)):
                self._rows += [(stage.name, epoch, component, split, value) for component, value in means.items()]
            progress.close_epoch(epoch, train, val)
            done, saved = 0, None
        progress.close()
        if mean:
            self.network.load_state_dict(mean.network.state_dict())
        for parameter in stopped:
            parameter.requires_grad_(True)

    def _state(self, stepper: Stepper, mean: RunningMean | None, sums: _Sums, **position: int) -> dict[str, Any]:
        state = trained_state(self.network, self.base)
        return position | {
            "network": state,
            "mean": {key: mean.network.state_dict()[key] for key in state} if mean else {},
            "optimizers": {player: optimizer.state_dict() for player, optimizer in stepper.optimizers.items()},
            "totals": sums.totals,
            "counts": dict(sums.counts),
            "rows": self._rows,
            "images_seen": self.images_seen,
            "seconds": self.seconds,
        }

    def _average_buffers(self, network: nn.Module) -> None:
        # Statistics and counts that each process gathered from its own share: batch normalization's, a model's own.
        if self.accelerator.num_processes > 1:
            for buffer in network.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.accelerator.reduce(buffer, reduction="mean"))

    @torch.no_grad()
    def _validate(self, network: nn.Module, stage: Stage) -> dict[str, float]:
        network.eval()
        sums = _Sums(f"stage {stage.name!r}, validation")
        # The same draws in every epoch: the curve then shows the network, not the noise.
        torch.manual_seed(seed_for(self.seed, "validation", self.name, stage.name))
        for start in range(0, len(self.val_images), self.batch_size):
            indices = np.arange(start, min(start + self.batch_size, len(self.val_images)))
            batch = self._batch(self.val_images, indices, stage, np.zeros(len(indices), bool))
            with self.accelerator.autocast():
                for update in network.updates(batch):  # type: ignore[operator]
                    sums.add(update, len(indices))
        return sums.finite_means()

    def _batch(self, images: Images, indices: np.ndarray, stage: Stage, flips: np.ndarray) -> Batch:
        L, ab = to_lab(images.pixels[indices], self.accelerator.device)
        flipped = torch.from_numpy(flips).to(L.device)[:, None, None, None]
        return Batch(torch.where(flipped, L.flip(3), L), torch.where(flipped, ab.flip(3), ab), stage.settings)


class _Sums:
    """Losses by component, summed on the device over an epoch; `saved` are those that a checkpoint holds."""

    def __init__(self, where: str, saved: Mapping[str, Any] | None = None) -> None:
        self.where = where
        self.totals: dict[str, Tensor] = dict(saved["totals"]) if saved else {}
        self.counts: dict[str, int] = defaultdict(int, saved["counts"] if saved else {})

    def add(self, update: Update, images: int) -> None:
        for name, value in update.losses.items():
            component = f"{update.player}/{name}" if update.player else name
            value = value.detach().float() * images
            self.totals[component] = self.totals[component] + value if component in self.totals else value
            self.counts[component] += images

    def join(self, accelerator: Accelerator) -> None:
        """Add up what the processes have seen, each of its own share."""
        if accelerator.num_processes > 1:
            for name, total in self.totals.items():
                count = torch.tensor(float(self.counts[name]), device=total.device)
                joined = accelerator.reduce(torch.stack((total, count)), reduction="sum")
                self.totals[name], self.counts[name] = joined[0], round(joined[1].item())

    def means(self) -> dict[str, float]:
        """Read the means from the device, which waits for it."""
        return {name: total.item() / self.counts[name] for name, total in self.totals.items()}

    def finite_means(self) -> dict[str, float]:
        """The means. Raises DivergedError if one is not finite: in every process alike, once they are joined."""
        means = self.means()
        for name, value in means.items():
            if not np.isfinite(value):
                raise DivergedError(f"loss {name!r} is {value} in {self.where}; try a lower learning rate")
        return means


def available_to(stage: Stage, images: np.ndarray) -> np.ndarray:
    """Those of `images` that lie in the stage's part of them."""
    first, end = (round(share * len(images)) for share in stage.part)
    return images[first:end]


def freeze(network: nn.Module, frozen: Sequence[str]) -> list[nn.Parameter]:
    """Stop the named submodules from learning. Returns the parameters that were stopped."""
    stopped = [p for name in frozen for p in network.get_submodule(name).parameters() if p.requires_grad]
    for parameter in stopped:
        parameter.requires_grad_(False)
    return stopped
