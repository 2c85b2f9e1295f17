"""A training that was stopped, at any step, ends as if it had not been: for every model, to the last bit."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from colorbench import plugins
from colorbench.data.cache import Images
from colorbench.harness.checkpoint import Checkpoint
from colorbench.harness.device import accelerator
from colorbench.harness.load import build, trained_state
from colorbench.harness.train import Trainer
from colorbench.presets import PRESETS

SMOKE = PRESETS["smoke"]
REGISTRY = plugins.load()
MODELS = REGISTRY.specs["model"]
LEARNING = sorted(name for name, spec in MODELS.items() if spec.schedule(SMOKE))


@pytest.fixture(scope="module")
def images():
    names = [str(index) for index in range(7)]  # an epoch of two steps, the second smaller than the first
    pixels = np.random.default_rng(0).integers(0, 255, (7, SMOKE.size, SMOKE.size, 3), np.uint8)
    return Images(pixels, names, names, np.zeros(7, bool), {})


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(Checkpoint, "is_due", lambda self: True)
    return tmp_path / "training.pt"


def training(name, images, file, stop_after=None):
    """Train the model by its schedule, two epochs a stage: the trained state and the losses."""
    spec = MODELS[name]
    base = build(MODELS[spec.refines], SMOKE.width, SMOKE.size) if spec.refines else None
    network = build(spec, SMOKE.width, SMOKE.size, base)
    updates, asked = network.updates, 0

    def counted(batch):
        nonlocal asked
        asked += network.training
        if stop_after is not None and asked > stop_after:
            raise KeyboardInterrupt
        return updates(batch)

    network.updates = counted
    checkpoint = Checkpoint(file, "same", torch.device("cpu")) if file else None
    stages = [replace(stage, epochs=2) for stage in spec.schedule(SMOKE)]
    losses = Trainer(network, images, images, accelerator(), spec, 0, 4, base, checkpoint).run(stages)
    return trained_state(network, base), losses, asked


@pytest.mark.parametrize("name", LEARNING)
def test_a_stopped_training_ends_as_if_it_had_not_been(name, images, file):
    expected, losses, steps = training(name, images, None)
    # In the middle of the first epoch, at its end, and in the middle of an epoch of the second stage, if it has one.
    for stop in (1, 2, 5):
        if stop >= steps:
            continue
        file.unlink(missing_ok=True)
        with pytest.raises(KeyboardInterrupt):
            training(name, images, file, stop_after=stop)
        state, resumed, asked = training(name, images, file)
        assert asked == steps - stop, "steps were taken twice, or left out"
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[key], expected[key]) for key in expected)
        pd.testing.assert_frame_equal(resumed, losses, check_exact=True)


def test_a_checkpoint_of_other_code_is_not_taken_up(images, file, capsys):
    name = LEARNING[0]
    with pytest.raises(KeyboardInterrupt):
        training(name, images, file, stop_after=1)
    assert Checkpoint(file, "same", torch.device("cpu")).read()
    assert Checkpoint(file, "other", torch.device("cpu")).read() is None
    assert "starts over" in capsys.readouterr().err


def test_writing_takes_a_small_share_of_the_time(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("colorbench.harness.checkpoint.time.monotonic", lambda: now[0])
    checkpoint = Checkpoint(tmp_path / "training.pt", "same", torch.device("cpu"))

    def slow(file, content):
        now[0] += 3

    monkeypatch.setattr("colorbench.harness.checkpoint.write_aside", slow)
    now[0] = 2
    assert checkpoint.is_due()
    checkpoint.write({})
    now[0] += 59
    assert not checkpoint.is_due()
    now[0] += 2
    assert checkpoint.is_due()
