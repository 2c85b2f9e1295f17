"""The color classes, and the two networks that predict them: published names, counts and arithmetic."""

import math
from itertools import pairwise

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from colorbench_classification.classes import ColorClasses, in_gamut
from colorbench_classification.eccv16 import Eccv16
from colorbench_classification.fusionnet import FusionNet
from colorbench_classification.options import Options

from colorbench.contract import Batch
from colorbench.harness.networks import load_published

# The authors' 313 classes: by a, the least and the largest b; every ten units between them is one, too.
AUTHORS = {
    -90: (50, 90), -80: (20, 90), -70: (0, 90), -60: (-20, 90), -50: (-30, 100), -40: (-40, 100), -30: (-50, 100),
    -20: (-50, 100), -10: (-60, 100), 0: (-70, 100), 10: (-80, 90), 20: (-80, 90), 30: (-90, 90), 40: (-100, 90),
    50: (-100, 80), 60: (-110, 80), 70: (-110, 80), 80: (-110, 70), 90: (-110, 70), 100: (-90, 0),
}  # fmt: skip
# The authors' eccv16: the weight shapes of its convolutions; model8.0 is transposed, with its inputs first.
CONVOLUTIONS = {
    "model1.0": (64, 1, 3, 3), "model1.2": (64, 64, 3, 3),
    "model2.0": (128, 64, 3, 3), "model2.2": (128, 128, 3, 3),
    "model3.0": (256, 128, 3, 3), "model3.2": (256, 256, 3, 3), "model3.4": (256, 256, 3, 3),
    "model4.0": (512, 256, 3, 3), "model4.2": (512, 512, 3, 3), "model4.4": (512, 512, 3, 3),
    **{f"model{block}.{index}": (512, 512, 3, 3) for block in (5, 6, 7) for index in (0, 2, 4)},
    "model8.0": (512, 256, 4, 4), "model8.2": (256, 256, 3, 3), "model8.4": (256, 256, 3, 3),
    "model8.6": (313, 256, 1, 1), "model_out": (2, 313, 1, 1),
}  # fmt: skip
NORMS = {"model1.4": 64, "model2.4": 128, "model3.6": 256, **{f"model{block}.6": 512 for block in (4, 5, 6, 7)}}
NARROW = {64: 8, 128: 16, 256: 32, 512: 64}  # at width 1/8


def authors_shapes(width=NARROW):
    """The names and shapes of the authors' file; at width 1/8 unless `width` is empty."""
    shapes = {}
    for name, shape in CONVOLUTIONS.items():
        shape = tuple(width.get(channels, channels) for channels in shape)
        shapes[f"{name}.weight"] = shape
        if name != "model_out":
            shapes[f"{name}.bias"] = (shape[1 if name == "model8.0" else 0],)
    for name, channels in NORMS.items():
        parts = ("weight", "bias", "running_mean", "running_var")
        shapes |= {f"{name}.{part}": (width.get(channels, channels),) for part in parts}
        shapes[f"{name}.num_batches_tracked"] = ()
    return shapes


def random_state(shapes):
    """Random values that keep the activations of a network of these shapes alive."""
    state = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(1)
        elif len(shape) == 4:
            state[name] = torch.randn(shape) * (2 / math.prod(shape[1:])) ** 0.5
        else:
            state[name] = torch.rand(shape) + (0.5 if "running_var" in name else 0)
    return state


def authors_ab(state, L):
    """The authors' forward pass, written against a state alone."""

    def conv(x, name, stride=1, dilation=1):
        weight, bias = state[f"{name}.weight"], state.get(f"{name}.bias")
        padding = dilation * (weight.shape[-1] // 2)
        return F.conv2d(x, weight, bias, stride=stride, padding=padding, dilation=dilation)

    x = (L - 50) / 100
    for block, count in enumerate((2, 2, 3, 3, 3, 3, 3), start=1):
        for index in range(count):
            stride = 2 if block < 4 and index == count - 1 else 1
            x = F.relu(conv(x, f"model{block}.{2 * index}", stride, dilation=2 if block in (5, 6) else 1))
        norm = [state[f"model{block}.{2 * count}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        x = F.batch_norm(x, *norm)
    x = F.relu(F.conv_transpose2d(x, state["model8.0.weight"], state["model8.0.bias"], stride=2, padding=1))
    x = F.relu(conv(F.relu(conv(x, "model8.2")), "model8.4"))
    ab = conv(conv(x, "model8.6").softmax(dim=1), "model_out")
    return 110 * F.interpolate(ab, scale_factor=4, mode="bilinear", align_corners=False)


def fusionnet_logits(state, L):
    """FusionNet as its paper draws it, written against a state alone."""

    def norm(x, name):
        return F.batch_norm(x, *(state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")))

    def conv(x, name, index=0):
        weights = (state[f"{name}.{index}.{part}"] for part in ("weight", "bias"))
        return norm(F.conv2d(x, *weights, padding=1), f"{name}.{index + 1}")

    def level(x, name, activation):
        x = activation(conv(x, f"{name}.before"))
        residual = activation(conv(x, f"{name}.residual"))
        residual = conv(activation(conv(residual, f"{name}.residual", 3)), f"{name}.residual", 6)
        return activation(conv(x + residual, f"{name}.after"))

    def leaky(x):
        return F.leaky_relu(x, 0.2)

    x = level((L - 50) / 100, "encoder.0", leaky)
    skips = [x]
    for depth in range(1, 5):
        x = level(F.max_pool2d(x, 2), f"encoder.{depth}", leaky)
        skips.append(x)
    for index in range(4):
        up = F.conv_transpose2d(
            x, state[f"up.{index}.0.weight"], state[f"up.{index}.0.bias"], stride=2, padding=1, output_padding=1
        )
        x = level(F.relu(norm(up, f"up.{index}.1")) + skips[3 - index], f"decoder.{index}", F.relu)
    return F.conv2d(x, state["out.weight"], state["out.bias"], padding=1)


def on_meta(network):
    with torch.device("meta"):
        return network()


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.fixture
def classes():
    return ColorClasses(Options())


# ---- the classes


def test_the_classes_are_those_of_the_authors_in_their_order():
    assert in_gamut().tolist() == [[a, b] for a, (low, high) in AUTHORS.items() for b in range(low, high + 1, 10)]


@pytest.mark.parametrize(
    ("ab", "shared"),
    [
        ((0, 0), {(0, 0): 0, (10, 0): 100, (-10, 0): 100, (0, 10): 100, (0, -10): 100}),  # squared distances
        ((12, -47), {(10, -50): 13, (10, -40): 53, (20, -50): 73, (20, -40): 113, (0, -50): 153}),
    ],
)
def test_a_color_is_shared_by_the_five_nearest_classes(classes, ab, shared):
    (code,) = classes.encode(torch.tensor(ab, dtype=torch.float32)[None, :, None, None])[..., 0, 0]
    shares = {center: math.exp(-squared / (2 * 5**2)) for center, squared in shared.items()}
    expected = {center: share / sum(shares.values()) for center, share in shares.items()}
    got = {tuple(center): share for center, share in zip(in_gamut().tolist(), code.tolist(), strict=True) if share}
    assert got == pytest.approx(expected, abs=1e-4)


def test_a_color_far_outside_is_shared_by_the_classes_nearest_to_it(classes):
    (code,) = classes.encode(torch.tensor([[9000.0, -40.0]])[..., None, None])[..., 0, 0]
    assert float(code.sum()) == pytest.approx(1)
    assert in_gamut()[code.argmax()].tolist() == [100, -40]


def test_each_pixel_has_its_own_code(classes):
    ab = torch.rand(2, 2, 3, 5) * 100 - 50
    code = classes.encode(ab)
    assert code.shape == (2, 313, 3, 5)
    assert torch.equal(code[1, :, 2, 4], classes.encode(ab[1:, :, 2:, 4:])[0, :, 0, 0])
    assert (in_gamut()[code.argmax(dim=1)[1, 2, 4]] == 10 * np.round(ab[1, :, 2, 4].numpy() / 10)).all()


def test_the_prior_is_the_mean_code_and_rare_classes_weigh_more(classes):
    green, red = (torch.tensor(ab, dtype=torch.float32)[None, :, None, None] for ab in ((-40, 30), (60, 40)))
    classes.measure(iter([green.expand(-1, -1, 3, 3), red]))  # nine pixels to one
    expected = (9 * classes.encode(green) + classes.encode(red)).flatten() / 10
    assert torch.allclose(classes.prior, expected, atol=1e-7)
    assert float(classes.temperature) == pytest.approx(0.38)
    uneven = 1 / (0.5 * expected + 0.5 / 313)  # equation 4, with lambda 1/2
    assert torch.allclose(classes.weights(), uneven / (expected * uneven).sum(), rtol=1e-5)
    common, rare = (classes.weights()[classes.encode(ab).argmax()] for ab in (green, red))
    assert rare > 5 * common


def test_a_uniform_share_of_one_weights_nothing():
    even = ColorClasses(Options(uniform=1.0))
    even.measure(iter([torch.zeros(1, 2, 4, 4)]))
    assert torch.allclose(even.weights(), torch.ones(313), atol=1e-5)


def test_the_loss_is_the_weighted_cross_entropy_with_the_code(classes):
    ab = torch.tensor([[-40.0, 30.0], [60.0, 40.0]]).T[None, :, None]  # (1, 2, 1, 2)
    classes.measure(iter([ab, ab[..., :1], ab[..., :1]]))
    logits = torch.randn(1, 313, 1, 2)
    total = 0.0
    for pixel in range(2):
        code = classes.encode(ab)[0, :, 0, pixel].double()
        z = logits[0, :, 0, pixel].double()
        total -= float(classes.weights()[code.argmax()] * (code * (z - z.exp().sum().log())).sum())
    assert float(classes.loss(logits, ab)) == pytest.approx(total / 2, rel=1e-5)


def test_the_annealed_mean_is_equation_5(classes):
    classes.measure(iter([torch.zeros(1, 2, 1, 1)]))
    z = torch.randn(1, 313, 1, 1)
    sharp = z.softmax(dim=1).double() ** (1 / 0.38)
    assert torch.allclose(classes.distribution(z).double(), sharp / sharp.sum(), rtol=1e-4)


@pytest.mark.parametrize("options", [{"neighbors": 0}, {"sigma": 0.0}, {"uniform": 0.0}, {"temperature": -1.0}])
def test_an_option_without_meaning_is_refused(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} is .*; give"):
        Options(**options)


# ---- eccv16


def test_eccv16_has_the_names_the_shapes_and_the_count_of_the_authors():
    network = on_meta(Eccv16)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert {name for name in shapes if name not in network.measured} == authors_shapes({}).keys()
    assert {name: shapes[name] for name in authors_shapes({})} == authors_shapes({})
    assert parameters(network) == 32_236_011


def test_a_file_of_the_authors_names_gives_their_output(tmp_path, registry):
    state = random_state(authors_shapes())
    state["model8.6.weight"] *= 5  # so that some classes stand out
    safetensors.torch.save_file(state, tmp_path / "authors.safetensors")
    network = Eccv16(1 / 8).eval()
    load_published(network, registry.specs["model"]["eccv16"], tmp_path / "authors.safetensors")
    L = 100 * torch.rand(2, 1, 16, 24)
    with torch.no_grad():
        got, expected = network(L), authors_ab(state, L)
    assert torch.allclose(got, expected, atol=1e-3)
    assert got.shape == (2, 2, 16, 24)
    assert got.std() > 1  # not a comparison of two constants


def test_a_trained_eccv16_answers_with_the_annealed_mean_of_the_classes():
    network = Eccv16(1 / 16).eval()
    L = 100 * torch.rand(1, 1, 16, 16)
    with torch.no_grad():
        network.measure(iter([Batch(L, torch.zeros(1, 2, 16, 16))]))
        share = (network.logits(L) / 0.38).softmax(dim=1)
        coarse = torch.stack([(share * torch.from_numpy(in_gamut()[:, c, None, None])).sum(dim=1) for c in (0, 1)], 1)
        expected = F.interpolate(coarse, scale_factor=4, mode="bilinear")
        assert torch.allclose(network(L), expected, atol=1e-3)


def test_eccv16_learns_every_fourth_pixel():
    network, L = Eccv16(1 / 16).eval(), 100 * torch.rand(1, 1, 16, 16)
    ab = torch.zeros(1, 2, 16, 16)
    (before,) = network.updates(Batch(L, ab))
    ab[:, :, 1::4, 2::4] = 60
    (unseen,) = network.updates(Batch(L, ab))
    ab[:, :, ::4, ::4] = 60
    (seen,) = network.updates(Batch(L, ab))
    first, second, third = (update.losses["classification"] for update in (before, unseen, seen))
    assert first == second != third


# ---- fusionnet


def test_fusionnet_is_the_drawn_network():
    network = FusionNet(1 / 16).eval()
    network.load_state_dict({**network.state_dict(), **random_state({
        name: tuple(tensor.shape) for name, tensor in network.state_dict().items() if not name.startswith("classes.")
    })})  # fmt: skip
    L = 100 * torch.rand(1, 1, 16, 32)
    with torch.no_grad():
        logits = network.logits(L)
        assert torch.allclose(
            logits, fusionnet_logits(network.state_dict(), L), rtol=1e-3, atol=1e-3 * logits.abs().max()
        )
        assert logits.shape == (1, 313, 16, 32)
        mean = torch.einsum("bqhw,qc->bchw", logits.softmax(dim=1), torch.from_numpy(in_gamut()))
        assert torch.allclose(network(L), mean, atol=1e-3)


def test_fusionnet_has_the_count_of_its_levels():
    def level(inputs, outputs):  # five convolutions of 3 x 3 with bias, each with two numbers of BatchNorm a channel
        return 9 * outputs * (inputs + 4 * outputs) + 5 * 3 * outputs

    sizes = (1, 64, 128, 256, 512, 1024)
    down = sum(level(inputs, outputs) for inputs, outputs in pairwise(sizes))
    up = sum(9 * 2 * c * c + 3 * c + level(c, c) for c in (64, 128, 256, 512))
    assert parameters(on_meta(FusionNet)) == down + up + 9 * 64 * 313 + 313 == 78_711_673
