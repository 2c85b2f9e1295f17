"""Statistics of the training images: seen once, before what needs them, and kept with the weights."""

import hashlib

import pytest
import torch
from toys import STAGE, Toy, spec, toy_images, trainer

from colorbench.contract import OPTIONAL, Stage
from colorbench.data.loader import to_lab
from colorbench.errors import UserError
from colorbench.harness.checkpoint import Checkpoint
from colorbench.harness.networks import load_published, load_weights, packed_weights, refuse_misspelt, trained_state

MEASURE = Stage("count", measures=True, settings={"by": 1})


class Counting(Toy):
    """The toy, with the mean ab of the training images."""

    measured = ("mean",)

    def __init__(self, **_):
        super().__init__()
        self.register_buffer("mean", torch.zeros(2))
        self.batches, self.modes = [], []

    def measure(self, batches):
        for batch in batches:
            self.batches.append(batch)
            self.modes.append((self.training, torch.is_grad_enabled()))
        self.mean.copy_(torch.cat([batch.ab for batch in self.batches]).mean((0, 2, 3)))


@pytest.fixture
def images():
    return toy_images()


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Counting()


def test_the_training_images_are_seen_once_as_they_are_and_not_counted(images, network):
    run = trainer(network, images)
    losses = run.run([MEASURE, STAGE])
    colorful = [i for i in range(10) if i != 4]
    _, ab = to_lab(images.pixels[colorful], torch.device("cpu"))
    assert torch.equal(torch.cat([batch.ab for batch in network.batches]), ab)
    assert {*network.modes} == {(False, False)}
    assert network.batches[0].settings == {"by": 1}
    torch.testing.assert_close(network.mean, ab.mean((0, 2, 3)))
    assert run.images_seen == 3 * 9
    assert set(losses.stage) == {"train"}


def test_a_stage_measures_the_images_that_it_chooses(images, network):
    trainer(network, images).run([Stage("count", measures=True, images=lambda epoch, count: [7, 0])])
    _, ab = to_lab(images.pixels[[8, 0]], torch.device("cpu"))  # the fifth is near grey
    assert torch.equal(network.batches[0].ab, ab)


def test_what_was_measured_is_not_measured_again_after_a_kill(images, network, tmp_path):

    def trained(network, stop):
        checkpoint = Checkpoint(tmp_path / "training.pt", "same", torch.device("cpu"))
        updates = network.updates

        def killed(batch):
            if stop:
                raise KeyboardInterrupt
            return updates(batch)

        network.updates = killed
        trainer(network, images, checkpoint=checkpoint).run([MEASURE, STAGE])

    with pytest.raises(KeyboardInterrupt):
        trained(network, stop=True)
    again = Counting()
    trained(again, stop=False)
    assert not again.batches
    assert torch.equal(again.mean, network.mean)


def test_a_kill_while_it_measures_costs_the_measuring_alone(images, network, tmp_path, monkeypatch):
    measure = Counting.measure

    def killed(self, batches):
        next(batches)
        raise KeyboardInterrupt

    checkpoint = Checkpoint(tmp_path / "training.pt", "same", torch.device("cpu"))
    monkeypatch.setattr(Counting, "measure", killed)
    with pytest.raises(KeyboardInterrupt):
        trainer(network, images, checkpoint=checkpoint).run([MEASURE, STAGE])
    monkeypatch.setattr(Counting, "measure", measure)
    trainer(network, images, checkpoint=checkpoint).run([MEASURE, STAGE])
    assert sum(len(batch.L) for batch in network.batches) == 9


def test_a_published_file_need_not_have_it_and_a_trained_cell_must(network, tmp_path):
    network.mean.fill_(3)
    state = trained_state(network, None)
    del state["mean"]
    (file := tmp_path / "w.safetensors").write_bytes(content := packed_weights(state))
    load_published(network, spec("toy"), file)
    assert network.mean.tolist() == [3, 3]
    with pytest.raises(UserError, match="it lacks mean"):
        load_weights(network, file, None, hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize(
    ("change", "stage", "reason"),
    [
        ({}, Stage("count", 2, measures=True), "stage 'count' measures; leave epochs at 1, not 2"),
        ({"measured": ["means"]}, MEASURE, "measured names 'means', which is not a saved buffer; there are: mean"),
        ({"measured": ["convolution.weight"]}, MEASURE, "which is not a saved buffer"),
        ({"measured": "mean"}, MEASURE, "needs a method measure(batches), and measured, a list of the buffers"),
        ({"measure": 5}, MEASURE, "needs a method measure(batches), and measured, a list of the buffers"),
        ({"measure": lambda self, b: (yield)}, MEASURE, "measure is a generator, which has measured nothing"),
        ({"measure": lambda self, b: self.mean.resize_(3)}, MEASURE, "measure changed what the network saves: mean is"),
        ({"measure": lambda self, b: self.mean.fill_(torch.nan)}, MEASURE, "values in 'mean' that are not finite"),
        ({}, Stage("count", measures="yes"), "measures is 'yes'; True or False"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(images, network, monkeypatch, change, stage, reason):
    for name, value in change.items():
        monkeypatch.setattr(Counting, name, value)
    with pytest.raises(ValueError, match=r"\S") as caught:
        trainer(network, images).run([stage])
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_network_without_the_method_is_refused(images):
    with pytest.raises(ValueError, match=r"^stage 'count' measures: the network needs a method measure\(batches\)"):
        trainer(Toy(), images).run([MEASURE])


@pytest.mark.parametrize(
    ("name", "meant"),
    [("with_atention", "with_attention"), ("measur", "measure"), ("note", "notes"), ("measured_", "measured")],
)
def test_an_attribute_that_looks_like_a_misspelt_one_is_named(name, meant):
    network = Toy()
    refuse_misspelt(network)
    setattr(network, name, 1)
    with pytest.raises(ValueError, match=f"the network has '{name}', .* did you mean '{meant}'"):
        refuse_misspelt(network)
    for due in OPTIONAL:
        setattr(network, due, 1)
    refuse_misspelt(network)


@pytest.mark.parametrize(("written", "due"), [("update", "updates"), ("foward", "forward")])
def test_a_misspelt_method_that_all_models_need_is_named_before_a_step(monkeypatch, written, due):
    monkeypatch.setattr(Toy, written, getattr(Toy, due), raising=False)
    monkeypatch.delattr(Toy, due)
    with pytest.raises(ValueError, match=rf"'{written}', .* did you mean '{due}'"):
        refuse_misspelt(spec("toy").build())
