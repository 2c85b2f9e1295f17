"""Code of a plugin that runs in a process it shares: what it changes there for everybody is put back."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NoReturn

_replaced: list[Any] = []  # streams that plugins put in place of ours: one that is collected closes what it wraps


@contextmanager
def contained() -> Iterator[list[str]]:
    """Run code of a plugin; then put back what it has changed in this process, and add the names of that to the list.

    `os._exit`, which would end the command without a word, raises SystemExit meanwhile.
    """
    before = [(name, get(), put) for name, get, put in _STATE]
    pid, leave, changed = os.getpid(), os._exit, list[str]()

    def refuse(status: int) -> NoReturn:
        if os.getpid() != pid:  # a process that the plugin has forked
            leave(status)
        raise SystemExit(status)

    os._exit = refuse
    try:
        yield changed
    finally:
        os._exit = leave
        for (_, get, _), (name, value, put) in zip(_STATE, before, strict=True):
            if value is not None and get() != value:
                put(value)
                changed.append(name)


def _folder() -> str | None:
    with suppress(FileNotFoundError):  # it may be gone
        return os.getcwd()
    return None


def set_environment(values: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(values)


def _set_stream(name: str, stream: Any) -> None:
    _replaced.append(getattr(sys, name))
    setattr(sys, name, stream)


def _handlers() -> dict[int, Any] | None:
    if threading.current_thread() is not threading.main_thread():
        return None  # no handler can be set in another one
    found = {number: signal.getsignal(number) for number in signal.valid_signals()}
    return {number: handler for number, handler in found.items() if handler is not None}  # None: not set from Python


def _set_handlers(handlers: Mapping[int, Any]) -> None:
    for number, handler in handlers.items():
        if signal.getsignal(number) != handler:
            signal.signal(number, handler)


def _numerics() -> tuple[str, bool, bool]:
    torch = sys.modules.get("torch")
    if torch is None:
        return "float32", True, False  # as torch starts
    dtype = str(torch.get_default_dtype()).removeprefix("torch.")
    return dtype, torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()


def _set_numerics(values: tuple[str, bool, bool]) -> None:
    torch, (dtype, gradients, deterministic) = sys.modules["torch"], values
    torch.set_default_dtype(getattr(torch, dtype))
    torch.set_grad_enabled(gradients)
    if torch.are_deterministic_algorithms_enabled() != deterministic:  # setting it imports torch's compiler
        torch.use_deterministic_algorithms(deterministic)


def threads() -> int | None:
    """How many torch computes with; None if nobody has imported it."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else None


# What there is, how to read it, and how to set it. None stands for what cannot be known.
_STATE: Sequence[tuple[str, Callable[[], Any], Callable[[Any], object]]] = (
    ("the working directory", _folder, os.chdir),
    ("the environment", lambda: dict(os.environ), set_environment),
    ("sys.stdout", lambda: sys.stdout, partial(_set_stream, "stdout")),
    ("sys.stderr", lambda: sys.stderr, partial(_set_stream, "stderr")),
    ("signal handlers", _handlers, _set_handlers),
    ("torch's default dtype, gradients or determinism", _numerics, _set_numerics),
    ("torch's threads", threads, lambda count: sys.modules["torch"].set_num_threads(count)),
)
