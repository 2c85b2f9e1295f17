"""The documentation builds without a warning, and every command and snippet in it does what is said."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import call, jpeg, jpegs

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(file.relative_to(DOCS).as_posix() for file in DOCS.rglob("*.md") if "_build" not in file.parts)
BLOCK = re.compile(r"^```(?P<kind>[^\n]*)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
CAPTION = re.compile(r":caption: (\S+)\n\n(.*)", re.DOTALL)
# Shown, not executed here: what needs photographs or a GPU, downloads, or takes minutes.
UNTRIED = {"", "sh", "toml"}


def blocks(page):
    """Kind and body of each fenced block of a page that a reader would execute or save."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = [(match["kind"].strip(), match["body"]) for match in BLOCK.finditer(text)]
    known = {"{toctree}", "{eval-rst}", "{literalinclude}", "{code-block} python", "console", "python", *UNTRIED}
    assert {kind.partition(" ../")[0] for kind, _ in found} <= known
    return [(kind, body) for kind, body in found if kind in ("{code-block} python", "console", "python")]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_what_a_page_shows_works(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jpegs(tmp_path / "photos", 24)
    Path("old.jpg").write_bytes(jpeg(99, side=(64, 64)))
    names = {}
    for kind, body in blocks(page):
        if kind == "console":
            for command in (line.removeprefix("$ ") for line in body.splitlines()):
                execute(shlex.split(command))
        elif kind == "python":
            exec(compile(body, page, "exec"), names)
        else:
            name, content = CAPTION.fullmatch(body).groups()
            Path(name).write_text(content, encoding="utf-8")


def execute(words):
    program, *arguments = words
    if program == "colorbench":
        arguments += ["--no-timing"] if arguments[0] == "run" else []
        result = call(*arguments)
        assert result.exit_code == 0, result.output
    else:
        assert program == "python"
        subprocess.run([sys.executable, *arguments], check=True)


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_are_only_shown_name_options_that_exist(page):
    for body in re.findall(r"^```sh\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        for line in filter(lambda line: "colorbench " in line, body.splitlines()):
            verb, *words = shlex.split(line.partition("colorbench ")[2])
            known = call(verb, "--help").output
            assert all(word in known for word in words if word.startswith("--")), line


def test_the_pages_build_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(DOCS), str(tmp_path)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "reference" / "contract.html").exists()
