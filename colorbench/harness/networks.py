"""Networks: built from a spec, filled with weights, saved without what they did not train."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from colorbench.contract import ModelSpec
from colorbench.errors import UserError
from colorbench.plugins import Registry
from colorbench.runs.folder import read_checked
from colorbench.seeds import seed_for

PUBLISHED_WIDTH, PUBLISHED_SIZE = 1.0, 256  # of the weight files that authors of colorization models release
FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}  # of which each is converted to the other


def build(spec: ModelSpec, width: float, size: int, base: nn.Module | None = None, seed: int = 0) -> nn.Module:
    """The untrained network for images of `size`, its first weights drawn from a seed of its own; `base` is frozen.

    Raises ValueError when the plugin returns no network, or one whose notes are no text.
    """
    if base is not None:
        base.requires_grad_(False).eval()
    with torch.random.fork_rng(devices=[]):  # whoever loads a model keeps the random numbers that he had
        # A variant of its parent's shapes starts from its weights: the difference is then the change, not the draw.
        torch.manual_seed(seed_for(seed, "init", spec.parent or spec.name))
        network = spec.build(width=width, size=size, base=base, **spec.options)
    if not isinstance(network, nn.Module):
        raise ValueError(f"build of {spec.name!r} returned {type(network).__name__}; a torch.nn.Module is due")
    if reason := misfit(own := network.state_dict(), own):
        raise ValueError(f"the network's state cannot be saved: {reason}")
    notes_of(network)
    return network


def untrained(registry: Registry, name: str, width: float, size: int, seed: int = 0) -> nn.Module:
    """The untrained network of a model by its name, on an untrained base if it refines one."""
    (spec,) = registry.find("model", [name])
    base = untrained(registry, spec.refines, width, size, seed) if spec.refines else None
    return build(spec, width, size, base, seed)


def build_published(spec: ModelSpec, size: int, file: Path) -> nn.Module:
    """The network at full width with published weights. Raises UserError when they do not fit."""
    if spec.refines:
        raise UserError(f"{spec.name!r} refines {spec.refines!r}, which a weight file does not hold; give a run")
    network = build(spec, PUBLISHED_WIDTH, size)
    load_weights(network, file)
    return network


def trained_state(network: nn.Module, base: nn.Module | None) -> dict[str, Tensor]:
    """The network's state without that of its base, which is saved in a cell of its own."""
    inside = [name for name, module in network.named_modules() if module is base]
    return {k: v for k, v in network.state_dict().items() if not any(k.startswith(f"{name}.") for name in inside)}


@torch.no_grad()
def count_parameters(network: nn.Module, L: Tensor) -> int:
    """The parameters that color `L`, base included: no discriminator, no head that only training uses."""
    used: dict[int, int] = {}

    def note(module: nn.Module, *_: Any) -> None:
        used.update((id(p), p.numel()) for p in module.parameters(recurse=False))

    hooks = [module.register_forward_hook(note) for module in network.modules()]
    try:
        network.eval()(L)
    finally:
        for hook in hooks:
            hook.remove()
    return sum(used.values())


def notes_of(network: nn.Module) -> tuple[str, ...]:
    """The sentences that the network has for the reader of the table. Raises ValueError if they are no text."""
    notes = getattr(network, "notes", ())
    if isinstance(notes, str):
        return (notes,)
    if not isinstance(notes, Sequence) or not all(isinstance(note, str) for note in notes):
        raise ValueError("the network's attribute notes is no sequence of text; make it a list of sentences")
    return tuple(notes)


def packed_weights(state: Mapping[str, Tensor]) -> bytes:
    """A state dict as the bytes of a safetensors file."""
    # Copies, since two names may share one tensor, which the format does not know.
    dense = {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in state.items()}
    return safetensors.torch.save(dense)


def load_weights(network: nn.Module, file: Path, base: nn.Module | None = None, checksum: str | None = None) -> None:
    """Load `file`, safetensors or a state dict of torch, into all of the network but its base.

    Nothing in the file is executed. Raises UserError when it cannot be read, is damaged or not what `checksum` says,
    holds anything but dense tensors of real numbers, or does not fit by key, shape and kind of number.
    """
    state = _state_in(_content(file) if checksum is None else read_checked(file, checksum), file)
    if reason := misfit(state, trained_state(network, base)):
        raise UserError(f"{file} does not fit: {reason}; give weights made for this model at this width")
    learned = {name for name, _ in network.named_parameters()}
    if broken := [name for name, tensor in state.items() if name in learned and tensor.isnan().any()]:
        raise UserError(f"{file} holds values that are no numbers in {_some(broken)}; give weights of a sound training")
    network.load_state_dict(state, strict=base is None)


def misfit(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Why a network whose state is `own` cannot load `state`; empty if it can. Floats are converted to other floats."""
    if missing := [key for key in own if key not in state]:
        return f"it lacks {_some(missing)}"
    if surplus := [key for key in state if key not in own]:
        return f"the model has no {_some(surplus)}"
    for key, due in own.items():
        given = state[key]
        if not isinstance(given, Tensor) or given.layout != torch.strided or given.is_nested or given.is_quantized:
            return f"{key} is no dense tensor of plain numbers"
        if given.is_complex() or given.is_meta:
            return f"{key} is complex, or without values"
        if given.shape != due.shape:
            return f"{key} is {tuple(given.shape)}, not {tuple(due.shape)}"
        if given.dtype != due.dtype and not {given.dtype, due.dtype} <= FLOATS:
            return f"{key} is {given.dtype}, not {due.dtype}"
    return ""


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the weights {file}: {error.strerror}") from error


def _state_in(content: bytes, file: Path) -> Mapping[str, Tensor]:
    try:
        # safetensors begin with the length of their header, 8 bytes, and the header, which is JSON.
        if content[8:9] == b"{" and not content.startswith(b"PK"):
            return safetensors.torch.load(content)
        with warnings.catch_warnings(action="ignore"):  # its advice on odd pickles would only blur our one line
            state: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types here: all mean that this is no plain file of tensors
        raise UserError(
            f"{file} is truncated, or holds more than tensors, and was not loaded; "
            "save the model's state_dict() as safetensors or with torch.save"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{file} holds no state dict of tensors; save the model's state_dict() with torch.save")
    return state


def _some(items: list[str]) -> str:
    return ", ".join(map(str, items[:3])) + (f" and {len(items) - 3} more" if len(items) > 3 else "")
