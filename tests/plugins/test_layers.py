"""The layers that several models share, against torchvision."""

import pytest
import torch
from colorbench_ddcolor.losses import SEEN
from colorbench_deoldify.model import LAYERS
from colorbench_layers.vgg import FeatureLoss, Features, ImageNet
from torchvision.models import vgg

from colorbench import UserError
from colorbench.code import plugin_code


@pytest.fixture(params=[False, True], ids=["plain", "batch normalization"])
def published(request, tmp_path):
    """A file as torchvision publishes it, its layers, and whether they have batch normalization."""
    layers = vgg.make_layers(vgg.cfgs["D"], batch_norm=request.param).eval()
    for name, value in layers.state_dict().items():
        if "running" in name:
            value.uniform_(0.5, 2)
    torch.save({f"features.{name}": value for name, value in layers.state_dict().items()}, tmp_path / "vgg.pth")
    return tmp_path / "vgg.pth", layers, request.param


@torch.no_grad()
def test_features_are_those_of_torchvision(published):
    file, layers, batch_norm = published
    x, taken = torch.randn(1, 3, 32, 48), (0, 3, 8, 15, len(layers) - 2)
    for index, seen in zip(taken, Features(taken, file, 1 / 8, batch_norm)(x), strict=True):
        torch.testing.assert_close(seen, layers[: index + 1](x))


@pytest.mark.parametrize("weights", [SEEN, LAYERS], ids=["ddcolor", "deoldify"])
@pytest.mark.parametrize("published", [True], indirect=True)
def test_the_loss_is_a_weighted_mean_of_distances(published, weights):
    file, layers, _ = published
    loss, (picture, truth) = FeatureLoss(weights, file, 1 / 8), torch.randn(2, 1, 3, 32, 32)
    assert loss.state_dict() == {}
    expected = 0
    for index, weight in weights.items():
        expected += weight * (layers[: index + 1](picture) - layers[: index + 1](truth)).abs().mean()
    torch.testing.assert_close(loss(picture, truth), expected)


@pytest.mark.parametrize(("batch_norm", "name"), [(False, "VGG16"), (True, "VGG16-BN")])
def test_another_file_is_refused(batch_norm, name, tmp_path):
    torch.save({"x": torch.zeros(1)}, tmp_path / "vgg.pth")
    with pytest.raises(ValueError, match=f"holds no {name} weights of torchvision"):
        Features([0], tmp_path / "vgg.pth", 1, batch_norm)
    (tmp_path / "vgg.pth").write_bytes(b"PK")
    with pytest.raises(UserError, match="truncated or damaged, or holds more than tensors"):
        Features([0], tmp_path / "vgg.pth", 1, batch_norm)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_random_features_are_the_same_everywhere_and_disturb_no_generator(batch_norm):
    state = torch.get_rng_state()
    one = Features((3, 8), None, 0.25, batch_norm)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(123)
    other = Features((3, 8), None, 0.25, batch_norm)
    assert torch.equal(one.layers[0].weight, other.layers[0].weight)
    assert (one.layers[0].weight.shape, one.state_dict(), [*one.parameters()]) == ((16, 3, 3, 3), {}, [])
    assert Features([0], None, 0.01, batch_norm).layers[0].weight.shape == (8, 3, 3, 3)


def test_normalization_is_undone():
    rgb, normalized = torch.rand(1, 3, 4, 4), ImageNet()
    assert normalized(torch.tensor([0.485, 0.456, 0.406])[None, :, None, None]).abs().max() == 0
    torch.testing.assert_close(normalized.undone(normalized(rgb)), rgb)


@pytest.mark.parametrize("model", ["ddcolor", "deoldify", "enhanced-unet"])
def test_their_code_counts_as_that_of_the_models(registry, model):
    assert "colorbench_layers" in plugin_code(registry.plugin_of("model", model).source), "also where it is installed"
