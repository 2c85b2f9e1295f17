"""Images -> predicted pictures -> scores, under the protocol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from colorbench.color import recombine, rgb_to_lab
from colorbench.contract import MetricSpec
from colorbench.data.cache import Images
from colorbench.metrics import score
from colorbench.metrics.details import details

BATCH = 16  # fixed: scores must not depend on a setting of the training


def to_lab(pixels: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """uint8 RGB (B, H, W, 3) -> L (B, 1, H, W) in 0..100 and ab (B, 2, H, W), float32, on the device.

    Moved as bytes, converted there: a quarter of the traffic.
    """
    return rgb_to_lab(to_rgb(pixels, device).float() / 255).split((1, 2), dim=1)


def to_rgb(pixels: np.ndarray, device: torch.device) -> Tensor:
    """uint8 (B, H, W, 3) -> uint8 (B, 3, H, W) on the device."""
    return torch.from_numpy(np.array(pixels)).to(device, non_blocking=True).permute(0, 3, 1, 2)


def to_pixels(rgb: Tensor) -> np.ndarray:
    """uint8 (B, 3, H, W), on any device -> (B, H, W, 3): what `to_rgb` undoes."""
    return rgb.permute(0, 2, 3, 1).cpu().numpy()


def colorize(network: nn.Module, L: Tensor) -> Tensor:
    """ab of L, in evaluation mode and float32. Raises ValueError when the network breaks the contract."""
    with _as_scored(network):
        return _checked(network(L), L)


def colorize_with_attention(network: nn.Module, L: Tensor) -> tuple[Tensor, Tensor | None]:
    """The same ab, and the network's attention map as the contract has it; None if it has none."""
    if not hasattr(network, "with_attention"):
        return colorize(network, L), None
    with _as_scored(network):
        ab, maps = network.with_attention(L)  # type: ignore[operator]
    if maps is not None and (maps.ndim != 4 or maps.shape[:2] != (len(L), 1) or not ((maps >= 0) & (maps <= 1)).all()):
        raise ValueError(f"with_attention returned a map {tuple(maps.shape)}; (B, 1, h, w) in 0..1, or None, is due")
    return _checked(ab, L), maps


@contextmanager
def _as_scored(network: nn.Module) -> Iterator[None]:
    network.eval()
    # Without TF32, in which float32 has 10 bits on a GPU of NVIDIA.
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def _checked(ab: Tensor, L: Tensor) -> Tensor:
    if ab.shape != (len(L), 2, *L.shape[2:]) or ab.dtype != torch.float32:
        raise ValueError(
            f"the network returned {ab.dtype} {tuple(ab.shape)} for L {tuple(L.shape)}; float32 (B, 2, H, W) is due"
        )
    if not ab.isfinite().all():
        raise ValueError("the network returned values that are not finite")
    return ab


@dataclass
class Scored:
    """What a network did on a split: `scores` and `details` have a row per image, named in the column `image`.

    `samples` are pictures for the figures: `predicted` uint8 (K, H, W, 3), the first of the split; `attention` uint8
    (K, h, w), the network's map, if it has one; `worst`, `worst_truth`, `worst_name` and `worst_mse`, the images of
    the largest MSE, the worst first.
    """

    scores: pd.DataFrame
    details: pd.DataFrame
    samples: dict[str, np.ndarray]


def score_all(
    network: nn.Module, images: Images, device: torch.device, extra: Iterable[MetricSpec], keep: int, worst: int
) -> Scored:
    """Score every image; keep the predictions of the first `keep` and of the `worst`."""
    extra, kept = tuple(extra), _Kept(keep, worst)
    scores, detailed = [], []
    for start in range(0, len(images), BATCH):
        place = slice(start, start + BATCH)
        truth = to_rgb(images.pixels[place], device)
        L = rgb_to_lab(truth.float() / 255)[:, :1]
        ab, maps = colorize_with_attention(network, L)
        predicted = recombine(L, ab)
        frame = score(predicted, truth, extra)
        scores.append(_named(frame, images.names[place]))
        detailed.append(_named(details(predicted, truth, _parts(images, place, device), maps), images.names[place]))
        kept.add(start, predicted, truth, maps, frame["mse"].to_numpy())
    table = pd.concat(scores, ignore_index=True)
    return Scored(table, pd.concat(detailed, ignore_index=True), kept.arrays(images.names))


class _Kept:
    """The pictures worth keeping, of a split that passes by in batches."""

    def __init__(self, first: int, worst: int) -> None:
        self.first, self.count = first, worst
        self.predicted: list[np.ndarray] = []
        self.attention: list[np.ndarray] = []
        self.worst: list[tuple[float, int, np.ndarray, np.ndarray]] = []  # MSE, place in the split, predicted, truth

    def add(self, start: int, predicted: Tensor, truth: Tensor, maps: Tensor | None, mse: np.ndarray) -> None:
        if start < self.first:
            self.predicted.append(to_pixels(predicted))
            if maps is not None:
                self.attention.append((maps[:, 0] * 255).round().byte().cpu().numpy())
        for i in np.argsort(-mse)[: self.count]:
            self.worst.append((mse[i], start + int(i), to_pixels(predicted[i : i + 1]), to_pixels(truth[i : i + 1])))
        self.worst = sorted(self.worst, key=lambda entry: (-entry[0], entry[1]))[: self.count]

    def arrays(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        mse, places, predicted, truth = zip(*self.worst, strict=True)
        worst = {"worst": np.concatenate(predicted), "worst_truth": np.concatenate(truth), "worst_mse": np.array(mse)}
        maps = {"attention": np.concatenate(self.attention)[: self.first]} if self.attention else {}
        named = {"worst_name": np.array([names[place] for place in places])}
        return {"predicted": np.concatenate(self.predicted)[: self.first], **maps, **worst, **named}


def _parts(images: Images, place: slice, device: torch.device) -> dict[str, Tensor]:
    if images.parts is None:
        return {}
    parts = torch.from_numpy(np.array(images.parts[place])).to(device)
    return {name: parts == number for number, name in enumerate(images.part_names)}


def _named(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    frame.insert(0, "image", names)
    return frame
