"""Which pictures train, which validate, which are scored."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from colorbench.contract import Picture
from colorbench.data.sources import pictures, unreadable
from colorbench.errors import UserError, reason, refuse_unknown_data
from colorbench.plugins import Registry

SHARES = {"train": (20, 100), "val": (10, 20), "test": (0, 10)}  # of what is not split, in percentiles of the hash
LONGEST_NAME = 240  # bytes between two slashes; file systems take 255, and predictions append a suffix
Hashed = list[tuple[str, Picture]]  # (digest, picture)


def dataset_name(data: str) -> str:
    """What a run calls its data: the dataset, or the last part of the path, since a record travels."""
    return Path(data.partition(":")[0]).resolve().stem


def open_splits(data: str, registry: Registry, limits: Mapping[str, int | None]) -> dict[str, Hashed]:
    """The pictures of each split that `limits` names, at most so many, in an order that depends on content alone.

    `data` is the name of a dataset, `name:argument`, or the path of a folder or zip of images: with train, val and
    test inside (folders or zips) these are the splits; without, content hashes split it 80 : 10 : 10, so that adding
    a file moves no other. Where only "test" is asked for, all pictures of an unsplit path are the test.
    Raises UserError if there is no such data, a split is empty, or two pictures of one would be stored as one.
    """
    try:
        if (named := _named(data, registry)) is None and (named := _inside(Path(data))) is None:
            found = _hashed(pictures(Path(data)))
            shares = {"test": (0, 100)} if set(limits) == {"test"} else SHARES
            splits = {split: _share(found, *share) for split, share in shares.items()}
        else:
            splits = {split: _hashed(named[split]) for split in limits if split in named}
    except ValueError as error:
        raise UserError(f"cannot use the data {data!r}: {error}") from error
    if "val" in limits and "val" not in splits and "train" in splits:
        splits["val"], splits["train"] = _share(splits["train"], 0, 5), _share(splits["train"], 5, 100)
    for split in limits:
        if not splits.get(split):
            raise UserError(
                f"cannot use the data {data!r}: it has no {split} images; give more images, or a folder with "
                "train, val and test inside"
            )
    return {split: splits[split][:limit] for split, limit in limits.items()}


def refuse_inside(folder: Path, data: str, registry: Registry) -> None:
    """Raises UserError for a folder to write to of which the pictures would be images of `data` from then on."""
    root = Path(data)
    if data.partition(":")[0] in registry.specs["dataset"] or not root.is_dir() or _inside(root):
        return
    if root.resolve() in folder.resolve().parents:
        raise UserError(f"{folder} lies among the images {data!r}, and would add to them; name a folder elsewhere")


def _named(data: str, registry: Registry) -> Mapping[str, Sequence[Picture]] | None:
    refuse_unknown_data(data, registry.specs["dataset"])
    name, _, argument = data.partition(":")
    if (spec := registry.specs["dataset"].get(name)) is None:
        return None
    try:
        return {split: list(found) for split, found in spec.open(argument).items()}
    except (ValueError, UserError):
        raise
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        raise ValueError(f"the dataset {name!r} fails ({reason(error)}); repair its plugin") from error


def _inside(path: Path) -> dict[str, Sequence[Picture]] | None:
    """The splits of a folder that holds train, val or test as folders or zips, or of a zip that holds such folders;
    None if there are none."""
    if path.is_dir():
        paths = {split: [p for p in (path / split, path / f"{split}.zip") if os.path.exists(p)] for split in SHARES}
        return {split: pictures(found[0]) for split, found in paths.items() if found} or None
    # A zip often wraps everything in one folder of its own name: the split may be the first part or the second.
    splits: dict[str, list[Picture]] = {}
    for picture in pictures(path):
        parts = picture.name.split("/")[:-1][:2]
        if split := next((part for part in parts if part in SHARES), None):
            splits.setdefault(split, []).append(picture)
    return dict(splits) or None


def _hashed(found: Sequence[Picture]) -> Hashed:
    """Digest every picture and sort by a hash of it: a first part of the list is then a fair sample.

    Raises ValueError for a name or digest that is no text, and for two names whose predictions would be one file.
    """
    with ThreadPoolExecutor() as pool:
        hashed = sorted(pool.map(_with_digest, found), key=lambda pair: (_hash(pair[0]), pair[1].name))
    names: dict[str, str] = {}
    for _, picture in hashed:
        if (file := picture.name.removesuffix(".png") + ".png") in names:
            raise ValueError(
                f"predictions of {names[file]} and {picture.name} would both be stored as {file}; rename one"
            )
        names[file] = picture.name
    return hashed


def _with_digest(picture: Picture) -> tuple[str, Picture]:
    """The picture, or one that is unreadable in its place; as such it is named and counted with those of no image."""
    name: Any = None
    try:
        name = picture.name
        problem, digest = _name_problem(name), picture.digest
        if not (isinstance(digest, str) and digest.isascii()):
            raise ValueError(f"its digest is {digest!r}; ASCII text is due")
    except OSError as error:  # left out even if it can be read by now: its content has not been hashed
        problem = error.strerror or str(error)
    except (Exception, SystemExit) as error:
        raise ValueError(f"its picture {name!r} fails ({reason(error)})") from error
    if problem:
        picture = unreadable(repr(name)[1:-1], problem)
        digest = f"unreadable {picture.name}"
    return digest, picture


def _name_problem(name: str) -> str | None:
    """Why no prediction can be stored under this name, or no table list it; None if they can."""
    if not isinstance(name, str) or not name:
        raise ValueError("its name must be text")
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name):
        return "its name has control characters or is no UTF-8; rename it"
    parts = name.split("/")
    if not {"", ".", ".."}.isdisjoint(parts) or max(len(part.encode()) for part in parts) > LONGEST_NAME:
        return f"its name leads out of its folder or is longer than {LONGEST_NAME} bytes; rename it"
    return None


def _share(found: Hashed, start: int, stop: int) -> Hashed:
    """The pictures whose hash falls into the percentiles start <= p < stop."""
    return [(digest, picture) for digest, picture in found if start <= _hash(digest) % 100 < stop]


def _hash(digest: str) -> int:
    return int(hashlib.sha256(digest.encode()).hexdigest()[:16], 16)
