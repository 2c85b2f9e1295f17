"""The published network: its weights, its arithmetic, its losses."""

import math
from itertools import pairwise

import colorbench_siggraph17 as plugin
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from colorbench_siggraph17.model import Siggraph17, nearest_bin, random_hints
from colorbench_siggraph17.options import Options

from colorbench.contract import Batch, Preset

# Channels of the blocks that end in a BatchNorm, and the index of their first convolution.
BLOCKS = {
    "model1": ((4, 64, 64), 0),
    "model2": ((64, 128, 128), 0),
    "model3": ((128, 256, 256, 256), 0),
    "model4": ((256, 512, 512, 512), 0),
    "model5": ((512, 512, 512, 512), 0),
    "model6": ((512, 512, 512, 512), 0),
    "model7": ((512, 512, 512, 512), 0),
    "model8": ((256, 256, 256), 1),
    "model9": ((128, 128), 1),
}
OTHERS = {  # weight shapes; a transposed convolution has its inputs first
    "model8up.0": (512, 256, 4, 4),
    "model3short8.0": (256, 256, 3, 3),
    "model9up.0": (256, 128, 4, 4),
    "model2short9.0": (128, 128, 3, 3),
    "model10up.0": (128, 128, 4, 4),
    "model1short10.0": (128, 64, 3, 3),
    "model10.1": (128, 128, 3, 3),
    "model_class.0": (529, 256, 1, 1),
    "model_out.0": (2, 128, 1, 1),
}
PRESET = Preset("p", "", size=64, width=0.25, batch_size=8, epochs=12)


@pytest.fixture(scope="module")
def published():
    """A state of the published names and shapes with random values."""
    generator = torch.Generator().manual_seed(7)
    state = {}

    def convolution(name, shape):
        outputs = shape[1] if "up" in name else shape[0]
        fan_in = math.prod(shape) / outputs
        state[f"{name}.weight"] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
        state[f"{name}.bias"] = 0.1 * torch.randn(outputs, generator=generator)

    for block, (channels, first) in BLOCKS.items():
        for index, (inputs, outputs) in enumerate(pairwise(channels)):
            convolution(f"{block}.{first + 2 * index}", (outputs, inputs, 3, 3))
        norm = f"{block}.{first + 2 * (len(channels) - 1)}"
        for part, low, high in (
            ("weight", 0.5, 1.5),
            ("bias", -0.2, 0.2),
            ("running_mean", 0, 1),
            ("running_var", 0.5, 2),
        ):
            state[f"{norm}.{part}"] = low + (high - low) * torch.rand(channels[-1], generator=generator)
        state[f"{norm}.num_batches_tracked"] = torch.tensor(1)
    for name, shape in OTHERS.items():
        convolution(name, shape)
    return state


def reference(state, L, hints, mask):
    """The published forward pass written against a state alone."""

    def conv(x, name, dilation=1):
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=dilation, dilation=dilation)

    def up(x, name):
        return F.conv_transpose2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride=2, padding=1)

    def block(x, name, dilation=1):
        channels, first = BLOCKS[name]
        for index in range(len(channels) - 1):
            x = F.relu(conv(x, f"{name}.{first + 2 * index}", dilation))
        norm = f"{name}.{first + 2 * (len(channels) - 1)}"
        parts = (state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts)

    one = block(torch.cat(((L - 50) / 100, hints / 110, mask), dim=1), "model1")
    two = block(one[:, :, ::2, ::2], "model2")
    three = block(two[:, :, ::2, ::2], "model3")
    x = block(three[:, :, ::2, ::2], "model4")
    x = block(block(x, "model5", dilation=2), "model6", dilation=2)
    x = block(x, "model7")
    x = block(F.relu(up(x, "model8up.0") + conv(three, "model3short8.0")), "model8")
    x = block(F.relu(up(x, "model9up.0") + conv(two, "model2short9.0")), "model9")
    x = F.relu(up(x, "model10up.0") + conv(one, "model1short10.0"))
    x = F.leaky_relu(conv(x, "model10.1"), 0.2)
    return torch.tanh(F.conv2d(x, state["model_out.0.weight"], state["model_out.0.bias"])) * 110


def pictures(count=2, height=16, width=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    L = F.interpolate(100 * torch.rand(count, 1, height // 8, width // 8, generator=generator), scale_factor=8)
    return L, torch.cat((0.3 * L - 10, 40 - 0.5 * L), dim=1)


def small():
    torch.manual_seed(0)
    return Siggraph17(0.1)


def step(network, batch, optimizer):
    (update,) = network.updates(batch)
    optimizer.zero_grad()
    sum(update.losses.values()).backward()
    optimizer.step()


@pytest.mark.parametrize("hinted", [False, True])
def test_published_weights_give_the_published_output(published, hinted):
    network = Siggraph17().eval()
    network.load_state_dict(published, strict=True)
    L, ab = pictures()
    mask = torch.zeros_like(L)
    mask[:, :, 2:6, 3:9] = 1
    hints = ab * mask
    with torch.no_grad():
        got = network(L, torch.cat((hints, mask), dim=1)) if hinted else network(L)
        expected = reference(published, L, hints if hinted else hints * 0, mask if hinted else mask * 0)
    assert torch.equal(got, expected)
    assert got.dtype == torch.float32
    assert got.std() > 1  # not a comparison of two constants


def test_keys_and_shapes_are_the_published_ones(published):
    state = Siggraph17().state_dict()
    assert {key: value.shape for key, value in state.items()} == {key: v.shape for key, v in published.items()}
    assert state["model1.0.weight"].shape == (64, 4, 3, 3)
    assert state["model7.6.running_var"].shape == (512,)
    assert state["model9.3.num_batches_tracked"].shape == ()


def test_parameter_counts_are_the_published_ones():
    network = Siggraph17()
    total = sum(p.numel() for p in network.parameters())
    assert total == 34_187_027
    assert total - sum(p.numel() for p in network.model_class.parameters()) == 34_051_074


def test_hints_and_mask_change_the_output():
    network, (L, ab) = small().eval(), pictures()
    with torch.no_grad():
        automatic, ones = network(L), torch.ones_like(L)
        hinted, opposed = (network(L, torch.cat((sign * ab, ones), dim=1)) for sign in (1, -1))
        assert not torch.allclose(automatic, hinted)
        assert not torch.allclose(hinted, opposed)
        assert torch.equal(automatic, network(L, torch.cat((ab * 0, ones * 0), dim=1)))


def test_random_hints_are_true_means_in_patches_of_1_to_9_pixels():
    ab = torch.arange(2.0)[None, :, None, None].expand(200, 2, 64, 64) + 5
    hints = random_hints(ab, Options(whole=0))
    mask = hints[:, 2:]
    assert torch.equal(hints[:, :2], ab * mask)
    assert set(mask.unique().tolist()) == {0, 1}
    assert (mask.sum((1, 2, 3)) == 0).float().mean() == pytest.approx(1 / 8, abs=0.08)


def authors_points(random, images, height, width):
    """The published loop, stop=1/8 and sides of 1 to 9: (image, top, left, side) of each point."""
    for image in range(images):
        while random.random() < 1 - 0.125:
            side = random.choice([1, 2, 3, 4, 5, 6, 7, 8, 9])
            top, left = (
                int(np.clip(random.normal((room + 1) / 2, (room + 1) / 4), 0, room))
                for room in (height - side, width - side)
            )
            yield image, top, left, side


def test_random_hints_are_drawn_as_the_authors_draw_them(monkeypatch):
    drawn, count = [], 1500
    monkeypatch.setattr("colorbench_siggraph17.model.reveal", lambda ab, points: drawn.extend(points) or ab[:, :1])
    random_hints(torch.zeros(count, 2, 16, 40), Options())
    expected = np.array(list(authors_points(np.random.default_rng(0), count, 16, 40)))
    drawn = np.array(drawn)
    counts, due = (np.bincount(points[:, 0], minlength=count) for points in (drawn, expected))
    for number in range(20):  # P(no more than so many points)
        assert (counts <= number).mean() == pytest.approx((due <= number).mean(), abs=0.06)
    assert {*drawn[:, 3]} == {*range(1, 10)}
    for column, side in ((1, 16), (2, 40), (3, 10)):
        for value in range(side):
            shares = [(points[:, column] <= value).mean() for points in (drawn, expected)]
            assert shares[0] == pytest.approx(shares[1], abs=0.03), (column, value)


def test_the_whole_ab_of_some_images_is_shown():
    ab = 30 * torch.randn(400, 2, 8, 8)
    hints = random_hints(ab, Options(stop=0.999, whole=0.25))
    whole = hints[:, 2].mean((1, 2))
    assert whole.eq(1).float().mean() == pytest.approx(0.25, abs=0.1)
    assert torch.equal(hints[whole == 1, :2], ab[whole == 1])
    assert random_hints(ab[:20], Options(stop=0.1)).shape == (20, 3, 8, 8)  # where a point of 9 px has no room


@pytest.mark.parametrize("wrong", [{"stop": 0}, {"largest": 0}, {"whole": 1.5}])
def test_an_option_out_of_its_range_is_refused(wrong):
    with pytest.raises(ValueError, match=f"needs {next(iter(wrong))} in"):
        plugin.build(width=0.1, hints=True, **wrong)


def test_only_the_variant_that_learns_from_hints_takes_them():
    specs = {}
    plugin.register_models(lambda spec: specs.update({spec.name: spec}))
    assert {name for name, spec in specs.items() if "hints" in spec.takes} == {"siggraph17/hints"}
    network, (L, ab) = specs["siggraph17/hints"].build(width=0.1, hints=True), pictures()
    draws = {next(network.updates(Batch(L, ab))).losses["regression"].item() for _ in range(3)}
    assert len(draws) == 3


@pytest.mark.parametrize(("height", "width"), [(12, 16), (16, 12)])
def test_refuses_a_size_that_it_cannot_halve_three_times(height, width):
    with pytest.raises(ValueError, match="multiples of 8"):
        small()(torch.zeros(1, 1, height, width))


def test_width_scales_the_channels_but_neither_bins_nor_input():
    network = Siggraph17(0.25)
    assert network.model1[0].weight.shape == (16, 4, 3, 3)
    assert network.model7[0].weight.shape == (128, 128, 3, 3)
    assert network.model_class[0].weight.shape == (529, 64, 1, 1)
    assert Siggraph17(0.01).model1[0].out_channels == 4


def test_nearest_bin_is_the_nearest_grid_color():
    axis = torch.arange(-110, 111, 10.0)
    grid = torch.cartesian_prod(axis, axis)
    ab = torch.empty(2, 2, 5, 7).uniform_(-118, 118, generator=torch.Generator().manual_seed(3))
    distances = torch.cdist(ab.permute(0, 2, 3, 1).reshape(-1, 2), grid)
    assert torch.equal(nearest_bin(ab).flatten(), distances.argmin(dim=1))


def test_losses_are_the_published_ones():
    network, (L, _) = small().eval(), pictures()
    ab = 30 * torch.randn(2, 2, 16, 24, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        (update,) = network.updates(Batch(L, ab))
        expected = 10 * (network(L) - ab).abs().sum(dim=1).mean() / 110
        logits = network.model_class(network._colorize(L)[1])
        picked = logits.log_softmax(dim=1).gather(1, nearest_bin(ab[:, :, ::4, ::4])[:, None])
    assert update.player == ""
    assert update.losses.keys() == {"classification", "regression"}
    torch.testing.assert_close(update.losses["regression"], expected)
    torch.testing.assert_close(update.losses["classification"], -picked.mean())


def test_the_class_head_learns_without_teaching_the_trunk():
    network, (L, ab) = small(), pictures()
    (update,) = network.updates(Batch(L, ab))
    update.losses["classification"].backward(retain_graph=True)
    assert {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None} == {"model_class"}
    update.losses["regression"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_thirty_steps_lower_the_error():
    network, (L, ab) = small(), pictures(count=4, height=32, width=32)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)

    def error():
        (update,) = network.updates(Batch(L, ab))
        return update.losses["regression"].item(), update.losses["classification"].item()

    regression, classification = error()
    for _ in range(30):
        step(network, Batch(L, ab), optimizer)
    assert error()[0] < 0.5 * regression
    assert error()[1] < 0.97 * classification


def test_is_registered_as_the_reference_with_one_stage_and_an_ablation():
    specs = []
    plugin.register_models(specs.append)
    spec, _, fewer = specs
    assert (spec.name, spec.reference, spec.refines, spec.published.mse) == ("siggraph17", True, None, 78.807)
    (stage,) = spec.schedule(PRESET)
    assert (stage.name, stage.epochs, stage.learning_rate, stage.optimizer) == ("base", 12, 4e-4, "adam")
    assert (fewer.name, fewer.parent, fewer.reference) == ("siggraph17/fewer-images", "siggraph17", False)
    assert isinstance(spec.build(width=0.1, base=None), Siggraph17)
