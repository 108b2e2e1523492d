"""Doors over real sockets, real grants and the real peer look-up; broker, catalog and audit are the SDK side's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.fakes import FakeClock
from tests.web.rig import FRANKLIN, ROLE, Reply, StandInAudit, StandInBroker, StandInPlans, nobody, read_reply, session
from vaultd.engine.grant_records import Door
from vaultd.engine.grants import Grant, Grants
from vaultd.files import Files
from vaultd.host import sockets
from vaultd.host.peers import Peers
from vaultd.model.plan import Overrides
from vaultd.web.doors import Doors
from vaultd.web.limits import Crowd, Limits

KEYS = "/latest/meta-data/iam/security-credentials/"
EXTENDED = "/latest/meta-data/iam/security-credentials-extended/"
TTL = "X-aws-ec2-metadata-token-ttl-seconds"


@dataclass
class DoorRig:
    """Doors, and what stands behind them; `grant` has one, at `port`."""

    doors: Doors
    clock: FakeClock
    broker: StandInBroker
    plans: StandInPlans
    audit: StandInAudit
    grants: Grants
    told: list[tuple[str, str]]
    grant: Grant = field(init=False)

    @property
    def port(self) -> int:
        return port_of(self.grant)

    async def another(self, profile: str = "audit", **changed: Any) -> Grant:
        """A grant with a door of its own."""
        return await self.doors.open(lambda door: self.made(profile, door, **changed))

    def made(
        self, profile: str, door: Door, *, role_arn: str | None = ROLE, region: str | None = None, **changed: Any
    ) -> Grant:
        grant, _ = self.grants.create(
            profile=profile,
            slug=profile,
            kind=changed.pop("kind", "shell"),
            ttl=None,
            overrides=Overrides(region=region),
            role_arn=role_arn,
            bound=changed.pop("bound", None),
            peer=None,
            identity="franklin",
            user_arn=FRANKLIN,
            door=door,
            **changed,
        )
        return grant

    def request(self, method: str, path: str, *lines: str, host: str | None = None, port: int | None = None) -> bytes:
        """As an SDK writes it; `lines` are more header fields."""
        named = host or f"127.0.0.1:{port or self.port}"
        return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {named}", *lines, "", ""]).encode("latin-1")

    async def ask(self, raw: bytes, *, port: int | None = None) -> Reply:
        """On a connection of its own; one whole message."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port or self.port)
        writer.write(raw)
        try:
            return await read_reply(reader, head=raw.startswith(b"HEAD"))
        finally:
            writer.close()

    async def put(self, *lines: str, path: str = "/latest/api/token", ttl: str | None = "21600") -> Reply:
        more = () if ttl is None else (f"{TTL}: {ttl}",)
        return await self.ask(self.request("PUT", path, *more, *lines))

    async def token(self, grant: Grant | None = None, *, ttl: int = 21600) -> str:
        port = port_of(grant or self.grant)
        reply = await self.ask(
            self.request("PUT", "/latest/api/token", f"{TTL}: {ttl}", "Content-Length: 0", port=port), port=port
        )
        assert reply.status == 200, reply
        return reply.body.decode()

    async def get(self, path: str, *lines: str, token: str | None = None, method: str = "GET") -> Reply:
        """With a live token unless another is given."""
        shown = await self.token() if token is None else token
        return await self.ask(self.request(method, path, f"X-aws-ec2-metadata-token: {shown}", *lines))

    async def unanswered(self, raw: bytes) -> bytes:
        """Everything that comes until the other side closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(raw)
        try:
            async with asyncio.timeout(10):
                return await reader.read()
        finally:
            writer.close()


def port_of(grant: Grant) -> int:
    assert grant.door is not None
    return grant.door.port


@asynccontextmanager
async def doors_in(
    folder: Path,
    *,
    broker: StandInBroker | None = None,
    plans: StandInPlans | None = None,
    peers: Peers | None = None,
    limits: Limits | None = None,
    crowd: Crowd | None = None,
    clock: FakeClock | None = None,
    files: Files | None = None,
    listen: Callable[..., Any] = sockets.listen_tcp,
    describe: Callable[[int], Awaitable[str]] = nobody,
) -> AsyncIterator[DoorRig]:
    """Without a grant of its own; the home may be one that was used before."""
    _private(folder)
    clock, plans, audit, told = clock or FakeClock(), plans or StandInPlans(), StandInAudit(), list[tuple[str, str]]()
    broker = broker or StandInBroker(ready=session())

    def ended(grant: Grant, reason: str) -> None:
        told.append((grant.id, reason))
        doors.close(grant)

    grants = Grants(
        files=files or Files(),
        path=folder / "grants.json",
        tokens=folder / "tokens",
        clock=clock,
        max_age=timedelta(days=7),
        idle_timeout=timedelta(days=1),
        boot_id="boot",
        alive=lambda bound: True,
        on_revoke=ended,
    )
    doors = Doors(
        plans=lambda: plans,
        broker=broker,
        grants=grants,
        audit=audit,
        peers=peers or Peers(),
        clock=clock,
        describe=describe,
        limits=limits,
        crowd=crowd,
        listen=listen,
    )
    grants.load()
    try:
        yield DoorRig(doors, clock, broker, plans, audit, grants, told)
    finally:
        await doors.close_all(deadline=0.1)


def _private(folder: Path) -> None:
    folder.chmod(0o700)
    (folder / "tokens").mkdir(mode=0o700, exist_ok=True)


@asynccontextmanager
async def a_door(folder: Path, *, profile: str = "web-admin", **changed: Any) -> AsyncIterator[DoorRig]:
    """With one grant, whose door is open."""
    with_grant = {name: changed.pop(name) for name in ("role_arn", "region") if name in changed}
    async with doors_in(folder, **changed) as rig:
        rig.grant = await rig.another(profile, **with_grant)
        yield rig


def resident_kib() -> int:
    """This process's resident memory."""
    with Path("/proc/self/status").open() as status:
        return int(next(line for line in status if line.startswith("VmRSS")).split()[1])
