"""What models and metrics get beside L: hints that a protocol gives, arrays that a dataset has."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import call, one_line
from toys import STAGE, Toy, spec, toy_images, trainer

from colorbench import plugins
from colorbench.color import rgb_to_lab
from colorbench.errors import UserError
from colorbench.harness.networks import build
from colorbench.harness.predict import check_answers, colorize, inputs_of, predict
from colorbench.hints import draw, reveal
from colorbench.protocol import COLORBENCH, Protocol

EXAMPLE = Path(__file__).parents[2] / "examples" / "hints.py"
MODELS = plugins.load([EXAMPLE]).specs["model"]
CPU = torch.device("cpu")
AUTOMATIC = replace(COLORBENCH, size=16)
HINTED = replace(AUTOMATIC, hints=3, hint_size=2)
DEPTH = """
from dataclasses import dataclass

import numpy as np

from colorbench import DatasetSpec, MetricSpec, ModelSpec, Stage, Update, hookimpl

SEEN = []


@dataclass(frozen=True)
class Scene:
    index: int

    @property
    def name(self):
        return f"scene-{self.index}"

    @property
    def digest(self):
        return self.name

    def load(self, size):
        return np.random.default_rng(self.index).integers(0, 255, (size, size, 3), np.uint8)

    def arrays(self, size):
        depth = self.load(size)[..., 0].astype(np.float32) / 255
        return {"depth": depth, "near": depth < 0.5, "caption": np.full(5, self.index, np.int64)}


def open_scenes(argument):
    return {"train": [Scene(i) for i in range(16)], "val": [Scene(i) for i in range(16, 20)],
            "test": [Scene(i) for i in range(20, 26)]}


def build(**_):
    import torch
    from torch import nn

    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(2, 2, 1)

        def forward(self, L, depth=None, caption=None, hints=None):
            depth = torch.zeros_like(L[:, 0]) if depth is None else depth
            return 10 * self.convolution(torch.stack((L[:, 0] / 100, depth), dim=1))

        def updates(self, batch):
            depth, caption = batch.inputs["depth"], batch.inputs["caption"]
            # What the depth was made of, which flips with the picture; a caption does not, and has a row per image.
            from colorbench import lab_to_rgb

            red = lab_to_rgb(torch.cat((batch.L, batch.ab), dim=1))[:, 0]
            assert (red - depth).abs().max() < 0.02
            assert caption.shape == (len(depth), 5) and set(batch.inputs) == {"depth", "caption"}
            yield Update({"l2": (self(batch.L, depth) - batch.ab).square().mean() / 1000})

    return Deep()


def nearness(predicted, truth, near):
    return near.float().mean((1, 2))


@hookimpl
def register_models(register):
    schedule = lambda preset: [Stage("train", 1)]
    register(ModelSpec("deep", "a test", build, schedule, takes=("depth", "caption", "hints")))


@hookimpl
def register_datasets(register):
    register(DatasetSpec("scenes", "a test", open_scenes))


@hookimpl
def register_metrics(register):
    register(MetricSpec("nearness", "a test", nearness, takes=("near",)))
    register(MetricSpec("warmth", "a test", lambda predicted, truth, heat: heat, takes=("heat",)))
"""


class Hinted(Toy):
    """A toy that answers with what it was given."""

    def forward(self, L, hints=None):
        return L.new_zeros(len(L), 2, *L.shape[2:]) if hints is None else hints[:, :2]


def given(images, protocol, takes=("hints",), place=slice(4)):
    return inputs_of(replace(spec("toy"), takes=takes), images, place, CPU, protocol)[1]


def test_hints_leave_the_ids_as_they_were_until_a_protocol_has_some():
    assert COLORBENCH.id == "a1d172c07ec1"
    hinted = replace(COLORBENCH, hints=1)
    assert hinted.input_id != COLORBENCH.input_id
    assert (hinted.scoring_id, hinted.automatic) == (COLORBENCH.scoring_id, COLORBENCH)


def test_a_patch_has_the_mean_of_the_true_ab_and_the_rest_is_zero():
    ab = torch.randn(2, 2, 8, 8)
    hints = reveal(ab, [(1, 2, 3, 4), (1, 5, 6, 2)])
    assert hints.shape == (2, 3, 8, 8)
    torch.testing.assert_close(hints[1, :, 2, 3], torch.tensor([*ab[1, :, 2:6, 3:7].mean((1, 2)), 1]))
    torch.testing.assert_close(hints[1, :, 5, 6], torch.tensor([*ab[1, :, 5:7, 6:8].mean((1, 2)), 1]))  # the later
    assert hints[1, 2].sum() == 16 + 4 - 1
    assert not hints[0].any()
    assert not hints[1, :2][hints[1, 2:].expand(2, -1, -1) == 0].any()


@pytest.mark.parametrize("places", ["normal", "uniform"])
def test_an_image_has_the_same_hints_in_any_batch_and_more_points_keep_the_first(places):
    ab, digests = torch.randn(3, 2, 16, 16), ["a", "b", "c"]
    protocol = replace(HINTED, hint_places=places, hint_size=1)
    hints = draw(ab, digests, protocol)
    torch.testing.assert_close(hints[1:2], draw(ab[1:2], digests[1:2], protocol))
    assert not torch.equal(hints[0, 2], draw(ab[:1], ["other"], protocol)[0, 2])
    more = draw(ab, digests, replace(protocol, hints=30))
    assert (more[:, 2] >= hints[:, 2]).all()
    assert (more[:, 2].sum((1, 2)) > hints[:, 2].sum((1, 2))).all()


def test_normal_places_are_around_the_center_and_uniform_ones_everywhere():
    ab, shares = torch.zeros(200, 2, 64, 64), {}
    for places in ("normal", "uniform"):
        protocol = replace(COLORBENCH, size=64, hints=5, hint_size=4, hint_places=places)
        mask = draw(ab, [str(i) for i in range(200)], protocol)[:, 2]
        shares[places] = mask[:, 16:48, 16:48].sum() / mask.sum()
    assert shares["uniform"] == pytest.approx(0.25, abs=0.04)
    assert shares["normal"] == pytest.approx(0.47, abs=0.05)  # within a standard deviation on both axes


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"hints": 3, "hint_size": 17}, "hints of 17 px do not fit into 16 px"),
        ({"hints": 257}, "257 hints are more than 16 px square have pixels"),
        ({"hints": -1}, "the protocol's hints cannot be -1"),
        ({"hints": True}, "the protocol's hints cannot be True"),
        ({"hints": 3, "hint_size": 0}, "the protocol's hint_size cannot be 0"),
    ],
)
def test_a_protocol_whose_hints_cannot_be_drawn_is_refused(fields, said):
    with pytest.raises(UserError, match=said):
        replace(AUTOMATIC, **fields)


def test_unknown_places_name_those_that_there_are():
    with pytest.raises(UserError, match=r"unknown hint_places in protocol .*'edges'.*there is: normal, uniform"):
        draw(torch.zeros(1, 2, 16, 16), ["a"], replace(HINTED, hint_places="edges"))


def test_a_model_gets_what_it_takes_where_it_is_to_be_had():
    images = replace(toy_images(), arrays={"depth": np.random.rand(10, 16, 16).astype(np.float32)})
    assert given(images, AUTOMATIC) == given(images, HINTED, takes=()) == {}
    assert list(given(images, AUTOMATIC, takes=("hints", "depth"))) == ["depth"]
    both = given(images, HINTED, takes=("hints", "depth"), place=slice(2, 5))
    np.testing.assert_array_equal(both["depth"], images.arrays["depth"][2:5])
    ab = rgb_to_lab(torch.from_numpy(images.pixels[2:5]).permute(0, 3, 1, 2) / 255)[:, 1:]
    torch.testing.assert_close(both["hints"], draw(ab, images.digests[2:5], HINTED), atol=1e-3, rtol=0)


def test_predictions_are_made_from_the_hints():
    images, model = toy_images(), replace(spec("toy"), takes=("hints",))
    automatic, hinted = (
        next(predict(Hinted(), model, images, CPU, protocol)).pictures.float() for protocol in (AUTOMATIC, HINTED)
    )
    changed = (automatic != hinted).any(1)
    mask = given(images, HINTED, place=slice(10))["hints"][:, 2].bool()
    assert changed.any()
    assert not changed[~mask].any()
    check_answers(Hinted(), torch.full((4, 1, 16, 16), 50.0), **given(images, HINTED))


def test_a_network_that_mixes_up_whose_hints_are_whose_is_refused():
    network = Hinted()
    network.forward = lambda L, hints: hints[:1, :2].expand(len(L), -1, -1, -1)
    with pytest.raises(ValueError, match="otherwise alone than in a batch"):
        check_answers(network, torch.full((4, 1, 16, 16), 50.0), **given(toy_images(), HINTED))


def test_arrays_are_flipped_with_their_picture_in_training_and_by_no_means_else():
    images = toy_images()
    lightness = rgb_to_lab(torch.from_numpy(images.pixels).permute(0, 3, 1, 2) / 255)[:, 0].numpy()
    images = replace(images, arrays={"lightness": lightness, "number": np.arange(30).reshape(10, 3)})
    seen = []

    class Watching(Toy):
        def updates(self, batch):
            torch.testing.assert_close(batch.inputs["lightness"], batch.L[:, 0], atol=1e-3, rtol=0)
            seen.extend(batch.inputs["number"].tolist())
            return super().updates(batch)

    network = Watching()
    trainer(network, images).run([replace(STAGE, epochs=1)])
    rows = np.arange(30).reshape(10, 3).tolist()
    assert sorted(seen[: len(seen) - 10]) == [row for i, row in enumerate(rows) if i != 4]  # without the near grey
    assert seen[-10:] == rows, "validation has each in order"


@pytest.mark.parametrize("name", sorted(name for name, spec in MODELS.items() if "hints" in spec.takes))
def test_what_takes_hints_colors_with_them_without_them_and_each_image_by_its_own(name):
    network = build(MODELS[name], width=0.125, size=16)
    images = toy_images()
    L, inputs = inputs_of(MODELS[name], images, slice(3), CPU, HINTED)
    check_answers(network, L, **inputs)
    automatic = colorize(network, L)
    assert torch.equal(automatic, colorize(network, L, hints=torch.zeros_like(inputs["hints"])))
    assert not torch.equal(automatic, colorize(network, L, **inputs))


@pytest.fixture(scope="module")
def hinted_run(tmp_path_factory):
    """A run of the example, of models that take hints and models that do not."""
    folder = tmp_path_factory.mktemp("hinted") / "run"
    settings = ("--preset", "smoke", "--size", 16, "--no-timing", "--protocol", "hints-10")
    result = call("run", "--models", "hinted,grey,true-ab-8px", "--plugin", EXAMPLE, "--out", folder, *settings)
    assert result.exit_code == 0, result.stderr
    return folder


def test_the_table_says_who_was_given_what(hinted_run):
    table = pd.read_csv(hinted_run / "comparison.csv").set_index("model")
    assert table["given"].to_dict() == {"hinted": "hints", "grey": "automatic", "true-ab-8px": "the truth"}
    text = (hinted_run / "comparison.md").read_text()
    assert "Hints: 10 in each image, of 4 x 4 px with the mean of their true ab" in text
    assert "Given to: hinted." in text
    assert "Automatic, from L alone, and not to be compared with rows that had more: grey." in text
    assert json.loads((hinted_run / "cells/hinted/seed-0/cell.json").read_text())["given"] == ["hints"]


def test_the_same_weights_are_evaluated_without_hints(hinted_run, tmp_path, photo_zip):
    mse = {}
    for protocol in ("colorbench-1", "hints-10"):
        out = tmp_path / protocol
        arguments = ("--data", photo_zip, "--plugin", EXAMPLE, "--protocol", protocol, "--out", out)
        result = call("evaluate", hinted_run, *arguments)
        assert result.exit_code == 0, result.stderr
        table = pd.read_csv(out / "comparison.csv").set_index("model")
        assert ("given" in table) == (protocol == "hints-10")
        mse[protocol] = table["mse"]
    assert mse["colorbench-1"]["grey"] == mse["hints-10"]["grey"]
    assert mse["colorbench-1"]["hinted"] != mse["hints-10"]["hinted"]


def test_kept_predictions_are_scored_under_other_protocols_as_they_are(hinted_run):
    result = call("score", hinted_run, "--protocol", "omz", "--plugin", EXAMPLE)
    assert result.exit_code == 0, result.stderr


def test_the_arrays_of_a_dataset_reach_models_and_metrics(tmp_path):
    plugin, run = tmp_path / "depth.py", tmp_path / "run"
    plugin.write_text(DEPTH)
    common = ("--plugin", plugin, "--preset", "smoke", "--size", 16, "--data", "scenes", "--out", run)
    result = call("run", "--models", "deep,grey", "--no-timing", *common)
    assert result.exit_code == 0, result.stderr
    table = pd.read_csv(run / "comparison.csv").set_index("model")
    assert table["given"].to_dict() == {"deep": "depth, caption", "grey": "automatic"}
    assert 0.3 < table["nearness"]["grey"] < 0.7
    assert "warmth is left out: it needs heat, which these data have not" in (run / "comparison.md").read_text()
    assert "warmth" not in table
    assert "share_near" in pd.read_parquet(run / "cells/grey/seed-0/details.parquet")
    assert call("run", "--models", "deep", *common).exit_code == 0
    timing = json.loads((run / "timing/deep.json").read_text())
    assert (timing["failed"], timing["step_n"] is not None) == (None, True)  # its arrays, with which alone it can train


def test_a_metric_that_takes_an_array_is_left_out_without_it(tmp_path, photo_zip):
    plugin, run = tmp_path / "depth.py", tmp_path / "run"
    plugin.write_text(DEPTH)
    common = ("--plugin", plugin, "--preset", "smoke", "--size", 16, "--no-timing", "--data", photo_zip)
    assert call("run", "--models", "grey", *common, "--out", run).exit_code == 0
    assert "nearness is left out: it needs near" in (run / "comparison.md").read_text()


def test_hints_that_do_not_fit_the_size_of_a_run_are_one_line(tmp_path):
    plugin = tmp_path / "large.py"
    plugin.write_text(
        "from colorbench import Protocol, hookimpl\n\n@hookimpl\ndef register_protocols(register):\n"
        "    register(Protocol('large', 'a test', 'a test', hints=1, hint_size=40))\n"
    )
    result = call("run", "--models", "grey", "--plugin", plugin, "--preset", "smoke", "--protocol", "large")
    assert result.exit_code == 2
    assert one_line(result).endswith("protocol large: hints of 40 px do not fit into 32 px")


def test_a_model_says_what_it_takes_in_a_sequence():
    with pytest.raises(ValueError, match=r"takes is 'hints'; give names, such as \('hints',\)"):
        replace(spec("toy"), takes="hints")
    with pytest.raises(ValueError, match="takes is"):
        replace(spec("toy"), takes=("color hints",))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"published_width": "x"}, "published_width is 'x'; give a factor above 0"),
        ({"published_width": float("nan")}, "published_width is nan"),
        ({"published_size": "256"}, "published_size is '256'; give a side in pixels"),
        ({"published_size": 0}, "published_size is 0"),
        ({"convert": {}}, "build, schedule or convert is not a function"),
        ({"schedule": None}, "build, schedule or convert is not a function"),
    ],
)
def test_a_model_says_only_what_it_can_mean(fields, said):
    with pytest.raises(ValueError, match=f"model 'toy': {said}"):
        replace(spec("toy"), **fields)


def test_a_protocol_is_a_value():
    assert Protocol("a", hints=10, hint_size=7).settings["hint_places"] == "normal"
