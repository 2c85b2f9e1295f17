"""The refiner: what it leaves alone, what it sees, what it is taught."""

from dataclasses import replace
from pathlib import Path

import colorbench_enhanced_unet as plugin
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from colorbench_enhanced_unet import ablations, losses, schedule
from colorbench_enhanced_unet.crops import crop, random_places
from colorbench_enhanced_unet.diffusion import noise_schedule, timestep_embedding
from colorbench_enhanced_unet.model import EnhancedUNet, SelfAttention, color_prior
from colorbench_enhanced_unet.options import LOSSES, Options, ToneOptions
from colorbench_enhanced_unet.tones import TwoTones
from torch import nn

from colorbench import UserError, plugins
from colorbench.color import lab_to_rgb
from colorbench.contract import Batch, Preset
from colorbench.runs.identity import differences, option_fields

MODELS = plugins.load().specs["model"]
PRESET = Preset("p", "", size=64, width=0.25, batch_size=8, epochs=30)
NO_VGG = {"perceptual_loss": 0.0, "style_loss": 0.0}
QUIET = {"noise": False, "attention": True}


class Base(nn.Module):
    """A small stand-in for a trained colorizer, with a BatchNorm that must not move."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1))

    def forward(self, L):
        return 110 * torch.tanh(self.layers(L / 100).float())


def build(width=0.125, **options):
    torch.manual_seed(0)
    return plugin.build(width=width, base=Base(), **options)


def pictures(count=2, height=32, width=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    L = F.interpolate(20 + 60 * torch.rand(count, 1, height // 8, width // 8, generator=generator), scale_factor=8)
    return L, torch.cat((0.4 * L - 10, 30 - 0.3 * L), dim=1)


def train(network, batch, steps, rate=2e-3):
    network.train()
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=rate)
    for _ in range(steps):
        (update,) = network.updates(batch)
        optimizer.zero_grad()
        sum(update.losses.values()).backward()
        optimizer.step()
    return network


# --- what it leaves alone


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (40, 24)])
@pytest.mark.parametrize("bf16", [False, True])
def test_untrained_it_gives_the_bases_ab_to_the_bit(size, bf16):
    network, (L, _) = build().eval(), pictures(1, *size)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        ab = network(L)
    with torch.no_grad():  # in float32: autocast does not reach the base
        assert torch.equal(ab, network.base(L))
    assert ab.dtype == torch.float32
    assert ab.shape == (1, 2, *size)


@pytest.mark.parametrize(
    "name", sorted(n for n in MODELS if n.startswith("enhanced-unet") and n != "enhanced-unet/mirrored")
)
def test_every_variant_starts_as_its_base_to_the_bit(name):
    base, (L, _) = MODELS["siggraph17"].build(width=0.125), pictures()
    network = MODELS[name].build(width=0.125, size=32, base=base, **MODELS[name].option_values).eval()
    with torch.no_grad():
        assert torch.equal(network(L), base(L))


def test_adding_attention_changes_nothing_until_it_has_learned():
    L, ab = pictures()
    network = train(build(), Batch(L, ab, {"noise": True, "attention": False}), steps=3).eval()
    with torch.no_grad():
        start = network._start(L)
        t = torch.zeros(len(L), dtype=torch.long)
        with_it, without = (network._refine(L, start, start.ab / 110, t, attend=attend) for attend in (True, False))
        assert not torch.equal(with_it.ab, start.ab)
        assert torch.equal(with_it.ab, without.ab)
    learned = train(network, Batch(L, ab), steps=2).eval()
    with torch.no_grad():
        with_it, without = (learned._refine(L, start, start.ab / 110, t, attend=attend) for attend in (True, False))
        assert (with_it.ab - without.ab).abs().max() > 1e-3


def test_the_base_never_changes():
    L, ab = pictures()
    network = build()
    before = {key: value.clone() for key, value in network.base.state_dict().items()}
    train(network, Batch(L, ab), steps=3)
    assert all(torch.equal(value, before[key]) for key, value in network.base.state_dict().items())
    assert not any(module.training for module in network.base.modules())


def test_a_stage_without_attention_does_not_touch_it():
    L, ab = pictures()
    network = build()
    (update,) = network.updates(Batch(L, ab, {"noise": True, "attention": False}))
    sum(update.losses.values()).backward()
    assert "attention" not in update.losses
    assert all(p.grad is None for p in network.attention.parameters())


def test_needs_a_base_and_a_size_divisible_by_8():
    with pytest.raises(ValueError, match="base"):
        plugin.build(width=0.125, base=None)
    with pytest.raises(ValueError, match="divisible by 8"):
        build()(torch.zeros(1, 1, 32, 36))


# --- what it sees


@pytest.mark.parametrize("magnitude", ["mean-chroma", "literal"])
def test_prior_matches_numpy(magnitude):
    ab = torch.randn(3, 2, 16, 24, generator=torch.Generator().manual_seed(1)) * 0.2 + 0.1
    rows = []
    for a, b in ab.double().numpy():
        length = np.sqrt(a**2 + b**2).mean() if magnitude == "mean-chroma" else np.sqrt((a**2 + b**2).sum()) / (16 * 24)
        rows.append([a.mean(), b.mean(), a.std() + b.std(), length])
    np.testing.assert_allclose(color_prior(ab, magnitude).numpy(), rows, rtol=1e-5, atol=1e-6)


def test_mean_chroma_does_not_depend_on_the_size_and_the_printed_formula_does():
    ab = torch.full((1, 2, 16, 16), 0.3)
    large = torch.full((1, 2, 64, 64), 0.3)
    torch.testing.assert_close(color_prior(ab, "mean-chroma"), color_prior(large, "mean-chroma"))
    torch.testing.assert_close(color_prior(ab, "literal")[0, 3], 4 * color_prior(large, "literal")[0, 3])


def test_prior_is_of_the_clean_base():
    network, (L, _) = build(), pictures()
    seen = []
    network.prior.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    list(network.updates(Batch(L, _)))
    torch.testing.assert_close(seen[0], color_prior(network.base(L), "mean-chroma") / 5)


def test_the_prior_is_heard_beside_the_timestep():
    class Faces(nn.Module):
        def forward(self, L):  # as far apart as the mean colors of faces are
            torch.manual_seed(0)
            return (torch.tensor([12.0, 15.0]) + 3 * torch.randn(len(L), 2))[..., None, None].expand(
                -1, -1, *L.shape[2:]
            )

    network, embeddings = plugin.build(width=0.125, base=Faces()), []
    network.prior.register_forward_hook(lambda module, inputs, output: embeddings.append(output))
    network.eval()(torch.full((100, 1, 8, 8), 50.0))
    assert embeddings[0].std(dim=0).mean() > 0.2 * timestep_embedding(torch.arange(51)).std(dim=0).mean()


def test_the_cosine_schedule_keeps_all_at_0_and_nothing_at_the_end():
    kept = noise_schedule("cosine")
    assert kept.shape == (1001,)
    assert (kept[0], kept[-1]) == (1, pytest.approx(0, abs=1e-6))
    f = [np.cos((t / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2 for t in (0, 300, 700)]  # Nichol and Dhariwal, (17)
    assert kept[300].item() == pytest.approx(f[1] / f[0], rel=1e-5)
    assert kept[700].item() == pytest.approx(f[2] / f[0], rel=1e-5)


def test_noise_schedule_is_the_linear_one():
    kept = noise_schedule("linear").numpy()
    assert kept.shape == (1001,)
    assert kept[0] == 1
    for t in (1, 2, 50, 1000):
        betas = [1e-4 + (0.02 - 1e-4) * step / 999 for step in range(t)]
        assert kept[t] == pytest.approx(np.prod([1 - beta for beta in betas]), rel=1e-5)


def test_diffuse_keeps_the_variance_and_spares_t_0():
    network = build()
    x, noise = torch.randn(2, 3, 2, 64, 64, generator=torch.Generator().manual_seed(2)).unbind()
    got = network.diffuse(x, torch.tensor([0, 50, 1000]), noise)
    assert torch.equal(got[0], x[0])
    kept = noise_schedule("linear")[50]
    torch.testing.assert_close(got[1], kept.sqrt() * x[1] + (1 - kept).sqrt() * noise[1])
    torch.testing.assert_close(got[2], noise[2], atol=0.05, rtol=0)
    assert got[1].std() == pytest.approx(1, abs=0.03)


def test_noise_is_seen_but_does_not_leak_into_the_result():
    network, (L, ab) = build(t_max=1000), pictures()
    seen = []
    network.down1.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    (update,) = network.updates(Batch(L, ab))
    base = network.base(L)
    assert torch.equal(seen[0][:, :1], (L - 50) / 100)
    assert (seen[0][:, 1:] - base / 110).std() > 0.1
    torch.testing.assert_close(update.losses["output"], 0.25 * F.mse_loss(base / 110, ab / 110))


def test_timesteps_are_told_apart():
    embedding = timestep_embedding(torch.tensor([0, 1, 50]))
    assert embedding.shape == (3, 128)
    assert torch.equal(embedding[0], torch.cat((torch.zeros(64), torch.ones(64))))
    assert embedding[1, 0] == pytest.approx(np.sin(1), rel=1e-6)
    assert embedding[2, 63] == pytest.approx(np.sin(50 / 10_000), rel=1e-4)


def test_only_training_draws_from_the_global_generator():
    network, (L, ab) = build().eval(), pictures()
    torch.nn.init.ones_(network.residual.weight)
    state = torch.get_rng_state()
    with torch.no_grad():
        first, second = network(L), network(L)
    assert torch.equal(first, second)
    list(network.updates(Batch(L, ab, QUIET)))
    assert torch.equal(torch.get_rng_state(), state)
    list(network.updates(Batch(L, ab)))
    assert not torch.equal(torch.get_rng_state(), state)


def test_attention_map_is_the_attention_received():
    torch.manual_seed(1)
    attention, x = SelfAttention(16, heads=4, teaches="map"), torch.randn(2, 16, 3, 5)
    parts = attention.query_key, attention.value
    weight, bias = torch.cat([p.weight[:, :, 0, 0] for p in parts]), torch.cat([p.bias for p in parts])
    tokens = attention.norm(x).flatten(2).transpose(1, 2) @ weight.T + bias  # (2, 15, 48)
    query, key, value = (part.unflatten(2, (4, 4)).transpose(1, 2) for part in tokens.chunk(3, dim=2))
    matrix = (query @ key.transpose(2, 3) / 2).softmax(dim=3)
    received = matrix.mean(dim=(1, 2))
    expected = (received - received.amin(1, True)) / (received.amax(1, True) - received.amin(1, True))
    got, attention_map = attention(x)
    torch.testing.assert_close(attention_map.flatten(1), expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(got, x)
    with torch.no_grad():
        nn.init.normal_(attention.project.weight)
    mixed = (matrix @ value).transpose(1, 2).flatten(2).transpose(1, 2).view(2, 16, 3, 5)
    torch.testing.assert_close(attention(x)[0], x + attention.project(mixed), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("teaches", ["map", "trunk"])
def test_what_learns_from_the_attention_loss(teaches):
    L, ab = pictures()
    network = build(attention_teaches=teaches)
    (update,) = network.updates(Batch(L, ab))
    update.losses["attention"].backward()
    assert network.attention.query_key.weight.grad.any()
    assert (network.down1[0].weight.grad is None) == (teaches == "map")


def test_attention_map_of_a_network():
    L, _ = pictures(3, 32, 64)
    for place in ("decoder", "bottleneck"):
        shown = build(attention=place).eval().with_attention(L)[1]
        assert shown.shape == (3, 1, 4, 8)
        assert shown.amin() == 0
        assert shown.amax() <= 1
    assert build(attention_stride=4).eval().with_attention(L)[1].shape == (3, 1, 8, 16)
    assert build(attention_stride=2).eval().with_attention(L)[1].shape == (3, 1, 16, 32)
    assert build(attention="none").with_attention(L)[1] is None


def test_the_base_answers_in_float32_in_training():
    network, (L, ab) = build().train(), pictures()
    seen = []
    network.base.layers.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        list(network.updates(Batch(L, ab)))
    assert seen == [torch.float32]


# --- what it is taught


def test_losses_are_named_and_weighted_as_in_equation_1():
    network, (L, ab) = build().eval(), pictures()
    with torch.no_grad():
        (update,) = network.updates(Batch(L, ab, QUIET))
        base = network.base(L)
    assert (weights := Options().weights) == {
        "residual": 0.35, "output": 0.25, "perceptual": 0.1, "diversity": 0.1, "style": 0.1, "attention": 0.1,
    }  # fmt: skip
    assert sum(weights.values()) == pytest.approx(1)
    assert update.losses.keys() == weights.keys()
    assert all(loss.shape == () and loss.isfinite() for loss in update.losses.values())

    error = ((base - ab) / 110).square().mean()
    torch.testing.assert_close(update.losses["residual"], 0.35 * error)
    torch.testing.assert_close(update.losses["output"], 0.25 * error)
    assert update.losses["style"] == 0  # the untrained result is the base itself
    lengths = (F.avg_pool2d(ab.square().sum(1, keepdim=True).sqrt(), 8)).flatten(1)
    lengths = (lengths - lengths.amin(1, True)) / (lengths.amax(1, True) - lengths.amin(1, True))
    expected = (network.with_attention(L)[1].flatten(1) - lengths).square().mean()
    torch.testing.assert_close(update.losses["attention"], 0.1 * expected)


def test_perceptual_and_style_terms():
    vgg, (L, ab) = losses.vgg16(None, 0.125), pictures()
    terms = losses.appearance(vgg, L, ab * 0.5, ab, ab * 0.8, losses.REDUCTIONS["mean"])
    final, base, truth = (vgg(lab_to_rgb(torch.cat((L, ab * s), 1))) for s in (0.5, 0.8, 1))
    perceptual = sum((f - t).square().mean() for f, t in zip(final, truth, strict=True)) / 4

    def gram(f):
        return torch.einsum("bchw,bdhw->bcd", f, f) / f[0].numel()

    style = sum((gram(f) - gram(b)).square().mean() for f, b in zip(final, base, strict=True)) / 4
    torch.testing.assert_close(terms["perceptual"], perceptual)
    torch.testing.assert_close(terms["style"], style, rtol=1e-4, atol=1e-9)


def test_sums_are_over_an_image_and_means_over_all():
    squares = torch.arange(24.0).view(2, 3, 2, 2)
    assert losses.REDUCTIONS["mean"](squares) == 11.5
    assert losses.REDUCTIONS["sum"](squares) == 11.5 * 12


def test_variation_is_the_deviation_in_the_neighborhood():
    ab = torch.randn(1, 2, 15, 15, generator=torch.Generator().manual_seed(0))
    window = ab[0, :, 4:11, 4:11].flatten(1)
    expected = window.var(dim=1, correction=0).sum().sqrt()
    assert losses.variation(ab)[0, 0, 7, 7].item() == pytest.approx(expected.item(), rel=1e-4)
    corner = ab[0, :, :4, :4].flatten(1)
    assert losses.variation(ab)[0, 0, 0, 0].item() == pytest.approx(
        corner.var(1, correction=0).sum().sqrt().item(), rel=1e-4
    )
    assert losses.variation(torch.full((1, 2, 8, 8), 0.3)).max() < 1e-3


def test_what_the_options_change_in_the_losses():
    L, ab = pictures()

    def of(**options):
        with torch.no_grad():
            (update,) = build(**options).eval().updates(Batch(L, ab, QUIET))
        return update.losses

    plain, network = of(), build().eval()
    base = network.base(L).detach()
    torch.testing.assert_close(of(reduction="sum")["residual"], plain["residual"] * 2 * 32 * 32)
    rgb, truth = (lab_to_rgb(torch.cat((L, colors), 1)) for colors in (base, ab))
    torch.testing.assert_close(of(output="rgb")["output"], 0.25 * F.mse_loss(rgb, truth))
    assert plain["style"] == 0 < of(style_of="truth")["style"]
    assert of(attention_target="variation")["attention"] != plain["attention"]


def test_a_random_crop_is_a_part_of_the_picture_enlarged():
    ramp = torch.stack(torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")).expand(64, -1, -1, -1)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        cropped = crop(ramp, random_places(64, 0.5, ramp.device))
    assert cropped.shape == ramp.shape
    slope = (cropped[:, 1, 16, 20] - cropped[:, 1, 16, 10]) / 10  # of a ramp: how much it was enlarged
    assert ((slope >= 0.5) & (slope <= 1)).all()
    assert slope.max() - slope.min() > 0.4
    assert (cropped[:, 1, 16, 8:24].diff(dim=1) - slope[:, None]).abs().max() < 1e-3
    center = cropped[:, :, 15:17, 15:17].mean((2, 3))
    assert ((center - 15.5).abs() <= (1 - slope[:, None]) * 16 + 1e-3).all()
    torch.testing.assert_close(crop(ramp, random_places(64, 1.0, ramp.device)), ramp, atol=1e-4, rtol=0)


def test_the_base_sees_whole_pictures_though_the_refiner_sees_parts():
    network, (L, ab) = build(crop=0.5, features="layers.1"), pictures()
    seen = []
    network.base.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    network.down1.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    torch.manual_seed(3)
    list(network.train().updates(Batch(L, ab, QUIET)))
    (whole, base), parts = seen
    assert torch.equal(whole, L)
    torch.manual_seed(3)
    place = random_places(len(L), 0.5, L.device)
    torch.testing.assert_close(parts[:, :1], (crop(L, place) - 50) / 100)
    torch.testing.assert_close(parts[:, 1:3], crop(base, place) / 110)
    torch.testing.assert_close(parts[:, 3:], crop(network.base.layers[:2](L / 100), place))


def test_the_features_of_the_base_are_seen():
    network, (L, _) = build(features="layers.1"), pictures()
    seen = []
    network.down1.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    network.eval()(L)
    assert seen[0].shape == (2, 3 + 8, 32, 32)
    assert torch.equal(seen[0][:, 3:], network.base.layers[:2](L / 100))


def test_diversity_terms_and_their_signs():
    truth = torch.full((1, 2, 8, 8), 0.3)
    gray, vivid = 0 * truth, 2 * truth
    # As far from the truth as an image without color is, in the others' measure.
    assert losses.hinge(gray, gray, truth).mean().item() == pytest.approx(0.3**2, rel=1e-4)
    sums = [term.sum().item() for term in (losses.hinge(gray, gray, truth), losses.penalty(gray, truth, truth))]
    assert sums[0] == pytest.approx(sums[1], rel=1e-4)
    assert not losses.hinge(vivid, gray, truth).any()
    assert not losses.hinge(-truth, gray, truth).any()  # of the hue it says nothing
    assert losses.penalty(vivid, gray, truth).mean().item() == pytest.approx(0.36)
    assert losses.reward(vivid, gray, truth).mean().item() == pytest.approx(-0.36)
    gray.requires_grad_()
    losses.hinge(gray, gray, truth).mean().backward()
    assert gray.grad.isfinite().all()


def test_every_parameter_learns():
    L, ab = pictures()
    network = train(build(), Batch(L, ab), steps=4)
    (update,) = network.updates(Batch(L, ab))
    network.zero_grad()
    sum(update.losses.values()).backward()
    learning = {name: p for name, p in network.named_parameters() if not name.startswith("base.")}
    assert [n for n, p in learning.items() if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()] == []


def test_thirty_steps_lower_the_error():
    L, ab = pictures(4)
    network = build().eval()
    before = F.mse_loss(network(L), ab)
    after = F.mse_loss(train(network, Batch(L, ab), steps=30).eval()(L), ab)
    assert after < 0.5 * before


def test_losses_are_float32_under_autocast():
    L, ab = pictures()
    network = build().to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        (update,) = network.updates(Batch(L, ab))
        assert network(L).dtype == torch.float32
    assert {loss.dtype for loss in update.losses.values()} == {torch.float32}
    sum(update.losses.values()).backward()
    assert network.residual.weight.grad.isfinite().all()


# --- VGG16


def test_vgg_is_neither_state_nor_a_parameter():
    network = build()
    assert network.vgg is not None
    assert not any("vgg" in key for key in network.state_dict())
    assert not any("vgg" in name for name, _ in network.named_parameters())
    assert "alpha_bar" not in network.state_dict()
    assert network.to("meta").vgg[1].layers[0].weight.device.type == "meta"


@pytest.fixture
def vgg_file(tmp_path):
    from torchvision.models import vgg16

    torch.manual_seed(5)
    with torch.device("meta"):
        shapes = vgg16().features[:23].state_dict()
    state = {f"features.{key}": 0.03 * torch.randn(value.shape) for key, value in shapes.items()}
    torch.save(state, tmp_path / "vgg.pth")
    return tmp_path / "vgg.pth", state


def test_features_are_those_of_torchvision(vgg_file):
    from torchvision.models import vgg16

    file, state = vgg_file
    with torch.device("meta"):
        truth = vgg16().features[:23]
    truth.load_state_dict({key.removeprefix("features."): value for key, value in state.items()}, assign=True)
    rgb = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    x = (rgb - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    expected = []
    for index, layer in enumerate(truth):
        x = layer(x)
        if index in (3, 8, 15, 22):
            expected.append(x.clone())
    for got, wanted in zip(losses.vgg16(file, 0.1)(rgb), expected, strict=True):
        torch.testing.assert_close(got, wanted)


def test_the_absence_of_weights_is_noted(vgg_file):
    file, _ = vgg_file
    (note,) = build().notes
    assert "random features" in note
    assert build(**NO_VGG).notes == []
    assert build(vgg=file).notes == []


@pytest.mark.parametrize("variable", ["TORCH_HOME", "XDG_CACHE_HOME"])
def test_weights_in_the_cache_of_torch_are_an_option_and_so_count_by_their_content(variable, tmp_path, monkeypatch):
    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    file = Path(torch.hub.get_dir(), "checkpoints", plugin.VGG16)
    assert tmp_path in file.parents
    before = plugins.load().specs["model"]
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    for name, spec in plugins.load().specs["model"].items():
        uses = name.startswith("enhanced-unet") and not name.endswith("siggraph17-longer")
        told = list(differences(option_fields(before[name]), option_fields(spec)))
        assert [line.partition(" -> ")[0] for line in told] == ["vgg null"] * uses, name


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "no such file"), (b"", "truncated"), (b"not a weight file", "truncated"), ("no vgg", "holds no VGG16")],
)
def test_a_file_without_vgg_is_refused_in_one_line(content, said, tmp_path):
    file = tmp_path / "weights.pth"
    if content == "no vgg":
        torch.save({"features.0.weight": torch.zeros(1)}, file)
    elif content is not None:
        file.write_bytes(content)
    with pytest.raises((UserError, ValueError), match=rf"weights\.pth.* {said}") as caught:
        build(vgg=file)
    assert "\n" not in str(caught.value)


# --- options


@pytest.mark.parametrize(
    "options",
    [
        {"attention": "bottleneck"},
        {"attention": "none"},
        {"prior": "literal"},
        {"prior": "none"},
        {"prior": "rms"},
        {"prior_of": "noisy"},
        {"fusion": "add"},
        {"t_max": 0},
        {"noise": "cosine"},
        {"sees": "ab"},
        {"features": "layers.1"},
        {"crop": 0.5},
        {"attention_stride": 4},
        {"attention_stride": 2},
        {"heads": 2},
        {"attention_target": "variation"},
        {"reduction": "sum"},
        {"output": "rgb"},
        {"style_of": "truth"},
        {"channels": (32, 64, 128, 128)},
        {"diversity": "penalty"},
        {"diversity": "reward"},
        NO_VGG,
        {"steps": 2},
        {"mirrored": True},
        {"test_t": 20},
    ],
    ids=str,
)
def test_every_option_trains_and_predicts(options):
    L, ab = pictures()
    network = train(build(**options), Batch(L, ab), steps=2).eval()
    plain = train(build(), Batch(L, ab), steps=2).eval()
    with torch.no_grad():
        result = network(L)
        assert torch.equal(result, network(L))
        assert not torch.equal(result, plain(L))  # of the same parameters at the start, and the same draws
    assert result.isfinite().all()


def test_dropped_losses_are_not_computed():
    L, ab = pictures()
    network = build(**NO_VGG, diversity_loss=0.0, residual_loss=1.0)
    assert network.vgg is None
    (update,) = network.updates(Batch(L, ab, QUIET))
    assert update.losses.keys() == {"residual", "output", "attention"}
    torch.testing.assert_close(update.losses["residual"], 4 * update.losses["output"])


@pytest.mark.parametrize(
    "options",
    [
        {"attention": "encoder"},
        {"attention_stride": 16},
        {"prior": "x"},
        {"reduction": "x"},
        {"crop": 0},
        {"steps": 0},
        {"attention_teaches": "all"},
        {"heads": 0},
        {f"{loss}_loss": 0.0 for loss in LOSSES},
        {"diversity": "x"},
        {"t_max": 1001},
        {"test_t": -1},
    ],
    ids=str,
)
def test_unknown_choices_are_refused(options):
    with pytest.raises(ValueError, match=f"enhanced-unet.*({'|'.join(options)}|losses)"):
        Options(**options)


def test_schedule_is_section_4():
    specs = []
    plugin.register_models(specs.append)
    spec = specs[0]
    assert (spec.name, spec.refines, spec.published.mse) == ("enhanced-unet", "siggraph17", 63.812)
    stages = spec.schedule(PRESET)
    assert [(s.name, s.epochs, s.images, s.settings["noise"], s.settings["attention"]) for s in stages] == [
        ("warm-up", 5, 10_000, False, False),
        ("refine", 15, 10_000, True, False),
        ("attention-warm-up", 5, 10_000, False, True),
        ("attention", 13, 10_000, True, True),
        ("more-images", 9, 24_000, True, True),
    ]
    fewer = spec.schedule(replace(PRESET, train=3000, epochs=6))
    assert [(s.epochs, s.images) for s in fewer] == [(1, 500), (3, 500), (1, 500), (3, 500), (2, 1200)]
    network = spec.build(width=0.125, base=Base(), attention="none")
    for stage in stages:
        assert stage.frozen == (() if stage.settings["attention"] else ("attention",))
        assert all(network.get_submodule(name) is not None for name in stage.frozen)


def test_published_widths():
    with torch.device("meta"):
        network = EnhancedUNet(1.0, Base(), Options(**NO_VGG))
    assert network.down1[0].weight.shape == (64, 3, 3, 3)
    assert network.bottleneck.enter[0].weight.shape == (512, 512, 3, 3)


def test_every_ablation_changes_what_its_name_says():
    specs = {}
    plugin.register_models(lambda spec: specs.update({spec.name: spec}))
    parent, literal = specs.pop("enhanced-unet"), specs.pop("enhanced-unet-literal")
    literally = {"diversity": "penalty", "prior": "literal", "attention_teaches": "trunk"}
    assert literal.options == replace(parent.options, **literally)
    others = {"enhanced-unet/unseen-images": "siggraph17/fewer-images", "enhanced-unet/from-mean-color": "mean-color"}
    for name, spec in specs.items():
        assert (spec.parent, spec.published) == (parent.name, None), name
        assert spec.refines == others.get(name, parent.refines), name
        differs = spec.options, spec.build, spec.refines, spec.schedule(PRESET)
        assert differs != (parent.options, parent.build, parent.refines, parent.schedule(PRESET)), name
    plain = specs["enhanced-unet/plain-residual-unet"].build(
        width=0.125, base=Base(), **specs["enhanced-unet/plain-residual-unet"].option_values
    )
    (update,) = plain.updates(Batch(*pictures()))
    assert list(update.losses) == ["residual"]
    assert plain.prior is plain.vgg is None


def test_the_control_is_the_base_that_learns_on():
    base = Base()
    longer = ablations.build_longer(width=0.125, size=32, base=base).train()
    assert (base.training, longer.longer.training) == (False, True)
    L, _ = pictures()
    assert torch.equal(longer.eval()(L), base(L))
    assert not any(p.requires_grad for p in longer.base.parameters())
    seen = [
        sum(s.epochs * len(s.images(1, 60_000) if callable(s.images) else range(s.images)) for s in stages)
        for stages in (schedule.section_4(PRESET), _longer().schedule(PRESET))
    ]
    assert seen == [596_000, 600_000]
    in_turn = schedule.in_turn(4)
    assert [in_turn(epoch, 9) for epoch in (1, 2, 3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 0, 1, 2]]
    assert in_turn(4, 3) == [0, 1, 2]
    with pytest.raises(ValueError, match="nothing to train longer"):
        ablations.build_longer(width=0.125, size=32, base=None)


def test_what_learns_from_unseen_images_sees_none_of_its_base():
    base, refiner = (
        MODELS[name].schedule(PRESET) for name in ("siggraph17/fewer-images", "enhanced-unet/unseen-images")
    )
    (taught,) = (set(stage.images(1, 10)) for stage in base)
    assert all(taught | {*stage.images(1, 10)} == {*range(10)} for stage in refiner)
    assert not any(taught & {*stage.images(1, 10)} for stage in refiner)


def _longer():
    specs = {}
    plugin.register_models(lambda spec: specs.update({spec.name: spec}))
    return specs["enhanced-unet/siggraph17-longer"]


# --- a model for warm images, and one for cool ones


def two_tones(tone="base"):
    torch.manual_seed(0)
    return TwoTones(0.125, Base(), ToneOptions(**NO_VGG, tone=tone))


def of_yellowness(*means):
    """L and ab (B, 2, 32, 32) whose b* has these means in Lab units."""
    L, ab = pictures(len(means))
    ab[:, 1] += torch.tensor(means)[:, None, None] - ab[:, 1].mean((1, 2))[:, None, None]
    return L, ab


def test_half_of_the_images_are_warm():
    network, (L, ab) = two_tones(), of_yellowness(-3.0, 20.0, 1.0, 8.0, -30.0, 2.0)
    network.measure(iter([Batch(L[:4], ab[:4]), Batch(L[4:], ab[4:])]))
    assert network.boundary.item() == pytest.approx(1, abs=1e-3)
    assert network._is_warm(ab).tolist() == [False, True, False, True, False, True]


def test_each_of_the_two_learns_from_the_images_of_its_tone_as_one_refiner_would():
    network, (L, ab) = two_tones().train(), of_yellowness(9.0, -9.0, 5.0, 7.0)
    own = {"warm": [0, 2, 3], "cool": [1]}
    for update in network.updates(Batch(L, ab, QUIET)):
        network.zero_grad()
        sum(update.losses.values()).backward()
        alone, chosen = getattr(two_tones(), update.player).train(), own.pop(update.player)
        (expected,) = alone.updates(Batch(L[chosen], ab[chosen], QUIET))
        assert update.losses.keys() == expected.losses.keys()
        (len(chosen) / 4 * sum(expected.losses.values())).backward()
        for (name, p), due in zip(network.named_parameters(), two_tones().named_parameters(), strict=True):
            assert name == due[0]
            assert name.startswith(update.player) or p.grad is None or not p.grad.any()
        for p, due in zip(getattr(network, update.player).parameters(), alone.parameters(), strict=True):
            assert (p.grad is None) == (due.grad is None)
            assert p.grad is None or torch.allclose(p.grad, due.grad, atol=1e-6)
    assert not own


def test_a_batch_of_one_tone_is_a_step_for_both_in_which_the_other_learns_nothing():
    network, (L, ab) = two_tones().train(), of_yellowness(9.0, 5.0)
    losses = {update.player: update.losses for update in network.updates(Batch(L, ab, QUIET))}
    assert all(loss == 0 and loss.requires_grad for loss in losses["cool"].values())
    assert losses["warm"]["residual"] > 0


@pytest.mark.parametrize("tone", ["warm", "cool", "base", "truth"])
def test_the_tone_chooses_the_model_of_an_image(tone):
    network, (L, _) = two_tones(tone).eval(), pictures()
    torch.nn.init.constant_(network.warm.residual.bias, 0.1)
    with torch.no_grad():
        base = network.warm.base(L)
        network.boundary.copy_(base[:, 1].mean((1, 2)).mean())
        warmer = base[:, 1].mean((1, 2)) > network.boundary
        boundary = network.boundary.item()
        colored = network(L, of_yellowness(boundary + 1, boundary - 1)[1]) if tone == "truth" else network(L)
    is_warm = (colored - base).abs().mean((1, 2, 3)) > 5
    assert warmer.tolist() != [True, False]  # else base and truth would not be told apart
    chosen = {"warm": [True, True], "cool": [False, False], "base": warmer.tolist(), "truth": [True, False]}
    assert is_warm.tolist() == chosen[tone]


def test_only_the_row_of_the_true_tone_sees_the_truth():
    specs = {}
    plugin.register_models(lambda spec: specs.update({spec.name: spec}))
    tones = {name: spec for name, spec in specs.items() if "tone" in spec.option_values}
    assert [name for name, spec in tones.items() if spec.sees_truth] == ["enhanced-unet/warm-cool-oracle"]
    assert all(spec.option_values["tone"] != "truth" or spec.sees_truth for spec in tones.values())
    assert {spec.trained_as for spec in tones.values()} == {None, "enhanced-unet/warm-cool"}
