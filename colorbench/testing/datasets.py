"""The laws of a dataset, checked on a sample of its pictures with the decoding of a run."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from colorbench.contract import DatasetSpec, Picture
from colorbench.data.decode import decode_picture
from colorbench.data.splits import SHARES
from colorbench.errors import one_line, reason, whatever_raised
from colorbench.protocol import COLORBENCH

SAMPLE = 24  # pictures of each split, evenly spread over it
MOST_DIGESTS = 1000  # of each split
SIZE = 32
COPIED = 64 << 20  # bytes: a folder or file up to this size is opened from a copy, too
NO_ARGUMENT = "no such argument"


class Dataset:
    """A dataset under the laws."""

    def __init__(self, spec: DatasetSpec, argument: str = "") -> None:
        self.spec, self.argument = spec, argument

    @cached_property
    def needs_argument(self) -> str:
        """What it says without an argument; "" if it can do without, or has one."""
        if not self.argument:
            try:
                self.spec.open("")
            except ValueError as error:
                return str(error)
        return ""

    @cached_property
    def splits(self) -> Mapping[str, Sequence[Picture]]:
        """Of a dataset that lacks its argument, none."""
        return {} if self.needs_argument else self.spec.open(self.argument)

    @cached_property
    def sample(self) -> dict[str, list[Picture]]:
        return {split: _sample(pictures) for split, pictures in self.splits.items()}


def refuses(dataset: Dataset) -> str:
    """An argument that it cannot open is refused by a ValueError of one line."""
    try:
        dataset.spec.open(NO_ARGUMENT)
    except ValueError as error:
        if not str(error) or "\n" in str(error):
            raise ValueError(f"it says {str(error)!r}; say in one line what is wrong with the argument") from error
        return one_line(str(error))
    except whatever_raised() as error:
        why = f"{NO_ARGUMENT!r} as argument raises {reason(error)}"
        raise ValueError(f"{why}; raise a ValueError that says what is due") from error
    raise ValueError(f"{NO_ARGUMENT!r} is taken as argument; refuse what you do not know by a ValueError")


def opens(dataset: Dataset) -> str:
    """`open` returns pictures for train, val and test, or for those that there are."""
    if dataset.needs_argument:
        return f"only with an argument, NAME:ARGUMENT: {dataset.needs_argument}"
    if not dataset.splits or not {*dataset.splits} <= {*SHARES}:
        raise ValueError(f"it has the splits {', '.join(dataset.splits) or 'none'}; name them {', '.join(SHARES)}")
    if empty := [split for split, pictures in dataset.splits.items() if not len(pictures)]:
        raise ValueError(f"there is no picture in {', '.join(empty)}; leave an empty split out")
    return ", ".join(f"{split} {len(pictures):,}" for split, pictures in dataset.splits.items())


def names(dataset: Dataset) -> str | None:
    """A picture's `name` is text, and no other of its split has it."""
    if not dataset.splits:
        return None
    for split, pictures in dataset.splits.items():
        seen = set[str]()
        for picture in pictures:
            if not isinstance(picture.name, str) or not picture.name or picture.name in seen:
                raise ValueError(f"{split}: the name {picture.name!r} is not text, or comes twice; make names unique")
            seen.add(picture.name)
    return f"such as {next(iter(next(iter(dataset.sample.values())))).name!r}"


def digests(dataset: Dataset) -> str | None:
    """`digest` depends on the content alone: not on chance, nor on where the files are and when they were written."""
    if not dataset.splits:
        return None
    first = _digests(dataset.sample)
    if wrong := [digest for digest in first.values() if not (isinstance(digest, str) and digest.isascii())]:
        raise ValueError(f"a digest is {wrong[0]!r}; return ASCII text, such as a SHA-256 in hexadecimal digits")
    again = _digests(Dataset(dataset.spec, dataset.argument).sample)
    if changed := _differing(first, again):
        raise ValueError(f"that of {changed} is another when the dataset is opened again; hash the content alone")
    if (path := Path(dataset.argument).expanduser()).exists() and dataset.argument and _bytes(path) <= COPIED:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, path.name)
            shutil.copytree(path, copy) if path.is_dir() else shutil.copyfile(path, copy)
            if changed := _differing(first, _digests(Dataset(dataset.spec, str(copy)).sample)):
                raise ValueError(f"that of {changed} is another in a copy of the files; hash their content alone")
    return f"such as {next(iter(first.values()))}"


def pictures_load(dataset: Dataset) -> str | None:
    """`load(size)` gives uint8 RGB (h, w, 3), the same each time, and other pixels for another digest."""
    if not dataset.splits:
        return None
    digest_of, count = dict[bytes, str](), 0
    for split, pictures in dataset.sample.items():
        for picture in pictures:
            decoded = decode_picture(picture, replace(COLORBENCH, size=SIZE), with_arrays=hasattr(picture, "arrays"))
            if isinstance(decoded, str):
                raise ValueError(
                    f"{split} {picture.name}: {decoded}; let load give what the contract says, or leave it out"
                )
            if not np.array_equal(picture.load(SIZE), picture.load(SIZE)):
                raise ValueError(f"{split} {picture.name}: its pixels are others each time; seed what is drawn")
            digest_of.setdefault(decoded.pixels.tobytes(), picture.digest)
            count += 1
    if len({*digest_of.values()}) < len(digest_of):
        raise ValueError("two pictures that differ have the same digest; let it cover all of the content")
    return f"{count} pictures"


def arrays(dataset: Dataset) -> str | None:
    """`arrays(size)`, if there is one, gives arrays of the same names, types and shapes for every picture."""
    first: dict[str, str] = {}
    for picture in (picture for pictures in dataset.sample.values() for picture in pictures):
        if not hasattr(picture, "arrays"):
            continue
        given = {name: f"{array.dtype} {array.shape}" for name, array in picture.arrays(SIZE).items()}
        first = first or given
        if given != first:
            what = ", ".join(f"{name} {kind}" for name, kind in given.items())
            raise ValueError(f"{picture.name}: {what}; the first has {', '.join(first.values())}: give each the same")
    return ", ".join(first) or None


def splits_are_disjoint(dataset: Dataset) -> str | None:
    """No picture is in two splits."""
    if not dataset.splits:
        return None
    seen: dict[str, str] = {}
    for split, pictures in dataset.splits.items():
        for picture in _sample(pictures, MOST_DIGESTS):
            if (other := seen.setdefault(picture.digest, split)) != split:
                raise ValueError(f"{picture.name} is in {other} and in {split}; give each picture to one of them")
    return f"{len(seen)} pictures"


LAWS = ((refuses, opens), (names, digests), (pictures_load, arrays, splits_are_disjoint))


def _sample(pictures: Sequence[Picture], count: int = SAMPLE) -> list[Picture]:
    """So many pictures, evenly spread."""
    places = np.unique(np.linspace(0, len(pictures) - 1, min(count, len(pictures))).round().astype(int))
    return [pictures[place] for place in places]


def _digests(sample: Mapping[str, Sequence[Picture]]) -> dict[str, str]:
    return {f"{split} {picture.name}": picture.digest for split, pictures in sample.items() for picture in pictures}


def _differing(first: Mapping[str, str], second: Mapping[str, str]) -> str:
    return next((name for name in first if first[name] != second.get(name)), "")


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())
