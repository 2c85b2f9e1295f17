"""R. Zhang, P. Isola, A. A. Efros: Colorful Image Colorization, ECCV 2016, section 2.

Classes of ab, the loss on them, and the color that a distribution over them stands for.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import ConvexHull
from torch import Tensor, nn

from colorbench.color import rgb_to_lab
from colorbench_classification.options import Options

STEP = 10.0  # Lab units between neighboring classes


@cache
def in_gamut() -> np.ndarray:
    """The ab of the classes, float32 (313, 2) in Lab units: ascending in a, then in b.

    They are the corners of the cells of a grid of 10 units that the convex hull of all sRGB colors reaches into: in
    each of a and b, less than 10 units from that hull. This gives the authors' list (`pts_in_hull.npy`, also printed in
    OpenCV's `samples/dnn/colorization.cpp`), in its order, on which published weights depend.
    """
    values = torch.linspace(0, 1, 18, device="cpu")
    colors = rgb_to_lab(torch.cartesian_prod(values, values, values).T[:, :, None])[1:, :, 0].T.double().numpy()
    reach = STEP * np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)])
    sides = ConvexHull((colors[:, None] + reach).reshape(-1, 2)).equations  # (sides, 3): a, b, 1 -> below 0 inside
    axis = STEP * np.arange(-13, 14)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    inside = (grid @ sides[:, :2].T + sides[:, 2] < 0).all(axis=1)
    return grid[inside].astype(np.float32)


class ColorClasses(nn.Module):
    """Q = 313 classes of ab.

    Buffers: `centers` (Q, 2) in Lab units, `prior` (Q,) with the sum 1, and `temperature`. `measure` sets the last two
    from training images and the options; before, the prior is uniform and the temperature is 1.
    """

    centers: Tensor
    prior: Tensor
    temperature: Tensor

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.options = options
        self.register_buffer("centers", torch.from_numpy(in_gamut()), persistent=False)
        self.register_buffer("prior", torch.full((len(self.centers),), 1 / len(self.centers)))
        self.register_buffer("temperature", torch.tensor(1.0))

    def encode(self, ab: Tensor) -> Tensor:
        """ab (B, 2, H, W) in Lab units -> distributions (B, Q, H, W): each color shared by the nearest classes."""
        flat = ab.movedim(1, -1).reshape(-1, 2)
        distance = torch.cdist(flat, self.centers, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = distance.topk(self.options.neighbors, largest=False)
        shares = (-nearest.values.square() / (2 * self.options.sigma**2)).softmax(dim=1)
        code = torch.zeros_like(distance).scatter_(1, nearest.indices, shares)
        return code.unflatten(0, (len(ab), *ab.shape[2:])).movedim(-1, 1)

    def measure(self, colors: Iterator[Tensor]) -> None:
        """Set the prior to the mean of the encoded colors, each (B, 2, H, W), and the temperature to the option's.

        The paper counts colors and smooths the counts with a Gaussian of sigma 5; here each color is counted as it is
        encoded, with that Gaussian around it.
        """
        total = torch.zeros_like(self.prior, dtype=torch.float64)
        for ab in colors:
            total += self.encode(ab).sum(dim=(0, 2, 3), dtype=torch.float64)
        self.prior.copy_(total / total.sum())
        self.temperature.fill_(self.options.temperature)

    def weights(self) -> Tensor:
        """The weight of each class, (Q,): larger for rarer ones, 1 in the mean over the prior."""
        uniform = self.options.uniform
        weights = 1 / ((1 - uniform) * self.prior + uniform / len(self.prior))
        return weights / (self.prior * weights).sum()

    def loss(self, logits: Tensor, ab: Tensor) -> Tensor:
        """logits (B, Q, h, w), true ab (B, 2, h, w) -> weighted cross-entropy; each pixel has its nearest class's."""
        target = self.encode(ab)
        losses = F.cross_entropy(logits.float(), target, reduction="none")  # (B, h, w)
        return (self.weights()[target.argmax(dim=1)] * losses).mean()

    def distribution(self, logits: Tensor) -> Tensor:
        """logits (B, Q, h, w) -> float32 of the same shape: the annealed distribution, whose mean is the answer."""
        return (logits.float() / self.temperature).softmax(dim=1)
