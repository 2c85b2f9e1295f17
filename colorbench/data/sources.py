"""Image files in a folder or a zip, as pictures that can be hashed and decoded."""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
SMALLEST_SIDE = 8  # below it there is nothing to see: a tracking pixel, a broken thumbnail


@dataclass(frozen=True)
class FilePicture:
    """One image file. `name` is its path inside the folder or zip, with forward slashes."""

    name: str
    read: Callable[[], bytes]

    @property
    def digest(self) -> str:
        """BLAKE2b of the file's bytes: the same file hashes alike in a folder and in a zip. Raises OSError."""
        return hashlib.blake2b(self._content(), digest_size=16).hexdigest()

    def load(self, size: int) -> np.ndarray:
        """uint8 RGB (h, w, 3), upright. Raises OSError or ValueError with the reason if that cannot be had."""
        return np.asarray(decode(self._content()).convert("RGB"))

    def _content(self) -> bytes:
        try:
            return self.read()
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, zlib.error) as error:
            # A damaged, encrypted or oddly compressed member of a zip is to its caller a file that cannot be read.
            raise OSError(str(error)) from error


def decode(data: bytes) -> Image.Image:
    """A file's bytes -> an upright image, 8 bits a channel. Raises ValueError with the reason if it is none."""
    try:
        with Image.open(io.BytesIO(data)) as opened:
            image = ImageOps.exif_transpose(opened)
    except Exception as error:  # Pillow raises a dozen types on broken files; each means the same to us
        reason = "not an image" if isinstance(error, Image.UnidentifiedImageError) else f"broken image: {error}"
        raise ValueError(reason) from error
    if min(image.size) < SMALLEST_SIDE:
        raise ValueError(f"{image.width}x{image.height} pixels; {SMALLEST_SIDE} a side are needed")
    if image.mode.startswith("I"):  # 16 bit: Pillow's own conversion would clip everything above 255 to white
        return Image.fromarray((np.asarray(image) // 257).clip(0, 255).astype(np.uint8))
    return image


def pictures(path: Path) -> list[FilePicture]:
    """Every image file under a folder, or inside a zip, sorted by name.

    Raises ValueError with one line if the path does not exist, is neither, or holds no image.
    """
    files: dict[str, Callable[[], bytes]]
    if path.is_dir():
        files = {p.relative_to(path).as_posix(): p.read_bytes for p in path.rglob("*") if p.is_file()}
    elif zipfile.is_zipfile(path):
        try:
            archive = zipfile.ZipFile(path)  # stays open: the pictures read from it, safely from several threads
        except zipfile.BadZipFile as error:
            raise ValueError(f"{path} is a damaged zip: {error}") from error
        files = {name: partial(archive.read, name) for name in archive.namelist()}
    elif path.exists():
        raise ValueError(f"{path} is neither a folder nor a zip of images")
    else:
        raise ValueError(f"there is no {path}")
    found = [FilePicture(name, files[name]) for name in sorted(files) if _is_image(PurePosixPath(name))]
    if not found:
        raise ValueError(f"{path} holds no image (looked for {', '.join(sorted(SUFFIXES))})")
    return found


def _is_image(path: PurePosixPath) -> bool:
    # macOS puts a "._photo.jpg" beside each photo of a zip, with its own notes inside.
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and "__MACOSX" not in path.parts
