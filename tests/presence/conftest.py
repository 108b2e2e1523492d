"""A private bus and a logind on it, for each test; each on both loops, whose readers and raw sockets are their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import uvloop

from tests.presence.logind import Logind, PrivateBus, private_bus
from tests.process.harness import short_directory


@pytest.fixture
def place() -> Iterator[Path]:
    """A short path: a unix socket's has 107 bytes."""
    with short_directory() as folder:
        yield folder


@pytest.fixture
def bus(place: Path) -> Iterator[PrivateBus]:
    with private_bus(place) as running:
        yield running


@pytest.fixture
def logind(bus: PrivateBus) -> Iterator[Logind]:
    """Started; a test may stop it and start another."""
    fake = Logind(bus.address)
    fake.start()
    yield fake
    fake.stop()


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
