"""The training loop, the same for every model."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from colorbench.contract import Batch, Stage, Update
from colorbench.data.cache import Images
from colorbench.harness.predict import to_lab
from colorbench.harness.seeds import seed_for

LOG_SECONDS = 1.0  # how often the losses are read from the device: reading makes it wait


class DivergedError(RuntimeError):
    """A loss is no longer a finite number."""


class Stepper:
    """Takes the optimizer steps of one stage: one Adam for each player, made when the player first appears."""

    def __init__(self, network: nn.Module, stage: Stage, accelerator: Accelerator) -> None:
        self.network, self.stage, self.accelerator = network, stage, accelerator
        self.optimizers: dict[str, torch.optim.Optimizer] = {}

    def step(self, batch: Batch, rate: float) -> Iterator[Update]:
        """Train on one batch at the learning rate `rate`, yielding each update once its step is taken."""
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
            self._average_gradients(optimizer)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            yield update

    def _adam(self, player: str) -> torch.optim.Optimizer:
        parameters = [p for p in self.network.get_submodule(player).parameters() if p.requires_grad]
        return torch.optim.Adam(parameters, betas=self.stage.betas, weight_decay=self.stage.weight_decay, fused=True)

    def _average_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        # By hand: DistributedDataParallel hooks into one forward per step, and a generator of updates has any number.
        if self.accelerator.num_processes == 1:
            return
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        flat = self.accelerator.reduce(torch.cat([g.flatten() for g in gradients]), reduction="mean")
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


class Trainer:
    """Trains one network by its stages on `train`, following its losses on `val`.

    Flips images at random from left to right, as the field does; nothing else augments. `batch_size` counts
    the images of a step over all processes. `name` and `seed` fix every random choice.
    """

    def __init__(
        self,
        network: nn.Module,
        train: Images,
        val: Images,
        accelerator: Accelerator,
        name: str,
        seed: int,
        batch_size: int,
    ) -> None:
        self.network, self.train_images, self.val_images = network, train, val
        self.accelerator, self.name, self.seed, self.batch_size = accelerator, name, seed, batch_size
        self.colorful = np.flatnonzero(~train.near_grey)
        self.images_seen = 0
        self._rows: list[tuple[str, int, str, str, float]] = []

    def run(self, stages: Sequence[Stage]) -> pd.DataFrame:
        """Train through the stages. Returns the losses: stage, epoch, component, split, value.

        Raises DivergedError as soon as a loss is seen not to be finite, ValueError without an image to train on.
        """
        if stages and not len(self.colorful):
            raise ValueError(f"all {len(self.train_images)} training images are near grey: there is no color to learn")
        for stage in stages:
            self._run_stage(stage)
        return pd.DataFrame(self._rows, columns=["stage", "epoch", "component", "split", "value"])

    def _run_stage(self, stage: Stage) -> None:
        chosen = self.colorful[: stage.images]
        stopped = _freeze(self.network, stage.frozen)
        stepper = Stepper(self.network, stage, self.accelerator)
        steps = stage.epochs * -(-len(chosen) // self.batch_size)
        bar = tqdm(
            total=stage.epochs * len(chosen),
            desc=f"{self.name} {stage.name}",
            unit="img",
            disable=None,
            leave=False,
        )
        started, step = time.monotonic(), 0
        for epoch in range(1, stage.epochs + 1):
            order = np.random.default_rng(seed_for(self.seed, "order", self.name, stage.name, epoch))
            self.network.train()
            sums, read = _Sums(stage, epoch), time.monotonic()
            for indices in _batches(order.permutation(chosen), self.batch_size):
                rate = stage.learning_rate * stage.decay(step / steps)
                flips = order.random(len(indices)) < 0.5
                mine = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
                batch = self._batch(self.train_images, indices[mine], stage, flips[mine])
                # Every draw of this step comes from here, so that a training can be taken up at any step.
                torch.manual_seed(
                    seed_for(self.seed, "step", self.name, stage.name, epoch, step, self.accelerator.process_index)
                )
                for update in stepper.step(batch, rate):
                    sums.add(update, len(indices))
                step += 1
                bar.update(len(indices))
                if time.monotonic() - read > LOG_SECONDS:
                    read = time.monotonic()
                    bar.set_postfix(loss=f"{sum(sums.means().values()):.4f}")
            self._average_buffers()
            self.images_seen += len(chosen)
            self._close_epoch(stage, epoch, sums, bar, started)
        bar.close()
        for parameter in stopped:
            parameter.requires_grad_(True)

    def _average_buffers(self) -> None:
        # Statistics and counts that each process gathered from its own share: batch normalization's, a model's own.
        if self.accelerator.num_processes > 1:
            for buffer in self.network.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.accelerator.reduce(buffer, reduction="mean"))

    def _close_epoch(self, stage: Stage, epoch: int, sums: _Sums, bar: tqdm, started: float) -> None:
        train, val = sums.means(), self._validate(stage, epoch)
        for split, means in (("train", train), ("val", val)):
            self._rows += [(stage.name, epoch, component, split, value) for component, value in means.items()]
        if bar.disable and self.accelerator.is_main_process:  # no terminal: a plain line for each epoch
            elapsed, share = time.monotonic() - started, epoch / stage.epochs
            losses = f"loss {sum(train.values()):.4f}, val {sum(val.values()):.4f}" if train else "no loss"
            print(
                f"{self.name} seed {self.seed}  {stage.name} {epoch}/{stage.epochs}  {losses}  "
                f"{bar.total * share / elapsed:.0f} img/s  {elapsed * (1 / share - 1):.0f} s left",
                file=sys.stderr, flush=True,
            )  # fmt: skip

    @torch.no_grad()
    def _validate(self, stage: Stage, epoch: int) -> dict[str, float]:
        self.network.eval()
        sums = _Sums(stage, epoch)
        # The same draws in every epoch: the curve then shows the network, not the noise.
        torch.manual_seed(seed_for(self.seed, "validation", self.name, stage.name))
        for indices in _batches(np.arange(len(self.val_images)), self.batch_size):
            batch = self._batch(self.val_images, indices, stage, np.zeros(len(indices), bool))
            with self.accelerator.autocast():
                for update in self.network.updates(batch):  # type: ignore[operator]
                    sums.add(update, len(indices))
        return sums.means()

    def _batch(self, images: Images, indices: np.ndarray, stage: Stage, flips: np.ndarray) -> Batch:
        L, ab = to_lab(images.pixels[indices], self.accelerator.device)
        flipped = torch.from_numpy(flips).to(L.device)[:, None, None, None]
        return Batch(torch.where(flipped, L.flip(3), L), torch.where(flipped, ab.flip(3), ab), stage.settings)


class _Sums:
    """Losses by component, summed on the device over an epoch."""

    def __init__(self, stage: Stage, epoch: int) -> None:
        self.where = f"stage {stage.name!r}, epoch {epoch}"
        self.totals: dict[str, Tensor] = {}
        self.counts: dict[str, int] = defaultdict(int)

    def add(self, update: Update, images: int) -> None:
        for name, value in update.losses.items():
            component = f"{update.player}/{name}" if update.player else name
            value = value.detach().float() * images
            self.totals[component] = self.totals[component] + value if component in self.totals else value
            self.counts[component] += images

    def means(self) -> dict[str, float]:
        """Read the means from the device. Raises DivergedError if one is not finite."""
        means = {name: total.item() / self.counts[name] for name, total in self.totals.items()}
        for name, value in means.items():
            if not np.isfinite(value):
                raise DivergedError(f"loss {name!r} is {value} in {self.where}; try a lower learning rate")
        return means


def _batches(indices: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


def _freeze(network: nn.Module, frozen: Sequence[str]) -> list[nn.Parameter]:
    """Stop the named submodules from learning. Returns the parameters that were stopped."""
    stopped = [p for name in frozen for p in network.get_submodule(name).parameters() if p.requires_grad]
    for parameter in stopped:
        parameter.requires_grad_(False)
    return stopped
