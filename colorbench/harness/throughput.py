"""Times each model with pytest-benchmark, in a process of its own: no model inherits another's memory or caches."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from colorbench.contract import ModelSpec, Preset
from colorbench.errors import one_line
from colorbench.harness.predict import inputs_of
from colorbench.harness.scoring import SAMPLES
from colorbench.runs import executors
from colorbench.runs.context import Context
from colorbench.runs.folder import environment_key, write_aside
from colorbench.runs.records import DONE, Timing, encode

BENCHMARK = Path(__file__).with_name("benchmark.py")
REQUEST = "COLORBENCH_TIMING"  # the environment variable that tells the benchmark what to time
START_SECONDS = 2.0  # until a process has loaded the network, and after the measurement
MAX_SECONDS, MIN_ROUNDS = 0.4, 7  # of each of the four benchmarks


def time_models(context: Context, models: Sequence[ModelSpec], seeds: Sequence[int]) -> None:
    """Time every model that has a finished cell and no timing of its row from this machine; called by one process.

    Pictures made elsewhere have no speed, nor has what only the truth can make.
    """
    env, known, folder = environment_key(context.environment), context.folder.timings(), context.folder
    for spec in (spec for spec in models if not spec.pictures and not spec.sees_truth):
        cell = next((cell for seed in seeds if (cell := folder.cell(spec.name, seed)).status == DONE), None)
        timed = known.get(spec.name)
        if cell is None or (timed and (timed.environment, timed.row, timed.failed) == (env, cell.row, None)):
            continue
        request = {
            "run": str(folder.path.resolve()),
            "plugins": [str(Path(file).resolve()) for file in context.plugin_files],
            "options": context.options,
            "model": spec.name,
            "seed": cell.seed,
            "preset": asdict(context.preset),
            "batch": timed_batch(context.preset),
        }
        logging.getLogger("colorbench").info("timing %s", spec.name)
        measured = {"model": spec.name, "row": cell.row, "environment": env, "batch": request["batch"]}
        images = slice(SAMPLES), torch.device("cpu"), context.protocol
        _, inputs = inputs_of(spec, context.data.splits["test"], *images)
        measured |= _measure(request, inputs)
        write_aside(folder.path / "timing" / f"{spec.name}.json", encode(msgspec.convert(measured, Timing)))


def timed_batch(preset: Preset) -> int:
    """The n of what is timed at batch n."""
    return max(preset.batch_size, 8)


def timing_seconds(step: float, inference: float) -> float:
    """About what the timing of a model takes, by the seconds of a step and of inference at batch n."""
    return START_SECONDS + 4 * MAX_SECONDS + 2 * (3 + MIN_ROUNDS) * (step + inference)


def _measure(request: dict[str, Any], inputs: dict[str, Tensor]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        torch.save(inputs, Path(folder, "inputs"))
        try:
            return executors.call(_benchmarked, (request, folder))
        except RuntimeError as error:  # of the benchmark, or its process has ended
            return {"failed": one_line(str(error))}


def _benchmarked(asked: tuple[dict[str, Any], str]) -> dict[str, Any]:
    """What pytest-benchmark measures, in a process of its own. Raises RuntimeError with what failed."""
    import pytest

    request, folder = asked
    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        del os.environ[name]
    os.environ |= {
        REQUEST: json.dumps(request | {"inputs": f"{folder}/inputs"}, default=str),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    # An empty configuration, and no plugin but the benchmark's: whatever pytest is told where we stand stays out.
    config, out = Path(folder, "pytest.ini"), Path(folder, "benchmark.json")
    config.write_text("[pytest]\n")
    command = [
        str(BENCHMARK), "-q", "-p", "pytest_benchmark.plugin", "-p", "no:cacheprovider",
        "-c", str(config), f"--benchmark-json={out}", "--benchmark-warmup=on", "--benchmark-warmup-iterations=3",
        f"--benchmark-max-time={MAX_SECONDS}", f"--benchmark-min-rounds={MIN_ROUNDS}",
        "--benchmark-calibration-precision=1",
    ]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(printed):
        status = pytest.main(command)
    if status:
        lines = printed.getvalue().splitlines() or ["no output"]
        raise RuntimeError(next((line for line in reversed(lines) if line.startswith("E  ")), lines[-1]))
    results: dict[str, Any] = {"step_1": None, "step_n": None}
    for benchmark in json.loads(out.read_text())["benchmarks"]:
        if benchmark["extra_info"].pop("trains", True):
            stats = benchmark["stats"]
            results[benchmark["params"]["what"]] = {key: stats[key] for key in ("median", "iqr", "rounds")}
        results |= benchmark["extra_info"]
    return results
