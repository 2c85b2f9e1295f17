"""The plugin hooks. A plugin is a module with one or more of these functions, marked `@hookimpl`."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pluggy

from colorbench.contract import DatasetSpec, DegradationSpec, DiagnosticSpec, MetricSpec, ModelSpec
from colorbench.protocol import Protocol

hookspec, hookimpl = pluggy.HookspecMarker("colorbench"), pluggy.HookimplMarker("colorbench")


@hookspec
def register_models(register: Callable[[ModelSpec], None]) -> None:
    """Call `register` once per model; `register(spec.variant(...))` adds an ablation."""


@hookspec
def register_datasets(register: Callable[[DatasetSpec], None]) -> None:
    """Call `register` once per dataset that `--data` can name."""


@hookspec
def register_metrics(register: Callable[[MetricSpec], None], files: Mapping[str, Path]) -> None:
    """Call `register` once per additional score, per image or over the set.

    `files` has the files given by `--weights NAME=FILE`, by name; omit the argument if your metrics use none.
    """


@hookspec
def register_protocols(register: Callable[[Protocol], None]) -> None:
    """Call `register` once per protocol that `--protocol` can name."""


@hookspec
def register_degradations(register: Callable[[DegradationSpec], None]) -> None:
    """Call `register` once per kind of damage that a protocol's `degradation` can name."""


@hookspec
def register_diagnostics(register: Callable[[DiagnosticSpec], None]) -> None:
    """Call `register` once per diagnostic: terms computed along with the scores, a table, a figure."""
