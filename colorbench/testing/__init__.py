"""The laws of the contract as functions: rules that a plugin must follow, checked in seconds on a CPU.

`colorbench check` and `pytest --colorbench` use the same laws. Each function returns one `Check` per law:

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
    """Build, train and run a model at toy scale, with an untrained base if it refines one.

    The base is looked up in `registry`, by default among the installed plugins.
    """
    from colorbench.testing import models, toy

    return examine(models.LAWS, toy.Model(spec, registry))


def check_dataset(spec: DatasetSpec, argument: str = "") -> list[Check]:
    """Open a dataset as `--data NAME:ARGUMENT` does, and load some of its pictures.

    If the dataset needs an argument and none is given, only its error message is checked.
    """
    from colorbench.testing import datasets

    return examine(datasets.LAWS, datasets.Dataset(spec, argument))


def check_metric(spec: MetricSpec) -> list[Check]:
    """Compute a metric on toy pictures. If `missing` is set, it is not computed and nothing is checked."""
    from colorbench.testing import metrics

    return examine(metrics.LAWS, metrics.Metric(spec))


def check_protocol(protocol: Protocol, registry: Registry | None = None) -> list[Check]:
    """Score toy pictures under a protocol. No other protocol of `registry` may have its id."""
    from colorbench.testing import protocols

    return examine(protocols.LAWS, protocols.Subject(protocol, registry))


def check_diagnostic(spec: DiagnosticSpec) -> list[Check]:
    """Compute the terms and the statistics of a diagnostic on toy pictures. Its figure is not drawn."""
    from colorbench.testing import diagnostics

    return examine(diagnostics.LAWS, diagnostics.Diagnostic(spec))
