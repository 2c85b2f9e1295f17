"""What made a result: packages, hardware, and the code itself."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, distribution, entry_points, version
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

PACKAGES = ("colorbench", "torch", "torchvision", "accelerate", "piq", "numpy", "pandas", "pillow")


def environment() -> dict[str, Any]:
    """Python, packages, hardware (without accelerators, which the harness adds) and code."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "code": code(),
    }


def code() -> dict[str, Any]:
    """A hash over the Python files of colorbench and of every plugin's package, and the commit they came from.

    The commit is that of the checkout which was installed from, None where there is none; `dirty` says
    whether it had uncommitted changes, or files that differ from those that run.
    """
    root = Path(__file__).parents[1]
    packages = {root, *(root.parent / e.value.split(".")[0] for e in entry_points(group="colorbench"))}
    digest = hashlib.sha256()
    for file in sorted((f for p in packages for f in p.rglob("*.py")), key=lambda f: (f.parent.name, f.name)):
        digest.update(file.name.encode() + file.read_bytes())
    source = _source() or root.parent
    commit = _git(source, "rev-parse", "HEAD")
    return {
        "fingerprint": digest.hexdigest()[:12],
        "commit": commit,
        "dirty": bool(_git(source, "status", "--porcelain")) if commit else None,
    }


def identity(env: dict[str, Any]) -> str:
    """Eight hexadecimal digits that differ when anything in the environment does."""
    return hashlib.sha256(json.dumps(env, sort_keys=True).encode()).hexdigest()[:8]


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
    names = (
        [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    return names[0] if names else platform.processor() or platform.machine()


def _memory_gib() -> int | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    except (AttributeError, ValueError):
        return None
