"""The engine's tests of flights, questions and renewals run twice: over a keeper here, and over one behind the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.engine.rig import Rig
from tests.keeper.wired import Wired

#: Of tests/engine: those that talk to a keeper.
OVER_THE_WIRE = ("test_broker", "test_refresher", "test_proving")
#: What counts turns of one loop, and what looks at an exception that does not cross the wire as itself.
HERE_ONLY = {
    "test_a_lock_between_landing_and_waiter_serves_nothing",
    "test_an_unknown_exception_below_is_no_detail_to_the_caller",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    module = metafunc.module.__name__.rpartition(".")[2]
    if module in OVER_THE_WIRE and metafunc.function.__name__ not in HERE_ONLY:
        metafunc.parametrize("_over_the_wire", [False, True], ids=["here", "wire"], indirect=True)


@pytest.fixture(autouse=True)
async def _over_the_wire(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    if not getattr(request, "param", False):
        yield
        return
    wired = Wired()
    monkeypatch.setattr(Rig, "wired", wired)
    yield
    await wired.close()
