"""A model at toy scale: built, trained and asked with the trainer, stepper and prediction of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from colorbench import plugins
from colorbench.contract import Batch, ModelSpec, Stage, Update
from colorbench.data.loader import Loader
from colorbench.harness import predict
from colorbench.harness.checkpoint import Checkpoint
from colorbench.harness.device import accelerator
from colorbench.harness.networks import (
    build,
    untrained,
)
from colorbench.harness.stepper import Stepper, frozen, take_statistics, updates_of
from colorbench.harness.trainer import Trainer, TrainingJob
from colorbench.plugins import Registry
from colorbench.presets import PRESETS
from colorbench.protocol import COLORBENCH
from colorbench.seeds import seed_for
from colorbench.testing.pictures import smooth_images

SIZE, WIDTH, BATCH = PRESETS["smoke"].size, PRESETS["smoke"].width, 4
IMAGES = 7  # to train on: an epoch of two steps, the second smaller than the first
STEPS = 5  # on one batch in each stage
HINTED = replace(COLORBENCH, size=SIZE, hints=10)  # what takes no hints gets none


@dataclass
class Steps:
    """What some steps of one stage showed, by the names of parameters.

    `learning` may learn in the stage; `owned` are those of each player; `reached` got a gradient that is not all zero.
    `losses` are the sums of each player, step after step.
    """

    stage: Stage
    learning: set[str]
    owned: dict[str, set[str]] = field(default_factory=dict)
    reached: set[str] = field(default_factory=set)
    losses: dict[str, list[float]] = field(default_factory=dict)


class Trained(NamedTuple):
    """A network after its schedule, and what it refines, whose state was `base_before`."""

    network: nn.Module
    base: nn.Module | None
    base_before: Mapping[str, Tensor]
    losses: pd.DataFrame


class Model:
    """A model under the laws. What several of them look at is made once, when the first asks for it."""

    def __init__(self, spec: ModelSpec, registry: Registry | None = None) -> None:
        self.spec, self.given, self.accelerator = spec, registry, accelerator()
        self.device = self.accelerator.device
        self.train, self.test = smooth_images(IMAGES, SIZE), smooth_images(4, SIZE, seed=2)

    @cached_property
    def registry(self) -> Registry:
        return self.given or plugins.load()

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        """What the network gets of the test images: L, and by name what it takes beside."""
        L, inputs = predict.inputs_of(self.spec, self.test, slice(None), self.device, HINTED)
        return {"L": L} | inputs

    def plain(self, L: float) -> dict[str, Tensor]:
        """The same of one L throughout, and no color."""
        nothing = {name: torch.zeros_like(values) for name, values in self.inputs.items()}
        return nothing | {"L": torch.full_like(self.inputs["L"], L)}

    def build(self, seed: int = 0) -> tuple[nn.Module, nn.Module | None]:
        """The untrained network, and the untrained one that it refines."""
        base = untrained(self.registry, self.spec.refines, WIDTH, SIZE) if self.spec.refines else None
        return build(self.spec, WIDTH, SIZE, base, seed).to(self.device), base

    @cached_property
    def stages(self) -> list[Stage]:
        """The schedule, an epoch to a stage."""
        return [replace(stage, epochs=1, warm_up=0) for stage in self.spec.schedule(PRESETS["smoke"])]

    @property
    def updating(self) -> list[Stage]:
        """The stages with updates."""
        return [stage for stage in self.stages if not stage.measures]

    @cached_property
    def trained(self) -> Trained:
        network, base = self.build()
        before = copied(base) if base else {}
        losses = self.trainer(network, base).run(self.stages)
        return Trained(network.eval(), base, before, losses)

    @property
    def network(self) -> nn.Module:
        """The trained network."""
        return self.trained.network

    def trainer(self, network: nn.Module, base: nn.Module | None, checkpoint: Checkpoint | None = None) -> Trainer:
        return Trainer(
            TrainingJob(network, self.spec, 0, BATCH, self.train, self.test, base), self.accelerator, checkpoint
        )

    def batch(self, stage: Stage) -> Batch:
        """The first batch of a stage, as its training has it."""
        return next(self._loader(stage).epoch(1))[1]

    def _loader(self, stage: Stage) -> Loader:
        return Loader(self.train, stage, BATCH, partial(seed_for, 0), self.accelerator)

    def through(self, network: nn.Module) -> Iterator[tuple[Stage, Stepper, Batch]]:
        """Stage after stage what a step takes, while the stage's submodules are frozen; statistics are taken before."""
        for stage in self.stages:
            if stage.measures:
                loader = self._loader(stage)
                take_statistics(network, loader.in_order(self.train, loader.chosen(1)))
                continue
            with frozen(network, stage.frozen):
                yield stage, Stepper(network.train(), stage, self.accelerator), self.batch(stage)

    def validate(self, batch: Batch) -> list[Update]:
        """What the trained network yields for a batch in eval mode."""
        torch.manual_seed(0)
        with torch.no_grad():
            return list(updates_of(self.network.eval(), batch, self.accelerator))

    @cached_property
    def steps(self) -> list[Steps]:
        """Steps on one batch with the same random numbers, stage after stage, at the learning rate of each."""
        network, _ = self.build()
        names = {id(parameter): name for name, parameter in network.named_parameters()}
        done = []
        for stage, stepper, batch in self.through(network):
            steps = Steps(stage, {name for name, p in network.named_parameters() if p.requires_grad})
            done.append(steps)
            for _ in range(STEPS):
                torch.manual_seed(0)
                for update in stepper.step(batch, stage.learning_rate, len(batch.L)):
                    groups = stepper.optimizers[update.player].param_groups
                    owned = [parameter for group in groups for parameter in group["params"]]
                    steps.owned[update.player] = {names[id(p)] for p in owned}
                    steps.reached |= {names[id(p)] for p in owned if p.grad is not None and p.grad.any()}
                    loss = sum(value.item() for value in update.losses.values())
                    steps.losses.setdefault(update.player, []).append(loss)
        return done


def copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}
