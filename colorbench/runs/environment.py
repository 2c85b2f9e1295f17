"""Where a result was made: packages, hardware, and the state of the code."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, distribution, entry_points, version
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import psutil

from colorbench.plugins import Plugin
from colorbench.runs.records import Code, Environment

PACKAGES = ("colorbench", "torch", "torchvision", "accelerate", "numpy", "pandas", "pillow")


def environment(plugins: Iterable[Plugin], device: Mapping[str, Any]) -> Environment:
    """Python, packages, hardware and code; `device` is what `colorbench.harness.device.describe` says."""
    return Environment(
        python=platform.python_version(),
        system=platform.platform(),
        packages={name: _version(name) for name in PACKAGES},
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        memory_gib=round(psutil.virtual_memory().total / 2**30),
        code=code(plugins),
        **device,
    )


def code(plugins: Iterable[Plugin]) -> Code:
    """A hash over the Python files of colorbench and of every plugin, and the commit they came from.

    The commit is that of the folder which pip installed colorbench from, None where there is none; `dirty` says
    whether it had uncommitted changes, or has gone on since: other files than those that run.
    """
    ours = {"colorbench": _home("colorbench")}
    others: dict[str, Path | None] = {}
    for entry in entry_points(group="colorbench"):
        mine = entry.dist is not None and entry.dist.name == "colorbench"
        (ours if mine else others)[entry.module] = _home(entry.module)
    others |= {plugin.source: Path(plugin.source) for plugin in plugins if plugin.source.endswith(".py")}
    commit = dirty = None
    if (source := _source()) and (commit := _git(source, "rev-parse", "HEAD")):
        places = {name: (source / name, source / "plugins" / name) for name in ours}
        there = {name: next(filter(Path.exists, place), None) for name, place in places.items()}
        dirty = bool(_git(source, "status", "--porcelain")) or _hash(there) != _hash(ours)
    return Code(_hash(ours | others), commit, dirty)


def _home(module: str) -> Path | None:
    """The folder of a package, the file of a module; None for one that cannot be found."""
    try:
        spec = importlib.util.find_spec(module)
    except ImportError:
        return None
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)


def _hash(homes: Mapping[str, Path | None]) -> str:
    digest = hashlib.sha256()
    for name, home in sorted(homes.items()):
        if home is None:
            continue
        for file in sorted(home.rglob("*.py")) if home.is_dir() else [home]:
            named = f"{Path(name).name}/{'/'.join(file.parts[len(home.parts) :])}"
            digest.update(named.encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def _source() -> Path | None:
    """The folder that pip installed colorbench from (PEP 610), if it was a folder."""
    try:
        text = distribution("colorbench").read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    url = urlparse(json.loads(text)["url"]) if text else None
    return Path(unquote(url.path)) if url and url.scheme == "file" else None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None  # no git, or no checkout: the record then says so with a null
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
