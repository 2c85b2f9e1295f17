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

from colorbench.contract import Batch, Stage, Update
from colorbench.harness.networks import misfit


class Stepper:
    """Takes the optimizer steps of one stage: one Adam for each player, made when the player first appears."""

    def __init__(self, network: nn.Module, stage: Stage, accelerator: Accelerator) -> None:
        self.network, self.stage, self.accelerator = network, stage, accelerator
        self.optimizers: dict[str, torch.optim.Optimizer] = {}

    def step(self, batch: Batch, rate: float, images: int) -> Iterator[Update]:
        """Train on this process's share of a batch of `images`, yielding each update once its step is taken.

        Raises ValueError for updates that break the contract. A network with parameters that learn in this stage must
        yield an update in each step; one without, which may count instead, need not.
        """
        idle = any(parameter.requires_grad for parameter in self.network.parameters())
        for update in updates_of(self.network, batch, self.accelerator):
            idle = False
            if update.player not in self.optimizers:
                self.optimizers[update.player] = self._adam(update.player)
            optimizer = self.optimizers[update.player]
            optimizer.zero_grad()  # here, not after the step: another player's update may have left gradients
            loss = sum(update.losses.values())
            if not loss.requires_grad:  # type: ignore[union-attr]
                raise ValueError(f"the losses {', '.join(update.losses)} depend on no parameter that learns")
            self.accelerator.backward(loss)
            self._average_gradients(optimizer, share=len(batch.L) / images)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            yield update
        if idle:
            raise ValueError(
                f"updates yielded nothing in stage {self.stage.name!r}, where the network has parameters to learn"
            )

    def state(self) -> dict[str, dict[int, dict[str, Tensor]]]:
        """What the optimizers have gathered, by player and number of the parameter."""
        return {player: optimizer.state_dict()["state"] for player, optimizer in self.optimizers.items()}

    def load(self, states: Mapping[str, Mapping[int, Mapping[str, Tensor]]]) -> None:
        """Take the optimizers up where `states` left them. Raises ValueError if those are of other parameters."""
        for player, state in states.items():
            optimizer = self.optimizers[player] = self._adam(player)
            parameters = dict(enumerate(optimizer.param_groups[0]["params"]))
            for number, moments in state.items():  # unchecked, the fused step would write beyond their memory
                due: dict[str, Any] = dict.fromkeys(("exp_avg", "exp_avg_sq"), parameters.get(number)) | {
                    "step": torch.zeros(())
                }
                if number not in parameters or misfit(moments, due):
                    raise ValueError(f"the optimizer of player {player!r} has other parameters")
            optimizer.load_state_dict(optimizer.state_dict() | {"state": state})

    def _adam(self, player: str) -> torch.optim.Optimizer:
        parameters = [p for p in submodule(self.network, player, "player").parameters() if p.requires_grad]
        if not parameters:
            raise ValueError(f"player {player!r} has no parameter that learns in stage {self.stage.name!r}")
        return torch.optim.Adam(parameters, betas=self.stage.betas, weight_decay=self.stage.weight_decay, fused=True)

    def _average_gradients(self, optimizer: torch.optim.Optimizer, share: float) -> None:
        # By hand: DistributedDataParallel hooks into one forward per step, and a generator of updates has any number.
        if self.accelerator.num_processes == 1:
            return
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
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


def check_stages(network: nn.Module, stages: Sequence[Stage]) -> None:
    """Raises ValueError for a schedule that cannot be trained, as far as this can be seen without a step."""
    names = [stage.name for stage in stages]
    for stage in stages:
        if names.count(stage.name) > 1:
            raise ValueError(f"two stages have the name {stage.name!r}; give each its own")
        for field, (due, holds) in _RULES.items():
            if not holds(value := getattr(stage, field)):
                raise ValueError(f"stage {stage.name!r}: {field} is {value!r}; {due} is due")
        for name in stage.frozen:
            submodule(network, name, f"stage {stage.name!r}, frozen")


def submodule(network: nn.Module, name: str, role: str) -> nn.Module:
    """The named submodule; `role` says for what it is. Raises ValueError naming those that there are."""
    try:
        return network.get_submodule(name)
    except AttributeError as error:
        there = ", ".join(child for child, _ in network.named_children()) or "none"
        raise ValueError(f"{role} {name!r}: the network has no such submodule; there are: {there}") from error


@contextmanager
def frozen(network: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Stop the named submodules from learning while the block runs."""
    stopped = [p for name in names for p in submodule(network, name, "frozen").parameters() if p.requires_grad]
    for parameter in stopped:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in stopped:
            parameter.requires_grad_(True)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _are_finite(*values: Any) -> bool:
    return all(isinstance(value, Real) and isfinite(value) for value in values)


# What a field of a stage must be, in words and as a test.
_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "epochs": ("a whole number from 1", _is_count),
    "images": ("a whole number from 1, or None", lambda images: images is None or _is_count(images)),
    "part": (
        "a pair of rising shares from 0 to 1",
        lambda part: len(part) == 2 and _are_finite(*part) and 0 <= part[0] <= part[1] <= 1,
    ),
    "learning_rate": ("a finite number from 0", lambda rate: _are_finite(rate) and rate >= 0),
    "average": ("a number from 0 to below 1", lambda average: _are_finite(average) and 0 <= average < 1),
    "decay": ("a function of 0..1", lambda decay: callable(decay) and _are_finite(decay(0.0), decay(0.5), decay(1.0))),
    "frozen": ("a tuple of names", lambda names: not isinstance(names, str) and all(isinstance(n, str) for n in names)),
}
_END = object()  # of the updates


def _check(update: Any) -> None:
    if not isinstance(update, Update) or not isinstance(update.losses, Mapping) or not update.losses:
        raise ValueError(f"updates yielded {type(update).__name__}; an Update with one loss or more is due")
    for name, loss in update.losses.items():
        if not isinstance(loss, Tensor) or loss.ndim or not loss.is_floating_point():
            kind = f"{loss.dtype} {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"loss {name!r} is {kind}; a scalar tensor of floats is due, such as a mean")
