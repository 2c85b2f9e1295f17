"""What can be changed about DeOldify. README.md, beside this file, has the reason for each default."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Options:
    """Raises ValueError for an architecture that there is not, and for a negative render factor."""

    architecture: Literal["artistic", "stable"] = "artistic"
    render_factor: int = 0  # pictures are colored at this x 16 px to a side; 0 for the side of the training images
    vgg: Path | None = None  # a file of torchvision's VGG16 with batch normalization; None for random features

    def __post_init__(self) -> None:
        if self.architecture not in ("artistic", "stable"):
            raise ValueError(f"deoldify knows the architectures artistic and stable, not {self.architecture!r}")
        if self.render_factor < 0:
            raise ValueError(f"deoldify needs a render_factor from 0, not {self.render_factor}")
