"""One photo of any size, colored at the size a model was trained for; its own luminance stays."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from colorbench.color import recombine
from colorbench.data.loader import to_lab
from colorbench.data.sources import decode
from colorbench.errors import UserError, one_line
from colorbench.harness.predict import colorize
from colorbench.harness.trained import load_model
from colorbench.plugins import load
from colorbench.runs.folder import RunFolder, write_aside

MOST_PIXELS = 320_000_000  # of a photo; it then takes about 4 GB of memory
BAND = 1 << 20  # pixels recombined at once: in float32 they take 40 times their bytes
BICUBIC = Image.Resampling.BICUBIC


def colorize_file(
    photo: Path, out: Path | None, model: str, run: str | None, weights: str | None, plugins: Iterable[str | Path]
) -> Path:
    """Color `photo` and write a PNG of the same size: `out`, or PHOTO-MODEL.png in the current folder. Returns it.

    Not beside the photo: in a folder of data it would be taken for one of the true pictures.

    Raises UserError when the photo cannot be read, or when `out` is the photo itself, is no .png or cannot be written.
    """
    if out is not None:
        _refuse_out(out, photo)
    network = load_model(model, weights, run, plugins=plugins)
    size = RunFolder(run).record.preset.size if run else load(plugins).specs["model"][model].published_size
    png = io.BytesIO()
    colorize_image(network, opened(photo), size).save(png, format="PNG")
    out = out or Path(f"{photo.stem}-{model.replace('/', '-')}.png")
    try:
        write_aside(out, png.getvalue())
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; name another file with --out") from error
    return out


def opened(photo: str | Path | Image.Image | np.ndarray) -> Image.Image:
    """A photo as RGB: of a file, an image of PIL, or uint8 RGB (h, w, 3). Raises UserError if it cannot be read."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MOST_PIXELS // 2  # Pillow refuses from twice as many on
    name = one_line(str(photo)) if isinstance(photo, str | Path) else "the picture"
    try:
        return decode(_content(Path(photo)) if isinstance(photo, str | Path) else _as_png(photo))
    except (OSError, TypeError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {name}: {why}; name another photo") from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _as_png(photo: Image.Image | np.ndarray) -> bytes:
    png = io.BytesIO()
    (photo if isinstance(photo, Image.Image) else Image.fromarray(photo)).save(png, "PNG", compress_level=1)
    return png.getvalue()


def _content(photo: Path) -> bytes:
    """Raises OSError or ValueError for what is no file: reading from a pipe or a device might never end."""
    if os.path.exists(photo) and not os.path.isdir(photo) and not os.path.isfile(photo):
        raise ValueError("it is a pipe or a device")
    return photo.read_bytes()


def _refuse_out(out: Path, photo: Path) -> None:
    if out.suffix.lower() != ".png":
        raise UserError(f"cannot write {str(out)!r}: a PNG is written; name a file that ends in .png with --out")
    if not os.path.isdir(out.parent):
        raise UserError(f"cannot write {out}: there is no folder {out.parent}; name another file with --out")
    if os.path.exists(out) and os.path.exists(photo) and os.path.samefile(out, photo):
        raise UserError(f"cannot write {out}: it is the photo itself; name another file with --out")


def colorize_image(network: nn.Module, image: Image.Image, size: int) -> Image.Image:
    """RGB image of any size -> the same with predicted color.

    The photo is mirrored out to a square and shrunk to `size`, which every network takes; the predicted ab is
    enlarged again. Color needs less resolution than luminance, which is never resized.
    """
    width, height = image.size
    side = max(width, height)
    left, top, scale = (side - width) // 2, (side - height) // 2, size / side
    ab = colorize(network, _luminance(_shrunk_square(image, size)))[0].cpu().numpy()
    planes = [Image.fromarray(plane) for plane in ab]
    colored = Image.new("RGB", image.size)
    rows = max(1, BAND // width)
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        box = (left * scale, (top + start) * scale, (left + width) * scale, (top + stop) * scale)
        enlarged = np.stack([np.asarray(plane.resize((width, stop - start), BICUBIC, box)) for plane in planes])
        band = np.asarray(image.crop((0, start, width, stop)))
        rgb = recombine(_luminance(band), torch.from_numpy(enlarged)[None])
        colored.paste(Image.fromarray(rgb[0].permute(1, 2, 0).contiguous().numpy()), (0, start))
    return colored


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
