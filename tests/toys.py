"""Small networks and pictures that several tests train."""

from unittest.mock import patch

import numpy as np
import torch
from accelerate.state import AcceleratorState
from torch import nn

from colorbench.contract import Batch, ModelSpec, Stage, Update
from colorbench.data.cache import Images
from colorbench.harness import device
from colorbench.harness.trainer import Trainer, TrainingJob
from colorbench.testing.pictures import smooth_lab

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


def batch_of(count, **settings):
    """Smooth pictures of 32 px whose ab depends on L, so that there is something to learn."""
    return Batch(*smooth_lab(count, 32).split((1, 2), dim=1), settings)


def toy_images():
    """Ten pictures of noise, of which one counts as near grey."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (10, 16, 16, 3), np.uint8)
    names = [str(i) for i in range(10)]
    return Images(pixels, names, names, np.arange(10) == 4, {})


def spec(name, refines=None, trained_as=None):
    return ModelSpec(name, "", lambda **_: Toy(**_), lambda preset: (STAGE,), refines=refines, trained_as=trained_as)


def accelerator():
    """That of the CPU, also beside a GPU: parts of the trainer get networks and batches made there. Whole runs, whose
    cells are processes of their own, use the GPU."""
    AcceleratorState._reset_state(reset_partial_state=True)  # shared by a process, which may have begun with the GPU
    with patch("torch.cuda.is_available", lambda: False):
        return device.accelerator()


def trainer(network, images, seed=0, name="toy", checkpoint=None):
    return Trainer(TrainingJob(network, spec(name), seed, 4, images, images), accelerator(), checkpoint)


def trained(images, stages=(STAGE,), seed=0, kind=Toy):
    torch.manual_seed(0)
    network = kind()
    return network, trainer(network, images, seed).run(stages)
