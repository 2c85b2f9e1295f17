"""The laws of a protocol, checked on toy pictures with the conversion and scores of a run."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cached_property

import torch

from colorbench import plugins
from colorbench.color import bytes_to_lab, luminance, recombine
from colorbench.data.decode import CROPS, RESIZES
from colorbench.harness.predict import damage_of
from colorbench.harness.preflight import check_protocol
from colorbench.metrics import score
from colorbench.plugins import Registry
from colorbench.protocol import Protocol
from colorbench.testing.pictures import guesses

IMAGES, SIZE = 4, 64
LEAST_PSNR = 30.0  # dB, of the true colors: enough for a JPEG of quality 75


class Subject:
    """A protocol under the laws."""

    def __init__(self, protocol: Protocol, registry: Registry | None = None) -> None:
        self.protocol, self.given = protocol, registry

    @cached_property
    def registry(self) -> Registry:
        return self.given or plugins.load()


def fields(subject: Subject) -> str:
    """The code knows what every field says, at the protocol's size and at a small one."""
    protocol = subject.protocol
    protocol.choose("crop", CROPS)
    protocol.choose("resize", RESIZES)
    for size in (protocol.size, SIZE):
        check_protocol(replace(protocol, size=size))
    damage_of(protocol, subject.registry)
    return f"{len(protocol.settings)} fields"


def identity(subject: Subject) -> str:
    """The id is that of no other protocol, follows the fields, and does not depend on words."""
    protocol = subject.protocol
    others = [other for name, other in subject.registry.specs["protocol"].items() if name != protocol.name]
    if not re.fullmatch("[0-9a-f]{12}", protocol.id):
        raise ValueError(f"the id is {protocol.id!r}; leave it to the class Protocol")
    if taken := [other.name for other in others if other.id == protocol.id]:
        raise ValueError(f"{', '.join(taken)} has the same id; give it a name of its own")
    if replace(protocol, summary="", source="").id != protocol.id or replace(protocol, size=SIZE + 1).id == protocol.id:
        raise ValueError("the id does not follow the fields; leave it to the class Protocol")
    if same := [other.name for other in others if other.settings == protocol.settings]:
        raise ValueError(f"all its fields are those of {', '.join(same)}; use that one")
    return protocol.id


def true_colors(subject: Subject) -> str:
    """The true ab with the L that a network sees gives the true picture, but for rounding, and the best scores."""
    protocol = replace(subject.protocol, size=SIZE)
    _, truth = guesses(IMAGES, SIZE, seed=0)
    L, ab = luminance(truth, protocol), torch.stack(bytes_to_lab(truth, protocol)[1:], dim=1)
    scores = [score(recombine(L, strength * ab, protocol), truth, protocol=protocol).mean() for strength in (1, 0.5, 0)]
    for name, sign in (("mse", 1), ("psnr", -1), ("ssim", -1), ("ciede2000", 1)):
        best, *others = (sign * table[name] for table in scores)
        if best > min(others):
            raise ValueError(f"half the color, or none, has a better {name} than the true one; look at its fields")
    if protocol.truth_saturation == 1 and scores[0]["psnr"] < LEAST_PSNR:
        raise ValueError(f"the true colors have {scores[0]['psnr']:.1f} dB, not {LEAST_PSNR:.0f}; look at its fields")
    return f"{scores[0]['psnr']:.1f} dB, grey {scores[2]['psnr']:.1f} dB"


LAWS = ((fields,), (identity, true_colors))
