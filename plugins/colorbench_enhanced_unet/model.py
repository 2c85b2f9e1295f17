"""Y. Wang, C. Hu, G. Zhao: Beyond Black and White: Computer Vision Model for Automatic Image Colorization.

A frozen base colorizes; a U-Net sees L and the base's ab, noised, and predicts what the base got wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colorbench.contract import Batch, Update
from colorbench_enhanced_unet import VGG16
from colorbench_enhanced_unet.losses import (
    ATTENDED,
    DIVERSITY,
    REDUCTIONS,
    WEIGHTS,
    VGG16Features,
    appearance,
    attention_error,
    chroma,
    min_max,
    rgb,
    squared,
)

AB_LIMIT = 110.0  # Lab units; no color of sRGB is beyond
EMBEDDING = 128  # numbers that carry the timestep and the color prior, at every width
NOISE_STEPS = 1000  # of Ho, Jain and Abbeel 2020; the paper names none
# The 4th number of the color prior: ab (B, 2, H, W) -> (B,)
MAGNITUDES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "mean-chroma": lambda ab: chroma(ab).mean(dim=(1, 2, 3)),
    "rms": lambda ab: ab.square().sum(dim=1).mean(dim=(1, 2)).sqrt(),
    "literal": lambda ab: torch.linalg.vector_norm(ab, dim=(1, 2, 3)) / ab[0, 0].numel(),
}
STRIDES = (8, 4, 2)  # of the decoder's stages that attention can follow


@dataclass(frozen=True)
class Options:
    """What the paper leaves open, and the reason for each default. Raises ValueError on an unknown choice.

    What it sees
        sees: "L+ab", or "ab" for the noisy ab of the base alone, which is all that the text lists. But the lips and
            eyes that it wants to improve have no edges there.
        features: a submodule of the base, such as siggraph17's "model10", whose map at full resolution is an input
            too. "" for none: the text speaks of colors alone.
        ab_scale: Lab units that are 1 inside the network. The paper names none: 110, as in the base, since raw ab
            would make the residual and output losses outweigh the others ten thousand times.
    Noise
        noise: "linear" variances from 1e-4 to 0.02 (Ho, Jain and Abbeel 2020) or "cosine" (Nichol and Dhariwal 2021)
            over 1000 steps. Not said; linear is what "diffusion" meant first.
        t_max: in training the steps are uniform on 0..t_max, and 0 is no noise. "t can be set freely"; up to 50
            the noise stays below 19 Lab units, comparable with the error of a base.
        test_t: steps at test, unsaid: 0, since noise can only hide what the base knows. Otherwise every image gets
            the same fixed noise, so that the result stays deterministic.
        steps: how often at test the network refines, each time its last result. The paper stays with one, and
            names more as future work. Training is the same for any number of steps.
        The text lets the network predict "the residual or noise". It is the residual here, as in Table 1, and it is
        added to the clean ab of the base: whoever predicts the noise can at best give the base back.
    Prior
        prior: its 4th number, or "none" for no prior. "literal" is the printed ||AB||_2 / HW, which shrinks with
            growing images to a dead input. "mean-chroma", the mean over pixels, and "rms", its root mean square, are
            at any size what the text calls them, a "normalized color magnitude"; the mean is the simpler.
        prior_unit: Lab units that are 1 in the prior, unsaid. In the network's own unit two faces differ by 0.02, too
            little for the prior to be heard beside the timestep: 5, so that they differ by half a unit or more.
        prior_of: "base", its clean ab, as the text has it, or "noisy", what the network sees. The third number is
            the sum of both deviations, one number, as printed; they are those of a population, not of a sample.
        fusion: "film", by which timestep and prior scale and shift the bottleneck's channels, or "add", by which
            they only shift. Embeddings are "fused", the text says; film holds both.
    Attention
        attention: "decoder", "bottleneck" or "none". Section 3.2.3 prefers the decoder.
        attention_stride: behind which stage of the decoder, 8, 4 or 2 pixels to a cell. No stage is named: 8, since
            at 4 the attention matrix would be 16 times as large.
        heads: of the attention, unsaid: 4, of 32 channels at a quarter of the width, of 128 at the whole.
        attention_target: what its map is compared with. "chroma", the magnitude of the true color, is Table 1's
            "ColorMag"; "variation", its deviation in the neighborhood, the "high color variation" of its
            description. The map is the attention that a cell receives, the mean over heads and queries; both are
            stretched to 0..1, since neither's unit is said.
        attention_teaches: what learns from that comparison. "trunk", all that comes before the attention, is
            what one sum of losses does; but its gradient there far outweighs that of the residual, and the trunk
            learns where color is rather than which. "map", the queries and keys alone, is therefore the default,
            and departs from the text; `attention-teaches-trunk` and the literal variant have the other.
    Losses
        weights: replaces weights of equation 1, by name; 0 drops the loss.
        reduction: "mean" or "sum" over the elements of each squared norm. Printed are norms; but as sums the Gram and
            feature terms swamp the weights, which add up to 1.
        output: where the output error is measured. In "ab", clamped to -110..110, it equals the residual error as
            long as nothing is clamped: as printed the two are one loss of weight 0.6, and leaving either out only
            lowers it. "rgb" is what is looked at in the end.
        diversity: "penalty" is Table 1 to the letter, which holds the result back at the base; "reward" has the
            other sign, which overshoots; "hinge", the square of what the chroma falls short of the truth's, is the
            default since the text wants "more vibrant outputs".
        style_of: "base", as printed, or "truth": the printed one ties the style to what is to be improved.
        vgg: a file of torchvision's VGG16, whose kind of VGG the paper does not name; None for random features. The
            registered models take the one in the cache of torch.hub, if it is there. Nothing is downloaded.
        vgg_layers: those that are compared, unsaid: the last ReLU of each of the first four stages, counted
            equally, of pictures normalized as for ImageNet, which is the common choice.
    Images
        crop: in training, the least side of a random crop, as a share of the picture's, that is enlarged to the
            picture's size; 1 for none, since no augmentation is named.
    Size
        channels: of the four levels, to be multiplied by the width; unsaid. 64-128-256-512 is the common U-Net.
        mirrored: at test, the mean of the result and of that of the mirrored picture, for twice the cost. Not in the
            paper, and open to any model: what it gains is not the refiner's.

    What is left open and decided elsewhere
        The base, "simplified" or "pre-trained": the spec refines siggraph17 whole, trained by its own plugin, loss,
        optimizer and rate included, or read from published weights. The size of the images is the preset's. The
        stages, their images and rate: `schedule`; each begins with a fresh Adam and its own cosine, since the paper
        tells of separate trainings. Augmentation: the harness's horizontal flips, for every model.
        As printed, the refiner learns from what its base makes of images it was trained on, where its errors are
        smaller than at test: the ablation `unseen-images` is without that.
        Scores (the scale of MSE, the kind of SSIM, how PSNR is averaged, whose L the output has) are the protocol's;
        intervals and seeds the report's; which networks "CNN" and "GAN" are, their plugins'; the same images and
        size for all, the preset's; what becomes of lips, eyes and cool hues stands in details.
    Unsaid, too, and no option
        GroupNorm of 8 groups and SiLU, two convolutions to a level, as diffusion networks have them; prior and
        timestep summed before they are fused; the deviations of a population.
    """

    sees: str = "L+ab"
    features: str = ""
    ab_scale: float = 110.0
    noise: str = "linear"
    t_max: int = 50
    test_t: int = 0
    steps: int = 1
    prior: str = "mean-chroma"
    prior_unit: float = 5.0
    prior_of: str = "base"
    fusion: str = "film"
    attention: str = "decoder"
    attention_stride: int = 8
    heads: int = 4
    attention_target: str = "chroma"
    attention_teaches: str = "map"
    weights: Mapping[str, float] = field(default_factory=dict)
    reduction: str = "mean"
    output: str = "ab"
    diversity: str = "hinge"
    style_of: str = "base"
    vgg: str | Path | None = None
    vgg_layers: tuple[str, ...] = tuple(VGG16Features.STAGES)
    crop: float = 1.0
    channels: tuple[int, int, int, int] = (64, 128, 256, 512)
    mirrored: bool = False

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            given = getattr(self, name)
            if wrong := [one for one in (given if isinstance(given, tuple) else (given,)) if one not in choices]:
                known = ", ".join(map(str, choices))
                raise ValueError(f"enhanced-unet knows {name} {known}, not {', '.join(map(repr, wrong))}")
        if unknown := self.weights.keys() - WEIGHTS.keys():
            raise ValueError(f"enhanced-unet knows the losses {', '.join(WEIGHTS)}, not {', '.join(sorted(unknown))}")
        for name, least in (("steps", 1), ("heads", 1), ("ab_scale", 1e-6), ("prior_unit", 1e-6)):
            if getattr(self, name) < least:
                raise ValueError(f"enhanced-unet needs {name} of at least {least}, not {getattr(self, name)}")
        if not self.vgg_layers:
            raise ValueError("enhanced-unet needs one of vgg_layers at least; to do without, set both weights to 0")
        if not any({**WEIGHTS, **self.weights}.values()):
            raise ValueError("enhanced-unet needs one of the losses at least: all weights are 0")
        if not 0 < self.crop <= 1:
            raise ValueError(f"enhanced-unet needs crop above 0 and up to 1, not {self.crop}")
        for name in ("t_max", "test_t"):
            if not 0 <= getattr(self, name) <= NOISE_STEPS:
                raise ValueError(f"enhanced-unet needs {name} in 0..{NOISE_STEPS}, not {getattr(self, name)}")


CHOICES = {
    "sees": ("L+ab", "ab"),
    "noise": ("linear", "cosine"),
    "prior": (*MAGNITUDES, "none"),
    "prior_of": ("base", "noisy"),
    "fusion": ("film", "add"),
    "attention": ("decoder", "bottleneck", "none"),
    "attention_stride": STRIDES,
    "attention_target": tuple(ATTENDED),
    "attention_teaches": ("map", "trunk"),
    "reduction": tuple(REDUCTIONS),
    "output": ("ab", "rgb"),
    "diversity": tuple(DIVERSITY),
    "style_of": ("base", "truth"),
    "vgg_layers": tuple(VGG16Features.STAGES),
}


class Refined(NamedTuple):
    ab: Tensor  # float32 (B, 2, H, W) in Lab units, within -110..110
    residual: Tensor  # float32 (B, 2, H, W), ab / ab_scale
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
        self.weights = {**WEIGHTS, **options.weights}
        self.base = base.eval().requires_grad_(False)

        c1, c2, c3, c4 = (8 * max(1, round(channels * width / 8)) for channels in options.channels)
        seen = 3 if options.sees == "L+ab" else 2
        if options.features:
            seen += self._start(torch.zeros(1, 1, 16, 16)).features[0].shape[1]
        self.down1 = _level(seen, c1)
        self.down2 = _level(c1, c2)
        self.down3 = _level(c2, c3)
        self.down4 = _level(c3, c4)
        self.bottleneck = Bottleneck(c4, options.fusion)
        self.up4 = _level(c4 + c4, c4)
        self.up3 = _level(c4 + c3, c3)
        self.up2 = _level(c3 + c2, c2)
        self.up1 = _level(c2 + c1, c1)
        self.residual = nn.Conv2d(c1, 2, 3, padding=1)
        for parameter in self.residual.parameters():
            nn.init.zeros_(parameter)

        # Present in every variant, since the stages of the schedule freeze it by name.
        self.attention: nn.Module = nn.Identity()
        if options.attention != "none":
            place = STRIDES.index(options.attention_stride) if options.attention == "decoder" else 0
            self.attention = SelfAttention((c4, c3, c2)[place], options.heads, options.attention_teaches)
        self.prior = None
        if options.prior != "none":
            self.prior = nn.Sequential(nn.Linear(4, 64), nn.SiLU(), nn.Linear(64, EMBEDDING))
        self.register_buffer("alpha_bar", noise_schedule(options.noise), persistent=False)

        self.vgg = None
        self.notes: list[str] = []
        if self.weights["perceptual"] or self.weights["style"]:
            self.vgg = VGG16Features(options.vgg, width, options.vgg_layers)
            if not options.vgg:
                self.notes.append(
                    "The perceptual and style losses compare fixed random features: the weights of VGG16 "
                    f"({VGG16}) were neither given nor in the cache of torch.hub."
                )

    def train(self, mode: bool = True) -> EnhancedUNet:
        super().train(mode)
        self.base.eval()  # the base is a constant, also in its BatchNorm statistics
        return self

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

    def updates(self, batch: Batch) -> Iterator[Update]:
        """Equation 1. Settings: "noise" and "attention", both True where a stage does not say otherwise."""
        options, scale, reduce = self.options, self.options.ab_scale, REDUCTIONS[self.options.reduction]
        L, truth = batch.L, batch.ab
        start = self._start(L)
        if self.training and options.crop < 1:  # after the base, which errs otherwise on enlarged pictures
            place = random_places(len(L), options.crop, L.device)
            L, truth = crop(L, place), crop(truth, place)
            start = Start(crop(start.ab, place), tuple(crop(features, place) for features in start.features))
        t = torch.zeros(len(L), dtype=torch.long, device=L.device)
        noisy = start.ab / scale
        if batch.settings.get("noise", True):
            t = torch.randint(options.t_max + 1, t.shape, device=L.device)
            noisy = self.diffuse(noisy, t, torch.randn_like(noisy))
        refined = self._refine(L, start, noisy, t, attend=batch.settings.get("attention", True))

        final, base, target = refined.ab / scale, start.ab / scale, truth / scale
        in_rgb = options.output == "rgb"
        losses = {
            "residual": reduce(squared(refined.residual, target - base)),
            "output": reduce(squared(rgb(L, refined.ab), rgb(L, truth)) if in_rgb else squared(final, target)),
            "diversity": reduce(DIVERSITY[options.diversity](final, base, target)),
        }
        if self.vgg is not None:
            style_of = start.ab if options.style_of == "base" else truth
            losses |= appearance(self.vgg, L, refined.ab, truth, style_of, reduce)
        if refined.attention is not None:
            losses["attention"] = reduce(attention_error(refined.attention, ATTENDED[options.attention_target](target)))
        yield Update({name: self.weights[name] * loss for name, loss in losses.items() if self.weights[name]})

    def diffuse(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x (B, 2, H, W), ab / ab_scale, after t (B,) steps of standard normal noise; t = 0 leaves it as it is."""
        kept = self.alpha_bar[t][:, None, None, None]
        return kept.sqrt() * x + (1 - kept).sqrt() * noise

    def _colorize(self, L: Tensor) -> tuple[Tensor, Tensor | None]:
        start, maps = self._start(L), []
        for _ in range(self.options.steps):
            refined = self._refine_at_test(L, start)
            start = start._replace(ab=refined.ab)
            maps.append(refined.attention)
        return start.ab, maps[0]

    @torch.no_grad()
    def _start(self, L: Tensor) -> Start:
        if L.shape[-2] % 8 or L.shape[-1] % 8:
            raise ValueError(f"enhanced-unet needs a height and width divisible by 8, not {tuple(L.shape[-2:])}")
        if not self.options.features:
            return Start(self.base(L), ())
        seen: list[Tensor] = []
        module = self.base.get_submodule(self.options.features)
        hook = module.register_forward_hook(lambda module, inputs, output: seen.append(output))
        try:
            return Start(self.base(L), tuple(seen))
        finally:
            hook.remove()

    def _refine_at_test(self, L: Tensor, start: Start) -> Refined:
        t = torch.full((len(L),), self.options.test_t, device=L.device)
        noisy = start.ab / self.options.ab_scale
        if self.options.test_t:
            # Drawn on the CPU, one field for all: a result depends neither on the device nor on its batch.
            noise = torch.randn(1, 2, *L.shape[-2:], generator=torch.Generator().manual_seed(0))
            noisy = self.diffuse(noisy, t, noise.to(L.device))
        return self._refine(L, start, noisy, t, attend=True)

    def _refine(self, L: Tensor, start: Start, noisy: Tensor, t: Tensor, *, attend: bool) -> Refined:
        """`noisy` is what the U-Net sees of `start.ab`; the sum takes that itself, else noise leaks."""
        options = self.options
        embedding = timestep_embedding(t)  # (B, 128)
        if self.prior is not None:
            described = start.ab / options.ab_scale if options.prior_of == "base" else noisy
            in_units = color_prior(described, options.prior) * (options.ab_scale / options.prior_unit)
            embedding = embedding + self.prior(in_units)
        place = options.attention if attend else "none"
        stride = options.attention_stride if place == "decoder" else None
        attention = None

        luminance = ((L - 50) / 100,) if options.sees == "L+ab" else ()
        x = torch.cat((*luminance, noisy, *start.features), dim=1)  # (B, 3 or 2 and the features, H, W)
        skip1 = self.down1(x)  # (B, c1, H, W)
        skip2 = self.down2(F.max_pool2d(skip1, 2))  # (B, c2, H/2, W/2)
        skip3 = self.down3(F.max_pool2d(skip2, 2))  # (B, c3, H/4, W/4)
        skip4 = self.down4(F.max_pool2d(skip3, 2))  # (B, c4, H/8, W/8)
        x = self.bottleneck(skip4, embedding)  # (B, c4, H/8, W/8)
        if place == "bottleneck":
            x, attention = self.attention(x)
        x = self.up4(torch.cat((x, skip4), dim=1))  # (B, c4, H/8, W/8)
        if stride == 8:
            x, attention = self.attention(x)
        x = self.up3(torch.cat((_double(x), skip3), dim=1))  # (B, c3, H/4, W/4)
        if stride == 4:
            x, attention = self.attention(x)
        x = self.up2(torch.cat((_double(x), skip2), dim=1))  # (B, c2, H/2, W/2)
        if stride == 2:
            x, attention = self.attention(x)
        x = self.up1(torch.cat((_double(x), skip1), dim=1))  # (B, c1, H, W)
        residual = self.residual(x).float()  # (B, 2, H, W)
        return Refined((start.ab + options.ab_scale * residual).clamp(-AB_LIMIT, AB_LIMIT), residual, attention)


class Bottleneck(nn.Module):
    """Two convolutions; an embedding scales and shifts the channels between them (FiLM, Perez 2018)."""

    def __init__(self, channels: int, fusion: str) -> None:
        super().__init__()
        self.scales = fusion == "film"
        self.enter = nn.Sequential(*_normed_convolution(channels, channels))
        self.film = nn.Linear(EMBEDDING, 2 * channels)
        self.leave = nn.Sequential(nn.SiLU(), *_normed_convolution(channels, channels), nn.SiLU())

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.film(embedding)[:, :, None, None].chunk(2, dim=1)  # (B, C, 1, 1) each
        x = self.enter(x)
        return self.leave((x * (1 + scale) if self.scales else x) + shift)


class GroupNorm(nn.GroupNorm):
    """Of 8 groups. In float32 also under CPU autocast, as CUDA's has it: in bf16 it is coarse, and slower."""

    def __init__(self, channels: int) -> None:
        super().__init__(8, channels)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


class SelfAttention(nn.Module):
    """Self-attention over the pixels of x (B, C, h, w), added to x through a projection that starts at zero.

    Its second result is the attention that each pixel receives, the mean over heads and queries, as
    float32 (B, 1, h, w) in 0..1. The loss needs it, hence the explicit attention matrix.
    """

    def __init__(self, channels: int, heads: int, teaches: str) -> None:
        super().__init__()
        self.heads, self.teaches = heads, teaches
        self.norm = GroupNorm(channels)
        self.query_key = nn.Conv2d(channels, 2 * channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        # Zero: a network trained without attention does not change when it is added. A gate, one number that all of
        # the block's learning had to pass, would hardly open.
        self.project = nn.Conv2d(channels, channels, 1)
        for parameter in self.project.parameters():
            nn.init.zeros_(parameter)

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


def color_prior(ab: Tensor, magnitude: str) -> Tensor:
    """ab / ab_scale (B, 2, H, W) -> float32 (B, 4): mean a, mean b, sum of both deviations, and the magnitude."""
    mean = ab.mean(dim=(2, 3))
    deviation = ab.std(dim=(2, 3), correction=0).sum(dim=1)
    return torch.stack((mean[:, 0], mean[:, 1], deviation, MAGNITUDES[magnitude](ab)), dim=1)


def timestep_embedding(t: Tensor) -> Tensor:
    """t (B,) -> float32 (B, 128): sines and cosines at 64 frequencies from 1 down to 1/10,000."""
    half = EMBEDDING // 2
    frequencies = torch.exp(torch.arange(half, device=t.device) * (-math.log(10_000) / (half - 1)))
    angles = t[:, None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=1)


def noise_schedule(kind: str) -> Tensor:
    """float32 (1001,): the share of the signal's variance left after t steps, 1 at t = 0."""
    if kind == "cosine":
        angles = (torch.linspace(0, 1, NOISE_STEPS + 1, dtype=torch.float64) + 0.008) / 1.008 * (math.pi / 2)
        return (angles.cos() / angles[0].cos()).square().float()
    betas = torch.linspace(1e-4, 0.02, NOISE_STEPS, dtype=torch.float64)
    return F.pad((1 - betas).cumprod(dim=0), (1, 0), value=1.0).float()


def _level(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        *_normed_convolution(inputs, outputs), nn.SiLU(), *_normed_convolution(outputs, outputs), nn.SiLU()
    )


def _normed_convolution(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), GroupNorm(outputs)


def random_places(count: int, least: float, device: torch.device) -> Tensor:
    """For each of so many pictures a part with `least` to 1 of its sides, as an affine map (B, 2, 3)."""
    side, x, y = torch.rand(3, count, device=device)
    side = least + (1 - least) * side
    zero = torch.zeros_like(side)
    rows = (side, zero, (2 * x - 1) * (1 - side)), (zero, side, (2 * y - 1) * (1 - side))
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def crop(pictures: Tensor, places: Tensor) -> Tensor:
    """Those parts of pictures (B, C, H, W), enlarged to the size of the whole."""
    with torch.autocast(pictures.device.type, enabled=False):  # in bf16 the places of the samples are coarse
        grid = F.affine_grid(places, [*pictures.shape], align_corners=False)
        return F.grid_sample(pictures.float(), grid, padding_mode="border", align_corners=False)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")
