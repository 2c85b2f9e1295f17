"""`pytest --colorbench NAME|FILE`: a test for every law. Does nothing, and imports nothing slow, unless asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from colorbench.testing.targets import Target


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("colorbench").addoption(
        "--colorbench",
        action="append",
        default=[],
        metavar="NAME|FILE|all",
        help="check a plugin, or what it registers, against the laws of colorbench: a test for each; may be repeated",
    )


@pytest.hookimpl(tryfirst=True)  # before -k selects
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    if not (asked := config.getoption("--colorbench")):
        return
    from colorbench.errors import UserError
    from colorbench.testing.targets import find_targets, stay_on_cpu

    stay_on_cpu()
    try:
        targets = find_targets(asked)
    except UserError as error:
        raise pytest.UsageError(f"--colorbench: {error}") from error
    items += [_Law.of(session, target, law) for target in targets for law in target.laws]


class _Law(pytest.Item):
    """One law of one thing. Those of a thing are checked together, when the first is asked for."""

    target: Target
    law: str

    @classmethod
    def of(cls, session: pytest.Session, target: Target, law: str) -> Any:
        item = cls.from_parent(session, name=f"{target.kind} {target.name}: {law}")
        item.target, item.law = target, law
        return item

    def runtest(self) -> None:
        checks = {check.law: check for check in self.target.checks}
        if self.law not in checks:
            broken = [law for law, check in checks.items() if not check.passed]
            pytest.skip(f"not checked before this is mended: {', '.join(broken)}" if broken else "does not apply")
        if not (check := checks[self.law]).passed:
            pytest.fail(f"{check.seen}; {check.remedy}", pytrace=False)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        return self.path, None, self.name
