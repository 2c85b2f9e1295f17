"""Networks: built from a spec, filled with weights, saved without what they did not train."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from colorbench import plugins
from colorbench.contract import ModelSpec
from colorbench.errors import UserError
from colorbench.harness.seeds import seed_for
from colorbench.runs.folder import DONE, RunFolder

PUBLISHED_WIDTH, PUBLISHED_SIZE = 1.0, 256  # of the weight files that authors of colorization models release


def build(spec: ModelSpec, width: float, size: int, base: nn.Module | None = None, seed: int = 0) -> nn.Module:
    """The untrained network for images of `size`, its first weights drawn from a seed of its own; `base` is frozen."""
    if base is not None:
        base.requires_grad_(False).eval()
    with torch.random.fork_rng(devices=[]):  # whoever loads a model keeps the random numbers that he had
        # A variant of its parent's shapes starts from its weights: the difference is then the change, not the draw.
        torch.manual_seed(seed_for(seed, "init", spec.parent or spec.name))
        return spec.build(width=width, size=size, base=base, **spec.options)


def build_published(spec: ModelSpec, size: int, file: Path) -> nn.Module:
    """The network at full width with published weights. Raises UserError when they do not fit."""
    if spec.refines:
        raise UserError(f"{spec.name!r} refines {spec.refines!r}, which a weight file does not hold; give a run")
    network = build(spec, PUBLISHED_WIDTH, size)
    fill(network, file)
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


def packed_tensors(state: Mapping[str, Any]) -> bytes:
    """What torch.save would write. On a full disk it raises no OSError: so the writing is left to Python."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def fill(network: nn.Module, file: Path, base: nn.Module | None = None) -> None:
    """Load `file`, a state dict, into all of the network but its base.

    Nothing in the file is executed. Raises UserError when it is damaged, holds anything but tensors, or does not
    fit by key and shape.
    """
    own = trained_state(network, base)
    state = _read(file)
    if missing := [key for key in own if key not in state]:
        raise UserError(f"{file} does not fit: it lacks {_some(missing)}; give weights made for this model")
    if surplus := [key for key in state if key not in own]:
        raise UserError(f"{file} does not fit: the model has no {_some(surplus)}; give weights made for this model")
    if wrong := [
        f"{k} is {tuple(state[k].shape)}, not {tuple(own[k].shape)}" for k in own if state[k].shape != own[k].shape
    ]:
        raise UserError(f"{file} does not fit: {_some(wrong)}; give weights made for this model at this width")
    network.load_state_dict(state, strict=base is None)


def load_model(
    name: str,
    weights: str | Path | None = None,
    run: str | Path | None = None,
    seed: int | None = None,
    device: str | torch.device = "cpu",
    registry: plugins.Registry | None = None,
) -> nn.Module:
    """A trained network in evaluation mode: L (B, 1, H, W) in 0..100 -> ab (B, 2, H, W), Lab units.

    Either `weights`, a published state dict at full width, or `run`, a run folder (its first finished seed, or
    `seed`). Raises UserError when the model is unknown, was not trained in that run, or the weights do not fit.
    """
    registry = registry or plugins.load()
    (spec,) = registry.find("model", [name])
    if weights is not None and run is None:
        return build_published(spec, PUBLISHED_SIZE, Path(weights)).to(device).eval()
    if run is None or weights is not None:
        raise UserError(f"to load {name!r} give either weights=FILE or run=FOLDER")
    folder = RunFolder(run)
    seeds = folder.record["seeds"] if seed is None else [seed]
    done = [s for s in seeds if folder.outcome(name, s)["status"] == DONE]
    if not done:
        raise UserError(f"{folder.path} has no finished {name!r}" + (f" of seed {seed}" if seed is not None else ""))
    return from_cell(folder, spec, done[0], registry).to(device).eval()


def from_cell(folder: RunFolder, spec: ModelSpec, seed: int, registry: plugins.Registry) -> nn.Module:
    """The network that a finished cell holds, on its base from the same run.

    Raises UserError if either is gone or cannot be built.
    """
    base = None
    if spec.refines:
        (base_spec,) = registry.find("model", [spec.refines])
        base = from_cell(folder, base_spec, seed, registry)
    outcome = folder.outcome(spec.name, seed)
    if outcome["status"] != DONE:
        raise UserError(f"{folder.path} has no finished {spec.name!r} of seed {seed}: {outcome['reason']}")
    if base is not None and outcome["base_sha256"] != folder.outcome(spec.refines or "", seed)["weights_sha256"]:
        raise UserError(f"{spec.name!r} was trained on other weights of {spec.refines!r} than {folder.path} holds now")
    try:
        return with_weights_of(folder, spec.name, seed, spec, base)
    except ValueError as error:  # an option may name a file that was there in training
        raise UserError(f"{spec.name!r} of {folder.path} cannot be built again: {error}") from error


def with_weights_of(folder: RunFolder, model: str, seed: int, spec: ModelSpec, base: nn.Module | None) -> nn.Module:
    """The network of `spec` on `base`, with what the finished cell of `model` holds. Raises UserError if that does not
    fit."""
    network = build(spec, folder.outcome(model, seed)["width"], folder.record["preset"]["size"], base, seed)
    fill(network, folder.place(model, seed) / "weights.pt", base)
    return network


def fingerprint(file: Path) -> str:
    """SHA-256 of a file. Raises UserError if it cannot be read."""
    return hashlib.sha256(_content(file)).hexdigest()


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the weights {file}: {error.strerror}") from error


def _read(file: Path) -> Mapping[str, Tensor]:
    content = io.BytesIO(_content(file))
    try:
        with warnings.catch_warnings(action="ignore"):  # its advice on odd pickles would only blur our one line
            state: Any = torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types here: all mean that this is no plain file of tensors
        raise UserError(
            f"{file} is truncated, or holds more than tensors, and was not loaded; "
            "save the model's state_dict() with torch.save"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{file} holds no state dict of tensors; save the model's state_dict() with torch.save")
    return state


def _some(items: list[str]) -> str:
    return ", ".join(items[:3]) + (f" and {len(items) - 3} more" if len(items) > 3 else "")
