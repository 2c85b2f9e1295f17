"""An unfinished training on disk, so that a run which is stopped or killed goes on at the step it had reached."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch

from colorbench.harness.load import packed_tensors
from colorbench.runs.folder import write_aside

COST = 0.05  # the share of the training's time that writing may take
LEAST_SECONDS = 1.0  # between two checkpoints, however fast they are


class Checkpoint:
    """The file of one training. `identity` is what must be the same for it to be taken up: code, base, device."""

    def __init__(self, file: Path, identity: str, device: torch.device) -> None:
        self.file, self.identity, self.device = file, identity, device
        self.pause, self.written = LEAST_SECONDS, time.monotonic()

    def read(self) -> dict[str, Any] | None:
        """What was written last; None if there is nothing, or nothing that this training could go on from."""
        if not self.file.exists():
            return None
        content = torch.load(self.file, map_location=self.device, weights_only=True)
        if content["identity"] != self.identity:
            print(f"{self.file} was made by other code or on another device: training starts over", file=sys.stderr)
            return None
        return content["training"]

    def is_due(self) -> bool:
        """Whether so much time has passed since the last write that another one costs little."""
        return time.monotonic() - self.written > self.pause

    def write(self, training: dict[str, Any]) -> None:
        """Replace the file, in one go."""
        started = time.monotonic()
        write_aside(self.file, packed_tensors({"identity": self.identity, "training": training}))
        self.written = time.monotonic()
        self.pause = max(LEAST_SECONDS, (self.written - started) / COST)
