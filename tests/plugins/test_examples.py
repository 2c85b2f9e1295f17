"""The examples of one file: each trains as its text says, and does what it is an example of."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from toys import accelerator

from colorbench import plugins
from colorbench.data.cache import Images
from colorbench.harness.networks import build
from colorbench.harness.stepper import check_stages
from colorbench.harness.trainer import Trainer, TrainingJob
from colorbench.presets import PRESETS

EXAMPLES = Path(__file__).parents[2] / "examples"
SMOKE = PRESETS["smoke"]


def spec_of(name):
    file = EXAMPLES / f"{name.replace('-', '_')}.py"
    return plugins.load([file]).specs["model"][name]


@pytest.mark.parametrize("name", ["timm-encoder", "classifier-prior"])
def test_an_example_runs_with_the_command_in_its_docstring(colorbench, tmp_path, name):
    file = EXAMPLES / f"{name.replace('-', '_')}.py"
    command = ("run", "--plugin", file, "--models", name, "--preset", "smoke")
    assert " ".join(map(str, ("colorbench", *command))).replace(f"{EXAMPLES.parent}/", "") in file.read_text()
    result = colorbench(*command, "--no-timing", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    assert pd.read_csv(tmp_path / "run" / "comparison.csv").status.tolist() == ["done"]


def test_an_encoder_takes_its_weights_from_the_file_of_its_option(tmp_path):
    spec = spec_of("timm-encoder")
    encoder = build(spec, SMOKE.width, SMOKE.size, seed=1).encoder
    classifier = {"fc.weight": torch.zeros(10, 512)}  # which a file of a whole network has as well
    save_file({**encoder.state_dict(), **classifier}, file := tmp_path / "encoder.safetensors")
    network = build(spec.variant("pretrained", weights=file), SMOKE.width, SMOKE.size)
    assert all(torch.equal(tensor, network.encoder.state_dict()[key]) for key, tensor in encoder.state_dict().items())


def test_the_encoder_s_stage_is_sound_and_its_encoder_slower():
    spec = spec_of("timm-encoder")
    check_stages(build(spec, SMOKE.width, SMOKE.size), stages := spec.schedule(SMOKE))
    assert stages[0].rates == {"encoder": 0.1}


def test_the_classifier_s_prior_is_that_of_the_training_images():
    """Half of the pixels in one color, a quarter each in two others, of which one image is as good as unseen."""
    spec = spec_of("classifier-prior")
    colors = np.array([[200, 40, 40], [200, 40, 40], [40, 40, 200], [40, 160, 40], [128, 128, 128]], np.uint8)
    pixels = np.broadcast_to(colors[:, None, None], (5, 16, 16, 3))
    names = [str(i) for i in range(5)]
    images = Images(pixels, names, names, np.arange(5) == 4, {})
    network = build(spec, SMOKE.width, 16)
    run = Trainer(TrainingJob(network, spec, 0, 2, images, images), accelerator())
    losses = run.run(spec.schedule(SMOKE))
    assert sorted(network.prior[network.prior > 0].tolist()) == [0.25, 0.25, 0.5]
    assert run.images_seen == 4
    assert set(losses.stage) == {"train"}
    red = network.centers[network.prior.argmax()]
    assert (red > 0).all()


@pytest.fixture(scope="module")
def initialized():
    return plugins.load([EXAMPLES / "initializations.py"]).specs["model"]


def test_every_model_that_trains_can_begin_with_four_kinds_of_weights(initialized, registry):
    trained = {name for name, spec in registry.specs["model"].items() if spec.schedule(SMOKE) and not spec.parent}
    kinds = ("torch", "kaiming", "xavier", "normal")
    assert initialized.keys() - registry.specs["model"].keys() == {
        f"{n}/init-{kind}" for n in trained for kind in kinds
    }


@pytest.mark.parametrize(("kind", "variance"), [("kaiming", 2 / 576), ("xavier", 1 / 576), ("normal", 0.0004)])
def test_first_weights_have_the_variance_of_their_kind(initialized, kind, variance):
    layer = build(initialized[f"cnn/init-{kind}"], width=1.0, size=16).encoder[0][2]  # 64 channels to 64, 3 x 3
    assert layer.weight.var().item() == pytest.approx(variance, rel=0.05)
    assert not layer.bias.any()


def test_other_first_weights_leave_a_base_and_what_begins_at_zero(initialized):
    base = build(initialized["siggraph17"], SMOKE.width, SMOKE.size)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    network = build(initialized["enhanced-unet/init-kaiming"], SMOKE.width, SMOKE.size, base)
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())
    assert not network.residual.weight.any()
    own = build(initialized["enhanced-unet"], SMOKE.width, SMOKE.size, base)
    assert not torch.equal(network.down1[0].weight, own.down1[0].weight)


def test_other_first_weights_leave_what_no_stage_trains(initialized):
    own, other = (build(initialized[name], SMOKE.width, 16) for name in ("eccv16", "eccv16/init-normal"))
    assert torch.equal(own.model_out.weight, other.model_out.weight), "the colors of its classes"
    assert not torch.equal(own.model8[0].weight, other.model8[0].weight)
