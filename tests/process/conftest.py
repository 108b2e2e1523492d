"""One emulator for all process tests, reset before each; a daemon in a home of its own for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.harness import Emulator, Home, MovedClock, short_directory


@pytest.fixture(scope="session")
def shared_clock(tmp_path_factory: pytest.TempPathFactory) -> MovedClock:
    return MovedClock.build(tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="session")
def shared_emulator(shared_clock: MovedClock) -> Iterator[Emulator]:
    """Its wall clock is the moved one; nothing moves unless a test does."""
    with Emulator.running(moto=True, environment=shared_clock.env) as emulator:
        yield emulator


@pytest.fixture
def clock(shared_clock: MovedClock) -> Iterator[MovedClock]:
    shared_clock.ahead(0)
    yield shared_clock
    shared_clock.ahead(0)


@pytest.fixture
def emulator(shared_emulator: Emulator, clock: MovedClock) -> Emulator:
    shared_emulator.ctl("reset", {})
    return shared_emulator


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as path:
        yield path


@pytest.fixture
def home(directory: Path, emulator: Emulator) -> Iterator[Home]:
    """A running daemon with franklin's key."""
    made = Home.make(directory, emulator)
    with made.daemon():
        assert made.add(emulator).status == 0
        yield made


@pytest.fixture
def cold(directory: Path, emulator: Emulator) -> Iterator[Home]:
    """A home in which nothing was started yet; what a test starts is stopped."""
    made = Home.make(directory, emulator)
    yield made
    made.stop()
