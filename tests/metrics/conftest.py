"""Weights of chance, for metrics whose own are not at hand."""

import hashlib
from unittest.mock import patch

import pytest
import torch


@pytest.fixture(scope="session")
def random_inception(tmp_path_factory):
    """A file of weights for torch-fidelity's InceptionV3."""
    from torch_fidelity import feature_extractor_inceptionv3 as library

    torch.manual_seed(0)
    extractor = library.FeatureExtractorInceptionV3
    with patch.object(library, "load_state_dict_from_url"), patch.object(extractor, "load_state_dict"):
        network = extractor("random", ["64"])
    file = tmp_path_factory.mktemp("inception") / "random.pth"
    torch.save(network.state_dict(), file)
    return file


@pytest.fixture(scope="session")
def random_lpips(tmp_path_factory):
    """A folder with weights for VGG16, named by their hash, and for its five layers."""
    from torchvision.models import vgg16

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("lpips")
    features = {f"features.{name}": weights for name, weights in vgg16(weights=None).features.state_dict().items()}
    torch.save(features, folder / "vgg16")
    digits = hashlib.sha256((folder / "vgg16").read_bytes()).hexdigest()[:8]
    (folder / "vgg16").rename(folder / f"vgg16-{digits}.pth")
    torch.save([torch.rand(1, channels, 1, 1) for channels in (64, 128, 256, 512, 512)], folder / "lpips_weights.pt")
    return folder
