"""One photo of any size, colored at the size a model was trained for; its own luminance stays."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from colorbench.color import recombine
from colorbench.data.cache import fit
from colorbench.data.sources import FilePicture
from colorbench.errors import UserError
from colorbench.harness.load import PUBLISHED_SIZE, load_model
from colorbench.harness.predict import colorize, to_lab
from colorbench.plugins import Registry
from colorbench.runs.folder import RunFolder, write_aside


def colorize_file(photo: Path, out: Path, model: str, run: str | None, weights: str | None, registry: Registry) -> None:
    """Color `photo` and write a PNG of the same size. Raises UserError when it cannot be read or written."""
    network = load_model(model, weights, run, registry=registry)
    size = RunFolder(run).record["preset"]["size"] if run else PUBLISHED_SIZE
    try:
        pixels = FilePicture(photo.name, photo.read_bytes).load(size)
    except OSError as error:
        raise UserError(f"cannot read {photo}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"cannot read {photo}: {error}") from error
    png = io.BytesIO()
    Image.fromarray(colorize_pixels(network, pixels, size)).save(png, format="PNG")
    try:
        write_aside(out, png.getvalue())
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; name another file with --out") from error


def colorize_pixels(network: nn.Module, pixels: np.ndarray, size: int) -> np.ndarray:
    """uint8 RGB (h, w, 3) -> the same with predicted color, uint8 (h, w, 3).

    The photo is mirrored out to a square and shrunk to `size`, which every network takes; the predicted ab is
    enlarged again. Color needs less resolution than luminance, which is never resized.
    """
    height, width = pixels.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.pad(pixels, ((top, side - height - top), (left, side - width - left), (0, 0)), mode="symmetric")
    ab = colorize(network, _luminance(fit(square, size)))
    ab = F.interpolate(ab, (side, side), mode="bicubic", antialias=True)[..., top : top + height, left : left + width]
    return recombine(_luminance(pixels), ab)[0].permute(1, 2, 0).numpy()


def _luminance(pixels: np.ndarray) -> Tensor:
    return to_lab(pixels[None], torch.device("cpu"))[0]
