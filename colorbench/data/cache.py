"""Pictures decoded and resized once, into a memory-mapped file that later runs and epochs read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import platformdirs
import torch
from PIL import Image
from tqdm import tqdm

from colorbench.color import rgb_to_lab
from colorbench.contract import Picture
from colorbench.data.sources import FilePicture
from colorbench.data.splits import Hashed, label
from colorbench.errors import UserError
from colorbench.protocol import PROTOCOL

NEAR_GREY = 5.0  # max |ab|; the field drops such images from training, since they teach desaturation
MOST_UNREADABLE = 0.05
PIXELS, PARTS, INDEX = "pixels.u8", "parts.u8", "index.json"
CHUNK = 256  # pictures decoded ahead of the writing: a whole split would not fit in memory


@dataclass(frozen=True)
class Images:
    """One split, decoded. `pixels` uint8 (N, H, W, 3), memory-mapped; `names`, `digests` and `near_grey` have N
    entries each; `unreadable` holds name and reason of the files left out.

    Where the dataset has masks, `parts` uint8 (N, H, W), memory-mapped, says in which of `part_names` a pixel is.
    """

    pixels: np.ndarray
    names: list[str]
    digests: list[str]
    near_grey: np.ndarray
    unreadable: dict[str, str]
    parts: np.ndarray | None = None
    part_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Data:
    """The splits of one dataset at one size. `fingerprint` depends on the images' content and their splits alone."""

    name: str
    splits: dict[str, Images]

    @property
    def fingerprint(self) -> str:
        content = {split: images.digests for split, images in self.splits.items()}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    def record(self) -> dict[str, Any]:
        """What the run record says about the data."""
        train = set(self.splits["train"].digests) if "train" in self.splits else set()
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "splits": {
                split: {
                    "images": len(images),
                    "near_grey": int(images.near_grey.sum()),
                    "unreadable": images.unreadable,
                    **({} if split == "train" else {"also_in_train": sum(d in train for d in images.digests)}),
                }
                for split, images in self.splits.items()
            },
        }


def decode_all(data: str, splits: Mapping[str, Hashed], size: int) -> Data:
    """Decode every split at `size`, from the cache where it is there. Names unreadable files on standard error.

    The cache is `$COLORBENCH_CACHE`, or the user's cache folder; its entries are keyed by content, size and resize
    rule. Raises UserError when more than 5 % of a split cannot be read.
    """
    decoded = {split: _cached(split, pictures, size) for split, pictures in splits.items()}
    for split, images in decoded.items():
        bad, total = images.unreadable, len(images) + len(images.unreadable)
        if not bad:
            continue
        first, reason = next(iter(bad.items()))
        if len(bad) > MOST_UNREADABLE * total:
            raise UserError(
                f"{len(bad)} of {total} {split} images of {data!r} cannot be read, first {first} ({reason}); "
                f"at most {MOST_UNREADABLE:.0%} may be left out: repair or remove them"
            )
        for file, reason in bad.items():
            print(f"left out {file}: {reason}", file=sys.stderr)
    return Data(label(data), decoded)


def _cached(split: str, pictures: Hashed, size: int) -> Images:
    masked = bool(pictures) and all(hasattr(picture, "masks") for _, picture in pictures)
    listed = [(digest, picture.name) for digest, picture in pictures]
    content = json.dumps([PROTOCOL["resize"], size, listed, *(["parts"] if masked else [])])
    root = Path(os.environ.get("COLORBENCH_CACHE") or platformdirs.user_cache_dir("colorbench"))
    entry = root / hashlib.sha256(content.encode()).hexdigest()[:24]
    if not entry.exists():
        try:
            root.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=".", dir=root))
        except OSError as error:
            raise UserError(f"cannot write the cache {root}: {error.strerror}; set COLORBENCH_CACHE") from error
        try:
            _decode_into(aside, split, pictures, size, masked)
            if not entry.exists():  # another process may have been faster
                aside.rename(entry)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    index = json.loads((entry / INDEX).read_text())
    shape = (len(index["names"]), size, size)
    return Images(
        pixels=_mapped(entry / PIXELS, (*shape, 3)),
        names=index["names"],
        digests=index["digests"],
        near_grey=np.array(index["near_grey"], bool),
        unreadable=index["unreadable"],
        parts=_mapped(entry / PARTS, shape) if masked else None,
        part_names=tuple(index.get("part_names", ())),
    )


def _mapped(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    return np.memmap(file, np.uint8, "r", shape=shape) if shape[0] else np.zeros(shape, np.uint8)


def _decode_into(folder: Path, split: str, pictures: Hashed, size: int, masked: bool) -> None:
    index: dict[str, Any] = {"names": [], "digests": [], "near_grey": [], "unreadable": {}}
    # Files are decoded outside Python's lock, so that threads help. What Python code draws only gets in its own way.
    threads = os.cpu_count() if all(isinstance(picture, FilePicture) for _, picture in pictures) else 1
    bar = tqdm(desc=f"decoding {split}", total=len(pictures), unit="img", disable=None, leave=False)
    with (
        (folder / PIXELS).open("wb") as file,
        (folder / PARTS).open("wb") as parts,
        ThreadPoolExecutor(threads) as pool,
        bar,
    ):
        for start in range(0, len(pictures), CHUNK):
            chunk = pictures[start : start + CHUNK]
            for (digest, picture), decoded in zip(chunk, pool.map(partial(_decode, size), chunk), strict=True):
                bar.update()
                if isinstance(decoded, str):
                    index["unreadable"][picture.name] = decoded
                    continue
                file.write(decoded.pixels.tobytes())
                if masked:
                    index["part_names"] = decoded.part_names
                    parts.write(decoded.parts.tobytes())
                index["names"].append(picture.name)
                index["digests"].append(digest)
                index["near_grey"].append(decoded.near_grey)
    (folder / INDEX).write_text(json.dumps(index))


class _Decoded(NamedTuple):
    pixels: np.ndarray  # uint8 (size, size, 3)
    near_grey: bool
    parts: np.ndarray  # uint8 (size, size), the place in `part_names`; of no size without masks
    part_names: list[str]


def _decode(size: int, pair: tuple[str, Picture]) -> _Decoded | str:
    """The picture, or why there is none."""
    picture = pair[1]
    try:
        pixels = fit(picture.load(size), size)
        masks = picture.masks(size) if hasattr(picture, "masks") else {}
    except (OSError, ValueError) as error:
        return str(error)
    # One number a pixel, not a mask a part: many pictures wait here to be written.
    parts = np.stack([*masks.values()]).argmax(0).astype(np.uint8) if masks else np.zeros(0, np.uint8)
    return _Decoded(pixels, _is_near_grey(pixels), parts, list(masks))


def fit(image: np.ndarray, size: int) -> np.ndarray:
    """The protocol's resize: uint8 RGB (h, w, 3) -> (size, size, 3), center crop and bicubic."""
    height, width = image.shape[:2]
    if height == width == size:
        return image
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    square = Image.fromarray(image).crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))


def _is_near_grey(image: np.ndarray) -> bool:
    rgb = torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255
    return bool(rgb_to_lab(rgb)[1:].abs().max() <= NEAR_GREY)
