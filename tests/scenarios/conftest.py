"""The stage of every scenario: scenes on demand, under each reading of what nobody could verify (aws-facts §6)."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.keeper.wired import Wired
from tests.scenarios.bench import Options, Scene
from tests.strict_sts import READINGS, StrictStsThread
from vaultd.aws.clients import Clients, Network

#: Where the kernel takes no port from for a client's end.
BELOW_EPHEMERAL = range(20_000 + os.getpid() % 10_000, 32_000)

#: One more turn of every scenario: the first reading, with the keeper behind the wire.
WIRE = "wire"


def _name(reading: Mapping[str, bool]) -> str:
    visible, consumed = reading.values()
    return f"{'visible' if visible else 'unseen'}-{'consumed' if consumed else 'refunded'}"


@pytest.fixture(params=[*READINGS, WIRE], ids=lambda each: each if each == WIRE else _name(each))
def reading(request: pytest.FixtureRequest) -> Mapping[str, bool]:
    """Both values of both knobs that CI runs the scenarios under (scenarios §4.2); and once over the wire."""
    found: Mapping[str, bool] = READINGS[0] if request.param == WIRE else request.param
    return found


@pytest.fixture
async def wired(request: pytest.FixtureRequest) -> AsyncIterator[Wired | None]:
    """Behind which the keeper is, in the turn for that."""
    if "reading" not in request.fixturenames or request.node.callspec.params.get("reading") != WIRE:
        yield None
        return
    made = Wired()
    yield made
    await made.close()


class Stage:
    """Opens scenes; each in a home of its own."""

    def __init__(
        self,
        stack: AsyncExitStack,
        homes: Path,
        reading: Mapping[str, bool],
        known: Known,
        wired: Wired | None = None,
    ) -> None:
        self._stack = stack
        self._homes = homes
        self._opened = 0
        self._known = known
        self._wired = wired
        self.reading = reading

    async def open(self, *, knobs: Mapping[str, object] | None = None, **options: Any) -> Scene:
        self._opened += 1
        home = self._homes / f"home{self._opened}"
        home.mkdir(mode=0o700)
        if self._opened == 1:  # a second scene beside the first has an address of its own
            port = self._known.port if _free(self._known.port) else 0
            options = {"clients": self._known.clients, "port": port, **options}
        options = {"wired": self._wired, **options}
        scene = Scene(Options(home=home, knobs={**self.reading, **(knobs or {})}, **options))
        await scene.begin()
        self._stack.push_async_callback(scene.end)
        return scene


@dataclass(frozen=True)
class Known:
    """What scenes share, one after the other: boto3's clients, and the port of the AWS that they were made for."""

    clients: Clients
    port: int


@pytest.fixture(scope="session")
def known() -> Known:
    return Known(Clients(Network()), next(filter(_free, BELOW_EPHEMERAL)))


def _free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


@pytest.fixture
async def stage(tmp_path: Path, reading: Mapping[str, bool], known: Known, wired: Wired | None) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        yield Stage(stack, tmp_path, reading, known, wired)


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
