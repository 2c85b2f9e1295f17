"""Plugins that break one law each: that law is named, and no other."""

import hashlib
import random
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from colorbench import DatasetSpec, DiagnosticSpec, MetricSpec, ModelSpec, Stage, Statistic, Update
from colorbench.plugins import Registry
from colorbench.protocol import COLORBENCH
from colorbench.testing import check_dataset, check_diagnostic, check_metric, check_model, check_protocol


class Sound(nn.Module):
    """Keeps every law."""

    def __init__(self, base=None):
        super().__init__()
        self.base, self.layer = base, nn.Conv2d(1, 2, 1)

    def forward(self, L):
        return 60 * self.layer(L / 50 - 1).float().tanh() + (0 if self.base is None else 0.1 * self.base(L))

    def updates(self, batch):
        yield Update({"l2": (self(batch.L) - batch.ab).div(60).square().mean()})

    def train(self, mode=True):
        super().train(mode)
        if self.base is not None:
            self.base.eval()
        return self


class Misspelt(Sound):
    def with_atention(self, L):
        return self(L), None


class OneChannel(Sound):
    def forward(self, L):
        return super().forward(L)[:, :1]


class Logarithm(Sound):
    def forward(self, L):
        return super().forward(L) + 0.1 * L.log()


class Panicking(Sound):
    def forward(self, L):
        raise GeneratorExit("no Exception")


class NoGenerator(Sound):
    def updates(self, batch):
        return list(super().updates(batch))


class Over110(Sound):
    def forward(self, L):
        return super().forward(L) / 110

    def updates(self, batch):
        yield Update({"l2": (self(batch.L) - batch.ab / 110).square().mean()})


class TooStrong(Sound):
    def forward(self, L):
        return super().forward(L) + 200


class Noisy(Sound):
    def forward(self, L):
        return super().forward(L) + torch.randn(())


class Drawing(Sound):
    def forward(self, L):
        random.random()
        return super().forward(L)


class Mixing(Sound):
    def forward(self, L):
        ab = super().forward(L)
        return ab - 0.5 * ab.mean(dim=0, keepdim=True)


class OtherAttention(Sound):
    def with_attention(self, L):
        return self(L) + 1, None


class InPlace(Sound):
    def forward(self, L):
        return super().forward(L.mul_(0.9))


class FixedSize(Sound):
    def forward(self, L):
        return super().forward(L.reshape(-1, 1, 32, 32))


class Half(Sound):
    def forward(self, L):
        return 60 * self.layer(L / 50 - 1).tanh()


class Unused(Sound):
    def __init__(self, base=None):
        super().__init__(base)
        self.more = nn.Linear(1, 1)


class Overlapping(Sound):
    def updates(self, batch):
        for player in ("", "layer"):
            for update in super().updates(batch):
                yield replace(update, player=player)


class Counting(Sound):
    def __init__(self, base=None):
        super().__init__(base)
        self.register_buffer("batches", torch.zeros(()))

    def updates(self, batch):
        self.batches += 1
        return super().updates(batch)


class Unsaved(Sound):
    def __init__(self, base=None):
        super().__init__(base)
        self.offset = 10 * torch.randn(2, 1, 1)

    def forward(self, L):
        return super().forward(L) + self.offset


class Forgetful(Sound):
    """Counts its steps where no checkpoint sees it."""

    taken = 0

    def updates(self, batch):
        for update in super().updates(batch):
            self.taken += self.training
            yield Update({name: loss / (1 + self.taken) for name, loss in update.losses.items()})


class Statistics(Sound):
    """A base with statistics of its own, and what forgets to leave them alone."""

    def __init__(self, base=None):
        super().__init__(base)
        self.norm = nn.BatchNorm2d(2)

    def forward(self, L):
        return 10 * self.norm(super().forward(L))

    train = nn.Module.train


class Prior(Sound):
    """Divides by a statistic, which is 0 until it is taken."""

    measured = ("mean",)

    def __init__(self, base=None):
        super().__init__(base)
        self.register_buffer("mean", torch.zeros(()))

    def measure(self, batches):
        self.mean.fill_(torch.cat([batch.L for batch in batches]).mean())

    def updates(self, batch):
        yield Update({"l2": (self(batch.L) - batch.ab).div(self.mean).square().mean()})


def schedule(preset):
    return [Stage("first", preset.epochs, learning_rate=1e-2), Stage("second", 1, learning_rate=1e-2)]


def spec(network, name="broken", schedule=schedule, **fields):
    return ModelSpec(name, "a test", lambda base=None, **_: network(base), schedule, **fields)


def broken(checks):
    return {check.law: f"{check.seen}; {check.remedy}" for check in checks if not check.passed}


def models(*specs):
    registry = Registry()
    registry.specs["model"] |= {each.name: each for each in specs}
    return registry


MODELS = [
    (lambda base: None, "builds", "returned NoneType"),
    (Misspelt, "spelling", "did you mean 'with_attention'?"),
    (OneChannel, "shape", "(4, 1, 32, 32)"),
    (Logarithm, "finite", "not finite for L = 0; look for a division"),
    (Panicking, "shape", "GeneratorExit: no Exception; the law:"),
    (NoGenerator, "trains", "returned list; it must be a generator"),
    (Over110, "lab units", "multiply what forward returns by 110"),
    (TooStrong, "lab units", "|ab| is up to 2"),
    (Noisy, "deterministic", "another answer to the same image"),
    (Drawing, "deterministic", "random numbers are drawn in eval mode"),
    (Mixing, "independent of the batch", "colored otherwise alone"),
    (OtherAttention, "attention", "other colors than forward"),
    (InPlace, "input left alone", "L or ab was changed"),
    (FixedSize, "sizes", "32x64"),
    (Half, "bf16", "torch.bfloat16"),
    (Unused, "gradients", "stage 'first': more.bias, more.weight get no gradient"),
    (Overlapping, "players", "players '' and 'layer' share layer.bias, layer.weight"),
    (Counting, "validation", "batches changed in eval mode"),
    (Unsaved, "save and load", "it answers otherwise when loaded"),
    (Forgetful, "resume", "differ when it was stopped and resumed"),
]


@pytest.mark.parametrize(("network", "law", "said"), MODELS)
def test_a_model_that_breaks_one_law(network, law, said):
    found = broken(check_model(spec(network), models()))
    assert [*found] == [law]
    assert said in found[law]


@pytest.mark.parametrize(
    ("stages", "law", "said"),
    [
        (
            [Stage("first", 1, learning_rate=float("nan"))],
            "stages",
            "preset smoke: stage 'first': learning_rate is nan",
        ),
        ([Stage("first", 1, frozen=("layers",))], "stages", "no such submodule; there are: layer"),
        ([Stage("first", 1, learning_rate=0.0)], "learns", "no loss falls in 5 steps: first"),
    ],
)
def test_a_schedule_that_breaks_one_law(stages, law, said):
    found = broken(check_model(spec(Sound, schedule=lambda preset: stages), models()))
    assert [*found] == [law]
    assert said in found[law]


def test_a_schedule_that_is_another_each_time():
    rates = iter(np.linspace(0.01, 0.02, 100))
    found = broken(check_model(spec(Sound, schedule=lambda preset: [Stage("s", 1, next(rates))]), models()))
    assert "learning_rate" in found["stages"]


def test_a_base_that_does_not_stay_as_it_is():
    base, above = spec(Statistics, "base"), spec(Sound, "above", refines="base")
    assert broken(check_model(above, models(base))) == {}
    found = broken(check_model(spec(Statistics, "above", refines="base"), models(base)))
    assert [*found] == ["base left alone"]
    assert "norm.running_mean" in found["base left alone"]


def test_statistics_are_taken_before_a_step():
    def measured_first(preset):
        return [Stage("measure", measures=True), *schedule(preset)]

    assert broken(check_model(spec(Prior, schedule=measured_first), models())) == {}


def test_a_measure_that_no_stage_asks_for_is_named():
    found = broken(check_model(spec(Prior), models()))
    assert [*found] == ["stages"]
    assert "no stage asks for it" in found["stages"]


def test_an_input_that_forward_has_not_is_named():
    class Hinted(Sound):
        def forward(self, L, hints=None):
            return super().forward(L)

    class Open(Sound):
        def forward(self, L, **inputs):
            return super().forward(L)

    found = broken(check_model(spec(Hinted, takes=("hint",)), models()))
    assert [*found] == ["luminance alone"]
    assert "'hint', which forward has not; it has L, hints" in found["luminance alone"]
    assert broken(check_model(spec(Open, takes=("hint",)), models())) == {}


def test_hints_are_given_and_may_be_absent():
    class Hinted(Sound):
        def forward(self, L, hints=None):
            return super().forward(L) + (0 if hints is None else hints[:, :2])

    class Needy(Sound):
        def forward(self, L, hints):
            return super().forward(L) + hints[:, :2]

        def updates(self, batch):
            yield Update({"l2": (super().forward(batch.L) - batch.ab).square().mean()})

    assert broken(check_model(spec(Hinted, takes=("hints",)), models())) == {}
    assert [*broken(check_model(spec(Needy, takes=("hints",)), models()))] == ["luminance alone"]


def test_sound_models_keep_every_law():
    checks = check_model(spec(Sound), models())
    assert broken(checks) == {}
    assert len(checks) > 15
    assert all(check.seen and not check.remedy for check in checks)


@dataclass(frozen=True)
class Shade:
    """A picture of two shades, which its digest covers."""

    index: int
    name: str

    @property
    def digest(self):
        return hashlib.sha256(str(self.index).encode()).hexdigest()

    def load(self, size):
        image = np.full((size, size, 3), self.index % 200, np.uint8)
        image[: size // 2] = self.index % 7
        return image


class Wide(Shade):
    def load(self, size):
        return super().load(size)[..., 0]


class Unseeded(Shade):
    def load(self, size):
        return np.random.default_rng().integers(0, 255, (size, size, 3), np.uint8)


class ByChance(Shade):
    @property
    def digest(self):
        return str(random.random())


class Blind(Shade):
    @property
    def digest(self):
        return str(self.index // 2)


class Masked(Shade):
    def arrays(self, size):
        return {"left" if self.index % 2 else "right": np.ones((size, size), bool)}


def splits(kind, name="picture-{}", **places):
    places = places or {"train": range(10), "test": range(10, 14)}
    return {split: [kind(index, name.format(index)) for index in indices] for split, indices in places.items()}


def dataset(found, refuses=True):
    def open_splits(argument):
        if argument and refuses:
            raise ValueError("it takes no argument")
        return found

    return DatasetSpec("broken", "a test", open_splits)


@pytest.mark.parametrize(
    ("spec", "law", "said"),
    [
        (dataset(splits(Shade), refuses=False), "refuses", "is taken as argument"),
        (dataset(splits(Shade, testing=range(3))), "opens", "splits testing; name them train, val, test"),
        (dataset(splits(Shade, name="same")), "names", "'same' is not text, or comes twice"),
        (dataset(splits(ByChance)), "digests", "is another when the dataset is opened again"),
        (dataset(splits(Wide)), "pictures load", "uint8 (32, 32); uint8 (h, w, 3) is due"),
        (dataset(splits(Unseeded)), "pictures load", "others each time"),
        (dataset(splits(Blind)), "pictures load", "have the same digest"),
        (dataset(splits(Masked)), "arrays", "the first has"),
        (dataset(splits(Shade, train=range(10), test=range(9, 12))), "splits are disjoint", "in train and in test"),
    ],
)
def test_a_dataset_that_breaks_one_law(spec, law, said):
    found = broken(check_dataset(spec))
    assert [*found] == [law]
    assert said in found[law]


def test_a_digest_of_the_path_is_another_in_a_copy(tmp_path):
    (tmp_path / "a.txt").write_text("")

    def open_splits(argument):
        if argument != str(tmp_path) and not argument.endswith(tmp_path.name):
            raise ValueError("name a folder")
        return {"test": [Blind(len(argument), "a")]}

    found = broken(check_dataset(DatasetSpec("paths", "a test", open_splits), str(tmp_path)))
    assert [*found] == ["digests"]
    assert "is another in a copy of the files" in found["digests"]


def test_a_sound_dataset_keeps_every_law():
    checks = check_dataset(dataset(splits(Shade)))
    assert broken(checks) == {}
    assert [check.law for check in checks] == [
        "refuses", "opens", "names", "digests", "pictures load", "splits are disjoint"
    ]  # fmt: skip


def error(predicted, truth):
    return (predicted.float() - truth.float()).square().mean(dim=(1, 2, 3))


@pytest.mark.parametrize(
    ("compute", "fields", "law", "said"),
    [
        (lambda p, t: error(p, t).mean(), {}, "computes", "floats of shape (8,)"),
        (lambda p, t: error(p, t) * float("nan"), {}, "finite", "it gives nan"),
        (lambda p, t: error(p, t) + len(p), {}, "independent of the batch", "other scores in batches of 3 and 5"),
        (lambda p, t: error(p, t) + p.stride()[1], {}, "layout", "where channels lie last"),
        (error, {"better": "higher"}, "better", "the truth itself 0, but better is 'higher'"),
        (lambda p, t: error(p, t)[:, None], {"reduce": lambda f: f[0, 0]}, "order", "in reverse order"),
        (lambda p, t: error(p, t)[:, None], {"reduce": lambda f: "no"}, "computes", "has to return a number"),
    ],
)
def test_a_metric_that_breaks_one_law(compute, fields, law, said):
    found = broken(check_metric(MetricSpec("broken", "a test", compute, **{"better": "lower", **fields})))
    assert [*found] == [law]
    assert said in found[law]


def test_a_sound_metric_keeps_every_law_and_a_missing_one_is_not_computed():
    sound = MetricSpec("sound", "a test", error, better="lower")
    assert broken(check_metric(sound)) == {}
    (check,) = check_metric(replace(sound, missing="it needs weights"))
    assert check.passed
    assert check.seen == "not computed: it needs weights"


@pytest.mark.parametrize(
    ("fields", "law", "said"),
    [
        ({"rounding": "up"}, "fields", "unknown rounding in protocol broken: 'up'"),
        ({"crop": "left"}, "fields", "unknown crop in protocol broken: 'left'"),
        ({}, "identity", "all its fields are those of colorbench-1"),
        ({"truth_saturation": 0.3}, "true colors", "has a better mse than the true one"),
    ],
)
def test_a_protocol_that_breaks_one_law(fields, law, said):
    registry = Registry()
    registry.specs["protocol"][COLORBENCH.name] = COLORBENCH
    found = broken(check_protocol(replace(COLORBENCH, name="broken", **fields), registry))
    assert [*found] == [law]
    assert said in found[law]


def reddest(pair):
    return {"red": pair.values[0][:, 0].amax((1, 2))}


def in_place(pair):
    return {"red": pair.values[0].mul_(2)[:, 0].amax((1, 2))}


def unseen(pair):  # by torch, which counts what is written
    pair.values[0].numpy()[:, 1] = 0
    return {"red": pair.values[0][:, 0].amax((1, 2))}


@pytest.mark.parametrize(
    ("terms", "formula", "law", "said"),
    [
        (lambda pair: {"red": pair.values[0].mean()}, None, "computes", "a number for each image"),
        (lambda pair: {"red": pair.parts["lips"].float().mean((1, 2))}, None, "computes", "KeyError"),
        (in_place, None, "computes", "it writes into pair.values"),
        (unseen, None, "computes", "it writes into pair.values"),
        (
            lambda pair: {"red": reddest(pair)["red"] / len(pair.truth)},
            None,
            "independent of the batch",
            "images alone",
        ),
        (reddest, lambda red: float(red), "statistics", "most fails"),
    ],
)
def test_a_diagnostic_that_breaks_one_law(terms, formula, law, said):
    most = Statistic("most", "the most", ("red",), formula)
    found = broken(check_diagnostic(DiagnosticSpec("broken", "a test", terms, [most])))
    assert [*found] == [law]
    assert said in found[law]


def test_a_sound_diagnostic_keeps_every_law():
    twice = Statistic("twice", "twice the most", ("red",), lambda red: 2 * red)
    checks = check_diagnostic(DiagnosticSpec("sound", "a test", reddest, [twice]))
    assert [(check.law, check.passed) for check in checks] == [
        ("computes", True), ("independent of the batch", True), ("statistics", True)
    ]  # fmt: skip
