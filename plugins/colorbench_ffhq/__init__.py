"""Flickr-Faces-HQ under the paper's split: `--data ffhq:PATH`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from colorbench.contract import DatasetSpec, Picture
from colorbench.hooks import hookimpl

# Wang, Hu and Zhao split the 70000 pictures into 60000, 5000 and 5000 but do not say which go where. By
# index, the training split is the one that the data set's authors define (Karras, Laine and Aila, CVPR 2019).
SPLITS = {"train": range(60_000), "val": range(60_000, 65_000), "test": range(65_000, 70_000)}


def _open(argument: str) -> Mapping[str, Sequence[Picture]]:
    """The pictures of a folder or zip by index, in any resolution and any sub-folders; splits without one are
    left out. Raises ValueError for a missing path, a name that is no index, and an index that comes twice.
    """
    if not argument:
        raise ValueError("ffhq needs the folder or zip of its images: --data ffhq:PATH")
    from colorbench.data import sources

    found: dict[int, Picture] = {}
    for picture in sources.pictures(Path(argument).expanduser()):
        index = _index(picture.name)
        if index in found:
            raise ValueError(
                f"ffhq has image {index} twice in {argument}: {found[index].name} and {picture.name}; "
                "give the folder of one resolution"
            )
        found[index] = picture
    splits = {split: [found[index] for index in indices if index in found] for split, indices in SPLITS.items()}
    return {split: pictures for split, pictures in splits.items() if pictures}


def _index(name: str) -> int:
    stem = PurePosixPath(name).stem
    if not (stem.isascii() and stem.isdigit() and int(stem) < SPLITS["test"].stop):
        raise ValueError(f"ffhq names its images 00000.png to 69999.png, and the split follows the names: not {name}")
    return int(stem)


@hookimpl
def register_datasets(register: Callable[[DatasetSpec], None]) -> None:
    register(
        DatasetSpec(
            name="ffhq",
            summary="Flickr-Faces-HQ from a folder or zip, split by index 60000/5000/5000 as in the paper",
            open=_open,
        )
    )
