"""One picture as the protocol's input: cropped, resized, and marked where it is near grey."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from colorbench.color import rgb_to_lab
from colorbench.protocol import Protocol


class Decoded(NamedTuple):
    """A picture that could be read, with its masks if these were asked for."""

    pixels: np.ndarray  # uint8 (size, size, 3)
    near_grey: bool
    parts: np.ndarray  # uint8 (size, size), an index into `part_names`; of no size without masks
    part_names: list[str]


def decode_picture(picture: Any, protocol: Protocol, masked: bool) -> Decoded | str:
    """The picture, or in one line why there is none. `masked`: its masks are read as well."""
    size = protocol.size
    try:
        pixels = np.asarray(picture.load(size))
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
            raise ValueError(f"the dataset gave {pixels.dtype} {pixels.shape}; uint8 (h, w, 3) is due")
        masks = picture.masks(size) if masked else {}
        # One number a pixel, not a mask a part: many pictures wait to be written.
        parts = np.stack([*masks.values()]).argmax(0).astype(np.uint8) if masked else np.zeros(0, np.uint8)
        if masked and parts.shape != (size, size):
            raise ValueError(f"the dataset gave masks of shape {parts.shape}; {(size, size)} is due")
    except (OSError, ValueError) as error:
        return " ".join(str(getattr(error, "strerror", None) or error).split())
    except (Exception, SystemExit) as error:  # a dataset is a plugin: it may raise anything
        return " ".join(f"{type(error).__name__}: {error}".split())
    pixels = CROPS[protocol.crop](pixels, size, RESIZES[protocol.resize])
    return Decoded(pixels, _is_near_grey(pixels, protocol.near_grey), parts, list(masks))


def center_crop_resize(image: np.ndarray, size: int, resampling: Image.Resampling) -> np.ndarray:
    """uint8 RGB (h, w, 3) -> (size, size, 3): the largest square around the center, resized."""
    height, width = image.shape[:2]
    if height == width == size:
        return image
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    square = Image.fromarray(image[top : top + side, left : left + side])
    return np.asarray(square.resize((size, size), resampling))


# What the fields of a protocol may say.
CROPS: dict[str, Callable[[np.ndarray, int, Image.Resampling], np.ndarray]] = {"center-square": center_crop_resize}
RESIZES = {"pillow-bicubic": Image.Resampling.BICUBIC}


def _is_near_grey(image: np.ndarray, limit: float) -> bool:
    """Whether |ab| is at most `limit` in every pixel; the field drops such images from training, since they teach
    desaturation."""
    rgb = torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255
    return bool(rgb_to_lab(rgb)[1:].abs().max() <= limit)
