"""Further metrics: AuC of the ab error, plain and rebalanced; colorfulness over the set; LPIPS; FID and KID.

Nothing is downloaded: a metric whose weights are neither given with --weights nor cached is listed as missing.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from colorbench.contract import MetricSpec, PublishedWeights
from colorbench.hooks import hookimpl
from colorbench.published import find_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from torch import Tensor

# As torch.hub caches them. The digits before the ending are the first of the file's SHA-256.
INCEPTION, VGG16, LPIPS = "weights-inception-2015-12-05-6726825d.pth", "vgg16-397923af.pth", "lpips_weights.pt"
RELEASES = "https://github.com/toshas/torch-fidelity/releases", "https://github.com/photosynthesis-team/piq/releases"
LARGEST_FILE = 1 << 30  # bytes; VGG16 has half of that
VGG16_WEIGHTS = PublishedWeights(
    file=VGG16,
    url=f"https://download.pytorch.org/models/{VGG16}",
    page="https://docs.pytorch.org/vision/stable/models/generated/torchvision.models.vgg16.html",
    sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    licence="BSD-3-Clause",
    trained_on="ImageNet",
    size=553_433_881,
)
INCEPTION_WEIGHTS = PublishedWeights(
    file=INCEPTION,
    url=f"{RELEASES[0]}/download/v0.2.0/{INCEPTION}",
    page=RELEASES[0],
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    licence="Apache-2.0",
    trained_on="ImageNet",
    size=95_628_359,
)
KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000  # of torch-fidelity, and of the paper's authors


def _auc(predicted: Tensor, truth: Tensor) -> Tensor:
    from colorbench_metrics.auc import auc

    return auc(predicted, truth)


def _weighted_auc(predicted: Tensor, truth: Tensor, probabilities: np.ndarray) -> Tensor:
    from colorbench_metrics.auc import weighted_auc

    return weighted_auc(predicted, truth, probabilities)


def _color_probabilities(batches: Iterator[Tensor]) -> np.ndarray:
    from colorbench_metrics.auc import color_probabilities

    return color_probabilities(batches)


def _weighted_mean(features: np.ndarray) -> float:
    areas, weights = features.sum(axis=0)
    return float(areas / weights)


def _absolute_mean(features: np.ndarray) -> float:
    return float(abs(features.mean()))


def _lpips(predicted: Tensor, truth: Tensor, files: tuple[tuple[Path, str], ...]) -> Tensor:
    from colorbench_metrics.lpips import lpips

    return lpips(predicted, truth, files)


def _inception(predicted: Tensor, truth: Tensor, file: Path, sha256: str) -> Tensor:
    from colorbench_metrics.inception import features

    return features(predicted, truth, file, sha256)


def _fid(features: np.ndarray) -> float:
    from colorbench_metrics.inception import fid

    return fid(features)


def _kid(features: np.ndarray) -> float:
    from colorbench_metrics.inception import kid

    return kid(features, KID_SUBSETS, KID_SUBSET_SIZE)


@hookimpl
def register_metrics(register: Callable[[MetricSpec], None], files: Mapping[str, Path]) -> None:
    register(
        MetricSpec(
            "auc",
            "area under the share of pixels whose ab error is within 0..150, as a share (Zhang et al. 2016)",
            _auc,
            space="lab",
            better="higher",
        )
    )
    register(
        MetricSpec(
            "auc_rebalanced",
            "the same over all pixels, rare colors of the training split counting more (Zhang et al. 2016)",
            _weighted_auc,
            _weighted_mean,
            resample=True,
            prepare=_color_probabilities,
            space="lab",
            better="higher",
            notes=["pixels count by how rare their true color is in the training images, not in the paper's ImageNet"],
        )
    )
    register(
        MetricSpec(
            "colorfulness_difference",
            "how far the mean colorfulness of the predictions is from that of the truth",
            ["colorfulness_delta"],
            _absolute_mean,
            resample=True,
            better="lower",
            notes=["the difference of two means, in which paler images make up for brighter ones"],
        )
    )
    register(_lpips_spec(files.get("lpips")))
    for spec in _inception_specs(files.get("fid")):
        register(spec)


def _lpips_spec(folder: Path | None) -> MetricSpec:
    spec = MetricSpec(
        "lpips",
        "distance of VGG16's features, weighted as people judge (Zhang et al. 2018), by piq",
        _lpips,
        better="lower",
        takes_weights=True,
        weights=[VGG16_WEIGHTS],
    )
    where = f"in {folder}" if folder else "among the kept weights, or in torch.hub's cache"
    remedy = (
        f"put it there, or both files in a folder, and say --weights lpips=FOLDER; colorbench weights fetch lpips gets "
        f"{VGG16}, and {LPIPS} is of {RELEASES[1]}"
    )
    found: list[Path] = []
    for name in (VGG16, LPIPS):
        file = folder / name if folder else find_weights(name)
        if file is None or not file.is_file():
            return _missing(spec, f"{name} is not {where}; {remedy}")
        found.append(file)
    try:
        hashes = [_sha256(file) for file in found]
    except OSError as error:
        return _missing(spec, f"cannot read {error.filename}: {error.strerror}; make it readable")
    if not hashes[0].startswith(_digits(VGG16)):
        return _missing(spec, f"{found[0]} is not the file of that name (its SHA-256 differs); {remedy}")
    settings = {"vgg16": hashes[0], "weights": hashes[1], "piq": version("piq")}
    note = f"VGG16 with weights of SHA-256 {hashes[0][:12]}, {LPIPS} of {hashes[1][:12]}, piq {settings['piq']}"
    compute = partial(_lpips, files=tuple(zip(found, hashes, strict=True)))
    return replace(spec, compute=compute, settings=settings, notes=[note])


def _inception_specs(given: Path | None) -> list[MetricSpec]:
    """FID and KID; with other weights than theirs both as missing, and what these weights give under other names."""
    fid = MetricSpec(
        "fid",
        "Fréchet distance of InceptionV3's features over the set (Heusel et al. 2017), by torch-fidelity",
        _inception,
        _fid,
        better="lower",
        takes_weights=True,
        weights=[INCEPTION_WEIGHTS],
    )
    kid = MetricSpec(
        "kid",
        "kernel distance of InceptionV3's features over the set (Binkowski et al. 2018), by torch-fidelity",
        _inception,
        _kid,
        better="lower",
    )
    if find_spec("torch_fidelity") is None:
        return [_missing(spec, "torch-fidelity is not installed; pip install 'colorbench[fid]'") for spec in (fid, kid)]
    file = given or find_weights(INCEPTION)
    if file is None:
        why = f"{INCEPTION} is not kept; run colorbench weights fetch fid, or --weights fid=FILE"
        return [_missing(spec, why) for spec in (fid, kid)]
    try:
        sha256 = _sha256(file)
    except OSError as error:
        return [_missing(spec, f"cannot read {file}: {error.strerror}; name the file") for spec in (fid, kid)]
    library = version("torch-fidelity")
    note = f"InceptionV3 with weights of SHA-256 {sha256[:12]}, torch-fidelity {library}; depends on how many images"
    settings = {"weights": sha256, "torch-fidelity": library}
    compute = partial(_inception, file=file, sha256=sha256)
    fid = replace(fid, compute=compute, settings=settings, notes=[note])
    subsets = f"{KID_SUBSETS} subsets of {KID_SUBSET_SIZE:,} images, or one of all if these are fewer"
    kid_settings = settings | {"subsets": KID_SUBSETS, "subset_size": KID_SUBSET_SIZE}
    kid = replace(kid, compute=compute, settings=kid_settings, notes=[f"{note}; {subsets}"])
    if sha256.startswith(_digits(INCEPTION)):
        return [fid, kid]
    frechet, kernel = f"frechet_{sha256[:8]}", f"kernel_{sha256[:8]}"
    why = f"{file} is not {INCEPTION} (its SHA-256 differs): its distances are called {frechet} and {kernel}"
    others = [
        replace(fid, name=frechet, summary="as FID, with other weights", takes_weights=False),
        replace(kid, name=kernel, summary="as KID, with other weights"),
    ]
    return [_missing(fid, why), _missing(kid, why), *others]


def _missing(spec: MetricSpec, why: str) -> MetricSpec:
    return replace(spec, missing=why)


def _sha256(file: Path) -> str:
    if file.stat().st_size > LARGEST_FILE:
        raise OSError(errno.EFBIG, f"larger than {LARGEST_FILE >> 30} GiB", str(file))
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _digits(name: str) -> str:
    """The first digits of the SHA-256 that torch.hub writes into a file's name."""
    return Path(name).stem.rpartition("-")[2]
