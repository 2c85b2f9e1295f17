"""The batches of a training: which images in which order, flipped or not, on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from colorbench.color import rgb_to_lab
from colorbench.contract import Batch, Stage
from colorbench.data.cache import Images

if TYPE_CHECKING:
    from accelerate import Accelerator


def to_rgb(pixels: np.ndarray, device: torch.device) -> Tensor:
    """uint8 (B, H, W, 3) -> uint8 (B, 3, H, W) on the device."""
    return torch.from_numpy(np.array(pixels)).to(device, non_blocking=True).permute(0, 3, 1, 2)


def to_lab(pixels: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """uint8 RGB (B, H, W, 3) -> L (B, 1, H, W) in 0..100 and ab (B, 2, H, W), float32, on the device.

    Moved as bytes, converted there: a quarter of the traffic.
    """
    return rgb_to_lab(to_rgb(pixels, device).float() / 255).split((1, 2), dim=1)


def arrays_at(images: Images, indices: Any, device: torch.device) -> dict[str, Tensor]:
    """The arrays of some images, by name, (B, ...) on the device."""
    return {name: torch.from_numpy(np.array(array[indices])).to(device) for name, array in images.arrays.items()}


class Loader:
    """The training batches of one stage. `seed_of(purpose, *details)` fixes them, whatever was drawn before.

    Images are flipped at random from left to right, as the field does; nothing else augments. `batch_size` counts the
    images of a step over all processes, of which each loads its own share. Raises ValueError if there is no image of
    color, or if the stage chooses none, or not as many for every epoch, or such that are not there.
    """

    def __init__(
        self, images: Images, stage: Stage, batch_size: int, seed_of: Callable[..., int], accelerator: Accelerator
    ) -> None:
        self.source, self.stage, self.batch_size = images, stage, batch_size
        self.seed_of, self.accelerator = seed_of, accelerator
        self.available = np.flatnonzero(~images.near_grey)
        if not len(self.available):
            raise ValueError(f"all {len(images)} training images are near grey: there is no color to learn")
        asked = range(1, stage.epochs + 1) if callable(stage.images) else (1,)
        lengths = {len(self.chosen(epoch)) for epoch in asked}
        if len(lengths) > 1:
            seen = f"{min(lengths)} to {max(lengths)}"
            raise ValueError(f"stage {stage.name!r}: images gives {seen} by epoch; choose as many for every epoch")
        (self.images,) = lengths  # of an epoch
        self.steps = -(-self.images // batch_size)  # of an epoch
        if 0 < self.images % batch_size < accelerator.num_processes and self.steps > 1:
            self.steps -= 1  # the last few are not enough for a share each
        self.length = stage.epochs * self.steps  # of the stage, in steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[int, Batch]]:
        """This process's share of each step of an epoch, counted from 1, from step `start`, counted from 0."""
        order, flips = self.order(epoch)
        mine = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        for step in range(start, self.steps):
            part = slice(step * self.batch_size, (step + 1) * self.batch_size)
            yield step, self._batch(self.source, order[part][mine], flips[part][mine], self.steps_before(epoch) + step)

    def in_order(self, images: Images, indices: np.ndarray, step: int = 0) -> Iterator[Batch]:
        """The images at `indices`, unflipped, all of them in each process: to validate after a step, or to measure."""
        for start in range(0, len(indices), self.batch_size):
            part = indices[start : start + self.batch_size]
            yield self._batch(images, part, np.zeros(len(part), bool), step)

    def chosen(self, epoch: int) -> np.ndarray:
        """The images of an epoch as the stage chooses them, (images,) indices."""
        choose, count = self.stage.images, len(self.available)
        indices = np.asarray(choose(epoch, count) if callable(choose) else range(count)[:choose])
        if not indices.size:
            raise ValueError(f"stage {self.stage.name!r} has no image to train on in epoch {epoch}")
        whole = indices.ndim == 1 and indices.dtype.kind in "iu"
        if not whole or indices.min() < 0 or indices.max() >= count:
            seen = f"{indices.min()} to {indices.max()}" if whole else f"{indices.dtype} {indices.shape}"
            due = f"indices from 0 to {count - 1} are due"
            raise ValueError(f"stage {self.stage.name!r}: images gives {seen} in epoch {epoch}; {due}")
        return self.available[indices]

    def order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The images of an epoch, (images,) indices, and which of them are flipped, bool (images,)."""
        random = np.random.default_rng(self.seed_of("order", self.stage.name, epoch))
        if (count := len(chosen := self.chosen(epoch))) != self.images:
            why = f"images gives {count} in epoch {epoch}, and gave {self.images}"
            raise ValueError(f"stage {self.stage.name!r}: {why}; let it give the same each time it is asked")
        return random.permutation(chosen), random.random(self.images) < 0.5

    def size(self, step: int) -> int:
        """The images of a step over all processes."""
        return min(self.batch_size, self.images - step * self.batch_size)

    def steps_before(self, epoch: int) -> int:
        """The steps of the stage that lie before an epoch, counted from 1."""
        return (epoch - 1) * self.steps

    def _batch(self, images: Images, indices: np.ndarray, flips: np.ndarray, step: int) -> Batch:
        device, sides = self.accelerator.device, images.pixels.shape[1:3]
        L, ab = (_flipped(values, flips) for values in to_lab(images.pixels[indices], device))
        arrays = arrays_at(images, indices, device).items()
        inputs = {name: _flipped(array, flips) if array.shape[-2:] == sides else array for name, array in arrays}
        return Batch(L, ab, self.stage.settings, step, self.length, inputs)


def _flipped(values: Tensor, flips: np.ndarray) -> Tensor:
    """Those of the batch that `flips`, bool (B,), says, from left to right."""
    chosen = torch.from_numpy(flips).to(values.device).view(-1, *[1] * (values.ndim - 1))
    return torch.where(chosen, values.flip(-1), values)
