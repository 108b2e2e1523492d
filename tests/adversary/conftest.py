"""The ground, and the closing table: for each case what the attack gained and what its control did."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.adversary.case import Case
from tests.adversary.ground import Ground, own_ground


@dataclass
class Results:
    """What the run found: (case, bytes gained by the attack, bytes gained by the control), and lines of the storms."""

    rows: list[tuple[Case, int, int]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    tries: int = 0
    leaked: int = 0


_KEY = pytest.StashKey[Results]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_KEY] = Results()


@pytest.fixture(scope="session")
def results(pytestconfig: pytest.Config) -> Results:
    return pytestconfig.stash[_KEY]


@pytest.fixture(scope="session")
def ground() -> Iterator[Ground]:
    with own_ground() as made:
        yield made


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = config.stash[_KEY]
    if not found.rows and not found.lines:
        return
    write = terminalreporter.write_line
    terminalreporter.section("adversary suite")
    for case, gained, control in found.rows:
        kind = "residual" if case.residual else "denied"
        write(f"{case.name:<42} {kind:<8} attack {gained:>6} B   control {control:>6} B: {case.shows}")
    for line in found.lines:
        write(line)
    promised = [row for row in found.rows if not row[0].residual]
    leaked = sum(row[1] for row in promised) + found.leaked
    write(
        f"{len(promised)} cases denied and {len(found.rows) - len(promised)} residuals shown, each with its control; "
        f"{found.tries} randomised tries; {leaked} bytes leaked"
    )
