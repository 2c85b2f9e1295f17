"""All that is built in, and the examples, under the laws of the contract: a new plugin is tested without a new test."""

from pathlib import Path

import pytest

from colorbench.testing.targets import ALL, find_targets

EXAMPLES = Path(__file__).parents[2] / "examples"
MANY = ("base_epochs.py", "initializations.py")  # whose ablations differ in epochs and first weights alone
FILES = [file for file in EXAMPLES.rglob("*.py") if file.name not in MANY]
TARGETS = find_targets([ALL, *map(str, FILES)], ablations=True)


@pytest.mark.parametrize("target", TARGETS, ids=[f"{target.kind} {target.name}" for target in TARGETS])
def test_every_law_is_kept(target):
    assert [check for check in target.checks if not check.passed] == []
    assert target.checks


def test_every_model_is_described_and_its_parent_is_there():
    models = TARGETS[0].registry.specs["model"]
    assert [spec.name for spec in models.values() if not spec.summary] == []
    assert {spec.parent for spec in models.values()} <= {None, *models}
