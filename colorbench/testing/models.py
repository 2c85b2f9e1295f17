"""The laws of a model, each a function."""

from __future__ import annotations

import contextlib
import random
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from colorbench.contract import OPTIONAL, Measures, ShowsAttention
from colorbench.errors import reason, whatever_raised
from colorbench.harness import predict
from colorbench.harness.checkpoint import Checkpoint, TrainingState
from colorbench.harness.networks import (
    build,
    load_weights,
    packed_weights,
    refuse_misspelt,
    trained_state,
)
from colorbench.harness.predict import colorize
from colorbench.harness.stepper import check_stages, updates_of
from colorbench.presets import PRESETS
from colorbench.runs.identity import differences, stage_fields
from colorbench.runs.predictions import file_sha256
from colorbench.testing.toy import SIZE, STEPS, WIDTH, Model, copied

LARGEST_AB = 128  # no color of sRGB is beyond -108..99, and no format of Lab beyond this
SCALES = (100.0, 110.0, 127.0, 128.0)  # by which ab is usually divided
SIDES = ((32, 64), (48, 40), (33, 47))  # beside the square that it trains on
SHOWN = 3  # names in a message


# ---- what everything else needs


def builds(model: Model) -> str:
    """`build` returns a torch.nn.Module with a state of plain tensors."""
    network, _ = model.build()
    return f"{sum(tensor.numel() for tensor in network.state_dict().values()):,} numbers at width {WIDTH:g}"


def spelling(model: Model) -> str:
    """No attribute of the network looks like a misspelt one of the contract."""
    network, _ = model.build()
    refuse_misspelt(network)
    return f"has {', '.join(name for name in ('forward', 'updates', *OPTIONAL) if hasattr(network, name))}"


def shape(model: Model) -> str:
    """`forward` maps L, float32 (B, 1, H, W) in 0..100, to ab, float32 (B, 2, H, W)."""
    network, _ = model.build()
    try:
        return f"float32 {tuple(colorize(network, **model.inputs).shape)}"
    except predict.NotFiniteError:
        return "float32 (B, 2, H, W)"


def finite(model: Model) -> str:
    """ab is finite for every L, 0 and 100 included."""
    network, _ = model.build()
    plain = {f"L = {L}": model.plain(L) for L in (0, 50, 100)}
    for what, inputs in {"smooth pictures": model.inputs, **plain}.items():
        try:
            colorize(network, **inputs)
        except predict.NotFiniteError as error:
            raise ValueError(f"{error} for {what}; look for a division, logarithm or root of 0") from error
    return "for smooth pictures, and for L = 0, 50 and 100"


def stages(model: Model) -> str | None:
    """`schedule` returns stages that can be trained, the same each time, under every preset."""
    network, _ = model.build()
    epochs = []
    for preset in PRESETS.values():
        first, second = list(model.spec.schedule(preset)), list(model.spec.schedule(preset))
        try:
            check_stages(network, first)
        except ValueError as error:
            raise ValueError(f"preset {preset.name}: {error}") from error
        once, again = ([stage_fields(stage) for stage in each] for each in (first, second))
        if changed := list(differences(once, again)):
            raise ValueError(f"asked again: {', '.join(changed)}; let schedule depend on the preset alone")
        if first and isinstance(network, Measures) and not any(stage.measures for stage in first):
            raise ValueError(
                f"preset {preset.name}: the network has measure, but no stage asks for it; "
                "begin with Stage('measure', measures=True)"
            )
        epochs.append(f"{sum(stage.epochs for stage in first)} for {preset.name}")
    return f"stages: {len(model.stages)}; epochs: {', '.join(epochs)}" if model.stages else None


def trains(model: Model) -> str | None:
    """Every stage trains: `updates` yields scalar, finite losses for players that exist and learn."""
    if not model.stages:
        return None
    losses = model.trained.losses
    last = losses[losses.split == "val"].groupby("component", sort=False).value.last()
    return ", ".join(f"{name} {value:.3g}" for name, value in last.items()) or "without a loss"


# ---- what it answers


def lab_units(model: Model) -> str:
    """ab is in Lab units, within -128..128: not divided by 110."""
    ab = colorize(model.network, **model.inputs)
    largest = float(ab.abs().max())
    if largest > LARGEST_AB:
        raise ValueError(f"|ab| is up to {largest:.0f}; keep it within {LARGEST_AB}, by a tanh or a clamp")
    # The model's own losses know its units: they are the least where the truth is what it answers, in these units.
    losses = {scale: _loss_against(model, scale * ab) for scale in (1.0, *SCALES)}
    best = min(losses, key=lambda scale: losses[scale])
    if losses[best] < losses[1.0] / 2:
        raise ValueError(
            f"its losses are the least for a true ab of {best:.0f} times its answer, which is up to {largest:.2g}; "
            f"multiply what forward returns by {best:.0f}"
        )
    return f"|ab| up to {largest:.3g}"


def luminance_alone(model: Model) -> str | None:
    """A model that takes more than L colors without it, too: under a protocol without hints, or with other data."""
    if not model.spec.takes:
        return None
    parameters = signature(model.network.forward).parameters
    absent = [name for name in model.spec.takes if name not in parameters]
    if absent and all(parameter.kind is not Parameter.VAR_KEYWORD for parameter in parameters.values()):
        raise ValueError(f"takes names {absent[0]!r}, which forward has not; it has {', '.join(parameters)}")
    colorize(model.network, model.inputs["L"])
    return f"without {', '.join(model.spec.takes)}"


def deterministic(model: Model) -> str:
    """In eval mode the same L gives the same ab, and no random number is drawn."""
    before = _random_state()
    predict.check_repeated(model.network, **model.inputs)
    if _random_state() != before:
        raise ValueError("random numbers are drawn in eval mode; draw them from a generator of your own")
    return "two answers alike, no random number drawn"


def independent_of_the_batch(model: Model) -> str:
    """An image gets the same colors alone and in a batch."""
    predict.check_alone(model.network, **model.inputs)
    return f"{len(model.test)} images"


def attention(model: Model) -> str | None:
    """`with_attention`, if there is one, gives the colors of `forward`, and a map in 0..1."""
    if not isinstance(model.network, ShowsAttention) or model.spec.sees_truth:
        return None
    predict.check_attention(model.network, **model.inputs)
    return "the colors of forward"


def input_left_alone(model: Model) -> str:
    """`forward` and `updates` write into nothing that they are given."""
    given = {name: values.clone() for name, values in model.inputs.items()}
    with torch.no_grad():
        model.network.eval()(given["L"], **{name: values for name, values in given.items() if name != "L"})
    written = not all(torch.equal(given[name], values) for name, values in model.inputs.items())
    for stage in model.updating:
        batch, same = model.batch(stage), model.batch(stage)
        model.validate(batch)
        written |= not (torch.equal(batch.L, same.L) and torch.equal(batch.ab, same.ab))
    if written:
        raise ValueError("L or ab was changed; use operations that return a new tensor, L + 1 and not L.add_(1)")
    return "L and ab unchanged"


def sizes(model: Model) -> str:
    """Pictures of other sizes are colored, or refused by a ValueError that says which can be."""
    taken = [f"{SIZE}x{SIZE}"]
    for sides in SIDES:
        name = "x".join(map(str, sides))
        try:
            colorize(model.network, **{name: interpolate(values, sides) for name, values in model.inputs.items()})
        except predict.AnswerError as error:
            raise ValueError(f"{name}: {error}") from error
        except ValueError:
            taken.append(f"not {name}")
        except whatever_raised() as error:
            why = f"{name}: {reason(error)}"
            raise ValueError(f"{why}; raise a ValueError in forward that says which sides can be colored") from error
        else:
            taken.append(name)
    return ", ".join(taken)


def bf16(model: Model) -> str:
    """Under bfloat16 autocast ab and the losses are float32 and finite, and a step can be taken."""
    network, _ = model.build()
    with torch.autocast(model.device.type, dtype=torch.bfloat16):
        colorize(network, **model.inputs)
        for stage, stepper, batch in model.through(network):
            for update in stepper.step(batch, stage.learning_rate, len(batch.L)):
                for name, loss in update.losses.items():
                    if loss.dtype != torch.float32 or not loss.isfinite():
                        raise ValueError(f"loss {name!r} is {float(loss):.3g} in {loss.dtype}; compare .float()")
    return "float32 and finite"


# ---- how it trains


def gradients(model: Model) -> str | None:
    """In each stage a gradient reaches every parameter that is not frozen, from the losses of its player."""
    for steps in model.steps:
        if lost := sorted(steps.learning - steps.reached):
            owned = set[str]().union(*steps.owned.values())
            what = "get no gradient" if owned.issuperset(lost) else "belong to no player"
            remedy = "use them in a loss, take them out, or freeze their submodule in this stage"
            raise ValueError(f"stage {steps.stage.name!r}: {_some(lost)} {what}; {remedy}")
    reached = set[str]().union(*(steps.reached for steps in model.steps))
    return f"reach {len(reached)} tensors" if reached else None


def players(model: Model) -> str | None:
    """No parameter belongs to two players: one would undo what the other learns."""
    owned: dict[str, set[str]] = {}
    for steps in model.steps:
        for player, names in steps.owned.items():
            owned.setdefault(player, set()).update(names)
    for first, second in ((first, second) for first in owned for second in owned if first < second):
        if shared := sorted(owned[first] & owned[second]):
            remedy = 'give each a submodule of its own; "" is the whole network'
            raise ValueError(f"players {first!r} and {second!r} share {_some(shared)}; {remedy}")
    return ", ".join(f"{name or 'the whole network'} {len(owned[name])} tensors" for name in owned) or None


def learns(model: Model) -> str | None:
    """Steps on one batch lower the loss of some player."""
    losses = {
        f"{steps.stage.name} {name}".strip(): sums for steps in model.steps for name, sums in steps.losses.items()
    }
    seen = ", ".join(f"{name} {sums[0]:.3g} -> {sums[-1]:.3g}" for name, sums in losses.items())
    if losses and not any(sums[-1] < sums[0] for sums in losses.values()):
        raise ValueError(f"no loss falls in {STEPS} steps: {seen}; look at its sign and at the learning rate")
    return seen or None


def validation(model: Model) -> str | None:
    """In eval mode `updates` yields the losses of training, and changes no state."""
    network, _ = model.build()
    for stage, _, batch in model.through(network):
        before = copied(model.network)
        validated = [(update.player, {*update.losses}) for update in model.validate(batch)]
        if changed := _changed(before, model.network.state_dict()):
            raise ValueError(f"{_some(changed)} changed in eval mode; learn and count only if self.training")
        updates = list(updates_of(network, batch, model.accelerator))
        if validated != [(update.player, {*update.losses}) for update in updates]:
            raise ValueError(f"stage {stage.name!r} has other losses in eval mode; yield the same in both")
    return "the same losses, no change" if model.updating else None


def base_left_alone(model: Model) -> str | None:
    """What a model refines keeps its weights and its statistics."""
    _, base, before, _ = model.trained
    if base is None:
        return None
    if changed := _changed(before, base.state_dict()):
        raise ValueError(f"{_some(changed)} of the base changed; override train() and call self.base.eval() in it")
    if learning := [name for name, parameter in base.named_parameters() if parameter.requires_grad]:
        raise ValueError(f"{_some(learning)} of the base learn; leave requires_grad as it is")
    return f"{model.spec.refines} unchanged"


def save_and_load(model: Model) -> str:
    """A network that is built anew and gets the saved weights gives the same answers, to the bit."""
    network, base, *_ = model.trained
    fresh = build(model.spec, WIDTH, SIZE, base, seed=1).to(model.device)
    saved = trained_state(network, base)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "weights.safetensors")
        file.write_bytes(packed_weights(saved))
        load_weights(fresh, file, base, file_sha256(file))
    if not torch.equal(colorize(fresh, **model.inputs), colorize(network, **model.inputs)):
        raise ValueError("it answers otherwise when loaded; keep what is learned in parameters and buffers")
    return f"{len(saved)} tensors"


class _Stop(Exception):  # noqa: N818 - nothing went wrong
    """A training is stopped, right after its checkpoint was written."""


class _StoppingCheckpoint(Checkpoint):
    """Written after every step; stops the training after the first step of a stage, once in each."""

    def __init__(self, file: Path, device: torch.device) -> None:
        super().__init__(file, "", device)
        self.stopped: set[int] = set()

    def is_due(self) -> bool:
        return True

    def write(self, state: TrainingState) -> None:
        super().write(state)
        if state.step == 1 and state.stage not in self.stopped:
            self.stopped.add(state.stage)
            raise _Stop

    def refuse(self, reason: Exception) -> None:
        raise ValueError(f"it cannot be taken up ({reason}); let build return the same network each time")


def resume(model: Model) -> str | None:
    """A training that is stopped in mid-epoch, in each of its stages, ends as if it had not been: to the bit."""
    if not model.stages:
        return None
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, losses = _StoppingCheckpoint(Path(folder, "training"), model.device), None
        while losses is None:
            network, base = model.build()
            with contextlib.suppress(_Stop):
                losses = model.trainer(network, base, checkpoint).run(model.stages)
    changed = _changed(trained_state(model.network, model.trained.base), network.state_dict())
    changed += [] if losses.equals(model.trained.losses) else ["the losses"]
    if changed:
        remedy = "keep what a step depends on in buffers, and draw from torch's global generator"
        raise ValueError(f"{_some(changed)} differ when it was stopped and resumed; {remedy}")
    return f"the same bits; stops: {len(checkpoint.stopped)}"


LAWS = (
    (builds,),
    (spelling, shape),
    (finite, stages),
    (trains,),
    (deterministic, validation, base_left_alone),
    (
        lab_units, luminance_alone, independent_of_the_batch, attention, input_left_alone, sizes, bf16, gradients,
        players, learns, save_and_load, resume,
    ),
)  # fmt: skip


def _loss_against(model: Model, truth: Tensor) -> float:
    """The validation losses over all stages, if that were the true ab of the test images."""
    batches = [replace(model.batch(stage), L=model.inputs["L"], ab=truth) for stage in model.updating]
    return sum(float(loss) for batch in batches for update in model.validate(batch) for loss in update.losses.values())


def _random_state() -> Any:
    return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()


def _changed(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[str]:
    return [name for name, tensor in before.items() if not torch.equal(tensor, after[name])]


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
