"""Optimizers, as the stages of a schedule ask for them: made by timm, or by a function of the plugin's own."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from colorbench.contract import Stage
from colorbench.errors import reason, whatever_raised
from colorbench.harness.networks import submodules

DEFAULT = "adam"
FUSED = {"adamw", "sgd", "momentum"}  # as Adam here: torch's own, whose step is then several times as fast on a CPU


def learning_rate(stage: Stage, step: int, steps: int) -> float:
    """The rate of a step of the stage, counted from 0. Raises ValueError if it warms up for more than its `steps`."""
    warm_up = round(stage.warm_up * steps) if isinstance(stage.warm_up, float) else stage.warm_up
    if warm_up > steps:
        raise ValueError(
            f"stage {stage.name!r}: warm_up is {warm_up} steps, and the stage has {steps}; "
            "give fewer, or a share of the stage, such as 0.05"
        )
    return stage.learning_rate * min(1.0, (step + 1) / max(warm_up, 1)) * stage.decay(step / steps)


def refuse_unknown_optimizer(stage: Stage) -> None:
    """Raises ValueError with the nearest names if timm makes no optimizer of the stage's name."""
    if stage.optimizer == DEFAULT or callable(stage.optimizer):
        return
    from timm.optim import list_optimizers  # type: ignore[attr-defined]

    if stage.optimizer not in (known := list_optimizers()):
        near = " or ".join(map(repr, difflib.get_close_matches(stage.optimizer, known)))
        raise ValueError(
            f"stage {stage.name!r}: there is no optimizer {stage.optimizer!r}{near and f' (did you mean {near}?)'}; "
            "timm.optim.list_optimizers() gives all names"
        )


def make_optimizer(network: nn.Module, player: str, stage: Stage) -> Optimizer:
    """A fresh optimizer of the parameters of a player that learn now.

    Each of its groups has an `lr_scale`: its own multiple of the learning rate. Raises ValueError if there is no such
    player, if nothing of it learns, or if the optimizer cannot be made.
    """
    return _made(stage, _groups(network, player, stage))


def resumed_optimizer(network: nn.Module, player: str, stage: Stage, state: dict[str, Any]) -> Optimizer:
    """The optimizer with the state that another one of its kind had. Raises ValueError if it is of other parameters."""
    groups = _groups(network, player, stage)
    try:
        _try(stage, groups, copy.deepcopy(state))
    except Exception as error:  # torch and timm raise many types: all mean that the state is of another optimizer
        raise ValueError(f"the optimizer of player {player!r} has other parameters ({reason(error)})") from error
    optimizer = _made(stage, groups)
    optimizer.load_state_dict(state)
    return optimizer


def _try(stage: Stage, groups: list[dict[str, Any]], state: dict[str, Any]) -> None:
    """Take a step on copies, not fused: with a state of other shapes, a fused step would write beyond its memory."""
    twins = [group | {"params": [p.detach().clone() for p in group["params"]]} for group in groups]
    parameters = [twin for group in twins for twin in group["params"]]
    for twin in parameters:
        twin.grad = torch.zeros_like(twin)
    optimizer = _made(stage, twins)
    known = [{*group} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    if surplus := state["state"].keys() - {*range(len(parameters))}:
        raise ValueError(f"there is no number {min(surplus)}")
    for group, names in zip(optimizer.param_groups, known, strict=True):
        if lacking := names - group.keys():
            raise ValueError(f"it lacks {min(lacking)}")
        group |= dict.fromkeys(names & {"foreach", "fused"}, False)
    optimizer.step()


def _groups(network: nn.Module, player: str, stage: Stage) -> list[dict[str, Any]]:
    """The parameters of a player that learn, in groups of one learning rate."""
    groups: dict[float, list[nn.Parameter]] = {}
    (module,) = submodules(network, {f"player {player!r}": player})
    for name, parameter in module.named_parameters(prefix=player):
        if parameter.requires_grad:
            around = [module for module in stage.rates if name.startswith(f"{module}.")]
            scale = stage.rates[max(around, key=len)] if around else 1.0
            groups.setdefault(scale, []).append(parameter)
    if not groups:
        raise ValueError(f"player {player!r} has no parameter that learns in stage {stage.name!r}")
    return [{"params": group, "lr": stage.learning_rate * scale} for scale, group in groups.items()]


def _made(stage: Stage, groups: list[dict[str, Any]]) -> Optimizer:
    options = {**stage.optimizer_options} | ({"weight_decay": stage.weight_decay} if stage.weight_decay else {})
    make = stage.optimizer if callable(stage.optimizer) else _factory(stage.optimizer)
    try:
        optimizer = make(groups, stage.learning_rate, **options)
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not a torch.optim.Optimizer")
        taken = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        due = {id(parameter) for group in groups for parameter in group["params"]}
        if lost := len(due - taken):
            raise ValueError(f"it leaves out {lost} of the {len(due)} parameters that it gets; let it take them all")
    except whatever_raised() as error:  # whatever a plugin or a library raises
        raise ValueError(f"stage {stage.name!r}: its optimizer cannot be made ({reason(error)})") from error
    for group in optimizer.param_groups:
        group["lr_scale"] = group["lr"] / stage.learning_rate if stage.learning_rate else 1.0
    return optimizer


def _factory(name: str) -> Callable[..., Optimizer]:
    """Parameter groups, learning rate and options -> the optimizer that timm makes under this name."""
    if name == DEFAULT:  # what timm would make, too, after seconds of import
        return partial(torch.optim.Adam, fused=True)
    from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]

    fused = {"fused": True} if name in FUSED else {}
    return lambda groups, lr, **options: create_optimizer_v2(groups, name, lr, **fused | options)
