"""The protocol's six scores.

MSE, PSNR and SSIM are the paper's; CIEDE2000 (Sharma, Wu, Dalal 2005) and colorfulness (Hasler and
Suesstrunk 2003) see what those three do not: SSIM and PSNR hardly notice a picture left grey.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from colorbench.color import Planes
from colorbench.metrics.pair import Pair, length, mean
from colorbench.protocol import Protocol

_TINY = 1e-30  # keeps a division from 0 / 0 where a grey has no hue


def standard_scores(pair: Pair) -> dict[str, Tensor]:
    """The columns of `protocol.SCORES`, each float64 (B,) on the CPU."""
    protocol, (predicted, truth) = pair.protocol, pair.values
    mse = mean(_squared_error(pair))
    colorfulness, true_colorfulness = (_colorfulness(images, protocol) for images in (predicted, truth))
    return {
        "mse": mse,
        "psnr": 10 * torch.log10(protocol.peak**2 / mse),  # piq's adds 1e-8: 80 dB for an exact copy
        "ssim": _ssim(predicted + truth, predicted - truth, protocol),
        "ciede2000": mean(_ciede2000(*pair.lab, (pair.chroma[0] + pair.chroma[1]) / 2, protocol.ciede2000_kl)),
        "colorfulness": colorfulness,
        "colorfulness_delta": colorfulness - true_colorfulness,
    }


def _squared_error(pair: Pair) -> Tensor:
    """(B, C, H, W) over the protocol's channels, without its border. Raises ValueError where nothing is left."""
    channels = {"rgb": lambda: pair.squared_error, "luma-bt601-bgr": lambda: _luma_of_bgr(*pair.values).square_()}
    error, border = pair.protocol.choose("error_channels", channels)(), pair.protocol.error_border
    height, width = error.shape[2:]
    if 2 * border >= min(height, width):
        raise ValueError(f"a border of {border} pixels leaves nothing of {(height, width)}")
    return error[..., border : height - border, border : width - border]


def _luma_of_bgr(predicted: Tensor, truth: Tensor) -> Tensor:
    """The difference in the luma of ITU-R BT.601 in 16..235, with the weights of red and blue exchanged."""
    red, green, blue = (predicted - truth).split(1, dim=1)
    return (65.738 * blue + 129.057 * green + 25.064 * red) / 256


def _ssim(sums: Tensor, differences: Tensor, protocol: Protocol) -> Tensor:
    """Wang et al. 2004, (13): mean of (2 m1 m2 + c1) (2 s12 + c2) / ((m1^2 + m2^2 + c1) (s1^2 + s2^2 + c2)).

    From the sum S and the difference D of two pictures (B, 3, H, W): 2 m1 m2 is (mS^2 - mD^2) / 2, m1^2 + m2^2 is
    (mS^2 + mD^2) / 2, and so for the variances. That takes four weighted means, not five, and of equal pictures it
    is exactly 1.
    """
    channels = {"rgb": lambda images: images, "joined": lambda images: images.flatten(1, 2)[:, None]}
    joined = protocol.choose("ssim_channels", channels)
    (mS, vS), (mD, vD) = (_local_moments(joined(images), protocol) for images in (sums, differences))
    mS, mD = mS.square_(), mD.square_()
    c1, c2 = (2 * (k * protocol.ssim_data_range) ** 2 for k in (protocol.ssim_k1, protocol.ssim_k2))
    above = (mS - mD).add_(c1).mul_((vS - vD).add_(c2))
    return mean(above.div_(mS.add_(mD).add_(c1)).div_(vS.add_(vD).add_(c2)))


def _local_moments(images: Tensor, protocol: Protocol) -> tuple[Tensor, Tensor]:
    """Mean and variance in the window around each pixel."""
    # float32 does for a difference of squares if they are small. A whole number keeps the values exact.
    shift = images.mean(-1).mean(-1).round()[..., None, None]
    centered = images - shift
    blur = protocol.choose("ssim_border", {"valid": _blur_inside})
    local = blur(centered, protocol)
    variance = blur(centered.square_(), protocol).addcmul_(local, local, value=-1)
    count = protocol.ssim_window**2
    sample = {"population": lambda: variance, "sample": lambda: variance.mul_(count / (count - 1))}
    return local + shift, protocol.choose("ssim_covariance", sample)()


def _blur_inside(images: Tensor, protocol: Protocol) -> Tensor:
    """Weighted means of (B, C, H, W), where the window lies inside. Raises ValueError where it never does."""
    window, middle = protocol.ssim_window, (protocol.ssim_window - 1) / 2
    shapes = {
        "gaussian": lambda i: math.exp(-(((i - middle) / protocol.ssim_sigma) ** 2) / 2),
        "uniform": lambda i: 1.0,
        "whole": None,
    }
    if (weight := protocol.choose("ssim_window_shape", shapes)) is None:
        return images.double().mean((2, 3), keepdim=True).to(images.dtype)
    if min(images.shape[2:]) < window:
        raise ValueError(f"SSIM needs sides of {window} pixels or more, not {tuple(images.shape[2:])}")
    weights = [weight(i) for i in range(window)]
    for dim in (2, 3):  # sums, since convolutions of a GPU may be TF32, and those of a CPU copy before they are faster
        size = images.shape[dim] - window + 1
        blurred = images.narrow(dim, 0, size) * (weights[0] / sum(weights))
        for start in range(1, window):
            blurred.add_(images.narrow(dim, start, size), alpha=weights[start] / sum(weights))
        images = blurred
    return images


def _colorfulness(images: Tensor, protocol: Protocol) -> Tensor:
    """M3 of Hasler and Suesstrunk 2003: sqrt(srg^2 + syb^2) + 0.3 sqrt(mrg^2 + myb^2), of the standard deviations and
    means of rg = R - G and yb = (R + G) / 2 - B. About 0 for grey, 109 for extremely colorful."""
    red, green, blue = images.unbind(1)
    variance = square = torch.zeros(len(images), dtype=torch.float64)
    side = protocol.choose("colorfulness_opponents", {"signed": lambda opponent: opponent, "absolute": torch.abs})
    for opponent in map(side, (red - green, (red + green) / 2 - blue)):
        middle = mean(opponent)
        square = square + middle.square()
        variance = variance + mean((opponent - middle.to(opponent)[:, None, None]).square_())
    return variance.sqrt() + protocol.colorfulness_mean_weight * square.sqrt()


def _ciede2000(first: Planes, second: Planes, chroma_mean: Tensor, kl: float) -> Tensor:
    """CIEDE2000 (B, H, W). Equation numbers: Sharma, Wu, Dalal 2005.

    A hue is a unit vector, not an angle: a difference is the chord between two, their mean the direction of the sum,
    without a case for the way round. The vector of a grey is 0, so that the other's hue is the mean, as in (14).
    """
    (L1, a1, b1), (L2, a2, b2) = first, second
    stretch = 1.5 - 0.5 * _saturation(chroma_mean)  # 1 + G, (4) and (5)
    a1, a2 = a1 * stretch, a2 * stretch
    C1, C2 = length(a1, b1), length(a2, b2)
    (x1, y1), (x2, y2) = ((a / (C + _TINY), b / (C + _TINY)) for a, b, C in ((a1, b1, C1), (a2, b2, C2)))
    chord = length(x2 - x1, y2 - y1).copysign_(x1 * y2 - x2 * y1)  # 2 sin(dh / 2)
    dL, dC, dH = L2 - L1, C2 - C1, (C1 * C2).sqrt_() * chord  # (8) to (11)
    L, C, x, y = (L1 + L2) / 2, (C1 + C2) / 2, x1 + x2, y1 + y2
    norm = length(x, y).add_(_TINY)
    cos, sin = x / norm, y / norm  # of the mean hue, (14)
    square = (L - 50).square_()
    lightness = dL / (1 + 0.015 * square / (20 + square).sqrt_()) / kl
    chroma, hue = dC / (1 + 0.045 * C), dH / (1 + 0.015 * C * _T(cos, sin))
    minus_rt = 2 * _saturation(C) * _rotation(cos, sin)  # (21)
    # Rounding may put an exact match a hair below zero.
    return (lightness * lightness + chroma * chroma + hue * hue - minus_rt * chroma * hue).clamp_min_(0).sqrt_()


def _saturation(chroma: Tensor) -> Tensor:
    cube = chroma * chroma * chroma
    power = cube * cube * chroma
    return (power / (power + 25.0**7)).sqrt_()


def _T(cos: Tensor, sin: Tensor) -> Tensor:  # noqa: N802
    """1 - 0.17 cos(h - 30) + 0.24 cos(2h) + 0.32 cos(3h + 6) - 0.20 cos(4h - 63) in degrees, (15)."""
    total, x, y = torch.ones_like(cos), cos, sin
    for weight, degrees in ((-0.17, -30), (0.24, 0), (0.32, 6), (-0.20, -63)):
        angle = math.radians(degrees)
        total.add_(x, alpha=weight * math.cos(angle)).add_(y, alpha=-weight * math.sin(angle))
        x, y = (x * cos).addcmul_(y, sin, value=-1), (x * sin).addcmul_(y, cos)  # from n h to (n + 1) h
    return total


def _rotation(cos: Tensor, sin: Tensor) -> Tensor:
    """sin(60 exp(-((h - 275) / 25)^2)) in degrees, (16), h from 0 to 360: that of the opposite hue is -180 to 180."""
    distance = torch.atan2(-sin, -cos).sub_(math.radians(95)).div_(math.radians(25))
    # Beyond 9 the exponential is a denormal number or 0: nothing, but slow.
    return distance.clamp_min_(-9).square_().neg_().exp_().mul_(math.radians(60)).sin_()
