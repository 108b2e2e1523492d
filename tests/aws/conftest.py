"""An emulator and the room on it, per test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.aws.rooms import Aws, SkippingClock
from tests.strict_sts import StrictSts


@pytest.fixture
def clock() -> SkippingClock:
    return SkippingClock()


@pytest.fixture
async def strict(clock: SkippingClock) -> AsyncIterator[StrictSts]:
    async with StrictSts(clock=clock) as running:
        yield running


@pytest.fixture
def aws(strict: StrictSts, clock: SkippingClock) -> Aws:
    return Aws(strict, clock)
