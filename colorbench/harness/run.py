"""A whole run: every model and seed that is still missing is trained, scored and saved, one cell at a time."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
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
from colorbench.errors import DISK_FULL, UserError, refuse_unknown
from colorbench.harness.checkpoint import Checkpoint
from colorbench.harness.device import describe
from colorbench.harness.load import (
    PUBLISHED_WIDTH,
    build,
    build_published,
    count_parameters,
    fingerprint,
    from_cell,
    packed_tensors,
    trained_state,
    with_weights_of,
)  # fmt: skip
from colorbench.harness.predict import Scored, colorize, score_all, to_lab, to_pixels, to_rgb
from colorbench.harness.train import Trainer, available_to
from colorbench.metrics import score
from colorbench.plugins import Registry
from colorbench.protocol import PROTOCOL, protocol_id
from colorbench.runs.environment import environment, identity
from colorbench.runs.folder import DONE, FAILED, SKIPPED, TRAINING, RunFolder, write_aside

SAMPLES, WORST = 16, 4  # test images kept as pictures: the first, and those of the largest MSE


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
        self.environment = {**environment(registry.plugins), **describe(accelerator)}

    def begin(self, models: Sequence[ModelSpec], seeds: Sequence[int], command: str) -> None:
        """Check what can be checked before the first hour of training, and write the record.

        Raises UserError for weights that do not fit, a metric that fails, or a folder made under another protocol,
        data or setting.
        """
        names, weights = [spec.name for spec in models], {}
        refuse_unknown("model for --weights among those that run", self.weights, names)
        for name, file in self.weights.items():
            (spec,) = self.registry.find("model", [name])
            build_published(spec, self.preset.size, file)
            weights[name] = {"file": file.name, "sha256": fingerprint(file)}
        self._try_metrics()
        if self.accelerator.is_main_process:
            preset = {key: value for key, value in asdict(self.preset).items() if key != "summary"}
            cells = [(name, seed) for name in names for seed in seeds]
            open_record(self.folder, self.data, preset, weights, cells, command, self.environment)
            write_aside(self.folder.path / "trained_on.txt", "\n".join(self.data.splits["train"].digests) + "\n")

    def is_done(self, spec: ModelSpec, seed: int) -> bool:
        """Whether the cell is finished, on the base and from the weights of other models that the run holds now."""
        outcome = self.folder.outcome(spec.name, seed)
        return outcome["status"] == DONE and all(
            outcome[key] == self.folder.outcome(other, seed).get("weights_sha256")
            for key, other in (("base_sha256", spec.refines), ("weights_sha256", spec.trained_as))
            if other
        )

    def _try_metrics(self) -> None:
        truth = to_rgb(self.data.splits["test"].pixels[:1], torch.device("cpu"))
        for metric in self.registry.specs["metric"].values():
            try:
                score(truth, truth, [metric])
            except Exception as error:  # whatever a plugin raises, it shall not cost a training
                reason = f"{type(error).__name__}: {error}"
                raise UserError(f"the metric {metric.name!r} fails ({reason}); mend or remove its plugin") from error


def open_record(
    folder: RunFolder, data: Data, preset: Mapping[str, Any], weights: Mapping[str, Any],
    cells: Sequence[tuple[str, int]], command: str, env: dict[str, Any], trained: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Write a run folder's record and its sample pictures; `trained` tells of the run that the weights are from.

    Raises UserError if the folder was made under other conditions.
    """
    common = {
        "protocol": {"id": protocol_id(), **PROTOCOL},
        "data": data.record(),
        "preset": dict(preset),
        "weights": dict(weights),
        "trained": trained,
    }
    folder.begin(common, cells, command, env)
    test = data.splits["test"]
    truth = test.pixels[:SAMPLES]
    L, ab = to_lab(truth, torch.device("cpu"))
    grey = to_pixels(recombine(L, torch.zeros_like(ab)))
    parts = {} if test.parts is None else {"parts": test.parts[:SAMPLES], "part_names": test.part_names}
    write_aside(folder.path / "samples.npz", packed(names=test.names[:SAMPLES], truth=truth, grey=grey, **parts))


def with_needed(specs: Sequence[ModelSpec], registry: Registry) -> list[ModelSpec]:
    """The models to run, each once; before each what it refines and whose weights it takes, if that is installed."""
    ordered: dict[str, ModelSpec] = {}

    def add(spec: ModelSpec, needed_by: tuple[str, ...]) -> None:
        if spec.name in needed_by:
            raise UserError(f"model {spec.name!r} refines itself, or takes its own weights")
        for name in (spec.refines, spec.trained_as):
            if other := registry.specs["model"].get(name or ""):
                add(other, (*needed_by, spec.name))
        ordered.setdefault(spec.name, spec)

    for spec in specs:
        add(spec, ())
    return list(ordered.values())


def run_cells(session: Session, models: Sequence[ModelSpec], seeds: Sequence[int]) -> None:
    """Make every cell that is not done yet, bases first. A model that fails is a cell with its reason."""
    kept = sum(session.is_done(spec, seed) for seed in seeds for spec in models)
    if kept:
        say(session, f"{kept} of {len(seeds) * len(models)} are done already in {session.folder.path}")
    for seed, spec in itertools.product(seeds, models):
        done = session.is_done(spec, seed)
        session.accelerator.wait_for_everyone()  # nobody may save before everybody has seen what is missing
        if done:
            continue
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
    scored: Scored | None = None
    traceback: str | None = None

    def score(self, network: nn.Module, test: Images, registry: Registry, device: torch.device) -> None:
        """Fill in the scores and the sample pictures."""
        scored = score_all(network, test, device, registry.specs["metric"].values(), SAMPLES, WORST)
        label = self.record["model"], self.record["seed"]
        self.scored = Scored(_labelled(scored.scores, *label), _labelled(scored.details, *label), scored.samples)

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """The cell is done if the block ends without an exception; else it has failed, and keeps the reason alone.

        Raises the OSError of a full disk.
        """
        try:
            yield
            self.record["status"] = DONE
        except Exception as error:
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                raise  # not the model's fault: the command ends, and takes the model up again next time
            self.state = self.losses = self.scored = None
            self.traceback = traceback.format_exc()
            self.record |= {"status": FAILED, "reason": " ".join(f"{type(error).__name__}: {error}".split())}


def _labelled(frame: pd.DataFrame, model: str, seed: int) -> pd.DataFrame:
    return pd.concat([pd.DataFrame({"model": model, "seed": seed}, index=frame.index), frame], axis=1)


def _attempt(session: Session, spec: ModelSpec, seed: int) -> Made:
    made = Made(_identity(session, spec, seed))
    for role, needed in (("its base", spec.refines), ("the model whose weights it takes,", spec.trained_as)):
        if needed and (missing := _why_missing(session, needed, seed)):
            made.record |= {"status": SKIPPED, "reason": f"{role} {needed} {missing}"}
            return made
    with made.attempt():
        _make(session, spec, seed, made)
    return made


def _why_missing(session: Session, model: str, seed: int) -> str | None:
    if model not in session.registry.specs["model"]:
        return "is not installed"
    outcome = session.folder.outcome(model, seed)
    return None if outcome["status"] == DONE else f"is not there: {outcome['reason']}"


def _make(session: Session, spec: ModelSpec, seed: int, made: Made) -> None:
    device = session.accelerator.device
    base, width, stages = None, session.preset.width, tuple(spec.schedule(session.preset))
    if spec.refines:
        (base_spec,) = session.registry.find("model", [spec.refines])
        base = from_cell(session.folder, base_spec, seed, session.registry)
        made.record["base_sha256"] = session.folder.outcome(spec.refines, seed)["weights_sha256"]
    if spec.name in session.weights:
        width, stages = PUBLISHED_WIDTH, ()
        network = build_published(spec, session.preset.size, session.weights[spec.name])
    elif spec.trained_as:
        width, stages = session.folder.outcome(spec.trained_as, seed)["width"], ()
        network = with_weights_of(session.folder, spec.trained_as, seed, spec, base)
    else:
        network = build(spec, width, session.preset.size, base, seed)
    network.to(device).to(memory_format=torch.channels_last)
    train, val, test = (session.data.splits[split] for split in ("train", "val", "test"))
    env = session.environment
    same = {key: env[key] for key in ("packages", "device", "precision", "processes")} | {
        "code": env["code"]["fingerprint"],
        "base": made.record["base_sha256"],
        "options": repr(spec.options),
    }
    resume = Checkpoint(session.folder.unfinished(spec.name, seed) / TRAINING, identity(same), device)
    batch_size = session.preset.batch_size
    trainer = Trainer(network, train, val, session.accelerator, spec, seed, batch_size, base, resume)
    L, _ = to_lab(test.pixels[:1], device)
    colorize(network, L)  # what breaks the contract shall not train for a day first
    made.losses = trainer.run(stages)
    made.record |= {
        "width": width,
        "stages": [_stage_record(stage, trainer.colorful) for stage in stages],
        "seconds": round(trainer.seconds, 2),
        "images_seen": trainer.images_seen,
        "parameters": count_parameters(network, L),
        "notes": list(getattr(network, "notes", ())),
    }
    if spec.trained_as:  # what its weights cost, though not by itself
        trained = session.folder.outcome(spec.trained_as, seed)
        made.record |= {key: trained[key] for key in ("stages", "seconds", "images_seen")}
    made.losses = _labelled(made.losses, spec.name, seed)
    made.score(network, test, session.registry, device)
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
        "trained_as": spec.trained_as,
        "parent": spec.parent,
        "reference": spec.reference,
        "published": asdict(spec.published) if spec.published else None,
        "environment": identity(session.environment),
    }


def _stage_record(stage: Stage, colorful: np.ndarray) -> dict[str, Any]:
    settings = {
        key: getattr(stage, key)
        for key in ("name", "epochs", "learning_rate", "betas", "weight_decay", "frozen", "average", "rolling", "part")
    }
    images = len(available_to(stage, colorful)[: stage.images])
    return settings | {"images": images, "decay": stage.decay.__name__, "settings": dict(stage.settings)}


def save(place: Path, made: Made) -> None:
    """Write a cell's files; its record last, so that it speaks only of what is there."""
    frames = {"losses": made.losses}
    if made.scored is not None:
        frames |= {"scores": made.scored.scores, "details": made.scored.details}
        (place / "samples.npz").write_bytes(packed(**made.scored.samples))
    for name, frame in frames.items():
        if frame is not None:
            frame.to_csv(place / f"{name}.csv", index=False, float_format="%.8g")  # what float32 holds
    if made.state is not None:
        (place / "weights.pt").write_bytes(packed_tensors(made.state))
        made.record["weights_sha256"] = fingerprint(place / "weights.pt")
    if made.traceback:
        (place / "traceback.txt").write_text(made.traceback)
    # A plugin's options may be anything: what JSON does not know is written as Python prints it.
    (place / "cell.json").write_text(json.dumps(made.record, indent=2, default=str) + "\n")


def packed(**arrays: Any) -> bytes:
    """The bytes of an .npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def say(session: Session, text: str) -> None:
    """One line of progress, from one process."""
    if session.accelerator.is_main_process:
        print(text, file=sys.stderr, flush=True)
