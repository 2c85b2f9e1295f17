"""LPIPS, with VGG16, by piq."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from colorbench_metrics.weights import load

LAYERS = ("3", "8", "15", "22", "29")  # relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3 of VGG16
CHANNELS = (64, 128, 256, 512, 512)  # of each


def lpips(predicted: Tensor, truth: Tensor, files: tuple[tuple[Path, str], ...]) -> Tensor:
    """float32 (B,) of uint8 RGB (B, 3, H, W); `files` are VGG16's weights and those of its layers, with SHA-256."""
    return _network(files)(*((images / 255).contiguous() for images in (predicted, truth)))


@cache
def _network(files: tuple[tuple[Path, str], ...]) -> nn.Module:
    return network(*(load(file, sha256) for file, sha256 in files))


def network(vgg16: dict[str, Tensor], weights: Any) -> nn.Module:
    """piq's LPIPS with these weights: its own constructor would download them, and unpickle whatever they are.

    Raises ValueError for weights of other layers.
    """
    from piq.perceptual import ContentLoss
    from torchvision.models import vgg16 as architecture

    due = [(1, channels, 1, 1) for channels in CHANNELS]
    if not isinstance(weights, list | tuple) or [tuple(getattr(each, "shape", ())) for each in weights] != due:
        raise ValueError(f"the weights of the layers are not a list of tensors of shape {', '.join(map(str, due))}")
    if not all(each.is_floating_point() and each.isfinite().all() for each in weights):
        raise ValueError("the weights of the layers are not all finite numbers")
    layers = architecture(weights=None).features
    prefix = "features."
    layers.load_state_dict({name.removeprefix(prefix): w for name, w in vgg16.items() if name.startswith(prefix)})
    return ContentLoss(layers.eval(), LAYERS, weights=[*weights], reduction="none", normalize_features=True)
