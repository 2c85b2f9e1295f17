"""A plain encoder-decoder that regresses ab from L.

Sources: the comparison row "CNN" of Wang, Hu and Zhao, "Beyond Black and White", which names no
architecture; its related work describes early CNNs as regression under a mean squared error. The encoder is
that of Zhang, Isola and Efros, "Colorful Image Colorization" (ECCV 2016), blocks 1 to 5: its widths, its
strided last convolution of blocks 1 to 3, batch normalization at each block's end, its dilated fifth block.
Their classification head is replaced by a decoder back to full resolution and a two-channel output. So the
network is ours; the row read as a classification is the model `eccv16`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from colorbench.contract import Batch, Update
from colorbench_cnn import Options

AB_SCALE = 110.0  # ab of sRGB colors stays within -108..99
LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l2": F.mse_loss,
    "l1": F.l1_loss,
    # 1 Lab unit, as in the PyTorch release of Zhang, Zhu et al. 2017 (richzhang/colorization-pytorch)
    "huber": partial(F.huber_loss, delta=1 / AB_SCALE),
}


class RegressionCNN(nn.Module):
    """L (B, 1, H, W) in 0..100 -> ab (B, 2, H, W) within -110..110. H and W must be multiples of 8.

    `width` multiplies the channel counts, by default 64, 128, 256 and 512.
    """

    def __init__(self, width: float, options: Options) -> None:
        super().__init__()
        self.loss = options.loss
        c64, c128, c256, c512 = (max(1, round(options.channels * times * width)) for times in (1, 2, 4, 8))
        self.encoder = nn.Sequential(
            _block(1, c64, convolutions=2, stride=2),  # H/2
            _block(c64, c128, convolutions=2, stride=2),  # H/4
            _block(c128, c256, convolutions=3, stride=2),  # H/8
            _block(c256, c512, convolutions=3),
            *(_block(c512, c512, convolutions=3, dilation=2) for _ in range(options.blocks - 1)),
        )
        self.decoder = nn.Sequential(
            _up(c512, c256),  # H/4
            _block(c256, c256, convolutions=1),
            _up(c256, c128),  # H/2
            _block(c128, c128, convolutions=1),
            _up(c128, c64),  # H
            _block(c64, c64, convolutions=1),
            nn.Conv2d(c64, 2, kernel_size=1),
        )

    def forward(self, L: Tensor) -> Tensor:
        if L.shape[2] % 8 or L.shape[3] % 8:
            raise ValueError(f"cnn: the sides of an image must be multiples of 8, got {L.shape[2]} x {L.shape[3]}")
        # Autocast would leave bfloat16, whose steps near 110 are half a Lab unit.
        return self.decoder(self.encoder(L / 100 - 0.5)).float().tanh() * AB_SCALE

    def updates(self, batch: Batch) -> Iterator[Update]:
        yield Update({self.loss: LOSSES[self.loss](self(batch.L) / AB_SCALE, batch.ab / AB_SCALE)})


def _block(inputs: int, channels: int, convolutions: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """3x3 convolutions, each with ReLU, the last one strided; then batch normalization."""
    layers: list[nn.Module] = []
    for index in range(convolutions):
        layers += [
            nn.Conv2d(
                inputs if index == 0 else channels,
                channels,
                kernel_size=3,
                stride=stride if index == convolutions - 1 else 1,
                padding=dilation,
                dilation=dilation,
            ),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers, nn.BatchNorm2d(channels))


def _up(inputs: int, channels: int) -> nn.Sequential:
    """Twice the side. As the stride divides the kernel, every output pixel sums equally many inputs."""
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, channels, kernel_size=4, stride=2, padding=1), nn.ReLU(inplace=True)
    )
