"""Stock boto3 against the emulator: each call a client of its own, one attempt, no configuration of this machine."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.strict_sts.bench import Bench, StillClock
from tests.strict_sts.live import StrictStsThread


@pytest.fixture
def strict() -> Iterator[StrictStsThread]:
    with StrictStsThread(clock=StillClock()) as running:
        yield running


@pytest.fixture
def bench(strict: StrictStsThread) -> Bench:
    return Bench(strict)


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """One data plane for all tests of this session; starting one takes a second."""
    with StrictStsThread(with_moto=True) as running:
        url: Any = running.moto_url
        yield url
