"""What the paper leaves open, as options. DECISIONS.md, beside this file, has the reason for each default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

LOSSES = ("residual", "output", "perceptual", "diversity", "style", "attention")  # of equation 1, in its order
BOTTLENECK = 0  # a place of the attention block; the others are strides
NOISE_STEPS = 1000  # of Ho, Jain and Abbeel 2020; the paper names none


@dataclass(frozen=True)
class Options:
    """Raises ValueError on a value that the network does not know."""

    # What the U-Net sees
    sees: Literal["L+ab", "ab"] = "L+ab"  # "ab" alone is all that the text lists
    features: str = ""  # a submodule of the base, such as siggraph17's "model10", whose map is an input, too
    # Noise
    noise: Literal["linear", "cosine"] = "linear"  # growth of the variances over 1000 steps
    t_max: int = 50  # in training, steps of noise are uniform on 0..t_max; 0 is no noise
    test_t: int = 0  # steps of noise at test
    steps: int = 1  # refinements at test, each of the last one's result
    # Color prior
    prior: Literal["mean-chroma", "rms", "literal", "none"] = "mean-chroma"  # its 4th number
    prior_of: Literal["base", "noisy"] = "base"  # which ab it describes
    fusion: Literal["film", "add"] = "film"  # how prior and timestep enter the bottleneck
    # Self-attention
    attention: Literal["decoder", "bottleneck", "none"] = "decoder"
    attention_stride: Literal[8, 4, 2] = 8  # pixels to a cell: behind which stage of the decoder
    heads: int = 4
    attention_target: Literal["chroma", "variation"] = "chroma"  # what its map is compared with
    attention_teaches: Literal["map", "trunk"] = "map"  # what learns from that comparison
    # Losses: the weights of equation 1 (0 drops the loss), and what Table 1 leaves open
    residual_loss: float = 0.35
    output_loss: float = 0.25
    perceptual_loss: float = 0.10
    diversity_loss: float = 0.10
    style_loss: float = 0.10
    attention_loss: float = 0.10
    reduction: Literal["mean", "sum"] = "mean"  # over the elements of each squared norm
    output: Literal["ab", "rgb"] = "ab"  # where the output error is measured
    diversity: Literal["hinge", "penalty", "reward"] = "hinge"
    style_of: Literal["base", "truth"] = "base"
    vgg: Path | None = None  # a file of torchvision's VGG16; None for random features
    # Images and size
    crop: float = 1.0  # in training, least side of a random crop over the picture's; 1 for none
    channels: tuple[int, int, int, int] = (64, 128, 256, 512)  # of the four levels, to be multiplied by the width
    mirrored: bool = False  # at test, the mean of the result and of the mirrored picture's

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            known, given = get_args(hint), getattr(self, name)
            if get_origin(hint) is Literal and given not in known:
                raise ValueError(f"enhanced-unet knows {name} {', '.join(map(str, known))}, not {given!r}")
        for name, (least, most) in RANGES.items():
            if not least <= (given := getattr(self, name)) <= most:
                raise ValueError(f"enhanced-unet needs {name} in {least:g}..{most:g}, not {given}")
        if not any(self.weights.values()):
            raise ValueError("enhanced-unet needs one of the losses at least: all weights are 0")

    @property
    def attention_place(self) -> int | None:
        """BOTTLENECK, or the stride of the decoder's stage which the block follows; None without attention."""
        return {"decoder": self.attention_stride, "bottleneck": BOTTLENECK}.get(self.attention)

    @property
    def weights(self) -> Mapping[str, float]:
        """Equation 1: the weight of each loss."""
        return {loss: getattr(self, f"{loss}_loss") for loss in LOSSES}


Tone = Literal["warm", "cool", "base", "truth"]  # always one of the two models, or the one of these colors


@dataclass(frozen=True)
class ToneOptions(Options):
    """Of the models for warm and for cool images, `tones.py`."""

    tone: Tone = "base"


RANGES = {
    "t_max": (0, NOISE_STEPS),
    "test_t": (0, NOISE_STEPS),
    "steps": (1, NOISE_STEPS),
    "heads": (1, 64),
    "crop": (1 / 64, 1),
}
