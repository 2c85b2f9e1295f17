"""The training loop: its order, its players, its losses, and the schedules and updates that it refuses."""

import functools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from toys import STAGE, Players, Toy, accelerator, spec, toy_images, trained, trainer

from colorbench.contract import Batch, Stage, Update
from colorbench.data.cache import Images
from colorbench.data.loader import Loader, to_lab
from colorbench.harness.predict import colorize
from colorbench.harness.stepper import check_stages
from colorbench.harness.trainer import DivergedError, TrainingJob


@pytest.fixture
def images():
    return toy_images()


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


def loader(images, stage):
    return Loader(images, stage, 4, TrainingJob(Toy(), spec("toy"), 0, 4, images, images).seed_of, accelerator())


def test_a_stage_takes_the_images_that_its_function_chooses(images):
    chosen = loader(images, replace(STAGE, images=lambda epoch, count: range(count)[epoch : epoch + 4]))
    # Image 4 is near grey.
    assert [sorted(chosen.order(epoch)[0]) for epoch in (1, 2, 3)] == [[1, 2, 3, 5], [2, 3, 5, 6], [3, 5, 6, 7]]


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [
        (lambda epoch, count: [], "has no image to train on in epoch 1"),
        (lambda epoch, count: range(epoch), "images gives 1 to 3 by epoch; choose as many for every epoch"),
        (lambda epoch, count: [count], "images gives 9 to 9 in epoch 1; indices from 0 to 8 are due"),
        (lambda epoch, count: [-epoch], "images gives -1 to -1 in epoch 1"),
        (lambda epoch, count: [0.5], "images gives float64 (1,) in epoch 1"),
        (lambda epoch, count: [True], "images gives bool (1,)"),
        (lambda epoch, count: [[0]], "images gives int64 (1, 1)"),
    ],
)
def test_a_choice_of_images_that_cannot_be_trained_on_is_refused(images, chosen, reason):
    network = Toy()
    said = refusal(network, images, [STAGE, replace(STAGE, name="next", images=chosen)])
    assert said.startswith("stage 'next'")
    assert reason in said
    assert not network.seen


def test_a_choice_of_images_that_changes_when_it_is_asked_again_is_refused(images):
    lengths = iter([4, 4, 4, 5])
    chosen = loader(images, replace(STAGE, images=lambda epoch, count: range(next(lengths))))
    with pytest.raises(ValueError, match="images gives 5 in epoch 1, and gave 4; let it give the same each time"):
        chosen.order(1)


def test_an_epoch_holds_the_images_of_its_order_flipped_where_it_says(images):
    batches = loader(images, STAGE)
    order, flips = batches.order(2)
    assert 0 < flips.sum() < len(flips)
    L, _ = to_lab(images.pixels[order], torch.device("cpu"))
    L[flips] = L[flips].flip(3)
    loaded = [batch.L for _, batch in batches.epoch(2)]
    assert [len(part) for part in loaded] == [4, 4, 1] == [batches.size(step) for step in range(3)]
    torch.testing.assert_close(torch.cat(loaded), L, rtol=0, atol=0)
    ((step, last),) = batches.epoch(2, start=2)
    assert step == 2
    assert torch.equal(last.L, loaded[2])
    at = [(batch.step, batch.steps, batch.progress) for epoch in (1, 3) for _, batch in batches.epoch(epoch)]
    assert at == [(step, 9, step / 9) for step in (0, 1, 2, 6, 7, 8)]


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
    assert colorize(network, torch.full((1, 1, 16, 16), 50.0)).isfinite().all()
    last = losses[(losses.split == "val") & (losses.epoch == STAGE.epochs)].value.item()
    _, again = trained(images, [replace(STAGE, epochs=1, learning_rate=0.0)], kind=lambda: network)
    assert again[again.split == "val"].value.item() == pytest.approx(last, rel=1e-5)


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


def refusal(network, images, stages):
    """The one line with which a training is refused."""
    with pytest.raises(ValueError, match=r"\S") as caught:
        trainer(network, images).run(stages)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"epochs": 0}, "epochs is 0; a whole number from 1"),
        ({"epochs": -1}, "epochs is -1"),
        ({"epochs": 1.5}, "epochs is 1.5"),
        ({"epochs": True}, "epochs is True"),
        ({"images": 0}, "images is 0; a whole number from 1, a function, or None"),
        ({"warm_up": -1}, "warm_up is -1; a whole number of steps, or a share from 0 to below 1"),
        ({"warm_up": 1.0}, "warm_up is 1.0"),
        ({"warm_up": True}, "warm_up is True"),
        ({"warm_up": 10}, "warm_up is 10 steps, and the stage has 9; give fewer, or a share of the stage"),
        ({"optimizer": "adamv"}, "there is no optimizer 'adamv' (did you mean 'adam' or"),
        ({"optimizer": "zzz"}, "there is no optimizer 'zzz'; timm.optim.list_optimizers() gives all names"),
        ({"optimizer": None}, "optimizer is None; a name or a function"),
        ({"optimizer_options": 3}, "optimizer_options is 3; a mapping from names"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1"),
        ({"clip": float("nan")}, "clip is nan"),
        ({"rates": {"convolution": -1.0}}, "rates is {'convolution': -1.0}"),
        ({"rates": {"convolutoin": 1.0}}, "rates 'convolutoin': the network has no such submodule; there are: conv"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"average": 1.0}, "average is 1.0"),
        ({"decay": 0.5}, "decay is 0.5"),
        ({"decay": lambda progress: float("inf")}, "decay is"),
        ({"decay": lambda progress: 1 - 2 * progress}, "to finite numbers from 0 is due"),
        ({"decay": lambda progress: 1 / 0}, "decay fails (ZeroDivisionError: division by zero); a function"),
        ({"settings": None}, "settings is None; a mapping from names"),
        ({"frozen": None}, "frozen is None; a tuple of names"),
        ({"frozen": "convolution"}, "frozen is 'convolution'; a tuple of names"),
        (
            {"frozen": ("absent",), "rates": {"": 1.0, "drpo": 2.0}},
            "frozen 'absent'; stage 'next', rates 'drpo': the network has no such submodule; "
            "there are: convolution, drop",
        ),
    ],
)
def test_a_stage_that_cannot_be_trained_is_refused_before_a_step(images, changes, reason):
    network = Toy()
    said = refusal(network, images, [STAGE, replace(STAGE, name="next", **changes)])
    assert said.startswith("stage 'next'")
    assert reason in said
    assert not network.seen
    check_stages(network, [STAGE])


def test_two_stages_of_one_name_are_refused(images):
    assert "two stages have the name 'train'" in refusal(Toy(), images, [STAGE, STAGE])


def test_a_decay_needs_no_name(images):
    trained(images, [replace(STAGE, decay=functools.partial(pow, 0.5))])


@pytest.mark.parametrize(
    ("updates", "reason"),
    [
        (lambda self, batch: [Update({"l2": self(batch.L).mean()})], "updates returned list; it must be a generator"),
        (lambda self, batch: None, "updates returned NoneType"),
        (lambda self, batch: iter(()), "updates yielded nothing in stage 'train'"),
        (lambda self, batch: iter([None]), "updates yielded NoneType"),
        (lambda self, batch: iter([Update({})]), "an Update with one loss or more"),
        (lambda self, batch: iter([Update({"l2": 1.0})]), "loss 'l2' is float; a scalar tensor"),
        (lambda self, batch: iter([Update({"l2": self(batch.L)})]), "loss 'l2' is torch.float32 (4, 2, 16, 16)"),
        (lambda self, batch: iter([Update({"l2": torch.ones(())})]), "the losses l2 depend on no parameter"),
        (lambda self, batch: iter([Update({"l2": self(batch.L).mean()}, "a")]), "player 'a': the network has no such"),
        (lambda self, batch: iter([Update({"l2": self(batch.L).mean()}, "dropout")]), "player 'dropout' has no param"),
    ],
)
def test_updates_that_break_the_contract_are_refused(images, monkeypatch, updates, reason):
    monkeypatch.setattr(Toy, "updates", updates)
    assert reason in refusal(Toy(), images, [STAGE])


def test_a_player_that_is_frozen_is_refused(images):
    said = refusal(Toy(), images, [replace(STAGE, frozen=("convolution",))])
    assert said == "player '' has no parameter that learns in stage 'train'"


def test_what_a_plugin_sets_in_torch_changes_no_training(images):
    expected, _ = trained(images)
    torch.manual_seed(0)
    network = Toy()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            trainer(network, images).run([STAGE])
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(network.convolution.weight, expected.convolution.weight)
