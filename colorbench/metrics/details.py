"""What a mean score hides: how pale the colors are, whether cool hues come out, and in which parts the error lies.

Each image gives its mean of every term of a statistic (sufficient statistics), not the statistic: a ratio of sums
over all pixels is not the mean of the images' ratios, and the report draws images again for its intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from colorbench.color import rgb_to_lab

COOL = (180, 300)  # degrees of hue in the ab plane: green-cyan to blue-violet
COOL_CHROMA = 10  # Lab units; what is paler has no hue to speak of
SAME_HUE = 30  # degrees to either side
GREY_CHROMA = 1  # Lab units; a prediction below it has no hue
# What rounding leaves: the chroma of the 256 greys is 0 to 0.0053, and a map is float32.
FLAT_CHROMA, FLAT_MAP = 0.01, 1e-6


@torch.no_grad()
def details(
    predicted: Tensor, truth: Tensor, parts: Mapping[str, Tensor] | None = None, attention: Tensor | None = None
) -> pd.DataFrame:
    """Per image, the terms of the report's details: a row per image, in the order given, float64.

    predicted, truth: uint8 RGB (B, 3, H, W). parts: bool (B, H, W) by name. attention: float32 (B, 1, h, w) in 0..1.
    All on one device. Chroma is sqrt(a^2 + b^2) in Lab. Columns:

    chroma_true, chroma_predicted, chroma_true_squared, chroma_product: means over the pixels.
    cool_share: share of the pixels that are cool in truth, of a chroma above 10 and a hue of 180 to 300 degrees.
    cool_recalled_share: share of the pixels that are cool in truth and predicted within 30 degrees of that hue.
    share_PART, squared_error_PART: share of the pixels, and their squared error (mean over RGB, 0..255) summed
    over the part and divided by H * W; their means over images give the MSE in the part as a quotient.
    lip_contrast_true, lip_contrast_product: with the difference of mean ab, lips minus skin, its squared length in
    truth and its dot product with the predicted one; 0 for an image that lacks either. Only if `parts` has both.
    attention_correlation: Pearson correlation of the map with the true chroma, area-pooled to its size; NaN without
    a map, or if either is constant.
    """
    true, guessed = (rgb_to_lab(images.double() / 255)[:, 1:] for images in (truth, predicted))
    chroma, guessed_chroma = (torch.hypot(ab[:, 0], ab[:, 1]) for ab in (true, guessed))
    columns = _chroma(chroma, guessed_chroma) | _cool(true, guessed, chroma, guessed_chroma)
    squared = (predicted.double() - truth.double()).square().mean(1)
    for name, part in (parts or {}).items():
        columns |= {f"share_{name}": _mean(part.double()), f"squared_error_{name}": _mean(squared * part)}
    if parts and {"lips", "skin"} <= parts.keys():
        columns |= _lip_contrast(true, guessed, parts["lips"].double(), parts["skin"].double())
    columns["attention_correlation"] = _correlation(attention, chroma)
    return pd.DataFrame({name: values.cpu().numpy() for name, values in columns.items()})


def _chroma(true: Tensor, guessed: Tensor) -> dict[str, Tensor]:
    return {
        "chroma_true": _mean(true),
        "chroma_predicted": _mean(guessed),
        "chroma_true_squared": _mean(true.square()),
        "chroma_product": _mean(true * guessed),
    }


def _cool(true: Tensor, guessed: Tensor, chroma: Tensor, guessed_chroma: Tensor) -> dict[str, Tensor]:
    hue = torch.rad2deg(torch.atan2(true[:, 1], true[:, 0])) % 360
    cool = (chroma > COOL_CHROMA) & (hue >= COOL[0]) & (hue <= COOL[1])
    # The angle between two hues by its cosine: no turn to take care of.
    product = true[:, 0] * guessed[:, 0] + true[:, 1] * guessed[:, 1]
    near = product >= math.cos(math.radians(SAME_HUE)) * chroma * guessed_chroma
    recalled = cool & near & (guessed_chroma >= GREY_CHROMA)
    return {"cool_share": _mean(cool.double()), "cool_recalled_share": _mean(recalled.double())}


def _lip_contrast(true: Tensor, guessed: Tensor, lips: Tensor, skin: Tensor) -> dict[str, Tensor]:
    both = (lips.sum((1, 2)) > 0) & (skin.sum((1, 2)) > 0)
    true_contrast, guessed_contrast = (
        both[:, None] * (_mean_in(ab, lips) - _mean_in(ab, skin)) for ab in (true, guessed)
    )
    return {
        "lip_contrast_true": true_contrast.square().sum(1),
        "lip_contrast_product": (true_contrast * guessed_contrast).sum(1),
    }


def _correlation(attention: Tensor | None, chroma: Tensor) -> Tensor:
    if attention is None:
        return torch.full_like(chroma[:, 0, 0], torch.nan)
    h, w = attention.shape[2:]
    pooled = F.adaptive_avg_pool2d(chroma[:, None], (h, w))
    first, second = attention.double().flatten(1), pooled.flatten(1)
    flat = (_range(first) < FLAT_MAP) | (_range(second) < FLAT_CHROMA)
    first, second = (values - values.mean(1, keepdim=True) for values in (first, second))
    return F.cosine_similarity(first, second, eps=0).masked_fill(flat, torch.nan)


def _mean(values: Tensor) -> Tensor:
    return values.mean((1, 2))


def _mean_in(ab: Tensor, part: Tensor) -> Tensor:
    """Mean of ab (B, 2, H, W) over the part (B, H, W), 0 or 1 -> (B, 2); 0 where the part is empty."""
    return (ab * part[:, None]).sum((2, 3)) / part.sum((1, 2)).clamp_min(1)[:, None]


def _range(values: Tensor) -> Tensor:
    return values.amax(1) - values.amin(1)
