"""Images -> predicted pictures -> scores, under the protocol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from colorbench.color import recombine, rgb_to_lab
from colorbench.contract import MetricSpec
from colorbench.data.cache import Images
from colorbench.metrics import score

BATCH = 16  # fixed: scores must not depend on a setting of the training


def to_lab(pixels: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """uint8 RGB (B, H, W, 3) -> L (B, 1, H, W) in 0..100 and ab (B, 2, H, W), float32, on the device.

    Moved as bytes, converted there: a quarter of the traffic.
    """
    return rgb_to_lab(to_rgb(pixels, device).float() / 255).split((1, 2), dim=1)


def to_rgb(pixels: np.ndarray, device: torch.device) -> Tensor:
    """uint8 (B, H, W, 3) -> uint8 (B, 3, H, W) on the device."""
    return torch.from_numpy(np.array(pixels)).to(device, non_blocking=True).permute(0, 3, 1, 2)


@torch.no_grad()
def colorize(network: nn.Module, L: Tensor) -> Tensor:
    """ab of L, in evaluation mode and float32. Raises ValueError when the network breaks the contract."""
    network.eval()
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # else float32 has 10 bits on a GPU of NVIDIA
        ab = network(L)
    if ab.shape != (len(L), 2, *L.shape[2:]) or ab.dtype != torch.float32:
        raise ValueError(
            f"the network returned {ab.dtype} {tuple(ab.shape)} for L {tuple(L.shape)}; float32 (B, 2, H, W) is due"
        )
    if not ab.isfinite().all():
        raise ValueError("the network returned values that are not finite")
    return ab


def predictions(network: nn.Module, images: Images, device: torch.device) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """For each batch: its place in the split, predicted and true pictures, uint8 RGB (B, 3, H, W)."""
    for start in range(0, len(images), BATCH):
        place = slice(start, start + BATCH)
        truth = to_rgb(images.pixels[place], device)
        L = rgb_to_lab(truth.float() / 255)[:, :1]
        yield place, recombine(L, colorize(network, L)), truth


def score_all(
    network: nn.Module, images: Images, device: torch.device, extra: Iterable[MetricSpec], keep: int
) -> tuple[pd.DataFrame, np.ndarray]:
    """Scores of every image, named in the column `image`; and the first `keep` predictions, uint8 (K, H, W, 3)."""
    frames, samples, extra = [], [], tuple(extra)
    for place, predicted, truth in predictions(network, images, device):
        frame = score(predicted, truth, extra)
        frame.insert(0, "image", images.names[place])
        frames.append(frame)
        if place.start < keep:
            samples.append(predicted.permute(0, 2, 3, 1).cpu().numpy())
    return pd.concat(frames, ignore_index=True), np.concatenate(samples)[:keep]
