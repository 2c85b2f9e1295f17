"""The laws of the contract as functions: what a plugin has to keep, checked in seconds on a CPU.

The same laws are behind `colorbench check` and `pytest --colorbench`. Each function returns a `Check` per law:

    assert [check for check in check_model(spec) if not check.passed] == []
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from colorbench.testing.laws import Check, examine

if TYPE_CHECKING:
    from colorbench.contract import DatasetSpec, DiagnosticSpec, MetricSpec, ModelSpec
    from colorbench.plugins import Registry
    from colorbench.protocol import Protocol

__all__ = ["Check", "check_dataset", "check_diagnostic", "check_metric", "check_model", "check_protocol"]


def check_model(spec: ModelSpec, registry: Registry | None = None) -> list[Check]:
    """Build, train and ask a model at toy scale, with an untrained base if it refines one.

    That base is looked up in `registry`, among the installed plugins unless another is given.
    """
    from colorbench.testing import models, toy

    return examine(models.LAWS, toy.Model(spec, registry))


def check_dataset(spec: DatasetSpec, argument: str = "") -> list[Check]:
    """Open a dataset as `--data NAME:ARGUMENT` does, and load some of its pictures.

    If it needs an argument and none is given, only how it says so is checked.
    """
    from colorbench.testing import datasets

    return examine(datasets.LAWS, datasets.Dataset(spec, argument))


def check_metric(spec: MetricSpec) -> list[Check]:
    """Compute a metric on toy pictures. One that says what it is `missing` is not computed: nothing is checked."""
    from colorbench.testing import metrics

    return examine(metrics.LAWS, metrics.Metric(spec))


def check_protocol(protocol: Protocol, registry: Registry | None = None) -> list[Check]:
    """Score toy pictures under a protocol, whose id no other protocol of `registry` may have."""
    from colorbench.testing import protocols

    return examine(protocols.LAWS, protocols.Subject(protocol, registry))


def check_diagnostic(spec: DiagnosticSpec) -> list[Check]:
    """Compute the terms of a diagnostic on toy pictures, and its statistics. Its figure is not drawn."""
    from colorbench.testing import diagnostics

    return examine(diagnostics.LAWS, diagnostics.Diagnostic(spec))
