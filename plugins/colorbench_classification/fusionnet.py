"""M. Jwa, M. Kang: Grayscale image colorization using a convolutional neural network, J. KSIAM 25(2), 2021.

The abstract names FusionNet, an encoder-decoder, and a loss other than MSE. FusionNet: T. M. Quan, D. G. C. Hildebrand,
W.-K. Jeong, FusionNet: A deep fully residual convolutional neural network for image segmentation in connectomics,
arXiv:1612.05360. README.md, beside this file, has what was decided where neither says more.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from colorbench.contract import Batch, Update
from colorbench_classification.classes import ColorClasses
from colorbench_classification.options import Options


class FusionNet(nn.Module):
    """ab as the mean of a distribution over 313 color classes, at every pixel.

    `width` multiplies the channel counts 64, 128, 256, 512 and 1024.
    """

    measured = ("classes.prior", "classes.temperature")

    def __init__(self, width: float = 1.0, options: Options = Options()) -> None:  # noqa: B008 - it is frozen
        super().__init__()
        sizes = [max(4, round(channels * width)) for channels in (64, 128, 256, 512, 1024)]
        self.classes = ColorClasses(options)
        # Sides H, H/2, H/4, H/8, and H/16 of the bridge; pooling is between them.
        self.encoder = nn.ModuleList(
            _Level(inputs, outputs, nn.LeakyReLU(0.2)) for inputs, outputs in zip([1, *sizes[:-1]], sizes, strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        decoding = list(zip(sizes[:0:-1], sizes[-2::-1], strict=True))  # from H/16 to H
        self.up = nn.ModuleList(_up(inputs, outputs) for inputs, outputs in decoding)
        self.decoder = nn.ModuleList(_Level(outputs, outputs, nn.ReLU()) for _, outputs in decoding)
        self.out = nn.Conv2d(sizes[0], len(self.classes.centers), kernel_size=3, padding=1)

    def forward(self, L: Tensor) -> Tensor:
        """L (B, 1, H, W) in 0..100 -> ab float32 (B, 2, H, W) in Lab units.

        Raises ValueError where H or W is no multiple of 16.
        """
        distribution = self.classes.distribution(self.logits(L))
        with torch.autocast(L.device.type, enabled=False):  # bfloat16 has steps of half a Lab unit near 110
            return torch.einsum("bqhw,qc->bchw", distribution, self.classes.centers)

    def logits(self, L: Tensor) -> Tensor:
        """L (B, 1, H, W) in 0..100 -> (B, 313, H, W)."""
        if L.shape[-2] % 16 or L.shape[-1] % 16:
            raise ValueError(f"fusionnet needs a height and width that are multiples of 16, not {tuple(L.shape[-2:])}")
        x = self.encoder[0]((L - 50) / 100)
        skips = []
        for level in self.encoder[1:]:
            skips.append(x)
            x = level(self.pool(x))
        for up, level in zip(self.up, self.decoder, strict=True):
            x = level(up(x) + skips.pop())
        return self.out(x)

    def measure(self, batches: Iterator[Batch]) -> None:
        self.classes.measure(batch.ab for batch in batches)

    def updates(self, batch: Batch) -> Iterator[Update]:
        yield Update({"classification": self.classes.loss(self.logits(batch.L), batch.ab)})


class _Level(nn.Module):
    """A convolution, a residual block of three, and a convolution."""

    def __init__(self, inputs: int, outputs: int, activation: nn.Module) -> None:
        super().__init__()
        self.before = nn.Sequential(*_convolution(inputs, outputs), activation)
        self.residual = nn.Sequential(
            *_convolution(outputs, outputs), activation,
            *_convolution(outputs, outputs), activation,
            *_convolution(outputs, outputs),
        )  # fmt: skip
        self.after = nn.Sequential(*_convolution(outputs, outputs), activation)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        return self.after(x + self.residual(x))


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=1), nn.BatchNorm2d(outputs)


def _up(inputs: int, outputs: int) -> nn.Sequential:
    """Twice the side."""
    deconvolution = nn.ConvTranspose2d(inputs, outputs, kernel_size=3, stride=2, padding=1, output_padding=1)
    return nn.Sequential(deconvolution, nn.BatchNorm2d(outputs), nn.ReLU())
