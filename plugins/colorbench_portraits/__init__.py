"""The built-in dataset `portraits`: drawn faces, made by code, with exact part masks. Needs no download."""

from collections.abc import Callable, Mapping, Sequence

from colorbench.contract import DatasetSpec, Picture
from colorbench.hooks import hookimpl


def _open(argument: str) -> Mapping[str, Sequence[Picture]]:
    if argument:
        raise ValueError(f"the dataset 'portraits' takes no argument, but was given {argument!r}")
    from colorbench_portraits.pictures import splits

    return splits()


@hookimpl
def register_datasets(register: Callable[[DatasetSpec], None]) -> None:
    summary = "drawn portraits with exact part masks, made by code: 6000 train, 500 val, 1000 test"
    register(DatasetSpec("portraits", summary, _open))
