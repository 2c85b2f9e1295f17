"""DDColor: the authors' files, its arithmetic written against them alone, its losses."""

import math

import colorbench_ddcolor as plugin
import pytest
import torch
import torch.nn.functional as F
from colorbench_ddcolor.losses import colorfulness_error, saturated
from colorbench_ddcolor.model import DDColor, Generator
from colorbench_ddcolor.options import Options

from colorbench.color import lab_to_rgb
from colorbench.contract import Batch
from colorbench.harness.networks import count_parameters, load_published

# Depths and channels of the encoder, channels of both decoders, of the color queries, and of their feed-forward layer
LARGE = ((3, 3, 27, 3), (192, 384, 768, 1536), 512, 256, 2048)
TINY = ((3, 3, 9, 3), (96, 192, 384, 768), 512, 256, 2048)
NARROW = ((3, 3, 9, 3), (16, 24, 48, 96), 64, 32, 256)  # tiny at width 1/8, each a multiple of 8


def released(depths, dims, nf, dim, hidden):
    """The names in the authors' files and their shapes."""
    shapes = {"mean": (1, 3, 1, 1), "std": (1, 3, 1, 1)}

    def both(name, *shape):
        shapes.update({f"{name}.weight": shape, f"{name}.bias": shape[:1]})

    def spectral(name, *shape, bias):
        long = math.prod(shape[1:])
        shapes.update({f"{name}.weight_orig": shape, f"{name}.weight_u": shape[:1], f"{name}.weight_v": (long,)})
        shapes.update({f"{name}.bias": shape[:1]} if bias else {})

    def batch_norm(name, channels):
        both(name, channels)
        shapes.update({f"{name}.running_mean": (channels,), f"{name}.running_var": (channels,)})
        shapes[f"{name}.num_batches_tracked"] = ()

    arch = "encoder.arch"
    both(f"{arch}.downsample_layers.0.0", dims[0], 3, 4, 4)
    both(f"{arch}.downsample_layers.0.1", dims[0])
    for stage, (depth, channels) in enumerate(zip(depths, dims, strict=True)):
        if stage:
            both(f"{arch}.downsample_layers.{stage}.0", dims[stage - 1])
            both(f"{arch}.downsample_layers.{stage}.1", channels, dims[stage - 1], 2, 2)
        for block in (f"{arch}.stages.{stage}.{index}" for index in range(depth)):
            shapes[f"{block}.gamma"] = (channels,)
            both(f"{block}.dwconv", channels, 1, 7, 7)
            both(f"{block}.norm", channels)
            both(f"{block}.pwconv1", 4 * channels, channels)
            both(f"{block}.pwconv2", channels, 4 * channels)
        both(f"{arch}.norm{stage}", channels)
    both(f"{arch}.norm", dims[3])
    below = dims[3]
    for index, (skip, out) in enumerate(((dims[2], nf), (dims[1], nf), (dims[0], nf // 2))):
        layer = f"decoder.layers.{index}"
        spectral(f"{layer}.shuf.conv.0", 4 * out, below, 1, 1, bias=False)
        batch_norm(f"{layer}.shuf.conv.1", 4 * out)
        batch_norm(f"{layer}.bn", skip)
        spectral(f"{layer}.conv.0", out, out + skip, 3, 3, bias=False)
        batch_norm(f"{layer}.conv.2", out)
        below = out
    spectral("decoder.last_shuf.conv.0", 8 * nf, nf // 2, 1, 1, bias=True)
    colors = "decoder.color_decoder"
    for index in range(9):
        for role, attention in (("cross", "multihead_attn"), ("self", "self_attn")):
            layer = f"{colors}.transformer_{role}_attention_layers.{index}"
            shapes[f"{layer}.{attention}.in_proj_weight"] = (3 * dim, dim)
            shapes[f"{layer}.{attention}.in_proj_bias"] = (3 * dim,)
            both(f"{layer}.{attention}.out_proj", dim, dim)
            both(f"{layer}.norm", dim)
        layer = f"{colors}.transformer_ffn_layers.{index}"
        both(f"{layer}.linear1", hidden, dim)
        both(f"{layer}.linear2", dim, hidden)
        both(f"{layer}.norm", dim)
        if index < 3:
            both(f"{colors}.input_proj.{index}", dim, (nf, nf, nf // 2)[index], 1, 1)
            both(f"{colors}.color_embed.layers.{index}", dim, dim)
    both(f"{colors}.decoder_norm", dim)
    embeddings = {"query_feat": 100, "query_embed": 100, "level_embed": 3}
    shapes.update({f"{colors}.{name}.weight": (count, dim) for name, count in embeddings.items()})
    spectral("refine_net.0.0", 2, 103, 1, 1, bias=True)
    return shapes


def random_state(shapes):
    """Values of chance under these names, such that the maps of all layers are of one magnitude."""
    generator = torch.Generator().manual_seed(7)
    state = {}
    for name, shape in shapes.items():
        draw = torch.randn(shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(1)
        elif name.endswith(("running_var", "gamma")) or (name.endswith("weight") and len(shape) == 1):
            state[name] = 0.5 + torch.rand(shape, generator=generator)
        elif len(shape) > 1:
            state[name] = draw * math.prod(shape[1:]) ** -0.5
        else:
            state[name] = F.normalize(draw, dim=0) if name.endswith(("_u", "_v")) else 0.1 * draw
    # Units, as the power iteration keeps them, but with their product no smaller than that of a trained layer.
    for name in [name for name in shapes if name.endswith("weight_orig")]:
        base, matrix = name.removesuffix("_orig"), state[name].flatten(1)
        state[f"{base}_u"] = F.normalize(matrix @ state[f"{base}_v"], dim=0)
    state["mean"] = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    state["std"] = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    return state


def transcription(state, L):
    """The authors' forward pass written against their file alone: L (B, 1, H, W) -> ab (B, 2, H, W)."""

    def part(name, *kinds):
        return [state.get(f"{name}.{kind}") for kind in kinds or ("weight", "bias")]

    def layer_norm(x, name):  # over the channels of (B, C, H, W)
        return F.layer_norm(x.movedim(1, 3), x.shape[1:2], *part(name), 1e-6).movedim(3, 1)

    def spectral(x, name, **padding):
        kernel, u, v, bias = part(name, "weight_orig", "weight_u", "weight_v", "bias")
        return F.conv2d(x, kernel / (u @ kernel.flatten(1) @ v), bias, **padding)

    def batch_norm(x, name):
        return F.batch_norm(x, *part(name, "running_mean", "running_var", "weight", "bias"))

    def encoder(x):
        maps, arch = [], "encoder.arch"
        for stage in range(4):
            first, second = (f"{arch}.downsample_layers.{stage}.{index}" for index in range(2))
            if stage == 0:
                x = layer_norm(F.conv2d(x, *part(first), stride=4), second)
            else:
                x = F.conv2d(layer_norm(x, first), *part(second), stride=2)
            index = 0
            while f"{(block := f'{arch}.stages.{stage}.{index}')}.gamma" in state:
                y = F.conv2d(x, *part(f"{block}.dwconv"), padding=3, groups=x.shape[1])
                y = F.linear(layer_norm(y, f"{block}.norm").movedim(1, 3), *part(f"{block}.pwconv1"))
                y = F.linear(F.gelu(y), *part(f"{block}.pwconv2")) * state[f"{block}.gamma"]
                x, index = x + y.movedim(3, 1), index + 1
            maps.append(layer_norm(x, f"{arch}.norm{stage}"))
        return maps

    def shuffle(x, scale):
        x = F.pixel_shuffle(F.relu(x), scale)
        x = F.pad(x, (1, 0, 1, 0), mode="replicate")
        return (x[:, :, 1:, 1:] + x[:, :, :-1, 1:] + x[:, :, 1:, :-1] + x[:, :, :-1, :-1]) / 4

    def positions(x):
        half = state["decoder.color_decoder.decoder_norm.weight"].numel() // 2
        step = torch.arange(half)
        divisor = 10000 ** (2 * (step // 2) / half)
        ones, axes = torch.ones(x.shape[2:]), []
        for axis in (0, 1):
            count = ones.cumsum(axis)
            phase = (count / (count.amax(axis, keepdim=True) + 1e-6) * 2 * math.pi)[..., None] / divisor
            axes.append(torch.where(step % 2 == 0, phase.sin(), phase.cos()))
        return torch.cat(axes, dim=2).flatten(0, 1)[:, None]  # (h w, 1, dim)

    def attend(query, key, value, name):
        weights = part(name, "in_proj_weight", "in_proj_bias")
        dropped = (None, None, False, 0.0, *part(f"{name}.out_proj"))
        return F.multi_head_attention_forward(query, key, value, query.shape[2], 8, *weights, *dropped)[0]

    def colors(maps):
        decoder, batch = "decoder.color_decoder", len(maps[0])
        state_of = lambda name: state[f"{decoder}.{name}.weight"]  # noqa: E731
        places, sources = [positions(x) for x in maps], []
        for level, x in enumerate(maps):
            projected = F.conv2d(x, *part(f"{decoder}.input_proj.{level}")).flatten(2)
            sources.append((projected + state_of("level_embed")[level][:, None]).permute(2, 0, 1))
        place = state_of("query_embed")[:, None].repeat(1, batch, 1)
        x = state_of("query_feat")[:, None].repeat(1, batch, 1)
        norm = lambda x, name: F.layer_norm(x, x.shape[-1:], *part(name))  # noqa: E731
        for index in range(9):
            source, pos = sources[index % 3], places[index % 3]
            layer = f"{decoder}.transformer_cross_attention_layers.{index}"
            x = norm(x + attend(x + place, source + pos, source, f"{layer}.multihead_attn"), f"{layer}.norm")
            layer = f"{decoder}.transformer_self_attention_layers.{index}"
            x = norm(x + attend(x + place, x + place, x, f"{layer}.self_attn"), f"{layer}.norm")
            layer = f"{decoder}.transformer_ffn_layers.{index}"
            fed = F.linear(F.relu(F.linear(x, *part(f"{layer}.linear1"))), *part(f"{layer}.linear2"))
            x = norm(x + fed, f"{layer}.norm")
        x = norm(x, f"{decoder}.decoder_norm").transpose(0, 1)
        for index in range(3):
            x = F.linear(x if index == 0 else F.relu(x), *part(f"{decoder}.color_embed.layers.{index}"))
        return x

    grey = (lab_to_rgb(torch.cat((L, 0 * L, 0 * L), dim=1)) - state["mean"]) / state["std"]
    maps = encoder(grey)
    x, ups = maps[3], []
    for index, skip in enumerate((maps[2], maps[1], maps[0])):
        layer = f"decoder.layers.{index}"
        x = shuffle(batch_norm(spectral(x, f"{layer}.shuf.conv.0"), f"{layer}.shuf.conv.1"), 2)
        x = F.relu(torch.cat((x, batch_norm(skip, f"{layer}.bn")), dim=1))
        x = batch_norm(F.relu(spectral(x, f"{layer}.conv.0", padding=1)), f"{layer}.conv.2")
        ups.append(x)
    pixels = shuffle(spectral(x, "decoder.last_shuf.conv.0"), 4)
    scores = (colors(ups) @ pixels.flatten(2)).unflatten(2, pixels.shape[2:])
    return spectral(torch.cat((scores, grey), dim=1), "refine_net.0.0")


def specs():
    found = {}
    plugin.register_models(lambda spec: found.update({spec.name: spec}))
    return found


def test_the_authors_file_loads_and_gives_their_output(tmp_path):
    state = random_state(released(*NARROW))
    torch.save({"params": state}, tmp_path / "ddcolor_paper_tiny.pth")
    network = DDColor(1 / 8, 32, Options("tiny")).eval()
    load_published(network, specs()["ddcolor/tiny"], tmp_path / "ddcolor_paper_tiny.pth")
    L = F.interpolate(100 * torch.rand(2, 1, 8, 12), size=(64, 96), mode="bilinear")
    with torch.no_grad():
        got, expected = network.generator(L), transcription(state, L)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    assert count_parameters(network, L) == sum(p.numel() for p in network.generator.parameters())
    assert expected.std((2, 3)).min() > 0.1 * expected.abs().mean()  # not a comparison of constants


@pytest.mark.parametrize(
    ("name", "sizes", "count"), [("ddcolor", LARGE, 227_869_328), ("ddcolor/tiny", TINY, 55_006_640)]
)
def test_names_shapes_and_counts_are_the_published_ones(name, sizes, count):
    with torch.device("meta"):
        theirs = {key: torch.empty(shape) for key, shape in released(*sizes).items()}
        network = Generator(specs()[name].options.encoder, 1.0)
    own = network.state_dict(prefix="generator.")
    converted = specs()[name].convert(theirs)
    assert {key: value.shape for key, value in converted.items()} == {key: value.shape for key, value in own.items()}
    unused = 2 * sizes[1][-1]  # the last normalization of their encoder, whose output goes nowhere
    assert sum(p.numel() for p in network.parameters()) == count - unused


def test_losses_are_those_of_the_release():
    network = DDColor(1 / 8, 32, Options("tiny", colorfulness_loss=0.25)).eval()
    L, ab = 20 + 60 * torch.rand(3, 1, 32, 32), 20 * torch.randn(3, 2, 32, 32)
    with torch.no_grad():
        generator, discriminator = network.updates(Batch(L, ab))
        got = network.generator(L)
        rgb, truth = (lab_to_rgb(torch.cat((L, x), dim=1)) for x in (got, ab))
        assert (generator.player, discriminator.player) == ("generator", "discriminator")
        fake, real = network.discriminator(rgb), network.discriminator(saturated(truth))
        expected = {
            "l1": 0.1 * (got - ab).abs().mean(),
            "perceptual": 5 * network.perceptual(*map(network.generator.normalized, (rgb, saturated(truth)))),
            "adversarial": -F.logsigmoid(fake).mean(),
            "colorfulness": 0.25 * colorfulness_error(rgb),
        }
        torch.testing.assert_close(dict(generator.losses), expected)
        expected = {"real": -F.logsigmoid(real).mean(), "fake": -F.logsigmoid(-fake).mean()}
        torch.testing.assert_close(dict(discriminator.losses), expected)
    assert len(network.notes) == 2
    network.colorfulness_weight = 0
    assert "colorfulness" not in next(network.updates(Batch(L, ab))).losses


def test_colorfulness_is_1_less_that_of_hasler_and_süsstrunk_and_grey_has_a_gradient():
    rgb = torch.rand(4, 3, 8, 8)
    red, green, blue = rgb.double().unbind(1)
    opponents = ((red - green).abs(), ((red + green) / 2 - blue).abs())
    deviation = sum(x.var((1, 2)) for x in opponents).sqrt()
    mean = sum(x.mean((1, 2)) ** 2 for x in opponents).sqrt()
    assert colorfulness_error(rgb).item() == pytest.approx((1 - deviation - 0.3 * mean).sum().item(), abs=1e-5)
    grey = torch.full((2, 3, 8, 8), 0.5, requires_grad=True)
    colorfulness_error(grey).backward()
    assert grey.grad.isfinite().all()


def test_saturated_moves_away_from_grey_by_a_fifth():
    rgb = torch.tensor([0.5, 0.4, 0.6])[None, :, None, None]
    grey = 0.2989 * 0.5 + 0.587 * 0.4 + 0.114 * 0.6
    assert saturated(rgb).flatten().tolist() == pytest.approx([grey + 1.2 * (x - grey) for x in (0.5, 0.4, 0.6)])


@pytest.mark.parametrize(("size", "logits"), [(32, 1), (64, 1), (128, 25)])
def test_the_discriminator_has_a_verdict_at_every_size_of_training(size, logits):
    network = DDColor(1 / 64, size, Options("tiny"))
    assert network.discriminator(torch.rand(1, 3, size, size)).numel() == logits


def test_refuses_other_sides_and_other_encoders():
    with pytest.raises(ValueError, match="multiples of 32, not 32 x 48"):
        DDColor(1 / 64, 32, Options("tiny"))(torch.zeros(1, 1, 32, 48))
    with pytest.raises(ValueError, match="knows the encoders tiny, small, base, large, not 'huge'"):
        Options("huge")


def test_the_rate_is_halved_as_in_the_release():
    # At 80,000 of 400,000 steps, then every 40,000.
    assert [plugin.halved(step / 400_000) for step in (0, 79_999, 80_000, 119_999, 120_000, 360_000, 399_999)] == [
        1, 1, 0.5, 0.5, 0.25, 2**-8, 2**-8,
    ]  # fmt: skip
