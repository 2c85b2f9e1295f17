"""One picture as the protocol's input: cropped, resized, and marked where it is near grey."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from colorbench.color import rgb_to_lab
from colorbench.errors import reason, whatever_raised, words_of
from colorbench.protocol import Protocol

ARRAY_NAME = r"[a-z][a-z0-9_]{0,63}"  # a keyword of `forward`, and a part of a file's name
ARRAY_TYPES = ("bool", "uint8", "int64", "float32")
MOST_MASKS = 255  # the figures number them in bytes
LARGEST_ARRAY = 1 << 30  # bytes; twice a picture of as many pixels as Pillow reads
OWN_INPUTS = ("ab", "hints")  # what the protocol calls its own


class Decoded(NamedTuple):
    """A picture that could be read, with its further arrays, by name, if these were asked for."""

    pixels: np.ndarray  # uint8 (size, size, 3)
    near_grey: bool
    arrays: dict[str, np.ndarray]


def decode_picture(picture: Any, protocol: Protocol, with_arrays: bool) -> Decoded | str:
    """The picture, or in one line why there is none."""
    size = protocol.size
    try:
        pixels = np.asarray(picture.load(size))
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
            raise ValueError(f"the dataset gave {pixels.dtype} {pixels.shape}; uint8 (h, w, 3) is due")
        _refuse_large("a picture", pixels)
        arrays = _checked(picture.arrays(size), size) if with_arrays else {}
    except (OSError, ValueError) as error:
        return " ".join(str(getattr(error, "strerror", None) or words_of(error)).split())
    except whatever_raised() as error:  # a dataset is a plugin: it may raise anything
        return reason(error)
    pixels = fitted(pixels, protocol)
    return Decoded(pixels, _is_near_grey(pixels, protocol.near_grey), arrays)


def _checked(arrays: Mapping[str, Any], size: int) -> dict[str, np.ndarray]:
    """The arrays of a picture. Raises ValueError for what the contract does not allow."""
    checked = {name: np.asarray(array) for name, array in arrays.items()}
    if (masks := sum(array.dtype == bool for array in checked.values())) > MOST_MASKS:
        raise ValueError(f"the dataset gave {masks} masks of parts; give up to {MOST_MASKS}, or arrays of another type")
    for name, array in checked.items():
        if not re.fullmatch(ARRAY_NAME, name) or name in OWN_INPUTS:
            raise ValueError(
                f"the dataset calls an array {name!r}; use up to 64 lower-case letters, digits and _ for another"
            )
        _refuse_large(name, array)
        if array.dtype not in ARRAY_TYPES:
            raise ValueError(f"the dataset gave {name} as {array.dtype}; one of {', '.join(ARRAY_TYPES)} is due")
        if array.dtype == bool and array.shape != (size, size):
            raise ValueError(f"the dataset gave the mask {name} as {array.shape}; {(size, size)} is due")
    return checked


def _refuse_large(name: str, array: np.ndarray) -> None:
    """Raises ValueError for an array that memory may not hold: one that repeats a number can claim any size."""
    if array.nbytes > LARGEST_ARRAY:
        raise ValueError(f"the dataset gave {name} of {array.nbytes:,} bytes; give up to {LARGEST_ARRAY:,}")


def fitted(image: np.ndarray, protocol: Protocol) -> np.ndarray:
    """uint8 RGB (h, w, 3) -> (size, size, 3), cropped and resized; an image that is of this size stays as it is."""
    cropped, size = CROPS[protocol.crop](image), protocol.size
    return cropped if cropped.shape[:2] == (size, size) else RESIZES[protocol.resize](cropped, size)


def _center_square(image: np.ndarray, half: Callable[[float], float]) -> np.ndarray:
    """The largest square, its corner at `half` of what is left over."""
    side = min(image.shape[:2])
    top, left = (int(half((length - side) / 2)) for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def _by_pillow(image: np.ndarray, size: int, resampling: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((size, size), resampling))


def _by_two_neighbors(image: np.ndarray, size: int) -> np.ndarray:
    """Bilinear between the nearest pixels, however many are left out: without the antialiasing that Pillow has."""
    planes = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    resized = torch.nn.functional.interpolate(planes, (size, size), mode="bilinear", align_corners=False)
    return resized[0].permute(1, 2, 0).round().byte().numpy()


# What the fields of a protocol may say.
CROPS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "center-square": partial(_center_square, half=math.floor),
    "center-square-rounded": partial(_center_square, half=round),  # torchvision's CenterCrop: to even at a half
    "none": lambda image: image,
}
RESIZES: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "pillow-bicubic": partial(_by_pillow, resampling=Image.Resampling.BICUBIC),
    "pillow-bilinear": partial(_by_pillow, resampling=Image.Resampling.BILINEAR),
    "opencv-bilinear": _by_two_neighbors,
}


def _is_near_grey(image: np.ndarray, limit: float) -> bool:
    """Whether |ab| is at most `limit` in every pixel; the field drops such images from training, since they teach
    desaturation."""
    # A few pixels show that most images are not: the others cost as much as reading the file.
    return all(_largest_ab(part) <= limit for part in (image[::8, ::8], image))


def _largest_ab(image: np.ndarray) -> float:
    rgb = torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255
    return float(rgb_to_lab(rgb)[1:].abs().max())
