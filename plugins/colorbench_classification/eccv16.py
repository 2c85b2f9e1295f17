"""R. Zhang, P. Isola, A. A. Efros: Colorful Image Colorization, ECCV 2016.

Submodules carry the names of the authors' PyTorch release, so that at width 1 its weight file loads as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colorbench.contract import Batch, Update
from colorbench_classification.classes import ColorClasses
from colorbench_classification.options import Options

AB_SCALE = 110.0  # the colors of the classes are stored in this unit


class Eccv16(nn.Module):
    """ab as the mean of a distribution over 313 color classes, at a quarter of the side, enlarged.

    `width` multiplies every channel count but the input's, the output's and the classes'; at width 1 there are
    32,236,011 parameters. In training `model_out` is frozen: it holds the colors of the classes.
    """

    measured = ("classes.prior", "classes.temperature")

    def __init__(self, width: float = 1.0, options: Options = Options()) -> None:  # noqa: B008 - it is frozen
        super().__init__()
        c64, c128, c256, c512 = (max(4, round(channels * width)) for channels in (64, 128, 256, 512))
        self.classes = ColorClasses(options)

        self.model1 = _block(1, c64, c64, stride=2)  # H/2
        self.model2 = _block(c64, c128, c128, stride=2)  # H/4
        self.model3 = _block(c128, c256, c256, c256, stride=2)  # H/8, and so the next four
        self.model4 = _block(c256, c512, c512, c512)
        self.model5 = _block(c512, c512, c512, c512, dilation=2)
        self.model6 = _block(c512, c512, c512, c512, dilation=2)
        self.model7 = _block(c512, c512, c512, c512)
        self.model8 = nn.Sequential(
            nn.ConvTranspose2d(c512, c256, kernel_size=4, stride=2, padding=1),  # H/4
            nn.ReLU(inplace=True),
            nn.Conv2d(c256, c256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(c256, c256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(c256, len(self.classes.centers), kernel_size=1),
        )
        self.model_out = nn.Conv2d(len(self.classes.centers), 2, kernel_size=1, bias=False)
        with torch.no_grad():
            self.model_out.weight.copy_(self.classes.centers.T[:, :, None, None] / AB_SCALE)

    def forward(self, L: Tensor) -> Tensor:
        """L (B, 1, H, W) in 0..100 -> ab float32 (B, 2, H, W) in Lab units.

        Raises ValueError where H or W is no multiple of 8.
        """
        distribution = self.classes.distribution(self.logits(L))
        with torch.autocast(L.device.type, enabled=False):  # bfloat16 has steps of half a Lab unit near 110
            ab = self.model_out(distribution)
        return F.interpolate(ab, scale_factor=4, mode="bilinear") * AB_SCALE

    def logits(self, L: Tensor) -> Tensor:
        """L (B, 1, H, W) in 0..100 -> (B, 313, H/4, W/4)."""
        if L.shape[-2] % 8 or L.shape[-1] % 8:
            raise ValueError(f"eccv16 needs a height and width that are multiples of 8, not {tuple(L.shape[-2:])}")
        x = self.model3(self.model2(self.model1((L - 50) / 100)))
        return self.model8(self.model7(self.model6(self.model5(self.model4(x)))))

    def measure(self, batches: Iterator[Batch]) -> None:
        self.classes.measure(batch.ab[:, :, ::4, ::4] for batch in batches)

    def updates(self, batch: Batch) -> Iterator[Update]:
        # Every fourth pixel, not the mean of 4 x 4: as the authors' training code.
        yield Update({"classification": self.classes.loss(self.logits(batch.L), batch.ab[:, :, ::4, ::4])})


def _block(*channels: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """A 3x3 convolution with ReLU from each channel count to the next, the last one strided; then BatchNorm."""
    layers: list[nn.Module] = []
    for index, (inputs, outputs) in enumerate(pairwise(channels), start=2):
        step = stride if index == len(channels) else 1
        convolution = nn.Conv2d(inputs, outputs, kernel_size=3, stride=step, padding=dilation, dilation=dilation)
        layers += [convolution, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.BatchNorm2d(channels[-1]))
