"""The published network, transcribed from the authors' Keras code, and its frozen classifier."""

import pytest
import timm
import torch
import torch.nn.functional as F
from colorbench_koalarization import build
from colorbench_koalarization.extractor import Extractor

from colorbench.color import lab_to_rgb
from colorbench.errors import UserError

# Inputs, outputs, kernel, stride and activation in the order of the authors' network_definition.py; "up" is
# UpSampling2D((2, 2)), "fuse" the embedding of 1001 numbers, repeated and stacked behind the 256 channels.
ENCODER = [(1, 64, 3, 2), (64, 128, 3, 1), (128, 128, 3, 2), (128, 256, 3, 1), (256, 256, 3, 2)]
ENCODER += [(256, 512, 3, 1), (512, 512, 3, 1), (512, 256, 3, 1)]
DECODER = ["fuse", (1257, 256, 1, 1), (256, 128, 3, 1), "up", (128, 64, 3, 1), (64, 64, 3, 1), "up", (64, 32, 3, 1)]
LAST = (32, 2, 3, 1)
LAYERS = [*ENCODER, *DECODER, LAST, "up"]
CONVOLUTIONS = [layer for layer in LAYERS if layer not in ("fuse", "up")]


def published(seed=0):
    """Random kernels of the published shapes, as Keras has them (height, width, inputs, outputs), and biases."""
    generator = torch.Generator().manual_seed(seed)
    kernels = [
        torch.randn(kernel, kernel, inputs, outputs, generator=generator) * (2 / (kernel**2 * inputs)) ** 0.5
        for inputs, outputs, kernel, _ in CONVOLUTIONS
    ]
    return kernels, [0.1 * torch.randn(kernel.shape[3], generator=generator) for kernel in kernels]


def reference(L, embedding, kernels, biases):
    x, convolutions = L / 50 - 1, iter(zip(CONVOLUTIONS, kernels, biases, strict=True))
    for layer in LAYERS:
        if layer == "up":
            x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        elif layer == "fuse":
            x = torch.cat((x, embedding[:, :, None, None].repeat(1, 1, *x.shape[2:])), dim=1)
        else:
            (_, _, size, stride), kernel, bias = next(convolutions)
            # TensorFlow's "same": so much padding that the side is divided by the stride, the odd pixel at the end.
            total = [max((-(-side // stride) - 1) * stride + size - side, 0) for side in x.shape[:1:-1]]
            x = F.pad(x, [pad for both in total for pad in (both // 2, both - both // 2)])
            x = F.conv2d(x, kernel.permute(3, 2, 0, 1), bias, stride)
            x = x.tanh() if layer == LAST else x.relu()
    return 127 * x


class Given(torch.nn.Module):
    """An extractor that gives the same numbers for every image."""

    def forward(self, L):
        return torch.linspace(-3, 3, 1001).expand(len(L), -1)


def small(**options):
    torch.manual_seed(0)
    return build(width=0.125, size=32, **{"extractor": "random"} | options).eval()


def pictures(count=2, height=32, width=32):
    L = 100 * torch.rand(count, 1, height // 8, width // 8, generator=torch.Generator().manual_seed(1))
    return F.interpolate(L, scale_factor=8, mode="bilinear")


def test_a_state_of_the_published_shapes_gives_the_published_output():
    network, (kernels, biases) = build(extractor=None).eval(), published()
    network.extractor = Given()
    names = [name.removesuffix(".weight") for name in network.state_dict() if name.endswith(".weight")]
    state = {f"{name}.weight": kernel.permute(3, 2, 0, 1) for name, kernel in zip(names, kernels, strict=True)}
    state |= {f"{name}.bias": bias for name, bias in zip(names, biases, strict=True)}
    network.load_state_dict(state, strict=True)
    L = pictures(height=16, width=24)
    with torch.no_grad():
        ab = network(L)
        expected = reference(L, Given()(L), kernels, biases)
    torch.testing.assert_close(ab, expected, rtol=1e-4, atol=1e-3)
    assert expected.std() > 1  # not a comparison of two constants
    assert sum(parameter.numel() for parameter in network.parameters()) == 6_574_050


def test_the_classifier_of_a_file_is_timm_s_and_is_kept_with_the_weights(tmp_path):
    classifier = timm.create_model("inception_resnet_v2").eval()  # 1000 classes, no background
    torch.save(classifier.state_dict(), tmp_path / "inception.pth")
    network, L = small(extractor=tmp_path / "inception.pth"), pictures(1)
    grey = 2 * lab_to_rgb(torch.cat((L, 0 * L, 0 * L), dim=1)) - 1
    with torch.no_grad():
        logits = classifier(F.interpolate(grey, (75, 75), mode="bilinear", antialias=True))
        torch.testing.assert_close(network.extractor(L), F.pad(logits, (1, 0)))
        without_file = small(extractor=None)
        without_file.load_state_dict(network.state_dict(), strict=True)
        assert torch.equal(without_file(L), network(L))
    assert sum(parameter.numel() for parameter in network.parameters()) == 131_166  # none of the classifier's
    assert not any("random" in note for note in network.notes)


def test_a_file_of_something_else_is_refused_in_one_line(tmp_path):
    torch.save({"classif.weight": torch.zeros(1000, 4), "classif.bias": torch.zeros(1000)}, tmp_path / "other.pth")
    with pytest.raises(
        ValueError, match=r"other\.pth holds no weights of timm's inception_resnet_v2: it lacks conv2d_1a"
    ):
        small(extractor=tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(UserError, match=r"text\.pth is truncated or damaged, or holds more than tensors"):
        small(extractor=tmp_path / "text.pth")


def test_without_a_file_the_features_are_random_fixed_unsaved_and_told():
    first, L = small(), pictures()
    torch.manual_seed(5)
    second = build(width=0.125, size=32, extractor="random")
    logits = first.extractor(L)
    assert torch.equal(second.extractor(L), logits)
    assert not any(key.startswith("extractor") for key in first.state_dict())
    assert "random" in " ".join(first.notes)
    assert logits.std(dim=0).mean() > 0.1  # images differ in it


def test_training_leaves_the_classifier_alone():
    network, L = small(), pictures()
    before = network.extractor(L)
    network.train()(L).sum().backward()
    assert torch.equal(network.extractor(L), before)  # in training, too, by the same statistics
    assert network.fusion[0].weight.grad[:, -1001:].abs().sum() > 0  # fusion learns from it


@pytest.mark.parametrize(("size", "side"), [(32, 75), (64, 85), (224, 299), (256, 299)])
def test_the_classifier_sees_299_pixels_of_224_and_the_same_share_of_less(size, side):
    assert Extractor("random", 0.0625, size).side == side


def test_a_side_that_does_not_halve_three_times_is_refused():
    with pytest.raises(ValueError, match="multiples of 8"):
        small()(torch.zeros(1, 1, 12, 16))
