"""The notebook of the examples, run cell by cell as a notebook does, and what a run leaves of the interpreter."""

import ast
import json
import os
import random
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from PIL import Image

NOTEBOOK = REPOSITORY / "examples" / "compare.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def shown(source, names):
    """Run the source of a cell; the value of its last line, which a notebook shows."""
    *before, last = ast.parse(source).body
    exec(compile(ast.Module(before, []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def state():
    """What a run could change for the cells after it."""
    return {
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "torch's random numbers": torch.get_rng_state().tolist(),
        "numpy's": str(np.random.get_state()),
        "Python's": random.getstate(),
        "the working directory": os.getcwd(),
        "the environment": dict(os.environ),
        "matplotlib": dict(mpl.rcParams),
    }


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """What each code cell shows, and the state of the interpreter before and after them."""
    before, home = state(), os.getcwd()
    os.chdir(folder := tmp_path_factory.mktemp("notebook"))
    try:
        names = {"__name__": "__main__"}
        values = [shown("".join(cell["source"]), names) for cell in CELLS if cell["cell_type"] == "code"]
        there = os.getcwd()
    finally:
        os.chdir(home)
    assert Path(there) == folder
    return values, before, state()


def test_the_notebook_is_kept_without_outputs():
    code = [cell for cell in CELLS if cell["cell_type"] == "code"]
    assert len(code) > 5
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


def test_each_cell_shows_a_table_or_a_picture(executed):
    values, *_ = executed
    assert all(hasattr(value, "_repr_html_") or isinstance(value, Image.Image) for value in values)
    run, again = values[0], values[-1]
    assert run.record.protocol.id in run._repr_html_()
    assert again._repr_html_() == run._repr_html_()
    assert set(run.comparison["status"]) == {"done"}


def test_a_run_leaves_the_interpreter_as_it_was(executed):
    _, before, after = executed
    assert [name for name in before if after[name] != before[name]] == []
