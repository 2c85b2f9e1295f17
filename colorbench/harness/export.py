"""The test images as files: what another tool is given to color."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from colorbench import plugins
from colorbench.color import luminance, recombine
from colorbench.data.cache import decode_all
from colorbench.data.loader import to_rgb
from colorbench.data.splits import open_splits, refuse_inside
from colorbench.errors import UserError
from colorbench.harness.predict import BATCH, damage_of, to_pixels
from colorbench.harness.preflight import check_protocol
from colorbench.protocol import COLORBENCH
from colorbench.runs.predictions import picture_name


def export_pictures(
    data: str, folder: Path, size: int, plugin_files: Sequence[Path] = (), protocol_name: str = COLORBENCH.name
) -> str:
    """Write folder/input and folder/truth: the test images of `data` as the protocol feeds them, and says how many.

    Raises UserError if the folder is not empty or cannot be written, for data that cannot be used, and for an unknown
    protocol.
    """
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} is not an empty folder; name another one")
    registry = plugins.load(plugin_files)
    refuse_inside(folder, data, registry)
    fed = replace(registry.find("protocol", [protocol_name])[0], size=size)
    check_protocol(fed)
    damaged = damage_of(fed, registry)
    protocol = COLORBENCH.on_input_of(fed)  # what another does to a prediction is not done to an input
    images = decode_all(data, open_splits(data, registry, {"test": None}), protocol).splits["test"]
    for start in range(0, len(images), BATCH):
        truth = np.array(images.pixels[start : start + BATCH])
        rgb = to_rgb(truth, torch.device("cpu"))
        L = damaged(rgb, images.digests[start : start + BATCH]) if damaged else luminance(rgb, protocol)
        grey = to_pixels(recombine(L, L.new_zeros(len(L), 2, *L.shape[2:]), protocol))[..., 0]
        for name, *pixels in zip(images.names[start:], grey, truth, strict=False):
            for kind, picture in zip(("input", "truth"), pixels, strict=True):
                file = folder / kind / picture_name(name)
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(file, "PNG")
    return f"{len(images)} test images of {size} px: grey in {folder / 'input'}, true in {folder / 'truth'}"
