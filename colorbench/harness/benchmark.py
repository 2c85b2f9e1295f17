"""The timing itself, run by pytest-benchmark for one model: a training step and inference, at batch 1 and n.

A step trains as the run does, in its precision; inference is the protocol's, in float32. Memory is the growth
of the process since before the model was built, or, on a GPU, what torch allocated there at the most.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from pytest_benchmark.fixture import BenchmarkFixture
from torch.utils.flop_counter import FlopCounterMode

from colorbench import plugins
from colorbench.contract import Batch, Preset, Stage
from colorbench.data.loader import to_lab
from colorbench.harness import device
from colorbench.harness.predict import colorize
from colorbench.harness.preflight import first
from colorbench.harness.stepper import Stepper, frozen
from colorbench.harness.throughput import REQUEST
from colorbench.harness.trained import load_cell
from colorbench.options import configure
from colorbench.runs.folder import RunFolder

Subject = tuple[Accelerator, torch.nn.Module, Stage | None, Batch, int]

request_ = json.loads(os.environ[REQUEST])


@pytest.fixture(scope="module")
def subject() -> Iterator[Subject]:
    """The trained network, its last stage, and a batch of the run's own pictures."""
    accelerator = device.accelerator()
    _warm_up(accelerator)
    before = _process_peak()
    registry, folder = plugins.load(request_["plugins"]), RunFolder(request_["run"])
    configure(registry, request_["options"])
    (spec,) = registry.find("model", [request_["model"]])
    network = load_cell(folder, spec.name, request_["seed"], registry)
    network.to(accelerator.device).to(memory_format=torch.channels_last)
    stages = [stage for stage in spec.schedule(Preset(**request_["preset"])) if not stage.measures]
    with np.load(folder.path / "samples.npz") as samples:
        places = np.resize(np.arange(len(samples["truth"])), request_["batch"])  # of the pictures, over and over
        L, ab = to_lab(samples["truth"][places], accelerator.device)
    given = torch.load(request_["inputs"], weights_only=True)
    inputs = {name: values[places].to(L.device) for name, values in given.items()}
    stage = stages[-1] if stages else None
    with frozen(network, stage.frozen if stage else ()):
        yield accelerator, network, stage, Batch(L, ab, stage.settings if stage else {}, inputs=inputs), before


@pytest.mark.parametrize("what", ["infer_1", "infer_n", "step_1", "step_n"])
def test_speed(benchmark: BenchmarkFixture, subject: Subject, what: str) -> None:
    accelerator, network, stage, batch, before = subject
    if what.endswith("_1"):
        batch = first(batch, 1)
    synchronize: Callable[[], None] = torch.cuda.synchronize if accelerator.device.type == "cuda" else lambda: None
    if what.startswith("infer"):

        def work() -> None:
            colorize(network, batch.L, **batch.inputs)
            synchronize()

    else:
        stepper = Stepper(network, stage, accelerator)  # type: ignore[arg-type]  # without a stage it trains nothing
        # Hints are for inference: a model that takes them draws its own in training.
        learning = replace(batch, inputs={name: values for name, values in batch.inputs.items() if name != "hints"})
        network.train()

        def work() -> None:
            if stage:
                list(stepper.step(learning, 0.0, len(batch.L)))
            synchronize()

        work()
        benchmark.extra_info["trains"] = bool(stepper.optimizers)
    benchmark(work)
    benchmark.extra_info |= _peak(accelerator.device, before)
    if what == "step_n":  # last, since counting takes memory of its own
        with FlopCounterMode(display=False) as flops:
            colorize(network, batch.L[:1], **first(batch, 1).inputs)
        benchmark.extra_info["macs"] = flops.get_total_flops() // 2


def _warm_up(accelerator: Accelerator) -> None:
    """What torch loads at its first training step is not the model's memory."""
    network = torch.nn.Conv2d(1, 1, 3).to(accelerator.device)
    with accelerator.autocast():
        loss = network(torch.zeros(1, 1, 8, 8, device=accelerator.device)).float().mean()
    loss.backward()
    torch.optim.Adam(network.parameters(), fused=True).step()


def _peak(where: torch.device, before: int) -> dict[str, float | str]:
    if where.type == "cuda":
        return {"peak_memory_mib": torch.cuda.max_memory_allocated() / 2**20, "peak_memory_of": "device"}
    return {"peak_memory_mib": (_process_peak() - before) / 2**20, "peak_memory_of": "process"}


def _process_peak() -> int:
    """The most bytes that this process has had in memory."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the parent's memory too: Linux hands its maximum down
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
