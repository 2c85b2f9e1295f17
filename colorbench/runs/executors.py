"""How the cells of a run are made: each in a process of its own, so that no model inherits what another changed."""

from __future__ import annotations

import contextlib
import io
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

import psutil

from colorbench.contain import set_environment, threads
from colorbench.errors import DISK_FULL, UserError, reason

# torch imports its compiler with the first optimizer, which takes seconds.
PRELOADED = ["colorbench.harness.cell", "colorbench.harness.preflight", "torch._dynamo", "torchvision"]
OTHERS_SECONDS = 10.0  # how long one of several processes waits for the others to fail in the same way
EXIT_SECONDS = 2.0  # how long a process that has sent its result may take to end

# Forked from a server that has imported torch and done nothing else: as clean as a new process, seconds sooner.
HAS_SERVER = "forkserver" in multiprocessing.get_all_start_methods()

Request = TypeVar("Request")
Result = TypeVar("Result")


class EndedError(RuntimeError):
    """A process ended without a result."""


def call(function: Callable[[Request], Result], request: Request, seconds: float = math.inf) -> Result:
    """`function(request)` in a fresh process, which sees this one's environment and working directory.

    What it prints goes to standard error. Raises what the function raises, and EndedError if its process ends first,
    or takes longer than `seconds`.
    """
    context: Any = multiprocessing.get_context("forkserver" if HAS_SERVER else "spawn")
    receiver, sender = context.Pipe(duplex=False)
    # A single process, even where this one is one of several.
    environ = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    settings = environ, os.getcwd(), threads(), shows_bars()
    process = _started(context, (function, request, settings, sender))
    known = _known(process.pid)
    sender.close()
    patience = 0.0
    try:
        kind, content = _listen(receiver, process.pid, time.monotonic() + seconds)
        patience = EXIT_SECONDS
    except TimeoutError:
        raise EndedError(f"its process was not done after {seconds:.0f} s, and was stopped") from None
    except EOFError:
        process.join()
        raise EndedError(_ending(process.exitcode)) from None
    finally:
        family = _family(known)
        process.join(patience)
        _kill(family)  # it has ended, unless threads that a plugin left behind hold it up, or we are on our way out
        process.join()
        receiver.close()
    if kind == "raised":
        raise content
    return content


def shows_bars() -> bool:
    """Whether a line that is written over shows as one: on a terminal and in a notebook."""
    ask = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)
    return sys.stderr.isatty() or "IPKernelApp" in getattr(ask(), "config", ())


def _started(context: Any, arguments: tuple[Any, ...]) -> Any:
    """A process that serves a request. Raises EndedError if none can be started."""
    for _ in range(2):  # the server may have been killed, say for want of memory: the second time it is started anew
        process = context.Process(target=_serve, args=arguments)
        try:
            with _no_main():
                if HAS_SERVER:
                    _ensure_server(context)
                process.start()
            return process
        except (EOFError, OSError):
            time.sleep(1.0)  # until the system knows that the server has ended
    raise EndedError("its process could not be started, perhaps because memory ran out")


def _ensure_server(context: Any) -> None:
    """Let a server run from which processes are forked. Neither it nor they get Ctrl-C: this process ends them."""
    context.set_forkserver_preload(PRELOADED)
    resource_tracker.ensure_running()  # the server would start it, and let Ctrl-C through again
    before, environ = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}), dict(os.environ)
    # Threads that spin while they wait take the cores from whoever works: ten times slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        forkserver.ensure_running()
    finally:
        set_environment(environ)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _no_main() -> Iterator[None]:
    """Hide the script that runs from a process about to start: it would run it again, up to this very call."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _known(pid: int) -> psutil.Process | None:
    """A process as the one that has this number now, since another may have it later; None if it has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid)
    return None


def _family(process: psutil.Process | None) -> list[psutil.Process]:
    """A process, if it still runs, and all that it has started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [process, *process.children(recursive=True)] if process else []
    return []


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _listen(receiver: Connection, pid: int, until: float) -> tuple[str, Any]:
    """Print what the process prints until it sends its result. Raises EOFError if it ends without one, and
    TimeoutError if it has not by then, on the monotonic clock."""
    while True:
        while not receiver.poll(1.0) or time.monotonic() > until:
            if time.monotonic() > until:
                raise TimeoutError
            # What it has forked may hold the pipe open when it has ended.
            if not psutil.pid_exists(pid) and not receiver.poll():
                raise EOFError
        kind, content = receiver.recv()
        if kind != "printed":
            return kind, content
        sys.stderr.write(content)
        sys.stderr.flush()


def _ending(status: int | None) -> str:
    if status is not None and status < 0:
        name = signal.Signals(-status).name
        return f"its process was killed by {name}" + (", perhaps because memory ran out" if name == "SIGKILL" else "")
    return f"its process ended with status {status} before it was done"


class _Stream(io.TextIOBase):
    """Standard output and error of a process: what is written goes to the one that started it."""

    def __init__(self, sender: Connection, terminal: bool) -> None:
        self.sender, self.terminal, self.lock = sender, terminal, threading.Lock()

    def write(self, text: str) -> int:
        with self.lock:  # threads that a plugin starts may print, too
            self.sender.send(("printed", text))
        return len(text)

    def isatty(self) -> bool:
        return self.terminal

    def writable(self) -> bool:
        return True


def _serve(
    function: Callable[[Request], Result], request: Request, settings: tuple[Any, ...], sender: Connection
) -> None:
    environ, folder, count, terminal = settings
    pid = os.getpid()
    parent: Any = multiprocessing.parent_process()
    if wait([parent.sentinel], 0):
        return  # it has ended already
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    set_environment(environ)
    os.chdir(folder)
    sys.stdout = sys.stderr = _Stream(sender, terminal)
    with contextlib.suppress(OSError):  # what does not ask Python, say a command that a plugin runs, prints there, too
        os.dup2(2, 1)
    if count:
        import torch

        torch.set_num_threads(count)
    try:
        try:
            result = function(request)
        finally:
            if os.getpid() != pid:  # a copy that a plugin has forked comes here, too
                os._exit(0)
            _kill(_family(psutil.Process())[1:])  # what a plugin has started shall not go on when the work is done
        sender.send(("returned", result))
    except BaseException as error:
        sender.send(("raised", _portable(error)))
    sender.close()


def _portable(error: BaseException) -> Exception:
    """The same error as one that can be pickled, whatever a plugin has raised; `traceback` says from where."""
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return OSError(error.errno, error.strerror, error.filename)
    kind: Any = RuntimeError if isinstance(error, Exception) else EndedError  # a plugin may raise KeyboardInterrupt
    portable: Any = UserError(str(error)) if isinstance(error, UserError) else kind(reason(error))
    portable.traceback = traceback.format_exc().encode(errors="backslashreplace")
    return portable


def _end_with(parent: Any) -> None:
    wait([parent.sentinel])
    os._exit(1)


def end_if_alone(error: BaseException, folder: Path, rank: int, count: int) -> None:
    """End this process, one of `count` under `accelerate launch`, unless the others fail as well.

    Those that do not would wait for it in a collective operation for ever. This process says why and ends, upon which
    the launcher ends the others. `folder` is one that all of them see.
    """
    if count == 1:
        return
    posted = folder / f".failed-{rank}"
    posted.touch()
    until = time.monotonic() + OTHERS_SECONDS
    while time.monotonic() < until and len(list(folder.glob(".failed-*"))) < count:
        time.sleep(0.1)
    alone = len(list(folder.glob(".failed-*"))) < count
    time.sleep(1.0)  # the others shall see this one's file, too
    posted.unlink()
    if alone:
        print(f"colorbench: process {rank} of {count} failed alone: {reason(error)}", file=sys.stderr, flush=True)
        os._exit(1)
