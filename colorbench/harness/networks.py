"""Networks: built from a spec, filled with weights, saved without what they did not train."""

from __future__ import annotations

import difflib
import io
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import safetensors.torch
import torch
from torch import Tensor, nn

from colorbench.contract import OPTIONAL, Annotated, Measures, ModelSpec, PublishedInPart
from colorbench.errors import UserError, one_line, reason, whatever_raised, why_no_file
from colorbench.plugins import Registry
from colorbench.runs.folder import read_checked
from colorbench.seeds import seed_for

WRAPPERS = ("state_dict", "params", "params_ema", "model")  # under which checkpoints keep a state dict
DEEPEST = 8  # wrappers around it
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
        network = spec.build(width=width, size=size, base=base, **spec.option_values)
    if not isinstance(network, nn.Module):
        raise ValueError(f"build of {spec.name!r} returned {type(network).__name__}; a torch.nn.Module is due")
    if why := misfit(own := network.state_dict(), own):
        raise ValueError(f"the network's state cannot be saved: {why}")
    notes_of(network)
    return network


def untrained(registry: Registry, name: str, width: float, size: int, seed: int = 0) -> nn.Module:
    """The untrained network of a model by its name, on an untrained base if it refines one."""
    (spec,) = registry.find("model", [name])
    base = untrained(registry, spec.refines, width, size, seed) if spec.refines else None
    return build(spec, width, size, base, seed)


def build_published(spec: ModelSpec, size: int, file: Path) -> nn.Module:
    """The network at the width of published weights, with them. Raises UserError when they do not fit."""
    if spec.refines:
        raise UserError(f"{spec.name!r} refines {spec.refines!r}, which a weight file does not hold; give a run")
    network = build(spec, spec.published_width, size)
    load_published(network, spec, file)
    return network


def trained_state(network: nn.Module, base: nn.Module | None) -> dict[str, Tensor]:
    """The network's state without that of its base, which is saved in a cell of its own."""
    modules = network.named_modules(remove_duplicate=False)  # it may hold its base more than once
    inside = [name for name, module in modules if module is base]
    return {k: v for k, v in network.state_dict().items() if not any(k.startswith(f"{name}.") for name in inside)}


@torch.no_grad()
def count_parameters(network: nn.Module, L: Tensor, **inputs: Tensor) -> int:
    """The parameters that color `L`, base included: no discriminator, no head that only training uses."""
    used: dict[int, int] = {}

    def note(module: nn.Module, *_: Any) -> None:
        used.update((id(p), p.numel()) for p in module.parameters(recurse=False))

    hooks = [module.register_forward_hook(note) for module in network.modules()]
    try:
        network.eval()(L, **inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return sum(used.values())


@contextmanager
def held(*modules: nn.Module) -> Iterator[None]:
    """Forward passes inside reach through the modules without giving their parameters a gradient."""
    learning = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def submodules(network: nn.Module, asked: Mapping[str, str]) -> list[nn.Module]:
    """The submodules of these names, each under the words that say who asks for it.

    Raises ValueError naming all that the network lacks, and those that it has.
    """
    known = dict(network.named_modules(remove_duplicate=False))
    if absent := [who for who, name in asked.items() if name not in known]:
        there = ", ".join(child for child, _ in network.named_children()) or "none"
        raise ValueError(f"{'; '.join(absent)}: the network has no such submodule; there are: {there}")
    return [known[name] for name in asked.values()]


def refuse_misspelt(network: nn.Module) -> None:
    """Raises ValueError for an attribute that looks like a misspelt one of the contract, which nobody would call."""
    due = [name for name in ("updates", *OPTIONAL) if not hasattr(network, name)]
    due += ["forward"] if type(network).forward is nn.Module.forward else []
    for name in sorted({*dir(network)} - {*dir(nn.Module)} - {*OPTIONAL}):
        if near := difflib.get_close_matches(name, due, n=1, cutoff=0.85):
            raise ValueError(f"the network has {name!r}, which is not used; did you mean {near[0]!r}? Rename it")


def notes_of(network: nn.Module) -> tuple[str, ...]:
    """The sentences that the network has for the reader of the table. Raises ValueError if they are no text."""
    notes = network.notes if isinstance(network, Annotated) else ()
    if isinstance(notes, str):
        return (notes,)
    if not isinstance(notes, Sequence) or not all(isinstance(note, str) for note in notes):
        raise ValueError("the network's attribute notes is not a sequence of text; make it a list of sentences")
    return tuple(notes)


def packed_weights(state: Mapping[str, Tensor]) -> bytes:
    """A state dict as the bytes of a safetensors file."""
    # Copies, since two names may share one tensor, which the format does not know.
    dense = {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in state.items()}
    return safetensors.torch.save(dense)


def load_weights(network: nn.Module, file: Path, base: nn.Module | None, checksum: str) -> None:
    """Load the weights that a cell has saved into all of the network but its base.

    Raises UserError when the file is absent, is not what `checksum` says, or does not fit.
    """
    state = _state_in(read_checked(file, checksum), file)
    _load(network, state, file, base, "give weights made for this model at this width")


def load_published(
    network: nn.Module, spec: ModelSpec, file: Path, base: nn.Module | None = None, width: float | None = None
) -> None:
    """Load weights that others have published, safetensors or what torch.save wrote, into all but the base.

    They may lie in a checkpoint under one of WRAPPERS, with names that begin with "module." or that `spec.convert`
    maps. Nothing in the file is executed. Raises UserError when it cannot be read, is damaged, holds anything but dense
    tensors of real numbers, or does not fit by key, shape and kind of number; `width`, if given, is one that the user
    can change for it.
    """
    state, own = read_state(file), trained_state(network, base)
    if all(key.startswith("module.") for key in state) and not all(key.startswith("module.") for key in own):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    if spec.convert and state.keys() != own.keys():
        state = _converted(state, spec.convert, file)
    remedy = f"give weights of {spec.name} at its published width, {spec.published_width:g}"
    if width not in (None, spec.published_width):
        remedy = (
            f"give weights of {spec.name} at width {width:g}, or --width {spec.published_width:g} for published ones"
        )
    due = trained_state(network, base)
    if isinstance(network, Measures):  # what this harness measures, nobody else published
        state = {**{key: due[key] for key in network.measured if key in due}, **state}
    if isinstance(network, PublishedInPart):
        trains = tuple(f"{name}." for name in network.unpublished)
        state = {**{key: value for key, value in due.items() if key.startswith(trains)}, **state}
    _load(network, state, file, base, remedy)


def _load(network: nn.Module, state: Mapping[str, Any], file: Path, base: nn.Module | None, remedy: str) -> None:
    if why := misfit(state, trained_state(network, base)):
        raise UserError(f"{file} does not fit: {why}; {remedy}")
    # Nor is the running mean or variance of a layer infinite, or the variance below 0.
    learned = {name for name, _ in network.named_parameters()}
    learned |= {name for name in state if name.endswith(("running_mean", "running_var"))}
    own = network.state_dict()
    state = {key: value.to(own[key].dtype) for key, value in state.items()}  # of float64 some may be too large
    # A buffer may have infinities, such as a mask of attention.
    if broken := [k for k, v in state.items() if v.isnan().any() or (k in learned and not v.isfinite().all())]:
        raise UserError(f"{file} holds values that are not finite in {_some(broken)}; give weights without them")
    if broken := [k for k, v in state.items() if k.endswith("running_var") and (v < 0).any()]:
        raise UserError(f"{file} holds variances below 0 in {_some(broken)}; give weights without them")
    network.load_state_dict(state, strict=False)  # no more and no less than is due


def misfit(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Why a network whose state is `own` cannot load `state`; empty if it can. Floats are converted to other floats."""
    missing, surplus = [key for key in own if key not in state], [key for key in state if key not in own]
    if missing or surplus:
        said = {"it lacks": missing, "the model has no": surplus}
        return ", and ".join(f"{what} {_some(keys)}" for what, keys in said.items() if keys)
    for key, due in own.items():
        given = state[key]
        if not isinstance(given, Tensor) or given.layout != torch.strided or given.is_nested or given.is_quantized:
            return f"{key} is not a dense tensor of plain numbers"
        if given.is_complex() or given.is_meta:
            return f"{key} is complex, or without values"
        if given.shape != due.shape:
            return f"{key} is {tuple(given.shape)}, not {tuple(due.shape)}"
        if given.dtype != due.dtype and not {given.dtype, due.dtype} <= FLOATS:
            return f"{key} is {given.dtype}, not {due.dtype}"
    return ""


def read_state(file: Path) -> Mapping[str, Tensor]:
    """The tensors in a weight file by name, whether safetensors or what torch.save wrote. Nothing in it is executed.

    For a plugin whose option names a file. Raises UserError if it cannot be read, or holds anything but tensors.
    """
    return _state_in(_content(file), file)


def _content(file: Path) -> bytes:
    try:
        if why := why_no_file(file):
            raise UserError(f"cannot read the weights {file}: {why}; name a file")
        if (size := file.stat().st_size) > psutil.virtual_memory().available:
            raise UserError(f"{file} has {size:,} bytes, more than there is free memory; give a file of weights alone")
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the weights {file}: {error.strerror}; make it readable") from error


def _state_in(content: bytes, file: Path) -> Mapping[str, Tensor]:
    """The state dict in a file, also in a checkpoint, however deep."""
    try:
        # safetensors begin with the length of their header, 8 bytes, and the header, which is JSON.
        if content[8:9] == b"{" and not content.startswith(b"PK"):
            return safetensors.torch.load(content)
        if zipfile.is_zipfile(packed := io.BytesIO(content)):
            with zipfile.ZipFile(packed) as archive:
                if any(member.compress_type for member in archive.infolist()):  # it may unfold to any size
                    raise ValueError("torch.save compresses nothing")
                if damaged := archive.testzip():  # which torch.load does not look at
                    raise ValueError(f"the checksum of {damaged} differs")
        with warnings.catch_warnings(action="ignore"):  # its advice on odd pickles would only blur our one line
            state: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types here: all mean that this is no plain file of tensors
        raise UserError(
            f"{file} is truncated or damaged, or holds more than tensors, and was not loaded; "
            "save the model's state_dict() as safetensors or with torch.save"
        ) from error
    for _ in range(DEEPEST):
        if _is_state(state):
            return state
        within = [key for key in WRAPPERS if isinstance(state, Mapping) and isinstance(state.get(key), Mapping)]
        if len(within) > 1:
            raise UserError(f"{file} holds several states, {' and '.join(within)}; save the one that is meant alone")
        state = state[within[0]] if within else None
    raise UserError(f"{file} holds no state dict of tensors, nor one as {', '.join(WRAPPERS)}; save that alone")


def _is_state(state: Any) -> bool:
    return isinstance(state, Mapping) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    )


def _converted(
    state: Mapping[str, Tensor], convert: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]], file: Path
) -> Mapping[str, Tensor]:
    try:
        converted = convert(state)
    except whatever_raised() as error:
        raise UserError(f"{file} cannot be converted ({reason(error)}); give weights that were published") from error
    if not _is_state(converted):
        raise UserError(f"{file}: convert returned {type(converted).__name__}, not tensors by name; repair its plugin")
    return converted


def _some(items: list[str]) -> str:
    return ", ".join(one_line(str(item)) for item in items[:3]) + (
        f" and {len(items) - 3} more" if len(items) > 3 else ""
    )
