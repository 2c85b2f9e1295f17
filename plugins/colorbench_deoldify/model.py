"""J. Antic: DeOldify, https://github.com/jantic/DeOldify, as released in 2019: a U-Net on a ResNet, trained without a
GAN for most of the time ("NoGAN").

There is no paper. The layers are those of the released files, `ColorizeArtistic_gen.pth` and `ColorizeStable_gen.pth`,
and of fastai 1.0, on which the release is built. `published.py` maps their names to those used here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from colorbench_layers.spectral import Critic, SelfAttention, initialized, scaled, spectral
from colorbench_layers.vgg import FeatureLoss, ImageNet
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torchvision.models.resnet import BasicBlock, Bottleneck

from colorbench.color import lab_to_rgb, rgb_to_lab
from colorbench.contract import Batch, Update
from colorbench.harness.networks import held
from colorbench_deoldify.options import Options

RENDER_BASE = 16  # pixels to one unit of the render factor
DROPPED = 0.15  # share of the critic's channels
# The last ReLU of the third, fourth and fifth stage of VGG16 with batch normalization, and their weights.
LAYERS = {22: 20.0, 32: 70.0, 42: 10.0}
FEATURE_WEIGHT = {"artistic": 2.0, "stable": 1.5}  # of the feature loss beside the critic's verdict
LUMA = 0.299, 0.587, 0.114  # ITU-R BT.601

RANDOM_FEATURES = (
    "its feature loss compares random features, since no file of torchvision's VGG16-BN was given; "
    "the release's are trained on ImageNet"
)
UNTRAINED_ENCODER = "its encoder starts from random weights when it is trained here; the release's from ImageNet"


class DeOldify(nn.Module):
    """The generator and its critic. `width` multiplies every channel count but those of input and output."""

    unpublished = ("critic",)

    def __init__(self, width: float, size: int, options: Options) -> None:
        super().__init__()
        self.generator = Generator(width, deep=options.architecture == "artistic")
        self.critic = Critic(scaled(256, width), size, partial(nn.LeakyReLU, 0.2, inplace=True), DROPPED)
        self.features = FeatureLoss(LAYERS, options.vgg, width)
        self.feature_weight = FEATURE_WEIGHT[options.architecture]
        self.side = RENDER_BASE * (options.render_factor or max(1, round(size / RENDER_BASE)))
        self.notes = [UNTRAINED_ENCODER] + ([] if options.vgg else [RANDOM_FEATURES])
        self.normalized = ImageNet()

    def forward(self, L: Tensor) -> Tensor:
        """L (B, 1, H, W) in 0..100 -> ab float32 (B, 2, H, W) in Lab units, of colors in sRGB.

        Colored as a square of the render factor; the chroma of that, enlarged, goes onto the picture.
        """
        grey = lab_to_rgb(torch.cat((L, L.new_zeros(len(L), 2, *L.shape[2:])), dim=1))
        colored = self.generator(self.normalized(_resized(grey, (self.side, self.side))))
        colored = _resized(self.normalized.undone(colored).clamp(0, 1), (L.shape[2], L.shape[3]))
        # U and V of YUV from one, Y from the other: the difference of a color and its luma is a function of U and V.
        return rgb_to_lab((grey + colored - _luma(colored)).clamp(0, 1))[:, 1:]

    def updates(self, batch: Batch) -> Iterator[Update]:
        """The stages of NoGAN: "generator" by the feature loss, "critic" alone, then "gan", both by turns."""
        grey = lab_to_rgb(torch.cat((batch.L, torch.zeros_like(batch.ab)), dim=1))
        truth = lab_to_rgb(torch.cat((batch.L, batch.ab), dim=1))
        grey, truth = self.normalized(grey), self.normalized(truth)
        if len(grey) == 1:  # batch normalization needs two values, and H/32 may be one pixel
            grey, truth = grey.repeat(2, 1, 1, 1), truth.repeat(2, 1, 1, 1)
        stage = batch.settings.get("stage", "generator")
        if stage == "critic":
            with torch.no_grad(), _as_trained(self.generator):
                colored = self.generator(grey)
        else:
            colored = self.generator(grey)
            weight = self.feature_weight if stage == "gan" else 1.0
            losses = {
                "l1": weight * F.l1_loss(colored, truth),
                "features": weight * self.features(colored, truth),
            }
            if stage == "gan":
                with held(self.critic):
                    losses["adversarial"] = _verdict(self.critic(colored), real=True)
            yield Update(losses, player="generator")
        if stage != "generator":
            real, fake = self.critic(torch.cat((truth, colored.detach()))).chunk(2)
            verdicts = {"real": 0.5 * _verdict(real, real=True), "fake": 0.5 * _verdict(fake, real=False)}
            yield Update(verdicts, player="critic")


class Generator(nn.Module):
    """Grey sRGB, normalized, (B, 3, H, W) -> sRGB, normalized, float32 (B, 3, H, W), within -3..3.

    `deep` is the artistic model: ResNet34, and two convolutions in each block of the decoder. Otherwise it is the
    stable one: ResNet101, and one wider convolution. Raises ValueError where H or W is odd.
    """

    def __init__(self, width: float, deep: bool) -> None:
        super().__init__()
        self.encoder, skips = _resnet(width, deep)
        below = skips.pop()
        self.norm = nn.BatchNorm2d(below)
        self.middle = nn.Sequential(_block(below, 2 * below), _block(2 * below, below))  # H/32
        blocks: list[nn.Module] = []
        for index, skip in enumerate(reversed(skips)):  # H/16, H/8, H/4, H/2
            last, attention = index == 3, index == 1
            if deep:
                blocks.append(DeepBlock(below, skip, last, attention))
                below = blocks[-1].outputs  # type: ignore[assignment]
            else:
                out = scaled(512, width) // (2 if last else 1)
                blocks.append(WideBlock(below, skip, out, attention))
                below = out
        self.decoder = nn.ModuleList(blocks)
        self.last_up = Upsample(below, below, spectrally=False)  # H
        self.refine = nn.ModuleList(spectral(nn.Conv2d(below + 3, below + 3, 3, padding=1)) for _ in range(2))
        self.out = spectral(nn.Conv2d(below + 3, 3, 1))

    def forward(self, picture: Tensor) -> Tensor:
        if picture.shape[2] % 2 or picture.shape[3] % 2:
            sides = f"{picture.shape[2]} x {picture.shape[3]}"
            raise ValueError(f"deoldify needs an even height and width to train on, not {sides}")
        x, skips = picture, []
        for index, layer in enumerate(self.encoder):
            x = layer(x)
            if index in (2, 4, 5, 6):  # before each halving: H/2, H/4, H/8, H/16
                skips.append(x)
        x = self.middle(F.relu(self.norm(x)))
        for block in self.decoder:
            x = block(x, skips.pop())
        x = joined = torch.cat((self.last_up(x), picture), dim=1)
        for conv in self.refine:
            x = F.relu(conv(x))
        return 6 * torch.sigmoid(self.out(x + joined).float()) - 3


class DeepBlock(nn.Module):
    """The artistic decoder's stage: (B, below, h, w) and the encoder's (B, skip, 2h, 2w) -> (B, outputs, 2h, 2w)."""

    def __init__(self, below: int, skip: int, last: bool, attention: bool) -> None:
        super().__init__()
        joined = below // 2 + skip
        self.outputs = int(1.5 * (joined // 2 if last else joined))
        self.up = Upsample(below, below // 2)
        self.norm = _skip_norm(skip)
        self.conv1 = _block(joined, self.outputs)
        self.conv2 = _block(self.outputs, self.outputs)
        if attention:
            self.conv2.append(SelfAttention(self.outputs))

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        return self.conv2(self.conv1(_joined(self.up(below), self.norm(skip))))


class WideBlock(nn.Module):
    """The stable decoder's stage: (B, below, h, w) and the encoder's (B, skip, 2h, 2w) -> (B, outputs, 2h, 2w)."""

    def __init__(self, below: int, skip: int, outputs: int, attention: bool) -> None:
        super().__init__()
        self.up = Upsample(below, outputs)
        self.norm = _skip_norm(skip)
        self.conv = _block(outputs + skip, outputs)
        if attention:
            self.conv.append(SelfAttention(outputs))

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        return self.conv(_joined(self.up(below), self.norm(skip)))


class Upsample(nn.Module):
    """Pixel shuffle (Shi et al. 2016), first all pixels of a cell alike (Aitken et al. 2017), and a blur over 2 x 2.

    With spectral and batch normalization, or with weight normalization alone.
    """

    def __init__(self, inputs: int, outputs: int, spectrally: bool = True) -> None:
        super().__init__()
        conv = initialized(nn.Conv2d(inputs, 4 * outputs, 1, bias=not spectrally))
        conv.weight.data = conv.weight.data[::4].repeat_interleave(4, dim=0)
        self.conv = nn.Sequential(spectral_norm(conv), nn.BatchNorm2d(4 * outputs)) if spectrally else weight_norm(conv)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pixel_shuffle(F.relu(self.conv(x)), 2)
        return F.avg_pool2d(F.pad(x, (1, 0, 1, 0), mode="replicate"), 2, stride=1)


def _resnet(width: float, deep: bool) -> tuple[nn.Sequential, list[int]]:
    """K. He et al. 2016, to the last stage: ResNet34 or 101, and the channels at H/2, H/4, H/8, H/16 and H/32."""
    kind, depths = (BasicBlock, (3, 4, 6, 3)) if deep else (Bottleneck, (3, 4, 23, 3))
    stem = scaled(64, width)
    layers: list[nn.Module] = [
        nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(stem), nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    ]  # fmt: skip
    channels = [stem]
    for stage, depth in enumerate(depths):
        inner, inputs, stride = stem * 2**stage, channels[-1], 1 if stage == 0 else 2
        outputs, shortcut = inner * kind.expansion, None
        if stride != 1 or inputs != outputs:
            shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        blocks = [kind(inputs, inner, stride, shortcut), *(kind(outputs, inner) for _ in range(depth - 1))]
        layers.append(nn.Sequential(*blocks))
        channels.append(outputs)
    encoder = nn.Sequential(*layers)
    for layer in encoder.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return encoder, channels


def _block(inputs: int, outputs: int) -> nn.Sequential:
    conv = spectral(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False))
    return nn.Sequential(conv, nn.ReLU(inplace=True), nn.BatchNorm2d(outputs))


def _skip_norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    nn.init.constant_(norm.bias, 1e-3)
    return norm


def _joined(up: Tensor, skip: Tensor) -> Tensor:
    if up.shape[2:] != skip.shape[2:]:  # a side that was odd when it was halved
        up = F.interpolate(up, skip.shape[2:], mode="nearest")
    return F.relu(torch.cat((up, skip), dim=1))


def _resized(rgb: Tensor, sides: tuple[int, int]) -> Tensor:
    return rgb if rgb.shape[2:] == sides else F.interpolate(rgb, sides, mode="bilinear", antialias=True)


def _luma(rgb: Tensor) -> Tensor:
    red, green, blue = rgb.split(1, dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def _verdict(logits: Tensor, real: bool) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


@contextmanager
def _as_trained(module: nn.Module) -> Iterator[None]:
    """Inside, a module answers as it does when it colors."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
