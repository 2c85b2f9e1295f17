"""What a mean score hides: how pale the colors are, whether cool hues come out, and in which parts the error lies.

Each image gives its mean of every term of a statistic (sufficient statistics), not the statistic: a ratio of sums
over all pixels is not the mean of the images' ratios, and the report draws images again for its intervals.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from colorbench.metrics.pair import Pair, mean

COOL_END = 300  # degrees of hue in the ab plane; from 180, green-cyan, to blue-violet
COOL_CHROMA = 10  # Lab units; what is paler has no hue to speak of
SAME_HUE = 30  # degrees to either side
GREY_CHROMA = 1  # Lab units; a prediction below it has no hue
# What rounding leaves: the chroma of the 256 greys is 0 to 0.0053, and a map is float32.
FLAT_CHROMA, FLAT_MAP = 0.01, 1e-6


def detail_terms(pair: Pair) -> dict[str, Tensor]:
    """Per image, the terms of the report's details, each float64 (B,) on the CPU. Chroma is sqrt(a^2 + b^2) in Lab.

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
    guessed_chroma, chroma = pair.chroma
    columns = {
        "chroma_true": mean(chroma),
        "chroma_predicted": mean(guessed_chroma),
        "chroma_true_squared": mean(chroma * chroma),
        "chroma_product": mean(chroma * guessed_chroma),
    } | _cool(pair)
    squared = pair.squared_error.sum(1)
    parts = {name: part.float() for name, part in pair.parts.items()}
    for name, part in parts.items():
        columns |= {f"share_{name}": mean(part), f"squared_error_{name}": mean(squared * part) / 3}
    if {"lips", "skin"} <= parts.keys():
        columns |= _lip_contrast(pair, parts["lips"], parts["skin"])
    columns["attention_correlation"] = _correlation(pair.attention, chroma)
    return columns


def _cool(pair: Pair) -> dict[str, Tensor]:
    ((_, guessed_a, guessed_b), (_, a, b)), (guessed_chroma, chroma) = pair.lab, pair.chroma
    # Below the a axis and clockwise of the ray at 300 degrees, by cross products: no angle has to be computed.
    end = math.radians(COOL_END)
    # 1 or 0, in place: a comparison that gives bool takes six times as long.
    cool = chroma.clone().gt_(COOL_CHROMA) * b.clone().le_(0) * (b * math.cos(end)).le_(a * math.sin(end))
    # The angle between two hues by its cosine: no turn to take care of.
    near = (a * guessed_a).addcmul_(b, guessed_b).ge_(chroma * guessed_chroma * math.cos(math.radians(SAME_HUE)))
    recalled = cool * near * guessed_chroma.clone().ge_(GREY_CHROMA)
    return {"cool_share": mean(cool), "cool_recalled_share": mean(recalled)}


def _lip_contrast(pair: Pair, lips: Tensor, skin: Tensor) -> dict[str, Tensor]:
    shares = mean(lips), mean(skin)
    both = (shares[0] > 0) & (shares[1] > 0)
    contrasts = []
    for _, a, b in pair.lab:
        in_lips, in_skin = (
            torch.stack([mean(plane * part) for plane in (a, b)]) / share.clamp_min(1e-12)
            for part, share in zip((lips, skin), shares, strict=True)
        )
        contrasts.append(both * (in_lips - in_skin))
    guessed, true = contrasts
    return {"lip_contrast_true": true.square().sum(0), "lip_contrast_product": (true * guessed).sum(0)}


def _correlation(attention: Tensor | None, chroma: Tensor) -> Tensor:
    if attention is None:
        return torch.full((len(chroma),), torch.nan, dtype=torch.float64)
    height, width = attention.shape[2:]
    pooled = F.adaptive_avg_pool2d(chroma[:, None], (height, width))
    first, second = (values.flatten(1).cpu().double() for values in (attention, pooled))
    flat = (_range(first) < FLAT_MAP) | (_range(second) < FLAT_CHROMA)
    first, second = (values - values.mean(1, keepdim=True) for values in (first, second))
    return F.cosine_similarity(first, second, eps=0).masked_fill(flat, torch.nan)


def _range(values: Tensor) -> Tensor:
    return values.amax(1) - values.amin(1)
