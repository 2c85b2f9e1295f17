"""Image files in a folder or a zip, as pictures that can be hashed and decoded."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # no other decoder is tried, whatever a file contains
SMALLEST_SIDE = 8  # below it there is nothing to see: a tracking pixel, a broken thumbnail
LARGEST_FILE = 256 << 20  # bytes; an uncompressed picture of as many pixels as Pillow reads without a warning
# Read at once. A zip may unfold to thousands of times its size, and not every method of compression can be stopped.
CHUNK = 1 << 14

# Cameras of 100 megapixels exist. What is larger than twice Pillow's limit stays refused.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module="PIL")  # of damaged EXIF data, which change no pixel


@dataclass(frozen=True, slots=True)
class FilePicture:
    """One image file. `name` is its path inside the folder or zip, with forward slashes; `open` gives its bytes."""

    name: str
    open: Callable[[], IO[bytes]]

    @property
    def digest(self) -> str:
        """BLAKE2b of the file's bytes: the same file hashes alike in a folder and in a zip. Raises OSError."""
        digest = hashlib.blake2b(digest_size=16)
        for chunk in self._chunks():
            digest.update(chunk)
        return digest.hexdigest()

    def load(self, size: int) -> np.ndarray:
        """uint8 RGB (h, w, 3), upright. Raises OSError or ValueError with the reason if that cannot be had."""
        return np.asarray(decode(b"".join(self._chunks())))

    def _chunks(self) -> Iterator[bytes]:
        length = 0
        try:
            with self.open() as file:
                while chunk := file.read(CHUNK):
                    length += len(chunk)  # counted, since the size that a zip states may be false
                    if length > LARGEST_FILE:
                        raise OSError(f"larger than {LARGEST_FILE >> 20} MiB")
                    yield chunk
        except OSError:
            raise
        except Exception as error:
            # A damaged, encrypted or oddly compressed member of a zip is to its caller a file that cannot be read.
            raise OSError(str(error) or type(error).__name__) from error


def unreadable(name: str, reason: str) -> FilePicture:
    """A picture that is counted and named with the reason, and never read."""

    def refuse() -> IO[bytes]:
        raise OSError(reason)

    return FilePicture(name, refuse)


def decode(data: bytes) -> Image.Image:
    """A file's bytes -> an upright RGB image. Raises ValueError with the reason if it is none."""
    return to_rgb(upright(data))


def upright(data: bytes) -> Image.Image:
    """A file's bytes -> an upright image of any mode. Raises ValueError with the reason if it is none."""
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        if min(image.size) >= SMALLEST_SIDE:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
    except UnidentifiedImageError as error:
        raise ValueError(f"not an image in one of the formats {', '.join(FORMATS)}") from error
    except Exception as error:  # Pillow raises a dozen types on broken files; each means the same to us
        raise ValueError(f"broken image: {error or type(error).__name__}") from error
    if min(image.size) < SMALLEST_SIDE:
        raise ValueError(f"{image.width}x{image.height} pixels; {SMALLEST_SIDE} a side are needed")
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode -> RGB of 8 bit. Raises ValueError for pixels of unknown range."""
    # Pillow's own conversion would clip everything above 255 to white, and turn floats of 0..1 black.
    if image.mode == "F":
        values = np.asarray(image)
        if not ((values >= 0) & (values <= 1)).all():  # not a number is neither
            raise ValueError("float pixels outside of 0..1, of unknown range; save it with 8 or 16 bit a channel")
        image = Image.fromarray((values * 255).round().astype(np.uint8))
    elif image.mode == "I" and image.format not in ("PNG", "PPM"):  # from those, "I" holds 16 bit
        raise ValueError("integer pixels of 32 bit, of unknown range; save it with 8 or 16 bit a channel")
    elif image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) // 257).clip(0, 255).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")


class Files(Sequence[FilePicture]):
    """Image files by their paths in a folder or zip; `open` gives the bytes of one.

    Only the names are held, since there may be millions: a picture is made when it is asked for.
    """

    def __init__(self, names: Sequence[str], open: Callable[[str], IO[bytes]]) -> None:
        self.names, self.open = names, open

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Files(self.names[index], self.open)
        return FilePicture(self.names[index], partial(self.open, self.names[index]))


def pictures(path: Path) -> Files:
    """Every image file under a folder, or inside a zip, sorted by name; hidden files and folders are skipped.

    A folder that cannot be listed is named on standard error. Raises ValueError with one line if the path does not
    exist, is neither, or holds no image.
    """
    if path.is_dir():
        found = _in_folder(path)
    elif path.is_file():
        found = _in_zip(path)
    elif os.path.lexists(path):
        raise ValueError(f"{path} is neither a folder nor a zip of images")
    else:
        raise ValueError(f"there is no {path}")
    if not found:
        raise ValueError(f"{path} holds no image (looked for {', '.join(sorted(SUFFIXES))})")
    return found


def _in_folder(path: Path) -> Files:
    def name_unlisted(error: OSError) -> None:
        print(f"left out the folder {error.filename!r}: {error.strerror}", file=sys.stderr)

    names = []
    for folder, subfolders, files in os.walk(path, onerror=name_unlisted):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        inside = Path(folder).relative_to(path).as_posix()
        for file in filter(_is_image, files):
            whole = os.path.join(folder, file)
            # Reading from a pipe or a device might never end. What is not even found is named when it is read.
            if os.path.isfile(whole) or not os.path.exists(whole):
                names.append(file if inside == "." else f"{inside}/{file}")
    return Files(sorted(names), partial(_open, str(path)))


def _open(folder: str, name: str) -> IO[bytes]:
    return open(os.path.join(folder, name), "rb")


def _in_zip(path: Path) -> Files:
    try:
        archive = zipfile.ZipFile(path)  # stays open: the pictures read from it, safely from several threads
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # zipfile raises many types on damaged files
        if not zipfile.is_zipfile(path):
            raise ValueError(f"{path} is neither a folder nor a zip of images") from error
        raise ValueError(f"{path} is a damaged zip: {error}") from error
    # Some tools write "./a.jpg" for "a.jpg".
    found = [(PurePosixPath(name).as_posix(), name) for name in archive.namelist()]
    images = [(name, stored) for name, stored in found if _is_image(name)]
    if twice := [name for name, count in Counter(name for name, _ in images).items() if count > 1]:
        raise ValueError(f"{path} has more than one file called {twice[0]}; pack it anew, each name once")
    members = dict(images)
    return Files(sorted(members), lambda name: archive.open(members[name]))


def _is_image(name: str) -> bool:
    # macOS puts a "._photo.jpg" beside each photo of a zip, with its own notes inside.
    parts = name.split("/")
    hidden = any(part.startswith(".") and part != ".." for part in parts)
    return os.path.splitext(name)[1].lower() in SUFFIXES and not hidden and "__MACOSX" not in parts
