"""Networks as they are built, saved and loaded; the seeds of their first weights."""

import os
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from toys import Players, Toy, spec

from colorbench.errors import UserError
from colorbench.harness.networks import (
    build,
    build_published,
    count_parameters,
    load_published,
    notes_of,
    packed_weights,
    trained_state,
)  # fmt: skip
from colorbench.seeds import seed_for


def test_a_refiner_saves_only_what_it_trained():
    base = build(spec("a"), 1.0, 16)
    refiner = build(spec("b", "a"), 1.0, 16, base)
    assert trained_state(refiner, base).keys() == {"convolution.weight", "convolution.bias"}
    assert not any(p.requires_grad for p in base.parameters())
    refiner.again = base
    assert trained_state(refiner, base).keys() == {"convolution.weight", "convolution.bias"}


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
        load_published(network, spec("a"), file)

    state = network.state_dict()
    attempt(state)
    with pytest.raises(UserError, match=r"lacks convolution\.bias"):
        attempt({"convolution.weight": state["convolution.weight"]})
    with pytest.raises(UserError, match="no surplus"):
        attempt(state | {"surplus": torch.zeros(1)})
    with pytest.raises(UserError, match=r"no two lines\\x1b; "):  # one of the message
        attempt(state | {"two\nlines\x1b": torch.zeros(1)})
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
        load_published(network, spec("a"), file)
    with pytest.raises(UserError, match="no such file"):
        load_published(network, spec("a"), tmp_path / "absent.pth")


class Trap:
    """Pickles to a call that would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_seeds_depend_on_what_they_are_for():
    assert seed_for(0, "order", "a") == seed_for(0, "order", "a")
    assert len({seed_for(0, "order", "a"), seed_for(1, "order", "a"), seed_for(0, "init", "a")}) == 3
    assert all(0 <= seed_for(i) < 2**63 for i in range(100))


def state_of(network, **changes):
    return network.state_dict() | {f"convolution.{key}": value for key, value in changes.items()}


def test_saved_weights_are_safetensors_and_load_again_whatever_the_suffix(tmp_path):
    network, other, file = Toy(), Toy(), tmp_path / "weights.pt"
    file.write_bytes(packed_weights(network.state_dict() | {"convolution.bias": network.convolution.bias.expand(2)}))
    assert safetensors.torch.load_file(file).keys() == network.state_dict().keys()
    load_published(other, spec("a"), file)
    assert torch.equal(other.convolution.weight, network.convolution.weight)
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(UserError, match="truncated"):
        load_published(other, spec("a"), file)


def test_tensors_that_share_memory_are_saved_each(tmp_path):
    shared = torch.arange(4.0)
    (tmp_path / "w.safetensors").write_bytes(packed_weights({"first": shared, "second": shared, "part": shared[1:3]}))
    assert safetensors.torch.load_file(tmp_path / "w.safetensors")["part"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("bias", "reason"),
    [
        (torch.zeros(2).to_sparse(), "not a dense tensor"),
        (torch.zeros(2, dtype=torch.complex64), "complex"),
        (torch.zeros(2, device="meta"), "without values"),
        (torch.zeros(2, dtype=torch.int64), r"torch\.int64, not torch\.float32"),
        (torch.full((2,), float("nan")), "not finite"),
        (torch.full((2,), float("inf")), "not finite"),
        (torch.full((2,), 1e300, dtype=torch.float64), "not finite"),
    ],
)
def test_weights_that_are_no_plain_numbers_are_refused_in_one_line(tmp_path, bias, reason):
    torch.save(state_of(Toy(), bias=bias), tmp_path / "w.pth")
    network = Toy()
    before = network.convolution.weight.clone()
    with pytest.raises(UserError, match=reason) as caught:
        load_published(network, spec("a"), tmp_path / "w.pth")
    assert "convolution.bias" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert torch.equal(network.convolution.weight, before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floats_are_converted(tmp_path, dtype):
    network = Toy()
    torch.save(state_of(network, bias=torch.tensor([0.5, 2.0], dtype=dtype)), tmp_path / "w.pth")
    load_published(network, spec("a"), tmp_path / "w.pth")
    assert network.convolution.bias.tolist() == [0.5, 2.0]
    assert network.convolution.bias.dtype == torch.float32


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path):
    with pytest.raises(UserError, match=r"cannot read the weights .*: it is a folder; name a file"):
        load_published(Toy(), spec("a"), tmp_path)
    with pytest.raises(UserError, match=r"cannot read the weights .*: there is no such file; name a file"):
        load_published(Toy(), spec("a"), tmp_path / "absent.pth")
    with (tmp_path / "huge.pth").open("wb") as sparse:
        sparse.truncate(1 << 43)
    with pytest.raises(UserError, match=r"huge.pth has 8,796,093,022,208 bytes, more than there is free memory"):
        load_published(Toy(), spec("a"), tmp_path / "huge.pth")
    if os.geteuid():  # whoever is root may read everything
        (tmp_path / "w.pth").touch(0)
        with pytest.raises(UserError, match=r"cannot read the weights .*Permission denied"):
            load_published(Toy(), spec("a"), tmp_path / "w.pth")


def test_a_buffer_may_have_infinities_but_no_nan(tmp_path):
    network = Toy()
    network.register_buffer("mask", torch.zeros(2))
    torch.save(network.state_dict() | {"mask": torch.tensor([0, -torch.inf])}, tmp_path / "w.pth")
    load_published(network, spec("a"), tmp_path / "w.pth")
    assert network.mask.tolist() == [0, -torch.inf]
    torch.save(network.state_dict() | {"mask": torch.tensor([0, torch.nan])}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"values that are not finite in mask; give weights without them"):
        load_published(network, spec("a"), tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("value", "said"), [(torch.inf, "not finite in norm.running_var"), (-1.0, "variances below 0")]
)
def test_statistics_that_cannot_be_are_refused(tmp_path, value, said):
    network = Toy()
    network.norm = torch.nn.BatchNorm2d(1)
    torch.save(network.state_dict() | {"norm.running_var": torch.tensor([value])}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=said):
        load_published(network, spec("a"), tmp_path / "w.pth")


def test_a_file_whose_own_checksum_differs_is_refused(tmp_path):
    torch.save(Toy().state_dict(), file := tmp_path / "w.pth")
    with zipfile.ZipFile(file) as archive:
        member = next(each for each in archive.infolist() if "/data/" in each.filename)
        stored = archive.read(member)
    file.write_bytes(file.read_bytes().replace(stored, bytes(byte ^ 1 for byte in stored)))
    with pytest.raises(UserError, match=r"w\.pth is truncated or damaged"):
        load_published(Toy(), spec("a"), file)


def test_a_file_that_would_unfold_is_not_read(tmp_path):
    torch.save(Toy().state_dict(), tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth") as plain, zipfile.ZipFile(tmp_path / "bomb.pth", "w") as bomb:
        for member in plain.infolist():
            bomb.writestr(member.filename, plain.read(member), zipfile.ZIP_DEFLATED)
    load_published(Toy(), spec("a"), tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"bomb\.pth is truncated or damaged, or holds more than tensors"):
        load_published(Toy(), spec("a"), tmp_path / "bomb.pth")


class Odd(Toy):
    def __init__(self, **_):
        super().__init__()
        self.register_buffer("odd", torch.zeros(2, dtype=torch.complex64))


@pytest.mark.parametrize(
    ("make", "reason"), [(lambda **_: 3, "returned int"), (Odd, "cannot be saved: odd is complex")]
)
def test_a_plugin_that_builds_no_network_that_can_be_saved_is_refused(make, reason):
    with pytest.raises(ValueError, match=reason):
        build(replace(spec("a"), build=make), 1.0, 16)


def test_notes_are_text():
    network = Toy()
    assert notes_of(network) == ()
    network.notes = "One sentence."
    assert notes_of(network) == ("One sentence.",)
    network.notes = ["One.", "Two."]
    assert notes_of(network) == ("One.", "Two.")
    for wrong in (3, None, ["One.", 2], {"a": 1}):
        network.notes = wrong
        with pytest.raises(ValueError, match="not a sequence of text"):
            notes_of(network)


WRAPPED = {
    "params": lambda state: {"params": state},
    "params_ema": lambda state: {"params_ema": state, "step": 3},
    "state_dict": lambda state: {
        "epoch": 3,
        "state_dict": state,
        "optimizer": {"state": {}, "param_groups": [{"lr": 1}]},
    },
    "model": lambda state: {"model": {"state_dict": state}, "model_state": 1},
    "module": lambda state: {f"module.{name}": value for name, value in state.items()},
    "all": lambda state: {"model": {"params": {f"module.{name}": value for name, value in state.items()}}},
}


@pytest.mark.parametrize("how", WRAPPED)
def test_a_checkpoint_of_others_is_unwrapped(tmp_path, how):
    network, other = Toy(), Toy()
    torch.save(WRAPPED[how](other.state_dict()), tmp_path / "w.pth")
    load_published(network, spec("a"), tmp_path / "w.pth")
    assert torch.equal(network.convolution.weight, other.convolution.weight)


def endless():
    state = {}
    state["model"] = state
    return state


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"params": {}, "params_ema": {}, "step": 1}, "holds several states, params and params_ema; save the one"),
        ({"network": {"a": torch.zeros(1)}}, "no state dict"),
        ({"model": {"state_dict": 3}}, "no state dict"),
        ({3: torch.zeros(1)}, "no state dict"),
        (endless(), "no state dict"),
        (
            {"x.weight": torch.zeros(1)},
            r"lacks convolution\.weight, convolution\.bias, and the model has no x\.weight; give w",
        ),
    ],
)
def test_a_checkpoint_that_holds_no_weights_of_the_model_is_refused(tmp_path, content, reason):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError, match=reason):
        load_published(Toy(), spec("a"), tmp_path / "w.pth")


def renamed(state):
    return {f"convolution.{name.removeprefix('c/')}": value * 2 for name, value in state.items()}


def test_foreign_names_are_mapped_and_own_ones_left(tmp_path):
    network, other, file = Toy(), Toy(), tmp_path / "w"
    foreign = {f"module.c/{name}": value for name, value in other.convolution.state_dict().items()}
    for content in (
        packed_weights(foreign),
        packed_weights({"c/weight": foreign["module.c/weight"], "c/bias": torch.ones(2)}),
    ):
        file.write_bytes(content)
        load_published(network, replace(spec("a"), convert=renamed), file)
        assert torch.equal(network.convolution.weight, 2 * other.convolution.weight)
    file.write_bytes(packed_weights(other.state_dict()))
    load_published(network, replace(spec("a"), convert=renamed), file)
    assert torch.equal(network.convolution.weight, other.convolution.weight)


def test_a_published_file_may_lack_what_only_trains(tmp_path):
    network, other, file = Players(), Players(), tmp_path / "w.safetensors"
    file.write_bytes(packed_weights(other.convolution.state_dict(prefix="convolution.")))
    with pytest.raises(UserError, match="it lacks critic"):
        load_published(network, spec("a"), file)
    network.unpublished, before = ("critic",), network.critic.weight.clone()
    load_published(network, spec("a"), file)
    assert torch.equal(network.convolution.weight, other.convolution.weight)
    assert torch.equal(network.critic.weight, before)


@pytest.mark.parametrize(
    ("convert", "reason"),
    [
        (lambda state: {"weight": state["none"]}, r"cannot be converted \(KeyError: 'none'\)"),
        (lambda state: None, "convert returned NoneType, not tensors by name"),
        (lambda state: state, "does not fit: it lacks"),
    ],
)
def test_a_conversion_that_fails_is_one_line(tmp_path, convert, reason):
    torch.save({"x": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=reason):
        load_published(Toy(), replace(spec("a"), convert=convert), tmp_path / "w.pth")


def test_published_weights_are_of_the_width_that_the_model_says(tmp_path):
    asked = []
    torch.save(Toy().state_dict(), tmp_path / "w.pth")
    model = replace(spec("a"), build=lambda **given: asked.append(given) or Toy(), published_width=0.5)
    build_published(model, model.published_size, tmp_path / "w.pth")
    assert (asked[0]["width"], asked[0]["size"]) == (0.5, 256)
    torch.save({"x": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"give weights of a at its published width, 0\.5$"):
        build_published(model, 64, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"give weights of a at width 0\.25, or --width 0\.5 for published ones$"):
        load_published(Toy(), model, tmp_path / "w.pth", width=0.25)
