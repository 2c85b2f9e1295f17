"""Y. Wang, C. Hu, G. Zhao: Beyond Black and White: Computer Vision Model for Automatic Image Colorization.

A frozen base colorizes (3.1). A U-Net sees L and the base's ab, to which `t` steps of diffusion noise were added
(3.2.2), and predicts the residual: what the base got wrong. Its bottleneck knows t and a color prior, four numbers
about the base's colors (3.2.1); its decoder has a self-attention block (3.2.3). Six losses teach it (3.3; `losses.py`).

    L ── base ── AB_base ── + noise ─┐
    └────────────────────────────── U-Net ── residual ── + AB_base ── ab

What the paper leaves open is an option (`options.py`), decided in DECISIONS.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colorbench.contract import Batch, Update
from colorbench_enhanced_unet import VGG16
from colorbench_enhanced_unet.crops import crop, random_places
from colorbench_enhanced_unet.diffusion import EMBEDDING, noise_schedule, timestep_embedding
from colorbench_enhanced_unet.losses import (
    ATTENDED,
    DIVERSITY,
    REDUCTIONS,
    appearance,
    attention_error,
    chroma,
    min_max,
    rgb,
    squared,
    vgg16,
)
from colorbench_enhanced_unet.options import BOTTLENECK, Options

AB_LIMIT = 110.0  # Lab units; no color of sRGB is beyond. It is 1 inside the network, as in the base
RANDOM_FEATURES = (
    f"The perceptual and style losses compare fixed random features: the weights of VGG16 ({VGG16}) were neither given "
    "nor in the cache of torch.hub."
)
PRIOR_UNIT = 5.0  # Lab units that are 1 in the color prior, so that two faces differ by half a unit or more


class Refined(NamedTuple):
    ab: Tensor  # float32 (B, 2, H, W) in Lab units, within -110..110
    residual: Tensor  # float32 (B, 2, H, W), ab / 110
    attention: Tensor | None  # float32 (B, 1, H/8, W/8), or at another stride, in 0..1; None without attention


class Start(NamedTuple):
    ab: Tensor  # float32 (B, 2, H, W) of the base, in Lab units
    features: tuple[Tensor, ...]  # none, or one map (B, C, H, W) of the base


class EnhancedUNet(nn.Module):
    """The base's ab plus the residual of a U-Net of four levels, 64-128-256-512 channels times `width`.

    Untrained it gives the base's ab, within -110..110, to the bit; a `mirrored` one the mean of two of them. Raises
    ValueError without a base.
    """

    alpha_bar: Tensor

    def __init__(self, width: float, base: nn.Module | None, options: Options) -> None:
        super().__init__()
        if base is None:
            raise ValueError("enhanced-unet refines the colors of another model: it needs that model's network as base")
        self.options = options
        self.base = base.eval().requires_grad_(False)
        self.register_buffer("alpha_bar", noise_schedule(options.noise), persistent=False)

        c1, c2, c3, c4 = (8 * max(1, round(channels * width / 8)) for channels in options.channels)
        seen = 3 if options.sees == "L+ab" else 2
        if options.features:
            seen += self._start(torch.zeros(1, 1, 16, 16)).features[0].shape[1]
        self.down1 = level(seen, c1)
        self.down2 = level(c1, c2)
        self.down3 = level(c2, c3)
        self.down4 = level(c3, c4)
        self.bottleneck = Bottleneck(c4, options.fusion)
        self.up4 = level(c4 + c4, c4)
        self.up3 = level(c4 + c3, c3)
        self.up2 = level(c3 + c2, c2)
        self.up1 = level(c2 + c1, c1)
        self.residual = zeroed(nn.Conv2d(c1, 2, 3, padding=1))

        # Present in every variant, since the stages of the schedule freeze it by name.
        self.attention: nn.Module = nn.Identity()
        if (place := options.attention_place) is not None:
            self.attention = SelfAttention({4: c3, 2: c2}.get(place, c4), options.heads, options.attention_teaches)
        has_prior = options.prior != "none"
        self.prior = nn.Sequential(nn.Linear(4, 64), nn.SiLU(), nn.Linear(64, EMBEDDING)) if has_prior else None

        sees_vgg = options.perceptual_loss or options.style_loss
        self.vgg = vgg16(options.vgg, width) if sees_vgg else None
        self.notes = [RANDOM_FEATURES] if sees_vgg and not options.vgg else []

    def forward(self, L: Tensor) -> Tensor:
        """L (B, 1, H, W) in 0..100 -> ab float32 (B, 2, H, W) in Lab units.

        Raises ValueError where H or W is no multiple of 8.
        """
        return self.with_attention(L)[0]

    def with_attention(self, L: Tensor) -> tuple[Tensor, Tensor | None]:
        """What `forward` gives, and where the first refinement of L looks: float32 (B, 1, H/8, W/8) in 0..1, at
        another `attention_stride` accordingly. None without attention."""
        ab, attention = self._colorize(L)
        if self.options.mirrored:
            ab = (ab + self._colorize(L.flip(3))[0].flip(3)) / 2
        return ab, attention

    def _colorize(self, L: Tensor) -> tuple[Tensor, Tensor | None]:
        start, maps = self._start(L), []
        t = torch.full((len(L),), self.options.test_t, device=L.device)
        # Drawn on the CPU, one field for all: a result depends neither on the device nor on its batch.
        noise = torch.randn(1, 2, *L.shape[-2:], generator=torch.Generator().manual_seed(0)).to(L.device)
        for _ in range(self.options.steps):
            refined = self._refine(L, start, self.diffuse(start.ab / AB_LIMIT, t, noise), t)
            start = start._replace(ab=refined.ab)
            maps.append(refined.attention)
        return start.ab, maps[0]

    @torch.no_grad()
    def _start(self, L: Tensor) -> Start:
        """3.1: what the base makes of L. In float32 in training, too: what is refined is then the same as at test."""
        if L.shape[-2] % 8 or L.shape[-1] % 8:
            raise ValueError(f"enhanced-unet needs a height and width divisible by 8, not {tuple(L.shape[-2:])}")
        seen: list[Tensor] = []
        module = self.base.get_submodule(self.options.features)  # "" is the base itself
        hook = module.register_forward_hook(lambda module, inputs, output: seen.append(output))
        try:
            with torch.autocast(L.device.type, enabled=False):
                ab = self.base(L)
        finally:
            hook.remove()
        return Start(ab, tuple(seen) if self.options.features else ())

    def diffuse(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """3.2.2: x (B, 2, H, W), ab / 110, after t (B,) steps of standard normal noise; t = 0 leaves it as it is."""
        kept = self.alpha_bar[t][:, None, None, None]
        return kept.sqrt() * x + (1 - kept).sqrt() * noise

    def _refine(self, L: Tensor, start: Start, noisy: Tensor, t: Tensor, attend: bool = True) -> Refined:
        """`noisy` is what the U-Net sees of `start.ab`; the sum takes that itself, else noise leaks."""
        options = self.options
        embedding = timestep_embedding(t)  # (B, 128)
        if self.prior is not None:  # 3.2.1
            described = start.ab / AB_LIMIT if options.prior_of == "base" else noisy
            embedding = embedding + self.prior(color_prior(described, options.prior) * (AB_LIMIT / PRIOR_UNIT))
        attention: Tensor | None = None

        def attended(x: Tensor, place: int) -> Tensor:  # 3.2.3; anywhere but at the block's place, x itself
            nonlocal attention
            if attend and place == options.attention_place:
                x, attention = self.attention(x)
            return x

        luminance = ((L - 50) / 100,) if options.sees == "L+ab" else ()
        x = torch.cat((*luminance, noisy, *start.features), dim=1)  # (B, 3 or 2 and the features, H, W)
        skip1 = self.down1(x)  # (B, c1, H, W)
        skip2 = self.down2(F.max_pool2d(skip1, 2))  # (B, c2, H/2, W/2)
        skip3 = self.down3(F.max_pool2d(skip2, 2))  # (B, c3, H/4, W/4)
        skip4 = self.down4(F.max_pool2d(skip3, 2))  # (B, c4, H/8, W/8)
        x = attended(self.bottleneck(skip4, embedding), BOTTLENECK)  # (B, c4, H/8, W/8)
        x = attended(self.up4(torch.cat((x, skip4), dim=1)), 8)  # (B, c4, H/8, W/8)
        x = attended(self.up3(torch.cat((double(x), skip3), dim=1)), 4)  # (B, c3, H/4, W/4)
        x = attended(self.up2(torch.cat((double(x), skip2), dim=1)), 2)  # (B, c2, H/2, W/2)
        x = self.up1(torch.cat((double(x), skip1), dim=1))  # (B, c1, H, W)
        residual = self.residual(x).float()  # (B, 2, H, W)
        return Refined((start.ab + AB_LIMIT * residual).clamp(-AB_LIMIT, AB_LIMIT), residual, attention)

    def updates(self, batch: Batch) -> Iterator[Update]:
        """3.3, equation 1. Settings: "noise" and "attention", both True where a stage does not say otherwise."""
        options, reduce = self.options, REDUCTIONS[self.options.reduction]
        L, truth, start = batch.L, batch.ab, self._start(batch.L)
        if self.training and options.crop < 1:  # after the base, which errs otherwise on enlarged pictures
            place = random_places(len(L), options.crop, L.device)
            L, truth = crop(L, place), crop(truth, place)
            start = Start(crop(start.ab, place), tuple(crop(features, place) for features in start.features))
        t = torch.zeros(len(L), dtype=torch.long, device=L.device)
        noisy = start.ab / AB_LIMIT
        if batch.settings.get("noise", True):
            t = torch.randint(options.t_max + 1, t.shape, device=L.device)
            noisy = self.diffuse(noisy, t, torch.randn_like(noisy))
        refined = self._refine(L, start, noisy, t, batch.settings.get("attention", True))

        final, base, target = refined.ab / AB_LIMIT, start.ab / AB_LIMIT, truth / AB_LIMIT
        seen = (rgb(L, refined.ab), rgb(L, truth)) if options.output == "rgb" else (final, target)
        losses = {
            "residual": reduce(squared(refined.residual, target - base)),
            "output": reduce(squared(*seen)),
            "diversity": reduce(DIVERSITY[options.diversity](final, base, target)),
        }
        if self.vgg is not None:
            style_of = start.ab if options.style_of == "base" else truth
            losses |= appearance(self.vgg, L, refined.ab, truth, style_of, reduce)
        if refined.attention is not None:
            losses["attention"] = reduce(attention_error(refined.attention, ATTENDED[options.attention_target](target)))
        yield Update({name: options.weights[name] * loss for name, loss in losses.items() if options.weights[name]})

    def train(self, mode: bool = True) -> EnhancedUNet:
        super().train(mode)
        self.base.eval()  # the base is a constant, also in its BatchNorm statistics
        return self


class Bottleneck(nn.Module):
    """Two convolutions; an embedding scales and shifts the channels between them (FiLM, Perez 2018)."""

    def __init__(self, channels: int, fusion: str) -> None:
        super().__init__()
        self.scales = fusion == "film"
        self.enter = nn.Sequential(*normed_convolution(channels, channels))
        self.film = nn.Linear(EMBEDDING, 2 * channels)
        self.leave = nn.Sequential(nn.SiLU(), *normed_convolution(channels, channels), nn.SiLU())

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.film(embedding)[:, :, None, None].chunk(2, dim=1)  # (B, C, 1, 1) each
        x = self.enter(x)
        return self.leave((x * (1 + scale) if self.scales else x) + shift)


class SelfAttention(nn.Module):
    """Self-attention over the pixels of x (B, C, h, w), added to x through a projection that starts at zero.

    Its second result is the attention that each pixel receives, the mean over heads and queries, as
    float32 (B, 1, h, w) in 0..1. The loss needs it, hence the explicit attention matrix.
    """

    def __init__(self, channels: int, heads: int, teaches: str) -> None:
        super().__init__()
        self.heads, self.teaches = heads, teaches
        self.norm = GroupNorm(8, channels)
        self.query_key = nn.Conv2d(channels, 2 * channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        # Zero: a network trained without attention does not change when it is added. A gate, one number that all of
        # the block's learning had to pass, would hardly open.
        self.project = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        B, _, h, w = x.shape
        looked_at = self.norm(x if self.teaches == "trunk" else x.detach())
        query, key = self.query_key(looked_at).flatten(2).unflatten(1, (2, self.heads, -1)).unbind(dim=1)
        value = self.value(self.norm(x)).flatten(2).unflatten(1, (self.heads, -1))  # (B, heads, C / heads, h * w)
        scores = query.transpose(-2, -1) @ key / math.sqrt(query.shape[-2])
        weights = scores.float().softmax(dim=-1)  # (B, heads, h * w queries, h * w keys)
        seen = (value @ weights.transpose(-2, -1).to(value.dtype)).reshape(x.shape)
        received = weights.mean(dim=(1, 2)).view(B, 1, h, w) * (h * w)  # 1 where attention is even
        return x + self.project(seen), min_max(received)


class GroupNorm(nn.GroupNorm):
    """In float32 also under CPU autocast, as CUDA's has it: in bf16 it is coarse, and slower."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


# The 4th number of the color prior: ab (B, 2, H, W) -> (B,)
MAGNITUDES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "mean-chroma": lambda ab: chroma(ab).mean(dim=(1, 2, 3)),
    "rms": lambda ab: ab.square().sum(dim=1).mean(dim=(1, 2)).sqrt(),
    "literal": lambda ab: torch.linalg.vector_norm(ab, dim=(1, 2, 3)) / ab[0, 0].numel(),
}


def color_prior(ab: Tensor, magnitude: str) -> Tensor:
    """ab / 110 (B, 2, H, W) -> float32 (B, 4): mean a, mean b, sum of both deviations, and the magnitude."""
    mean = ab.mean(dim=(2, 3))
    deviation = ab.std(dim=(2, 3), correction=0).sum(dim=1)
    return torch.stack((mean[:, 0], mean[:, 1], deviation, MAGNITUDES[magnitude](ab)), dim=1)


def level(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions, as diffusion networks have them: (B, inputs, h, w) -> (B, outputs, h, w)."""
    first, second = normed_convolution(inputs, outputs), normed_convolution(outputs, outputs)
    return nn.Sequential(*first, nn.SiLU(), *second, nn.SiLU())


def normed_convolution(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), GroupNorm(8, outputs)


def zeroed(convolution: nn.Conv2d) -> nn.Conv2d:
    for parameter in convolution.parameters():
        nn.init.zeros_(parameter)
    return convolution


def double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")
