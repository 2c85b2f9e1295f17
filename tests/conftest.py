"""What several tests share: a cache of their own, photographs made on the spot, and one small run of every model."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from colorbench import plugins

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    os.environ["COLORBENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    torch.set_num_threads(1)  # the networks here are tiny: more threads would only wait for each other


@pytest.fixture(autouse=True)
def same_randomness():
    torch.manual_seed(0)  # a test shall not depend on those that ran before it


@pytest.fixture(scope="session")
def registry():
    return plugins.load()


def jpeg(index: int, side: tuple[int, int] = (48, 40)) -> bytes:
    """A smooth, colorful JPEG that depends on its index."""
    rng = np.random.default_rng(index)
    small = Image.fromarray(rng.integers(0, 255, (4, 4, 3), np.uint8))
    buffer = io.BytesIO()
    small.resize(side, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def photo_zip(tmp_path_factory):
    """A zip with train, val and test folders of 24, 6 and 6 JPEGs."""
    path = tmp_path_factory.mktemp("photos") / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for split, start, count in (("train", 0, 24), ("val", 24, 6), ("test", 30, 6)):
            for index in range(start, start + count):
                archive.writestr(f"photos/{split}/{index:03}.jpg", jpeg(index))
    return path


@pytest.fixture
def colorbench():
    """Call the command line in this process: `colorbench("list", "models")` -> a click result."""

    def call(*arguments):
        from colorbench.cli import main

        return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="colorbench")

    return call


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory):
    """One run of all models at the smoke preset, shared and not to be changed: the result and the folder."""
    from colorbench.cli import main

    folder = tmp_path_factory.mktemp("runs") / "smoke"
    arguments = ["run", "--models", "all", "--preset", "smoke", "--out", str(folder)]
    return CliRunner().invoke(main, arguments, prog_name="colorbench"), folder


FAILING = """
from colorbench import ModelSpec, Stage, Update, hookimpl

def build(base=None, **_):
    from torch import nn
    class Network(nn.Conv2d):
        def updates(self, batch):
            loss = self(batch.L).mean() * FACTOR
            yield Update({"l2": loss})
    return Network(1, 2, 1)

@hookimpl
def register_models(register):
    register(ModelSpec("doomed", "a test", build, lambda preset: [Stage("train", 1)]))
    register(ModelSpec("on-doomed", "a test", build, lambda preset: [], refines="doomed"))
"""


@pytest.fixture
def doomed(tmp_path):
    file = tmp_path / "doomed.py"
    file.write_text(FAILING.replace("FACTOR", "float('nan')"))
    return file


def one_line(result):
    """The last line of standard error, where nothing else may look like a traceback."""
    assert "Traceback" not in result.stderr
    return result.stderr.strip().splitlines()[-1]
