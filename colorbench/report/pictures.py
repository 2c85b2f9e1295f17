"""Sheets of pictures, each as the bytes of a PNG: that of the first test images, and what diagnostics make of others.

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
from PIL import Image, ImageDraw, ImageFont

from colorbench.report.results import Results

MOST_PICTURES = 8  # rows
SMALLEST_PICTURE = 128  # pixels; smaller ones are enlarged
GAP, GROUP_GAP, LINE, TITLE_SIZE, CAPTION_SIZE = 4, 8, 17, 14, 12  # pixels
GREY = "#555555"

Tile = tuple[np.ndarray, str]  # uint8 RGB (h, w, 3) of any size, and what is written below it
Columns = list[tuple[str, np.ndarray]]  # title, uint8 (K, h, w, 3)


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


Blocks = Callable[[Gallery], Iterator[Block]]


def draw(results: Results, models: Sequence[str], blocks: Blocks | None = None) -> bytes | None:
    """The sheet that `blocks` makes of `models`, worst first, None if there is nothing to show.

    Without `blocks` it has the first test images: input, every model, truth.
    """
    gallery = Gallery(results, models)
    if not gallery.shown:
        return None
    side = gallery.truth.shape[1] * -(-SMALLEST_PICTURE // gallery.truth.shape[1])
    return _sheet([*(blocks or _first)(gallery)], side)


def _first(gallery: Gallery) -> Iterator[Block]:
    yield block(gallery.columns(gallery.shown), gallery.first(MOST_PICTURES))


def block(columns: Columns, captions: Mapping[int, str]) -> Block:
    """A row for each image that `captions` numbers; what it says, if anything, stands below the first column."""
    rows = [
        [(images[i], "" if column else text) for column, (_, images) in enumerate(columns)]
        for i, text in captions.items()
    ]
    return Block([title for title, _ in columns], rows)


def _sheet(blocks: Sequence[Block], side: int) -> bytes | None:
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
