"""Timings, run by `pytest --benchmark-only tests/harness/test_benchmarks.py`: CPU time on one thread."""

import time

import numpy as np
import pytest
import torch

from colorbench import plugins
from colorbench.color import bytes_to_lab, recombine, rgb_to_lab
from colorbench.metrics import score_batch
from colorbench.metrics.extra import with_statistics
from colorbench.metrics.pair import Pair
from colorbench.metrics.standard import standard_scores
from colorbench.metrics.terms import Terms

IMAGES, SIDE = 16, 256


@pytest.fixture(scope="module")
def pair():
    """A batch as the harness has it: smooth pictures, paler predictions, five parts and an attention map."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((IMAGES, 3, 16, 16), dtype=np.float32))
    smooth = torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic").clamp(0, 1) * 255
    noisy = smooth + torch.from_numpy(rng.normal(0, 3, smooth.shape).astype(np.float32))
    truth = noisy.clamp(0, 255).byte().contiguous(memory_format=torch.channels_last)
    L, ab = rgb_to_lab(truth / 255).split((1, 2), dim=1)
    owner = torch.from_numpy(rng.integers(0, 5, (IMAGES, SIDE, SIDE)))
    parts = {name: owner == i for i, name in enumerate(("skin", "hair", "eyes", "lips", "background"))}
    return Pair(recombine(L, ab * 0.6 + 3), truth, parts, torch.rand(IMAGES, 1, SIDE // 8, SIDE // 8))


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def metrics(pair):
    """Those of the built-in plugins that need no weights, as a run computes them."""
    found = plugins.load().metrics
    batches = {"rgb": pair.truth, "lab": torch.stack(bytes_to_lab(pair.truth, pair.protocol), dim=1)}
    asking = {name: metric for name, metric in found.items() if metric.prepare}
    statistics = {name: np.asarray(metric.prepare(iter([batches[metric.space]]))) for name, metric in asking.items()}
    return with_statistics(found.values(), statistics)


@pytest.mark.parametrize("part", ["lab", "scores", "scores and details", "with the plugins' metrics"])
@pytest.mark.benchmark(timer=time.process_time, warmup=True, min_rounds=5)
def test_scoring_a_batch_of_16_at_256_pixels(benchmark, pair, metrics, part):
    diagnostics = plugins.load().specs["diagnostic"].values()
    timed = {
        "lab": lambda: [chunk.lab for chunk in pair.chunks()],
        "scores": lambda: [standard_scores(chunk) for chunk in pair.chunks()],
        "scores and details": lambda: score_batch(pair, terms=Terms(diagnostics)),
        "with the plugins' metrics": lambda: score_batch(pair, metrics, Terms(diagnostics)),
    }
    benchmark.extra_info["images"] = IMAGES
    with torch.no_grad():
        benchmark(timed[part])
