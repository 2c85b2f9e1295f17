"""What several tests share: a cache of their own, photographs made on the spot, and one small run of every model."""

import hashlib
import io
import json
import os
import shutil
import zipfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from colorbench import plugins

REPOSITORY = Path(__file__).parents[1]


def pytest_xdist_auto_num_workers():
    return (os.cpu_count() or 1) + 1  # since many tests wait for processes that they start


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    os.environ["COLORBENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["COLORBENCH_WEIGHTS"] = str(tmp_path_factory.mktemp("weights"))
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


def jpegs(folder: Path, count: int) -> Path:
    """A new folder of so many of them."""
    folder.mkdir()
    for index in range(count):
        (folder / f"{index:03}.jpg").write_bytes(jpeg(index))
    return folder


@pytest.fixture(scope="session")
def photo_zip(tmp_path_factory):
    """A zip with train, val and test folders of 24, 6 and 6 JPEGs."""
    path = tmp_path_factory.mktemp("photos") / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for split, start, count in (("train", 0, 24), ("val", 24, 6), ("test", 30, 6)):
            for index in range(start, start + count):
                archive.writestr(f"photos/{split}/{index:03}.jpg", jpeg(index))
    return path


def call(*arguments):
    """Call the command line in this process: `call("list", "models")` -> a click result. Raises what it lets out."""
    from colorbench.cli import main

    result = CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="colorbench")
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def colorbench():
    """The function `call`."""
    return call


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory):
    """One run of all models at the smoke preset, shared and not to be changed: the result and the folder."""
    from colorbench.cli import main

    folder = tmp_path_factory.mktemp("runs") / "smoke"
    arguments = ["run", "--models", "all", "--preset", "smoke", "--out", str(folder)]
    return CliRunner().invoke(main, arguments, prog_name="colorbench"), folder


TINY = '''"""A small network, and one that refines it."""
from colorbench import ModelSpec, Stage, Update, hookimpl


def build(base=None, **options):
    """A convolution of one pixel."""
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(1, 2, 1)
            self.base = base

        def forward(self, L):
            ab = 10 * self.convolution(L / 100)
            return ab if self.base is None else ab + self.base(L)

        def updates(self, batch):
            yield Update({"l2": (self(batch.L) - batch.ab).square().mean() / 1000})

    return Network()


def schedule(preset):
    return [Stage("train", 1, learning_rate=0.001)]


OPTIONS = {}


@hookimpl
def register_models(register):
    register(ModelSpec("tiny", "a test", build, schedule, OPTIONS))
    register(ModelSpec("on-tiny", "a test", build, schedule, refines="tiny"))
'''


class Bench:
    """A plugin file whose text a test changes, and a run folder in which its models are run."""

    def __init__(self, folder):
        self.folder, self.run, self.file = folder, folder / "run", folder / "tiny.py"

    def write(self, text):
        self.file.write_text(text)

    def change(self, old, new):
        text = self.file.read_text()
        assert old in text
        self.write(text.replace(old, new))

    def arguments(self, models="tiny"):
        settings = ("--preset", "smoke", "--size", 16, "--plugin", self.file, "--out", self.run)
        return ("--models", models, *settings)

    def __call__(self, models="tiny", *more):
        """`colorbench run`, without timing."""
        return call("run", *self.arguments(models), "--no-timing", *more)

    def plan(self, models="tiny", *more):
        return call("plan", *self.arguments(models), *more)

    def cell(self, model="tiny", seed=0):
        return self.run / "cells" / model / f"seed-{seed}"

    def record(self, model="tiny", seed=0):
        return json.loads((self.cell(model, seed) / "cell.json").read_text())

    def table(self):
        return pd.read_csv(self.run / "comparison.csv").set_index("model")


@pytest.fixture
def fresh(tmp_path):
    """A bench on which nothing was run yet."""
    bench = Bench(tmp_path)
    bench.write(TINY)
    return bench


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A bench with a finished run of both models, to be copied."""
    bench = Bench(tmp_path_factory.mktemp("finished"))
    bench.write(TINY)
    result = bench("tiny,on-tiny")
    assert result.exit_code == 0, result.stderr
    return bench


@pytest.fixture
def bench(finished, tmp_path):
    """A bench with a finished run of both models, of one's own."""
    shutil.copytree(finished.folder, tmp_path, dirs_exist_ok=True)
    return Bench(tmp_path)


def contents(folder):
    """Every file of a folder with its time of change and content, but the lock, which every command touches."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != ".lock")
    return {str(file.relative_to(folder)): (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


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


@pytest.fixture(scope="session")
def random_inception(tmp_path_factory):
    """A file of weights of chance for torch-fidelity's InceptionV3."""
    from torch_fidelity import feature_extractor_inceptionv3 as library

    torch.manual_seed(0)
    extractor = library.FeatureExtractorInceptionV3
    with patch.object(library, "load_state_dict_from_url"), patch.object(extractor, "load_state_dict"):
        network = extractor("random", ["64"])
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")  # or the features of all images vanish
    file = tmp_path_factory.mktemp("inception") / "random.pth"
    torch.save(network.state_dict(), file)
    return file


@pytest.fixture(scope="session")
def random_lpips(tmp_path_factory):
    """A folder with weights of chance for LPIPS: VGG16's, named by their hash, and those of its five layers."""
    from torchvision.models import vgg16

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("lpips")
    features = {f"features.{name}": weights for name, weights in vgg16(weights=None).features.state_dict().items()}
    torch.save(features, folder / "vgg16")
    digits = hashlib.sha256((folder / "vgg16").read_bytes()).hexdigest()[:8]
    (folder / "vgg16").rename(folder / f"vgg16-{digits}.pth")
    torch.save([torch.rand(1, channels, 1, 1) for channels in (64, 128, 256, 512, 512)], folder / "lpips_weights.pt")
    return folder
