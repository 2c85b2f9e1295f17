"""Sphinx: `sphinx-build -W docs docs/_build`."""

from colorbench import plugins
from colorbench.protocol import COLORBENCH, SCORES

project = "colorbench"
author = "the colorbench developers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_click"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "colorbench"
myst_heading_anchors = 3
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"


def _tables(app, docname, source):
    """Fill in what the code knows: `{{protocols}}`, `{{scores}}` and `{{metrics}}`."""
    registry = plugins.load()
    protocols = [(spec.name, spec.id, spec.summary, spec.source) for spec in registry.specs["protocol"].values()]
    fields = [(name, value) for name, value in COLORBENCH.settings.items()]
    metrics = [(spec.name, spec.better or "neither", spec.summary) for spec in registry.specs["metric"].values()]
    for name, table in {
        "protocols": _table(("protocol", "id", "what", "source"), protocols),
        "fields": _table(("field", "`colorbench-1`"), fields),
        "scores": _table(("column", "what"), [*SCORES.items()]),
        "metrics": _table(("column", "better", "what"), metrics),
    }.items():
        source[0] = source[0].replace("{{" + name + "}}", table)


def _table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def setup(app):
    app.connect("source-read", _tables)
