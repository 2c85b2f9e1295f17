"""Section 6 of the paper, its future work: tag the pictures as warm or cool, and train a model for each.

Here the tag is the mean b* of a picture: a warm one has more of it than the median training image. Both models refine
one base, start from the same weights and take the same steps, each on the images of its own tone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from colorbench.contract import Batch, Update
from colorbench_enhanced_unet.model import EnhancedUNet
from colorbench_enhanced_unet.options import ToneOptions


class TwoTones(nn.Module):
    """An `EnhancedUNet` for warm and one for cool images. Raises ValueError without a base.

    Which of them colors an image is the option `tone`: always the one named, or the one of the base's colors, or, as
    only a test can know it, of the truth.
    """

    measured = ("boundary",)
    boundary: Tensor  # float32 (), Lab units: the median over the training images of their mean b*

    def __init__(self, width: float, base: nn.Module | None, options: ToneOptions) -> None:
        super().__init__()
        self.tone = options.tone
        self.warm, self.cool = EnhancedUNet(width, base, options), EnhancedUNet(width, base, options)
        self.cool.load_state_dict(self.warm.state_dict())
        self.register_buffer("boundary", torch.zeros(()))
        self.notes = self.warm.notes

    def forward(self, L: Tensor, ab: Tensor | None = None) -> Tensor:
        """L (B, 1, H, W) in 0..100 -> ab float32 (B, 2, H, W) in Lab units. The tone "truth" needs that: `ab`, too.

        Raises ValueError where H or W is no multiple of 8.
        """
        return self.with_attention(L, ab)[0]

    def with_attention(self, L: Tensor, ab: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """What `forward` gives, and the attention map of the model that has colored each image; see `EnhancedUNet`."""
        if self.tone == "warm":
            return self.warm.with_attention(L)
        if self.tone == "cool":
            return self.cool.with_attention(L)
        (warm, warm_map), (cool, cool_map) = self.warm.with_attention(L), self.cool.with_attention(L)
        told_by = ab if self.tone == "truth" and ab is not None else self.warm.base(L)
        is_warm = self._is_warm(told_by)[:, None, None, None]
        maps = None if warm_map is None or cool_map is None else torch.where(is_warm, warm_map, cool_map)
        return torch.where(is_warm, warm, cool), maps

    def _is_warm(self, ab: Tensor) -> Tensor:
        """ab (B, 2, H, W) in Lab units -> bool (B,)."""
        return ab[:, 1].mean(dim=(1, 2)) > self.boundary

    def measure(self, batches: Iterator[Batch]) -> None:
        self.boundary.copy_(torch.cat([batch.ab[:, 1].mean(dim=(1, 2)) for batch in batches]).median())

    def updates(self, batch: Batch) -> Iterator[Update]:
        """Those of both, each of the images of its tone: the others' losses count 0 in the mean over the batch."""
        is_warm = self._is_warm(batch.ab)
        for player, network, own in (("warm", self.warm, is_warm), ("cool", self.cool, ~is_warm)):
            # Without such an image the step is still taken, by losses of 0: several processes wait for each other.
            chosen = own if own.any() else torch.ones_like(own)
            for update in network.updates(replace(batch, L=batch.L[chosen], ab=batch.ab[chosen])):
                yield Update({name: own.float().mean() * loss for name, loss in update.losses.items()}, player)
