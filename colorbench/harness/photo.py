"""Photos as files: read with all that they hold, and written as PNG."""

from __future__ import annotations

import io
import os
import struct
import sys
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from PIL.PngImagePlugin import putchunk

from colorbench.data.sources import FORMATS, to_rgb, upright
from colorbench.errors import UserError, one_line

MOST_PIXELS = 320_000_000  # of a photo; it then takes about 4 GB of memory
# The other order of the two bytes, by what Pillow calls an order: that of the big end, the little one, the machine's.
EXCHANGED = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
PNG = b"\x89PNG\r\n\x1a\n"

Picture = str | Path | Image.Image | np.ndarray


@dataclass(frozen=True)
class Photo:
    """An upright photo: `image` is RGB of 8 bit; `deep`, uint16 (h, w, 1 or 3), has its 16 bit if the file has so many.

    `alpha` is uint8 or uint16 (h, w), or None; `profile` is the ICC profile, empty if there is none for RGB.
    """

    image: Image.Image
    deep: np.ndarray | None = None
    alpha: np.ndarray | None = None
    profile: bytes = b""

    @property
    def shallow(self) -> Photo:
        """The same in 8 bit."""
        alpha = self.alpha if self.alpha is None or self.alpha.itemsize == 1 else (self.alpha // 257).astype(np.uint8)
        return replace(self, deep=None, alpha=alpha)


def read(photo: Picture) -> Photo:
    """A photo of a file, an image of PIL, or an array that PIL takes. Raises UserError if it cannot be read."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MOST_PIXELS // 2  # Pillow refuses from twice as many on
    name = one_line(str(photo)) if isinstance(photo, str | Path) else "the picture"
    try:
        return _decoded(_content(Path(photo)) if isinstance(photo, str | Path) else _as_png(photo))
    except (OSError, TypeError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {name}: {why}; name another photo") from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _decoded(content: bytes) -> Photo:
    image = upright(content)
    profile = image.info.get("icc_profile") or b""
    alpha, deep = None, _all_bits(image, content)
    if deep is not None and deep.shape[2] in (2, 4):
        deep, alpha = deep[..., :-1], deep[..., -1]
    elif image.has_transparency_data and not image.mode.startswith("I"):
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        alpha = alpha if deep is None else alpha.astype(np.uint16) * 257
    # A profile for grey or CMYK says nothing of RGB.
    return Photo(to_rgb(image), deep, alpha, profile if profile[16:20] == b"RGB " else b"")


def _all_bits(image: Image.Image, content: bytes) -> np.ndarray | None:
    """uint16 (h, w, 1 to 4) of an upright image, grey or color, with alpha or without; None if it has 8 bit.

    Of color, Pillow keeps the high bytes alone. The low ones are what it keeps if it takes them for the high ones.
    """
    if image.mode.startswith("I"):
        return np.asarray(image).clip(0, 65535).astype(np.uint16)[..., None]
    again = Image.open(io.BytesIO(content), formats=FORMATS)
    arguments = [(tile.args,) if isinstance(tile.args, str) else tile.args or ("",) for tile in again.tile]
    if not arguments:  # a WebP, which has 8 bit
        return None
    mode, _, order = str(arguments[0][0]).partition(";16")
    if mode not in ("LA", "RGB", "RGBA") or order not in EXCHANGED:
        return None
    other = "RGBA" if mode == "LA" else f"{mode};16{EXCHANGED[order]}"  # two channels of 16 bit are four of 8
    again.tile = [tile._replace(args=(other, *given[1:])) for tile, given in zip(again.tile, arguments, strict=True)]
    again.load()
    ImageOps.exif_transpose(again, in_place=True)
    low = np.asarray(again)
    if mode == "LA":
        return np.ascontiguousarray(low).view(">u2").astype(np.uint16)
    return (np.asarray(image).astype(np.uint16) << 8) + low


def _as_png(photo: Image.Image | np.ndarray) -> bytes:
    png = io.BytesIO()
    (photo if isinstance(photo, Image.Image) else Image.fromarray(photo)).save(png, "PNG", compress_level=1)
    return png.getvalue()


def _content(photo: Path) -> bytes:
    """Raises OSError or ValueError for what is no file: reading from a pipe or a device might never end."""
    if os.path.exists(photo) and not os.path.isdir(photo) and not os.path.isfile(photo):
        raise ValueError("it is a pipe or a device")
    return photo.read_bytes()


def png_of(colored: np.ndarray, photo: Photo) -> bytes:
    """A PNG of uint8 or uint16 RGB (h, w, 3), with the alpha and ICC profile of the photo."""
    if photo.alpha is not None:
        colored = np.concatenate((colored, photo.alpha[..., None]), axis=2)
    png = io.BytesIO()
    if colored.dtype == np.uint8:
        Image.fromarray(colored).save(png, format="PNG", icc_profile=photo.profile or None)
        return png.getvalue()
    # Pillow writes no color of 16 bit. The chunks are those of the PNG specification (W3C, third edition, 11).
    height, width, channels = colored.shape
    png.write(PNG)
    putchunk(png, b"IHDR", struct.pack(">2I5B", width, height, 16, 2 if channels == 3 else 6, 0, 0, 0))
    if photo.profile:
        putchunk(png, b"iCCP", b"ICC profile\0\0" + zlib.compress(photo.profile))
    packer = zlib.compressobj()
    for row in colored:
        difference = np.diff(row.astype(">u2").view(np.uint8).reshape(width, -1), axis=0, prepend=np.uint8(0))
        putchunk(png, b"IDAT", packer.compress(b"\1" + difference.tobytes()))  # filter 1: less the pixel to the left
    putchunk(png, b"IDAT", packer.flush())
    putchunk(png, b"IEND")
    return png.getvalue()
