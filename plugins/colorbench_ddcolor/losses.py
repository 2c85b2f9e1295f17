"""The losses of DDColor on sRGB pictures (B, 3, H, W) in 0..1, beside the L1 error of ab."""

from __future__ import annotations

import torch
from torch import Tensor

SATURATION = 1.2  # of the true pictures that the perceptual and the adversarial loss compare with
IMAGES = 4  # of a batch on each of the authors' GPUs, over which they sum the colorfulness loss
# Of VGG16 with batch normalization: conv1_1, conv2_1, ... conv5_1, each before its normalization, and their weights.
SEEN = {0: 0.0625, 7: 0.125, 14: 0.25, 24: 0.5, 34: 1.0}


def saturated(rgb: Tensor) -> Tensor:
    """A picture moved away from its own grey, by `SATURATION`."""
    red, green, blue = rgb.split(1, dim=1)
    grey = 0.2989 * red + 0.587 * green + 0.114 * blue  # ITU-R BT.601, as torchvision has it
    return (grey + SATURATION * (rgb - grey)).clamp(0, 1)


def colorfulness_error(rgb: Tensor) -> Tensor:
    """1 - the colorfulness of Hasler and Süsstrunk 2003, summed as over the authors' batch."""
    red, green, blue = rgb.flatten(2).unbind(dim=1)  # (B, H * W)
    opponents = torch.stack(((red - green).abs(), ((red + green) / 2 - blue).abs()), dim=1)
    # Grey pictures have a gradient, too.
    deviation = (opponents.var(dim=2).sum(dim=1) + 1e-12).sqrt()
    mean = (opponents.mean(dim=2).square().sum(dim=1) + 1e-12).sqrt()
    return IMAGES * (1 - deviation - 0.3 * mean).mean()
