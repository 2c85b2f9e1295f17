"""colorbench trains and compares image colorization models on one harness, under one written protocol.

Names are imported on first use: `import colorbench` costs no torch.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "hookimpl": "colorbench.hooks",
    **dict.fromkeys(
        (
            "Batch", "DatasetSpec", "DiagnosticSpec", "MetricSpec", "ModelSpec", "Picture", "Preset", "Published",
            "Stage", "Statistic", "Update", "constant", "cosine", "half_then_linear", "ratio",
        ),
        "colorbench.contract",
    ),
    **dict.fromkeys(("rgb_to_lab", "lab_to_rgb"), "colorbench.color"),
    "Protocol": "colorbench.protocol",
    "score": "colorbench.metrics",
    "load_model": "colorbench.harness.trained",
}  # fmt: skip
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'colorbench' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
