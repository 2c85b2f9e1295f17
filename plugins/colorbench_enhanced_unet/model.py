"""Y. Wang, C. Hu, G. Zhao: Beyond Black and White: Computer Vision Model for Automatic Image Colorization.

A frozen base colorizes; a U-Net sees L and the base's ab, noised, and predicts what the base got wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colorbench.contract import Batch, Update
from colorbench_enhanced_unet.losses import (
    DIVERSITY,
    WEIGHTS,
    VGG16Features,
    appearance,
    attention_loss,
    chroma,
    min_max,
)

AB_SCALE = 110.0  # ab / 110 is in -1..1 as in the base; with raw ab the printed loss weights make no sense
EMBEDDING = 128  # numbers that carry the timestep and the color prior, at every width
HEADS = 4
NOISE_STEPS = 1000  # the linear schedule of Ho, Jain and Abbeel 2020; the paper names none
CHOICES = {
    "attention": ("decoder", "bottleneck", "none"),
    "prior": ("mean-chroma", "literal", "none"),
    "diversity": tuple(DIVERSITY),
}


@dataclass(frozen=True)
class Options:
    """What the paper leaves open, and the reason for each default. Raises ValueError on an unknown choice.

    attention: "decoder", "bottleneck" or "none". Section 3.2.3 prefers the decoder and names no stage of it:
        H/8, since at H/4 the attention matrix would be 16 times as large.
    prior: the 4th number of the color prior, or "none" for no prior. "literal" is the printed ||AB||_2 / HW,
        which shrinks with growing images to a dead input; "mean-chroma", the mean over pixels, is at any size
        what its name says, a "normalized color magnitude".
    t_max: noise steps in training are uniform on 0..t_max, and 0 is no noise. "t can be set freely"; up to 50
        the noise stays below 19 Lab units, comparable with the error of a base.
    test_t: noise steps at test, unsaid: 0, since noise can only hide what the base knows. Otherwise every
        image gets the same fixed noise, so that the result stays deterministic.
    steps: how often at test the network refines, each time its last result. The paper stays with one.
    sees_luminance: whether L is an input beside the noisy ab. The text lists ab alone, in which the lips and
        eyes that it wants to improve have no edges.
    diversity: "penalty" is Table 1 to the letter, which holds the result back at the base; "reward" has the
        other sign, which overshoots; "hinge" asks for no less chroma than the truth's, and is the default
        since the text wants "more vibrant outputs".
    weights: replaces weights of equation 1, by name; 0 drops the loss.
    vgg: a file of torchvision's VGG16 for the perceptual and style losses, whose VGG the paper does not name.
        None looks in the cache of torch.hub.
    """

    attention: str = "decoder"
    prior: str = "mean-chroma"
    t_max: int = 50
    test_t: int = 0
    steps: int = 1
    sees_luminance: bool = True
    diversity: str = "hinge"
    weights: Mapping[str, float] = field(default_factory=dict)
    vgg: str | None = None

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"enhanced-unet knows {name} {', '.join(choices)}, not {getattr(self, name)!r}")
        if unknown := self.weights.keys() - WEIGHTS.keys():
            raise ValueError(f"enhanced-unet knows the losses {', '.join(WEIGHTS)}, not {', '.join(sorted(unknown))}")
        for name in ("t_max", "test_t"):
            if not 0 <= getattr(self, name) <= NOISE_STEPS:
                raise ValueError(f"enhanced-unet needs {name} in 0..{NOISE_STEPS}, not {getattr(self, name)}")


class Refined(NamedTuple):
    ab: Tensor  # float32 (B, 2, H, W) in Lab units, within -110..110
    residual: Tensor  # float32 (B, 2, H, W), ab / 110
    attention: Tensor | None  # float32 (B, 1, H/8, W/8) in 0..1; None where there was no attention


class EnhancedUNet(nn.Module):
    """The base's ab plus the residual of a U-Net of four levels, 64-128-256-512 channels times `width`.

    Untrained it gives the base's ab to the bit. Raises ValueError without a base.
    """

    alpha_bar: Tensor

    def __init__(self, width: float, base: nn.Module | None, options: Options) -> None:
        super().__init__()
        if base is None:
            raise ValueError("enhanced-unet refines the colors of another model: it needs that model's network as base")
        self.options = options
        self.weights = {**WEIGHTS, **options.weights}
        self.base = base.eval().requires_grad_(False)

        c1, c2, c3, c4 = (8 * max(1, round(channels * width / 8)) for channels in (64, 128, 256, 512))
        self.down1 = _level(3 if options.sees_luminance else 2, c1)
        self.down2 = _level(c1, c2)
        self.down3 = _level(c2, c3)
        self.down4 = _level(c3, c4)
        self.bottleneck = Bottleneck(c4)
        self.up4 = _level(c4 + c4, c4)
        self.up3 = _level(c4 + c3, c3)
        self.up2 = _level(c3 + c2, c2)
        self.up1 = _level(c2 + c1, c1)
        self.residual = nn.Conv2d(c1, 2, 3, padding=1)
        for parameter in self.residual.parameters():
            nn.init.zeros_(parameter)

        # Present in every variant, since the stages of the schedule freeze it by name.
        self.attention = SelfAttention(c4) if options.attention != "none" else nn.Identity()
        self.prior = None
        if options.prior != "none":
            self.prior = nn.Sequential(nn.Linear(4, 64), nn.SiLU(), nn.Linear(64, EMBEDDING))
        self.register_buffer("alpha_bar", noise_schedule(), persistent=False)

        self.vgg = None
        self.notes: list[str] = []
        if self.weights["perceptual"] or self.weights["style"]:
            self.vgg = VGG16Features(options.vgg, width)
            if not self.vgg.trained:
                self.notes.append(
                    "The perceptual and style losses compare fixed random features: the weights of VGG16 "
                    f"({VGG16Features.FILE}) were neither given nor in the cache of torch.hub."
                )

    def train(self, mode: bool = True) -> EnhancedUNet:
        super().train(mode)
        self.base.eval()  # the base is a constant, also in its BatchNorm statistics
        return self

    def forward(self, L: Tensor) -> Tensor:
        """L (B, 1, H, W) in 0..100 -> ab float32 (B, 2, H, W) in Lab units.

        Raises ValueError where H or W is no multiple of 8.
        """
        ab = self._start(L)
        for _ in range(self.options.steps):
            ab = self._refine_at_test(L, ab).ab
        return ab

    @torch.no_grad()
    def attention_map(self, L: Tensor) -> Tensor:
        """Where the first refinement of L (B, 1, H, W) looks: float32 (B, 1, H/8, W/8) in 0..1.

        Raises ValueError on a network built without attention.
        """
        attention = self._refine_at_test(L, self._start(L)).attention
        if attention is None:
            raise ValueError("this enhanced-unet was built without attention: it has no attention map")
        return attention

    def updates(self, batch: Batch) -> Iterator[Update]:
        """Equation 1. Settings: "noise" and "attention", both True where a stage does not say otherwise."""
        L, truth, base = batch.L, batch.ab, self._start(batch.L)
        t = torch.zeros(len(L), dtype=torch.long, device=L.device)
        noisy = base / AB_SCALE
        if batch.settings.get("noise", True):
            t = torch.randint(self.options.t_max + 1, t.shape, device=L.device)
            noisy = self.diffuse(noisy, t, torch.randn_like(noisy))
        refined = self._refine(L, base, noisy, t, attend=batch.settings.get("attention", True))

        final, start, target = refined.ab / AB_SCALE, base / AB_SCALE, truth / AB_SCALE
        losses = {
            # The same number as the next as long as nothing is clamped: so the paper defines the two.
            "residual": F.mse_loss(refined.residual, target - start),
            "output": F.mse_loss(final, target),
            "diversity": DIVERSITY[self.options.diversity](final, start, target),
        }
        if self.vgg is not None:
            losses |= appearance(self.vgg, L, refined.ab, base, truth)
        if refined.attention is not None:
            losses["attention"] = attention_loss(refined.attention, target)
        yield Update({name: self.weights[name] * loss for name, loss in losses.items() if self.weights[name]})

    def diffuse(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x (B, 2, H, W), ab / 110, after t (B,) steps of standard normal noise; t = 0 leaves it as it is."""
        kept = self.alpha_bar[t][:, None, None, None]
        return kept.sqrt() * x + (1 - kept).sqrt() * noise

    @torch.no_grad()
    def _start(self, L: Tensor) -> Tensor:
        if L.shape[-2] % 8 or L.shape[-1] % 8:
            raise ValueError(f"enhanced-unet needs a height and width divisible by 8, not {tuple(L.shape[-2:])}")
        return self.base(L)

    def _refine_at_test(self, L: Tensor, ab: Tensor) -> Refined:
        t = torch.full((len(L),), self.options.test_t, device=L.device)
        noisy = ab / AB_SCALE
        if self.options.test_t:
            # Drawn on the CPU, one field for all: a result depends neither on the device nor on its batch.
            noise = torch.randn(1, 2, *L.shape[-2:], generator=torch.Generator().manual_seed(0))
            noisy = self.diffuse(noisy, t, noise.to(L.device))
        return self._refine(L, ab, noisy, t, attend=True)

    def _refine(self, L: Tensor, ab: Tensor, noisy: Tensor, t: Tensor, *, attend: bool) -> Refined:
        """`noisy` is what the U-Net sees of `ab`; prior and sum take `ab` itself, else noise leaks."""
        embedding = timestep_embedding(t)  # (B, 128)
        if self.prior is not None:
            embedding = embedding + self.prior(color_prior(ab / AB_SCALE, self.options.prior))
        place = self.options.attention if attend else "none"
        attention = None

        x = torch.cat(((L - 50) / 100, noisy), dim=1) if self.options.sees_luminance else noisy  # (B, 3 or 2, H, W)
        skip1 = self.down1(x)  # (B, c1, H, W)
        skip2 = self.down2(F.max_pool2d(skip1, 2))  # (B, c2, H/2, W/2)
        skip3 = self.down3(F.max_pool2d(skip2, 2))  # (B, c3, H/4, W/4)
        skip4 = self.down4(F.max_pool2d(skip3, 2))  # (B, c4, H/8, W/8)
        x = self.bottleneck(skip4, embedding)  # (B, c4, H/8, W/8)
        if place == "bottleneck":
            x, attention = self.attention(x)
        x = self.up4(torch.cat((x, skip4), dim=1))  # (B, c4, H/8, W/8)
        if place == "decoder":
            x, attention = self.attention(x)
        x = self.up3(torch.cat((_double(x), skip3), dim=1))  # (B, c3, H/4, W/4)
        x = self.up2(torch.cat((_double(x), skip2), dim=1))  # (B, c2, H/2, W/2)
        x = self.up1(torch.cat((_double(x), skip1), dim=1))  # (B, c1, H, W)
        residual = self.residual(x).float()  # (B, 2, H, W)
        return Refined((ab + AB_SCALE * residual).clamp(-AB_SCALE, AB_SCALE), residual, attention)


class Bottleneck(nn.Module):
    """Two convolutions; an embedding scales and shifts the channels between them (FiLM, Perez 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(*_normed_convolution(channels, channels))
        self.film = nn.Linear(EMBEDDING, 2 * channels)
        self.leave = nn.Sequential(nn.SiLU(), *_normed_convolution(channels, channels), nn.SiLU())

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.film(embedding)[:, :, None, None].chunk(2, dim=1)  # (B, C, 1, 1) each
        return self.leave(self.enter(x) * (1 + scale) + shift)


class GroupNorm(nn.GroupNorm):
    """Of 8 groups. In float32 also under CPU autocast, as CUDA's has it: in bf16 it is coarse, and slower."""

    def __init__(self, channels: int) -> None:
        super().__init__(8, channels)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


class SelfAttention(nn.Module):
    """Self-attention over the pixels of x (B, C, h, w), added to x through a gate that starts shut.

    Its second result is the attention that each pixel receives, the mean over heads and queries, as
    float32 (B, 1, h, w) in 0..1. The loss needs it, hence the explicit attention matrix.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = GroupNorm(channels)
        self.query_key_value = nn.Conv2d(channels, 3 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)
        # Shut: a network trained without attention does not change when it is added.
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        B, _, h, w = x.shape
        heads = self.query_key_value(self.norm(x)).flatten(2).unflatten(1, (3, HEADS, -1))
        query, key, value = heads.unbind(dim=1)  # (B, HEADS, C / HEADS, h * w) each
        scores = query.transpose(-2, -1) @ key / math.sqrt(query.shape[-2])
        weights = scores.float().softmax(dim=-1)  # (B, HEADS, h * w queries, h * w keys)
        seen = (value @ weights.transpose(-2, -1).to(value.dtype)).reshape(x.shape)
        received = weights.mean(dim=(1, 2)).view(B, 1, h, w) * (h * w)  # 1 where attention is even
        return x + self.gate * self.project(seen), min_max(received)


def color_prior(ab: Tensor, magnitude: str) -> Tensor:
    """ab / 110 (B, 2, H, W) -> float32 (B, 4): mean a, mean b, sum of both deviations, and the magnitude."""
    mean = ab.mean(dim=(2, 3))
    deviation = ab.std(dim=(2, 3), correction=0).sum(dim=1)
    if magnitude == "literal":
        size = torch.linalg.vector_norm(ab, dim=(1, 2, 3)) / ab[0, 0].numel()
    else:
        size = chroma(ab).mean(dim=(1, 2, 3))
    return torch.stack((mean[:, 0], mean[:, 1], deviation, size), dim=1)


def timestep_embedding(t: Tensor) -> Tensor:
    """t (B,) -> float32 (B, 128): sines and cosines at 64 frequencies from 1 down to 1/10,000."""
    half = EMBEDDING // 2
    frequencies = torch.exp(torch.arange(half, device=t.device) * (-math.log(10_000) / (half - 1)))
    angles = t[:, None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=1)


def noise_schedule() -> Tensor:
    """float32 (1001,): the share of the signal's variance left after t steps, 1 at t = 0."""
    betas = torch.linspace(1e-4, 0.02, NOISE_STEPS, dtype=torch.float64)
    return F.pad((1 - betas).cumprod(dim=0), (1, 0), value=1.0).float()


def _level(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        *_normed_convolution(inputs, outputs), nn.SiLU(), *_normed_convolution(outputs, outputs), nn.SiLU()
    )


def _normed_convolution(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), GroupNorm(outputs)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")
