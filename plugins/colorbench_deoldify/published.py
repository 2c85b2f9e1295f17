"""The names of the released files as those of this network."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

RENAMED = (
    (r"^layers\.0\.", "encoder."),
    (r"^layers\.1\.", "norm."),
    (r"^layers\.3\.", "middle."),
    (r"^layers\.([4-7])\.", lambda found: f"decoder.{int(found[1]) - 4}."),
    (r"^layers\.8\.conv\.0\.", "last_up.conv."),
    (r"^layers\.10\.layers\.(\d)\.0\.", r"refine.\1."),
    (r"^layers\.11\.0\.", "out."),
    (r"\.shuf\.", ".up."),
    (r"\.bn\.", ".norm."),
    (r"\.weight_orig$", ".parametrizations.weight.original"),
    (r"\.weight_u$", ".parametrizations.weight.0._u"),
    (r"^last_up\.conv\.weight_g$", "last_up.conv.parametrizations.weight.original0"),
    (r"^last_up\.conv\.weight_v$", "last_up.conv.parametrizations.weight.original1"),
    (r"\.weight_v$", ".parametrizations.weight.0._v"),
)


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A released state dict -> that of `DeOldify`, but for the critic."""
    converted = {}
    for name, tensor in state.items():
        for pattern, new in RENAMED:
            name = re.sub(pattern, new, name)
        converted[f"generator.{name}"] = tensor
    return converted
