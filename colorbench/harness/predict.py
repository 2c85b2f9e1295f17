"""A network and the L of images -> predicted pictures, under the protocol; or those that a cell has kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from colorbench import hints
from colorbench.color import bytes_to_lab, luminance, recombine
from colorbench.contract import ModelSpec, ShowsAttention
from colorbench.data.cache import Images
from colorbench.data.loader import arrays_at, to_rgb
from colorbench.plugins import Registry
from colorbench.protocol import NO_DEGRADATION, Protocol
from colorbench.runs.folder import ATTENTION, PREDICTIONS, damaged_files
from colorbench.runs.predictions import PictureWriter, read_pictures
from colorbench.runs.records import CellRecord
from colorbench.seeds import seed_for

SAME_AB = 0.005  # Lab units, and the share of the largest |ab|, within which two answers are the same but for rounding
KEPT = {PREDICTIONS: "RGB", ATTENTION: "L"}  # zips of pictures, and their modes
Damage = Callable[[Tensor, Sequence[str]], Tensor]
BATCH = 16  # fixed: scores must not depend on a setting of the training


class AnswerError(ValueError):
    """A network answers otherwise than the contract asks for."""


class NotFiniteError(AnswerError):
    """With values that are not finite."""


@dataclass(frozen=True)
class Predicted:
    """Some pictures of a split, from image `start` on, on one device.

    `pictures` uint8 RGB (B, 3, H, W); `maps` uint8 (B, 1, h, w), the network's attention from 0 to 255, if it has any.
    """

    start: int
    pictures: Tensor
    maps: Tensor | None


def to_pixels(rgb: Tensor) -> np.ndarray:
    """uint8 (B, 3, H, W), on any device -> (B, H, W, 3): what `to_rgb` undoes."""
    return rgb.permute(0, 2, 3, 1).cpu().numpy()


def given_to(spec: ModelSpec, images: Images, protocol: Protocol) -> list[str]:
    """Of what a model takes beside L, what the protocol and the dataset have."""
    return [name for name in spec.takes if name in images.arrays or (name == "hints" and protocol.hints)]


def inputs_of(
    spec: ModelSpec, images: Images, place: slice, device: torch.device, protocol: Protocol,
    damaged: Damage | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """What the network of a model gets of some images: L (B, 1, H, W), and by name what it takes beside.

    One that sees the truth gets the true `ab`. L is as `damaged` makes it, if that is given.
    """
    rgb, given = to_rgb(images.pixels[place], device), given_to(spec, images, protocol)
    inputs = arrays_at(images.taking(given), place, device)
    if spec.sees_truth or "hints" in given:
        ab = torch.stack(bytes_to_lab(rgb, protocol)[1:], dim=1)
        inputs |= {"ab": ab} if spec.sees_truth else {}
        inputs |= {"hints": hints.draw(ab, images.digests[place], protocol)} if "hints" in given else {}
    return damaged(rgb, images.digests[place]) if damaged else luminance(rgb, protocol), inputs


def damage_of(protocol: Protocol, registry: Registry) -> Damage | None:
    """The protocol's damage to the L of pictures, uint8 RGB (B, 3, H, W) and their digests -> (B, 1, H, W) in 0..100.

    None without any. Raises UserError for a degradation that no plugin has registered; calling it raises ValueError if
    that breaks the contract.
    """
    if protocol.degradation == NO_DEGRADATION:
        return None
    name, strength = protocol.damage
    (spec,) = registry.find("degradation", [name])

    def damaged(rgb: Tensor, digests: Sequence[str]) -> Tensor:
        # The same for every strength, so that a curve over them shows nothing else.
        L = spec.apply(rgb, strength, [seed_for("degradation", name, digest) for digest in digests])
        due = (len(rgb), 1, *rgb.shape[2:])
        if not isinstance(L, Tensor) or L.shape != due or L.dtype != torch.float32 or not ((L >= 0) & (L <= 100)).all():
            found = f"{L.dtype} {tuple(L.shape)}" if isinstance(L, Tensor) else type(L).__name__
            raise ValueError(f"degradation {name} gave {found}; L is due, float32 {due} in 0..100")
        return L

    return damaged


def predict(
    network: nn.Module, spec: ModelSpec, images: Images, device: torch.device, protocol: Protocol,
    damaged: Damage | None = None,
) -> Iterator[Predicted]:  # fmt: skip
    """Color every image of a split under the protocol. Raises ValueError when the network breaks the contract."""
    for start in range(0, len(images), BATCH):
        place = slice(start, start + BATCH)
        L, inputs = inputs_of(spec, images, place, device, protocol, damaged)
        ab, maps = colorize_with_attention(network, L, **inputs)
        quantized = None if maps is None else (maps * 255).round().byte()
        true_L = luminance(to_rgb(images.pixels[place], device), protocol) if damaged else L
        yield Predicted(start, recombine(true_L, ab, protocol), quantized)


def kept(cell_dir: Path, record: CellRecord, images: Images, device: torch.device) -> Iterator[Predicted]:
    """The same from what a cell has kept. Raises ValueError if a picture is not there."""
    zips = [(cell_dir / name, mode) for name, mode in KEPT.items() if name in record.files]
    size = images.pixels.shape[1]
    for start in range(0, len(images), BATCH):
        names = images.names[start : start + BATCH]
        pictures, *maps = (np.stack([*read_pictures(file, names, mode, size)]) for file, mode in zips)
        attention = torch.from_numpy(maps[0])[:, None].to(device) if maps else None
        yield Predicted(start, to_rgb(pictures, device), attention)


def keeps_all(cell_dir: Path, record: CellRecord, key: str, images: int) -> bool:
    """Whether the cell has kept, undamaged, the predictions of so many images that are made under `key`."""
    return (
        record.predicted_by == key
        and record.predictions_kept == images
        and not KEPT.keys() & {*damaged_files(cell_dir, record)}
    )


class Keeper:
    """Writes the predictions that pass by, those of the images `names`, which the split begins with."""

    def __init__(self, cell_dir: Path, names: Sequence[str]) -> None:
        self.cell_dir, self.names = cell_dir, names
        self.writers: dict[str, PictureWriter] = {}

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self.writers.values():
            writer.discard()

    def follow(self, predictions: Iterable[Predicted]) -> Iterator[Predicted]:
        """Hand the predictions on."""
        for batch in predictions:
            names = self.names[batch.start : batch.start + len(batch.pictures)]
            self._write(PREDICTIONS, names, to_pixels(batch.pictures))
            if batch.maps is not None:
                self._write(ATTENTION, names, batch.maps[:, 0].cpu().numpy())
            yield batch

    def commit(self, record: CellRecord) -> None:
        """Put what was written in its place; the cell forgets the predictions that it had."""
        for name in KEPT:
            record.files.pop(name, None)
            (self.cell_dir / name).unlink(missing_ok=True)
        for name, writer in self.writers.items():
            record.files[name] = writer.commit()
        record.predictions_kept = len(self.names)

    def _write(self, file: str, names: Sequence[str], pixels: np.ndarray) -> None:
        for name, picture in zip(names, pixels, strict=False):
            if file not in self.writers:
                self.writers[file] = PictureWriter(self.cell_dir / file)
            self.writers[file].add(name, picture)


def colorize(network: nn.Module, L: Tensor, **inputs: Tensor) -> Tensor:
    """ab of L and of what else the network takes, in evaluation mode and float32.

    Raises ValueError when the network breaks the contract.
    """
    with _as_scored(network):  # of a copy: the true L is recombined, whatever a network does to its own
        return _checked(network(L.clone(), **inputs), L)


def colorize_with_attention(network: nn.Module, L: Tensor, **inputs: Tensor) -> tuple[Tensor, Tensor | None]:
    """The same ab, and the network's attention map as the contract has it; None if it has none."""
    if not isinstance(network, ShowsAttention):
        return colorize(network, L, **inputs), None
    with _as_scored(network):
        ab, maps = network.with_attention(L.clone(), **inputs)
    if maps is None:
        return _checked(ab, L), None
    fits = maps.ndim == 4 and maps.shape[:2] == (len(L), 1) and max(maps.shape[2:]) <= max(L.shape[2:])
    if not fits or not ((maps >= 0) & (maps <= 1)).all():
        raise ValueError(f"with_attention returned a map {tuple(maps.shape)}; (B, 1, h, w) in 0..1, or None, is due")
    return _checked(ab, L), maps


def check_answers(network: nn.Module, L: Tensor, **inputs: Tensor) -> None:
    """Color images twice, and each alone.

    Raises ValueError if the answers differ: then a score would depend on the order of the images.
    """
    for check in (check_repeated, check_alone, check_attention):
        check(network, L, **inputs)


def check_repeated(network: nn.Module, L: Tensor, **inputs: Tensor) -> None:
    """Raises ValueError if the same images are colored otherwise a second time."""
    if not _alike(colorize(network, L, **inputs), colorize(network, L, **inputs)):
        raise ValueError("the network gives another answer to the same image each time; draw nothing in eval mode")


def check_alone(network: nn.Module, L: Tensor, **inputs: Tensor) -> None:
    """Raises ValueError if an image is colored otherwise alone."""
    singly = [(L[i : i + 1], {name: given[i : i + 1] for name, given in inputs.items()}) for i in range(len(L))]
    if not _alike(colorize(network, L, **inputs), torch.cat([colorize(network, one, **its) for one, its in singly])):
        raise ValueError("an image is colored otherwise alone than in a batch; keep the images of a batch apart")


def check_attention(network: nn.Module, L: Tensor, **inputs: Tensor) -> None:
    """Raises ValueError if the attention map is none, or comes with other colors than those of `forward`."""
    if not _alike(colorize(network, L, **inputs), colorize_with_attention(network, L, **inputs)[0]):
        raise ValueError("with_attention gives other colors than forward; let forward return with_attention(L)[0]")


def _alike(first: Tensor, second: Tensor) -> bool:
    return bool((first - second).abs().max() <= SAME_AB * max(1.0, float(first.abs().max())))


@contextmanager
def _as_scored(network: nn.Module) -> Iterator[None]:
    network.eval()
    # Without TF32, in which float32 has 10 bits on a GPU of NVIDIA.
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def _checked(ab: Tensor, L: Tensor) -> Tensor:
    if not isinstance(ab, Tensor):
        raise AnswerError(f"the network returned {type(ab).__name__}; a float32 tensor (B, 2, H, W) is due")
    if ab.shape != (len(L), 2, *L.shape[2:]) or ab.dtype != torch.float32:
        raise AnswerError(
            f"the network returned {ab.dtype} {tuple(ab.shape)} for L {tuple(L.shape)}; float32 (B, 2, H, W) is due"
        )
    if not ab.isfinite().all():
        raise NotFiniteError("the network returned values that are not finite")
    return ab
