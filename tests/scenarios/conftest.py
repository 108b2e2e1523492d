"""The stage of every scenario: scenes on demand, under each reading of what nobody could verify (aws-facts §6)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.bench import Options, Scene
from tests.strict_sts import READINGS, StrictStsThread


def _name(reading: Mapping[str, bool]) -> str:
    visible, consumed = reading.values()
    return f"{'visible' if visible else 'unseen'}-{'consumed' if consumed else 'refunded'}"


@pytest.fixture(params=READINGS, ids=_name)
def reading(request: pytest.FixtureRequest) -> Mapping[str, bool]:
    """Both values of both knobs that CI runs the scenarios under (scenarios §4.2)."""
    found: Mapping[str, bool] = request.param
    return found


class Stage:
    """Opens scenes; each in a home of its own."""

    def __init__(self, stack: AsyncExitStack, homes: Path, reading: Mapping[str, bool]) -> None:
        self._stack = stack
        self._homes = homes
        self._opened = 0
        self.reading = reading

    async def open(self, *, knobs: Mapping[str, object] | None = None, **options: Any) -> Scene:
        self._opened += 1
        home = self._homes / f"home{self._opened}"
        home.mkdir(mode=0o700)
        scene = Scene(Options(home=home, knobs={**self.reading, **(knobs or {})}, **options))
        await scene.begin()
        self._stack.push_async_callback(scene.end)
        return scene


@pytest.fixture
async def stage(tmp_path: Path, reading: Mapping[str, bool]) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        yield Stage(stack, tmp_path, reading)


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """One data plane for all scenarios that need data; starting one takes a second."""
    with StrictStsThread(with_moto=True) as running:
        assert running.moto_url is not None
        yield running.moto_url


@pytest.fixture
async def scene(stage: Stage) -> Scene:
    """The common scene: franklin's key under the tutorial's name, no sessions."""
    return await stage.open()
