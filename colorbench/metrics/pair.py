"""What is scored, and what several scores need of it, computed once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from colorbench.color import Planes, bytes_to_lab, reference
from colorbench.errors import shown
from colorbench.protocol import COLORBENCH, Protocol

SHARED = ("values", "lab", "chroma", "masks", "squared_error")  # what a pair computes once, for all


@dataclass(frozen=True)
class Pair:
    """Predicted and true pictures, uint8 RGB (B, 3, H, W); arrays: what the dataset has beside, (B, ...) by name;
    attention: float32 (B, 1, h, w) in 0..1; all on one device. `truth` becomes what the protocol compares with. Raises
    ValueError for another type or unequal shapes.

    Every tuple of what is computed of them is (predicted, true).
    """

    predicted: Tensor
    truth: Tensor
    arrays: Mapping[str, Tensor] = field(default_factory=dict)
    attention: Tensor | None = None
    protocol: Protocol = COLORBENCH

    def __post_init__(self) -> None:
        for name, images in (("predicted", self.predicted), ("truth", self.truth)):
            tensor = isinstance(images, Tensor)
            if not tensor or images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
                found = f"{images.dtype} {tuple(images.shape)}" if tensor else f"no tensor but {shown(images)}"
                raise ValueError(f"{name} is {found}; scores need uint8 RGB of shape (B, 3, H, W)")
        if not isinstance(self.protocol, Protocol):
            raise ValueError(f"protocol is {shown(self.protocol)}; give a colorbench.Protocol")
        if (given := tuple(self.predicted.shape)) != (due := tuple(self.truth.shape)):
            raise ValueError(f"predicted {given} and truth {due} differ in shape")
        object.__setattr__(self, "truth", reference(self.truth, self.protocol))

    def chunks(self) -> Iterator[Pair]:
        """On a CPU image by image: what is computed stays in its cache, and no score depends on the batch."""
        size = 1 if self.truth.device.type == "cpu" else len(self.truth)
        protocol = replace(self.protocol, truth="as-is", truth_saturation=1.0)  # whose truth it is by now
        for start in range(0, len(self.truth), size):
            place = slice(start, start + size)
            predicted, truth = (images[place].contiguous() for images in (self.predicted, self.truth))
            arrays = {name: array[place] for name, array in self.arrays.items()}
            attention = None if self.attention is None else self.attention[place]
            yield Pair(predicted, truth, arrays, attention, protocol)

    def copy(self) -> Pair:
        """The same in memory of its own, of which nothing is computed yet."""
        arrays = {name: array.clone() for name, array in self.arrays.items()}
        attention = None if self.attention is None else self.attention.clone()
        protocol = replace(self.protocol, truth="as-is", truth_saturation=1.0)  # whose truth it is by now
        return Pair(self.predicted.clone(), self.truth.clone(), arrays, attention, protocol)

    @property
    def parts(self) -> dict[str, Tensor]:
        """The masks among the arrays: bool (B, H, W) by the name of the part."""
        return {name: array for name, array in self.arrays.items() if array.dtype == torch.bool}

    @cached_property
    def values(self) -> tuple[Tensor, Tensor]:
        """float32 (B, 3, H, W) in 0..255."""
        return self.predicted.float(), self.truth.float()

    @cached_property
    def lab(self) -> tuple[Planes, Planes]:
        """L, a and b, each float32 (B, H, W)."""
        return bytes_to_lab(self.predicted, self.protocol), bytes_to_lab(self.truth, self.protocol)

    @cached_property
    def chroma(self) -> tuple[Tensor, Tensor]:
        """sqrt(a^2 + b^2), float32 (B, H, W)."""
        return length(*self.lab[0][1:]), length(*self.lab[1][1:])

    @cached_property
    def masks(self) -> dict[str, Tensor]:
        """`parts` as float32 (B, H, W), 1 or 0."""
        return {name: part.float() for name, part in self.parts.items()}

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
