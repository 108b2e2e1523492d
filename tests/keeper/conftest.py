"""A home per test; twice: with the keeper here, and behind the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes import FakeClock
from tests.keeper.rooms import Home
from tests.keeper.wired import Wired


@pytest.fixture(params=["here", "wire"])
async def home(tmp_path: Path, clock: FakeClock, request: pytest.FixtureRequest) -> AsyncIterator[Home]:
    wired = Wired() if request.param == "wire" else None
    if wired is not None:
        clock.turns *= 4
    yield Home(tmp_path, clock, wired=wired)
    if wired is not None:
        await wired.close()
