"""The trained models of a run, scored on other images."""

from __future__ import annotations

from colorbench.data.cache import decode_all
from colorbench.data.splits import label, open_splits
from colorbench.errors import UserError
from colorbench.harness.device import accelerator, describe
from colorbench.harness.load import from_cell
from colorbench.harness.run import Made, open_record, save
from colorbench.plugins import Registry
from colorbench.protocol import protocol_id
from colorbench.runs.environment import environment, identity
from colorbench.runs.folder import DONE, RunFolder


def evaluate_run(run: RunFolder, data: str, out: str | None, registry: Registry, command: str) -> RunFolder:
    """Score every finished cell of `run` on the test images of `data`, at the run's size and under its protocol.

    Returns the run folder that holds the scores, `out` or a folder inside `run`; a model that fails on them is a cell
    with its reason. Raises UserError when the run was made under another protocol, has nothing finished, or holds a
    model that is not installed.
    """
    record = run.record
    if record["protocol"]["id"] != protocol_id():
        raise UserError(
            f"{run.path} was made under protocol {record['protocol']['id']}, this is {protocol_id()}; "
            "train it again to compare under one protocol"
        )
    cells = [outcome for outcome in run.outcomes() if outcome["status"] == DONE]
    if not cells:
        raise UserError(f"{run.path} has no finished model to evaluate; finish the run first")
    specs = {spec.name: spec for spec in registry.find("model", dict.fromkeys(cell["model"] for cell in cells))}
    seen = set((run.path / "trained_on.txt").read_text().split())
    target = RunFolder(out or run.path / "evaluations" / label(data))
    with target.held():
        device = accelerator()
        preset = record["preset"] | {"test": None}
        images = decode_all(data, open_splits(data, registry, {"test": None}), preset["size"])
        env = {**environment(registry.plugins), **describe(device)}
        source = {"run": run.path.resolve().name, **{key: record["data"][key] for key in ("name", "fingerprint")}}
        source["seen"] = sum(digest in seen for digest in images.splits["test"].digests)
        asked = [(cell["model"], cell["seed"]) for cell in cells]
        open_record(target, images, preset, record["weights"], asked, command, env, trained=source)
        for cell in cells:
            model, seed = cell["model"], cell["seed"]
            there = target.outcome(model, seed)
            if there["status"] == DONE and there["weights_sha256"] == cell["weights_sha256"]:
                continue
            made = Made(cell | {"environment": identity(env)})
            with made.attempt():
                network = from_cell(run, specs[model], seed, registry).to(device.device)
                made.score(network, images.splits["test"], registry, device.device)
            with target.making(model, seed) as place:
                save(place, made)
    return target
