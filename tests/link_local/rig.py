"""The hand-over in this process: doors.sock, what serves behind it, and a client of it that can do everything wrong."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.fakes import FakeClock
from tests.process.harness import free_port
from tests.web.rig import StandInAudit, StandInBroker, StandInPlans, nobody, session
from vaultd.engine.grants import Grant, Grants
from vaultd.files import Files
from vaultd.host import sockets
from vaultd.host.link_local import LinkLocal
from vaultd.host.peers import Peers
from vaultd.web.app import SdkSide
from vaultd.web.doors import Doors
from vaultd.web.handover import Handover
from vaultd.web.link_local import LinkLocalSide


@dataclass
class StandInLog:
    """The events that were recorded."""

    events: list[tuple[str, Any]] = field(default_factory=list)

    def record(self, event: str, *, sync: bool = False, **fields: object) -> None:
        self.events.append((event, fields.get("grant")))


@dataclass
class HandoverRig:
    """A daemon's half; `port` is what 80 is elsewhere."""

    handover: Handover
    side: LinkLocalSide
    grants: Grants
    plans: StandInPlans
    log: StandInLog
    clock: FakeClock
    path: Path
    port: int
    ended: list[tuple[str, str]]

    def listener(self, port: int | None = None) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", self.port if port is None else port))
        sock.listen(16)
        return sock

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Giver]:
        conn = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        conn.setblocking(False)
        with conn:
            await asyncio.get_running_loop().sock_connect(conn, str(self.path))
            yield Giver(conn)

    async def told(self, line: object, descriptors: Sequence[int]) -> dict[str, Any]:
        """What is answered to one message; {} when it is closed unanswered."""
        async with self.connected() as giver:
            giver.send(line, descriptors)
            return await giver.line()


@dataclass
class Giver:
    """The other end."""

    conn: socket.socket

    def send(self, line: object, descriptors: Sequence[int]) -> None:
        text = line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n"
        socket.send_fds(self.conn, [text], list(descriptors))

    async def line(self) -> dict[str, Any]:
        async with asyncio.timeout(10):
            text = b""
            while not text.endswith(b"\n"):
                part = await self._byte()
                if not part:
                    return {}
                text += part
        found: dict[str, Any] = json.loads(text)
        return found

    async def closed(self) -> bool:
        async with asyncio.timeout(10):
            return await self._byte() == b""

    async def _byte(self) -> bytes:
        try:
            return await asyncio.get_running_loop().sock_recv(self.conn, 1)
        except ConnectionResetError:  # closed with something of ours unread
            return b""


def offer(dialect: str = "imds", profile: str | None = "web-admin") -> dict[str, Any]:
    return {"protocol": 1, "dialect": dialect, **({} if profile is None else {"profile": profile})}


def descriptors() -> int:
    """How many this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def turns_until(holds: Callable[[], bool]) -> None:
    """Let the loop turn until it is so."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 (it is the product that is waited for, and it has no event for a test)
            await asyncio.sleep(0)


def _private(folder: Path) -> None:
    folder.chmod(0o700)
    (folder / "tokens").mkdir(mode=0o700, exist_ok=True)


@asynccontextmanager
async def handing(
    folder: Path, *, own_uid: int | None = None, seconds: float = 5.0, port: int | None = None
) -> AsyncIterator[HandoverRig]:
    _private(folder)
    clock, plans, log, ended = FakeClock(), StandInPlans(), StandInLog(), list[tuple[str, str]]()
    serving = StandInBroker(ready=session())

    def revoked(grant: Grant, reason: str) -> None:
        ended.append((grant.id, reason))
        doors.close(grant)
        side.ended(grant, reason)

    grants = Grants(
        files=Files(),
        path=folder / "grants.json",
        tokens=folder / "tokens",
        clock=clock,
        max_age=timedelta(days=7),
        idle_timeout=timedelta(days=1),
        boot_id="boot",
        alive=lambda bound: True,
        on_revoke=revoked,
    )
    port = port or free_port()
    places = {name: LinkLocal(name, "127.0.0.1", port) for name in ("imds", "ecs")}

    def another() -> SdkSide:
        return SdkSide(
            plans=lambda: plans,
            broker=serving,
            grants=grants,
            audit=StandInAudit(),
            peers=Peers(),
            clock=clock,
            describe=nobody,
        )

    doors = Doors(
        plans=lambda: plans,
        broker=serving,
        grants=grants,
        audit=StandInAudit(),
        peers=Peers(),
        clock=clock,
        describe=nobody,
    )
    side = LinkLocalSide(plans=lambda: plans, grants=grants, doors=doors, audit=log, sides=another, places=places)
    grants.load()
    handover = Handover(take=side.take, places=places, own_uid=own_uid, seconds=seconds)
    path = folder / "doors.sock"
    with sockets.listen_unix(path, locked=True) as unix:
        handover.start(unix)
        try:
            yield HandoverRig(handover, side, grants, plans, log, clock, path, port, ended)
        finally:
            await handover.close()
            await doors.close_all()
            path.unlink()
