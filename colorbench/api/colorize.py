"""Color photos with trained models: one, or as many as there are in folders."""

from __future__ import annotations

import glob
import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from PIL import Image
from tqdm import tqdm

from colorbench.data.sources import SUFFIXES, pictures
from colorbench.errors import DISK_FULL, UserError, reason, refuse_empty, whatever_raised
from colorbench.harness.photo import Photo, Picture, png_of, read
from colorbench.harness.recolor import color, color_picture, hints_of
from colorbench.harness.trained import Loaded, find_model
from colorbench.plugins import load
from colorbench.runs.folder import write_aside

MOST_INTENSITY = 100  # far beyond every color that sRGB has


def colorize(
    image: Picture,
    model: str,
    weights: str | Path,
    hints: Picture | None = None,
    intensity: float = 1.0,
    plugins: str | Path | Iterable[str | Path] = (),
) -> Image.Image:
    """Color a picture of any size. Returns RGB of 8 bit, or RGBA if the picture has alpha.

    `image` is a file, a PIL image, or uint8 RGB (h, w, 3); its luminance is kept. `weights` is a file, or
    "published" for those that are kept; `open_run(FOLDER).colorize` uses a model that was trained here. `hints` is
    a picture of the same size, transparent except for the pixels whose color is given, for a model that takes
    hints. ab is multiplied by `intensity`. Raises UserError if the picture or the model cannot be read, and for
    other hints.
    """
    _refuse_intensity(intensity)
    return color_picture(find_model(load(plugins), model, weights, None), image, hints, intensity)


@dataclass(frozen=True)
class ColorizeSettings:
    """How photos are colored. `weights` are files by model, used instead of `run`; "published" is a kept one.

    `out` is a folder, or one file for one photo and model; default: the current folder. Existing files are replaced
    only with `overwrite`.
    """

    run: str | None = None
    weights: Mapping[str, str] | None = None
    out: str | None = None
    hints: str | None = None
    intensity: float = 1.0
    overwrite: bool = False


def colorize_files(
    photos: Sequence[str], models: Sequence[str], settings: ColorizeSettings, plugins: Sequence[Path] = ()
) -> Iterator[Path | UserError]:
    """Color photos, given by files, folders or patterns, with each model, into PHOTO-MODEL.png.

    Yields each file that is written, or why one was not; the others are made all the same. Raises UserError if nothing
    can be colored: for settings that cannot be, and models that cannot be loaded.
    """
    refuse_empty(out=settings.out, hints=settings.hints)
    _refuse_intensity(settings.intensity)
    found = [each for given in photos for each in _found(given)]
    if settings.hints and len(found) > 1:
        raise UserError(f"--hints {settings.hints}: hints are for one photo; color the others without")
    models, registry, weights = list(dict.fromkeys(models)), load(plugins), settings.weights or {}
    for given in photos:
        _refuse_inside(Path(settings.out or "."), given)
    targets = _targets(found, models, settings.out)
    loaded = [
        find_model(registry, name, weights.get(name), None if name in weights else settings.run) for name in models
    ]
    return _colored(found, loaded, targets, settings)


def _found(given: str) -> list[tuple[Path, PurePath]]:
    """Each photo that is meant, with its name without ending, which in a folder has the names of its subfolders."""
    refuse_empty(photo=given)
    path = Path(given)
    if os.path.isdir(path):
        try:
            return [(path / name, PurePath(name).with_suffix("")) for name in pictures(path).names]
        except ValueError as error:
            raise UserError(f"{error}; name a folder of photos") from error
    if os.path.lexists(path) or not glob.has_magic(given):
        return [(path, PurePath(path.stem))]
    files = [Path(name) for name in sorted(glob.glob(given, recursive=True)) if os.path.isfile(name)]
    if not files:
        raise UserError(f"no file matches {given!r}; name photos, or a folder of them")
    return [(file, PurePath(file.stem)) for file in files]


def _targets(found: Sequence[tuple[Path, PurePath]], models: Sequence[str], out: str | None) -> list[list[Path]]:
    """For each photo, the file to write for each model. Raises UserError for a file that cannot be all of them."""
    suffix = "" if out is None or os.path.isdir(out) else Path(out).suffix.lower()
    if out is not None and suffix in SUFFIXES:
        if suffix != ".png":
            raise UserError(f"cannot write {out!r}: a PNG is written; name a file that ends in .png with --out")
        if len(found) * len(models) > 1:
            raise UserError(f"cannot write {out!r}: it is one file, for several pictures; name a folder with --out")
        if not os.path.isdir(Path(out).parent):
            raise UserError(f"cannot write {out}: there is no folder {Path(out).parent}; name another with --out")
        return [[Path(out)]]
    folder = Path(out or "")
    # os.path, since Path.exists raises an OSError for a name that is too long.
    if file := next((p for p in (folder, *folder.parents) if os.path.exists(p) and not os.path.isdir(p)), None):
        raise UserError(f"cannot write into {out}: {file} is a file; name a folder, or a .png, with --out")
    return [[folder / f"{name}-{model.replace('/', '-')}.png" for model in models] for _, name in found]


def _refuse_inside(folder: Path, given: str) -> None:
    root = Path(given)
    if os.path.isdir(root) and root.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise UserError(f"{folder.resolve()} lies among the photos {given!r}; name a folder elsewhere with --out")


def _colored(
    found: Sequence[tuple[Path, PurePath]],
    loaded: Sequence[Loaded],
    targets: list[list[Path]],
    settings: ColorizeSettings,
) -> Iterator[Path | UserError]:
    made_of: dict[Path, Path] = {}
    given = {(at.st_dev, at.st_ino) for at in (photo.stat() for photo, _ in found if os.path.exists(photo))}
    bar = tqdm(found, unit="photo", disable=None if len(found) > 1 else True)
    for (photo, _), outs in zip(bar, targets, strict=True):
        wanted = []
        for model, out in zip(loaded, outs, strict=True):
            if why := _refusal(out, photo, given, made_of, settings.overwrite):
                yield UserError(why)
            else:
                wanted.append((model, out))
        for done in _color(photo, wanted, settings):
            if isinstance(done, Path):
                made_of[done] = photo
            yield done


def _refusal(
    out: Path, photo: Path, given: Container[tuple[int, int]], made_of: Mapping[Path, Path], overwrite: bool
) -> str:
    """Why a file must not be written; "" if it may. `given` are the photos, by device and inode."""
    if out in made_of:
        return f"{photo} is left out: {out} was made of {made_of[out]}; rename one of them"
    if os.path.exists(out) and (out.stat().st_dev, out.stat().st_ino) in given:
        itself = os.path.exists(photo) and os.path.samefile(out, photo)
        what = "the photo itself" if itself else "one of the photos"
        return f"cannot write {out}: it is {what}; name another file or folder with --out"
    if os.path.lexists(out) and not overwrite:
        return f"{photo} is left out: there is {out} already; --overwrite replaces it"
    return ""


def _color(file: Path, wanted: Sequence[tuple[Loaded, Path]], settings: ColorizeSettings) -> Iterator[Path | UserError]:
    """The photo colored by each model into a file; or why not."""
    if not wanted:
        return
    try:
        photo = read(file)
    except UserError as error:
        yield error
        return
    for model, out in wanted:
        try:
            _write(model, photo, out, settings)
            yield out
        except UserError as error:
            yield error


def _write(model: Loaded, photo: Photo, out: Path, settings: ColorizeSettings) -> None:
    try:
        hints = hints_of(settings.hints, photo, model) if settings.hints else None
        png = png_of(color(model, photo, hints, settings.intensity), photo)
    except UserError:
        raise
    except whatever_raised() as error:
        raise UserError(f"{out} was not made: {model.spec.name} fails ({reason(error)})") from error
    try:
        write_aside(out, png)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        raise UserError(f"cannot write {out}: {error.strerror}; name another file or folder with --out") from error


def _refuse_intensity(intensity: float) -> None:
    if not 0 <= intensity <= MOST_INTENSITY:
        raise UserError(f"the intensity is {intensity}; give a number from 0 to {MOST_INTENSITY}, such as 1.2")
