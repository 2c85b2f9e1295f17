"""The control of every refiner: its base, trained for as many more steps by its own losses."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from colorbench.contract import Batch, Update


class TrainedLonger(nn.Module):
    """A copy of the trained base that goes on learning; the base stays as it is. Raises ValueError without one."""

    def __init__(self, base: Any) -> None:
        super().__init__()
        if base is None:
            raise ValueError("there is nothing to train longer: give the base's network as base")
        self.longer = copy.deepcopy(base).requires_grad_(True)
        self.base = base.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> TrainedLonger:
        super().train(mode)
        self.base.eval()  # the base is a constant, also in its BatchNorm statistics
        return self

    def forward(self, L: Tensor) -> Tensor:
        """L (B, 1, H, W) in 0..100 -> ab float32 (B, 2, H, W) in Lab units."""
        return self.longer(L)

    def updates(self, batch: Batch) -> Iterator[Update]:
        """Those of the base."""
        yield from self.longer.updates(batch)
