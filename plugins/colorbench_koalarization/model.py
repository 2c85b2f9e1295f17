"""F. Baldassarre, D. González Morín, L. Rodés-Guirao: Deep Koalarization: Image Colorization using CNNs and
Inception-ResNet-v2, arXiv:1712.03400, 2017.

    L ─┬─ encoder, H/8 ───────────────────────────────── fusion ── decoder ── ab
       └─ Inception-ResNet-v2, frozen ── 1001 numbers ──────┘

The layers, their padding and their initialization are those of the authors' code
(github.com/baldassarreFe/deep-koalarization, `network_definition.py`), which is in Keras.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colorbench.contract import Batch, Update
from colorbench_koalarization.extractor import CLASSES, Extractor

AB_SCALE = 127.0  # ab / 127 fills (-1, 1), the range of tanh
NOT_COUNTED = "Its frozen Inception-ResNet-v2 is not among its parameters, which are those that it trains."
RANDOM = (
    "The weights of its Inception-ResNet-v2 were not given (option extractor): the features are random, "
    "so this is not the published model."
)


class Koalarization(nn.Module):
    """`width` multiplies the channels of encoder, fusion and decoder; at width 1 they have 6,574,050 parameters.

    `size` is the side of the training images, from which that of the extractor's input follows; see `Extractor` for
    `extractor`. The extractor is frozen and not among the parameters.
    """

    def __init__(self, width: float, size: int, extractor: Path | Literal["random"] | None) -> None:
        super().__init__()
        c32, c64, c128, c256, c512 = (max(4, round(channels * width)) for channels in (32, 64, 128, 256, 512))
        self.encoder = nn.Sequential(
            *_halve(1, c64),  # H/2
            *_conv(c64, c128),
            *_halve(c128, c128),  # H/4
            *_conv(c128, c256),
            *_halve(c256, c256),  # H/8
            *_conv(c256, c512),
            *_conv(c512, c512),
            *_conv(c512, c256),
        )
        self.fusion = nn.Sequential(nn.Conv2d(c256 + CLASSES, c256, 1), nn.ReLU(inplace=True))
        self.decoder = nn.Sequential(
            *_conv(c256, c128),
            nn.Upsample(scale_factor=2),  # H/4; nearest, as Keras does
            *_conv(c128, c64),
            *_conv(c64, c64),
            nn.Upsample(scale_factor=2),  # H/2
            *_conv(c64, c32),
            nn.Conv2d(c32, 2, 3, padding=1),
        )
        self.apply(_initialize)
        self.extractor = Extractor(extractor, width, size)
        self.notes = [NOT_COUNTED, RANDOM] if extractor == "random" else [NOT_COUNTED]

    def forward(self, L: Tensor) -> Tensor:
        """L (B, 1, H, W) in 0..100 -> ab float32 (B, 2, H, W) in Lab units, within -127..127.

        Raises ValueError where H or W is no multiple of 8.
        """
        if L.shape[2] % 8 or L.shape[3] % 8:
            raise ValueError(
                f"koalarization needs a height and width that are multiples of 8, not {tuple(L.shape[2:])}"
            )
        encoded = self.encoder(L / 50 - 1)  # (B, 256, H/8, W/8)
        seen = self.extractor(L)[:, :, None, None].expand(-1, -1, *encoded.shape[2:])  # (B, 1001, H/8, W/8)
        ab = self.decoder(self.fusion(torch.cat((encoded, seen), dim=1)))  # (B, 2, H/2, W/2)
        # Autocast would leave bfloat16, whose steps near 127 are half a Lab unit.
        return F.interpolate(ab.float().tanh() * AB_SCALE, scale_factor=2)

    def updates(self, batch: Batch) -> Iterator[Update]:
        yield Update({"l2": F.mse_loss(self(batch.L) / AB_SCALE, batch.ab / AB_SCALE)})


def _conv(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)


def _halve(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    """Half the side. TensorFlow's "same" padding of an even side is at the right and bottom alone."""
    return nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(inputs, outputs, 3, stride=2), nn.ReLU(inplace=True)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):  # Keras's default
        nn.init.xavier_uniform_(module.weight)
        assert module.bias is not None
        nn.init.zeros_(module.bias)
