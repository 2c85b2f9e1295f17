"""Which pictures train, which validate, which are scored."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from colorbench.contract import Picture
from colorbench.data.sources import pictures
from colorbench.errors import UserError, refuse_unknown_data
from colorbench.plugins import Registry

SPLITS = ("train", "val", "test")
Hashed = list[tuple[str, Picture]]  # (digest, picture)


def label(data: str) -> str:
    """What a run calls its data: the dataset, or the last part of the path, since a record travels."""
    return Path(data.partition(":")[0]).resolve().stem


def open_splits(data: str, registry: Registry, limits: Mapping[str, int | None]) -> dict[str, Hashed]:
    """The pictures of each split that `limits` names, at most so many, in an order that depends on content alone.

    `data` is the name of a dataset, `name:argument`, or the path of a folder or zip of images: with train, val and
    test inside (folders or zips) these are the splits; without, content hashes split it 80 : 10 : 10, so that adding
    a file moves no other. Where only "test" is asked for, all pictures of an unsplit path are the test.
    Raises UserError if there is no such data or a split is empty.
    """
    try:
        named = _named(data, registry) or _inside(Path(data))
        if named is None:
            found = pictures(Path(data))
            named = {"test": found} if set(limits) == {"test"} else None
        splits = (
            {split: _hashed(named[split]) for split in limits if split in named} if named else _by_hash(_hashed(found))
        )
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


def _named(data: str, registry: Registry) -> Mapping[str, Sequence[Picture]] | None:
    refuse_unknown_data(data, registry.specs["dataset"])
    name, _, argument = data.partition(":")
    spec = registry.specs["dataset"].get(name)
    return spec.open(argument) if spec else None


def _inside(path: Path) -> dict[str, Sequence[Picture]] | None:
    """The splits of a folder that holds train, val or test as folders or zips, or of a zip that holds such folders;
    None if there are none."""
    if path.is_dir():
        places = {split: [p for p in (path / split, path / f"{split}.zip") if p.exists()] for split in SPLITS}
        return {split: pictures(place[0]) for split, place in places.items() if place} or None
    # A zip often wraps everything in one folder of its own name: the split may be the first part or the second.
    splits: dict[str, list[Picture]] = {}
    for picture in pictures(path):
        parts = picture.name.split("/")[:-1][:2]
        if split := next((part for part in parts if part in SPLITS), None):
            splits.setdefault(split, []).append(picture)
    return dict(splits) or None


def _hashed(found: Sequence[Picture]) -> Hashed:
    """Digest every picture and sort by a hash of it: a first part of the list is then a fair sample."""
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(_digest, found))
    return sorted(zip(digests, found, strict=True), key=lambda pair: (_hash(pair[0]), pair[1].name))


def _digest(picture: Picture) -> str:
    try:
        return picture.digest
    except OSError:  # it is named and counted where it cannot be decoded either
        return f"unreadable {picture.name}"


def _by_hash(found: Hashed) -> dict[str, Hashed]:
    return {"train": _share(found, 20, 100), "val": _share(found, 10, 20), "test": _share(found, 0, 10)}


def _share(found: Hashed, start: int, stop: int) -> Hashed:
    """The pictures whose hash falls into the percentiles start <= p < stop."""
    return [(digest, picture) for digest, picture in found if start <= _hash(digest) % 100 < stop]


def _hash(digest: str) -> int:
    return int(hashlib.sha256(digest.encode()).hexdigest()[:16], 16)
