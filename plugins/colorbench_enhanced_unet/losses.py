"""The losses of Table 1 of Wang, Hu and Zhao: Beyond Black and White.

Each is a squared norm, written here as what is squared; how the squares of a batch become a number is a `Reduction`.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colorbench.color import lab_to_rgb

# Equation 1.
WEIGHTS: Mapping[str, float] = {
    "residual": 0.35,
    "output": 0.25,
    "perceptual": 0.10,
    "diversity": 0.10,
    "style": 0.10,
    "attention": 0.10,
}


def chroma(ab: Tensor) -> Tensor:
    """ab (B, 2, H, W) -> its length per pixel (B, 1, H, W), in the unit of `ab`."""
    return (ab.square().sum(dim=1, keepdim=True) + 1e-12).sqrt()  # gray has a gradient, too


def min_max(image: Tensor) -> Tensor:
    """Each (1, H, W) of a batch stretched to 0..1; a flat one, with a range below 1e-4, stays near 0."""
    low, high = image.amin(dim=(1, 2, 3), keepdim=True), image.amax(dim=(1, 2, 3), keepdim=True)
    return (image - low) / (high - low).clamp_min(1e-4)


Reduction = Callable[[Tensor], Tensor]

REDUCTIONS: Mapping[str, Reduction] = {
    "mean": lambda squares: squares.mean(),
    "sum": lambda squares: squares.flatten(1).sum(dim=1).mean(),  # over an image; a batch is always averaged
}


def squared(first: Tensor, second: Tensor) -> Tensor:
    return (first - second).square()


def rgb(L: Tensor, ab: Tensor) -> Tensor:
    """L (B, 1, H, W) and ab (B, 2, H, W) in Lab units -> sRGB (B, 3, H, W) in 0..1, with a gradient."""
    return lab_to_rgb(torch.cat((L, ab), dim=1))


def hinge(final: Tensor, base: Tensor, target: Tensor) -> Tensor:
    """How much less colorful than the truth the result is; being more colorful costs nothing here.

    Half of it for each of the two channels, as of the others' squares: else a mean would count it twice.
    """
    # Squared as the other terms: a linear hinge outweighs them where errors are small, and oversaturates.
    short = (chroma(target) - chroma(final)).clamp_min(0)
    return (short.square() / 2).expand_as(target)


def penalty(final: Tensor, base: Tensor, target: Tensor) -> Tensor:
    """Table 1 to the letter: it pulls the result back to the base, away from the truth."""
    return squared(final, base)


def reward(final: Tensor, base: Tensor, target: Tensor) -> Tensor:
    """Table 1 with the sign that its description, more vibrant than the base, asks for."""
    return -squared(final, base)


DIVERSITY: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "hinge": hinge,
    "penalty": penalty,
    "reward": reward,
}


def variation(ab: Tensor) -> Tensor:
    """ab (B, 2, H, W) -> its standard deviation over 7 x 7 pixels (B, 1, H, W), both channels together."""
    mean = F.avg_pool2d(ab, 7, stride=1, padding=3, count_include_pad=False)
    square = F.avg_pool2d(ab.square(), 7, stride=1, padding=3, count_include_pad=False)
    return (square - mean.square()).clamp_min(0).sum(dim=1, keepdim=True).sqrt()


ATTENDED: Mapping[str, Callable[[Tensor], Tensor]] = {"chroma": chroma, "variation": variation}


def attention_error(attention: Tensor, wanted: Tensor) -> Tensor:
    """Map (B, 1, h, w) in 0..1 against `wanted` (B, 1, H, W), pooled to the map's size and stretched to 0..1."""
    h, w = attention.shape[-2:]
    return squared(attention, min_max(F.adaptive_avg_pool2d(wanted, (h, w))))


def appearance(
    vgg: VGG16Features, L: Tensor, final: Tensor, target: Tensor, style_of: Tensor, reduce: Reduction
) -> dict[str, Tensor]:
    """Perceptual loss against `target`, style loss against `style_of`; all ab (B, 2, H, W) in Lab units.

    The feature layers count equally; a Gram matrix is divided by its layer's C * H * W.
    """
    with torch.no_grad():
        fixed = vgg(rgb(L.repeat(2, 1, 1, 1), torch.cat((target, style_of))))
    seen = vgg(rgb(L, final))
    perceptual, style = [], []
    for layer, (wanted, started) in zip(seen, (f.chunk(2) for f in fixed), strict=True):
        perceptual.append(reduce(squared(layer, wanted)))
        style.append(reduce(squared(gram(layer), gram(started))))
    return {"perceptual": torch.stack(perceptual).mean(), "style": torch.stack(style).mean()}


def gram(features: Tensor) -> Tensor:
    """float32 (B, C, H, W) -> (B, C, C), the mean products of channels divided by C."""
    flat = features.flatten(2)
    with torch.autocast(features.device.type, enabled=False):  # bf16 is coarser than what is compared
        return flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])


class VGG16Features(nn.Module):
    """What VGG16 (Simonyan and Zisserman 2015) sees: the maps after `layers`, of which STAGES has the names.

    `weights` is a file of torchvision's VGG16. Without one the features are random, the same in every run, with
    their channels multiplied by `width`. The kernels are constants: they follow the module to its device, but are
    neither parameters nor state. Raises ValueError if the file holds no VGG16 of torchvision.
    """

    # The last ReLU of each stage, and its convolutions: (index in torchvision's `features`, channels). 2x2 max pooling
    # between the stages.
    STAGES: Mapping[str, tuple[tuple[int, int], ...]] = MappingProxyType(
        {
            "relu1_2": ((0, 64), (2, 64)),
            "relu2_2": ((5, 128), (7, 128)),
            "relu3_3": ((10, 256), (12, 256), (14, 256)),
            "relu4_3": ((17, 512), (19, 512), (21, 512)),
        }
    )

    mean: Tensor
    std: Tensor

    def __init__(self, weights: str | Path | None, width: float, layers: Sequence[str]) -> None:
        super().__init__()
        self.layers = layers
        for index, kernel, bias in _read(Path(weights)) if weights else _random(width):
            self.register_buffer(f"kernel{index}", kernel, persistent=False)
            self.register_buffer(f"bias{index}", bias, persistent=False)
        # ImageNet's mean and deviation in RGB, with which torchvision trained
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)

    def forward(self, rgb: Tensor) -> list[Tensor]:
        """sRGB (B, 3, H, W) in 0..1 -> a float32 map for each layer, the k-th stage's at H / 2^(k - 1)."""
        x = (rgb - self.mean) / self.std
        maps: list[Tensor] = []
        for name, stage in self.STAGES.items():
            for index, _ in stage:
                x = F.relu(F.conv2d(x, getattr(self, f"kernel{index}"), getattr(self, f"bias{index}"), padding=1))
            if name in self.layers:
                maps.append(x.float())
            if len(maps) == len(self.layers):
                break
            x = F.max_pool2d(x, 2)
        return maps


Kernels = list[tuple[int, Tensor, Tensor]]  # index, (outputs, inputs, 3, 3), (outputs,)


def _read(file: Path) -> Kernels:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        kernels = [
            (index, state[f"features.{index}.weight"], state[f"features.{index}.bias"])
            for stage in VGG16Features.STAGES.values()
            for index, _ in stage
        ]
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, LookupError, TypeError) as error:
        raise ValueError(f"{file} holds no VGG16 weights of torchvision ({type(error).__name__})") from error
    return kernels


def _random(width: float) -> Kernels:
    """He et al. 2015, so that the maps of all layers are of one magnitude."""
    generator = torch.Generator().manual_seed(16)  # its own, and fixed: every run is scored by the same features
    kernels, inputs = [], 3
    for index, channels in (convolution for stage in VGG16Features.STAGES.values() for convolution in stage):
        outputs = max(8, round(channels * width))
        kernel = torch.randn(outputs, inputs, 3, 3, generator=generator) * (2 / (9 * inputs)) ** 0.5
        kernels.append((index, kernel, torch.zeros(outputs)))
        inputs = outputs
    return kernels
