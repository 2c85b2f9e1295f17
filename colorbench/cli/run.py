"""`colorbench run`"""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from colorbench.cli.shared import exit_if_failed, plugin_option
from colorbench.errors import UserError, refuse_unknown, refuse_unknown_data
from colorbench.plugins import Registry, load


@click.command(epilog="The same command again does only what is missing.")
@click.option("--models", default="all", metavar="NAMES", help="Names with commas between, or all (the default).")
@click.option("--ablations", metavar="NAMES", help="Also these ablations of the models, or all: no-prior,no-attention")
@click.option(
    "--data",
    default="portraits",
    metavar="DATA",
    help="A dataset, NAME:ARGUMENT, or a folder or zip of images.",
)
@click.option("--preset", default="quick", metavar="NAME", help="smoke, quick (the default) or paper.")
@click.option("--size", type=click.IntRange(16), help="Side of the images in pixels, instead of the preset's.")
@click.option("--width", type=click.FloatRange(0, min_open=True), help="Factor on every network's channels.")
@click.option("--epochs", type=click.IntRange(1), help="Epochs of a single-stage model; longer schedules scale along.")
@click.option("--batch-size", type=click.IntRange(1), help="Images in a training step, over all processes.")
@click.option("--seed", "seeds", type=click.IntRange(0), multiple=True, help="0 unless given; may be repeated.")
@click.option("--weights", multiple=True, metavar="MODEL=FILE", help="Published weights: the model is not trained.")
@click.option("--out", metavar="FOLDER", help="The run folder; results/DATA-PRESET unless given.")
@click.option("--no-timing", is_flag=True, help="Leave out the throughput timings.")
@plugin_option
def run(
    models: str, ablations: str | None, data: str, preset: str, seeds: Sequence[int], weights: Sequence[str],
    out: str | None, no_timing: bool, plugin_files: Sequence[str], **overrides: Any,
) -> None:  # fmt: skip
    """Train, score and compare models.

    \b
    colorbench run --models all
    colorbench run --models MODEL,MODEL --data photos.zip --preset paper --seed 0 --seed 1
    """
    from colorbench.presets import PRESETS

    registry = load(plugin_files)
    for plugin in registry.plugins:
        if plugin.broken:
            click.echo(f"plugin {plugin.name} is broken and left out: {plugin.broken}", err=True)
    names = [n for n, s in registry.specs["model"].items() if not s.parent] if models == "all" else _listed(models)
    names += _ablations(ablations, names, registry) if ablations else []
    files = _weights(weights)
    _refuse_all(
        lambda: registry.find("model", [*names, *(name for name in files if name not in names)]),
        lambda: refuse_unknown("preset", [preset], PRESETS),
        lambda: refuse_unknown_data(data, registry.specs["dataset"]),
    )
    chosen = replace(PRESETS[preset], **{key: value for key, value in overrides.items() if value is not None})

    from colorbench import report
    from colorbench.data.cache import decode_all
    from colorbench.data.splits import label, open_splits
    from colorbench.harness.device import accelerator
    from colorbench.harness.run import Session, run_cells, with_needed
    from colorbench.harness.throughput import time_models
    from colorbench.runs.folder import RunFolder

    specs, seeds = with_needed(registry.find("model", names), registry), tuple(dict.fromkeys(seeds)) or (0,)
    device, folder = accelerator(), RunFolder(out or Path("results", f"{label(data)}-{preset}"))
    with folder.held() if device.is_main_process else contextlib.nullcontext():
        with device.main_process_first():  # the others then find the images decoded
            splits = open_splits(data, registry, {"train": chosen.train, "val": chosen.val, "test": chosen.test})
            images = decode_all(data, splits, chosen.size)
        session = Session(folder, registry, images, chosen, device, files)
        session.begin(specs, seeds, shlex.join(["colorbench", *sys.argv[1:]]))
        run_cells(session, specs, seeds)
        if not device.is_main_process:
            return
        if not no_timing:
            time_models(session, specs, seeds, plugin_files)
        click.echo(report.write(folder))
        click.echo(f"in {folder.path}", err=True)
    exit_if_failed(folder.outcome(spec.name, seed) for seed in seeds for spec in specs)


def _listed(text: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise UserError(f"{text!r} names nothing; say all, or names with commas between")
    return names


def _ablations(text: str, models: Sequence[str], registry: Registry) -> list[str]:
    """The full names of the ablations of `models`: of all, or of the changes that `text` lists."""
    changes: dict[str, list[str]] = {}
    for name, spec in registry.specs["model"].items():
        if spec.parent in models:
            changes.setdefault(name.removeprefix(f"{spec.parent}/"), []).append(name)
    if not changes:
        raise UserError(f"there is no ablation of {', '.join(models)}; leave out --ablations, or name other --models")
    wanted = list(changes) if text == "all" else _listed(text)
    refuse_unknown(f"ablation of {', '.join(models)}:", wanted, changes)
    return [name for change in wanted for name in changes[change]]


def _weights(pairs: Sequence[str]) -> dict[str, Path]:
    split = [pair.partition("=") for pair in pairs]
    if wrong := [pair for pair, (name, _, file) in zip(pairs, split, strict=True) if not name or not file]:
        raise UserError(f"--weights {', '.join(wrong)}: say MODEL=FILE")
    return {name: Path(file) for name, _, file in split}


def _refuse_all(*checks: Callable[[], Any]) -> None:
    """Run every check and raise all that they say at once: nobody wants to mend a command one word at a time."""
    problems = []
    for check in checks:
        try:
            check()
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("; ".join(problems))
