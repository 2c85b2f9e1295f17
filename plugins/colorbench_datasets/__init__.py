"""The data sets of the field under their published test sets, from a folder or zip: `--data imagenet-val5k:DIR`.

A set is complete or refused: a score over most of it is not the score that papers print. What is not read: the crop
and the size of the pictures, which are a matter of the protocol. No list of files is part of this package; where one is
official, it is read from DIR.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from colorbench.contract import DatasetSpec, Picture
from colorbench.hooks import hookimpl

Splits = Mapping[str, Sequence[Picture]]
LARGEST_LIST = 4 << 20  # bytes

# Files 1 to 50,000. Both test sets are parts of the validation images, as those of the test set have no public labels.
IMAGENET = (
    "get ILSVRC2012_img_val.tar from image-net.org, which asks for a registration, and unpack it into DIR",
    r"ILSVRC2012_val_(\d{8})\.jpeg",
)
# Larsson, Maire, Shakhnarovich 2016 drew them; R. Zhang et al. 2017 use them with the first 1,000 files to validate.
CTEST10K = (
    "DIR, or the folder of the zip, needs the list of its 10,000 images, ilsvrclin12_val_inds.npy "
    "(github.com/richzhang/colorization-pytorch, resources) or ctest10k.txt, which Larsson et al. published"
)
COCO = (
    "get images.cocodataset.org/zips/val2017.zip, and train2017.zip to train, and unpack them into DIR",
    r"(\d{12})\.jpg",
)
CELEBA_HQ = (
    "get CelebAMask-HQ.zip from github.com/switchablenorms/CelebAMask-HQ and unpack it: DIR is its CelebA-HQ-img",
    r"0*(\d{1,5})\.(?:jpg|png)",
)
MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
DIV2K = (
    "get DIV2K_valid_HR.zip, and DIV2K_train_HR.zip to train, from data.vision.ee.ethz.ch/cvl/DIV2K and unpack them",
    r"(\d{4})\.png",
)


@dataclass(frozen=True)
class Found:
    """The pictures of a named data set by number, and in words where to get what it lacks."""

    name: str
    root: Path
    source: str
    by_number: Mapping[int, Picture]

    def complete(self, numbers: Iterable[int]) -> list[Picture]:
        """Those of these numbers, in order. Raises ValueError that says how many are absent, and which one first."""
        wanted = sorted(numbers)
        if absent := [number for number in wanted if number not in self.by_number]:
            raise ValueError(
                f"{self.name} lacks {len(absent):,} of its {len(wanted):,} images in {self.root}, number {absent[0]} "
                f"first; {self.source}"
            )
        return [self.by_number[number] for number in wanted]

    def beside(self, name: str) -> bytes | None:
        """The content of a list in the folder, above it, or beside the zip; None if there is none."""
        for folder in (self.root, self.root.parent):
            file = folder / name
            if file.is_file():
                if file.stat().st_size > LARGEST_LIST:
                    raise ValueError(f"{file} is too large for the list of {self.name}; {self.source}")
                return file.read_bytes()
        return None


def find(name: str, argument: str, where: tuple[str, str]) -> Found:
    """The pictures of a folder or zip whose file names are of the pattern; others are not looked at.

    Raises ValueError if there are none, or two of one number, and then says where to get the data.
    """
    from colorbench.data import sources

    source, pattern = where
    if not argument:
        raise ValueError(f"{name} needs the folder or zip of its images, --data {name}:DIR; {source}")
    root, by_number = Path(argument).expanduser(), dict[int, Picture]()
    try:
        pictures = sources.pictures(root)
    except ValueError as error:
        raise ValueError(f"{name}: {error}; {source}") from error
    for picture in pictures:
        if match := re.fullmatch(pattern, picture.name.rpartition("/")[2], re.IGNORECASE):
            number = int(match[1])
            if number in by_number:
                raise ValueError(f"{name} has two of number {number}: {by_number[number].name} and {picture.name}")
            by_number[number] = picture
    return Found(name, root, source, by_number)


def imagenet_ctest10k(argument: str) -> Splits:
    found = find("imagenet-ctest10k", argument, IMAGENET)
    numbers = _ctest10k(found)
    splits = {"test": found.complete(numbers)}
    if all(number in found.by_number for number in range(1, 1001)):
        splits["val"] = [found.by_number[number] for number in range(1, 1001) if number not in numbers]
    return splits


def _ctest10k(found: Found) -> set[int]:
    """The numbers of its files. Raises ValueError without a list, and for one that is not of 10,000 images."""
    import io

    import numpy as np

    if (listed := found.beside("ctest10k.txt")) is not None:
        numbers = [int(number) for number in re.findall(rb"ILSVRC2012_val_(\d{8})", listed)]
    elif (stored := found.beside("ilsvrclin12_val_inds.npy")) is not None:
        try:  # counted from 0
            indices = np.load(io.BytesIO(stored), allow_pickle=False)
            if getattr(indices, "dtype", None) is None or indices.dtype.kind not in "iu":
                raise ValueError("it is not an array of whole numbers")
            numbers = [int(index) + 1 for index in indices.ravel()]
        except Exception as error:  # numpy raises many types for a broken file
            raise ValueError(f"imagenet-ctest10k: the list cannot be read ({error}); {CTEST10K}") from error
    else:
        raise ValueError(f"imagenet-ctest10k: there is no list; {CTEST10K}")
    distinct = {number for number in numbers if 1 <= number <= 50_000}
    if not len(distinct) == len(numbers) == 10_000:
        raise ValueError(f"imagenet-ctest10k: the list has {len(distinct):,} images, not 10,000; {CTEST10K}")
    return distinct


def imagenet_val5k(argument: str) -> Splits:
    """The first 5,000 files of the validation images, as ColTran (Kumar et al. 2021) and CT2 (Weng et al. 2022)."""
    return {"test": find("imagenet-val5k", argument, IMAGENET).complete(range(1, 5001))}


def coco_stuff(argument: str) -> Splits:
    """COCO's val2017, 5,000 images, to test, as COCO-Stuff (Caesar et al. 2018) divides them; train2017 if it is there.

    A number stands in one of the two alone. Without the official list the count and both ends are checked.
    """
    found = find("coco-stuff", argument, COCO)
    train, test = list[int](), list[int]()
    for number, picture in sorted(found.by_number.items()):
        (train if "train2017/" in picture.name else test).append(number)
    if len(test) != 5000 or (test[0], test[-1]) != (139, 581_781):
        raise ValueError(f"coco-stuff has {len(test):,} images in {found.root}, which are not val2017; {found.source}")
    if train and len(train) != 118_287:
        raise ValueError(f"coco-stuff has {len(train):,} of the 118,287 images of train2017; {found.source}")
    return {"test": found.complete(test)} | ({"train": found.complete(train)} if train else {})


def celeba_hq(argument: str) -> Splits:
    """CelebA-HQ (Karras et al. 2018) has no split of its own: an image is in the split that CelebA has its original in.

    CelebA's files 1 to 162,770 are to train, those to 182,637 to validate, the others to test.
    """
    found = find("celeba-hq", argument, CELEBA_HQ)
    if (listed := found.beside(MAPPING)) is None:
        raise ValueError(f"celeba-hq: there is no {MAPPING} in {found.root} or above it; {found.source}")
    rows = re.findall(rb"^\s*(\d{1,9})\s+\d+\s+(\d{1,9})\.jpg\s*$", listed, re.MULTILINE)
    splits: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for number, original in ((int(first), int(last)) for first, last in rows):
        splits["train" if original <= 162_770 else "val" if original <= 182_637 else "test"].append(number)
    sizes, distinct = [len(numbers) for numbers in splits.values()], {*splits["train"], *splits["val"], *splits["test"]}
    if sizes != [24_183, 2_993, 2_824] or len(distinct) != 30_000:
        raise ValueError(
            f"celeba-hq: {MAPPING} gives splits of {sizes} images, {len(distinct):,} of them distinct, not 24183, 2993 "
            f"and 2824, each once; {found.source}"
        )
    return {split: found.complete(numbers) for split, numbers in splits.items()}


def div2k(argument: str) -> Splits:
    """DIV2K (Agustsson and Timofte 2017): 0801 to 0900, its validation, to test, since its test set is not public."""
    found = find("div2k", argument, DIV2K)
    splits = {"test": found.complete(range(801, 901))}
    return splits | ({"train": found.complete(range(1, 801))} if any(n < 801 for n in found.by_number) else {})


DATASETS = {
    "imagenet-ctest10k": (imagenet_ctest10k, "10,000 ImageNet validation images, by a list in DIR: Larsson, Zhang"),
    "imagenet-val5k": (imagenet_val5k, "the first 5,000 ImageNet validation images: ColTran, CT2"),
    "coco-stuff": (coco_stuff, "the 5,000 images of COCO val2017 to test, train2017 to train"),
    "celeba-hq": (celeba_hq, "30,000 faces, split as CelebA splits their originals: 24183/2993/2824"),
    "div2k": (div2k, "the 100 validation images of DIV2K to test, its 800 others to train"),
}  # fmt: skip


@hookimpl
def register_datasets(register: Callable[[DatasetSpec], None]) -> None:
    for name, (open_, summary) in DATASETS.items():
        register(DatasetSpec(name, summary, open_, complete=True))
