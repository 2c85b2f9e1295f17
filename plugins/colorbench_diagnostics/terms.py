"""Terms per image, float64 (B,) each: means over the pixels, of which the report makes quotients.

The terms of a quotient are kept, not the quotient: a ratio of sums over all pixels is not the mean of the images'
ratios. Chroma is sqrt(a^2 + b^2) in Lab.
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


def chroma(pair: Pair) -> dict[str, Tensor]:
    """The moments from which the slope of the predicted over the true chroma follows."""
    predicted, true = pair.chroma
    return {
        "chroma_true": mean(true),
        "chroma_predicted": mean(predicted),
        "chroma_true_squared": mean(true * true),
        "chroma_product": mean(true * predicted),
    }


def cool_hues(pair: Pair) -> dict[str, Tensor]:
    """cool_share: share of the pixels that are cool in truth, of a chroma above 10 and a hue of 180 to 300 degrees.

    cool_recalled_share: share of the pixels that are cool in truth and predicted within 30 degrees of that hue.
    """
    ((_, guessed_a, guessed_b), (_, a, b)), (guessed_chroma, chroma) = pair.lab, pair.chroma
    # Below the a axis and clockwise of the ray at 300 degrees, by cross products: no angle has to be computed.
    end = math.radians(COOL_END)
    # 1 or 0, in place: a comparison that gives bool takes six times as long.
    cool = chroma.clone().gt_(COOL_CHROMA) * b.clone().le_(0) * (b * math.cos(end)).le_(a * math.sin(end))
    # The angle between two hues by its cosine: no turn to take care of.
    near = (a * guessed_a).addcmul_(b, guessed_b).ge_(chroma * guessed_chroma * math.cos(math.radians(SAME_HUE)))
    recalled = cool * near * guessed_chroma.clone().ge_(GREY_CHROMA)
    return {"cool_share": mean(cool), "cool_recalled_share": mean(recalled)}


def lips(pair: Pair) -> dict[str, Tensor]:
    """lip_contrast_true, lip_contrast_product: with the difference of mean ab, lips minus skin, its squared length in
    truth and its dot product with the predicted one; 0 for an image that lacks either. None without both masks.
    """
    if not {"lips", "skin"} <= pair.masks.keys():
        return {}
    masks = pair.masks["lips"], pair.masks["skin"]
    shares = mean(masks[0]), mean(masks[1])
    both = (shares[0] > 0) & (shares[1] > 0)
    contrasts = []
    for _, a, b in pair.lab:
        in_lips, in_skin = (
            torch.stack([mean(plane * mask) for plane in (a, b)]) / share.clamp_min(1e-12)
            for mask, share in zip(masks, shares, strict=True)
        )
        contrasts.append(both * (in_lips - in_skin))
    guessed, true = contrasts
    return {"lip_contrast_true": true.square().sum(0), "lip_contrast_product": (true * guessed).sum(0)}


def attention(pair: Pair) -> dict[str, Tensor]:
    """attention_correlation: Pearson correlation of the map with the true chroma, area-pooled to its size; NaN without
    a map, or if either is constant.
    """
    seen, chroma = pair.attention, pair.chroma[1]
    if seen is None:
        return {"attention_correlation": torch.full((len(chroma),), torch.nan, dtype=torch.float64)}
    height, width = seen.shape[2:]
    pooled = F.adaptive_avg_pool2d(chroma[:, None], (height, width))
    first, second = (values.flatten(1).cpu().double() for values in (seen, pooled))
    flat = (_range(first) < FLAT_MAP) | (_range(second) < FLAT_CHROMA)
    first, second = (values - values.mean(1, keepdim=True) for values in (first, second))
    correlation = F.cosine_similarity(first, second, eps=0).masked_fill(flat, torch.nan)
    return {"attention_correlation": correlation}


def parts(pair: Pair) -> dict[str, Tensor]:
    """share_PART, squared_error_PART: share of the pixels, and their squared error (mean over RGB, 0..255) summed
    over the part and divided by H * W; their means over images give the MSE in the part as a quotient.
    """
    if not pair.masks:
        return {}
    squared = pair.squared_error.sum(1)
    terms: dict[str, Tensor] = {}
    for name, part in pair.masks.items():
        terms |= {f"share_{name}": mean(part), f"squared_error_{name}": mean(squared * part) / 3}
    return terms


def _range(values: Tensor) -> Tensor:
    return values.amax(1) - values.amin(1)
