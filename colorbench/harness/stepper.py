"""One optimizer step after another: the updates of a network, checked against the contract, and its optimizers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite
from numbers import Real
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from colorbench.contract import Batch, Measures, Stage, Update
from colorbench.errors import one_line, reason, shown, whatever_raised
from colorbench.harness.networks import held, misfit, submodules
from colorbench.harness.optimizers import make_optimizer, refuse_unknown_optimizer, resumed_optimizer


class Stepper:
    """Takes the optimizer steps of one stage: one optimizer for each player, made when the player first appears."""

    def __init__(self, network: nn.Module, stage: Stage, accelerator: Accelerator) -> None:
        self.network, self.stage, self.accelerator = network, stage, accelerator
        self.optimizers: dict[str, Optimizer] = {}

    def step(self, batch: Batch, rate: float, images: int) -> Iterator[Update]:
        """Train on this process's share of a batch of `images`, yielding each update once its step is taken.

        `rate` is the learning rate, of which submodules in `stage.rates` have their own multiple. Raises ValueError for
        updates that break the contract, or none.
        """
        idle = True
        for update in updates_of(self.network, batch, self.accelerator):
            idle = False
            if update.player not in self.optimizers:
                self.optimizers[update.player] = make_optimizer(self.network, update.player, self.stage)
            optimizer = self.optimizers[update.player]
            optimizer.zero_grad()  # here, not after the step: another player's update may have left gradients
            loss = sum(update.losses.values())
            if not loss.requires_grad:  # type: ignore[union-attr]
                raise ValueError(f"the losses {', '.join(update.losses)} depend on no parameter that learns")
            self.accelerator.backward(loss)
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            self._average_gradients(parameters, share=len(batch.L) / images)
            if self.stage.clip:
                nn.utils.clip_grad_norm_(parameters, self.stage.clip)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["lr_scale"]
            optimizer.step()
            yield update
        if idle:
            raise ValueError(
                f"updates yielded nothing in stage {self.stage.name!r}; a stage without updates has measures=True"
            )

    def state(self) -> dict[str, dict[str, Any]]:
        """What the optimizers have gathered, by player."""
        return {player: optimizer.state_dict() for player, optimizer in self.optimizers.items()}

    def load(self, states: Mapping[str, dict[str, Any]]) -> None:
        """Take the optimizers up where `states` left them. Raises ValueError if those are of other parameters."""
        for player, state in states.items():
            self.optimizers[player] = resumed_optimizer(self.network, player, self.stage, state)

    def _average_gradients(self, parameters: Sequence[Tensor], share: float) -> None:
        # By hand: DistributedDataParallel hooks into one forward per step, and a generator of updates has any number.
        if self.accelerator.num_processes == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = self.accelerator.reduce(torch.cat([g.flatten() for g in gradients]) * share, reduction="sum")
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def updates_of(network: nn.Module, batch: Batch, accelerator: Accelerator) -> Iterator[Update]:
    """The updates that a network yields for a batch, computed in the precision of the training.

    Raises ValueError, naming what the contract asks for, when they are none.
    """
    updates = network.updates(batch)  # type: ignore[operator]
    if not isinstance(updates, Iterator):
        raise ValueError(f"updates returned {type(updates).__name__}; it must be a generator that yields each Update")
    while True:
        with accelerator.autocast():
            update: Any = next(updates, _END)
        if update is _END:
            return
        _check(update)
        yield update


@torch.no_grad()
def take_statistics(network: nn.Module, batches: Iterator[Batch]) -> None:
    """Let the network measure the images. Raises ValueError for buffers that cannot be saved, or are not finite."""
    network.eval()
    before = dict(network.state_dict())
    if isinstance(network.measure(batches), Iterator):  # type: ignore[operator]
        raise ValueError("measure is a generator, which has measured nothing; let it set the buffers without a yield")
    after = network.state_dict()
    if why := misfit(after, before):
        raise ValueError(f"measure changed what the network saves: {why}")
    if broken := [name for name in network.measured if not after[name].isfinite().all()]:  # type: ignore[union-attr]
        raise ValueError(f"measure left values in {broken[0]!r} that are not finite")


def check_stages(network: nn.Module, stages: Sequence[Stage]) -> None:
    """Raises ValueError for a schedule that cannot be trained, as far as this can be seen without a step."""
    check_fields(stages)
    fields = [(stage, field, getattr(stage, field)) for stage in stages for field in ("frozen", "rates")]
    submodules(network, {f"stage {s.name!r}, {field} {name!r}": name for s, field, names in fields for name in names})
    for stage in stages:
        refuse_unknown_optimizer(stage)
        if stage.measures:
            _refuse_unmeasured(network, stage)


def check_fields(stages: Sequence[Stage]) -> None:
    """The same of what can be seen without the network."""
    for stage in stages:
        if not isinstance(stage, Stage):
            raise ValueError(f"schedule returned {type(stage).__name__} among its stages; each has to be a Stage")
        if [other.name for other in stages if isinstance(other, Stage)].count(stage.name) > 1:
            raise ValueError(f"two stages have the name {stage.name!r}; give each its own")
        for field, (due, holds) in _RULES.items():
            try:
                held = holds(value := getattr(stage, field))
            except whatever_raised() as error:  # of a function that a plugin gives
                raise ValueError(f"stage {stage.name!r}: {field} fails ({reason(error)}); {due} is due") from error
            if not held:
                raise ValueError(f"stage {stage.name!r}: {field} is {shown(value)}; {due} is due")


def _refuse_unmeasured(network: nn.Module, stage: Stage) -> None:
    """Raises ValueError if the network or the stage is not fit for statistics of the training images."""
    if stage.epochs != 1:
        raise ValueError(f"stage {stage.name!r} measures; leave epochs at 1, not {stage.epochs}")
    fit = isinstance(network, Measures) and isinstance(network.measured, tuple | list) and callable(network.measure)
    if not isinstance(network, Measures) or not fit:
        raise ValueError(
            f"stage {stage.name!r} measures: the network needs a method measure(batches), and measured, a list of the "
            "buffers that it sets"
        )
    saved = {name for name, _ in network.named_buffers()} & network.state_dict().keys()
    if absent := [name for name in network.measured if name not in saved]:
        raise ValueError(
            f"measured names {absent[0]!r}, which is not a saved buffer; there are: {', '.join(saved) or 'none'}"
        )


@contextmanager
def frozen(network: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Stop the named submodules from learning while the block runs."""
    with held(*submodules(network, {f"frozen {name!r}": name for name in names})):
        yield


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _are_finite(*values: Any) -> bool:
    return all(isinstance(value, Real) and isfinite(value) for value in values)


def _is_by_name(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)


_FROM_0 = "a finite number from 0", lambda value: _are_finite(value) and value >= 0
# What a field of a stage must be, in words and as a test.
_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "name": ("one line of text", lambda name: isinstance(name, str) and name == one_line(name) != ""),
    "epochs": ("a whole number from 1", _is_count),
    "images": (
        "a whole number from 1, a function, or None",
        lambda images: images is None or callable(images) or _is_count(images),
    ),
    "learning_rate": _FROM_0,
    "warm_up": (
        "a whole number of steps, or a share from 0 to below 1",
        lambda steps: _is_count(steps) or (_are_finite(steps) and 0 <= steps < 1),
    ),
    "optimizer": ("a name or a function", lambda optimizer: isinstance(optimizer, str) or callable(optimizer)),
    "optimizer_options": ("a mapping from names", _is_by_name),
    "weight_decay": _FROM_0,
    "clip": _FROM_0,
    "rates": (
        "a mapping from names of submodules to finite numbers from 0",
        lambda rates: _is_by_name(rates) and _are_finite(*rates.values()) and all(r >= 0 for r in rates.values()),
    ),
    "measures": ("True or False", lambda measures: isinstance(measures, bool)),
    "average": ("a number from 0 to below 1", lambda average: _are_finite(average) and 0 <= average < 1),
    "settings": ("a mapping from names", _is_by_name),
    "decay": (
        "a function from 0..1 to finite numbers from 0",
        lambda decay: callable(decay) and all(_FROM_0[1](round(decay(i / 32), 9)) for i in range(33)),
    ),
    "frozen": (
        "a tuple of names",
        lambda names: isinstance(names, tuple | list) and all(isinstance(n, str) for n in names),
    ),
}
_END = object()  # of the updates


def _check(update: Any) -> None:
    if not isinstance(update, Update) or not isinstance(update.losses, Mapping) or not update.losses:
        raise ValueError(f"updates yielded {type(update).__name__}; an Update with one loss or more is due")
    for name, loss in update.losses.items():
        if not isinstance(loss, Tensor) or loss.ndim or not loss.is_floating_point():
            kind = f"{loss.dtype} {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"loss {name!r} is {kind}; a scalar tensor of floats is due, such as a mean")
