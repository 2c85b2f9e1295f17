"""What a law is, and what comes of it."""

from __future__ import annotations

import contextlib
import inspect
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from colorbench.contain import contained
from colorbench.errors import UserError, one_line, reason, whatever_raised, words_of

# A law looks at one thing and says what it saw; None if it does not apply. A thing that breaks it raises ValueError or
# UserError, "what was seen; what to do", as all of the harness does. Its docstring is the law. Laws stand in groups:
# those of a later one make no sense where an earlier is broken.
Law = Callable[[Any], str | None]
Groups = Sequence[Sequence[Law]]


@dataclass(frozen=True)
class Check:
    """What came of one law. `seen` says what was seen; `remedy` what to do where the law is broken, "" elsewhere."""

    law: str
    passed: bool
    seen: str
    remedy: str = ""


def name_of(law: Law) -> str:
    """What a law is called: "save and load"."""
    return law.__name__.strip("_").replace("_", " ")


def examine(groups: Groups, subject: Any) -> list[Check]:
    """Check the laws that apply to a subject, up to the first group of which one is broken."""
    checks: list[Check] = []
    for group in groups:
        checks += [check for law in group if (check := _checked(law, subject))]
        if not all(check.passed for check in checks):
            break
    return checks


def _checked(law: Law, subject: Any) -> Check | None:
    try:
        # A training prints its progress, a plugin what it likes: neither says what came of the law.
        with contained(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            seen = law(subject)
    except (ValueError, UserError) as error:
        found, _, remedy = one_line(words_of(error)).rpartition("; ")
        return Check(name_of(law), False, found or remedy, remedy if found else _words(law))
    except whatever_raised() as error:
        return Check(name_of(law), False, reason(error), _words(law))
    return None if seen is None else Check(name_of(law), True, seen)


def _words(law: Law) -> str:
    return f"the law: {' '.join((inspect.getdoc(law) or '').split())}"
