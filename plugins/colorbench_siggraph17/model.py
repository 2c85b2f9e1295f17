"""R. Zhang, J.-Y. Zhu, P. Isola, X. Geng, A. S. Lin, T. Yu, A. A. Efros: Real-Time User-Guided Image
Colorization with Learned Deep Priors, ACM Transactions on Graphics 36(4), 2017.

Submodules carry the names of the authors' PyTorch release, so that at width 1 its weight file loads as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colorbench.contract import Batch, Update
from colorbench.hints import reveal
from colorbench_siggraph17.options import Options

AB_SCALE = 110.0  # ab / 110 fills (-1, 1), the range of tanh
BIN_STEP = 10.0  # Lab units between two neighboring color classes
BINS_PER_AXIS = 23  # -110, -100, ... 110 on each axis: 529 classes, also those outside of sRGB


class Siggraph17(nn.Module):
    """ab from L, and from color hints where there are any. With the option `hints` it learns from random ones.

    `width` multiplies every channel count but the input's, the output's and the 529 color classes';
    at width 1 there are 34,187,027 parameters, 135,953 of them in the class head.
    """

    def __init__(self, width: float = 1.0, options: Options | None = None) -> None:
        super().__init__()
        self.options = options or Options()
        # Torch's own initialization, not the release's N(0, 0.02): with few channels that is small, and a short
        # training then ends with a larger error.
        c64, c128, c256, c512 = (max(4, round(channels * width)) for channels in (64, 128, 256, 512))

        self.model1 = nn.Sequential(*_block(4, c64, c64))  # H
        self.model2 = nn.Sequential(*_block(c64, c128, c128))  # H/2
        self.model3 = nn.Sequential(*_block(c128, c256, c256, c256))  # H/4
        self.model4 = nn.Sequential(*_block(c256, c512, c512, c512))  # H/8, and so the next three
        self.model5 = nn.Sequential(*_block(c512, c512, c512, c512, dilation=2))
        self.model6 = nn.Sequential(*_block(c512, c512, c512, c512, dilation=2))
        self.model7 = nn.Sequential(*_block(c512, c512, c512, c512))

        self.model8up = nn.Sequential(nn.ConvTranspose2d(c512, c256, 4, stride=2, padding=1))
        self.model3short8 = nn.Sequential(_conv(c256, c256))
        self.model8 = nn.Sequential(nn.ReLU(inplace=True), *_block(c256, c256, c256))  # H/4

        self.model9up = nn.Sequential(nn.ConvTranspose2d(c256, c128, 4, stride=2, padding=1))
        self.model2short9 = nn.Sequential(_conv(c128, c128))
        self.model9 = nn.Sequential(nn.ReLU(inplace=True), *_block(c128, c128))  # H/2

        self.model10up = nn.Sequential(nn.ConvTranspose2d(c128, c128, 4, stride=2, padding=1))
        self.model1short10 = nn.Sequential(_conv(c64, c128))
        self.model10 = nn.Sequential(nn.ReLU(inplace=True), _conv(c128, c128), nn.LeakyReLU(0.2))  # H

        self.model_class = nn.Sequential(nn.Conv2d(c256, BINS_PER_AXIS**2, 1))
        self.model_out = nn.Sequential(nn.Conv2d(c128, 2, 1))

    def forward(self, L: Tensor, hints: Tensor | None = None) -> Tensor:
        """L (B, 1, H, W) in 0..100 -> ab float32 (B, 2, H, W) in Lab units, within -110..110.

        `hints` (B, 3, H, W): ab in Lab units and a mask, 1 where they count; elsewhere all are 0, as without any.
        Raises ValueError where H or W is no multiple of 8.
        """
        ab, _ = self._colorize(L, hints)
        return ab * AB_SCALE

    def updates(self, batch: Batch) -> Iterator[Update]:
        """The release's regression stage: the class head does not train the trunk."""
        hints = random_hints(batch.ab, self.options) if self.options.hints else None
        ab, features = self._colorize(batch.L, hints)
        logits = self.model_class(features.detach()).float()  # (B, 529, H/4, W/4)
        distance = (ab - batch.ab / AB_SCALE).abs().sum(dim=1)
        yield Update(
            {
                "classification": F.cross_entropy(logits, nearest_bin(batch.ab[:, :, ::4, ::4])),
                "regression": 10 * distance.mean(),
            }
        )

    def _colorize(self, L: Tensor, hints: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """-> ab / 110 float32 (B, 2, H, W), and the features (B, 256, H/4, W/4) that the class head reads."""
        if L.shape[-2] % 8 or L.shape[-1] % 8:
            raise ValueError(f"siggraph17 needs a height and width that are multiples of 8, not {tuple(L.shape[-2:])}")
        hints = L.new_zeros(len(L), 3, *L.shape[2:]) if hints is None else hints
        ab, mask = hints.split((2, 1), dim=1)

        conv1 = self.model1(torch.cat(((L - 50) / 100, ab / AB_SCALE, mask), dim=1))
        conv2 = self.model2(conv1[:, :, ::2, ::2])
        conv3 = self.model3(conv2[:, :, ::2, ::2])
        conv4 = self.model4(conv3[:, :, ::2, ::2])
        conv7 = self.model7(self.model6(self.model5(conv4)))
        conv8 = self.model8(self.model8up(conv7) + self.model3short8(conv3))
        conv9 = self.model9(self.model9up(conv8) + self.model2short9(conv2))
        conv10 = self.model10(self.model10up(conv9) + self.model1short10(conv1))
        return torch.tanh(self.model_out(conv10).float()), conv8


def random_hints(ab: Tensor, options: Options) -> Tensor:
    """Hints as the authors draw them in training: true ab (B, 2, H, W) -> (B, 3, H, W), as `forward` takes them.

    Each image has a geometric number of points, drawn around its center. Each point is a square of random side with its
    mean ab. A few images are shown all of their ab instead, so that the network learns to copy what it is given.
    """
    images = torch.arange(len(ab)).repeat_interleave(torch.empty(len(ab)).geometric_(options.stop).long() - 1)
    side = torch.randint(1, min(options.largest, *ab.shape[2:]) + 1, images.shape)
    room = torch.tensor(ab.shape[2:]) - side[:, None]  # (N, 2): the last row and column where a point may begin
    corner = torch.normal((room + 1) / 2, (room + 1) / 4).clamp_min(0).minimum(room.float()).long()
    hints = reveal(ab, [(*point,) for point in torch.column_stack((images, corner, side)).tolist()])
    whole = torch.rand(len(ab), 1, 1, 1).to(ab.device) < options.whole
    return torch.where(whole, torch.cat((ab, torch.ones_like(ab[:, :1])), dim=1).float(), hints)


def nearest_bin(ab: Tensor) -> Tensor:
    """ab (B, 2, H, W) in Lab units -> the class (B, H, W) of the nearest of the 23 x 23 grid colors."""
    a, b = (ab / BIN_STEP).round().long().add(BINS_PER_AXIS // 2).clamp(0, BINS_PER_AXIS - 1).unbind(dim=1)
    return a * BINS_PER_AXIS + b


def _conv(inputs: int, outputs: int, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation)


def _block(*channels: int, dilation: int = 1) -> list[nn.Module]:
    """A convolution with ReLU from each channel count to the next, and one BatchNorm behind the last."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(channels):
        layers += [_conv(inputs, outputs, dilation), nn.ReLU(inplace=True)]
    return [*layers, nn.BatchNorm2d(channels[-1])]
