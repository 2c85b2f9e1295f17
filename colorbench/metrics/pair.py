"""What is scored, and what several scores need of it, computed once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from colorbench.color import Planes, bytes_to_lab
from colorbench.protocol import Protocol


@dataclass(frozen=True)
class Pair:
    """Predicted and true pictures, uint8 RGB (B, 3, H, W); parts: bool (B, H, W) by name; attention: float32
    (B, 1, h, w) in 0..1; all on one device. Raises ValueError for another type or unequal shapes."""

    predicted: Tensor
    truth: Tensor
    parts: Mapping[str, Tensor] | None = None
    attention: Tensor | None = None

    def __post_init__(self) -> None:
        for name, images in (("predicted", self.predicted), ("truth", self.truth)):
            if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
                raise ValueError(
                    f"{name} is {images.dtype} {tuple(images.shape)}; scores need uint8 RGB of shape (B, 3, H, W)"
                )
        if self.predicted.shape != self.truth.shape:
            raise ValueError(
                f"predicted {tuple(self.predicted.shape)} and truth {tuple(self.truth.shape)} differ in shape"
            )

    def chunks(self, protocol: Protocol) -> Iterator[Chunk]:
        """On a CPU image by image: what is computed stays in its cache, and no score depends on the batch."""
        size = 1 if self.truth.device.type == "cpu" else len(self.truth)
        for start in range(0, len(self.truth), size):
            part = slice(start, start + size)
            parts = {name: mask[part] for name, mask in (self.parts or {}).items()}
            attention = None if self.attention is None else self.attention[part]
            yield Chunk(Pair(self.predicted[part], self.truth[part], parts, attention), protocol)


class Chunk:
    """Some images of a pair and what is computed of them under a protocol; every tuple is (predicted, true)."""

    def __init__(self, pair: Pair, protocol: Protocol) -> None:
        self.parts, self.attention, self.protocol = pair.parts or {}, pair.attention, protocol
        self.images = pair.predicted.contiguous(), pair.truth.contiguous()

    @cached_property
    def values(self) -> tuple[Tensor, Tensor]:
        """float32 (B, 3, H, W) in 0..255."""
        return self.images[0].float(), self.images[1].float()

    @cached_property
    def lab(self) -> tuple[Planes, Planes]:
        """L, a and b, each float32 (B, H, W)."""
        return bytes_to_lab(self.images[0], self.protocol), bytes_to_lab(self.images[1], self.protocol)

    @cached_property
    def chroma(self) -> tuple[Tensor, Tensor]:
        """sqrt(a^2 + b^2), float32 (B, H, W)."""
        return length(*self.lab[0][1:]), length(*self.lab[1][1:])

    @cached_property
    def squared_error(self) -> Tensor:
        """float32 (B, 3, H, W), exact."""
        return (self.values[0] - self.values[1]).square_()


def length(a: Tensor, b: Tensor) -> Tensor:
    """sqrt(a^2 + b^2); `torch.hypot` takes twice the time to guard against an overflow that Lab cannot have."""
    return (a * a).addcmul(b, b).sqrt_()


def mean(values: Tensor) -> Tensor:
    """(B, ..., W) -> float64 (B,) on the CPU: the mean of each image.

    Summed as float32 along a row (of squared differences of bytes exactly, up to 258 pixels), as float64 over rows:
    as precise as float64 throughout, and the same for any number of threads, which share out rows but split none.
    """
    return values.sum(-1).flatten(1).cpu().double().sum(1) / values[0].numel()
