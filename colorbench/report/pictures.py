"""The sheets of pictures, each as the bytes of a PNG.

A picture's pixels are enlarged whole and never interpolated: what is seen is what was scored.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont

from colorbench.errors import one_line
from colorbench.report.results import Results

MOST_PICTURES, MOST_SAMPLES, MOST_SCENES = 8, 4, 2  # rows
SMALLEST_PICTURE = 128  # pixels; smaller ones are enlarged
GAP, GROUP_GAP, LINE, TITLE_SIZE, CAPTION_SIZE = 4, 8, 17, 14, 12  # pixels
GREY = "#555555"

ZOOMED = ("eyes", "lips")
MARGIN, SMALLEST_ZOOM = 1.25, 0.25  # a zoom's side over its part's; and over the picture's, at least
# Center (down, right) and side, in sides of the picture, where there are no masks: squares that hold the eyes, and the
# lips, of the faces that FFHQ aligned (eyes at 0.47, lips at 0.75 from the top) and UTKFace's (0.29, 0.70).
FIXED = (0.38, 0.5, 0.66), (0.73, 0.5, 0.4)
SEVERAL = 0.15  # standard deviation of the lips' x, in widths; one mouth of half the width has 0.14

Box = tuple[slice, slice]  # rows, columns
Tile = tuple[np.ndarray, str]  # uint8 RGB (h, w, 3) of any size, and what is written below it
Columns = list[tuple[str, np.ndarray]]  # title, uint8 (K, h, w, 3)
WHOLE = slice(None), slice(None)


@dataclass(frozen=True)
class Block:
    """Rows of tiles under the titles of their columns, with a wider gap after every so many columns as `group` says."""

    titles: Sequence[str]
    rows: Sequence[Sequence[Tile]]
    group: int = 0


@dataclass(frozen=True)
class Gallery:
    """The pictures of `models`, worst first, among those of a run."""

    results: Results
    models: Sequence[str]

    @cached_property
    def shown(self) -> dict[str, Mapping[str, np.ndarray]]:
        """The arrays of each model that kept pictures, but for those that the truth itself made."""
        kept = {model: arrays for model, arrays in self.results.pictures.items() if "predicted" in arrays}
        truth_made = {cell.model for cell in self.results.outcomes if cell.sees_truth}
        return {model: kept[model] for model in self.models if model in kept and model not in truth_made}

    @cached_property
    def count(self) -> int:
        """How many images all models kept: those of an earlier version are fewer than the samples."""
        predicted = [arrays["predicted"] for arrays in self.shown.values()]
        return min(len(images) for images in [self.truth, *predicted])

    def first(self, most: int) -> dict[int, str]:
        """The places of the first images, at most so many, without captions."""
        return dict.fromkeys(range(min(most, self.count)), "")

    @property
    def truth(self) -> np.ndarray:
        return self.results.samples["truth"]

    def columns(self, models: Iterable[str]) -> Columns:
        """The input and what these models made of it."""
        return [("input", self.results.samples["grey"]), *self.outputs(models)]

    def outputs(self, models: Iterable[str]) -> Columns:
        """What these models made of the input, and the truth."""
        return [*((model, self.shown[model]["predicted"]) for model in models), ("truth", self.truth)]

    @cached_property
    def masks(self) -> dict[str, np.ndarray]:
        """bool (count, H, W) by part; empty without masks."""
        samples = self.results.samples
        if "parts" not in samples:
            return {}
        return {str(name): samples["parts"][: self.count] == i for i, name in enumerate(samples["part_names"])}

    @property
    def refiners(self) -> list[tuple[str, str]]:
        """Each model that refines another, with that base, if both kept pictures."""
        pairs = [(model, self.results.cells(model, done=True)[0].refines) for model in self.shown]
        return [(model, base) for model, base in pairs if base in self.shown]

    @property
    def best(self) -> list[str]:
        """The best of the models that have parameters, the last since they come worst first; empty if none has."""
        return [model for model in self.shown if self.results.cells(model, done=True)[0].parameters][-1:]

    @property
    def several_faces(self) -> np.ndarray:
        """How far the lips are apart, (count,), 0 where they belong to one face: a standard deviation in widths."""
        if "lips" not in self.masks:
            return np.zeros(self.count)
        spread = np.array([np.nonzero(mask)[1].std() if mask.any() else 0.0 for mask in self.masks["lips"]])
        spread /= self.truth.shape[2]
        return np.where(spread >= SEVERAL, spread, 0.0)


def draw(results: Results, models: Sequence[str]) -> dict[str, bytes | None]:
    """Every sheet of `models`, worst first, by its file's name; None for one that has nothing to show."""
    gallery = Gallery(results, models)
    if not gallery.shown:
        return dict.fromkeys(SHEETS)
    side = gallery.truth.shape[1] * -(-SMALLEST_PICTURE // gallery.truth.shape[1])
    return {name: sheet([*blocks(gallery)], side) for name, blocks in SHEETS.items()}


def _pictures(gallery: Gallery) -> Iterator[Block]:
    """The first test images: input, every model, truth."""
    yield _block(gallery.columns(gallery.shown), gallery.first(MOST_PICTURES))


def _refined(gallery: Gallery) -> Iterator[Block]:
    """Base, refiner and truth, each followed by its zooms."""
    zooms = _zooms(gallery)
    for model, base in gallery.refiners:
        columns = gallery.outputs([base, model])
        rows = [[(images[i][box], "") for _, images in columns for box in (WHOLE, *zooms[i])] for i in zooms]
        yield Block([title for name, _ in columns for title in (name, *ZOOMED)], rows, group=1 + len(ZOOMED))


def _attention(gallery: Gallery) -> Iterator[Block]:
    """Output, truth and attention map, of each model that has one."""
    for model, arrays in gallery.shown.items():
        if "attention" in arrays:
            attention = colormaps["magma"](arrays["attention"], bytes=True)[..., :3]
            yield _block([*gallery.outputs([model]), ("attention", attention)], gallery.first(MOST_SAMPLES))


def _scenes(gallery: Gallery) -> Iterator[Block]:
    """The samples with most background, and those with several faces."""
    if "background" not in gallery.masks:
        return
    faces, background = gallery.several_faces, gallery.masks["background"].mean((1, 2))
    crowds = [i for i in np.argsort(-faces, kind="stable") if faces[i]][:MOST_SCENES]
    wide = [i for i in np.argsort(-background, kind="stable") if background[i] and i not in crowds][:MOST_SCENES]
    captions = {i: f"background {100 * background[i]:.0f} %" for i in wide} | dict.fromkeys(crowds, "several faces")
    models = [*reversed(gallery.refiners[-1])] if gallery.refiners else [*gallery.shown]
    yield _block(gallery.columns(models), captions)


def _worst(gallery: Gallery) -> Iterator[Block]:
    """The worst test images of each refiner, or else of the best model: output and truth, two such pairs to a row."""
    for model in [model for model, _ in gallery.refiners] or gallery.best:
        arrays = gallery.shown[model]
        if "worst" in arrays:
            captions = [f"MSE {mse:,.1f}" for mse in arrays["worst_mse"]]
            outputs = zip(arrays["worst"], captions, strict=True)
            truths = zip(arrays["worst_truth"], (one_line(str(name)) for name in arrays["worst_name"]), strict=True)
            tiles = [tile for pair in zip(outputs, truths, strict=True) for tile in pair]
            yield Block([model, "truth"] * 2, [tiles[i : i + 4] for i in range(0, len(tiles), 4)], group=2)


SHEETS: dict[str, Callable[[Gallery], Iterator[Block]]] = {
    "pictures.png": _pictures,
    "refined.png": _refined,
    "attention.png": _attention,
    "scenes.png": _scenes,
    "worst.png": _worst,
}


def _block(columns: Columns, captions: Mapping[int, str]) -> Block:
    """A row for each image that `captions` numbers; what it says, if anything, stands below the first column."""
    rows = [
        [(images[i], "" if column else text) for column, (_, images) in enumerate(columns)]
        for i, text in captions.items()
    ]
    return Block([title for title, _ in columns], rows)


def _zooms(gallery: Gallery) -> dict[int, list[Box]]:
    """The boxes of ZOOMED in the first samples that show both, of one face only: of several, the box is no zoom."""
    size = gallery.truth.shape[1]
    if not gallery.masks:
        fixed = [_square(down * size, right * size, side * size, size) for down, right, side in FIXED]
        return dict.fromkeys(gallery.first(MOST_SAMPLES), fixed)
    parts = [gallery.masks.get(part, np.zeros((gallery.count, size, size), bool)) for part in ZOOMED]
    one_face = gallery.several_faces == 0
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


def sheet(blocks: Sequence[Block], side: int) -> bytes | None:
    """The blocks below one another, every tile enlarged to `side` pixels; None if no block has a row."""
    drawn = [_drawn(block, side) for block in blocks if block.rows]
    if not drawn:
        return None
    tops = np.cumsum([0, *(image.height + 2 * GAP for image in drawn)])
    whole = Image.new("RGB", (max(image.width for image in drawn), int(tops[-1]) - 2 * GAP), "white")
    for image, top in zip(drawn, tops[:-1], strict=True):
        whole.paste(image, (0, int(top)))
    buffer = io.BytesIO()
    whole.save(buffer, "png")
    return buffer.getvalue()


def _drawn(block: Block, side: int) -> Image.Image:
    font, small = (ImageFont.load_default(size=size) for size in (TITLE_SIZE, CAPTION_SIZE))
    titles = [_wrapped(title, font, side) for title in block.titles]
    head = max(map(len, titles)) * LINE + 2 * GAP
    foot = LINE if any(caption for row in block.rows for _, caption in row) else 0
    lefts = [GAP + i * (side + GAP) + (i // block.group * GROUP_GAP if block.group else 0) for i in range(len(titles))]
    tops = [head + i * (side + foot + GAP) for i in range(len(block.rows))]
    image = Image.new("RGB", (lefts[-1] + side + GAP, tops[-1] + side + foot + GAP), "white")
    pen = ImageDraw.Draw(image)
    for left, lines in zip(lefts, titles, strict=True):
        pen.multiline_text((left, head - GAP), "\n".join(lines), fill="black", font=font, anchor="ld", spacing=3)
    for top, row in zip(tops, block.rows, strict=True):
        for left, (pixels, caption) in zip(lefts, row, strict=False):  # the last row may be shorter
            image.paste(Image.fromarray(_enlarged(pixels, side)), (left, top))
            # File names tend to begin alike: of a caption that is too long, as much of its end as fits.
            ends = (caption, *(f"…{caption[i:]}" for i in range(1, len(caption))))
            text = next((end for end in ends if small.getlength(end) <= side), "")
            pen.text((left, top + side + 1), text, fill=GREY, font=small)
    return image


def _enlarged(image: np.ndarray, side: int) -> np.ndarray:
    rows, columns = (np.arange(side) * length // side for length in image.shape[:2])
    return image[rows][:, columns]


def _wrapped(title: str, font: Any, width: int) -> list[str]:
    """The title in lines that fit, broken after "/" and "-" where it has them."""
    lines = [""]
    for part in re.split("(?<=[-/])", title):
        if lines[-1] and font.getlength(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return lines
