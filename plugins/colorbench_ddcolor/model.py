"""X. Kang, T. Yang, W. Ouyang, P. Ren, L. Li, X. Xie: DDColor: Towards Photo-Realistic Image Colorization via Dual
Decoders, ICCV 2023, in the layers and with the training settings of the authors' release.

The encoder is timm's ConvNeXt. `published.py` maps the names of the released files to those used here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

import timm
import torch
import torch.nn.functional as F
from colorbench_layers.spectral import Critic, scaled, spectral
from colorbench_layers.vgg import FeatureLoss, ImageNet
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn

from colorbench.color import lab_to_rgb
from colorbench.contract import Batch, Update
from colorbench.harness.networks import held
from colorbench_ddcolor.losses import SEEN, colorfulness_error, saturated
from colorbench_ddcolor.options import ENCODERS, Options

QUERIES = 100
LAYERS = 9  # of the color decoder, three for each scale
HEADS = 8  # which every channel count is a multiple of
STRIDE = 32  # of the encoder
L1_WEIGHT, PERCEPTUAL_WEIGHT = 0.1, 5.0  # beside an adversarial loss of weight 1; the L1 error is in Lab units
LARGEST_AB = 128.0  # no color of sRGB is beyond -108..99

RANDOM_FEATURES = (
    "its perceptual loss compares random features, since no file of torchvision's VGG16-BN was given; "
    "the paper's are trained on ImageNet"
)
UNTRAINED_ENCODER = "its encoder starts from random weights when it is trained here; the paper's from ImageNet-22k"


class DDColor(nn.Module):
    """The colorizer and its discriminator. `width` multiplies every channel count but those of input and output."""

    unpublished = ("discriminator",)

    def __init__(self, width: float, size: int, options: Options) -> None:
        super().__init__()
        self.generator = Generator(options.encoder, width)
        self.discriminator = Critic(scaled(64, width), size, partial(nn.ReLU, inplace=True))
        self.perceptual = FeatureLoss(SEEN, options.vgg, width)
        self.colorfulness_weight = options.colorfulness_loss
        self.notes = [UNTRAINED_ENCODER] + ([] if options.vgg else [RANDOM_FEATURES])

    def forward(self, L: Tensor) -> Tensor:
        """L (B, 1, H, W) in 0..100 -> ab float32 (B, 2, H, W) in Lab units, within -128..128.

        Raises ValueError where H or W is no multiple of 32.
        """
        return self.generator(L).clamp(-LARGEST_AB, LARGEST_AB)

    def updates(self, batch: Batch) -> Iterator[Update]:
        ab = self.generator(batch.L)
        rgb = lab_to_rgb(torch.cat((batch.L, ab), dim=1))
        truth = saturated(lab_to_rgb(torch.cat((batch.L, batch.ab), dim=1)))
        with held(self.discriminator):
            judged = self.discriminator(rgb)
        losses = {
            "l1": L1_WEIGHT * F.l1_loss(ab, batch.ab),
            "perceptual": PERCEPTUAL_WEIGHT * self.perceptual(*map(self.generator.normalized, (rgb, truth))),
            "adversarial": _verdict(judged, real=True),
        }
        if self.colorfulness_weight:
            losses["colorfulness"] = self.colorfulness_weight * colorfulness_error(rgb)
        yield Update(losses, player="generator")

        real, fake = self.discriminator(torch.cat((truth, rgb.detach()))).chunk(2)
        yield Update({"real": _verdict(real, real=True), "fake": _verdict(fake, real=False)}, player="discriminator")


class Generator(nn.Module):
    """L (B, 1, H, W) in 0..100 -> ab float32 (B, 2, H, W) in Lab units."""

    def __init__(self, encoder: str, width: float) -> None:
        super().__init__()
        depths, channels = ENCODERS[encoder]
        dims = [scaled(count, width) for count in channels]
        c256, c512 = scaled(256, width), scaled(512, width)
        self.encoder = timm.create_model("convnext_tiny", features_only=True, depths=depths, dims=dims)
        self.norms = nn.ModuleList(LayerNorm2d(dim) for dim in dims)
        self.pixel_decoder = nn.ModuleList(
            (
                UpBlock(dims[3], dims[2], c512),  # H/16
                UpBlock(c512, dims[1], c512),  # H/8
                UpBlock(c512, dims[0], c256),  # H/4
            )
        )
        self.last_up = Upsample(c256, c256, scale=4, batch_norm=False)  # H
        self.color_decoder = ColorDecoder((c512, c512, c256), c256, scaled(2048, width))
        self.refine = spectral(nn.Conv2d(QUERIES + 3, 2, 1))
        self.normalized = ImageNet()

    def forward(self, L: Tensor) -> Tensor:
        if L.shape[-2] % STRIDE or L.shape[-1] % STRIDE:
            sides = f"{L.shape[-2]} x {L.shape[-1]}"
            raise ValueError(f"ddcolor needs a height and width that are multiples of {STRIDE}, not {sides}")
        grey = lab_to_rgb(torch.cat((L, L.new_zeros(len(L), 2, *L.shape[2:])), dim=1))
        x = self.normalized(grey)

        maps = [norm(map) for norm, map in zip(self.norms, self.encoder(x), strict=True)]  # H/4, H/8, H/16, H/32
        up, scales = maps.pop(), []
        for block in self.pixel_decoder:
            up = block(up, maps.pop())
            scales.append(up)
        pixels = self.last_up(up)  # (B, 256, H, W)
        colors = self.color_decoder(scales)  # (B, 100, 256)
        scores = torch.einsum("bqc,bchw->bqhw", colors, pixels)  # where each color is
        return self.refine(torch.cat((scores, x), dim=1)).float()


class UpBlock(nn.Module):
    """The pixel decoder's stage: features (B, below, H, W) and the encoder's (B, skip, 2H, 2W) -> (B, out, 2H, 2W)."""

    def __init__(self, below: int, skip: int, out: int) -> None:
        super().__init__()
        self.up = Upsample(below, out, scale=2, batch_norm=True)
        self.norm = nn.BatchNorm2d(skip)
        nn.init.constant_(self.norm.bias, 1e-3)
        self.conv = nn.Sequential(
            spectral(nn.Conv2d(out + skip, out, 3, padding=1, bias=False)),
            nn.ReLU(inplace=True),
            nn.BatchNorm2d(out),
        )

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        return self.conv(F.relu(torch.cat((self.up(below), self.norm(skip)), dim=1)))


class Upsample(nn.Module):
    """Pixel shuffle (Shi et al. 2016), first all pixels of a cell alike (Aitken et al. 2017), and a blur over 2 x 2."""

    def __init__(self, inputs: int, outputs: int, scale: int, batch_norm: bool) -> None:
        super().__init__()
        self.scale = scale
        conv = nn.Conv2d(inputs, outputs * scale**2, 1, bias=not batch_norm)
        self.conv = nn.Sequential(spectral(conv, alike=scale**2))
        if batch_norm:
            self.conv.append(nn.BatchNorm2d(outputs * scale**2))

    def forward(self, x: Tensor) -> Tensor:
        x = F.pixel_shuffle(F.relu(self.conv(x)), self.scale)
        return F.avg_pool2d(F.pad(x, (1, 0, 1, 0), mode="replicate"), 2, stride=1)


class ColorDecoder(nn.Module):
    """Three maps of the pixel decoder, coarse to fine -> an embedding of each of the learned colors, (B, 100, dim)."""

    def __init__(self, inputs: Sequence[int], dim: int, hidden: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(_projection(channels, dim) for channels in inputs)
        self.level = nn.Parameter(torch.randn(len(inputs), dim))
        self.query = nn.Parameter(torch.randn(QUERIES, dim))
        self.query_position = nn.Parameter(torch.randn(QUERIES, dim))
        self.layers = nn.ModuleList(ColorLayer(dim, hidden) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(dim)
        self.embed = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(inplace=True), nn.Linear(dim, dim), nn.ReLU(inplace=True), nn.Linear(dim, dim)
        )

    def forward(self, scales: Sequence[Tensor]) -> Tensor:
        pixels, positions = [], []  # (B, h * w, dim) and (1, h * w, dim) of each scale
        for level, (projection, scale) in enumerate(zip(self.projections, scales, strict=True)):
            pixels.append(projection(scale).flatten(2).mT + self.level[level])
            positions.append(position_encoding(scale, pixels[-1].shape[2]))
        queries = self.query.expand(len(pixels[0]), -1, -1)
        for index, layer in enumerate(self.layers):
            level = index % len(pixels)
            queries = layer(queries, self.query_position, pixels[level], positions[level])
        return self.embed(self.norm(queries))


class ColorLayer(nn.Module):
    """The colors look at the pixels of one scale, then at each other; each step is added and normalized."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.cross, self.cross_norm = Attention(dim), nn.LayerNorm(dim)
        self.own, self.own_norm = Attention(dim), nn.LayerNorm(dim)
        wide, back = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.feed, self.feed_norm = nn.Sequential(wide, nn.ReLU(inplace=True), back), nn.LayerNorm(dim)
        for linear in (wide, back):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, queries: Tensor, query_position: Tensor, pixels: Tensor, position: Tensor) -> Tensor:
        """queries (B, 100, dim) and pixels (B, h * w, dim), with what is added for their places -> (B, 100, dim)."""
        seen = self.cross(queries + query_position, pixels + position, pixels)
        queries = self.cross_norm(queries + seen)
        placed = queries + query_position
        queries = self.own_norm(queries + self.own(placed, placed, queries))
        return self.feed_norm(queries + self.feed(queries))


class Attention(nn.Module):
    """Attention of 8 heads (Vaswani et al. 2017): query (B, N, dim), key and value (B, M, dim) -> (B, N, dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        for linear in (self.query, self.key, self.value, self.out):
            # Torch's own layer, which the authors use, draws the first three as one matrix (3 dim, dim).
            nn.init.xavier_uniform_(linear.weight, gain=1 if linear is self.out else 0.5**0.5)
            nn.init.zeros_(linear.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        split = (self.query(query), self.key(key), self.value(value))
        heads = (x.unflatten(2, (HEADS, -1)).transpose(1, 2) for x in split)  # (B, heads, N or M, dim / heads)
        return self.out(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))


def position_encoding(pixels: Tensor, dim: int) -> Tensor:
    """Sines and cosines of the row, then of the column, each up to 2 pi: (B, C, h, w) -> (1, h * w, dim)."""
    height, width = pixels.shape[2:]
    frequencies = 10000.0 ** (-4 * torch.arange(dim // 4, device=pixels.device) / dim)
    axes = []
    for count in (height, width):
        phase = torch.arange(1, count + 1, device=pixels.device)[:, None] * (2 * math.pi / (count + 1e-6)) * frequencies
        axes.append(torch.stack((phase.sin(), phase.cos()), dim=2).flatten(1))  # (count, dim / 2)
    rows, columns = axes
    places = (rows[:, None].expand(-1, width, -1), columns.expand(height, -1, -1))
    return torch.cat(places, dim=2).flatten(0, 1)[None]


def _projection(channels: int, dim: int) -> nn.Conv2d:
    layer = nn.Conv2d(channels, dim, 1)
    nn.init.kaiming_uniform_(layer.weight, a=1)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def _verdict(logits: Tensor, real: bool) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))
