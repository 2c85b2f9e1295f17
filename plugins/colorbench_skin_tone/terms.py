"""Terms per image, float64 (B,) each: the tone of the true skin, and the errors of skin in the picture of that tone."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from colorbench.metrics.pair import Pair, length, mean
from colorbench_skin_tone import ERRORS, IMAGES, TONES, term

CB, CR = (77, 127), (133, 173)  # Chai and Ngan, "Face segmentation using skin-color map", IEEE TCSVT 9 (4), 1999
ELLIPSE = 0.4, 0.3  # of the sides: half its height and width
LEAST = 0.2  # share of the ellipse that skin has to fill


def skin(pair: Pair) -> dict[str, Tensor]:
    """For each tone 1 for an image that has it, else 0, and the mean of each of ERRORS over its skin, else 0.

    ab is the distance of predicted from true ab; a, b and chroma are predicted minus true, in Lab units.
    """
    mask = pair.masks["skin"] if "skin" in pair.masks else skin_colored(pair)
    share = mean(mask)
    there, pixels = share > 0, share.clamp_min(1e-12)
    (_, guessed_a, guessed_b), (L, a, b) = pair.lab
    true_L, true_b = (mean(plane * mask) / pixels for plane in (L, b))
    ita = torch.rad2deg(torch.atan2(true_L - 50, true_b))
    off = {
        "ab": length(guessed_a - a, guessed_b - b),
        "a": guessed_a - a,
        "b": guessed_b - b,
        "chroma": pair.chroma[0] - pair.chroma[1],
    }
    errors = {name: mean(off[name] * mask) / pixels for name in ERRORS}
    terms, below = {}, torch.inf
    for tone, least in TONES.items():
        has = there & (ita > least) & (ita <= below)
        terms[IMAGES + tone] = has.double()
        terms |= {term(name, tone): torch.where(has, values, 0.0) for name, values in errors.items()}
        below = least
    return terms


def skin_colored(pair: Pair) -> Tensor:
    """float32 (B, H, W): 1 for what has the color of skin in the true picture, else 0; 0 where it is too little.

    Cb and Cr are those of ITU-R BT.601 in full range; neither depends on the luma, so that dark skin is found as well.
    """
    red, green, blue = pair.values[1].unbind(1)
    cb = 128 - 0.168736 * red - 0.331264 * green + 0.5 * blue
    cr = 128 + 0.5 * red - 0.418688 * green - 0.081312 * blue
    inside = _ellipse(*red.shape[1:], red.device)
    found = inside * ((cb >= CB[0]) & (cb <= CB[1]) & (cr >= CR[0]) & (cr <= CR[1]))
    enough = found.sum((1, 2)) >= LEAST * inside.sum()
    return found * enough[:, None, None]


@cache
def _ellipse(height: int, width: int, device: torch.device) -> Tensor:
    """float32 (H, W): 1 inside the ellipse in the middle, where a portrait has its face."""
    down, right = ((torch.arange(side, device=device) + 0.5) / side - 0.5 for side in (height, width))
    return ((down[:, None] / ELLIPSE[0]) ** 2 + (right / ELLIPSE[1]) ** 2 <= 1).float()
