"""What the user is told when input is bad: one line naming the thing, the reason and the remedy."""

import difflib
import errno
import os
import re
import sys
from collections.abc import Iterable, Sequence

LONGEST_REASON = 1000  # characters
MANY = 25  # names that one line lists
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# What a terminal or an editor acts on: control characters, ends of lines, turns of direction; and halves of characters.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def without_control(text: str) -> str:
    """The text with spaces for the ends of lines and tabs in it, and an escape for each other control character."""
    return CONTROL.sub(lambda found: " " if found[0].isspace() else ascii(found[0])[1:-1], text)


def one_line(text: str) -> str:
    """The text with runs of white space as one space, and what a terminal or a table would act on as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(text.split()))


def words_of(error: BaseException) -> str:
    """The message of an exception; one of a plugin's own may not even have that."""
    try:
        return str(error)
    except whatever_raised():
        return "it does not say what"


def reason(error: BaseException) -> str:
    """What an exception says, in one line of which an end is left out that nobody would read."""
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    words = words_of(error).partition("Exception raised from ")[0]  # then torch lists its own functions
    line = one_line(f"{kind}{words}".removesuffix(": "))
    return line if len(line) <= LONGEST_REASON else f"{line[: LONGEST_REASON - 1]}…"


def whatever_raised() -> tuple[type[BaseException], ...]:
    """What an `except` around the code of a plugin catches: everything but Ctrl-C, and so also what is no Exception,
    such as SystemExit, pytest's skip or the panic of an extension in Rust."""
    return () if isinstance(sys.exception(), KeyboardInterrupt) else (BaseException,)


def shown(value: object, longest: int = 60) -> str:
    """What `repr` says of a value, in one line of so many characters; of one that has no repr, its type."""
    try:
        text = one_line(repr(value))
    except whatever_raised():
        text = f"a {type(value).__name__}"
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def why_no_file(path: str | os.PathLike[str], or_folder: bool = False) -> str:
    """Why a path is none of a file, or folder; "" if it is. Reading from a pipe or a device might never end."""
    if os.path.isfile(path) or (or_folder and os.path.isdir(path)):
        return ""
    if os.path.exists(path):
        return "it is a folder" if os.path.isdir(path) else "it is a pipe or a device"
    return "there is no such file" + (" or folder" if or_folder else "")


class UserError(Exception):
    """Bad input or a world that does not cooperate. The command line prints it and exits with 2."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: the line alone."""
        return [f"colorbench: {self}"]


class UserKeyError(UserError, KeyError):
    """A UserError where Python itself has a KeyError: no such name in a mapping."""

    __str__ = Exception.__str__  # KeyError shows a repr


class UserValueError(UserError, ValueError):
    """A UserError where Python itself has a ValueError."""


def refuse_unknown(noun: str, names: Iterable[str], known: Iterable[str], hint: str = "") -> None:
    """Raises UserError naming all of `names` that are not `known`, the nearest match of each, and what exists.

    Of many names that exist, those that are parent/change are left out, and then all but the first.
    """
    known = list(known)
    if unknown := [name for name in names if name not in known]:
        said = ", ".join(f"{shown(name, LONGEST_REASON)}{_nearest(str(name), known)}" for name in unknown)
        there = known if len(known) <= MANY else [name for name in known if "/" not in name] or known
        if len(there) > MANY:
            there = [*there[:MANY], f"{len(there) - MANY} more"]
        raise UserError(f"unknown {noun} {said}; there is: {', '.join(there) or 'none'}{hint}")


def _nearest(name: str, known: Sequence[str]) -> str:
    """What a name may stand for: the nearest one; of parent/change else the changes that the parent has."""
    parent, _, change = name.rpartition("/")
    prefix = f"{parent}/" if parent in known else ""
    near = difflib.get_close_matches(change if prefix else name, names := _after(prefix, known), n=1)
    if near:
        return f" (did you mean {prefix + near[0]!r}?)"
    return f" ({parent} has: {', '.join(names) or 'no variants'})" if prefix else ""


def _after(prefix: str, names: Iterable[str]) -> list[str]:
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def refuse_unknown_data(data: str, datasets: Iterable[str]) -> None:
    """Raises UserError unless `data` names a dataset, with or without `:argument`, or a path that exists."""
    if not data:
        raise UserError("--data is empty; name a dataset, or a folder or zip of images")
    if (name := data.partition(":")[0]) not in set(datasets) and not os.path.exists(data):
        hint = ", or the path of a folder or zip of images that exists"
        refuse_unknown("dataset or path", [name if ":" in data else data], datasets, hint)


def refuse_empty(**options: object) -> None:
    """Raises UserError naming the options that were given without a word, as by a script whose variable is not set."""
    if empty := [f"--{name}" for name, value in options.items() if value == ""]:
        verb = "is" if len(empty) == 1 else "are"
        raise UserError(f"{', '.join(empty)} {verb} empty; give a value, or leave it out")
