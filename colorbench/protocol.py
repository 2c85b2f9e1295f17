"""The written protocol: every choice that moves a score. Two tables compare only if their ids are equal."""

import hashlib
import json

PROTOCOL = {
    "name": "colorbench-1",
    "resize": "center crop to a square, then Pillow bicubic (antialiased), 8 bit",
    "lab": "sRGB, D65 white, 2 degree observer",
    "prediction": "evaluation mode, float32, automatic (no hints)",
    "recombination": "predicted ab with the true L, to sRGB, clipped, rounded to uint8",
    "mse": "over RGB 0..255, per image",
    "psnr": "10 log10(255^2 / MSE) per image; mean over images is the headline",
    "ssim": "Gaussian 11x11, sigma 1.5, RGB, no downsampling, mean over channels",
    "ciede2000": "mean over pixels, of the uint8 pictures",
    "colorfulness": "Hasler and Suesstrunk 2003, signed opponents",
    "colorfulness_delta": "colorfulness of the prediction minus that of the truth",
    "near_grey": "max |ab| <= 5 in every pixel: counted, left out of training, scored like any other",
}

SCORES = ("mse", "psnr", "ssim", "ciede2000", "colorfulness", "colorfulness_delta")  # described above, by these names
KEYS = ("image", "model", "seed")  # what a row of scores is about


def protocol_id() -> str:
    """The first 12 hexadecimal digits of the SHA-256 of the protocol."""
    return hashlib.sha256(json.dumps(PROTOCOL, sort_keys=True).encode()).hexdigest()[:12]
