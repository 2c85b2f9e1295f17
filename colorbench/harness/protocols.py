"""A cell -> a row of scores per image and protocol: of what it has kept, or of its network's answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from colorbench.color import bytes_to_lab, luminance, recolored
from colorbench.data.cache import Images
from colorbench.data.loader import to_rgb
from colorbench.harness.cell import Cell, predictions_of
from colorbench.harness.predict import kept
from colorbench.harness.scoring import score_all
from colorbench.metrics import score
from colorbench.protocol import CONVERSION, Protocol
from colorbench.runs.context import CellRequest
from colorbench.runs.records import CellRecord


def score_under(
    protocols: Iterable[Protocol], cell_dir: Path, record: CellRecord, own: Protocol, images: Images
) -> pd.DataFrame:
    """Columns model, seed, image, protocol and those of `protocol.SCORES`; by protocol, the images in order.

    `own` is the protocol of the run: under others that make a picture of L and ab as it does, what is kept is scored as
    it is, under the rest its ab with the true L (`_remade`); pictures made elsewhere that keep their own L are scored
    as they are under each. Raises ValueError if a picture is not there.
    """
    rows, where = [], torch.device("cpu")
    as_is = "pictures" in record.made_from and record.made_from["options"].get("as_is")
    for batch in kept(cell_dir, record, images, where):
        place = slice(batch.start, batch.start + len(batch.pictures))
        truth = to_rgb(images.pixels[place], where)
        for protocol in protocols:
            pictures = batch.pictures
            if not as_is and any(getattr(protocol, field) != getattr(own, field) for field in CONVERSION):
                pictures = _remade(pictures, luminance(truth, protocol), protocol)
            scores = score(pictures, truth, protocol=protocol)
            keys = {"model": record.model, "seed": record.seed, "image": images.names[place], "protocol": protocol.name}
            rows.append(pd.DataFrame(keys).join(scores))
    return pd.concat(rows, ignore_index=True).sort_values("protocol", kind="stable", ignore_index=True)


def predict_under(protocols: Iterable[Protocol], request: CellRequest) -> pd.DataFrame:
    """The same columns and order as `score_under`, of what the trained network of a cell answers under each protocol.

    Raises ValueError if it breaks the contract, UserError if its weights are damaged or its plugin is gone.
    """
    cell, frames = Cell(request), []
    for protocol in protocols:
        cell.request = replace(request, protocol=protocol)
        scores = score_all(predictions_of(cell, request.record, cell.test), cell.test, (), protocol).scores
        keys = {"model": request.record.model, "seed": request.record.seed, "image": scores.pop("image")}
        frames.append(pd.DataFrame(keys | {"protocol": protocol.name}).join(scores))
    return pd.concat(frames, ignore_index=True)


def _remade(pictures: Tensor, L: Tensor, protocol: Protocol) -> Tensor:
    """The protocol's pictures from those that a run has kept, uint8 RGB (B, 3, H, W), and the true L (B, 1, H, W).

    A color outside the gamut was clipped, and its L moved with it: where a channel is at an end of its range the
    picture's own L is taken. Against the predicted ab itself the 8 bits moved the PSNR of an image by 0.07 dB at most
    below 30 dB, by 0.2 up to 45 dB and by 0.8 above 50 dB: four kinds of predictions, from pale to out of gamut, of 56
    photographs at 128 px under each built-in protocol. A mean below 30 dB moved by 0.03 dB at most.
    """
    own = bytes_to_lab(pictures, protocol)[0][:, None]
    clipped = ((pictures == 0) | (pictures == 255)).any(1, keepdim=True)
    return recolored(pictures, torch.where(clipped, own, L), protocol)
