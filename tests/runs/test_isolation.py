"""What a plugin does to Python, to torch or to its process reaches no other model, and never ends the command."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from importlib.metadata import EntryPoint
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
from conftest import TINY, call, jpeg, one_line

from colorbench import plugins
from colorbench.errors import LONGEST_REASON, UserError
from colorbench.runs import executors

ROWDY = """
from colorbench import ModelSpec, hookimpl

AT_IMPORT

def build(**_):
    import tiny_module
    IN_BUILD
    network = tiny_module.build()
    forward = network.forward

    def other(L):
        IN_FORWARD
        return forward(L)

    network.forward = other
    return network

def schedule(preset):
    import tiny_module
    IN_SCHEDULE
    return tiny_module.schedule(preset)

@hookimpl
def register_models(register):
    register(ModelSpec("a-rowdy", "a test", build, schedule))
"""


@pytest.fixture
def rowdy(fresh, monkeypatch):
    """Run a plugin that misbehaves in one place, say `rowdy("IN_BUILD", "1 / 0")`, before `tiny`, which does not."""
    (fresh.folder / "tiny_module.py").write_text(TINY)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(fresh.folder), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.syspath_prepend(str(fresh.folder))
    file = fresh.folder / "rowdy.py"

    def run(where, what, *more):
        text = ROWDY.replace(where, what)
        for name in ("AT_IMPORT", "IN_BUILD", "IN_FORWARD", "IN_SCHEDULE"):
            text = text.replace(name, "")
        file.write_text(text)
        return fresh("a-rowdy,tiny", "--plugin", file, *more)

    run.bench = fresh
    return run


@pytest.mark.parametrize("where", ["IN_BUILD", "IN_FORWARD", "IN_SCHEDULE"])
@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("import os; os._exit(0)", "its process ended with status 0 before it was done"),
        ("import os; os.kill(os.getpid(), 11)", "its process was killed by SIGSEGV"),
    ],
)
def test_a_process_that_ends_is_a_row_with_its_reason(rowdy, where, what, reason):
    if where == "IN_SCHEDULE" and "kill" in what:
        pytest.skip("the schedule is asked for in the command itself, too")
    result = rowdy(where, what)
    assert result.exit_code == 1, result.stderr
    table = rowdy.bench.table()
    assert table.status.to_dict() == {"a-rowdy": f"failed: {reason}", "tiny": "done"}
    assert f"colorbench: a-rowdy seed 0 failed: {reason}" in result.stderr


def test_a_process_that_ends_as_it_scores_loses_no_training(fresh):
    metric = fresh.folder / "metric.py"
    metric.write_text(
        "import os\n\nfrom colorbench import MetricSpec, hookimpl\n\n\n"
        "def last_red(predicted, truth):\n    len(predicted) > 2 and os._exit(5)\n    return predicted[:, 0, 0, 0]\n"
        "\n\n@hookimpl\ndef register_metrics(register):\n    register(MetricSpec('red', 'a test', last_red))\n"
    )
    ended = fresh("tiny", "--plugin", metric)
    assert "tiny seed 0 trained: its process ended with status 5 before it was done" in one_line(ended)
    metric.write_text(metric.read_text().replace("> 2", "> 999"))
    mended = fresh("tiny", "--plugin", metric)
    assert mended.exit_code == 0, mended.stderr
    assert "train 1/1" in ended.stderr
    assert "train 1/1" not in mended.stderr


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("import os; os._exit(0)", "SystemExit: 0"),
        ("class Panic(BaseException): __str__ = lambda self: 1 / 0\nraise Panic", "Panic: it does not say what"),
    ],
)
def test_a_file_that_ends_python_at_import_is_refused(rowdy, what, reason):
    result = rowdy("AT_IMPORT", what)
    assert result.exit_code == 2
    assert "cannot load the plugin" in one_line(result)
    assert reason in one_line(result)


@pytest.mark.parametrize("what", ["raise SystemExit(0)", "raise SystemExit", "raise GeneratorExit"])
def test_a_model_that_ends_python_as_it_colors_a_photo_is_no_success(bench, what):
    bench.change("ab = 10", f"{what}\n            ab = 10")
    (bench.folder / "photo.jpg").write_bytes(jpeg(0))
    result = call("colorize", bench.folder / "photo.jpg", "--model", "tiny", "--run", bench.run, "--plugin", bench.file)
    assert result.exit_code == 2
    assert "photo-tiny.png was not made: tiny fails (" in one_line(result)


def test_an_installed_plugin_that_ends_python_at_import_is_broken(fresh, monkeypatch):
    (fresh.folder / "quitter.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.syspath_prepend(str(fresh.folder))
    entry = EntryPoint("quitter", "quitter", "colorbench")
    object.__setattr__(entry, "dist", type("Dist", (), {"name": "quitter", "version": "1.0"}))
    real = list(plugins.entry_points(group="colorbench"))
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry, *real])
    result = fresh()
    assert result.exit_code == 0, result.stderr
    assert "plugin quitter is broken and left out: SystemExit: 0" in result.stderr


def test_a_process_that_takes_too_long_is_stopped():
    with pytest.raises(executors.EndedError, match=r"^its process was not done after 1 s, and was stopped$"):
        executors.call(time.sleep, 60, seconds=1.0)


def scores(bench):
    return pd.read_parquet(bench.cell("tiny") / "scores.parquet")


@pytest.mark.parametrize(
    "what",
    [
        "import torch; torch.set_default_dtype(torch.float64)",
        "import torch; torch.set_grad_enabled(False)",
        "import torch; torch.set_num_threads(3)",
        "import torch; torch.nn.functional.mse_loss = torch.nn.functional.l1_loss = lambda *_, **__: torch.zeros(())",
        "import torch; torch.Tensor.square = torch.Tensor.abs",
        "import torch; torch.use_deterministic_algorithms(True); torch.manual_seed(3)",
        "import numpy; numpy.mean = numpy.median",
    ],
)
def test_what_a_plugin_changes_reaches_no_other_model(rowdy, finished, what):
    rowdy("IN_BUILD", what)
    pd.testing.assert_frame_equal(scores(rowdy.bench), scores(finished))


def test_nor_does_what_it_changes_at_import(rowdy, finished, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "square", torch.Tensor.square)  # to have it back: the plugin is loaded here, too
    rowdy("AT_IMPORT", "import torch; torch.Tensor.square = torch.Tensor.abs")
    pd.testing.assert_frame_equal(scores(rowdy.bench), scores(finished))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("the working directory", "import os; os.chdir('/')"),
        ("the environment", "import os; os.environ.update(HOME='/', COLORBENCH_TEST='1')"),
        ("sys.stdout", "import io, sys; sys.stdout = io.TextIOWrapper(sys.stdout.buffer)"),
        ("sys.stderr", "import sys; sys.stderr = None"),
        ("signal handlers", "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"),
        ("torch's default dtype", "import torch; torch.set_default_dtype(torch.float64)"),
        ("torch's default dtype, gradients", "import torch; torch.set_grad_enabled(False)"),
        ("determinism", "import torch; torch.use_deterministic_algorithms(True)"),
        ("torch's threads", "import torch; torch.set_num_threads(3)"),
    ],
)
@pytest.mark.parametrize("end", ["", "; 1 / 0"])
def test_what_an_import_changes_is_put_back(tmp_path, monkeypatch, name, what, end):
    monkeypatch.chdir(tmp_path)
    handler, environ, streams = signal.getsignal(signal.SIGINT), dict(os.environ), (sys.stdout, sys.stderr)
    Path("rowdy.py").write_text(what + end)
    if end:
        with pytest.raises(UserError, match="ZeroDivisionError"):
            plugins.load(["rowdy.py"])
    else:
        assert name in ", ".join(plugins.load(["rowdy.py"]).plugins[-1].changed)
    gc.collect()
    assert Path.cwd() == tmp_path
    assert dict(os.environ) == environ
    assert (sys.stdout, sys.stderr) == streams
    assert not sys.stdout.closed
    assert signal.getsignal(signal.SIGINT) == handler
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == 1


def test_an_import_that_goes_elsewhere_takes_no_run_along(rowdy, monkeypatch):
    monkeypatch.chdir(rowdy.bench.folder)
    rowdy.bench.run = Path("run")
    result = rowdy("AT_IMPORT", "import os; os.makedirs('elsewhere', exist_ok=True); os.chdir('elsewhere')")
    assert result.exit_code == 0, result.stderr
    assert "plugin rowdy changed the working directory when it was imported; this was undone" in result.stderr
    assert rowdy.bench.table().status.to_dict() == {"a-rowdy": "done", "tiny": "done"}
    assert (rowdy.bench.folder / "run" / "record.json").exists()
    assert not list((rowdy.bench.folder / "elsewhere").iterdir())


def test_a_thread_left_behind_does_not_hang_the_run(rowdy):
    started = time.monotonic()
    result = rowdy("IN_BUILD", "import threading, time; threading.Thread(target=time.sleep, args=(600,)).start()")
    assert result.exit_code == 0, result.stderr
    assert time.monotonic() - started < 300  # it would take ten minutes


@pytest.mark.parametrize("name", ["mse_low", "status", "seed", "model", "psnr_pooled", "train_1", "gain_percent"])
def test_a_metric_cannot_take_the_name_of_a_column(fresh, name):
    metric = fresh.folder / "metric.py"
    metric.write_text(
        "from colorbench import MetricSpec, hookimpl\n\n\n@hookimpl\ndef register_metrics(register):\n"
        f"    register(MetricSpec({name!r}, 'a test', None))\n"
    )
    result = fresh("tiny", "--plugin", metric)
    assert result.exit_code == 2
    assert f"metric '{name}'" in one_line(result)


@pytest.mark.parametrize(
    "field",
    ['anchor="ceiling"', "reference=1", 'refines="Bad Name"', "trained_as=3", "published={}"],
)
def test_a_model_that_no_record_can_hold_is_refused_before_it_trains(fresh, field):
    fresh.change("OPTIONS))", f"OPTIONS, {field}))")
    result = fresh()
    assert result.exit_code == 2
    assert f"model 'tiny': no record can hold its {field.partition('=')[0]}" in one_line(result)
    assert not fresh.run.exists()


@pytest.mark.parametrize("summary", ["two\\nlines", "\\x1b[31mred", "a\\tb", "a\\u202eb"])
def test_control_characters_in_a_summary_are_refused(fresh, summary):
    fresh.change('"tiny", "a test"', f'"tiny", "{summary}"')
    result = fresh()
    assert result.exit_code == 2
    assert "one line of plain text is due" in one_line(result)


@pytest.mark.parametrize("text", ["a | b", "<script>alert(1)</script>", "[x](http://a.test)"])
def test_markup_of_a_plugin_is_no_markup_in_the_report(fresh, text):
    fresh.change("self.base = base", f"self.base = base\n            self.notes = [{text!r}]")
    fresh.change('"tiny", "a test"', f'"tiny", {text!r}')
    result = fresh()
    assert result.exit_code == 0, result.stderr
    report = (fresh.run / "comparison.md").read_text()
    assert "<script>" not in report
    rows = [line.count("|") - line.count("\\|") for line in report.splitlines() if line.startswith("| tiny")]
    assert rows
    assert all(count >= 3 for count in rows)


def _write_and_sleep(file):
    file.write_text(str(os.getpid()))
    time.sleep(60)


def _fork_and_end(file):
    if os.fork() == 0:
        _write_and_sleep(file)
    os._exit(3)


def _start_and_return(file):
    if os.fork() == 0:
        _write_and_sleep(file)
    while not file.exists():
        time.sleep(0.01)
    return subprocess.Popen(["sleep", "60"], close_fds=False).pid


def lives(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def server():
    """The process from which those of `executors.call` are forked."""
    return next(child for child in psutil.Process().children() if "forkserver" in command_of(child))


def test_a_process_that_has_forked_and_ended_hangs_nobody(tmp_path):
    """What it has forked holds the pipe open on which its result is awaited."""
    started = time.monotonic()
    with pytest.raises(executors.EndedError, match="its process ended with status 3 before it was done"):
        executors.call(_fork_and_end, tmp_path / "pid")
    assert time.monotonic() - started < 40
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_what_a_process_has_started_ends_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "_family", lambda pid: [])  # by its own hand: it may have ended before we look
    sleeping = executors.call(_start_and_return, tmp_path / "pid")
    deadline = time.monotonic() + 20
    while lives(sleeping) or lives(int((tmp_path / "pid").read_text())):
        assert time.monotonic() < deadline


def _interrupt(_):
    raise KeyboardInterrupt


def test_an_interrupt_by_a_plugin_ends_its_own_process_alone():
    with pytest.raises(executors.EndedError, match="KeyboardInterrupt"):
        executors.call(_interrupt, None)


class _WordlessError(Exception):
    def __str__(self):
        raise ZeroDivisionError


def _raise(error):
    raise error


@pytest.mark.parametrize(
    ("error", "said"),
    [(_WordlessError(), "^_WordlessError: it does not say what$"), (ValueError("z" * 10**6), "^ValueError: z+…$")],
)
def test_an_exception_without_words_or_with_a_million_is_one_line(error, said):
    with pytest.raises(RuntimeError, match=said) as raised:
        executors.call(_raise, error)
    assert len(str(raised.value)) <= LONGEST_REASON


def test_what_a_command_that_a_plugin_runs_prints_is_no_line_of_the_table():
    script = "import os; from colorbench.runs import executors; executors.call(os.system, 'echo printed')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "printed\n")


def test_a_server_that_was_killed_is_started_anew():
    executors.call(abs, -1)
    server().kill()
    assert executors.call(abs, -1) == 1


def test_a_process_that_cannot_be_started_is_a_reason(monkeypatch):
    def refuse():
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(executors.forkserver, "ensure_running", refuse)
    with pytest.raises(executors.EndedError, match="its process could not be started"):
        executors.call(abs, -1)


def test_an_interrupt_ends_the_process_that_works(tmp_path):
    """Also where the command goes on afterwards, as in a notebook."""
    file = tmp_path / "pid"

    def interrupt():
        while not file.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        executors.call(_write_and_sleep, file)
    assert time.monotonic() - started < 40
    assert not lives(int(file.read_text()))


def command_of(process):
    """The command line of a child; empty if it ends while it is asked, as git does, which the command runs first."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # NoSuchProcess, or ZombieProcess
        return ""


def test_an_interrupt_while_a_process_imports_is_one_line(fresh):
    command = [sys.executable, "-m", "colorbench", "run", *map(str, fresh.arguments()), "--no-timing"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not any("forkserver" in command_of(child) for child in psutil.Process(process.pid).children()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, len(said.splitlines())) == (130, 1), said


def start(bench, *more):
    """The command line in a process group of its own, once it trains a slow model."""
    bench.change("yield Update", "import time\n            time.sleep(0.2)\n            yield Update")
    bench.change('"train", 1,', '"train", 100,')
    command = [sys.executable, "-m", "colorbench", "run", *map(str, bench.arguments()), "--no-timing", *more]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not (bench.cell() / "training.pt").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    return process


def members(group):
    """The processes of a group that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, their = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(their) == group and state != "Z":
            found.append(int(stat.parent.name))
    return found


def all_ended(group, seconds=20):
    deadline = time.monotonic() + seconds
    while members(group) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not members(group)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_the_command_and_leaves_no_process(fresh, by):
    process = start(fresh)
    if by == signal.SIGINT:
        os.killpg(process.pid, by)  # as a terminal does
    else:
        process.send_signal(by)
    _, said = process.communicate(timeout=60)
    assert "Traceback" not in said
    if by == signal.SIGINT:
        assert process.returncode == 130
        assert said.splitlines()[-1].endswith("what is finished is kept: run the same command again to go on")
    assert all_ended(process.pid)
    planned = fresh.plan()
    assert "resumable" in planned.stdout


def test_a_script_without_a_guard_runs_once(tmp_path):
    """Processes of Python's multiprocessing run the main script again, which would start them again."""
    script = tmp_path / "script.py"
    script.write_text(f"""
import colorbench

print("begun")
colorbench.run("grey", preset="smoke", size=16, out={str(tmp_path / "run")!r}, timing=False)
""")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("begun") == 1
    assert (tmp_path / "run/cells/grey/seed-0/scores.parquet").exists()


def test_a_terminal_without_unicode_shows_escapes(fresh):
    fresh.change('"a test"', '"un modèle 色"')
    photos = fresh.folder / "写真"
    photos.mkdir()
    for index in range(40):
        (photos / f"顔{index}.jpg").write_bytes(jpeg(index))
    env = os.environ | {"PYTHONIOENCODING": "latin-1"}
    command = [sys.executable, "-m", "colorbench", "run", *map(str, fresh.arguments()), "--no-timing", "--data", photos]
    done = subprocess.run(command, env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode("latin-1")
    assert b"\\u5199\\u771f" in done.stdout
    listed = subprocess.run(
        [sys.executable, "-m", "colorbench", "list", "models", "--plugin", fresh.file], env=env, capture_output=True
    )
    assert (listed.returncode, b"mod\xe8le \\u8272" in listed.stdout) == (0, True)
    assert call("report", fresh.run).exit_code == 0
