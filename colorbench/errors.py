"""What the user is told when input is bad: one line naming the thing, the reason and the remedy."""

import difflib
import errno
from collections.abc import Iterable
from pathlib import Path

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class UserError(Exception):
    """Bad input or a world that does not cooperate. The command line prints it and exits with 2."""


def refuse_unknown(noun: str, names: Iterable[str], known: Iterable[str], hint: str = "") -> None:
    """Raises UserError naming all of `names` that are not `known`, the nearest match of each, and what exists."""
    known = list(known)
    if unknown := [name for name in names if name not in known]:
        near = [difflib.get_close_matches(name, known, n=1) for name in unknown]
        said = [f"{n!r}" + (f" (did you mean {m[0]!r}?)" if m else "") for n, m in zip(unknown, near, strict=True)]
        raise UserError(f"unknown {noun} {', '.join(said)}; there is: {', '.join(known) or 'none'}{hint}")


def refuse_unknown_data(data: str, datasets: Iterable[str]) -> None:
    """Raises UserError unless `data` names a dataset, with or without `:argument`, or a path that exists."""
    if (name := data.partition(":")[0]) not in set(datasets) and not Path(data).exists():
        refuse_unknown("dataset or path", [name if ":" in data else data], datasets)
