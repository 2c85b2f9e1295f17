"""The training loop, the order of a run, and what a failing model does to it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from colorbench.contract import Batch, ModelSpec, Stage, Update
from colorbench.data.cache import Images
from colorbench.errors import UserError
from colorbench.harness.device import accelerator
from colorbench.harness.load import build, count_parameters, fill, load_model, trained_state
from colorbench.harness.predict import colorize, score_all
from colorbench.harness.run import with_needed
from colorbench.harness.seeds import seed_for
from colorbench.harness.train import DivergedError, Trainer

STAGE = Stage("train", epochs=3, learning_rate=0.05)


class Toy(nn.Module):
    """ab = a 1x1 convolution of L, with dropout to make use of randomness."""

    def __init__(self, width=1.0, size=16, base=None):
        super().__init__()
        self.convolution = nn.Conv2d(1, 2, 1)
        self.dropout = nn.Dropout(0.1)
        self.base = base
        self.seen = []

    def forward(self, L):
        return self.dropout(100 * self.convolution(L / 100)).float() + (0 if self.base is None else self.base(L))

    def updates(self, batch):
        if self.training:
            self.seen.append((batch.L.mean().item(), dict(batch.settings)))
        yield Update({"l2": (self(batch.L) - batch.ab).square().mean() / 1000})


class Players(Toy):
    """Two players, of which each must leave the other alone."""

    def __init__(self, **_):
        super().__init__()
        self.critic = nn.Conv2d(2, 1, 1)
        self.trace = []

    def updates(self, batch):
        ab, before = self(batch.L), self.snapshot()
        yield Update({"judge": self.critic(ab.detach() / 100).square().mean()}, player="critic")
        self.trace.append(("critic", self.changed(before)))
        before = self.snapshot()
        yield Update({"fool": self.critic(ab / 100).mean(), "l2": ab.square().mean()}, player="convolution")
        self.trace.append(("convolution", self.changed(before)))

    def snapshot(self):
        return {name: p.detach().clone() for name, p in self.named_parameters()}

    def changed(self, before):
        return {name.split(".")[0] for name, p in self.named_parameters() if not torch.equal(p, before[name])}


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (10, 16, 16, 3), np.uint8)
    names = [str(i) for i in range(10)]
    return Images(pixels, names, names, np.arange(10) == 4, {})


def trainer(network, images, seed=0, name="toy"):
    return Trainer(network, images, images, accelerator(), spec(name), seed, batch_size=4)


def trained(images, stages=(STAGE,), seed=0, kind=Toy):
    torch.manual_seed(0)
    network = kind()
    return network, trainer(network, images, seed).run(stages)


def test_losses_are_tidy_and_fall(images):
    _, losses = trained(images)
    assert list(losses.columns) == ["stage", "epoch", "component", "split", "value"]
    assert len(losses) == 3 * 2
    train = losses[losses.split == "train"].value.to_numpy()
    assert train[-1] < train[0]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(images):
    (first, _), (second, _), (third, _) = (trained(images, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.convolution.weight, second.convolution.weight)
    assert not torch.equal(first.convolution.weight, third.convolution.weight)


def test_randomness_does_not_depend_on_what_ran_before(images):
    first, _ = trained(images)
    torch.manual_seed(0)
    network = Toy()
    torch.rand(1000)
    trainer(network, images).run((STAGE,))
    assert torch.equal(first.convolution.weight, network.convolution.weight)


def test_near_grey_images_do_not_train(images):
    alone = Images(images.pixels, images.names, images.digests, np.arange(10) != 4, {})
    network = Toy()
    run = trainer(network, alone)
    run.run((STAGE,))
    assert run.images_seen == 3
    assert len({round(mean, 3) for mean, _ in network.seen}) == 1


def test_a_training_set_without_color_is_refused(images):
    grey = Images(images.pixels, images.names, images.digests, np.ones(10, bool), {})
    with pytest.raises(ValueError, match="all 10 training images are near grey"):
        trainer(Toy(), grey).run((STAGE,))


def test_a_stage_takes_its_first_images_settings_and_learning_rate(images):
    network = Toy()
    run = trainer(network, images)
    run.run([Stage("a", 1, images=4, settings={"noise": False}), Stage("b", 2, settings={"noise": True})])
    assert run.images_seen == 4 + 2 * 9
    assert [settings for _, settings in network.seen] == [{"noise": False}] + [{"noise": True}] * 6


def test_frozen_submodules_rest_in_their_stage_only(images):
    network = Toy()
    before = network.convolution.weight.detach().clone()
    network.extra = nn.Conv2d(1, 2, 1)
    network.forward = lambda L: network.convolution(L / 100) + network.extra(L / 100)
    trainer(network, images).run([Stage("a", 1, frozen=("convolution",))])
    assert torch.equal(network.convolution.weight, before)
    trainer(network, images).run([Stage("b", 1)])
    assert not torch.equal(network.convolution.weight, before)


def test_each_player_steps_alone(images):
    network, losses = trained(images, kind=Players)
    assert set(losses.component) == {"critic/judge", "convolution/fool", "convolution/l2"}
    for player, changed in network.trace:
        assert changed in ({player}, set()), "in validation nothing may change"
    assert ("critic", {"critic"}) in network.trace


def test_a_player_s_gradient_is_its_own_losses_only(images):
    """The other player's update reaches through both; what it left behind must not be stepped on."""

    class Leaky(Players):
        def updates(self, batch):
            ab = self(batch.L)
            yield Update({"both": 100 * self.critic(ab).mean()}, player="convolution")
            yield Update({"none": 0 * self.critic(ab.detach()).mean()}, player="critic")

    torch.manual_seed(0)
    network = Leaky()
    before = network.critic.weight.detach().clone()
    trainer(network, images).run([Stage("a", 1)])
    assert torch.equal(network.critic.weight, before)


def test_a_loss_that_is_not_finite_stops_with_its_name(images):
    class Exploding(Toy):
        def updates(self, batch):
            yield Update({"l2": self.convolution.weight.sum() * float("nan")})

    with pytest.raises(DivergedError, match=r"loss 'l2' is nan in stage 'train', epoch 1"):
        trainer(Exploding(), images).run((STAGE,))


def test_a_terminal_less_run_prints_a_line_per_epoch(images, capsys):
    trained(images)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(part in lines[0] for part in ("toy", "train 1/3", "loss", "img/s", "s left"))


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (lambda L: torch.zeros(1, 3, 16, 16), r"float32 \(B, 2, H, W\) is due"),
        (lambda L: torch.zeros(1, 2, 16, 16, dtype=torch.float64), "float64"),
        (lambda L: torch.full((1, 2, 16, 16), float("nan")), "not finite"),
    ],
)
def test_a_network_that_breaks_the_contract_is_refused(output, reason):
    network = Toy()
    network.forward = output
    with pytest.raises(ValueError, match=reason):
        colorize(network, torch.zeros(1, 1, 16, 16))


def test_scores_have_a_row_for_every_image_in_order(images):
    scored = score_all(Toy(), images, torch.device("cpu"), (), keep=3, worst=2)
    assert scored.scores.image.tolist() == scored.details.image.tolist() == images.names
    assert scored.samples["predicted"].shape == (3, 16, 16, 3)
    assert "attention" not in scored.samples
    assert not any("lips" in column for column in scored.details)


def test_the_worst_images_are_kept_the_worst_first(images):
    many = Images(np.tile(images.pixels, (2, 1, 1, 1)), [str(i) for i in range(20)], images.digests * 2, None, {})
    many.pixels[17] = (0, 0, 255)  # in the second batch
    grey = Toy()
    for parameter in grey.parameters():
        nn.init.zeros_(parameter)
    scored = score_all(grey, many, torch.device("cpu"), (), keep=3, worst=4)
    samples, mse = scored.samples, scored.scores.mse
    assert samples["worst_name"][0] == "17"
    assert (samples["worst_truth"][0] == many.pixels[17]).all()
    assert samples["worst_mse"].tolist() == mse.sort_values(ascending=False)[:4].tolist()
    error = (samples["worst"][0].astype(float) - samples["worst_truth"][0]) ** 2
    assert error.mean() == pytest.approx(samples["worst_mse"][0])


def test_masks_reach_the_details(images):
    parts = np.zeros((10, 16, 16), np.uint8)
    parts[:, :4] = 1
    masked = Images(images.pixels, images.names, images.digests, images.near_grey, {}, parts, ("skin", "lips"))
    details = score_all(Toy(), masked, torch.device("cpu"), (), keep=3, worst=1).details
    assert details["share_lips"].tolist() == [0.25] * 10


def test_an_attention_map_is_kept_and_one_that_breaks_the_contract_is_refused(images):
    network = Toy()
    network.with_attention = lambda L: (network(L), L[:, :, ::4, ::4] / 100)
    samples = score_all(network, images, torch.device("cpu"), (), keep=3, worst=1).samples
    assert samples["attention"].shape == (3, 4, 4)
    assert 50 < samples["attention"].mean() < 200
    network.with_attention = lambda L: (network(L), L)
    with pytest.raises(ValueError, match="with_attention returned a map"):
        score_all(network, images, torch.device("cpu"), (), keep=3, worst=1)


def test_a_rolling_stage_takes_all_images_in_turn(images):
    stage = replace(STAGE, images=4, rolling=True, epochs=3)
    run, asked = trainer(Toy(), images), []
    batch = run._batch
    run._batch = lambda images, indices, *rest: asked.append(indices) or batch(images, indices, *rest)
    run.run([stage])
    # A step of training, three of validation; image 4 is near grey.
    assert [sorted(indices) for indices in asked[::4]] == [[0, 1, 2, 3], [5, 6, 7, 8], [0, 1, 2, 9]]


def test_a_stage_keeps_to_its_part_of_the_images(images):
    asked = []
    for part in ((0, 0.6), (0.6, 1)):
        run = trainer(Toy(), images)
        batch = run._batch
        run._batch = lambda images, indices, *rest, batch=batch: asked.append(indices) or batch(images, indices, *rest)
        run.run([replace(STAGE, part=part, epochs=1, images=4)])
        del asked[-3:]  # of the validation
    assert [sorted(indices) for indices in asked] == [[0, 1, 2, 3], [6, 7, 8, 9]]  # image 4 is near grey
    with pytest.raises(ValueError, match="stage 'train' has no image"):
        trainer(Toy(), images).run([replace(STAGE, part=(0.6, 0.6))])


def test_averaged_weights_replace_the_last_ones_and_are_those_that_validate(images):
    visited = []

    class Watching(Toy):
        def updates(self, batch):
            if self.training:
                visited.append(self.convolution.weight.detach().clone())
            yield from super().updates(batch)

    plain, _ = trained(images)
    network, losses = trained(images, [replace(STAGE, average=0.999)], kind=Watching)
    weights = torch.stack(visited)
    assert not torch.equal(network.convolution.weight, plain.convolution.weight)
    assert ((weights.amin(0) < network.convolution.weight) & (network.convolution.weight < weights.amax(0))).all()
    scored = score_all(network, images, torch.device("cpu"), (), keep=1, worst=1)
    assert np.isfinite(scored.scores.mse).all()
    last = losses[(losses.split == "val") & (losses.epoch == STAGE.epochs)].value.item()
    _, again = trained(images, [replace(STAGE, epochs=1, learning_rate=0.0)], kind=lambda: network)
    assert again[again.split == "val"].value.item() == pytest.approx(last, rel=1e-5)


def spec(name, refines=None, trained_as=None):
    return ModelSpec(name, "", lambda **_: Toy(**_), lambda preset: (STAGE,), refines=refines, trained_as=trained_as)


def test_what_others_need_comes_first_and_once(registry):
    registry.specs["model"] |= (
        known := {s.name: s for s in (spec("c", "b", "d"), spec("b", "a"), spec("a"), spec("d", "a"))}
    )
    try:
        assert [s.name for s in with_needed([known["c"], known["d"]], registry)] == ["a", "b", "d", "c"]
        known["a"] = registry.specs["model"]["a"] = spec("a", "c")
        with pytest.raises(UserError, match="refines itself"):
            with_needed([known["c"]], registry)
    finally:
        for name in "abcd":
            del registry.specs["model"][name]


def test_a_refiner_saves_only_what_it_trained():
    base = build(spec("a"), 1.0, 16)
    refiner = build(spec("b", "a"), 1.0, 16, base)
    assert trained_state(refiner, base).keys() == {"convolution.weight", "convolution.bias"}
    assert not any(p.requires_grad for p in base.parameters())


def test_a_variant_starts_from_its_parent_s_weights():
    parent = spec("a")
    variant = parent.variant("changed")
    assert variant.name == "a/changed"
    assert torch.equal(build(parent, 1.0, 16).convolution.weight, build(variant, 1.0, 16).convolution.weight)


def test_parameters_are_those_that_color():
    network = Players()
    assert count_parameters(network, torch.zeros(1, 1, 16, 16)) == 4


def test_weights_are_checked_by_key_and_shape_and_never_executed(tmp_path):
    network, file = Toy(), tmp_path / "w.pth"

    def attempt(content):
        torch.save(content, file)
        fill(network, file)

    state = network.state_dict()
    attempt(state)
    with pytest.raises(UserError, match=r"lacks convolution\.bias"):
        attempt({"convolution.weight": state["convolution.weight"]})
    with pytest.raises(UserError, match="no surplus"):
        attempt(state | {"surplus": torch.zeros(1)})
    with pytest.raises(UserError, match=r"convolution\.bias is \(3,\), not \(2,\)"):
        attempt(state | {"convolution.bias": torch.zeros(3)})
    with pytest.raises(UserError, match="no state dict"):
        attempt([1, 2])
    with pytest.raises(UserError, match="holds more than tensors"):
        attempt(Trap(tmp_path / "executed"))
    assert not (tmp_path / "executed").exists()
    torch.save(state, file)
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(UserError, match="truncated"):
        fill(network, file)
    with pytest.raises(UserError, match="No such file"):
        fill(network, tmp_path / "absent.pth")


class Trap:
    """Pickles to a call that would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("given", [{}, {"weights": "a.pth", "run": "b"}])
def test_load_model_wants_either_weights_or_a_run(registry, given):
    with pytest.raises(UserError, match="either weights=FILE or run=FOLDER"):
        load_model(next(iter(registry.specs["model"])), registry=registry, **given)


def test_seeds_depend_on_what_they_are_for():
    assert seed_for(0, "order", "a") == seed_for(0, "order", "a")
    assert len({seed_for(0, "order", "a"), seed_for(1, "order", "a"), seed_for(0, "init", "a")}) == 3
    assert all(0 <= seed_for(i) < 2**63 for i in range(100))


def test_batches_say_what_they_are(images):
    seen = []

    class Watching(Toy):
        def updates(self, batch):
            seen.append(batch)
            return super().updates(batch)

    trained(images, kind=Watching)
    assert isinstance(seen[0], Batch)
    assert seen[0].L.shape == (4, 1, 16, 16)
    assert 0 <= seen[0].L.min() <= seen[0].L.max() <= 100
    assert seen[0].ab.shape == (4, 2, 16, 16)
    assert json.dumps(dict(seen[0].settings)) == "{}"
