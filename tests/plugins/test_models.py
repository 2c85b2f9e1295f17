"""What every model owes the harness, whoever wrote it."""

import copy
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from colorbench import plugins
from colorbench.contract import Batch, Stage
from colorbench.presets import PRESETS

EXAMPLE = Path(__file__).parents[2] / "examples" / "colorbench-linear" / "colorbench_linear.py"
REGISTRY = plugins.load([EXAMPLE])
MODELS = REGISTRY.specs["model"]
SMOKE = PRESETS["smoke"]
every_model = pytest.mark.parametrize("name", sorted(MODELS))
every_preset = pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))


def build(name: str, seed: int = 0) -> Any:
    """The model at smoke-test size with fresh weights; what it refines is built likewise, then frozen."""
    spec = MODELS[name]
    base = build(spec.refines, seed).eval().requires_grad_(False) if spec.refines else None
    torch.manual_seed(seed)
    network = spec.build(width=SMOKE.width, size=SMOKE.size, base=base, **spec.options)
    if spec.sees_truth:  # it gets one that goes with the picture
        forward = network.forward
        network.forward = lambda L: forward(L, torch.cat((L - 50, 20 - L / 2), dim=1))
    return network


def batch_of(count: int, **settings: Any) -> Batch:
    """Smooth pictures whose ab depends on L, so that there is something to learn."""
    draw = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, 3, 4, 4, generator=draw)
    L, a, b = F.interpolate(coarse, SMOKE.size, mode="bilinear").split(1, dim=1)
    return Batch(L * 100, torch.cat((60 * L - 20 + 10 * a, 20 - 40 * L + 10 * b), dim=1), settings)


def trainable(network: torch.nn.Module) -> set[str]:
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


def train(network: Any, stage: Stage, steps: int) -> Iterator[dict[tuple[str, ...], float]]:
    """A harness in small: trains one stage and yields each step's loss by player and the names of what it sums.

    Every step has the same pictures and random numbers; gradients of a step are there to see when it yields.
    """
    frozen = [p for module in stage.frozen for p in network.get_submodule(module).parameters() if p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    network.train()
    batch = batch_of(4, **stage.settings)
    optimizers: dict[str, torch.optim.Optimizer] = {}
    for _ in range(steps):
        torch.manual_seed(2)
        sums: dict[tuple[str, ...], float] = {}
        for update in network.updates(batch):
            learning = [p for p in network.get_submodule(update.player).parameters() if p.requires_grad]
            optimizer = optimizers.setdefault(update.player, torch.optim.Adam(learning, lr=1e-3))
            loss = sum(update.losses.values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            sums[update.player, *update.losses] = loss.item()
        yield sums
    for parameter in frozen:
        parameter.requires_grad_(True)


@cache
def _trained(name: str) -> Any:
    network = build(name)
    for stage in MODELS[name].schedule(SMOKE):
        list(train(network, stage, steps=2))
    network.zero_grad()
    return network


def trained(name: str) -> Any:
    """The model after two steps of every stage: its statistics and zero-initialized layers have moved."""
    return copy.deepcopy(_trained(name)).eval()


def predict(network: torch.nn.Module, L: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return network(L)


def state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def assert_same_state(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> None:
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


def test_every_installed_plugin_loads():
    assert {plugin.name: plugin.broken for plugin in REGISTRY.plugins if plugin.broken} == {}


def test_listing_the_plugins_imports_neither_torch_nor_numpy():
    code = "import sys, colorbench.plugins as p; p.load(); print({'torch', 'numpy'} & set(sys.modules))"
    listed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert listed.stdout.strip() == "set()"


@every_model
def test_spec_has_a_speakable_name_and_one_line_of_summary(name):
    spec = MODELS[name]
    word = "[a-z0-9]+(-[a-z0-9]+)*"
    assert re.fullmatch(f"{word}(/{word})?", name)
    assert spec.summary.strip()
    assert "\n" not in spec.summary
    assert spec.refines is None or spec.refines in MODELS
    assert spec.parent is None or spec.parent in MODELS


@every_model
@every_preset
def test_schedule_has_runnable_stages_under_every_preset(name, preset):
    stages = MODELS[name].schedule(preset)
    assert all(isinstance(stage, Stage) for stage in stages)
    assert len({stage.name for stage in stages}) == len(stages)
    for stage in stages:
        assert stage.epochs >= 1
        assert stage.learning_rate > 0
        assert stage.images is None or stage.images >= 1
        for module in stage.frozen:
            build(name).get_submodule(module)


@every_model
def test_forward_gives_float32_ab_in_range_and_leaves_its_input_alone(name):
    L = batch_of(3).L
    before = L.clone()
    ab = predict(trained(name), L)
    assert ab.shape == (3, 2, SMOKE.size, SMOKE.size)
    assert ab.dtype == torch.float32
    assert ab.isfinite().all()
    assert ab.abs().max() <= 128
    assert torch.equal(L, before)


@every_model
def test_forward_takes_pictures_that_are_not_square(name):
    L = F.interpolate(batch_of(2).L, (SMOKE.size, 2 * SMOKE.size))
    assert predict(trained(name), L).shape == (2, 2, SMOKE.size, 2 * SMOKE.size)


@every_model
def test_bfloat16_autocast_gives_float32_finite_ab_and_losses(name):
    network = trained(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ab = network(batch_of(2).L)
        assert ab.dtype == torch.float32
        assert ab.isfinite().all()
        for stage in MODELS[name].schedule(SMOKE):
            for update in network.train().updates(batch_of(2, **stage.settings)):
                for loss in update.losses.values():
                    assert loss.dtype == torch.float32
                    assert loss.isfinite()


@every_model
def test_a_picture_alone_is_colored_as_in_a_batch(name):
    network, L = trained(name), batch_of(4).L
    alone = torch.cat([predict(network, one) for one in L.split(1)])
    torch.testing.assert_close(alone, predict(network, L), rtol=1e-4, atol=1e-4)


@every_model
def test_evaluation_draws_no_random_number(name):
    network = trained(name)
    before = torch.get_rng_state(), str(np.random.get_state()), random.getstate()
    first = predict(network, batch_of(2).L)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (str(np.random.get_state()), random.getstate()) == before[1:]
    assert torch.equal(predict(network, batch_of(2).L), first)


@pytest.mark.parametrize("name", [name for name in sorted(MODELS) if hasattr(build(name), "with_attention")])
def test_attention_is_shown_for_the_colors_that_forward_gives(name):
    network, L = trained(name).eval(), batch_of(2).L
    with torch.no_grad():
        assert torch.equal(network.with_attention(L)[0], predict(network, L))


@every_model
def test_validation_losses_change_no_state_and_come_from_the_training_updates(name):
    network = trained(name)
    for stage in MODELS[name].schedule(SMOKE):
        batch = batch_of(2, **stage.settings)
        before = state(network)
        with torch.no_grad():
            validated = [(u.player, list(u.losses)) for u in network.eval().updates(batch)]
        assert_same_state(before, state(network))
        assert validated == [(u.player, list(u.losses)) for u in network.train().updates(batch)]


@every_model
def test_a_saved_state_restores_the_model(name):
    network, fresh, L = trained(name), build(name, seed=1).eval(), batch_of(2).L
    fresh.load_state_dict(network.state_dict())
    assert torch.equal(predict(fresh, L), predict(network, L))


@every_model
def test_every_loss_is_a_scalar_for_a_player_that_exists(name):
    network = trained(name).train()
    for stage in MODELS[name].schedule(SMOKE):
        for update in network.updates(batch_of(2, **stage.settings)):
            assert update.losses
            assert trainable(network.get_submodule(update.player))
            assert all(loss.shape == () and loss.requires_grad for loss in update.losses.values())


@every_model
def test_every_parameter_learns_in_some_stage(name):
    network = build(name)
    still, before = trainable(network), state(network)
    for stage in MODELS[name].schedule(SMOKE):
        network.zero_grad()
        learning = {n for n in trainable(network) if not any(n.startswith(f"{part}.") for part in stage.frozen)}
        reached: set[str] = set()
        for _ in train(network, stage, steps=3):
            reached |= {n for n, p in network.named_parameters() if p.grad is not None and p.grad.any()}
        assert learning - reached == set(), f"no gradient in stage {stage.name}"
        still -= reached
    assert still == set()
    moved = {n for n, p in network.named_parameters() if not torch.equal(p, before[n])}
    assert moved == trainable(network)


@every_model
def test_training_lowers_the_loss_of_every_player(name):
    network, first, last = build(name), {}, {}
    for stage in MODELS[name].schedule(SMOKE):
        for losses in train(network, stage, steps=20):
            first, last = losses | first, last | losses
    assert {player for player in first if last[player] >= first[player]} == set()


@pytest.mark.parametrize("name", sorted(n for n, spec in MODELS.items() if spec.refines))
def test_training_leaves_the_refined_base_alone(name):
    spec = MODELS[name]
    base = build(spec.refines).eval().requires_grad_(False)
    network, before = spec.build(width=SMOKE.width, size=SMOKE.size, base=base, **spec.options), state(base)
    for stage in spec.schedule(SMOKE):
        list(train(network, stage, steps=1))
    assert_same_state(before, state(base))
    assert trainable(base) == set()
