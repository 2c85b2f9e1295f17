"""What one sees of a training: a bar with loss, images/s and time left, or plain lines where there is no terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping

from tqdm import tqdm

from colorbench.contract import Stage

tqdm.set_lock(threading.RLock())  # its own is a semaphore of the system, which a process that is killed leaves behind
READ_SECONDS = 1.0  # how often the losses are read from the device: reading makes it wait


class Progress:
    """The progress of one stage over epochs of `images`, of which `done` are behind it already."""

    def __init__(self, title: str, stage: Stage, images: int, done: int, shown: bool) -> None:
        self.title, self.stage, self.shown = title, stage, shown
        self.bar = tqdm(
            total=stage.epochs * images, initial=done, desc=f"{title} {stage.name}", unit="img",
            disable=None if shown else True, leave=False, mininterval=0.5,  # a notebook keeps all that it was shown
        )  # fmt: skip
        self.seen, self.started = 0, time.monotonic()
        self.left = stage.epochs * images - done
        self.read = self.started

    def advance(self, images: int, losses: Callable[[], Mapping[str, float]]) -> None:
        """Count the images of one step. `losses` is called once in a while."""
        self.seen += images
        self.bar.update(images)
        if time.monotonic() - self.read > READ_SECONDS:
            self.read = time.monotonic()
            self.bar.set_postfix(loss=f"{sum(losses().values()):.4f}")

    def close_epoch(self, epoch: int, train: Mapping[str, float], val: Mapping[str, float]) -> None:
        """Print the epoch's line, if there is no terminal for the bar."""
        if not (self.shown and self.bar.disable):
            return
        rate = max(self.seen, 1) / (time.monotonic() - self.started)  # none when taken up at an end of an epoch
        losses = f"loss {sum(train.values()):.4f}, val {sum(val.values()):.4f}" if train else "no loss"
        print(
            f"{self.title}  {self.stage.name} {epoch}/{self.stage.epochs}  {losses}  {rate:.0f} img/s  "
            f"{(self.left - self.seen) / rate:.0f} s left",
            file=sys.stderr,
            flush=True,
        )

    def close(self) -> None:
        """Take the bar away."""
        self.bar.close()
