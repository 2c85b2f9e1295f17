"""Sheets of pictures: faces at large, attention, scenes, the worst results. Each is the bytes of a PNG, or None."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from matplotlib import colormaps

from colorbench.errors import one_line
from colorbench.report import pictures
from colorbench.report.diagnostics import View
from colorbench.report.pictures import Block, Gallery, block

MOST_SAMPLES, MOST_SCENES = 4, 2  # rows

ZOOMED = ("eyes", "lips")
MARGIN, SMALLEST_ZOOM = 1.25, 0.25  # a zoom's side over its part's; and over the picture's, at least
# Center (down, right) and side, in sides of the picture, where there are no masks: squares that hold the eyes, and the
# lips, of the faces that FFHQ aligned (eyes at 0.47, lips at 0.75 from the top) and UTKFace's (0.29, 0.70).
FIXED = (0.38, 0.5, 0.66), (0.73, 0.5, 0.4)
SEVERAL = 0.15  # standard deviation of the lips' x, in widths; one mouth of half the width has 0.14

Box = tuple[slice, slice]  # rows, columns
WHOLE = slice(None), slice(None)


def _sheet(blocks: Callable[[Gallery], Iterator[Block]]) -> Callable[[View], bytes | None]:
    return lambda view: pictures.draw(view.results, view.models, blocks)


@_sheet
def refined(gallery: Gallery) -> Iterator[Block]:
    """Base, refiner and truth, each followed by its zooms."""
    zooms = _zooms(gallery)
    for model, base in gallery.refiners:
        columns = gallery.outputs([base, model])
        rows = [[(images[i][box], "") for _, images in columns for box in (WHOLE, *zooms[i])] for i in zooms]
        yield Block([title for name, _ in columns for title in (name, *ZOOMED)], rows, group=1 + len(ZOOMED))


@_sheet
def attention(gallery: Gallery) -> Iterator[Block]:
    """Output, truth and attention map, of each model that has one."""
    for model, arrays in gallery.shown.items():
        if "attention" in arrays:
            seen = colormaps["magma"](arrays["attention"], bytes=True)[..., :3]
            yield block([*gallery.outputs([model]), ("attention", seen)], gallery.first(MOST_SAMPLES))


@_sheet
def scenes(gallery: Gallery) -> Iterator[Block]:
    """The samples with most background, and those with several faces."""
    if "background" not in gallery.masks:
        return
    faces, background = _several_faces(gallery), gallery.masks["background"].mean((1, 2))
    crowds = [i for i in np.argsort(-faces, kind="stable") if faces[i]][:MOST_SCENES]
    wide = [i for i in np.argsort(-background, kind="stable") if background[i] and i not in crowds][:MOST_SCENES]
    captions = {i: f"background {100 * background[i]:.0f} %" for i in wide} | dict.fromkeys(crowds, "several faces")
    models = [*reversed(gallery.refiners[-1])] if gallery.refiners else [*gallery.shown]
    yield block(gallery.columns(models), captions)


@_sheet
def worst(gallery: Gallery) -> Iterator[Block]:
    """The worst test images of each refiner, or else of the best model: output and truth, two such pairs to a row."""
    for model in [model for model, _ in gallery.refiners] or _best(gallery):
        arrays = gallery.shown[model]
        if "worst" in arrays:
            captions = [f"MSE {mse:,.1f}" for mse in arrays["worst_mse"]]
            outputs = zip(arrays["worst"], captions, strict=True)
            truths = zip(arrays["worst_truth"], (one_line(str(name)) for name in arrays["worst_name"]), strict=True)
            tiles = [tile for pair in zip(outputs, truths, strict=True) for tile in pair]
            yield Block([model, "truth"] * 2, [tiles[i : i + 4] for i in range(0, len(tiles), 4)], group=2)


def _best(gallery: Gallery) -> list[str]:
    """The best of the models that have parameters, the last since they come worst first; empty if none has."""
    return [model for model in gallery.shown if gallery.results.cells(model, done=True)[0].parameters][-1:]


def _several_faces(gallery: Gallery) -> np.ndarray:
    """How far the lips are apart, (count,), 0 where they belong to one face: a standard deviation in widths."""
    if "lips" not in gallery.masks:
        return np.zeros(gallery.count)
    spread = np.array([np.nonzero(mask)[1].std() if mask.any() else 0.0 for mask in gallery.masks["lips"]])
    spread /= gallery.truth.shape[2]
    return np.where(spread >= SEVERAL, spread, 0.0)


def _zooms(gallery: Gallery) -> dict[int, list[Box]]:
    """The boxes of ZOOMED in the first samples that show both, of one face only: of several, the box is no zoom."""
    size = gallery.truth.shape[1]
    if not gallery.masks:
        fixed = [_square(down * size, right * size, side * size, size) for down, right, side in FIXED]
        return dict.fromkeys(gallery.first(MOST_SAMPLES), fixed)
    parts = [gallery.masks.get(part, np.zeros((gallery.count, size, size), bool)) for part in ZOOMED]
    one_face = _several_faces(gallery) == 0
    seen = [i for i in range(gallery.count) if one_face[i] and all(part[i].any() for part in parts)]
    return {i: [_around(part[i]) for part in parts] for i in seen[:MOST_SAMPLES]}


def _around(mask: np.ndarray) -> Box:
    """The square around the pixels of a mask (size, size) that has some, with a margin."""
    (top, bottom), (left, right) = ((places.min(), places.max() + 1) for places in np.nonzero(mask))
    return _square((top + bottom) / 2, (left + right) / 2, MARGIN * max(bottom - top, right - left), len(mask))


def _square(down: float, right: float, side: float, size: int) -> Box:
    """The square with this center and side, in pixels, moved into a picture of side `size`."""
    side = min(round(max(side, SMALLEST_ZOOM * size)), size)
    top, left = (min(max(round(center - side / 2), 0), size - side) for center in (down, right))
    return slice(top, top + side), slice(left, left + side)
