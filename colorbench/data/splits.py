"""Which pictures train, which validate, which are scored."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from colorbench.contract import Picture
from colorbench.data.sources import Files, pictures, unreadable
from colorbench.errors import UserError, reason, refuse_unknown_data, whatever_raised
from colorbench.plugins import Registry

ALL_READ = 20_000  # pictures of a folder, zip or split, up to which all are digested, whatever the limits
CHUNK = 1024  # digested at once: of more pictures than that no more than needed
SHARES = {"train": (20, 100), "val": (10, 20), "test": (0, 10)}  # of what is not split, in percentiles of the hash
LONGEST_NAME = 240  # bytes between two slashes; file systems take 255, and predictions append a suffix
Hashed = list[tuple[str, Picture]]  # (digest, picture)
Found = Sequence[Picture]  # of a dataset perhaps millions, made one by one: never copied as a whole
Shares = Mapping[str, tuple[int, int]]  # split -> percentiles of the hash


def dataset_name(data: str) -> str:
    """What a run calls its data: the dataset, or the last part of the path, since a record travels."""
    return Path(data.partition(":")[0]).resolve().stem


def open_splits(data: str, registry: Registry, limits: Mapping[str, int | None]) -> dict[str, Hashed]:
    """The pictures of each split that `limits` names, at most so many, in an order that depends on content alone.

    `data` is the name of a dataset, `name:argument`, or the path of a folder or zip of images: with train, val and
    test inside (folders or zips) these are the splits; without, content hashes split it 80 : 10 : 10, so that adding
    a file moves no other. Where only "test" is asked for, all pictures of an unsplit path are the test.

    Which pictures a limit takes depends on content, too, which has to be read for it: the first ones by a hash of it.
    Of a folder, zip or split with more than ALL_READ pictures they are drawn by position, with a fixed seed, and the
    others are not read. Raises UserError if there is no such data, a split is empty, or two pictures of one would be
    stored as one.
    """
    splits: dict[str, Hashed] = {}
    try:
        for found, shares in _sources(data, registry, limits):
            splits |= _taken(found, {split: share for split, share in shares.items() if split in limits}, limits)
        for split in limits.keys() - {"train"}:  # of which no prediction is stored
            _refuse_same_files(splits.get(split, []))
    except ValueError as error:
        raise UserError(f"cannot use the data {data!r}: {error}") from error
    for split in limits:
        if not splits.get(split):
            raise UserError(
                f"cannot use the data {data!r}: it has no {split} images; give more images, or a folder with "
                "train, val and test inside"
            )
    return {split: splits[split] for split in limits}


def has_to_be_complete(data: str, registry: Registry) -> bool:
    """Whether no picture of `data` may be left out: it names a dataset that says so."""
    spec = registry.specs["dataset"].get(data.partition(":")[0])
    return spec is not None and spec.complete


def _sources(data: str, registry: Registry, limits: Mapping[str, int | None]) -> list[tuple[Found, Shares]]:
    """Each sequence of pictures that is to be read, and which splits it is shared out to."""
    if (named := _named(data, registry)) is None and (named := _inside(Path(data))) is None:
        return [(pictures(Path(data)), {"test": (0, 100)} if set(limits) == {"test"} else SHARES)]
    found = {split: named[split] for split in limits if split in named}
    shares: dict[str, Shares] = {split: {split: (0, 100)} for split in found}
    if "val" in limits and "val" not in found and "train" in found:
        shares["train"] = {"val": (0, 5), "train": (5, 100)}
    return [(found[split], shares[split]) for split in found]


def refuse_inside(folder: Path, data: str, registry: Registry) -> None:
    """Raises UserError for a folder to write to of which the pictures would be images of `data` from then on."""
    root = Path(data)
    if data.partition(":")[0] in registry.specs["dataset"] or not root.is_dir() or _inside(root):
        return
    if root.resolve() in folder.resolve().parents:
        raise UserError(f"{folder} lies among the images {data!r}, and would add to them; name a folder elsewhere")


def _named(data: str, registry: Registry) -> Mapping[str, Found] | None:
    refuse_unknown_data(data, registry.specs["dataset"])
    name, _, argument = data.partition(":")
    if (spec := registry.specs["dataset"].get(name)) is None:
        return None
    try:
        return {split: found for split, found in spec.open(argument).items() if len(found)}
    except (ValueError, UserError):
        raise
    except whatever_raised() as error:  # a plugin may raise anything
        raise ValueError(f"the dataset {name!r} fails ({reason(error)}); repair its plugin") from error


def _inside(path: Path) -> Mapping[str, Found] | None:
    """The splits of a folder that holds train, val or test as folders or zips, or of a zip that holds such folders;
    None if there are none."""
    if path.is_dir():
        paths = {split: [p for p in (path / split, path / f"{split}.zip") if os.path.exists(p)] for split in SHARES}
        return {split: pictures(found[0]) for split, found in paths.items() if found} or None
    # A zip often wraps everything in one folder of its own name: the split may be the first part or the second.
    files, splits = pictures(path), dict[str, list[str]]()
    for name in files.names:
        parts = name.split("/")[:-1][:2]
        if split := next((part for part in parts if part in SHARES), None):
            splits.setdefault(split, []).append(name)
    return {split: Files(names, files.open) for split, names in splits.items()} or None


def _taken(found: Found, shares: Shares, limits: Mapping[str, int | None]) -> dict[str, Hashed]:
    """The pictures of each share, at most as many as its limit, sorted by a hash of their digests, so that a first part
    of them is a fair sample.

    Raises ValueError for a name or digest that is no text.
    """
    most = {split: len(found) if (limit := limits[split]) is None else limit for split in shares}
    draws = len(found) > ALL_READ and sum(most.values()) < len(found)
    order: Any = np.random.default_rng(0).permutation(len(found)) if draws else range(len(found))
    taken: dict[str, list[tuple[int, str, Picture]]] = {split: [] for split in shares}
    for digest, picture in _digested(found, order):
        place = _hash(digest)
        for split, (low, high) in shares.items():
            if low <= place % 100 < high and not (draws and len(taken[split]) == most[split]):
                taken[split].append((place, digest, picture))
        if draws and all(len(taken[split]) == most[split] for split in shares):
            break
    for part in taken.values():
        part.sort(key=lambda entry: (entry[0], entry[2].name))
    return {split: [entry[1:] for entry in part[: most[split]]] for split, part in taken.items()}


def _digested(found: Found, order: Any) -> Iterator[tuple[str, Picture]]:
    """The pictures at these places, each with its digest. Only a few more are read than are asked for."""
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(order), CHUNK):
            yield from pool.map(partial(_with_digest, found), order[start : start + CHUNK])


def _refuse_same_files(taken: Hashed) -> None:
    """Raises ValueError for two names whose predictions would be one file."""
    names: dict[str, str] = {}
    for _, picture in taken:
        if (file := picture.name.removesuffix(".png") + ".png") in names:
            raise ValueError(
                f"predictions of {names[file]} and {picture.name} would both be stored as {file}; rename one"
            )
        names[file] = picture.name


def _with_digest(found: Found, index: int) -> tuple[str, Picture]:
    """The picture, or one that is unreadable in its place; as such it is named and counted with those of no image."""
    name: Any = None
    try:
        picture = found[int(index)]
        name = picture.name
        problem, digest = _name_problem(name), picture.digest
        if not (isinstance(digest, str) and digest.isascii()):
            raise ValueError(f"its digest is {digest!r}; ASCII text is due")
    except whatever_raised() as error:
        if name is None or not isinstance(error, OSError):
            raise ValueError(f"its picture {name or index!r} fails ({reason(error)})") from error
        problem = error.strerror or str(error)  # left out even if it can be read by now: it has not been hashed
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


def _hash(digest: str) -> int:
    return int(hashlib.sha256(digest.encode()).hexdigest()[:16], 16)
