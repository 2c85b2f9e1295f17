"""A U-Net on a ResNet, as the generator of a GAN that colorizes.

Sources: M. Shariatnia, "Colorizing black & white images with U-Net and conditional GAN" (Towards Data Science 2020),
whose generator is a U-Net on ResNet18 that learns by L1 before it meets the discriminator. The decoder is the one of
the library segmentation-models-pytorch: 256, 128, 64, 32 and 16 channels, two convolutions to a level, nearest
upsampling.

Two departures. The encoder starts from random weights where no file is given. And the U-Net is as deep as the training
images allow, 5 levels from 64 px on: its smallest maps keep 2 pixels a side, since of one pixel a batch of one has no
variance.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colorbench.harness.networks import misfit, read_state

DECODER = (256, 128, 64, 32, 16)  # channels, from the smallest maps on
ENCODER = (64, 128, 256, 512)  # of a ResNet's stages


class ResNetUNet(nn.Module):
    """L (B, 1, H, W) in -1..1 -> ab (B, 2, H, W) in -1..1; sides must be multiples of 2^depth.

    `width` multiplies all channels but the encoder's first 64. `source` is a file of timm's weights of the encoder,
    which then has its full width, or "random"; None leaves them to be loaded.
    """

    def __init__(self, encoder: str, width: float, size: int, source: Path | Literal["random"] | None) -> None:
        super().__init__()
        halvings = (size & -size).bit_length() - 1
        depth = min(5, halvings if size > 2**halvings else halvings - 1)
        self.multiple = 2**depth
        stages = tuple(max(1, round(width * channels)) for channels in ENCODER) if source == "random" else ENCODER
        self.encoder = timm.create_model(
            encoder, features_only=True, in_chans=1, out_indices=range(depth), channels=stages
        )
        if isinstance(source, Path):
            _read(self.encoder, source)
        info: Any = self.encoder.feature_info
        *skips, below = info.channels()  # at H/2, H/4, ...
        blocks = []
        for channels, skip in zip(DECODER[-depth:], (*skips[::-1], 0), strict=True):
            outputs = max(1, round(width * channels))
            blocks.append(nn.Sequential(*_convolution(below + skip, outputs), *_convolution(outputs, outputs)))
            below = outputs
        self.decoder = nn.ModuleList(blocks)
        self.to_ab = nn.Conv2d(below, 2, 3, padding=1)

    def forward(self, L: Tensor) -> Tensor:
        if any(side % self.multiple for side in L.shape[2:]):
            sides = f"{L.shape[2]} x {L.shape[3]}"
            raise ValueError(f"gan: the sides of an image must be multiples of {self.multiple}, got {sides}")
        *skips, x = self.encoder(L)  # (B, 64, H/2, W/2), (B, 64, H/4, W/4), (B, 128, H/8, W/8), ...
        for block, skip in zip(self.decoder, (*skips[::-1], None), strict=True):
            x = F.interpolate(x, scale_factor=2)
            x = block(x if skip is None else torch.cat((x, skip), dim=1))
        # Autocast would leave bfloat16, whose steps near 110 are half a Lab unit.
        return self.to_ab(x).float().tanh()


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


def _read(encoder: nn.Module, file: Path) -> None:
    """Fill the encoder from a file, its first kernels summed over R, G and B.

    Raises UserError or ValueError if the file holds no weights of it.
    """
    state, own = {**read_state(file)}, encoder.state_dict()
    if state.get("conv1.weight", torch.empty(0)).shape[1:2] == (3,):
        state["conv1.weight"] = state["conv1.weight"].sum(dim=1, keepdim=True)
    counts = {key: tensor for key, tensor in own.items() if not tensor.ndim}  # of batches, which older files lack
    used = {key: {**counts, **state}[key] for key in own if key in state or key in counts}  # no classifier
    if why := misfit(used, own):
        raise ValueError(f"{file} holds no weights of this encoder of timm: {why}")
    if broken := [key for key, tensor in used.items() if not tensor.isfinite().all()]:
        raise ValueError(f"{file} holds values that are not finite in {broken[0]}; give weights of a sound training")
    encoder.load_state_dict(used)
