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


def available_to(stage: Stage, images: Images) -> np.ndarray:
    """The indices of the images that a stage may train on: those in its part of the split, without the near grey."""
    colorful = np.flatnonzero(~images.near_grey)
    first, end = (round(share * len(colorful)) for share in stage.part)
    return colorful[first:end]


def arrays_at(images: Images, indices: Any, device: torch.device) -> dict[str, Tensor]:
    """The arrays of some images, by name, (B, ...) on the device."""
    return {name: torch.from_numpy(np.array(array[indices])).to(device) for name, array in images.arrays.items()}


class Loader:
    """The training batches of one stage. `seed_of(purpose, *details)` fixes them, whatever was drawn before.

    Images are flipped at random from left to right, as the field does; nothing else augments. `batch_size` counts the
    images of a step over all processes, of which each loads its own share. Raises ValueError if the stage has no image.
    """

    def __init__(
        self, images: Images, stage: Stage, batch_size: int, seed_of: Callable[..., int], accelerator: Accelerator
    ) -> None:
        self.source, self.stage, self.batch_size = images, stage, batch_size
        self.seed_of, self.accelerator = seed_of, accelerator
        self.available = available_to(stage, images)
        self.images = len(self.available[: stage.images])  # of an epoch
        if not self.images:
            raise ValueError(f"stage {stage.name!r} has no image to train on: too few are in its part of the split")
        self.steps = -(-self.images // batch_size)  # of an epoch
        if 0 < self.images % batch_size < accelerator.num_processes and self.steps > 1:
            self.steps -= 1  # the last few are not enough for a share each

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[int, Batch]]:
        """This process's share of each step of an epoch, counted from 1, from step `start`, counted from 0."""
        order, flips = self.order(epoch)
        mine = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        for step in range(start, self.steps):
            part = slice(step * self.batch_size, (step + 1) * self.batch_size)
            yield step, _batch(self.source, order[part][mine], flips[part][mine], self.stage, self.accelerator.device)

    def order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The images of an epoch, (images,) indices, and which of them are flipped, bool (images,)."""
        random = np.random.default_rng(self.seed_of("order", self.stage.name, epoch))
        first = (epoch - 1) * self.images if self.stage.rolling else 0
        chosen = self.available.take(range(first, first + self.images), mode="wrap")
        return random.permutation(chosen), random.random(self.images) < 0.5

    def size(self, step: int) -> int:
        """The images of a step over all processes."""
        return min(self.batch_size, self.images - step * self.batch_size)

    def progress(self, epoch: int, step: int) -> float:
        """The share of the stage that lies before this step."""
        return ((epoch - 1) * self.steps + step) / (self.stage.epochs * self.steps)


def in_order(images: Images, stage: Stage, batch_size: int, device: torch.device) -> Iterator[Batch]:
    """Every image once, unflipped, with the settings of the stage: what validates."""
    for start in range(0, len(images), batch_size):
        indices = np.arange(start, min(start + batch_size, len(images)))
        yield _batch(images, indices, np.zeros(len(indices), bool), stage, device)


def _batch(images: Images, indices: np.ndarray, flips: np.ndarray, stage: Stage, device: torch.device) -> Batch:
    L, ab = (_flipped(values, flips) for values in to_lab(images.pixels[indices], device))
    sides = images.pixels.shape[1:3]
    arrays = arrays_at(images, indices, device).items()
    inputs = {name: _flipped(array, flips) if array.shape[-2:] == sides else array for name, array in arrays}
    return Batch(L, ab, stage.settings, inputs=inputs)


def _flipped(values: Tensor, flips: np.ndarray) -> Tensor:
    """Those of the batch that `flips`, bool (B,), says, from left to right."""
    chosen = torch.from_numpy(flips).to(values.device).view(-1, *[1] * (values.ndim - 1))
    return torch.where(chosen, values.flip(-1), values)
