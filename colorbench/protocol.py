"""The protocol as data: every choice that changes a score. Tables can be compared only if their ids are equal."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from colorbench.errors import UserError, refuse_unknown

LARGEST_SIZE = 2**13  # of a side in pixels: what a command takes in memory of larger pictures, few machines have
SCORES = {  # the columns that every run has, in this order, and what each is
    "mse": "mean squared error over RGB 0..255, per image",
    "psnr": "10 log10(peak^2 / MSE) in dB, per image; the mean over images is the headline",
    "ssim": "structural similarity (Wang et al. 2004) in a Gaussian window, mean over pixels and channels",
    "ciede2000": "CIEDE2000 color difference (Sharma, Wu, Dalal 2005), mean over pixels",
    "colorfulness": "M3 of Hasler and Suesstrunk 2003, of the prediction",
    "colorfulness_delta": "colorfulness of the prediction minus that of the truth",
}
KEYS = ("image", "model", "seed")  # what a row of scores is about
_HINTS = ("hints", "hint_size", "hint_places")
NO_DEGRADATION = "none"
# What a network is asked with: neither the decoded images nor the training depend on it.
ASKED_WITH = (*_HINTS, "degradation")
_INPUT = ("crop", "resize", "size", "luminance", "near_grey", *ASKED_WITH)
_WORDS = ("summary", "source")  # which change no number
CONVERSION = ("recombined_luminance", "lab", "gamut", "rounding", "saved_as")  # from L and ab to a picture
# Forks that came later. At the value that everything had before them they leave an id as it was.
_LATER = (
    "saved_as", "truth", "truth_saturation", "error_channels", "error_border", "ssim_window_shape", "ssim_covariance",
    "ssim_data_range", *ASKED_WITH,
)  # fmt: skip


@dataclass(frozen=True)
class Protocol:
    """What is compared, and how: the code reads these fields and has no other settings.

    `summary` and `source` (where its choices were read) are text for the reader and not part of the ids.

    Raises UserError for a value of another type, and for a number that is not finite and above 0 (a border may be 0).
    Text values are checked by the code that reads them; UserError lists the known values: `crop` and `resize` in
    colorbench/data/decode.py, colors in colorbench/color.py, scores in colorbench/metrics/standard.py.
    """

    name: str = "colorbench-1"
    summary: str = "square crop, true L, rounded; MSE and PSNR over RGB, SSIM in a Gaussian window, signed colorfulness"
    source: str = "colorbench/protocol.py, with the reason of each choice"
    # The input half: from a file to the L that a network sees.
    crop: str = "center-square"  # the largest square: no shape is distorted ("none"), no border is made up
    resize: str = "pillow-bicubic"  # antialiased, 8 bit; the filters of several other libraries alias
    size: int = 256  # pixels to a side, as the published weights of the field were trained; a command's takes its place
    luminance: str = "resized-rgb"  # L of the 8-bit picture that is scored, not a resized L
    near_grey: float = 5.0  # max |ab| of images left out of training, where they teach desaturation; scored as others
    hints: int = 0  # points of an image whose true ab is shown to the models that take hints; 0 is automatic
    hint_size: int = 6  # pixels to a side of a point, which has their mean ab; as R. Zhang et al. 2017 test
    hint_places: str = "normal"  # around the center, as they draw them; others have "uniform"
    degradation: str = NO_DEGRADATION  # or NAME:STRENGTH, damage to the L that models see; scored with the true L
    # The scoring half: from L and predicted ab to a picture and its scores.
    recombined_luminance: str = "truth"  # the colors alone are predicted
    lab: str = "srgb-d65-2deg"  # IEC 61966-2-1 and CIE 15; matrix and white point of skimage.color.rgb2lab
    gamut: str = "clip"  # each channel, as skimage.color.lab2rgb does
    rounding: str = "nearest"  # truncation would cap a perfect result at 52 dB
    saved_as: str = "png"  # a JPEG loses more than many models differ by
    truth: str = "as-is"  # not passed through Lab and back, which hides what truncation does to the prediction
    truth_saturation: float = 1.0  # a factor on the true colors' distance from grey
    peak: int = 255  # of PSNR: 8 bits
    error_channels: str = "rgb"  # of MSE and PSNR; in luma, where L is the true one, hardly an error would be left
    error_border: int = 0  # pixels at each side that MSE and PSNR leave out
    ssim_channels: str = "rgb"  # their mean; not in grey, for the same reason
    ssim_window_shape: str = "gaussian"  # this and the next seven: Wang et al. 2004, whose script cuts the border off
    ssim_window: int = 11  # not of a window as large as the picture
    ssim_sigma: float = 1.5  # of a Gaussian one
    ssim_covariance: str = "population"
    ssim_data_range: int = 255
    ssim_k1: float = 0.01
    ssim_k2: float = 0.03
    ssim_border: str = "valid"
    ciede2000_kl: float = 1.0  # CIE 142-2001, reference conditions; the textile industry has 2
    colorfulness_opponents: str = "signed"  # as published; some programs take absolute values
    colorfulness_mean_weight: float = 0.3  # Hasler and Suesstrunk 2003, fitted to what their observers said

    def __post_init__(self) -> None:
        for field in fields(self):
            value, default = getattr(self, field.name), getattr(Protocol, field.name)
            typed = type(value) is type(default)
            if not typed or not (isinstance(value, str) or 0 < value < math.inf or value == default):
                raise UserError(f"the protocol's {field.name} cannot be {value!r}; give a value such as {default!r}")
        if self.hints and self.hint_size > self.size:
            raise UserError(f"protocol {self.name}: hints of {self.hint_size} px do not fit into {self.size} px")
        if self.hints > self.size**2:
            raise UserError(f"protocol {self.name}: {self.hints} hints are more than {self.size} px square have pixels")
        if self.degradation != NO_DEGRADATION and not 0 < self.damage[1] < math.inf:
            raise UserError(
                f"the protocol's degradation cannot be {self.degradation!r}; give NAME:STRENGTH, such as 'blur:2'"
            )
        if self.size > LARGEST_SIZE:
            raise UserError(f"pictures of {self.size} px are too large; give a size up to {LARGEST_SIZE}")

    @property
    def id(self) -> str:
        """12 hexadecimal digits of the SHA-256 of the name and all fields that change a number."""
        return self._digest(["name", *self.settings])

    @property
    def settings(self) -> dict[str, Any]:
        """All fields except `name`, `summary` and `source`."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in ("name", *_WORDS)}

    @property
    def input_id(self) -> str:
        """The id of the input half alone."""
        return self._digest(_INPUT)

    @property
    def scoring_id(self) -> str:
        """The id of the scoring half alone."""
        return self._digest([name for name in self.settings if name not in _INPUT])

    @property
    def automatic(self) -> Protocol:
        """This protocol without hints and damage: for decoding images and training networks."""
        return replace(self, **{name: getattr(Protocol, name) for name in ASKED_WITH})

    @property
    def damage(self) -> tuple[str, float]:
        """The name and strength of the degradation; strength 0 if there is none, NaN if it is no number."""
        return damage_of(self.degradation)

    def on_input_of(self, other: Protocol) -> Protocol:
        """The scoring half of this protocol with the input half of `other`."""
        return replace(self, **{name: getattr(other, name) for name in _INPUT})

    def choose(self, field: str, known: Mapping[str, Any]) -> Any:
        """The entry of `known` for the field's value. Raises UserError listing the known values if there is none."""
        refuse_unknown(f"{field} in protocol {self.name}:", [value := getattr(self, field)], known)
        return known[value]

    def _digest(self, names: Iterable[str]) -> str:
        values = {name: getattr(self, name) for name in names}
        told = {name: v for name, v in values.items() if name not in _LATER or v != getattr(Protocol, name)}
        content = json.dumps(told, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]


def damage_of(degradation: str) -> tuple[str, float]:
    """The name and strength of "NAME:STRENGTH"; strength 0 without one, NaN if it is no number."""
    name, _, strength = degradation.partition(":")
    try:
        return name, float(strength or 0)
    except ValueError:
        return name, math.nan


COLORBENCH = Protocol()
