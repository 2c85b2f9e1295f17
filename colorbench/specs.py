"""What can be registered, and what tables and records can hold of it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from colorbench.contract import (
    DIAGNOSTIC_NAME,
    MODEL_NAME,
    DatasetSpec,
    DegradationSpec,
    DiagnosticSpec,
    MetricSpec,
    ModelSpec,
    Published,
    Statistic,
)  # fmt: skip
from colorbench.errors import one_line, reason
from colorbench.protocol import NO_DEGRADATION, SCORES, Protocol

Name = Annotated[str, msgspec.Meta(pattern=rf"^{MODEL_NAME}\Z")]
# What a record says of a model in the model's own words, and what it can hold of it.
RECORDED: Mapping[str, Any] = {
    "refines": Name | None,
    "trained_as": Name | None,
    "parent": Name | None,
    "reference": bool,
    "anchor": Literal["", "floor", "bound"],
    "sees_truth": bool,
    "published": Published | None,
}
KINDS: dict[str, Any] = {
    "model": ModelSpec, "dataset": DatasetSpec, "metric": MetricSpec, "protocol": Protocol,
    "degradation": DegradationSpec, "diagnostic": DiagnosticSpec,
}  # fmt: skip
OWN_FIGURES = ("losses", "losses-ablations", "pictures", "series")
# The columns of the report's tables, which no metric can be called.
COLUMNS = re.compile(
    r"(.*_)?(low|high|infinite|percent|pooled|batch8|gain|sd|p|verdict|asked|done|seen)|(train|infer|peak|data|protocol)_.*"
    r"|model|data|protocol|status|kept|made|trained|images|reference|base|parent|parameters|macs|training_seconds|batch_n|unreliable"
    r"|stage|epoch|component|split|metric"
    r"|skill|val_mse|selected|sees_truth|given|preset|size|width|epochs|batch_size|seeds|environments?|device|precision"
    r"|commits?"
)


def is_metric_name(name: str) -> bool:
    """Whether a column can be called that, and no other column is."""
    return re.fullmatch("[a-z][a-z0-9_]*", name) is not None and not COLUMNS.fullmatch(name)


def refuse_misfit(kind: str, spec: Any) -> None:
    """Raises TypeError or ValueError for a spec that tables and records could not hold."""
    due = KINDS[kind]
    # A protocol is data: one with code of its own could say that it is another than it is.
    if not (type(spec) is due if kind == "protocol" else isinstance(spec, due)):
        raise TypeError(f"{type(spec).__name__} was registered as a {kind}; {due.__name__} is due")
    for field in ("name", "summary"):
        text = getattr(spec, field)
        if not isinstance(text, str) or text != one_line(text):
            raise ValueError(f"the {field} of {kind} {spec.name!r} is {text!r}; one line of plain text is due")
    if kind == "model":
        _refuse_unrecorded(spec)
    if kind == "protocol" and (spec.name == "all" or not re.fullmatch("[a-z0-9][a-z0-9.-]*", spec.name)):
        raise ValueError(f"protocol {spec.name!r}: call it by lower-case letters, digits, dashes and dots, not all")
    if kind == "metric":
        _refuse_misfit_metric(spec)
    if kind == "degradation":
        _refuse_misfit_degradation(spec)
    if kind == "diagnostic":
        _refuse_misfit_diagnostic(spec)


def _refuse_unrecorded(spec: ModelSpec) -> None:
    """Raises ValueError for a model whose record could be written, once it is trained, and not be read again."""
    try:
        for field, due in RECORDED.items():
            msgspec.convert(msgspec.to_builtins(getattr(spec, field)), due)
    except (TypeError, ValueError) as error:  # msgspec's errors are ValueErrors
        raise ValueError(f"model {spec.name!r}: no record can hold its {field} ({reason(error)})") from error


def _refuse_misfit_metric(spec: MetricSpec) -> None:
    if not is_metric_name(spec.name):
        raise ValueError(f"metric {spec.name!r}: name it in lower-case letters, digits and _, as no column is named")
    for field, choices in (("better", ("lower", "higher", "zero", "")), ("space", ("rgb", "lab"))):
        if (value := getattr(spec, field)) not in choices:
            known = ", ".join(map(repr, choices))
            raise ValueError(f"metric {spec.name!r}: {field} is {value!r}; it has to be one of {known}")
    named = isinstance(spec.compute, tuple | list) and spec.reduce and {*spec.compute} <= {*SCORES}
    if not (named or callable(spec.compute)):
        raise ValueError(f"metric {spec.name!r}: compute is neither a function nor scores for `reduce` to join")
    if isinstance(spec.takes, str) or not all(isinstance(name, str) for name in spec.takes):
        raise ValueError(f"metric {spec.name!r}: takes is {spec.takes!r}; give names of arrays, such as ('depth',)")
    if isinstance(spec.notes, str) or not all(isinstance(text, str) for text in (*spec.notes, spec.missing)):
        raise ValueError(f"metric {spec.name!r}: notes is not a sequence of text, or missing is not text")


def _refuse_misfit_degradation(spec: DegradationSpec) -> None:
    name = f"degradation {spec.name!r}"
    if not re.fullmatch(DIAGNOSTIC_NAME, spec.name) or spec.name in ("all", NO_DEGRADATION):
        raise ValueError(f"{name}: call it by lower-case letters, digits and dashes, but not all or none")
    numbers = [isinstance(each, int | float) and 0 < each < math.inf for each in spec.strengths]
    if not numbers or not all(numbers) or [*spec.strengths] != sorted(spec.strengths):
        raise ValueError(f"{name}: strengths is {spec.strengths!r}; give numbers above 0, the least first")
    if not callable(spec.apply):
        raise ValueError(f"{name}: apply has to be a function")


def _refuse_misfit_diagnostic(spec: DiagnosticSpec) -> None:
    name = f"diagnostic {spec.name!r}"
    if not re.fullmatch(DIAGNOSTIC_NAME, spec.name) or spec.name in OWN_FIGURES:
        raise ValueError(f"{name}: call it by lower-case letters, digits and dashes, but not {', '.join(OWN_FIGURES)}")
    if spec.terms is None and spec.draw is None and not spec.statistics:
        raise ValueError(f"{name} has neither terms nor statistics nor draw; give one of them")
    if not callable(spec.statistics) and not all(isinstance(each, Statistic) for each in spec.statistics):
        raise ValueError(f"{name}: statistics is neither a sequence of Statistic nor a function that returns one")
    if spec.page not in ("details", "comparison", "ablations"):
        raise ValueError(f"{name}: page is {spec.page!r}; it has to be 'details', 'comparison' or 'ablations'")
    texts = (spec.table, spec.gains, spec.summed, spec.caption, *(() if callable(spec.notes) else spec.notes))
    if isinstance(spec.notes, str) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name}: table, gains, summed and caption have to be text, and notes a sequence of text")
