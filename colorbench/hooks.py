"""The plugin hooks. A plugin is a module with any of these functions, marked `@hookimpl`."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pluggy

from colorbench.contract import DatasetSpec, DiagnosticSpec, MetricSpec, ModelSpec
from colorbench.protocol import Protocol

hookspec, hookimpl = pluggy.HookspecMarker("colorbench"), pluggy.HookimplMarker("colorbench")


@hookspec
def register_models(register: Callable[[ModelSpec], None]) -> None:
    """Call `register` once for each model; `register(spec.variant(...))` adds an ablation."""


@hookspec
def register_datasets(register: Callable[[DatasetSpec], None]) -> None:
    """Call `register` once for each dataset that `--data` shall know by name."""


@hookspec
def register_metrics(register: Callable[[MetricSpec], None], files: Mapping[str, Path]) -> None:
    """Call `register` once for each further score, per image or over the set.

    `files` has what `--weights NAME=FILE` gives, by name; leave the argument out if no metric of yours takes any.
    """


@hookspec
def register_protocols(register: Callable[[Protocol], None]) -> None:
    """Call `register` once for each protocol that `--protocol` shall know by name."""


@hookspec
def register_diagnostics(register: Callable[[DiagnosticSpec], None]) -> None:
    """Call `register` once for each diagnostic: what is computed beside the scores, its table, its figure."""
