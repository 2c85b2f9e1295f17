"""An unfinished training on disk, so that a run which is stopped or killed goes on at the step it had reached.

The first line of the file is the SHA-256 of all that follows: a line of JSON, the key of the training and its position,
and then the state as torch.save writes it.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from colorbench.runs.folder import write_aside

COST = 0.05  # the share of the training's time that writing may take
LEAST_SECONDS = 1.0  # between two checkpoints, however fast they are


@dataclass
class TrainingState:
    """How far a training is, and what it has gathered; the tensors of the last three fields only in a checkpoint.

    `stage` counts from 0, up to the number of stages when all are trained; `epoch` from 1; `step` are those taken in
    the epoch. `rows` are the losses by stage, epoch, component and split; `losses` the sums of this epoch, each a
    scalar, and of how many images they are. `network` leaves out the base; `optimizers` has a state by player.
    """

    stage: int = 0
    epoch: int = 1
    step: int = 0
    images_seen: int = 0
    seconds: float = 0.0
    rows: list[tuple[str, int, str, str, float]] = field(default_factory=list)
    losses: dict[str, tuple[Tensor, int]] = field(default_factory=dict)
    network: dict[str, Tensor] = field(default_factory=dict)
    mean: dict[str, Tensor] = field(default_factory=dict)
    optimizers: dict[str, dict[str, Any]] = field(default_factory=dict)


class _Head(msgspec.Struct):
    key: str
    position: tuple[int, int, int]


class Checkpoint:
    """The file of one training. `key` is what must be the same for it to be taken up: code, base, device."""

    def __init__(self, file: Path, key: str, device: torch.device) -> None:
        self.file, self.key, self.device = file, key, device
        self.pause, self.written = LEAST_SECONDS, time.monotonic()

    def read(self) -> TrainingState | None:
        """What was written last; None if there is nothing, or, said on standard error, nothing to go on from."""
        try:
            digest, _, body = self.file.read_bytes().partition(b"\n")
            if hashlib.sha256(body).hexdigest().encode() != digest:
                raise ValueError("it is damaged, or no checkpoint")
            head, _, content = body.partition(b"\n")
            if msgspec.json.decode(head, type=_Head).key != self.key:
                raise ValueError("it was made by other code or on another device")
            state = torch.load(io.BytesIO(content), map_location=self.device, weights_only=True)
            return msgspec.convert(state, TrainingState)
        except FileNotFoundError:
            pass
        except (MemoryError, torch.OutOfMemoryError):  # no fault of the file, which shall not be written over
            raise
        except Exception as error:  # torch raises many types: all mean that this is no training of ours
            self.refuse(error)
        return None

    def refuse(self, reason: Exception) -> None:
        """Say in one line on standard error why this file is not gone on from."""
        print(f"{self.file}: training starts over: {' '.join(str(reason).split())[:200]}", file=sys.stderr)

    def is_due(self) -> bool:
        """Whether so much time has passed since the last write that another one costs little."""
        return time.monotonic() - self.written > self.pause

    def write(self, state: TrainingState) -> None:
        """Replace the file, in one go: until then the old one stays."""
        started = time.monotonic()
        head = json.dumps({"key": self.key, "position": [state.stage, state.epoch, state.step]})
        torch.save(vars(state), buffer := io.BytesIO())  # not the file itself: on a full disk that raises no OSError
        body = head.encode() + b"\n" + buffer.getvalue()
        write_aside(self.file, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        self.written = time.monotonic()
        self.pause = max(LEAST_SECONDS, (self.written - started) / COST)


def position_of(file: Path, key: str) -> tuple[int, int, int] | None:
    """Stage, epoch and step of what was written last, unchecked; None without anything for the training of `key`."""
    try:
        with file.open("rb") as checkpoint:
            checkpoint.readline(100)
            head = msgspec.json.decode(checkpoint.readline(10_000), type=_Head)
    except (OSError, ValueError):
        return None
    return head.position if head.key == key else None
