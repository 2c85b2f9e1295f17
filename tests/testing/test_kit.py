"""`colorbench check`, `pytest --colorbench` and `colorbench new`: what an author of a plugin begins with."""

import subprocess
import sys
import tomllib

import pytest
from conftest import TINY, one_line

from colorbench import plugins, scaffold
from colorbench.testing import targets

KINDS = ["model", "dataset", "metric"]
SOUND = TINY.replace("self.convolution(L / 100)", "self.convolution(L / 100).float()")


class Recorder:
    """Outcome and message of each test of a pytest that runs inside this one."""

    def __init__(self):
        self.outcomes = {}

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome == "skipped":
            self.outcomes[report.nodeid.rpartition("::")[2]] = report.outcome, str(report.longrepr)


def inner_pytest(*arguments):
    recorder = Recorder()
    status = pytest.main(["-q", "-p", "no:cacheprovider", *map(str, arguments)], plugins=[recorder])
    return status, recorder.outcomes


@pytest.fixture
def tiny(tmp_path):
    """A plugin file with two models, of which the second refines the first."""
    file = tmp_path / "plugin" / "tiny.py"
    file.parent.mkdir()
    file.write_text(SOUND)
    return file


def test_check_tells_each_law_of_what_a_file_registers(colorbench, tiny):
    result = colorbench("check", tiny)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line for line in lines if not line.startswith(" ")][:-1] == ["plugin tiny", "model tiny", "model on-tiny"]
    assert "  kept    resume: the same bits; stops: 1" in lines
    assert "  kept    base left alone: tiny unchanged" in lines
    assert lines[-1].startswith("3 keep all laws: ")


def test_check_says_what_is_broken_and_what_to_do(colorbench, tiny):
    tiny.write_text("import torch\n" + SOUND.replace("10 * self.convolution", "self.convolution"))
    tiny.write_text(tiny.read_text().replace("- batch.ab", "- batch.ab / 110"))
    result = colorbench("check", tiny, "grey")
    assert result.exit_code == 1
    broken = [line for line in result.stdout.splitlines() if "BROKEN" in line]
    assert broken[0].startswith("  BROKEN  light: it imports numpy, torch; do that inside build")
    assert broken[1].startswith("  BROKEN  lab units: its losses are the least for a true ab of 110 times its answer")
    assert broken[1].endswith("multiply what forward returns by 110")
    assert result.stdout.splitlines()[-1].startswith("3 of 4 break a law: ")


def test_all_is_brief_and_ablations_are_asked_for(colorbench, monkeypatch):
    monkeypatch.setattr(targets, "check_apart", lambda asked, place: [])
    brief = colorbench("check", "all").stdout.splitlines()
    more = colorbench("check", "all", "--ablations").stdout.splitlines()
    ablations = {line.partition(":")[0] for line in more} - {line.partition(":")[0] for line in brief}
    assert ablations
    assert all("/" in name for name in ablations if name.startswith("model"))
    assert all(line.endswith("s") and "laws kept" in line for line in brief[:-1])


def test_what_kills_the_process_of_its_check_is_one_line(colorbench, tiny):
    kill = "import os; os.kill(os.getpid(), 9)"
    tiny.write_text(SOUND.replace("    import torch\n", f"    {kill}\n"))
    result = colorbench("check", tiny, "mean-color")
    assert result.exit_code == 1
    broken = [line for line in result.stdout.splitlines() if "BROKEN" in line]
    said = "its process was killed by SIGKILL, perhaps because memory ran out; mend what ends, kills or holds up"
    assert [line.startswith(f"  BROKEN  process: {said}") for line in broken] == [True, True]
    assert result.stdout.splitlines()[-1].startswith("2 of 4 break a law: ")
    tiny.write_text(f"{kill}\n{SOUND}")
    result = colorbench("check", tiny)
    assert result.exit_code == 2
    assert f"the plugins of {tiny} cannot be loaded: its process was killed by SIGKILL" in one_line(result)


def test_a_plugin_that_prints_closes_and_forks_changes_nothing_of_what_is_told(colorbench, tiny):
    loud = (
        "import atexit, os, sys\nprint('[]')\nos.close(1)\natexit.register(print, '[]', file=sys.stderr)\nCOPY = []\n"
    )
    fork = "    COPY or COPY.append(os.fork())\n"  # once: the copy does not fork again
    sound = SOUND.rpartition("    register(")[0].replace("    import torch\n", f"    import torch\n{fork}", 1)
    tiny.write_text(loud + sound)
    lines = colorbench("check", tiny).stdout.splitlines()
    assert {line[:6] for line in lines[:-1]} == {"plugin", "model ", "  kept"}
    assert lines[-1].startswith("2 keep all laws: ")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "portrait",
            "degradation, diagnostic or plugin 'portrait' (did you mean 'portraits'?)",
        ),
        ("absent.py", "cannot load the plugin absent.py: there is no such file"),
    ],
)
def test_what_is_not_there_is_one_line(colorbench, name, said):
    result = colorbench("check", name)
    assert result.exit_code == 2
    assert said in one_line(result)


def test_pytest_has_a_test_for_every_law(tiny):
    status, outcomes = inner_pytest("--colorbench", tiny, tiny.parent)
    assert status == 0
    assert outcomes["model tiny: shape"][0] == "passed"
    assert "does not apply" in outcomes["model tiny: attention"][1]
    assert outcomes["model on-tiny: base left alone"][0] == "passed"


def test_pytest_fails_where_a_law_is_broken_and_skips_what_comes_after_it(tiny):
    tiny.write_text(SOUND.replace("square().mean()", "square()"))
    status, outcomes = inner_pytest("--colorbench", tiny, "-k", "tiny and not on-tiny", tiny.parent)
    assert status == 1
    assert {name for name, (outcome, _) in outcomes.items() if outcome == "failed"} == {"model tiny: trains"}
    assert "a scalar tensor of floats is due" in outcomes["model tiny: trains"][1]
    assert "not checked before this is mended: trains" in outcomes["model tiny: resume"][1]


def test_pytest_says_in_one_line_what_is_not_there(tmp_path, capsys):
    status, _ = inner_pytest("--colorbench", "portrait", tmp_path)
    assert status == pytest.ExitCode.USAGE_ERROR
    said = capsys.readouterr().err
    assert "--colorbench: unknown model, dataset" in said
    assert "or install its package first: pip install ." in said


def test_the_pytest_plugin_imports_nothing_slow():
    code = (
        "import sys, colorbench.testing.pytest_plugin; print({'torch', 'numpy', 'colorbench.plugins'} & {*sys.modules})"
    )
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == "set()"


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_keeps_every_law_and_its_own_tests_pass(colorbench, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    result = colorbench("new", kind, f"own-{kind}")
    assert result.exit_code == 0, result.stderr
    folder, module = tmp_path / f"own-{kind}", f"colorbench_own_{kind}"
    found = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert found == {"README.md", "pyproject.toml", f"{module}.py", f"tests/test_{module}.py"}
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["colorbench"] == {f"own-{kind}": module}
    name = "own_metric" if kind == "metric" else f"own-{kind}"
    assert project["tool"]["pytest"]["ini_options"]["addopts"] == f"--colorbench {name}"
    found = targets.find_targets([str(folder / f"{module}.py")])
    assert [(target.kind, target.name) for target in found] == [("plugin", module), (kind, name)]
    assert [check for target in found for check in target.checks if not check.passed] == []
    monkeypatch.syspath_prepend(folder)
    status, outcomes = inner_pytest("-c", "/dev/null", "--rootdir", folder, folder / "tests")
    assert status == 0
    assert outcomes


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("model", "My-Net", "a package cannot be called 'My-Net'"),
        ("model", "../up", "a package cannot be called '../up'"),
        ("model", "a--b", "a package cannot be called 'a--b'"),
        ("model", "1st", "a package cannot be called '1st'"),
        ("model", "a" * 61, "use up to 60 lower-case letters"),
        ("model", "all", "all has a meaning in the command line; choose another name"),
        ("model", "everything", "everything has a meaning in the command line; choose another name"),
        ("metric", "model", "no column can be called 'model'"),
        ("model", "grey", "model 'grey' is there already, by colorbench_bounds"),
        ("model", "metrics", "model 'metrics' is there already, by the module colorbench_metrics"),
        ("model", "there", "there exists already; choose another name, or move it"),
    ],
)
def test_a_name_that_cannot_be_is_refused_and_nothing_is_written(colorbench, tmp_path, monkeypatch, kind, name, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    result = colorbench("new", kind, name)
    assert result.exit_code == 2
    assert said in one_line(result)
    assert [*tmp_path.rglob("*")] == [tmp_path / "there"]


def test_templates_are_for_every_kind_that_can_be_begun():
    assert {*scaffold.COMMANDS} == {*KINDS}
    assert plugins.load().specs.keys() >= {*KINDS}
