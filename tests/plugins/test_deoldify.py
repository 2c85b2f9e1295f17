"""DeOldify: the released files, its arithmetic written against them alone, its stages."""

import math

import colorbench_deoldify as plugin
import pytest
import torch
import torch.nn.functional as F
from colorbench_deoldify.model import DeOldify, Generator
from colorbench_deoldify.options import Options

from colorbench.color import lab_to_rgb, rgb_to_lab
from colorbench.contract import Batch
from colorbench.harness.networks import count_parameters, load_published
from colorbench.presets import PRESETS

# Blocks of the encoder's stages, channels of its stem and stages, and of each block of the decoder: those that come
# from below, what these become, those of the skip connection, and those that go up.
ARTISTIC = (
    (3, 4, 6, 3),
    (64, 64, 128, 256, 512),
    ((512, 256, 256, 768), (768, 384, 128, 768), (768, 384, 64, 672), (672, 336, 64, 300)),
)
STABLE = (
    (3, 4, 23, 3),
    (64, 256, 512, 1024, 2048),
    ((2048, 512, 1024, 512), (512, 512, 512, 512), (512, 512, 256, 512), (512, 256, 64, 256)),
)
# The same at width 1/8
NARROW_ARTISTIC = (
    (3, 4, 6, 3),
    (8, 8, 16, 32, 64),
    ((64, 32, 32, 96), (96, 48, 16, 96), (96, 48, 8, 84), (84, 42, 8, 37)),
)
NARROW_STABLE = (
    (3, 4, 23, 3),
    (8, 32, 64, 128, 256),
    ((256, 64, 128, 64), (64, 64, 64, 64), (64, 64, 32, 64), (64, 32, 8, 32)),
)


def is_deep(sizes):
    """Whether these are sizes of the artistic model."""
    return sizes[0][2] == 6


def released(sizes):
    """The names in the released files and their shapes."""
    depths, (stem, *stages), decoder = sizes
    shapes, deep = {}, is_deep(sizes)

    def batch_norm(name, channels):
        parts = ("weight", "bias", "running_mean", "running_var")
        shapes.update({f"{name}.{part}": (channels,) for part in parts} | {f"{name}.num_batches_tracked": ()})

    def spectral(name, *shape, bias=False):
        long = math.prod(shape[1:])
        shapes.update({f"{name}.weight_orig": shape, f"{name}.weight_u": shape[:1], f"{name}.weight_v": (long,)})
        shapes.update({f"{name}.bias": shape[:1]} if bias else {})

    def block(name, outputs, inputs):
        spectral(f"{name}.0", outputs, inputs, 3, 3)
        batch_norm(f"{name}.2", outputs)

    shapes["layers.0.0.weight"] = (stem, 3, 7, 7)
    batch_norm("layers.0.1", stem)
    inputs = stem
    for stage, (depth, channels) in enumerate(zip(depths, stages, strict=True)):
        inner = channels if deep else channels // 4
        for index in range(depth):
            name = f"layers.0.{4 + stage}.{index}"
            kernels = (inner, inputs, 3), (inner, inner, 3)
            if not deep:
                kernels = (inner, inputs, 1), (inner, inner, 3), (channels, inner, 1)
            for number, (out, into, side) in enumerate(kernels, start=1):
                shapes[f"{name}.conv{number}.weight"] = (out, into, side, side)
                batch_norm(f"{name}.bn{number}", out)
            if index == 0 and (stage > 0 or not deep):
                shapes[f"{name}.downsample.0.weight"] = (channels, inputs, 1, 1)
                batch_norm(f"{name}.downsample.1", channels)
            inputs = channels
    batch_norm("layers.1", inputs)
    block("layers.3.0", 2 * inputs, inputs)
    block("layers.3.1", inputs, 2 * inputs)
    for index, (below, up, skip, out) in enumerate(decoder):
        name = f"layers.{4 + index}"
        spectral(f"{name}.shuf.conv.0", 4 * up, below, 1, 1)
        batch_norm(f"{name}.shuf.conv.1", 4 * up)
        batch_norm(f"{name}.bn", skip)
        last = f"{name}.conv2" if deep else f"{name}.conv"
        if deep:
            block(f"{name}.conv1", out, up + skip)
        block(last, out, out if deep else up + skip)
        if index == 1:
            shapes[f"{last}.3.gamma"] = (1,)
            for part, channels in (("query", out // 8), ("key", out // 8), ("value", out)):
                spectral(f"{last}.3.{part}", channels, out, 1)
    shapes["layers.8.conv.0.bias"] = (4 * out,)
    shapes["layers.8.conv.0.weight_g"] = (4 * out, 1, 1, 1)
    shapes["layers.8.conv.0.weight_v"] = (4 * out, out, 1, 1)
    for index in range(2):
        spectral(f"layers.10.layers.{index}.0", out + 3, out + 3, 3, 3, bias=True)
    spectral("layers.11.0", 3, out + 3, 1, 1, bias=True)
    return shapes


def random_state(shapes):
    """Values of chance under these names, such that the maps of all layers are of one magnitude."""
    generator = torch.Generator().manual_seed(7)
    state = {}
    for name, shape in shapes.items():
        draw = torch.randn(shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(1)
        elif name.endswith(("running_var", "gamma", "weight_g")):
            state[name] = 0.5 + torch.rand(shape, generator=generator)
        elif name.endswith("weight") and len(shape) == 1:  # of a normalization: residual blocks add up, others shrink
            gain = 1 if name.startswith("layers.0.") else 5
            state[name] = gain * (0.3 + 0.4 * torch.rand(shape, generator=generator))
        elif len(shape) > 1:
            state[name] = draw * (2 / math.prod(shape[1:])) ** 0.5
        else:
            state[name] = 0.1 * draw
    for name in [name.removesuffix("_orig") for name in shapes if name.endswith("weight_orig")]:
        matrix, v = state[f"{name}_orig"].flatten(1), state[f"{name}_v"]
        for _ in range(5):  # nearly the largest singular value, as in a trained network
            u = F.normalize(matrix @ v, dim=0)
            v = F.normalize(u @ matrix, dim=0)
        state[f"{name}_u"], state[f"{name}_v"] = u, v
    return state


def transcription(state, x, deep):
    """The released forward pass written against a file alone: normalized RGB (B, 3, H, W) -> the same."""

    def batch_norm(x, name):
        parts = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(state[f"{name}.{part}"] for part in parts))

    def kernel(name):
        weight, u, v = (state[f"{name}.weight_{part}"] for part in ("orig", "u", "v"))
        return weight / (u @ weight.flatten(1) @ v)

    def spectral(x, name):
        weight = kernel(name)
        return F.conv2d(x, weight, state.get(f"{name}.bias"), padding=weight.shape[2] // 2)

    def block(x, name):
        return batch_norm(F.relu(spectral(x, f"{name}.0")), f"{name}.2")

    def bottleneck(x, name, stride):
        last = 2 if deep else 3
        y = x
        for number in range(1, last + 1):
            weight = state[f"{name}.conv{number}.weight"]
            step = stride if number == (1 if deep else 2) else 1
            y = F.conv2d(y, weight, stride=step, padding=weight.shape[2] // 2)
            y = batch_norm(y, f"{name}.bn{number}")
            y = F.relu(y) if number < last else y
        if f"{name}.downsample.0.weight" in state:
            x = batch_norm(F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride), f"{name}.downsample.1")
        return F.relu(x + y)

    def shuffle(x):
        x = F.pad(F.pixel_shuffle(F.relu(x), 2), (1, 0, 1, 0), mode="replicate")
        return (x[:, :, 1:, 1:] + x[:, :, :-1, 1:] + x[:, :, 1:, :-1] + x[:, :, :-1, :-1]) / 4

    def attention(x, name):
        flat = x.flatten(2)
        f, g, h = (F.conv1d(flat, kernel(f"{name}.{part}")) for part in ("query", "key", "value"))
        beta = (f.transpose(1, 2) @ g).softmax(dim=1)
        return (state[f"{name}.gamma"] * (h @ beta) + flat).view_as(x)

    picture, skips = x, []
    x = F.relu(batch_norm(F.conv2d(x, state["layers.0.0.weight"], stride=2, padding=3), "layers.0.1"))
    skips.append(x)
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    for stage in range(4, 8):
        index = 0
        while f"layers.0.{stage}.{index}.conv1.weight" in state:
            x = bottleneck(x, f"layers.0.{stage}.{index}", 2 if stage > 4 and index == 0 else 1)
            index += 1
        skips.append(x)
    x = F.relu(batch_norm(skips.pop(), "layers.1"))
    x = block(block(x, "layers.3.0"), "layers.3.1")
    for name in ("layers.4", "layers.5", "layers.6", "layers.7"):
        up = shuffle(batch_norm(spectral(x, f"{name}.shuf.conv.0"), f"{name}.shuf.conv.1"))
        skip = skips.pop()
        up = F.interpolate(up, skip.shape[2:])
        x = F.relu(torch.cat((up, batch_norm(skip, f"{name}.bn")), dim=1))
        for conv in ("conv1", "conv2") if deep else ("conv",):
            x = block(x, f"{name}.{conv}")
        if name == "layers.5":
            x = attention(x, f"{name}.{conv}.3")
    g, v = (state[f"layers.8.conv.0.weight_{part}"] for part in "gv")
    x = shuffle(F.conv2d(x, g * v / v.flatten(1).norm(dim=1)[:, None, None, None], state["layers.8.conv.0.bias"]))
    x = joined = torch.cat((x, picture), dim=1)
    for index in range(2):
        x = F.relu(spectral(x, f"layers.10.layers.{index}.0"))
    return torch.sigmoid(spectral(x + joined, "layers.11.0")) * 6 - 3


def specs():
    found = {}
    plugin.register_models(lambda spec: found.update({spec.name: spec}))
    return found


def smooth(count, height, width):
    return F.interpolate(100 * torch.rand(count, 1, 6, 6), size=(height, width), mode="bilinear")


@pytest.mark.parametrize(("name", "sizes"), [("deoldify", NARROW_ARTISTIC), ("deoldify/stable", NARROW_STABLE)])
def test_a_released_file_loads_and_gives_its_output(name, sizes, tmp_path):
    state, spec = random_state(released(sizes)), specs()[name]
    torch.save({"model": state, "opt": {"state": {}}}, tmp_path / "gen.pth")
    network = DeOldify(1 / 8, 48, spec.options).eval()  # 48 px are 3 and then 2 at H/16 and H/32
    load_published(network, spec, tmp_path / "gen.pth")
    L = smooth(2, 48, 48)
    grey = lab_to_rgb(torch.cat((L, 0 * L, 0 * L), dim=1))
    picture = network.normalized(grey).double()
    with torch.no_grad():
        count = count_parameters(network, L)
        expected = transcription({key: value.double() for key, value in state.items()}, picture, is_deep(sizes))
        got = network.double().generator(picture).double()  # of 100 random layers, whose rounding errors grow
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
        assert expected.std((2, 3)).min() > 0.05  # not a comparison of constants
        assert count == sum(p.numel() for p in network.generator.parameters())


@pytest.mark.parametrize(
    ("name", "sizes", "count", "megabytes"),
    [("deoldify", ARTISTIC, 63_646_881, 255), ("deoldify/stable", STABLE, 218_222_197, 873)],
)
def test_names_shapes_and_counts_are_those_of_the_released_files(name, sizes, count, megabytes):
    with torch.device("meta"):
        theirs = {key: torch.empty(shape) for key, shape in released(sizes).items()}
        network = Generator(1.0, deep=is_deep(sizes))
    own = network.state_dict(prefix="generator.")
    converted = specs()[name].convert(theirs)
    assert {key: value.shape for key, value in converted.items()} == {key: value.shape for key, value in own.items()}
    assert sum(p.numel() for p in network.parameters()) == count
    assert sum(tensor.numel() for tensor in theirs.values()) * 4 // 10**6 == megabytes  # the size of the file


def test_a_file_that_names_a_class_is_refused_unread(tmp_path):
    from colorbench.errors import UserError

    state = random_state(released(NARROW_ARTISTIC))
    torch.save({"model": state, "opt": {"cls": torch.optim.Adam}}, tmp_path / "gen.pth")
    with pytest.raises(UserError, match="holds more than tensors"):
        load_published(DeOldify(1 / 8, 32, Options()), specs()["deoldify"], tmp_path / "gen.pth")


def test_a_picture_is_colored_as_a_square_and_keeps_its_luma():
    network = DeOldify(1 / 8, 32, Options(render_factor=3)).eval()
    L, asked = smooth(1, 40, 64), []
    network.generator.register_forward_hook(lambda module, inputs, output: asked.append((*inputs, output)))
    with torch.no_grad():
        ab = network(L)
    (picture, output), grey = asked[0], lab_to_rgb(torch.cat((L, 0 * L, 0 * L), dim=1))
    assert picture.shape == (1, 3, 48, 48)
    colored = network.normalized.undone(output).clamp(0, 1)
    red, green, blue = F.interpolate(colored, (40, 64), mode="bilinear", antialias=True).unbind(1)
    U = -0.14713 * red - 0.28886 * green + 0.436 * blue
    V = 0.615 * red - 0.51499 * green - 0.10001 * blue
    Y = grey.mean(1)
    final = torch.stack((Y + 1.13983 * V, Y - 0.39465 * U - 0.5806 * V, Y + 2.03211 * U), dim=1).clamp(0, 1)
    assert ab.std() > 1
    torch.testing.assert_close(ab, rgb_to_lab(final)[:, 1:], rtol=0, atol=0.1)
    assert DeOldify(1 / 8, 64, Options()).side == 64  # as it was trained


def test_each_stage_of_nogan_teaches_whom_it_should():
    stages = specs()["deoldify/stable"].schedule(PRESETS["first"])
    assert [(stage.name, stage.epochs) for stage in stages] == [("generator", 4), ("critic", 10), ("gan", 6)]
    assert [len(stage.images(1, 1000)) if stage.images else 1000 for stage in stages] == [1000, 85, 30]
    assert len(stages[2].images(1, 20)) == 16
    assert stages[2].learning_rate == pytest.approx(2e-5 / 0.25)
    network = DeOldify(1 / 8, 32, Options())
    for stage in stages:
        batch = Batch(smooth(2, 32, 32), 20 * torch.randn(2, 2, 32, 32), stage.settings)
        losses = {update.player: {*update.losses} for update in network.updates(batch)}
        expected = {"generator": {"l1", "features"}, "critic": {"real", "fake"}}
        if stage.name == "gan":
            expected["generator"].add("adversarial")
        else:
            expected = {stage.name: expected[stage.name]}
        assert losses == expected


def test_the_critic_alone_judges_what_the_generator_would_color_and_leaves_it_as_it_is():
    network = DeOldify(1 / 8, 32, Options()).train()
    before = {name: value.clone() for name, value in network.generator.state_dict().items()}
    list(network.updates(Batch(smooth(2, 32, 32), torch.zeros(2, 2, 32, 32), {"stage": "critic"})))
    assert all(torch.equal(value, before[name]) for name, value in network.generator.state_dict().items())
    assert network.generator.training


def test_losses_are_those_of_the_release():
    network = DeOldify(1 / 8, 32, Options("stable")).eval()
    L, ab = smooth(3, 32, 32), 20 * torch.randn(3, 2, 32, 32)
    with torch.no_grad():
        generator, critic = network.updates(Batch(L, ab, {"stage": "gan"}))
        grey, truth = (network.normalized(lab_to_rgb(torch.cat((L, x), dim=1))) for x in (torch.zeros_like(ab), ab))
        colored = network.generator(grey)
        fake, real = network.critic(colored), network.critic(truth)
        expected = {
            "l1": 1.5 * (colored - truth).abs().mean(),
            "features": 1.5 * network.features(colored, truth),
            "adversarial": -F.logsigmoid(fake).mean(),
        }
        torch.testing.assert_close(dict(generator.losses), expected)
        expected = {"real": -F.logsigmoid(real).mean() / 2, "fake": -F.logsigmoid(-fake).mean() / 2}
        torch.testing.assert_close(dict(critic.losses), expected)


def test_refuses_odd_sides_other_architectures_and_negative_factors():
    with pytest.raises(ValueError, match="even height and width to train on, not 32 x 33"):
        DeOldify(1 / 64, 32, Options()).generator(torch.zeros(1, 3, 32, 33))
    with pytest.raises(ValueError, match="artistic and stable, not 'video'"):
        Options("video")
    with pytest.raises(ValueError, match="render_factor from 0, not -1"):
        Options(render_factor=-1)


def test_one_picture_at_32_px_can_be_learnt_from():
    network = DeOldify(1 / 64, 32, Options()).train()
    (update,) = network.updates(Batch(smooth(1, 32, 32), torch.zeros(1, 2, 32, 32)))
    assert sum(update.losses.values()).isfinite()
