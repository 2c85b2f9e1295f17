"""One photo of any size, colored at the size a model was trained for; its own luminance stays."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from colorbench.color import lab_to_rgb, recombine, rgb_to_lab
from colorbench.data.loader import to_lab
from colorbench.errors import UserError
from colorbench.harness.photo import Photo, Picture, read
from colorbench.harness.predict import colorize
from colorbench.harness.trained import Loaded

BAND = 1 << 20  # pixels recombined at once: in float32 they take 40 times their bytes
BICUBIC = Image.Resampling.BICUBIC
OPAQUE = 128  # the least alpha, of 255, that makes a pixel of a layer a hint


def color_picture(model: Loaded, picture: Picture, hints: Picture | None = None, intensity: float = 1.0) -> Image.Image:
    """What `color` makes of a picture, as an image of 8 bit; with alpha if the picture has it."""
    photo = read(picture).shallow
    given = None if hints is None else hints_of(hints, photo, model)
    colored = Image.fromarray(color(model, photo, given, intensity))
    if photo.alpha is not None:
        colored.putalpha(Image.fromarray(photo.alpha))
    return colored


def color(model: Loaded, photo: Photo, hints: Tensor | None = None, intensity: float = 1.0) -> np.ndarray:
    """The photo with predicted color, uint8 or uint16 RGB (h, w, 3); ab is multiplied by `intensity`.

    The photo is mirrored out to a square and shrunk to the model's size, which every network takes; the predicted ab
    is enlarged again. Color needs less resolution than luminance, which is never resized. `hints` are those of
    `hints_of`.
    """
    width, height = photo.image.size
    side, inputs = max(width, height), {} if hints is None else {"hints": hints}
    left, top, scale = (side - width) // 2, (side - height) // 2, model.size / side
    ab = colorize(model.network, _luminance(_shrunk_square(photo.image, model.size)), **inputs)[0] * intensity
    planes = [Image.fromarray(plane) for plane in ab.cpu().numpy()]
    colored = np.empty((height, width, 3), np.uint8 if photo.deep is None else np.uint16)
    rows = max(1, BAND // width)
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        box = (left * scale, (top + start) * scale, (left + width) * scale, (top + stop) * scale)
        enlarged = np.stack([np.asarray(plane.resize((width, stop - start), BICUBIC, box)) for plane in planes])
        colored[start:stop] = _recolored(photo, enlarged, start)
    return colored


def hints_of(layer: Picture, photo: Photo, model: Loaded) -> Tensor:
    """A picture of the photo's size whose opaque pixels are hints -> float32 (1, 3, size, size), as `forward` has them.

    A hint of the model is the mean ab of the hints within its pixel. Raises UserError if the layer has another size or
    no opaque pixel, and for a model that takes no hints.
    """
    if "hints" not in model.spec.takes:
        raise UserError(f"{model.spec.name!r} takes no hints; name a model that does")
    try:
        painted = read(layer).shallow
    except UserError as error:
        raise UserError(f"the hints: {error}") from error
    if painted.alpha is None or painted.image.size != photo.image.size:
        what = "has no transparency" if painted.alpha is None else "is {}x{} pixels".format(*painted.image.size)
        due = "{}x{} pixels".format(*photo.image.size)
        raise UserError(f"the hints: the picture {what}; give a layer of {due}, transparent but for the hints")
    width, height = photo.image.size
    side, size = max(width, height), model.size
    steps = -(-size // side)  # of a photo smaller than the model's input, each pixel is several of these
    layers = np.asarray(painted.image), painted.alpha
    rgb, alpha = (layer.repeat(steps, 0).repeat(steps, 1) for layer in layers)
    y, x = np.nonzero(alpha >= OPAQUE)
    if not len(y):
        raise UserError("the hints: no pixel of the picture is opaque; paint the hints on a transparent layer")
    ab = to_lab(rgb[y, x][None, None], torch.device("cpu"))[1][0, :, 0].numpy()
    left, top, whole = (side - width) // 2 * steps, (side - height) // 2 * steps, side * steps
    cell = (y + top) * size // whole * size + (x + left) * size // whole
    count = np.bincount(cell, minlength=size * size)
    means = [np.bincount(cell, plane, size * size) / count.clip(1) for plane in ab]
    return torch.from_numpy(np.stack([*means, count > 0]).reshape(1, 3, size, size).astype(np.float32))


def _recolored(photo: Photo, ab: np.ndarray, start: int) -> np.ndarray:
    """The rows of a photo from `start` on with other ab, (2, rows, w) -> uint8 or uint16 (rows, w, 3)."""
    stop, given = start + ab.shape[1], torch.from_numpy(ab)[None]
    if photo.deep is None:
        band = np.asarray(photo.image.crop((0, start, photo.image.width, stop)))
        return recombine(_luminance(band), given)[0].permute(1, 2, 0).numpy()
    rgb = torch.from_numpy(photo.deep[start:stop].astype(np.float32) / 65535).permute(2, 0, 1)
    L = rgb_to_lab(rgb.expand(3, -1, -1))[None, :1]
    levels = lab_to_rgb(torch.cat((L, given), dim=1))[0].mul(65535).round()
    return levels.permute(1, 2, 0).numpy().astype(np.uint16)


def _shrunk_square(image: Image.Image, size: int) -> np.ndarray:
    """uint8 RGB (size, size, 3). The longer side is shrunk before the shorter is mirrored out: that costs little."""
    width, height = image.size
    side = max(width, height)
    left, top = (side - width) // 2, (side - height) // 2
    narrow = np.asarray(image.resize((size, height) if width >= height else (width, size), BICUBIC))
    around = ((top, side - height - top), (left, side - width - left), (0, 0))
    return np.asarray(Image.fromarray(np.pad(narrow, around, mode="symmetric")).resize((size, size), BICUBIC))


def _luminance(pixels: np.ndarray) -> Tensor:
    return to_lab(pixels[None], torch.device("cpu"))[0]
