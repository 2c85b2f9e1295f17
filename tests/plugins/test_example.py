"""The example model plugin: small enough to print in the README, and it works as installed and as a file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "colorbench-linear"
MODULE = EXAMPLE / "colorbench_linear.py"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the example installed as pip would install it for a user."""
    site = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(site), str(EXAMPLE)]
    subprocess.run(command, check=True)
    return site


def ask(code, *paths):
    """What `code` prints as JSON in a fresh interpreter that sees `paths`."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    command = [
        sys.executable,
        "-c",
        f"import json\nfrom colorbench import plugins\nprint(json.dumps({code}))",
    ]
    asked = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr
    return json.loads(asked.stdout)


def test_the_example_fits_in_25_lines():
    assert len(MODULE.read_text(encoding="utf-8").splitlines()) <= 25


def test_the_installed_example_is_listed_with_its_origin(site):
    origin = ask("plugins.load().origins['model', 'linear']", site)
    assert origin == "colorbench_linear (colorbench-linear 0.1.0)"


def test_the_example_is_not_there_unless_installed():
    assert "linear" not in ask("list(plugins.load().specs['model'])")


def test_the_same_file_loads_by_its_path():
    assert ask(f"plugins.load([{str(MODULE)!r}]).origins['model', 'linear']") == str(MODULE)


def test_the_example_at_both_doors_is_refused_as_registered_twice(site):
    code = f"""
from colorbench import plugins
from colorbench.errors import UserError
try:
    plugins.load([{str(MODULE)!r}])
except UserError as error:
    print(error)
"""
    environment = os.environ | {"PYTHONPATH": str(site)}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "model 'linear' is registered twice" in said.stdout


def test_the_readme_shows_this_very_plugin():
    assert MODULE.read_text() in (MODULE.parents[2] / "README.md").read_text()
