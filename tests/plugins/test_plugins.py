"""The plugin door: one by one, by name, and nothing heavy."""

import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from colorbench import hooks, plugins
from colorbench.errors import UserError
from colorbench.specs import KINDS

CORE = Path(plugins.__file__).parent
GOOD = """
from colorbench import ModelSpec, hookimpl

@hookimpl
def register_models(register):
    register(ModelSpec("NAME", "a test", build=print, schedule=lambda preset: ()))
"""


@pytest.fixture
def plugin_file(tmp_path):
    def write(text, name="mine.py"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


@pytest.fixture
def installed(monkeypatch, plugin_file):
    """Pretend that a further distribution installs a plugin with this text."""

    def install(text, name="theirs"):
        file = plugin_file(text, f"{name}_module.py")
        monkeypatch.syspath_prepend(str(file.parent))
        monkeypatch.delitem(sys.modules, file.stem, raising=False)
        entry = EntryPoint(name, f"{name}_module", "colorbench")
        object.__setattr__(entry, "dist", type("Dist", (), {"name": f"{name}-dist", "version": "1.0"}))
        real = list(plugins.entry_points(group="colorbench"))
        monkeypatch.setattr(plugins, "entry_points", lambda group: [entry, *real])

    return install


def test_a_file_adds_a_model_with_its_origin(plugin_file):
    file = plugin_file(GOOD.replace("NAME", "mine"))
    assert plugins.load([file]).origins["model", "mine"] == str(file)


def test_a_plugin_that_fails_to_import_is_named_and_the_rest_works(installed, registry):
    installed("import nothing_of_that_name")
    loaded = plugins.load()
    broken = [p for p in loaded.plugins if p.broken]
    assert [p.name for p in broken] == ["theirs"]
    assert "nothing_of_that_name" in broken[0].broken
    assert loaded.specs["model"].keys() == registry.specs["model"].keys()


def test_an_unknown_model_mentions_the_broken_plugins(installed):
    installed("import nothing_of_that_name")
    with pytest.raises(UserError, match=r"theirs \(ModuleNotFoundError.*nothing_of_that_name"):
        plugins.load().find("model", ["theirs-model"])


def test_a_misspelt_hook_is_an_error(installed):
    installed(GOOD.replace("register_models", "register_model"))
    (broken,) = [p for p in plugins.load().plugins if p.broken]
    assert "register_model" in broken.broken


def test_a_name_registered_twice_is_refused_with_both_origins(installed, registry):
    name = next(iter(registry.specs["model"]))
    installed(GOOD.replace("NAME", name))
    loaded = plugins.load()
    (broken,) = [p for p in loaded.plugins if p.broken]
    assert registry.origins["model", name] in broken.broken
    assert "theirs-dist 1.0" in broken.broken
    assert loaded.origins["model", name] == registry.origins["model", name]


@pytest.mark.parametrize("name", ["mse", "seed"])
def test_a_metric_cannot_take_a_name_of_the_protocol(plugin_file, name):
    text = f"""
from colorbench import MetricSpec, hookimpl

@hookimpl
def register_metrics(register):
    register(MetricSpec("{name}", "", len))
"""
    with pytest.raises(UserError, match=f"metric '{name}' is registered twice, by the protocol and by"):
        plugins.load([plugin_file(text)])


def test_a_plugin_that_breaks_half_way_registers_nothing(installed):
    installed(GOOD.replace("NAME", "half") + "    raise RuntimeError('half way')\n")
    loaded = plugins.load()
    assert "half" not in loaded.specs["model"]
    assert [p.broken for p in loaded.plugins if p.broken] == ["RuntimeError: half way"]


@pytest.mark.parametrize("text", ["import nothing_of_that_name", "raise SystemError('no')", "def (:"])
def test_a_file_that_breaks_is_refused_with_its_reason(plugin_file, text):
    with pytest.raises(UserError, match=r"cannot load the plugin .*mine\.py: \w+Error"):
        plugins.load([plugin_file(text)])


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"absent\.py: there is no such file; name a Python file$"):
        plugins.load([tmp_path / "absent.py"])
    with pytest.raises(UserError, match=r"it is not a file; name a Python file$"):
        plugins.load([tmp_path])


@pytest.mark.parametrize("name", ["Upper", "../up", "a b", "", "a//b", "-a"])
def test_a_model_name_that_is_no_folder_name_is_refused(plugin_file, name):
    with pytest.raises(UserError, match="lower-case"):
        plugins.load([plugin_file(GOOD.replace("NAME", name))])


def test_unknown_names_are_all_named_with_the_nearest_match(registry):
    first, second = list(registry.specs["model"])[:2]
    with pytest.raises(UserError) as caught:
        registry.find("model", [first, first + "x", second + "y"])
    for part in (
        f"{first + 'x'!r} (did you mean {first!r}?)",
        f"{second + 'y'!r} (did you mean {second!r}?)",
        "there is:",
        "one in a plugin file needs --plugin FILE",
    ):
        assert part in str(caught.value)


def test_an_unknown_variant_is_told_of_those_that_its_parent_has(registry):
    variants = [name for name, spec in registry.specs["model"].items() if spec.parent]
    parent, _, change = variants[0].rpartition("/")
    with pytest.raises(UserError) as caught:
        registry.find("model", [f"{parent}/zzz", f"{variants[0]}s", "grey/zzz", "nobody/zzz"])
    said = str(caught.value)
    for part in (f"'{parent}/zzz' ({parent} has: {change}", f"(did you mean {variants[0]!r}?)", "has: no variants"):
        assert part in said
    assert "'nobody/zzz';" in said
    assert not any(name in said.partition("there is: ")[2] for name in variants)


@pytest.mark.parametrize("arguments", [("--help",), ("list", "models"), ("list", "plugins"), ("run", "--help")])
def test_help_and_listing_import_nothing_heavy(arguments):
    code = (
        "import sys; from colorbench.cli import main; main(sys.argv[1:], standalone_mode=False); "
        "heavy = {'torch', 'numpy', 'pandas', 'matplotlib', 'piq', 'PIL'} & set(sys.modules); "
        "models = [m for m in sys.modules if m.startswith('colorbench_') and m.endswith('.model')]; "
        "assert not heavy and not models, (heavy, models)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_hook_is_documented():
    specs = [f for name, f in vars(hooks).items() if name.startswith("register_")]
    assert {f.__name__ for f in specs} == {f"register_{kind}s" for kind in KINDS}
    assert all(f.__doc__ for f in specs)


def test_loading_and_hooks_stay_small():
    lines = sum(len(Path(module.__file__).read_text().splitlines()) for module in (plugins, hooks))
    assert lines <= 205, "whoever reads the door must be able to see all of it"


def test_nothing_in_the_core_names_a_model(registry):
    """Words that have a meaning of their own, as "grey" has, are left to the reader."""
    names = [name for name in registry.specs["model"] if name not in ("grey", "mean-color")]
    word = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, names))})(?![\w-])", re.IGNORECASE)
    for file in CORE.rglob("*.py"):
        assert not word.findall(file.read_text()), file


def test_nothing_in_the_core_knows_a_paper_or_faces():
    word = re.compile(r"\b(lips?|skin|eyes?|faces?|siggraph17|ffhq)\b", re.IGNORECASE)
    for file in CORE.rglob("*.py"):
        assert not word.findall(file.read_text()), file


# Data flows one way, images -> harness -> per-image scores -> report, and so do the imports: nothing imports upward.
MAY_IMPORT = {
    "data": {"data"},
    "metrics": {"metrics"},
    "runs": {"runs", "data"},  # a plan has to know which images are there
    "harness": {"harness", "data", "metrics", "runs"},
    "report": {"report", "runs"},
    "testing": {"testing", "report", "harness", "data", "metrics", "runs"},
    "api": {"api", "report", "harness", "data", "metrics", "runs"},
    "cli": {"cli", "api", "testing", "report", "harness", "data", "metrics", "runs"},
}


def test_nothing_imports_upward():
    assert {folder.name for folder in CORE.iterdir() if (folder / "__init__.py").exists()} == MAY_IMPORT.keys()
    for folder, allowed in MAY_IMPORT.items():
        for file in (CORE / folder).rglob("*.py"):
            imported = set(re.findall(r"(?:from|import) colorbench\.(\w+)", file.read_text())) & MAY_IMPORT.keys()
            assert imported <= allowed, file
