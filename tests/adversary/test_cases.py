"""T1 to T13 of security.md §1 as attacks, each beside a control that proves the attack works (issue 5 Build 1)."""

from __future__ import annotations

import pytest

from tests.adversary.case import Case
from tests.adversary.cases import CASES
from tests.adversary.conftest import Results
from tests.adversary.ground import Ground

pytestmark = [
    pytest.mark.adversary,
    pytest.mark.needs("linux", "root", "ip", "unshare", "setpriv", "iptables", "nft", "socat", "chromium"),
]


@pytest.mark.parametrize("case", CASES, ids=[each.name for each in CASES])
def test_case(case: Case, ground: Ground, results: Results) -> None:
    """The attack gains nothing, and the same attack where the protection is absent does; a residual the reverse."""
    control = case.control(ground)
    gained = case.attack(ground)
    results.rows.append((case, len(gained), len(control)))
    if case.residual:
        assert gained, f"{case.name} is written down as possible, and is not: {case.promise}"
        assert not control, f"the barrier beside the residual does not hold: {case.shows}"
    else:
        assert control, f"the control gained nothing, so the attack proves nothing: {case.shows}"
        assert not gained, f"{case.threat}: {case.promise}; gained {gained[:200]!r}"


def test_every_threat_has_its_cases() -> None:
    """At least 60 named cases, of each of the thirteen threats at least three, no name twice."""
    names = [each.name for each in CASES]
    assert len(CASES) >= 60
    assert len(set(names)) == len(names)
    counted = {f"T{number}": sum(each.threat == f"T{number}" for each in CASES) for number in range(1, 14)}
    assert min(counted.values()) >= 3, counted
