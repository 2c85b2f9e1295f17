"""The losses of Table 1 of Wang, Hu and Zhao: Beyond Black and White.

Each is a squared norm, written here as what is squared; how the squares of a batch become a number is a `Reduction`.
AB is ab / 110 (B, 2, H, W), RGB is in 0..1 (B, 3, H, W); a hat stands for what the network gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from colorbench_layers.vgg import Features, ImageNet
from torch import Tensor, nn

from colorbench.color import lab_to_rgb

PHI = 3, 8, 15, 22  # the last ReLU of each of VGG16's first four stages

Reduction = Callable[[Tensor], Tensor]

REDUCTIONS: Mapping[str, Reduction] = {
    "mean": lambda squares: squares.mean(),
    "sum": lambda squares: squares.flatten(1).sum(dim=1).mean(),  # over an image; a batch is always averaged
}


def squared(first: Tensor, second: Tensor) -> Tensor:
    """L_residual = || R^ - (AB - AB_base) ||^2 and L_output = || AB^_final - AB ||^2."""
    return (first - second).square()


def hinge(final: Tensor, base: Tensor, target: Tensor) -> Tensor:
    """L_diversity as its description has it, "more vibrant": || max(0, |AB| - |AB^_final|) ||^2, lengths per pixel.

    Being more colorful than the truth costs nothing here. Half of the square for each of the two channels, as of the
    others' squares: else a mean would count it twice.
    """
    # Squared as the other terms: a linear hinge outweighs them where errors are small, and oversaturates.
    short = (chroma(target) - chroma(final)).clamp_min(0)
    return (short.square() / 2).expand_as(target)


def penalty(final: Tensor, base: Tensor, target: Tensor) -> Tensor:
    """L_diversity = || AB^_final - AB_base ||^2 to the letter: it pulls the result back to the base."""
    return squared(final, base)


def reward(final: Tensor, base: Tensor, target: Tensor) -> Tensor:
    """L_diversity with the other sign, - || AB^_final - AB_base ||^2: away from the base, to wherever."""
    return -squared(final, base)


DIVERSITY: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "hinge": hinge,
    "penalty": penalty,
    "reward": reward,
}


def attention_error(attention: Tensor, wanted: Tensor) -> Tensor:
    """L_attention = || AttnMap - ColorMag ||^2: a map (B, 1, h, w) in 0..1 against `wanted` (B, 1, H, W), which is
    pooled to the map's size and stretched to 0..1."""
    h, w = attention.shape[-2:]
    return squared(attention, min_max(F.adaptive_avg_pool2d(wanted, (h, w))))


def chroma(ab: Tensor) -> Tensor:
    """ColorMag: ab (B, 2, H, W) -> its length per pixel (B, 1, H, W), in the unit of `ab`."""
    return (ab.square().sum(dim=1, keepdim=True) + 1e-12).sqrt()  # gray has a gradient, too


def variation(ab: Tensor) -> Tensor:
    """ab (B, 2, H, W) -> its standard deviation over 7 x 7 pixels (B, 1, H, W), both channels together."""
    mean = F.avg_pool2d(ab, 7, stride=1, padding=3, count_include_pad=False)
    square = F.avg_pool2d(ab.square(), 7, stride=1, padding=3, count_include_pad=False)
    return (square - mean.square()).clamp_min(0).sum(dim=1, keepdim=True).sqrt()


ATTENDED: Mapping[str, Callable[[Tensor], Tensor]] = {"chroma": chroma, "variation": variation}


def min_max(image: Tensor) -> Tensor:
    """Each (1, H, W) of a batch stretched to 0..1; a flat one, with a range below 1e-4, stays near 0."""
    low, high = image.amin(dim=(1, 2, 3), keepdim=True), image.amax(dim=(1, 2, 3), keepdim=True)
    return (image - low) / (high - low).clamp_min(1e-4)


def appearance(
    features: nn.Module, L: Tensor, final: Tensor, target: Tensor, style_of: Tensor, reduce: Reduction
) -> dict[str, Tensor]:
    """L_perceptual = || phi(RGB^) - phi(RGB) ||^2 and L_style = || G(RGB^) - G(RGB_base) ||^2.

    All ab (B, 2, H, W) in Lab units, L (B, 1, H, W) in 0..100; phi are the maps of VGG16, which count equally, G their
    Gram matrices. RGB_base is that of `style_of`.
    """
    with torch.no_grad():
        fixed = features(rgb(L.repeat(2, 1, 1, 1), torch.cat((target, style_of))))
    seen = features(rgb(L, final))
    perceptual, style = [], []
    for layer, (wanted, started) in zip(seen, (f.chunk(2) for f in fixed), strict=True):
        perceptual.append(reduce(squared(layer, wanted)))
        style.append(reduce(squared(gram(layer), gram(started))))
    return {"perceptual": torch.stack(perceptual).mean(), "style": torch.stack(style).mean()}


def rgb(L: Tensor, ab: Tensor) -> Tensor:
    """L (B, 1, H, W) and ab (B, 2, H, W) in Lab units -> sRGB (B, 3, H, W) in 0..1, with a gradient."""
    return lab_to_rgb(torch.cat((L, ab), dim=1))


def gram(features: Tensor) -> Tensor:
    """G: float32 (B, C, H, W) -> (B, C, C), the mean products of channels divided by C."""
    flat = features.flatten(2)
    with torch.autocast(features.device.type, enabled=False):  # bf16 is coarser than what is compared
        return flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])


def vgg16(weights: Path | None, width: float) -> nn.Module:
    """phi: sRGB (B, 3, H, W) in 0..1 -> the float32 maps of `PHI`, the k-th at H / 2^(k - 1).

    `weights` is a file of torchvision's VGG16. Without one the features are random, the same in every run, with their
    channels multiplied by `width`. Raises UserError or ValueError if the file holds no VGG16 of torchvision.
    """
    return nn.Sequential(ImageNet(), Features(PHI, weights, width))
