"""What can be changed about DDColor. README.md, beside this file, has the reason for each default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# Blocks and channels of the four stages of ConvNeXt (Liu et al. 2022, "A ConvNet for the 2020s", section 3)
ENCODERS: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
    "large": ((3, 3, 27, 3), (192, 384, 768, 1536)),
}


@dataclass(frozen=True)
class Options:
    """Raises ValueError for an encoder that is not in `ENCODERS`."""

    encoder: Literal["tiny", "small", "base", "large"] = "large"
    colorfulness_loss: float = 0.5  # its weight; the authors advise 0 where unnatural patches of red appear
    vgg: Path | None = None  # a file of torchvision's VGG16 with batch normalization; None for random features

    def __post_init__(self) -> None:
        if self.encoder not in ENCODERS:
            raise ValueError(f"ddcolor knows the encoders {', '.join(ENCODERS)}, not {self.encoder!r}")
