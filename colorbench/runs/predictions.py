"""Predictions on disk: a zip of PNGs under the images' names, so that any other tool can read them."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from colorbench.errors import reason

HEADERS = 2**16  # bytes in a PNG beside its pixels, at most


def picture_name(image: str) -> str:
    """The name of an image's prediction in the zip: its own, and ".png" unless that is its ending."""
    return image if image.lower().endswith(".png") else f"{image}.png"


class PictureWriter:
    """Writes pictures beside `file` until `commit` puts them there; without it they leave nothing behind."""

    def __init__(self, file: Path) -> None:
        self.file, self.aside = file, file.with_name(f".{file.name}.{os.getpid()}")
        self.archive = zipfile.ZipFile(self.aside, "w")

    def add(self, image: str, pixels: np.ndarray) -> None:
        """One picture, uint8 (h, w, 3) or (h, w)."""
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, "PNG", compress_level=1)  # lossless at any level; 1 is the fast one
        self.archive.writestr(zipfile.ZipInfo(picture_name(image)), png.getvalue())

    def commit(self) -> str:
        """Put the zip in its place. Returns its SHA-256."""
        self.archive.close()
        checksum = file_sha256(self.aside)
        self.aside.replace(self.file)
        return checksum

    def discard(self) -> None:
        """Leave nothing behind, unless it is in its place already."""
        self.archive.close()
        self.aside.unlink(missing_ok=True)


def read_pictures(file: Path, images: Sequence[str], mode: str, size: int) -> Iterator[np.ndarray]:
    """The predictions of `images`, in that order: "RGB" of this size, or "L" up to it.

    Raises ValueError naming the image of which there is no such picture; what is larger is not unpacked.
    """
    with zipfile.ZipFile(file) as archive:
        for image in images:
            try:
                member = archive.getinfo(picture_name(image))
                if member.file_size > 2 * 3 * size**2 + HEADERS:
                    raise ValueError(f"{member.file_size} bytes")
                with Image.open(io.BytesIO(archive.read(member)), formats=["PNG"]) as picture:
                    fits = picture.size == (size, size) if mode == "RGB" else max(picture.size) <= size
                    if picture.mode != mode or not fits:
                        raise ValueError(f"{picture.mode}, {picture.width} x {picture.height} pixels")
                    yield np.asarray(picture)
            except Exception as error:  # of what is damaged, zipfile, zlib and Pillow raise all kinds
                raise ValueError(
                    f"{file} has no picture of {image} ({reason(error)}); remove it: colorbench run predicts it again"
                ) from error


def file_sha256(file: Path) -> str:
    """The SHA-256 of a file of any size. Raises OSError."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
