"""Optimizers: the default is torch's Adam to the bit, the others do what the stage says, and all can be taken up."""

import copy
import io

import pytest
import torch
from torch import nn
from toys import Toy, accelerator, toy_images, trainer

from colorbench.contract import Batch, Stage
from colorbench.harness.checkpoint import Checkpoint
from colorbench.harness.optimizers import learning_rate, make_optimizer
from colorbench.harness.stepper import Stepper


@pytest.fixture
def images():
    return toy_images()


def batch(count=4):
    return Batch(100 * torch.rand(count, 1, 16, 16), torch.randn(count, 2, 16, 16) * 30)


class Nested(Toy):
    """The toy with a submodule in a submodule."""

    def __init__(self):
        super().__init__()
        self.outer = nn.ModuleDict({"first": nn.Conv2d(2, 2, 1), "second": nn.Conv2d(2, 2, 1)})

    def forward(self, L):
        return self.outer["second"](self.outer["first"](super().forward(L)))


def steps(network, stage, count=1, rate=0.01):
    """The network after so many steps, each with the same batch and random numbers."""
    stepper, given = Stepper(network, stage, accelerator()), batch()
    for _ in range(count):
        torch.manual_seed(1)
        list(stepper.step(given, rate, len(given.L)))
    return network


def moved(before, after):
    """How far each parameter went."""
    return {name: (p - dict(before.named_parameters())[name]).norm().item() for name, p in after.named_parameters()}


def test_steps_of_the_default_stage_are_those_of_torch_s_adam_to_the_bit():
    network, twin = Toy(), Toy()
    twin.load_state_dict(network.state_dict())
    optimizer, given, device = torch.optim.Adam(twin.parameters(), lr=0.01, fused=True), batch(), accelerator()
    stepper = Stepper(network, Stage("train"), device)
    for _ in range(3):
        torch.manual_seed(1)
        list(stepper.step(given, 0.01, 4))
        torch.manual_seed(1)
        optimizer.zero_grad()
        with device.autocast():
            (update,) = twin.updates(given)
        sum(update.losses.values()).backward()
        optimizer.step()
        assert all(torch.equal(a, b) for a, b in zip(network.parameters(), twin.parameters(), strict=True))


def test_the_default_needs_no_timm_and_is_what_timm_makes():
    from timm.optim import create_optimizer_v2

    ours = make_optimizer(Toy(), "", Stage("train"))
    theirs = create_optimizer_v2(Toy(), "adam", lr=1e-4, fused=True)
    assert type(ours) is type(theirs) is torch.optim.Adam
    assert ours.defaults == theirs.defaults


def test_weight_decay_is_decoupled_in_adamw_alone():
    """Adam divides by the size of the gradient, the decay's included: what has none else moves by the learning rate."""

    class Still(Toy):
        def forward(self, L):
            return super().forward(L) * 0

    torch.manual_seed(0)
    start = Still()
    for name, factor in (("adamw", 1 - 0.01 * 0.5), ("adam", None)):
        network = steps(copy.deepcopy(start), Stage("train", optimizer=name, weight_decay=0.5))
        for old, new in zip(start.parameters(), network.parameters(), strict=True):
            expected = old * factor if factor else old - 0.01 * old.sign()
            torch.testing.assert_close(new, expected, rtol=0, atol=1e-6)


def test_submodules_have_rates_of_their_own_and_the_innermost_name_counts():
    torch.manual_seed(0)
    start = Nested()
    rates = {"outer": 0.5, "outer.second": 0.0}
    # Sign descent moves every weight by the rate alone.
    network = steps(copy.deepcopy(start), Stage("train", optimizer="lion", rates=rates))
    for name, parameter in network.named_parameters():
        scale = next((scale for module, scale in reversed(rates.items()) if name.startswith(module)), 1.0)
        change = (parameter - dict(start.named_parameters())[name]).abs()
        torch.testing.assert_close(change, torch.full_like(change, 0.01 * scale), rtol=1e-3, atol=1e-7)


def test_an_update_s_gradient_is_clipped_as_a_whole():
    torch.manual_seed(0)
    start, options = Nested(), {"momentum": 0.0, "nesterov": False}
    for clip in (0.0, 1e-3):
        stage = Stage("train", optimizer="sgd", optimizer_options=options, clip=clip)
        length = torch.tensor([*moved(start, steps(copy.deepcopy(start), stage)).values()]).norm().item()
        assert length == pytest.approx(0.01 * 1e-3, rel=1e-3) if clip else length > 1e-3


@pytest.mark.parametrize("warm_up", [4, 0.4])
def test_the_rate_rises_over_the_first_steps_under_the_decay(warm_up):
    stage = Stage("train", learning_rate=0.1, warm_up=warm_up, decay=lambda progress: 1 - progress)
    rates = [learning_rate(stage, step, 10) for step in range(10)]
    assert rates == pytest.approx([0.1 * min(1, (i + 1) / 4) * (1 - i / 10) for i in range(10)])


def test_a_stage_without_warm_up_has_the_rates_that_its_decay_gives():
    stage = Stage("train", learning_rate=3e-4)
    assert [learning_rate(stage, i, 7) for i in range(7)] == [3e-4 * stage.decay(i / 7) for i in range(7)]


def own_groups(groups, lr, momentum=0.0):
    """A plugin's own: biases at a tenth of the rate."""
    parameters = [p for group in groups for p in group["params"]]
    weights, biases = ([p for p in parameters if (p.ndim > 1) == wide] for wide in (True, False))
    return torch.optim.SGD([{"params": weights}, {"params": biases, "lr": lr / 10}], lr=lr, momentum=momentum)


OPTIMIZERS = {
    "adam": Stage("train", 3, 0.05),
    "warm-up": Stage("train", 3, 0.05, warm_up=5),
    "adamw": Stage("train", 3, 0.05, optimizer="adamw", weight_decay=0.1, warm_up=0.5),
    "sgd": Stage("train", 3, 0.05, optimizer="sgd", optimizer_options={"momentum": 0.9}, clip=0.1),
    "lamb": Stage("train", 3, 0.05, optimizer="lamb", rates={"convolution": 0.5}),
    "lion": Stage("train", 3, 0.01, optimizer="lion"),
    "function": Stage("train", 3, 0.01, optimizer=own_groups, optimizer_options={"momentum": 0.9}),
}


def stopped(images, stage, file, after=None):
    """The toy trained by the stage, killed after so many steps, its state just saved."""
    torch.manual_seed(0)
    network, checkpoint = Toy(), Checkpoint(file, "same", torch.device("cpu"))
    checkpoint.is_due = lambda: len(network.seen) == after
    updates = network.updates

    def counted(given):
        if network.training and len(network.seen) == after:
            raise KeyboardInterrupt
        return updates(given)

    network.updates = counted
    losses = trainer(network, images, checkpoint=checkpoint).run([stage])
    return network, losses


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_training_taken_up_in_mid_epoch_ends_the_same_to_the_bit_with_every_optimizer(images, tmp_path, name):
    stage, file = OPTIMIZERS[name], tmp_path / "training.pt"
    expected, losses = stopped(images, stage, tmp_path / "other.pt")
    with pytest.raises(KeyboardInterrupt):
        stopped(images, stage, file, after=4)  # of nine, three to an epoch
    network, resumed = stopped(images, stage, file)
    assert len(network.seen) == 5
    assert resumed.equals(losses)
    assert torch.equal(network.convolution.weight, expected.convolution.weight)
    assert torch.equal(network.convolution.bias, expected.convolution.bias)


def test_the_groups_of_a_function_keep_their_own_rates():
    start = Toy()
    optimizer = make_optimizer(start, "", Stage("train", learning_rate=0.02, optimizer=own_groups))
    assert [group["lr_scale"] for group in optimizer.param_groups] == [1.0, pytest.approx(0.1)]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"optimizer_options": {"beta": 1}}, "TypeError: Adam.__init__() got an unexpected keyword argument 'beta'"),
        ({"optimizer": "adamw", "optimizer_options": {"betas": 3}}, "its optimizer cannot be made (TypeError"),
        ({"optimizer": lambda groups, lr: None}, "NoneType is not a torch.optim.Optimizer"),
        ({"optimizer": lambda groups, lr: torch.optim.SGD(groups[0]["params"][:1], lr)}, "leaves out 1 of the 2"),
        ({"optimizer": lambda groups, lr: torch.optim.SGD([torch.ones(1)], lr)}, "leaves out 2 of the 2 parameters"),
        ({"optimizer": own_groups, "weight_decay": 0.1}, "unexpected keyword argument 'weight_decay'"),
    ],
)
def test_an_optimizer_that_cannot_be_made_is_said_in_one_line(changes, reason):
    with pytest.raises(ValueError, match=r"^stage 'train': its optimizer cannot be made") as caught:
        make_optimizer(Toy(), "", Stage("train", **changes))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def damage_state(saved):
    saved["state"][0] = {key: torch.zeros(3) for key in saved["state"][0]}


def damage_number(saved):
    saved["state"][9] = saved["state"][0]


def damage_group(saved):
    del saved["param_groups"][0]["lr_scale"]


def damage_groups(saved):
    saved["param_groups"] *= 2


@pytest.mark.parametrize("damage", [damage_state, damage_number, damage_group, damage_groups, dict.clear])
@pytest.mark.parametrize("name", ["adam", "sgd", "lamb", "lion"])
def test_a_state_of_another_optimizer_is_refused_before_a_step(name, damage):
    stepper = Stepper(network := Toy(), OPTIMIZERS[name], accelerator())
    list(stepper.step(batch(), 0.01, 4))
    torch.save(stepper.state(), buffer := io.BytesIO())
    saved = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    damage(saved[""])
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(ValueError, match="optimizer of player '' has other parameters"):
        Stepper(network, OPTIMIZERS[name], accelerator()).load(saved)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
