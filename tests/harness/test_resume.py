"""A training that was stopped, at any step, ends as if it had not been, to the last bit.

Of every model this is a law, see colorbench/testing: here are the steps at which it may stop, and what else may happen.
"""

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from toys import accelerator

from colorbench import plugins
from colorbench.data.cache import Images
from colorbench.harness.checkpoint import Checkpoint, TrainingState, position_of
from colorbench.harness.networks import build, trained_state
from colorbench.harness.trainer import Trainer, TrainingJob
from colorbench.presets import PRESETS

SMOKE = PRESETS["smoke"]
REGISTRY = plugins.load()
MODELS = REGISTRY.specs["model"]
LEARNING = sorted(name for name, spec in MODELS.items() if spec.schedule(SMOKE))
UPDATING = {name: [stage for stage in MODELS[name].schedule(SMOKE) if not stage.measures] for name in LEARNING}
SEVERAL_STAGES = next(name for name in LEARNING if len(UPDATING[name]) > 1)


@pytest.fixture(scope="module")
def images():
    names = [str(index) for index in range(7)]  # an epoch of two steps, the second smaller than the first
    pixels = np.random.default_rng(0).integers(0, 255, (7, SMOKE.size, SMOKE.size, 3), np.uint8)
    return Images(pixels, names, names, np.zeros(7, bool), {})


@pytest.fixture
def file(tmp_path):
    return tmp_path / "training.pt"


def training(name, images, file, stop_after=None, stop=KeyboardInterrupt):
    """Train the model by its schedule, two epochs a stage: the trained state, the losses and the number of steps.

    With `stop_after`, a checkpoint is written after so many steps, and the next one raises `stop`.
    """
    spec = MODELS[name]
    base = build(MODELS[spec.refines], SMOKE.width, SMOKE.size) if spec.refines else None
    network = build(spec, SMOKE.width, SMOKE.size, base)
    updates, asked = network.updates, 0

    def counted(batch):
        nonlocal asked
        asked += network.training
        if stop_after is not None and asked > stop_after:
            raise stop
        return updates(batch)

    network.updates = counted
    checkpoint = Checkpoint(file, "same", torch.device("cpu")) if file else None
    if checkpoint:
        checkpoint.is_due = lambda: asked == stop_after
    stages = [replace(stage, epochs=1 if stage.measures else 2) for stage in spec.schedule(SMOKE)]
    losses = Trainer(TrainingJob(network, spec, 0, 4, images, images, base), accelerator(), checkpoint).run(stages)
    return trained_state(network, base), losses, asked


@pytest.mark.parametrize("name", [LEARNING[0], SEVERAL_STAGES])
def test_a_stopped_training_ends_as_if_it_had_not_been(name, images, file):
    expected, losses, steps = training(name, images, None)
    taken = 0
    # In the middle of the first epoch, at its end, and in the middle of an epoch of the second stage, if it has one.
    for stop in (1, 2, 5):
        if stop < steps:
            with pytest.raises(KeyboardInterrupt):
                training(name, images, file, stop_after=stop - taken)
            taken = stop
    state, resumed, asked = training(name, images, file)
    assert asked == steps - taken, "steps were taken twice, or left out"
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], expected[key]) for key in expected)
    pd.testing.assert_frame_equal(resumed, losses, check_exact=True)
    # What was trained to its end is there at once.
    state, resumed, asked = training(name, images, file)
    assert asked == 0
    assert all(torch.equal(state[key], expected[key]) for key in expected)
    pd.testing.assert_frame_equal(resumed, losses, check_exact=True)


def test_a_checkpoint_of_other_code_is_not_taken_up(images, file, capsys):
    name = LEARNING[0]
    with pytest.raises(KeyboardInterrupt):
        training(name, images, file, stop_after=1)
    assert Checkpoint(file, "same", torch.device("cpu")).read()
    assert Checkpoint(file, "other", torch.device("cpu")).read() is None
    assert "starts over" in capsys.readouterr().err


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError, SystemExit])
def test_whatever_is_raised_the_checkpoint_stays(images, file, error):
    expected, _, steps = training("gan", images, None)
    with pytest.raises(error):
        training("gan", images, file, stop_after=2, stop=error)
    assert position_of(file, "same") == (0, 1, 2)
    assert position_of(file, "other") is None
    state, _, asked = training("gan", images, file)
    assert asked == steps - 2
    assert all(torch.equal(state[key], expected[key]) for key in expected)
    assert position_of(file, "same") == (1, 1, 0)


def test_a_write_that_fails_leaves_the_old_checkpoint(images, file, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        training("cnn", images, file, stop_after=1)
    before = file.read_bytes()
    monkeypatch.setattr("pathlib.Path.replace", lambda self, target: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        training("cnn", images, file)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def flipped(content, share):
    place = int(share * (len(content) - 1))
    return content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :]


def sealed(content, training):
    """A checkpoint of the same key and position, its checksum right, that holds `training`."""
    head = content.split(b"\n", 2)[1]
    buffer = io.BytesIO()
    torch.save(training, buffer)
    body = head + b"\n" + buffer.getvalue()
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def changed(**changes):
    """The same training, sealed, with other values in its state."""
    return lambda content: sealed(content, loaded(content) | changes)


def loaded(content):
    return torch.load(io.BytesIO(content.split(b"\n", 2)[2]), weights_only=True)


def with_moment(change):
    """The same training, sealed, in which one tensor of the optimizer is another."""

    def damage(content):
        moments = (training := loaded(content))["optimizers"][""]["state"][0]
        moments["exp_avg"] = change(moments["exp_avg"])
        return sealed(content, training)

    return damage


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        *((lambda content, share=share: flipped(content, share), "damaged") for share in (0, 0.001, 0.1, 0.5, 0.9, 1)),
        (lambda content: content[:-1], "damaged"),
        (lambda content: content[: len(content) // 2], "damaged"),
        (lambda content: b"", "damaged"),
        (lambda content: b"PK\x03\x04" + bytes(100), "damaged"),
        (lambda content: sealed(content, [1, 2]), "Expected `object`"),
        (lambda content: sealed(content, Path("/")), "Weights only load failed"),
        (changed(epoch="1"), "Expected `int`"),
        (changed(rows=[(1, 2)]), "Expected `array` of length 5"),
        (changed(losses={"l2": (1.0, 2)}), "Expected `Tensor`"),
        (changed(epoch=7), "no step 1 of epoch 7"),
        (changed(step=-1), "no step -1"),
        (changed(stage=9), "of stage 9"),
        (changed(stage=-1), "of stage -1"),
        (changed(network={}), "it lacks"),
        (changed(optimizers={"absent": {}}), "no such submodule"),
        (changed(optimizers={"": {"state": {99: {}}, "param_groups": []}}), "has other parameters"),
        (with_moment(lambda moment: torch.zeros(3)), "has other parameters"),
        (with_moment(torch.Tensor.to_sparse), "has other parameters"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_is_not_ours_is_said_and_training_starts_over(images, file, capsys, damage, reason):
    expected, _, steps = training("cnn", images, None)
    with pytest.raises(KeyboardInterrupt):
        training("cnn", images, file, stop_after=1)
    file.write_bytes(damage(file.read_bytes()))
    capsys.readouterr()
    state, _, asked = training("cnn", images, file)
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "img/s" not in line]
    assert said.startswith(f"{file}: training starts over: ")
    assert reason in said
    assert asked == steps
    assert all(torch.equal(state[key], expected[key]) for key in expected)


def test_a_checkpoint_that_cannot_be_read_is_said(file, capsys):
    file.mkdir()
    checkpoint = Checkpoint(file, "same", torch.device("cpu"))
    assert checkpoint.read() is None
    assert position_of(file, "same") is None
    assert "Is a directory" in capsys.readouterr().err


def test_memory_that_is_short_when_a_checkpoint_is_read_is_no_fault_of_the_file(images, file, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        training("cnn", images, file, stop_after=1)
    monkeypatch.setattr(torch, "load", lambda *_, **__: (_ for _ in ()).throw(torch.OutOfMemoryError()))
    with pytest.raises(torch.OutOfMemoryError):
        training("cnn", images, file)
    assert position_of(file, "same") == (0, 1, 1)


def test_writing_takes_a_small_share_of_the_time(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("colorbench.harness.checkpoint.time.monotonic", lambda: now[0])
    checkpoint = Checkpoint(tmp_path / "training.pt", "same", torch.device("cpu"))

    def slow(file, content):
        now[0] += 3

    monkeypatch.setattr("colorbench.harness.checkpoint.write_aside", slow)
    now[0] = 2
    assert checkpoint.is_due()
    checkpoint.write(TrainingState())
    now[0] += 59
    assert not checkpoint.is_due()
    now[0] += 2
    assert checkpoint.is_due()
