"""Keep, fetch and check published weights."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import filelock

from colorbench import published
from colorbench.contract import ModelSpec, PublishedWeights
from colorbench.download import CutOffError, DownloadError, download
from colorbench.errors import UserError
from colorbench.harness.networks import build_published
from colorbench.plugins import load


def add(name: str, file: Path, plugin_files: Sequence[Path] = ()) -> Path:
    """Keep a copy of `file` as the published weights called `name`: a model or metric, or a file that one takes.

    Returns the copy. Raises UserError, keeping nothing, if it cannot be read, has another size or SHA-256, or does not
    fit the model by names and shapes.
    """
    spec, weights = published.chosen(load(plugin_files), name)
    with _aside(weights, "new") as aside:
        try:
            if not stat.S_ISREG(file.stat().st_mode):  # reading from a pipe might never end
                raise UserError(f"cannot read {file}: it is not a file; name the file of the weights")
            shutil.copyfile(file, aside)
        except OSError as error:
            if error.filename != str(file):
                raise
            raise UserError(f"cannot read {file}: {error.strerror}; name the file of the weights") from error
        if why := published.why_unsound(weights, aside):
            raise UserError(
                f"{file} is not the published {weights.file}: {why}; get that from {weights.page}, "
                f"or use yours unkept, as --weights {spec.name}={file}"
            )
        return _keep(spec, weights, aside, file)


def fetch(name: str, plugin_files: Sequence[Path] = ()) -> Path:
    """Download the published weights called `name`, from where an earlier download was cut off, and keep them.

    Returns the kept file. Raises UserError if the server cannot be reached or gives another file.
    """
    spec, weights = published.chosen(load(plugin_files), name)
    there = published.folder() / weights.file
    if there.is_file() and not published.why_unsound(weights, there):
        return there
    elsewhere = f"; download it from {weights.page} elsewhere, and run colorbench weights add {name} FILE"
    if not weights.url:
        raise UserError(f"{weights.file} cannot be fetched: it has no address of its own{elsewhere}")
    with _aside(weights, "part") as aside:
        try:
            download(weights.url, aside, weights.size)
        except DownloadError as error:
            remedy = "; the same command goes on from there" if isinstance(error, CutOffError) else elsewhere
            raise UserError(f"cannot fetch {weights.url}: {error}{remedy}") from error
        if why := published.why_unsound(weights, aside):
            aside.unlink()
            raise UserError(f"what came from {weights.url} is not {weights.file}, and was not kept: {why}{elsewhere}")
        return _keep(spec, weights, aside, aside)


def verify(plugin_files: Sequence[Path] = ()) -> Iterator[tuple[str, str]]:
    """The name of each kept file, and what is wrong with it: "" if it has the published hash."""
    known, folder = published.known(load(plugin_files)), _folder()
    for name in sorted(os.listdir(folder) if folder.is_dir() else ()):
        if name in known:
            try:
                yield name, published.why_unsound(known[name][1], folder / name)
            except OSError as error:
                yield name, f"it cannot be read: {error.strerror}"
        elif not name.startswith("."):
            yield name, "no plugin that is given or installed tells of it"


def _folder() -> Path:
    folder = published.folder()
    if os.path.lexists(folder) and not folder.is_dir():
        raise UserError(f"{folder} is not a folder; set COLORBENCH_WEIGHTS to one")
    return folder


@contextmanager
def _aside(weights: PublishedWeights, ending: str) -> Iterator[Path]:
    """Where the file is made before it is kept; nobody else makes it meanwhile. Only a "part" stays there."""
    folder = _folder()
    aside = folder / f".{weights.file}.{ending}"
    for place in (folder / weights.file, aside):
        if place.is_dir() and not place.is_symlink():
            raise UserError(f"{place} is a folder; remove it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / f".{weights.file}.lock", blocking=False):
            if aside.is_symlink() or aside.is_fifo():  # what it leads to is not ours to write, or does not end
                aside.unlink()
            yield aside
    except filelock.Timeout as error:
        raise UserError(f"{weights.file} is being fetched by another command; wait until it is done") from error
    finally:
        if ending != "part":
            aside.unlink(missing_ok=True)


def _keep(spec: published.Spec, weights: PublishedWeights, aside: Path, named: Path) -> Path:
    """Put a sound file in its place, if the model can load it; `named` is the same file as an error names it."""
    if isinstance(spec, ModelSpec):
        build_published(spec, spec.published_size, named)
    return aside.replace(published.folder() / weights.file)
