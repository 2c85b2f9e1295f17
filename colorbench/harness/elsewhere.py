"""Pictures that were made elsewhere -> the protocol's predictions: matched by name, with the true L."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from colorbench.color import bytes_to_lab, luminance, recolored, rgb_to_lab
from colorbench.contract import ModelSpec
from colorbench.data import sources
from colorbench.data.cache import Images
from colorbench.data.decode import decode_picture
from colorbench.data.loader import to_rgb
from colorbench.errors import one_line
from colorbench.harness.predict import BATCH, Predicted
from colorbench.protocol import Protocol
from colorbench.runs.predictions import picture_name

HALF = 0.51 / 255  # of a step of 8 bits, and what float32 adds to it
MOST_NAMES = 3  # that a note or a reason lists


def matched(path: Path, images: Sequence[str]) -> tuple[list[sources.FilePicture], list[str]]:
    """The picture of each image, in that order, and the names of those that are left over.

    A picture has the name under which the image is exported, or the image's own, or either with another ending, or
    in another folder if no other has that name. Raises ValueError naming the images without a picture.
    """
    pictures = {picture.name: picture for picture in sources.pictures(path)}
    found: dict[str, str] = {}
    for of_image, of_picture in _RULES:
        keys, named = Counter(map(of_image, images)), Counter(map(of_picture, pictures))
        free = {of_picture(name): name for name in pictures.keys() - set(found.values())}
        for image in images:
            key = of_image(image)
            if image not in found and keys[key] == 1 == named[key] and key in free:
                found[image] = free[key]
    if missing := [image for image in images if image not in found]:
        raise ValueError(
            f"{path} has no picture of {len(missing)} of {len(images)} test images: {listed(missing)}; a mean over "
            "the others would compare with no other row: add them, named as `colorbench export` names them"
        )
    return [pictures[found[image]] for image in images], sorted(pictures.keys() - set(found.values()))


def _bare(name: str) -> str:
    """A name without the endings of image files, of which it may have several, accents as one character each."""
    name = unicodedata.normalize("NFC", name)
    while (path := PurePosixPath(name)).suffix.lower() in sources.SUFFIXES and path.stem:
        name = str(path.with_suffix(""))
    return name


def _base(name: str) -> str:
    return PurePosixPath(_bare(name)).name


_Rule = Callable[[str], str]
_RULES: Sequence[tuple[_Rule, _Rule]] = ((picture_name, str), (str, str), (_bare, _bare), (_base, _base))


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are; in one line."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return one_line(", ".join(names[:MOST_NAMES])) + more


def carries(pictures: Tensor, L: Tensor) -> Tensor:
    """Whether pictures, uint8 RGB (B, 3, H, W), have this L (B, 1, H, W) but for rounding to 8 bits: bool (B,).

    The luminance of a color lies between that of a color half a step darker and one half a step lighter in each
    channel. A channel at 0 or 255 may have been clipped: before that it was smaller, or larger, by any amount.
    """
    darker, lighter = (rgb_to_lab(pictures.float() / 255 + half)[:, 0] for half in (-HALF, HALF))
    above = (darker <= L[:, 0]) | (pictures == 0).any(1)
    below = (lighter >= L[:, 0]) | (pictures == 255).any(1)
    return (above & below).flatten(1).all(1)


@dataclass
class Elsewhere:
    """The pictures of a row, and what was found out about them as they passed by."""

    spec: ModelSpec
    images: Images
    protocol: Protocol
    surplus: list[str] = field(default_factory=list)
    resized: int = 0
    uncolored: int = 0
    as_they_are: int = 0
    change: float = 0.0  # the sum over images of the mean absolute difference of L

    def predictions(self, device: torch.device) -> Iterator[Predicted]:
        """The pictures as the protocol scores them.

        Those that carry the true L already are taken as they are: another recombination would change them by a
        rounding. Raises ValueError, at the end, naming those that cannot be read.
        """
        assert self.spec.pictures is not None
        pictures, self.surplus = matched(self.spec.pictures, self.images.names)
        broken: list[str] = []
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(pictures), BATCH):
                read, batch = [], pictures[start : start + BATCH]
                for picture, found in zip(batch, pool.map(self._read, batch), strict=True):
                    if isinstance(found, str):
                        broken.append(f"{picture.name} ({found})")
                    else:
                        read.append(found)
                if not broken:
                    yield Predicted(start, self._as_scored(start, read, device), None)
        if broken:
            raise ValueError(f"of {self.spec.pictures} {len(broken)} cannot be read: {listed(broken)}; make them again")

    def _read(self, picture: sources.FilePicture) -> tuple[np.ndarray, bool, bool] | str:
        """Pixels (size, size, 3), whether it had another size, whether it is near grey; or why there are none."""
        try:
            pixels = picture.load(self.protocol.size)
        except (OSError, ValueError) as error:
            return str(getattr(error, "strerror", None) or error)
        decoded = decode_picture(_Loaded(pixels), self.protocol, with_arrays=False)
        if isinstance(decoded, str):
            return decoded
        return decoded.pixels, pixels.shape != decoded.pixels.shape, decoded.near_grey

    def _as_scored(self, start: int, read: Sequence[tuple[np.ndarray, bool, bool]], device: torch.device) -> Tensor:
        pixels, resized, grey = zip(*read, strict=True)
        place = slice(start, start + len(pixels))
        pictures = to_rgb(np.stack(pixels), device)
        L = luminance(to_rgb(self.images.pixels[place], device), self.protocol)
        own = bytes_to_lab(pictures, self.protocol)[0]
        self.resized += sum(resized)
        self.uncolored += int((np.array(grey) & ~self.images.near_grey[place]).sum())
        self.change += float((own - L[:, 0]).abs().mean((1, 2)).sum())
        if self.spec.option_values.get("as_is"):
            return pictures
        carrying = carries(pictures, L)
        self.as_they_are += int(carrying.sum())
        return torch.where(carrying[:, None, None, None], pictures, recolored(pictures, L, self.protocol))

    def notes(self) -> list[str]:
        """What the reader of the table must know about the pictures."""
        assert self.spec.pictures is not None
        total, size = len(self.images), self.protocol.size
        name = one_line(self.spec.pictures.resolve().name)
        if self.spec.option_values.get("as_is"):
            taken = "scored as they are, with their own luminance"
        elif self.as_they_are == total:
            taken = "all of which carry the true L, to within rounding"
        else:
            taken = f"of which {self.as_they_are} carry the true L, to within rounding; of the others the ab is scored"
            taken += ", with the true L"
        notes = [
            f"made elsewhere: {total} pictures of {name}, {taken}",
            f"the L of its pictures differs from the true one by {self.change / total:.2g} Lab units on average",
        ]
        if self.resized:
            notes.append(
                f"cropped and resized, since they had another size than {size} px: {self.resized} of its pictures"
            )
        if self.uncolored:
            near = f"|ab| at most {self.protocol.near_grey:g} everywhere"
            notes.append(f"uncolored ({near}), though the truth is not: {self.uncolored} of its pictures")
        if self.surplus:
            notes.append(
                f"left out, since they belong to no test image: {len(self.surplus)} of {name}, {listed(self.surplus)}"
            )
        return notes


@dataclass(frozen=True)
class _Loaded:
    """A picture that has been read."""

    pixels: np.ndarray

    def load(self, size: int) -> np.ndarray:
        return self.pixels
