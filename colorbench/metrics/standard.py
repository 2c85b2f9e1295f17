"""The protocol's six scores, on uint8 RGB (B, 3, H, W), each returning (B,).

MSE, PSNR and SSIM are the paper's; CIEDE2000 (Sharma, Wu, Dalal 2005) and colorfulness (Hasler and
Suesstrunk 2003) see what those three do not: SSIM and PSNR hardly notice a picture left grey.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from colorbench.color import rgb_to_lab


def mse(predicted: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error over RGB 0..255."""
    return (predicted.double() - truth.double()).square().mean((1, 2, 3))


def psnr(predicted: Tensor, truth: Tensor) -> Tensor:
    """10 log10(255^2 / MSE) in dB. Not piq's, which adds 1e-8 and so gives 80 dB to an exact copy."""
    return 10 * torch.log10(255.0**2 / mse(predicted, truth))


def ssim(predicted: Tensor, truth: Tensor) -> Tensor:
    """SSIM of Wang et al. 2004: Gaussian window of 11, sigma 1.5, mean over RGB. -1..1."""
    import piq  # here because it takes seconds to import

    # piq would average-pool first from 384 px on, and a score would mean something else there.
    return piq.ssim(predicted.float(), truth.float(), data_range=255, reduction="none", downsample=False)


def ciede2000(predicted: Tensor, truth: Tensor) -> Tensor:
    """CIEDE2000 color difference, mean over pixels."""
    first, second = (rgb_to_lab(images.double() / 255) for images in (predicted, truth))
    return _delta_e_2000(first, second).mean((1, 2))


def colorfulness(images: Tensor) -> Tensor:
    """M3 of Hasler and Suesstrunk 2003 with signed opponents; about 0 for grey, 109 for extremely colorful."""
    red, green, blue = images.double().unbind(1)
    opponents = torch.stack((red - green, (red + green) / 2 - blue), dim=1).flatten(2)  # (B, 2, HW)
    spread = opponents.std(2, correction=0).square().sum(1).sqrt()
    return spread + 0.3 * opponents.mean(2).square().sum(1).sqrt()


def _delta_e_2000(first: Tensor, second: Tensor) -> Tensor:
    """Lab (B, 3, H, W) twice -> CIEDE2000 (B, H, W). Equation numbers: Sharma, Wu, Dalal 2005."""
    (L1, a1, b1), (L2, a2, b2) = first.unbind(1), second.unbind(1)
    chroma_mean = (torch.hypot(a1, b1) + torch.hypot(a2, b2)) / 2
    stretch = 1.5 - 0.5 * _saturation(chroma_mean)  # 1 + G, (4) and (5)
    C1, C2 = torch.hypot(stretch * a1, b1), torch.hypot(stretch * a2, b2)
    h1, h2 = torch.atan2(b1, stretch * a1) % math.tau, torch.atan2(b2, stretch * a2) % math.tau
    grey = (C1 * C2) == 0  # a grey has no hue: then the hue difference is 0 and the other hue is the mean
    turn = h2 - h1
    turn = turn - math.tau * (turn > math.pi) + math.tau * (turn < -math.pi)
    turn = torch.where(grey, 0.0, turn)
    dL, dC, dH = L2 - L1, C2 - C1, 2 * (C1 * C2).sqrt() * torch.sin(turn / 2)  # (8) to (11)
    L, C = (L1 + L2) / 2, (C1 + C2) / 2
    far = (h1 - h2).abs() > math.pi
    h = (h1 + h2 + math.tau * (far & (h1 + h2 < math.tau)) - math.tau * (far & (h1 + h2 >= math.tau))) / 2
    h = torch.where(grey, h1 + h2, h)  # (14)
    T = (
        1
        - 0.17 * torch.cos(h - math.radians(30))
        + 0.24 * torch.cos(2 * h)
        + 0.32 * torch.cos(3 * h + math.radians(6))
        - 0.20 * torch.cos(4 * h - math.radians(63))
    )
    SL = 1 + 0.015 * (L - 50).square() / (20 + (L - 50).square()).sqrt()
    SC, SH = 1 + 0.045 * C, 1 + 0.015 * C * T
    rotation = torch.exp(-(((h - math.radians(275)) / math.radians(25)) ** 2)) * math.radians(60)
    RT = -2 * _saturation(C) * torch.sin(rotation)
    lightness, chroma, hue = dL / SL, dC / SC, dH / SH
    # Rounding may put an exact match a hair below zero.
    return (lightness**2 + chroma**2 + hue**2 + RT * chroma * hue).clamp_min(0).sqrt()


def _saturation(chroma: Tensor) -> Tensor:
    return (chroma**7 / (chroma**7 + 25.0**7)).sqrt()


STANDARD: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": mse,
    "psnr": psnr,
    "ssim": ssim,
    "ciede2000": ciede2000,
    "colorfulness": lambda predicted, truth: colorfulness(predicted),
    "colorfulness_delta": lambda predicted, truth: colorfulness(predicted) - colorfulness(truth),
}
