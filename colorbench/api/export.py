"""The test images as files: what another tool is given to color."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from colorbench.api.kinds import refuse_other_kinds
from colorbench.api.settings import refuse_number
from colorbench.color import luminance, recombine
from colorbench.data.cache import Images, decode_all
from colorbench.data.loader import to_rgb
from colorbench.data.splits import has_to_be_complete, open_splits, refuse_inside
from colorbench.errors import UserError, reason, refuse_empty, whatever_raised
from colorbench.harness.predict import BATCH, Damage, damage_of, to_pixels
from colorbench.harness.preflight import check_protocol
from colorbench.plugins import load
from colorbench.protocol import COLORBENCH, Protocol
from colorbench.runs.predictions import picture_name

KINDS = ("input", "truth")


def export(
    data: str | Path, folder: str | Path, size: int, protocol: str = COLORBENCH.name,
    plugins: str | Path | Sequence[str | Path] = (),
) -> int:  # fmt: skip
    """Write the test images of `data`, as the protocol feeds them at `size` px: folder/input grey, folder/truth true.

    Returns how many there are. Raises UserError if the folder is not empty or cannot be written, for data that cannot
    be used, and for an unknown protocol.
    """
    refuse_other_kinds({"data": data, "out": folder, "protocol": protocol, "plugins": plugins})
    refuse_number("size", size)
    refuse_empty(protocol=protocol)
    folder, registry = Path(folder), load(plugins)
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} is not an empty folder; name another one")
    refuse_inside(folder, str(data), registry)
    fed = replace(registry.find("protocol", [protocol])[0], size=size)
    check_protocol(fed)
    damage = damage_of(fed, registry)
    used = COLORBENCH.on_input_of(fed)  # what another does to a prediction is not done to an input
    found = open_splits(str(data), registry, {"test": None})
    images = decode_all(str(data), found, used, has_to_be_complete(str(data), registry)).splits["test"]
    folder.mkdir(parents=True, exist_ok=True)
    # A folder aside, so that a full disk leaves none that looks whole.
    with tempfile.TemporaryDirectory(prefix=".exporting-", dir=folder, ignore_cleanup_errors=True) as aside:
        _write(images, Path(aside), used, damage)
        for kind in KINDS:
            Path(aside, kind).rename(folder / kind)
    return len(images)


def _write(images: Images, folder: Path, protocol: Protocol, damage: Damage | None) -> None:
    for start in range(0, len(images), BATCH):
        truth = np.array(images.pixels[start : start + BATCH])
        rgb = to_rgb(truth, torch.device("cpu"))
        try:
            L = damage(rgb.clone(), images.digests[start : start + BATCH]) if damage else luminance(rgb, protocol)
        except whatever_raised() as error:
            raise UserError(f"the images cannot be damaged: {reason(error)}; mend the plugin of that") from error
        grey = to_pixels(recombine(L, L.new_zeros(len(L), 2, *L.shape[2:]), protocol))[..., 0]
        for name, *pixels in zip(images.names[start:], grey, truth, strict=False):
            for kind, picture in zip(KINDS, pixels, strict=True):
                file = folder / kind / picture_name(name)
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(file, "PNG")
