"""Times each model with pytest-benchmark, in a process of its own: no model inherits another's memory or caches."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
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
from colorbench.runs.context import Context
from colorbench.runs.folder import environment_key, write_aside
from colorbench.runs.records import DONE, Timing, encode

BENCHMARK = Path(__file__).with_name("benchmark.py")
REQUEST = "COLORBENCH_TIMING"  # the environment variable that tells the benchmark what to time
START_SECONDS = 6.0  # until a process has imported torch and loaded the network
MAX_SECONDS, MIN_ROUNDS = 0.4, 7  # of each of the four benchmarks
NOT_ITS = ("PYTEST_", "RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_")


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
        torch.save(inputs, file := Path(folder, "inputs"))
        # An empty configuration, and no plugin but the benchmark's: whatever pytest is told where we stand stays out.
        config, out = Path(folder, "pytest.ini"), Path(folder, "benchmark.json")
        config.write_text("[pytest]\n")
        command = [
            sys.executable, "-m", "pytest", str(BENCHMARK), "-q",
            "-p", "pytest_benchmark.plugin", "-p", "no:cacheprovider",
            "-c", str(config), f"--benchmark-json={out}", "--benchmark-warmup=on", "--benchmark-warmup-iterations=3",
            f"--benchmark-max-time={MAX_SECONDS}", f"--benchmark-min-rounds={MIN_ROUNDS}",
            "--benchmark-calibration-precision=1",
        ]  # fmt: skip
        # Nor does it belong to the processes of `accelerate launch`, which would have it wait for the others.
        # As when it trains, its threads do not spin while they wait.
        env = {"OMP_WAIT_POLICY": "PASSIVE"} | {k: v for k, v in os.environ.items() if not k.startswith(NOT_ITS)}
        asked = json.dumps(request | {"inputs": str(file)}, default=str)
        env |= {REQUEST: asked, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            errors = [line for line in done.stdout.splitlines() if line.startswith("E  ")] or done.stderr.splitlines()
            return {"failed": one_line((errors or ["no output"])[-1])}
        results: dict[str, Any] = {"step_1": None, "step_n": None}
        for benchmark in json.loads(out.read_text())["benchmarks"]:
            if benchmark["extra_info"].pop("trains", True):
                stats = benchmark["stats"]
                results[benchmark["params"]["what"]] = {key: stats[key] for key in ("median", "iqr", "rounds")}
            results |= benchmark["extra_info"]
        return results
