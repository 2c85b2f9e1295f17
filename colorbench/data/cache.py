"""Pictures decoded and resized once, into a memory-mapped file that later runs and epochs read."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import platformdirs
import psutil
from tqdm import tqdm

from colorbench.code import own_code
from colorbench.contract import Picture
from colorbench.data import decode, sources
from colorbench.data.splits import Hashed, dataset_name
from colorbench.errors import DISK_FULL, UserError, reason, refuse_unknown
from colorbench.protocol import Protocol

MOST_UNREADABLE = 0.05
DECODING = ("color.py", "data/decode.py", "data/sources.py")  # the code that the pixels depend on
PIXELS, INDEX = "pixels.u8", "index.json"
ARRAY = "array-{}.raw"  # of each further array, by its name
CHUNK = 256  # pictures decoded ahead of the writing: a whole split would not fit in memory
UNFINISHED = f".decoding-{platform.node()}-"  # then the process and a random part: the folder of an unfinished entry


@dataclass(frozen=True)
class Images:
    """One split, decoded. `pixels` uint8 (N, H, W, 3), memory-mapped; `names`, `digests` and `near_grey` have N
    entries each; `unreadable` holds name and reason of the files left out.

    `arrays` are what the dataset has beside, by name, memory-mapped (N, ...): bool (N, H, W) are the masks of parts.
    `entry` is the cache folder that the pixels are mapped from: a pickle holds its path alone.
    """

    pixels: np.ndarray
    names: list[str]
    digests: list[str]
    near_grey: np.ndarray
    unreadable: dict[str, str]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    entry: Path | None = None

    def __len__(self) -> int:
        return len(self.names)

    def taking(self, names: Collection[str]) -> Images:
        """The same images with no other arrays than these."""
        return replace(self, arrays={name: array for name, array in self.arrays.items() if name in names})

    def __reduce_ex__(self, protocol: Any) -> Any:
        return (open_images, (self.entry,)) if self.entry else super().__reduce_ex__(protocol)


@dataclass(frozen=True)
class Data:
    """The splits of one dataset at one size. `fingerprint` depends on the images' content and their splits alone."""

    name: str
    splits: dict[str, Images]

    @property
    def fingerprint(self) -> str:
        return self.fingerprint_of(*self.splits)

    def fingerprint_of(self, *splits: str) -> str:
        """12 hexadecimal digits, the same for the same content of these splits."""
        content = {split: self.splits[split].digests for split in splits}
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


def decode_all(data: str, splits: Mapping[str, Hashed], protocol: Protocol, complete: bool = False) -> Data:
    """Decode every split as the protocol's input, from the cache where it is there. Names unreadable files on
    standard error; those are tried again each time.

    The cache is `$COLORBENCH_CACHE`, or the user's cache folder; its entries are keyed by content, protocol and the
    code that decodes. Raises UserError when more than 5 % of a split cannot be read, or any image if the data have to
    be `complete`, for a protocol that asks for an unknown crop or resize, and when the cache cannot be written.
    """
    refuse_unknown("crop of the protocol", [protocol.crop], decode.CROPS)
    refuse_unknown("resize of the protocol", [protocol.resize], decode.RESIZES)
    root = Path(os.environ.get("COLORBENCH_CACHE") or platformdirs.user_cache_dir("colorbench"))
    _remove_unfinished(root)
    decoded = {split: _cached(root, split, pictures, protocol) for split, pictures in splits.items()}
    for split, images in decoded.items():
        bad, total = images.unreadable, len(images) + len(images.unreadable)
        if not bad:
            continue
        first, why = next(iter(bad.items()))
        if complete or len(bad) > MOST_UNREADABLE * total:
            most = "none may be left out: get them again"
            if not complete:
                most = f"at most {MOST_UNREADABLE:.0%} may be left out: repair or remove them"
            raise UserError(
                f"{len(bad)} of {total} {split} images of {data!r} cannot be read, first {first} ({why}); {most}"
            )
        for file, why in bad.items():
            print(f"left out {file}: {why}", file=sys.stderr)
    return Data(dataset_name(data), decoded)


def open_images(entry: Path) -> Images:
    """The images of a cache folder, every file of which is checked against its checksum, the large ones once in a
    process. Raises UserError if one is missing, cannot be read or is damaged."""
    try:
        stored = json.loads((entry / INDEX).read_bytes())
        index = stored["index"]
        if stored["checksum"] != _checksum(json.dumps(index).encode()):
            raise ValueError(f"{INDEX} was changed")
        for name, checksum in index["files"].items():
            if _file_checksum(entry / name, (entry / name).stat().st_mtime_ns) != checksum:
                raise ValueError(f"{name} was changed")
        count, size = len(index["names"]), index["size"]
        return Images(
            pixels=_mapped(entry / PIXELS, "uint8", (count, size, size, 3)),
            names=index["names"],
            digests=index["digests"],
            near_grey=np.array(index["near_grey"], bool),
            unreadable=index["unreadable"],
            arrays={
                name: _mapped(entry / ARRAY.format(name), kind, (count, *shape))
                for name, (kind, shape) in index["arrays"].items()
            },
            entry=entry,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"the cache entry {entry} cannot be used ({reason(error)})") from error


def _cached(root: Path, split: str, pictures: Hashed, protocol: Protocol) -> Images:
    has_arrays = any(hasattr(picture, "arrays") for _, picture in pictures)
    decoded = functools.partial(decode.decode_picture, protocol=protocol, with_arrays=has_arrays)
    entry = root / _key(pictures, protocol, has_arrays)
    if there := os.path.lexists(entry):
        try:
            images = open_images(entry)
        except UserError as error:
            print(f"{error}: decoding again", file=sys.stderr)
        else:
            left_out = [picture for _, picture in pictures if picture.name in images.unreadable]
            reasons = {picture.name: why for picture in left_out if isinstance(why := decoded(picture), str)}
            if len(reasons) == len(left_out):
                return replace(images, unreadable=reasons)
    try:
        root.mkdir(parents=True, exist_ok=True)
        prefix = f"{UNFINISHED}{os.getpid()}-"
        with tempfile.TemporaryDirectory(prefix=prefix, dir=root, ignore_cleanup_errors=True) as aside:
            made = Path(aside, "entry")  # a folder of its own, since the temporary one is readable by its owner alone
            made.mkdir()
            index = _decode_into(made, split, pictures, decoded) | {"size": protocol.size}
            index["files"] = {file.name: _file_checksum(file, 0) for file in sorted(made.iterdir())}
            stored = {"index": index, "checksum": _checksum(json.dumps(index).encode())}
            (made / INDEX).write_text(json.dumps(stored))
            try:
                if there:
                    entry.rename(Path(aside, "old"))
                made.rename(entry)
            except OSError:
                if not entry.exists():  # else another process was faster
                    raise
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        raise UserError(f"cannot write the cache {root}: {error.strerror}; set COLORBENCH_CACHE") from error
    return open_images(entry)


def _key(pictures: Hashed, protocol: Protocol, has_arrays: bool) -> str:
    # A file that could not be read has a digest of its own here: once it can be read, the key is another.
    listed = [(digest, picture.name) for digest, picture in pictures]
    code = own_code(DECODING)
    content = [protocol.automatic.input_id, protocol.near_grey, code, PIL.__version__, has_arrays, listed]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]


def _remove_unfinished(root: Path) -> None:
    """Remove what killed processes of this machine left behind."""
    for folder in root.glob(".decoding-*"):
        parsed = re.fullmatch(rf"{re.escape(UNFINISHED)}(\d+)-\w+", folder.name)
        if parsed and not psutil.pid_exists(int(parsed[1])):
            shutil.rmtree(folder, ignore_errors=True)


def _decode_into(folder: Path, split: str, pictures: Hashed, decoded: Callable[[Picture], Any]) -> dict[str, Any]:
    """Write the pixels and arrays of all pictures; returns what the index says about them."""
    index: dict[str, Any] = {"names": [], "digests": [], "near_grey": [], "unreadable": {}, "arrays": {}}
    # Files are decoded outside Python's lock, so that threads help. What Python code draws only gets in its own way.
    threads = os.cpu_count() if all(isinstance(picture, sources.FilePicture) for _, picture in pictures) else 1
    bar = tqdm(desc=f"decoding {split}", total=len(pictures), unit="img", disable=None, leave=False)
    with ThreadPoolExecutor(threads) as pool, bar, contextlib.ExitStack() as opened:
        files = {PIXELS: opened.enter_context((folder / PIXELS).open("wb"))}
        for start in range(0, len(pictures), CHUNK):
            chunk = pictures[start : start + CHUNK]
            results = pool.map(decoded, (picture for _, picture in chunk))
            for (digest, picture), result in zip(chunk, results, strict=True):
                bar.update()
                if not isinstance(result, str):
                    kinds = {name: [str(array.dtype), [*array.shape]] for name, array in result.arrays.items()}
                    if not index["names"]:
                        index["arrays"] = kinds
                        files |= {a: opened.enter_context((folder / ARRAY.format(a)).open("wb")) for a in kinds}
                    elif kinds != index["arrays"]:
                        result = f"the dataset gave the arrays {kinds}, and {index['arrays']} of {index['names'][0]}"
                if isinstance(result, str):
                    index["unreadable"][picture.name] = result
                    continue
                for name, values in {PIXELS: result.pixels, **result.arrays}.items():
                    files[name].write(values.tobytes())
                index["names"].append(picture.name)
                index["digests"].append(digest)
                index["near_grey"].append(result.near_grey)
    return index


def _mapped(file: Path, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.memmap(file, kind, "r", shape=shape) if np.prod(shape) else np.zeros(shape, kind)


def _checksum(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


@functools.cache
def _file_checksum(file: Path, modified: int) -> str:
    """Read once in a process, unless the file was `modified` since."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
