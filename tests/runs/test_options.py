"""Options given on the command line: read by type, kept in the record, compared in sweeps, not needed to load."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest
import torch
from conftest import call, jpegs, one_line
from toys import spec

from colorbench import ModelSpec, load_model, plugins
from colorbench.api.settings import Options
from colorbench.api.train import prepare
from colorbench.errors import UserError
from colorbench.options import configure, parsed
from colorbench.plugins import Plugin, Registry
from colorbench.presets import PRESETS
from colorbench.runs.fields import own_fields
from colorbench.runs.folder import RunFolder

OPTIONS = """
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    depth: int = 1
    table: Path | None = None


OPTIONS = Options()
"""
ABLATIONS = """
    tiny = ModelSpec("tiny", "a test", build, schedule, OPTIONS)
    register(tiny)
    register(tiny.variant("deep", depth=9))
"""


@pytest.fixture
def optional(fresh):
    """A bench whose model has options, of which `depth` is the number of its convolutions."""
    fresh.change("OPTIONS = {}", OPTIONS)
    fresh.change('    register(ModelSpec("tiny", "a test", build, schedule, OPTIONS))\n', ABLATIONS)
    fresh.change(
        "nn.Conv2d(1, 2, 1)", "nn.Sequential(nn.Conv2d(1, 2, 1), *(nn.Conv2d(2, 2, 1) for _ in range(depth - 1)))"
    )
    fresh.change("base=None, **options", "base=None, depth=1, table=None, **_")
    return fresh


@dataclass(frozen=True)
class Every:
    """An option of each kind."""

    flag: bool = False
    count: int = 3
    rate: float = 0.5
    word: str = "none"
    sizes: tuple[int, ...] = (64, 128)
    pair: tuple[int, str] = (1, "a")
    file: Path | None = None
    most: int | None = 4
    either: int | str = 1
    kind: Literal["a", "b"] = "a"
    weights: Mapping[str, float] | None = None
    names: list[str] | None = None

    def __post_init__(self):
        if self.count == 13:
            raise ValueError("13 is no count")


def registry_of(*specs: ModelSpec) -> Registry:
    names = tuple(f"model {one.name}" for one in specs)
    registry = Registry(plugins=[Plugin("test", "here", "test", names)])
    registry.specs["model"] = {one.name: one for one in specs}
    registry.origins.update({("model", one.name): "here" for one in specs})
    return registry


def configured(**given):
    registry = registry_of(replace(spec("net"), options=Every()))
    configure(registry, {f"net.{key}": value for key, value in given.items()})
    return registry


READ = [
    ("flag", "true", True), ("flag", "0", False), ("count", "4", 4), ("rate", "1e-4", 1e-4), ("rate", "2", 2.0),
    ("word", "L+ab", "L+ab"), ("sizes", "32,64", (32, 64)), ("pair", "2,b", (2, "b")),
    ("file", __file__, Path(__file__)), ("file", "none", None), ("most", "5", 5), ("most", "none", None),
    ("either", "2", 2), ("either", "two", "two"),
    ("kind", "b", "b"), ("weights", "style:0,output:0.5", {"style": 0.0, "output": 0.5}), ("names", "a,b", ["a", "b"]),
    ("sizes", (1, 2), (1, 2)), ("rate", 3, 3.0), ("weights", {"style": 1}, {"style": 1.0}),
    ("file", Path(__file__), Path(__file__)),
]  # fmt: skip


@pytest.mark.parametrize(("key", "given", "value"), READ)
def test_a_value_is_read_as_the_type_of_its_option(key, given, value):
    read = configured(**{key: given}).specs["model"]["net"].option_values[key]
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"count": "four"}, r"^--option net\.count=four: it is not of type int; give another value$"),
        ({"count": True}, r"it is not of type int"),
        ({"flag": "perhaps"}, "it is not of type bool"),
        ({"sizes": "a,b"}, r"it is not of type tuple\[int, \.\.\.\]"),
        ({"pair": "1"}, "it is not of type tuple"),
        ({"kind": "c"}, "it is not of type .*Literal"),
        ({"file": "absent.pth"}, r"^--option net\.file=absent\.pth: there is no such file or folder; name another$"),
        ({"file": "/dev/null"}, r"^--option net\.file=/dev/null: it is a pipe or a device; name another$"),
        ({"count": []}, r"^--option net\.count: the list of its values is empty; give one or more$"),
        ({"count": "13"}, r"^option count of net cannot be 13 \(ValueError: 13 is no count\); give another$"),
        ({"rte": "1"}, r"^unknown option of net: 'rte' \(did you mean 'rate'\?\); there is: flag, "),
    ],
)
def test_what_an_option_cannot_be_is_one_line(given, said):
    with pytest.raises(UserError, match=said):
        configured(**given)


def rates(registry, name):
    return [stage.learning_rate for stage in registry.specs["model"][name].schedule(PRESETS["smoke"])]


def test_every_model_that_trains_has_a_factor_on_its_learning_rates(registry):
    def trains(spec):
        return bool(spec.schedule(PRESETS["smoke"])) and not spec.trained_as

    models = {name: spec for name, spec in registry.specs["model"].items() if spec.parent is None}
    swept, factors = plugins.load(), parsed(f"{name}.rate_factor=0.5,1,2" for name in models if trains(models[name]))
    configure(swept, factors)
    assert len(factors) > 4
    for name in (key.rpartition(".")[0] for key in factors):
        assert rates(swept, name) == rates(registry, name)
        for factor in (0.5, 2.0):
            assert rates(swept, f"{name}/rate-factor-{factor}") == [factor * rate for rate in rates(registry, name)]
    for name in models.keys() - {key.rpartition(".")[0] for key in factors}:
        with pytest.raises(UserError, match=f"unknown option of {name}: 'rate_factor'"):
            configure(registry, {f"{name}.rate_factor": 2})


def test_a_factor_on_the_learning_rates_reaches_the_ablations_that_are_trained():
    net = replace(spec("net"), options={"count": 3})
    registry = registry_of(net, net.variant("more", count=4), replace(net.variant("at-test"), trained_as="net"))
    configure(registry, parsed(["net.rate_factor=2"]))
    assert [rates(registry, name) for name in ("net", "net/more", "net/at-test")] == [[0.1], [0.1], [0.05]]
    with pytest.raises(
        UserError, match=r"option rate_factor of net cannot be 0\.0 \(ValueError: it has to be above 0\)"
    ):
        configure(registry, parsed(["net.rate_factor=0"]))


def test_an_option_of_that_name_is_the_model_s_own():
    registry = registry_of(replace(spec("net"), options={"rate_factor": 5}))
    configure(registry, parsed(["net.rate_factor=2"]))
    assert registry.specs["model"]["net"].option_values == {"rate_factor": 2}
    assert rates(registry, "net") == [0.05]


def test_a_factor_on_the_learning_rates_is_recorded_and_the_code_of_the_schedule_counts():
    loaded = plugins.load()
    models = loaded.specs["model"]
    models["gan"] = replace(models["gan"], schedule=models["cnn"].schedule)
    configure(loaded, {"gan.rate_factor": [1, 4]})
    own, row = (
        own_fields(models[name], PRESETS["smoke"], loaded, untrained=False) for name in ("gan", "gan/rate-factor-4.0")
    )
    assert [fields["stages"][0]["learning_rate"] for fields in (own, row)] == [0.001, 0.004]
    assert own["code"] == row["code"]
    assert "plugin colorbench_cnn" in row["code"]


@pytest.mark.parametrize("text", ["net", "net.count", "net.count=", "count=3", ".count=3", "net.=3"])
def test_an_option_is_said_in_full(text):
    with pytest.raises(UserError, match=r"write MODEL\.KEY=VALUE"):
        parsed([text])


def test_the_type_of_an_option_in_a_mapping_is_that_of_its_default():
    registry = registry_of(replace(spec("net"), options={"count": 3, "sizes": (1, 2), "any": None, "file": Path("a")}))
    configure(registry, parsed(["net.count=4", "net.sizes=5,6,7", "net.any=true", "net.file=none"]))
    assert registry.specs["model"]["net"].options == {"count": 4, "sizes": (5, 6, 7), "any": True, "file": None}
    with pytest.raises(UserError, match="it is not of type int"):
        configure(registry, parsed(["net.count=x"]))


def test_an_option_reaches_the_ablations_that_do_not_set_it():
    net = replace(spec("net"), options=Every())
    other = net.variant("other", count=7)
    free, own = net.variant("free", flag=True), net.variant("own")
    registry = registry_of(net, other, free, own)
    configure(registry, parsed(["net/own.count=5", "net.count=4"]))
    counts = {name: one.option_values["count"] for name, one in registry.specs["model"].items()}
    assert counts == {"net": 4, "net/other": 7, "net/free": 4, "net/own": 5}
    assert registry.given == {"net": {"count": 4}, "net/free": {"count": 4}, "net/own": {"count": 5}}


def test_an_ablation_that_cannot_have_the_option_fails_by_itself():
    @dataclass(frozen=True)
    class Bound(Every):
        def __post_init__(self):
            if self.flag and self.count == 4:
                raise ValueError("a flag has no count of 4")

    registry = registry_of(net := replace(spec("net"), options=Bound()), net.variant("flagged", flag=True))
    configure(registry, parsed(["net.count=4"]))
    assert registry.specs["model"]["net"].build(width=1, size=16) is not None
    with pytest.raises(ValueError, match=r"option count of net/flagged cannot be 4 \(ValueError: a flag has no count"):
        registry.specs["model"]["net/flagged"].build(width=1, size=16, base=None)


def test_several_values_are_rows_beside_the_model():
    given = parsed(
        ["net.count=3,4,4", "net.count=5", "net.sizes=1,2", "net.sizes=3", "net.rate=0.5,-1,1e-5", "net.flag=true"]
    )
    registry = registry_of(replace(spec("net"), options=Every()))
    configure(registry, given)
    rows = {"net/count-4": "count", "net/count-5": "count", "net/sizes-1-2": "sizes", "net/sizes-3": "sizes"}
    assert registry.sweeps == rows | {"net/rate-minus-1.0": "rate", "net/rate-1e-05": "rate"}
    row = registry.specs["model"]["net/count-5"]
    assert (row.parent, row.option_values["count"], row.option_values["flag"]) == ("net", 5, True)
    assert registry.given["net/count-5"] == {"flag": True, "count": 5}
    assert registry.plugin_of("model", row.name).name == "test"


def test_rows_of_a_sweep_need_names_of_their_own(tmp_path):
    for name in ("x.pth", "x.pt"):
        (tmp_path / name).write_text(name)
    with pytest.raises(UserError, match=r"--option net\.file: there is a row net/file-x already"):
        configured(file=f"{tmp_path}/x.pth,{tmp_path}/x.pt")
    registry = registry_of(net := replace(spec("net"), options=Every()), net.variant("own"))
    with pytest.raises(UserError, match=r"net/own/count-4 cannot be a row"):
        configure(registry, {"net/own.count": [4, 5]})


def test_a_variant_of_unknown_options_is_an_error_at_registration(optional):
    optional.change('"deep", depth=9', '"deep", dept=9')
    with pytest.raises(UserError, match=r"unknown option of tiny: 'dept' \(did you mean 'depth'\?\)"):
        plugins.load([optional.file])


@pytest.mark.parametrize("options", ["Options", "[('depth', 1)]", "Loose()"])
def test_options_are_a_frozen_dataclass_or_a_mapping(optional, options):
    optional.change("OPTIONS = Options()", f"@dataclass\nclass Loose:\n    depth: int = 1\n\n\nOPTIONS = {options}")
    with pytest.raises(UserError, match="options is neither an instance of a frozen dataclass nor a mapping"):
        plugins.load([optional.file])


def test_an_option_is_in_the_key_and_needed_no_more_to_load(optional):
    assert optional().exit_code == 0
    before = optional.record()
    assert before["made_from"]["options"] == {"depth": 1, "table": None}
    assert not {"options_given", "sweep", "validated_by"} & before.keys()
    planned = optional.plan("tiny", "--option", "tiny.depth=3")
    assert (planned.exit_code, "stale" in planned.stdout) == (1, True)
    assert "options.depth 1 -> 3" in planned.stdout
    made = optional("tiny", "--option", "tiny.depth=3", "--again", "tiny")
    assert made.exit_code == 0, made.stderr
    assert "tiny was made with the option depth 3" in made.stdout
    assert optional.record()["options_given"] == {"depth": 3}
    network = load_model("tiny", run=optional.run, plugins=[optional.file])
    assert len(network.convolution) == 3
    evaluated = call(
        "evaluate", optional.run, "--data", jpegs(optional.folder / "photos", 4), "--plugin", optional.file
    )
    assert evaluated.exit_code == 0, evaluated.stderr
    assert "made otherwise" not in evaluated.stderr
    assert "options.depth 3 -> 1" in optional.plan().stdout


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("tiny.dept=3", "unknown option of tiny: 'dept' (did you mean 'depth'?); there is: depth, table"),
        ("tiny.depth=x", "--option tiny.depth=x: it is not of type int; give another value"),
        ("tinny.depth=3", "unknown model for --option 'tinny' (did you mean 'tiny'?)"),
        ("on-tiny.depth=3", "unknown option of on-tiny: 'depth'"),
        ("true-ab-8px.side=3", "unknown model that runs for --option 'true-ab-8px'"),
    ],
)
def test_a_wrong_option_stops_the_run_before_it_begins(optional, given, said):
    result = optional("tiny", "--option", given)
    assert result.exit_code == 2
    assert said in one_line(result)
    assert not optional.run.exists()


READS = """
            self.register_buffer("scale", torch.zeros(1))
            if table is not None:
                self.scale += float(table.read_text())
"""


def test_a_file_of_an_option_counts_by_content_and_is_not_needed_to_load(optional):
    optional.change("            self.base = base\n", f"            self.base = base\n{READS}")
    optional.change("ab = 10 *", "ab = self.scale *")
    file = optional.folder / "table.txt"
    file.write_text("20")
    made = optional("tiny,on-tiny", "--option", f"tiny.table={file}")
    assert made.exit_code == 0, made.stderr
    assert optional.record()["made_from"]["options"]["table"]["file"] == "table.txt"
    file.unlink()
    assert load_model("tiny", run=optional.run, plugins=[optional.file]).scale == 20
    assert load_model("on-tiny", run=optional.run, plugins=[optional.file]).base.scale == 20
    evaluated = call(
        "evaluate", optional.run, "--data", jpegs(optional.folder / "photos", 4), "--plugin", optional.file
    )
    assert evaluated.exit_code == 0, evaluated.stderr
    assert "made otherwise" not in evaluated.stderr


def test_what_cannot_be_loaded_without_the_file_is_not_trained(optional):
    optional.change(
        "            self.base = base\n", "            self.base, self.scale = base, float(table.read_text())\n"
    )
    file = optional.folder / "table.txt"
    file.write_text("20")
    result = optional("tiny", "--option", f"tiny.table={file}")
    assert result.exit_code == 1
    assert "it cannot be loaded without the file of its option table (AttributeError: " in one_line(result)
    assert "train 1/" not in result.stderr
    optional.change("float(table.read_text())", "float(table.read_text() if table else 5)")
    optional.change("ab = 10 *", "ab = self.scale *")
    result = optional("tiny", "--option", f"tiny.table={file}")
    assert "(it then gives other colors); let build take None for it" in one_line(result)


def test_an_option_of_a_base_makes_its_refiner_stale(optional):
    assert optional("on-tiny").exit_code == 0
    said = optional("on-tiny", "--option", "tiny.depth=2").stderr
    assert "tiny seed 0: options.depth 1 -> 2" in said
    assert "on-tiny seed 0: base tiny: other weights" in said


def test_a_row_of_a_sweep_is_loaded_evaluated_and_merged_without_its_option(optional):
    made = optional("tiny", "--option", "tiny.depth=1,2")
    assert made.exit_code == 0, made.stderr
    assert "tiny/depth-2" in (optional.run / "ablations.md").read_text()
    assert optional.record("tiny/depth-2")["sweep"] == "depth"
    assert optional.record("tiny/depth-2")["parent"] == "tiny"
    network = load_model("tiny/depth-2", run=optional.run, plugins=[optional.file])
    assert len(network.convolution) == 2
    evaluated = call(
        "evaluate", optional.run, "--data", jpegs(optional.folder / "photos", 4), "--plugin", optional.file
    )
    assert evaluated.exit_code == 0, evaluated.stderr
    assert "made otherwise" not in evaluated.stderr
    merged = call("merge", optional.run, "--out", optional.folder / "merged")
    assert merged.exit_code == 0, merged.stderr
    assert [cell.status for cell in RunFolder(optional.folder / "merged").cells()] == ["done", "done"]
    again = optional("tiny", "--option", "tiny.depth=1,2")
    assert "2 of 2 are done already" in again.stderr


INITIAL = {"convolution.0.weight": torch.full((2, 1, 1, 1), 0.5), "convolution.0.bias": torch.zeros(2)}


def test_a_model_is_trained_on_from_a_file(optional):
    """A checkpoint of others: under `params`, with `module.` before the names."""
    file = optional.folder / "w.pth"
    torch.save({"params": {f"module.{name}": value for name, value in INITIAL.items()}, "epoch": 3}, file)
    made = optional("on-tiny", "--initial", f"tiny={file}")
    assert made.exit_code == 0, made.stderr
    record = optional.record()
    assert record["made_from"]["initial"]["file"] == "w.pth"
    assert record["made_from"]["stages"]
    assert record["images_seen"] > 0
    sha = record["made_from"]["initial"]["sha256"][:12]
    assert f"tiny: trained on from w.pth (SHA-256 {sha})" in made.stdout
    assert "published weights" not in made.stdout
    network = load_model("tiny", run=optional.run, plugins=[optional.file])
    moved = (network.convolution[0].weight - 0.5).abs().max()
    assert 0 < moved < 0.1  # the rate is 0.001, and the steps are few
    file.unlink()
    assert load_model("on-tiny", run=optional.run, plugins=[optional.file]) is not None
    torch.save({name: value + 1 for name, value in INITIAL.items()}, file)
    assert "tiny seed 0: initial.sha256" in optional("on-tiny", "--initial", f"tiny={file}").stderr
    assert "tiny seed 0: initial {" in optional("on-tiny").stderr


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (
            {"x": torch.zeros(1)},
            "it lacks convolution.0.weight, convolution.0.bias, and the model has no x; give weights of tiny at width ",
        ),
        (INITIAL | {"convolution.0.bias": torch.zeros(3)}, "convolution.0.bias is (3,), not (2,)"),
        ({"params": INITIAL, "params_ema": INITIAL}, "holds several states, params and params_ema"),
        (3, "holds no state dict"),
        ({"generator": INITIAL}, "nor one as state_dict, params, params_ema, model"),
        (None, "there is no such file"),
    ],
)
def test_initial_weights_that_do_not_fit_stop_the_run(optional, state, said):
    file = optional.folder / "w.pth"
    if state is not None:
        torch.save(state, file)
    result = optional("on-tiny", "--initial", f"tiny={file}")
    assert result.exit_code == 2
    assert one_line(result).startswith("colorbench: --initial tiny")
    assert said in one_line(result)
    assert not (optional.run / "record.json").exists()


def test_initial_weights_are_for_what_trains(optional):
    file = optional.folder / "w.pth"
    torch.save(INITIAL, file)
    for given, said in (
        (("--initial", f"grey={file}", "--models", "grey"), "it learns nothing by itself"),
        (("--initial", f"tiny={file}", "--weights", f"tiny={file}"), "--weights gives its weights already"),
        (("--initial", f"grey={file}"), "unknown model that runs for --initial 'grey'"),
        (("--initial", "tiny"), "no published weights of tiny are known; give --weights or --initial tiny=FILE"),
    ):
        result = optional("tiny", *given)
        assert (result.exit_code, said in one_line(result)) == (2, True), result.stderr


def test_a_sweep_is_chosen_on_the_validation_images(optional):
    sweep = ("--option", "tiny.depth=2,3")
    assert optional("tiny", *sweep).exit_code == 0
    assert "to be scored" in optional.plan("tiny", *sweep, "--select", "val").stdout
    chosen = optional("tiny", *sweep, "--select", "val")
    assert chosen.exit_code == 0, chosen.stderr
    assert "train 1/" not in chosen.stderr  # the weights are there
    rows = ["tiny", "tiny/depth-2", "tiny/depth-3"]
    scores = {row: pd.read_parquet(optional.cell(row) / "val_scores.parquet").mse for row in rows}
    best = min(rows, key=lambda row: scores[row].mean())
    assert f"Of the values of depth, {best} is selected: it has the least MSE on " in chosen.stdout
    assert f"{len(scores['tiny'])} validation images, seed 0: {scores[best].mean():,.1f}" in chosen.stdout
    table = pd.read_csv(optional.run / "ablations.csv").set_index("model")
    assert list(table.index[table.selected.notna()]) == [best]
    assert table.val_mse["tiny"] == pytest.approx(scores["tiny"].mean(), rel=1e-6)
    assert "3 of 3 are done already" in optional("tiny", *sweep, "--select", "val").stderr
    (optional.cell() / "val_scores.parquet").write_bytes(b"damaged")
    assert "2 of 3 are done already" in optional("tiny", *sweep, "--select", "val").stderr
    assert len(pd.read_parquet(optional.cell() / "val_scores.parquet")) == len(scores["tiny"])


def test_what_cannot_be_selected_is_said_before_anything_trains(optional):
    said = one_line(optional("tiny", "--select", "val"))
    assert said == "colorbench: --select val: there are no rows to select from; give --option MODEL.KEY=VALUE,VALUE"
    smallest = replace(PRESETS["smoke"], size=16, val=0)
    given = {"plugin_files": [optional.file], "options": {"tiny.depth": [2, 3]}, "select": "val"}
    with pytest.raises(UserError, match=r"^--select val: portraits has no val split; give data"):
        prepare(Options(["tiny"], "portraits", smallest, optional.run, **given))
    assert optional("tiny", "--option", "tiny.depth=2,3", "--select", "test").exit_code == 2
    assert not (optional.run / "record.json").exists()


def test_an_ablation_without_options_has_a_summary():
    tiny = spec("tiny")
    assert tiny.variant("slower").summary == "tiny, slower"
    assert tiny.variant("deep", depth=9).summary == "tiny with depth=9"
