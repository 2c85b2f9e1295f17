"""`colorbench list`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from colorbench.cli.shared import plugin_option, print_rows

KINDS = ("models", "datasets", "metrics", "protocols", "degradations", "diagnostics", "presets", "plugins")


@click.command("list")
@click.argument("what", type=click.Choice(KINDS), default="models")
@plugin_option
def list_(what: str, plugins: Sequence[Path]) -> None:
    """List models (the default), datasets, metrics, protocols, degradations, diagnostics, presets or plugins.

    Of models, `--models all` leaves out ablations, which are MODEL/CHANGE, and those with "not in all".
    """
    from colorbench.plugins import load
    from colorbench.presets import PRESETS
    from colorbench.protocol import SCORES

    registry = load(plugins)
    if what == "presets":
        kinds = [f"{p.size} px, width {p.width:g}, {p.epochs} epoch{'s' * (p.epochs > 1)}" for p in PRESETS.values()]
        rows = [(p.name, p.summary, kind) for p, kind in zip(PRESETS.values(), kinds, strict=True)]
    elif what == "plugins":
        given = [f"BROKEN: {p.broken}" if p.broken else ", ".join(p.provides) for p in registry.plugins]
        # The longest last: a plugin may register fifty models.
        rows = [(p.name, p.origin, has or "registers nothing") for p, has in zip(registry.plugins, given, strict=True)]
    else:
        kind = what.removesuffix("s")
        specs = registry.specs[kind].items()
        rows = [(name, registry.origins[kind, name], _absence(s) or s.summary + _apart(s)) for name, s in specs]
        if what == "metrics":
            rows = [(name, "the protocol", summary) for name, summary in SCORES.items()] + rows
    print_rows(rows)


def _absence(spec: Any) -> str:
    """Why what is listed cannot be used here; "" if it can."""
    missing = getattr(spec, "missing", "")
    return f"MISSING: {missing}" if missing else ""


def _apart(spec: Any) -> str:
    return "" if getattr(spec, "in_all", True) or getattr(spec, "parent", None) else " (not in all)"
