"""Code as what it does: hashes of syntax trees without comments, docstrings and layout.

An edit of prose changes no hash, and so makes no result stale.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

HOME = Path(__file__).parent
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
LIBRARIES = {"site-packages", "dist-packages"}  # where they are installed, also those of the system below a venv
PROSE = {".md", ".pyc", ".rst"}  # of a plugin's folder: all other files count, say a table of color bins


def code_hash(files: Iterable[Path]) -> str:
    """12 hexadecimal digits of what Python files do, without comments, docstrings and layout; others by content."""
    digest = hashlib.sha256()
    for file in sorted(files):
        content = file.read_bytes()
        digest.update(file.name.encode() + (_undocumented(content) if file.suffix == ".py" else content))
    return digest.hexdigest()[:12]


@cache
def own_code(names: tuple[str, ...]) -> str:
    """The `code_hash` of files and folders of colorbench itself."""
    paths = [HOME / name for name in names]
    return code_hash(file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path]))


@cache  # by content, since a notebook's plugins may change while it runs
def _undocumented(content: bytes) -> bytes:
    try:
        tree = ast.parse(content)
        for node in ast.walk(tree):
            if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
        return ast.unparse(tree).encode()
    except (SyntaxError, ValueError, RecursionError):  # the last for an expression of a thousand operators
        return content


def plugin_code(source: str, *functions: Callable[..., Any], reports: bool = True) -> dict[str, str]:
    """The code that a plugin, a module's name or a file's path, is made of: a hash by top-level package or file.

    That is its own package or file, those of `functions`, which it may have from another plugin's model, and whatever
    they import that is neither of Python, nor of colorbench, nor installed as a library: libraries are recorded by
    version. Other plugins count. Unless `reports`, modules of a package that make tables and figures do not: they
    import colorbench.report at their top, and no torch.
    """
    hashes: dict[str, str] = {}
    named = [getattr(function, "func", function) for function in functions]  # of a functools.partial
    homes = {str(getattr(function, "__module__", "")).partition(".")[0] for function in named}
    own = _files_of(source)
    queue = [own, *(home for home in map(_files_of, filter(_counts, homes - {""})) if home[1] != own[1])]
    while queue:
        name, files = queue.pop()
        files = [file for file in files if reports or not _only_reports(file)]
        if name in hashes or not files:
            continue
        hashes[name] = code_hash(files)
        imported = {module for file in files if file.suffix == ".py" for module in _imports(file.read_bytes())}
        queue += [_files_of(module) for module in imported if _counts(module)]
    return dict(sorted(hashes.items()))


def _files_of(source: str) -> tuple[str, list[Path]]:
    """The name of a module's top-level package, or of a file, and its files; none if it cannot be found."""
    if source.endswith(".py"):
        return Path(source).name, [Path(source)]
    name = source.partition(".")[0]
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return name, []
    folders = [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]
    if not folders:
        return name, [Path(spec.origin)] if spec and spec.origin and Path(spec.origin).is_file() else []
    return name, [file for folder in folders for file in folder.rglob("*") if file.is_file() and _is_code(file)]


def _is_code(file: Path) -> bool:
    return file.suffix not in PROSE and "__pycache__" not in file.parts


def _only_reports(file: Path) -> bool:
    if file.suffix != ".py" or file.name == "__init__.py" or "torch" in _imports(content := file.read_bytes()):
        return False
    try:
        body = ast.parse(content).body
    except (SyntaxError, ValueError, RecursionError):
        return False
    return any(isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("colorbench.report.") for node in body)


@cache
def _imports(content: bytes) -> set[str]:
    """The top-level names of the modules that a Python file imports."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError):
        return set()
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                found |= {alias.name for alias in node.names}
            case ast.ImportFrom(module=str(name), level=0):
                found.add(name)
            case ast.Call(
                func=ast.Name("__import__" | "import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(str(name)), *_],
            ):
                found.add(name)
    return {name.partition(".")[0] for name in found}


@cache
def _counts(module: str) -> bool:
    if module == "colorbench" or module in sys.stdlib_module_names:
        return False
    if module in {entry.module.partition(".")[0] for entry in entry_points(group="colorbench")}:
        return True
    return all(LIBRARIES.isdisjoint(file.resolve().parts) for file in _files_of(module)[1])
