"""FID and KID, by torch-fidelity."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from colorbench_metrics.weights import load

LAYER = "2048"  # the features before the classifier
FEWEST = 8  # images: of fewer a covariance says nothing, and it costs as much


def features(predicted: Tensor, truth: Tensor, file: Path, sha256: str) -> Tensor:
    """The features of predictions, then of the truth: float32 (B, 2 * 2048) of uint8 RGB (B, 3, H, W)."""
    extractor = _extractor(file, sha256).to(predicted.device)
    return torch.cat([extractor(images)[0] for images in (predicted, truth)], dim=1)


@cache
def _extractor(file: Path, sha256: str) -> nn.Module:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    # torch-fidelity unpickles what it is given: it gets what has been read as tensors, written anew.
    content = io.BytesIO()
    torch.save(load(file, sha256), content)
    content.seek(0)
    return FeatureExtractorInceptionV3("inception-v3-compat", [LAYER], feature_extractor_weights_path=content)


def fid(features: np.ndarray) -> float:
    """The Fréchet distance of features (N, 2 * k), NaN of fewer than FEWEST images."""
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    if len(features) < FEWEST:
        return float("nan")
    statistics = [fid_features_to_statistics(part) for part in _halves(features)]
    return float(fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID])


def kid(features: np.ndarray, subsets: int, subset_size: int) -> float:
    """The kernel distance of features (N, 2 * k): the mean over subsets, or of all images once if they are too few."""
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    count = len(features)
    if count < FEWEST:
        return float("nan")
    subsets = subsets if count > subset_size else 1
    settings = {"kid_subsets": subsets, "kid_subset_size": min(count, subset_size), "verbose": False}
    return float(kid_features_to_metric(*_halves(features), **settings)[KEY_METRIC_KID_MEAN])


def _halves(features: np.ndarray) -> tuple[Tensor, ...]:
    """Those of the predictions and of the truth, as the network gave them."""
    return torch.from_numpy(features).float().chunk(2, dim=1)
