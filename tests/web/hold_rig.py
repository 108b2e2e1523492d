"""The SDK side in front of a real broker and desk over a FakeKeeper, with clients that read a drip blank by blank."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.engine.rig import ENDPOINT, SERIAL, web_admin
from tests.engine.rig import Rig as Engine
from tests.web.rig import FRANKLIN, PATH, ROLE, Reply, StandInAudit, _grant, _grants, nobody, read_reply, until_closed
from vaultd.engine.desk import Attendance
from vaultd.engine.grants import Grants
from vaultd.engine.questions import Question
from vaultd.errors import UnknownProfile
from vaultd.host.peers import Peers
from vaultd.model.plan import Overrides, Plan
from vaultd.web.app import SdkSide
from vaultd.web.hold import BLANK, TICK, Holds, Mode
from vaultd.web.limits import Limits

HEAD_END = b"\r\n\r\n"
PYTHON = "python-urllib3/2.5.0"


@dataclass
class OneProfile:
    """A catalog snapshot with `web-admin`, and `audit` that is the same role; `role` is what it means now."""

    number: int = 1
    role: str | None = ROLE

    def plan(self, profile: str, overrides: Overrides = Overrides()) -> Plan:  # noqa: B008 (frozen)
        if profile not in {"web-admin", "audit"}:
            raise UnknownProfile(f"There is no profile {profile}; list them with `vault-client list`.")
        return replace(web_admin(), profile=profile, slug=profile, role_arn=self.role, user_arn=FRANKLIN)

    def names(self) -> tuple[str, ...]:
        return ("web-admin", "audit")

    def slug(self, profile: str) -> str:
        return profile


class Client:
    """One request that is held, or is not."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def held(self) -> list[str]:
        """Read the head and the first blank; the header lines."""
        async with asyncio.timeout(10):
            head = await self.reader.readuntil(HEAD_END)
            assert head.startswith(b"HTTP/1.1 200 OK\r\n"), head
            assert await self.reader.readexactly(len(BLANK)) == BLANK
        return head[: -len(HEAD_END)].decode("ascii").split("\r\n")[1:]

    async def blanks(self, count: int) -> None:
        """Read exactly so many blanks, and know that there is no more."""
        async with asyncio.timeout(10):
            found = await self.reader.readexactly(len(BLANK) * count)
        assert found == BLANK * count
        assert self.silent()

    def silent(self) -> bool:
        """Nothing that has come is unread, and nothing has ended."""
        return not self.reader._buffer and not self.reader.at_eof()  # type: ignore[attr-defined]

    async def end(self) -> tuple[bytes, int]:
        """Read to the FIN: (the body without blanks, how many blanks); fails when the chunked body is cut."""
        rest = await until_closed(self.reader)
        body, blanks = b"", 0
        while True:
            size, mark, rest = rest.partition(b"\r\n")
            assert mark, "the body is cut"
            length = int(size, 16)
            chunk, rest = rest[:length], rest[length:]
            assert rest.startswith(b"\r\n"), "the chunk is cut"
            rest = rest[2:]
            if not length:
                assert rest == b"", "something follows the end"
                return body, blanks
            blanks += chunk == b" "
            body += chunk.strip()

    async def reply(self) -> Reply:
        """An answer that is not held."""
        return await read_reply(self.reader)

    def close(self) -> None:
        self.writer.close()


@dataclass
class HoldRig:
    """A running SDK side over the engine's rig."""

    engine: Engine
    side: SdkSide
    holds: Holds
    audit: StandInAudit
    plans: OneProfile
    grants: Grants
    port: int
    token: str
    clients: list[Client] = field(default_factory=list)

    def request(self, path: str = PATH, **headers: Any) -> bytes:
        fields: dict[str, str | None] = {
            "Host": f"127.0.0.1:{self.port}",
            "User-Agent": PYTHON,
            "Accept": "application/json",
        }
        fields |= {"Authorization": self.token, **{name.replace("_", "-"): value for name, value in headers.items()}}
        lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
        return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode()

    async def ask(self, raw: bytes | None = None, **headers: Any) -> Client:
        """Send a request on a connection of its own."""
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        client.writer.write(raw or self.request(**headers))
        return client

    async def get(self, **headers: Any) -> Reply:
        """A request that is not held."""
        client = await self.ask(**headers)
        try:
            return await client.reply()
        finally:
            client.close()

    async def held(self, count: int) -> None:
        """Wait until so many are held."""
        async with asyncio.timeout(10):
            while len(self.holds) != count:  # noqa: ASYNC110 - the handshake with the server's side of the sockets
                await asyncio.sleep(0)

    async def question(self) -> Question:
        """`vault-client mfa` opens it."""
        found = await self.engine.broker.open_mfa("franklin", SERIAL, ENDPOINT, requester="vault-client")
        assert isinstance(found, Question)
        return found

    async def tick(self, times: int = 1) -> None:
        """So many blanks' time."""
        await self.engine.clock.advance(TICK * times)

    def events(self) -> tuple[int, list[str]]:
        """(keys that went out, reasons of denials)."""
        return len(self.audit.serves), [reason for reason, _, _ in self.audit.denials]

    def another_token(self, profile: str) -> str:
        return _grant(self.grants, profile, ROLE)


@asynccontextmanager
async def holding(
    folder: Path,
    *,
    mode: Mode = "auto",
    longest: float = 100,
    peers: Peers | None = None,
    limits: Limits | None = None,
) -> AsyncIterator[HoldRig]:
    engine, audit, plans = Engine(), StandInAudit(), OneProfile()
    grants = _grants(folder, engine.clock)
    limits = limits or Limits()
    holds = Holds(
        questions=engine.desk,
        clock=engine.clock,
        mode=mode,
        longest=timedelta(seconds=longest),
        most=limits.most_held(),
    )
    side = SdkSide(
        plans=lambda: plans,
        broker=engine.broker,
        grants=grants,
        audit=audit,
        peers=peers or Peers(),
        clock=engine.clock,
        describe=nobody,
        limits=limits,
        holds=holds,
    )
    sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
    port = sock.getsockname()[1]
    await side.start(sock)
    try:
        rig = HoldRig(engine, side, holds, audit, plans, grants, port, _grant(grants, "web-admin", ROLE))
        yield rig
    finally:
        for client in rig.clients:
            client.close()
        await side.stop()
        await engine.broker.lock()  # no flight outlives its test
        assert len(holds) == 0
        assert holds._ticker is None


async def attended(rig: HoldRig) -> Attendance:
    """A terminal that asks."""
    return rig.engine.desk.attend((await rig.question()).id)


async def one_held(rig: HoldRig, **headers: Any) -> Client:
    """The first request that is held."""
    client = await rig.ask(**headers)
    await client.held()
    await rig.held(1)
    return client


async def warm(rig: HoldRig) -> None:
    """An MFA session is open, the role's is not; AWS does not answer."""
    await rig.engine.warm(rig.plans.plan("web-admin"))
    await rig.engine.broker.clear(rig.plans.plan("web-admin"))
    rig.engine.keeper.gate = asyncio.Event()
