"""A whole run: every model and seed that is still missing is trained, scored and saved, one cell at a time."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from torch import nn

from colorbench.color import recombine
from colorbench.contract import ModelSpec, Preset, Stage
from colorbench.data.cache import Data, Images
from colorbench.errors import UserError
from colorbench.harness.checkpoint import Checkpoint
from colorbench.harness.device import describe
from colorbench.harness.load import (
    PUBLISHED_WIDTH,
    build,
    count_parameters,
    fill,
    fingerprint,
    from_cell,
    packed_tensors,
    trained_state,
)  # fmt: skip
from colorbench.harness.predict import score_all, to_lab
from colorbench.harness.train import Trainer
from colorbench.plugins import Registry
from colorbench.protocol import PROTOCOL, protocol_id
from colorbench.runs.environment import environment, identity
from colorbench.runs.folder import DONE, FAILED, SKIPPED, TRAINING, RunFolder, write_aside

SAMPLES = 8  # test images kept as pictures


class Session:
    """What all cells of one command share; the folder's record is written when the session begins."""

    def __init__(
        self,
        folder: RunFolder,
        registry: Registry,
        data: Data,
        preset: Preset,
        accelerator: Accelerator,
        weights: Mapping[str, Path],
    ) -> None:
        self.folder, self.registry, self.data, self.preset = folder, registry, data, preset
        self.accelerator, self.weights = accelerator, weights
        self.environment = {**environment(), **describe(accelerator)}

    def begin(self, models: Sequence[ModelSpec], seeds: Sequence[int], command: str) -> None:
        """Check what can be checked before the first hour of training, and write the record.

        Raises UserError for weights that do not fit, or a folder made under another protocol, data or setting.
        """
        weights = {}
        for name, file in self.weights.items():
            (spec,) = self.registry.find("model", [name])
            fill(build(spec, PUBLISHED_WIDTH, self.preset.size), file)
            weights[name] = {"file": file.name, "sha256": fingerprint(file)}
        if self.accelerator.is_main_process:
            preset = {key: value for key, value in asdict(self.preset).items() if key != "summary"}
            names = [spec.name for spec in models]
            begin(self.folder, self.data, preset, weights, names, seeds, command, self.environment)


def begin(
    folder: RunFolder, data: Data, preset: Mapping[str, Any], weights: Mapping[str, Any], models: Sequence[str],
    seeds: Sequence[int], command: str, env: dict[str, Any],
) -> None:  # fmt: skip
    """Write a run folder's record and its sample pictures. Raises UserError if it was made under other conditions."""
    common = {
        "protocol": {"id": protocol_id(), **PROTOCOL},
        "data": data.record(),
        "preset": dict(preset),
        "weights": dict(weights),
    }
    folder.begin(common, list(models), list(seeds), command, env)
    test = data.splits["test"]
    truth = test.pixels[:SAMPLES]
    L, ab = to_lab(truth, torch.device("cpu"))
    grey = recombine(L, torch.zeros_like(ab)).permute(0, 2, 3, 1).numpy()
    write_aside(folder.path / "samples.npz", packed(names=test.names[:SAMPLES], truth=truth, grey=grey))


def with_bases(specs: Sequence[ModelSpec], registry: Registry) -> list[ModelSpec]:
    """The models to run: each once, every base before what refines it."""
    ordered: dict[str, ModelSpec] = {}
    for spec in specs:
        chain = [spec]
        while refined := chain[0].refines:
            if refined in (s.name for s in chain):
                raise UserError(f"model {refined!r} refines itself")
            chain = [*registry.find("model", [refined]), *chain]
        ordered.update({s.name: s for s in chain if s.name not in ordered})
    return list(ordered.values())


def run_cells(session: Session, models: Sequence[ModelSpec], seeds: Sequence[int]) -> None:
    """Make every cell that is not done yet, bases first. A model that fails is a cell with its reason."""
    todo = [(s, m) for s in seeds for m in models if session.folder.outcome(m.name, s)["status"] != DONE]
    finished = len(seeds) * len(models) - len(todo)
    if finished:
        say(session, f"{finished} of {len(seeds) * len(models)} are done already in {session.folder.path}")
    session.accelerator.wait_for_everyone()  # nobody may save before everybody has seen what is missing
    for seed, spec in todo:
        with contextlib.ExitStack() as stack:
            # Entered before the work, so that a run that is killed leaves a trace of what it was at.
            main = session.accelerator.is_main_process
            place = stack.enter_context(session.folder.making(spec.name, seed)) if main else None
            made = _attempt(session, spec, seed)
            if place:
                save(place, made)
        say(session, "{model} seed {seed}: {status}".format(**made.record) + f" {made.record['reason'] or ''}".rstrip())
        session.accelerator.wait_for_everyone()


@dataclass
class Made:
    """A cell before it is saved; what a failed model did not get to stays None."""

    record: dict[str, Any]
    state: dict[str, torch.Tensor] | None = None
    losses: pd.DataFrame | None = None
    scores: pd.DataFrame | None = None
    samples: np.ndarray | None = None
    traceback: str | None = None

    def score(self, network: nn.Module, test: Images, registry: Registry) -> None:
        """Fill in the scores and the sample pictures."""
        device = next(iter(network.state_dict().values()), torch.empty(0)).device
        scores, self.samples = score_all(network, test, device, registry.specs["metric"].values(), SAMPLES)
        self.scores = _labelled(scores, self.record["model"], self.record["seed"])


def _labelled(frame: pd.DataFrame, model: str, seed: int) -> pd.DataFrame:
    return pd.concat([pd.DataFrame({"model": model, "seed": seed}, index=frame.index), frame], axis=1)


def _attempt(session: Session, spec: ModelSpec, seed: int) -> Made:
    made = Made(_identity(session, spec, seed))
    if spec.refines and (base := session.folder.outcome(spec.refines, seed))["status"] != DONE:
        made.record |= {
            "status": SKIPPED,
            "reason": f"its base {spec.refines} is not there: {base['reason']}",
        }
        return made
    try:
        _make(session, spec, seed, made)
        made.record["status"] = DONE
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise  # not the model's fault: the command ends, and takes the model up again next time
        made = Made(made.record, traceback=traceback.format_exc())
        made.record |= {"status": FAILED, "reason": " ".join(f"{type(error).__name__}: {error}".split())}
    return made


def _make(session: Session, spec: ModelSpec, seed: int, made: Made) -> None:
    device = session.accelerator.device
    base, width, stages = None, session.preset.width, tuple(spec.schedule(session.preset))
    if spec.refines:
        (base_spec,) = session.registry.find("model", [spec.refines])
        base = from_cell(session.folder, base_spec, seed, session.registry)
        made.record["base_sha256"] = session.folder.outcome(spec.refines, seed)["weights_sha256"]
    if spec.name in session.weights:
        width, stages = PUBLISHED_WIDTH, ()
    network = build(spec, width, session.preset.size, base, seed)
    if spec.name in session.weights:
        fill(network, session.weights[spec.name])
    network.to(device).to(memory_format=torch.channels_last)
    train, val, test = (session.data.splits[split] for split in ("train", "val", "test"))
    env = session.environment
    same = {key: env[key] for key in ("packages", "device", "precision", "processes")} | {
        "code": env["code"]["fingerprint"],
        "base": made.record["base_sha256"],
        "options": repr(spec.options),
    }
    resume = Checkpoint(session.folder.unfinished(spec.name, seed) / TRAINING, identity(same), device)
    name, batch_size = spec.parent or spec.name, session.preset.batch_size
    trainer = Trainer(network, train, val, session.accelerator, name, seed, batch_size, base, resume)
    made.losses = trainer.run(stages)
    made.record |= {
        "width": width,
        "stages": [_stage_record(stage, len(trainer.colorful)) for stage in stages],
        "seconds": round(trainer.seconds, 2),
        "images_seen": trainer.images_seen,
        "parameters": count_parameters(network, to_lab(test.pixels[:1], device)[0]),
        "notes": list(getattr(network, "notes", ())),
    }
    made.losses = _labelled(made.losses, spec.name, seed)
    made.score(network, test, session.registry)
    made.state = {key: value.cpu().contiguous() for key, value in trained_state(network, base).items()}


def _identity(session: Session, spec: ModelSpec, seed: int) -> dict[str, Any]:
    return {
        "model": spec.name,
        "seed": seed,
        "status": None,
        "reason": None,
        "summary": spec.summary,
        "origin": session.registry.origins["model", spec.name],
        "options": dict(spec.options),
        "refines": spec.refines,
        "base_sha256": None,
        "parent": spec.parent,
        "reference": spec.reference,
        "published": asdict(spec.published) if spec.published else None,
        "environment": identity(session.environment),
    }


def _stage_record(stage: Stage, available: int) -> dict[str, Any]:
    settings = {
        key: getattr(stage, key) for key in ("name", "epochs", "learning_rate", "betas", "weight_decay", "frozen")
    }
    images = min(stage.images or available, available)
    return settings | {"images": images, "decay": stage.decay.__name__, "settings": dict(stage.settings)}


def save(place: Path, made: Made) -> None:
    """Write a cell's files; its record last, so that it speaks only of what is there."""
    for name, frame in (("losses", made.losses), ("scores", made.scores)):
        if frame is not None:
            frame.to_csv(place / f"{name}.csv", index=False, float_format="%.8g")  # what float32 holds
    if made.state is not None:
        (place / "weights.pt").write_bytes(packed_tensors(made.state))
        made.record["weights_sha256"] = fingerprint(place / "weights.pt")
    if made.samples is not None:
        (place / "samples.npz").write_bytes(packed(predicted=made.samples))
    if made.traceback:
        (place / "traceback.txt").write_text(made.traceback)
    (place / "cell.json").write_text(json.dumps(made.record, indent=2) + "\n")


def packed(**arrays: Any) -> bytes:
    """The bytes of an .npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def say(session: Session, text: str) -> None:
    """One line of progress, from one process."""
    if session.accelerator.is_main_process:
        print(text, file=sys.stderr, flush=True)
