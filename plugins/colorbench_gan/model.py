"""pix2pix for colorization: a conditional GAN with a U-Net generator and a PatchGAN discriminator.

Source: Isola, Zhu, Zhou and Efros, "Image-to-Image Translation with Conditional Adversarial Networks"
(CVPR 2017), in the layers and initialization of the authors' PyTorch implementation. The row "GAN" of Wang,
Hu and Zhao, "Beyond Black and White", names no architecture; its related work describes this one.

Two departures. Evaluation is deterministic: batch normalization uses its running statistics and dropout is
off, where pix2pix keeps both as in training. Otherwise an image's score would depend on the other images of
its batch and on chance, and no two runs of one checkpoint would agree. And the U-Net is as deep as the training
images allow, 8 levels from 256 px on: see `UNet`. Its place can be taken by a U-Net on a ResNet (`resnet.py`).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colorbench.contract import Batch, Update
from colorbench.harness.networks import held
from colorbench_gan import Options
from colorbench_gan.resnet import ResNetUNet

AB_SCALE = 110.0  # ab of sRGB colors stays within -108..99


class Pix2Pix(nn.Module):
    """The generator, L (B, 1, H, W) in 0..100 -> ab (B, 2, H, W) within -110..110, and its discriminator.

    `width` multiplies the channels of both players; `size` is the side of the training images.
    """

    def __init__(self, width: float, size: int, options: Options) -> None:
        super().__init__()
        self.l1_weight = options.l1_weight
        if options.generator == "unet":
            self.generator: nn.Module = UNet(width, size)
            self.discriminator = PatchGAN(width)
            self.apply(_initialize)
        else:
            self.generator = ResNetUNet(options.generator, width, size, options.encoder)
            self.discriminator = PatchGAN(width).apply(_initialize)

    def forward(self, L: Tensor) -> Tensor:
        return self.generator(_scaled(L)) * AB_SCALE

    def updates(self, batch: Batch) -> Iterator[Update]:
        """With the setting "adversarial", True where a stage does not say otherwise, the discriminator learns first."""
        L, ab = _scaled(batch.L), batch.ab / AB_SCALE
        fake = self.generator(L)
        l1 = self.l1_weight * F.l1_loss(fake, ab)
        if not batch.settings.get("adversarial", True):
            yield Update({"l1": l1}, player="generator")
            return
        yield Update(
            {
                "real": 0.5 * _verdict(self.discriminator(L, ab), real=True),
                "fake": 0.5 * _verdict(self.discriminator(L, fake.detach()), real=False),
            },
            player="discriminator",
        )
        with held(self.discriminator):
            adversarial = _verdict(self.discriminator(L, fake), real=True)
        yield Update({"adversarial": adversarial, "l1": l1}, player="generator")


class UNet(nn.Module):
    """L (B, 1, H, W) in -1..1 -> ab (B, 2, H, W) in -1..1. `width` multiplies the channels, 64 to 512.

    It halves a training image, of side `size`, down to one pixel, as pix2pix does from 256 px in 8 levels; where the
    side is not a power of 2, as often as it can be halved. Images of other sides must be multiples of 2^depth.
    """

    def __init__(self, width: float, size: int) -> None:
        super().__init__()
        depth = min(8, (size & -size).bit_length() - 1)
        self.multiple = 2**depth
        widths = [_channels(min(64 * 2**level, 512), width) for level in range(depth)]
        downs, ups = [], []
        for level, channels in enumerate(widths):
            outermost, innermost = level == 0, level == depth - 1
            downs.append(_down(1 if outermost else widths[level - 1], channels, level, innermost))
            # What comes up to a level is joined by that level's own features.
            below = channels if innermost else 2 * channels
            dropout = depth // 2 <= level and not innermost
            ups.append(_last(below) if outermost else _up(below, widths[level - 1], dropout))
        self.downs, self.ups = nn.ModuleList(downs), nn.ModuleList(ups)

    def forward(self, L: Tensor) -> Tensor:
        if any(side % self.multiple for side in L.shape[2:]):
            sides = f"{L.shape[2]} x {L.shape[3]}"
            raise ValueError(f"gan: the sides of an image must be multiples of {self.multiple}, got {sides}")
        skips = [L]
        for down in self.downs:  # level 0 makes (B, 64, H/2, W/2), level 1 (B, 128, H/4, W/4), ...
            skips.append(down(skips[-1]))
        up = skips.pop()
        for level in reversed(range(1, len(self.ups))):
            up = torch.cat((skips.pop(), self.ups[level](up)), dim=1)
        # Autocast would leave bfloat16, whose steps near 110 are half a Lab unit.
        return self.ups[0](up).float().tanh()


class PatchGAN(nn.Module):
    """Judges 70x70 patches. L and ab in -1..1 -> logits: (B, 1, 30, 30) at 256 px, (B, 1, 2, 2) at 32 px."""

    def __init__(self, width: float) -> None:
        super().__init__()
        c64, c128, c256, c512 = (_channels(c, width) for c in (64, 128, 256, 512))
        self.layers = nn.Sequential(
            nn.Conv2d(3, c64, kernel_size=4, stride=2, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            *_judge(c64, c128, stride=2),
            *_judge(c128, c256, stride=2),
            *_judge(c256, c512, stride=1),
            nn.Conv2d(c512, 1, kernel_size=4, stride=1, padding=1),
        )

    def forward(self, L: Tensor, ab: Tensor) -> Tensor:
        return self.layers(torch.cat((L, ab), dim=1)).float()


def _down(inputs: int, channels: int, level: int, innermost: bool) -> nn.Sequential:
    """Half the side. The outermost level meets the image itself: no activation, no normalization."""
    layers: list[nn.Module] = [nn.Conv2d(inputs, channels, kernel_size=4, stride=2, padding=1, bias=False)]
    if level > 0:
        # Not in place: the skip connection carries what comes before the activation.
        layers.insert(0, nn.LeakyReLU(0.2))
        # The innermost may be one pixel wide, where a batch of one has no variance.
        if not innermost:
            layers.append(nn.BatchNorm2d(channels))
    return nn.Sequential(*layers)


def _up(inputs: int, channels: int, dropout: bool) -> nn.Sequential:
    """Twice the side."""
    layers: list[nn.Module] = [
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(inputs, channels, kernel_size=4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels),
    ]
    if dropout:
        layers.append(nn.Dropout(0.5))
    return nn.Sequential(*layers)


def _last(inputs: int) -> nn.Sequential:
    return nn.Sequential(nn.ReLU(inplace=True), nn.ConvTranspose2d(inputs, 2, kernel_size=4, stride=2, padding=1))


def _judge(inputs: int, channels: int, stride: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, channels, kernel_size=4, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.LeakyReLU(0.2, inplace=True),
    )


def _channels(published: int, width: float) -> int:
    return max(1, round(published * width))


def _scaled(L: Tensor) -> Tensor:
    return L / 50 - 1


def _verdict(logits: Tensor, real: bool) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
