"""The SDK side over real sockets, real grants and the real peer look-up; broker, catalog and audit are stand-ins."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.fakes import START, FakeClock
from vaultd.engine.attestation import Attestation
from vaultd.engine.grants import Grant, Grants
from vaultd.engine.sightings import Sighting
from vaultd.errors import UnknownProfile
from vaultd.files import Files
from vaultd.host.peers import Peers
from vaultd.model.credentials import RoleSession
from vaultd.model.partitions import Endpoint
from vaultd.model.plan import Overrides, Plan, Step
from vaultd.model.secret import Secret
from vaultd.web.app import SdkSide
from vaultd.web.hold import Holds
from vaultd.web.limits import Limits

FRANKLIN = "arn:aws:iam::123456789012:user/franklin"
ROLE = "arn:aws:iam::234567890123:role/WebAdmin"
SECRET, TOKEN_TEXT = "canary-secret-key-0123456789abcdefghijklm", "canary-session-token"
PATH = "/v1/credentials/web-admin"


def session(*, lives: timedelta = timedelta(hours=1)) -> RoleSession:
    return RoleSession(
        access_key_id="ASIAEXAMPLEEXAMPLE01",
        secret_access_key=Secret(SECRET),
        session_token=Secret(TOKEN_TEXT),
        issued=START,
        expiration=START + lives,
        account_id="234567890123",
        role_arn=ROLE,
    )


def plan_of(profile: str, *, role_arn: str | None = ROLE, identity: str = "franklin", user_arn: str = FRANKLIN) -> Plan:
    step = Step(
        kind="assume_role",
        fingerprint=f"f-{profile}",
        profile=profile,
        identity=identity,
        mfa_serial=None,
        endpoint=Endpoint(region="us-east-1"),
        duration=timedelta(hours=1),
    )
    return Plan(profile=profile, slug=profile, identity=identity, steps=(step,), role_arn=role_arn, user_arn=user_arn)


@dataclass
class StandInPlans:
    """A catalog snapshot whose profiles a test takes away or changes."""

    number: int = 1
    roles: dict[str, str | None] = field(default_factory=lambda: {"web-admin": ROLE, "audit": ROLE})
    identity: str = "franklin"
    user_arn: str = FRANKLIN
    made: int = 0
    broken: Exception | None = None

    def names(self) -> tuple[str, ...]:
        return tuple(self.roles)

    def slug(self, profile: str) -> str:
        return profile

    def plan(self, profile: str, overrides: Overrides = Overrides()) -> Plan:  # noqa: B008 (frozen)
        self.made += 1
        if self.broken is not None:
            raise self.broken
        if profile not in self.roles:
            raise UnknownProfile(f"There is no profile {profile}; list them with `vault-client list`.")
        return plan_of(profile, role_arn=self.roles[profile], identity=self.identity, user_arn=self.user_arn)


@dataclass
class StandInBroker:
    """Holds `ready`, or makes `later` when `release` is set, or raises `error`."""

    ready: RoleSession | None = None
    later: RoleSession | None = None
    error: Exception | None = None
    release: asyncio.Event | None = None
    asked: list[tuple[str, str, float | None]] = field(default_factory=list)
    used_plans: list[str] = field(default_factory=list)
    locked: bool = False
    #: `ready` was idle past its renewal: whoever has patience is to wait for a new one.
    idle: bool = False
    _asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def was_asked(self, times: int) -> None:
        """Wait until that many requests for a session have come."""
        while len(self.asked) < times:
            self._asked.clear()
            await self._asked.wait()

    def peek(self, plan: Plan, *, patience: float = 0.0) -> RoleSession | None:
        return None if self.idle and patience > 0 else self.ready

    async def session(self, plan: Plan, *, requester: str, wait: float | None = None) -> RoleSession:
        self.asked.append((plan.profile, requester, wait))
        self._asked.set()
        if self.release is not None:
            await self.release.wait()
        if self.error is not None:
            raise self.error
        assert self.later is not None
        return self.later

    def used(self, plan: Plan) -> None:
        self.used_plans.append(plan.profile)


@dataclass
class StandInAudit:
    """Remembers what it was told."""

    serves: list[tuple[str, Sighting, str | None]] = field(default_factory=list)
    denials: list[tuple[str, str | None, int]] = field(default_factory=list)

    def served(self, *, grant: Grant, session: RoleSession, sighting: Sighting, identity: str | None = None) -> None:
        self.serves.append((grant.profile, sighting, identity))

    def denied(self, *, reason: str, grant: Grant | None, sighting: Sighting) -> None:
        self.denials.append((reason, None if grant is None else grant.profile, sighting.uid))


@dataclass
class Reply:
    """One HTTP message as it came."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    raw: bytes

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(found) < 2, found
        return found[0] if found else None


@dataclass
class Rig:
    """A running SDK side and what stands behind it."""

    side: SdkSide
    clock: FakeClock
    broker: StandInBroker
    plans: StandInPlans
    audit: StandInAudit
    grants: Grants
    port: int
    token: str

    def request(self, path: str = PATH, **changed: Any) -> bytes:
        """A request as botocore sends it; a header given as None is left out, `method` and `version` may be changed."""
        method, version = changed.pop("method", "GET"), changed.pop("version", "HTTP/1.1")
        headers = {
            "Host": f"127.0.0.1:{self.port}",
            "Accept": "application/json",
            "Authorization": self.token,
            **{name.replace("_", "-"): value for name, value in changed.items()},
        }
        lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
        return "\r\n".join([f"{method} {path} {version}", *lines, "", ""]).encode("latin-1")

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, raw: bytes) -> Reply:
        """Send on a connection of its own and read one whole message."""
        reader, writer = await self.connect()
        writer.write(raw)
        try:
            return await read_reply(reader, head=raw.startswith(b"HEAD"))
        finally:
            writer.close()

    async def get(self, path: str = PATH, **changed: Any) -> Reply:
        return await self.ask(self.request(path, **changed))

    def another_token(self, profile: str, *, role_arn: str | None = ROLE) -> str:
        return _grant(self.grants, profile, role_arn)


async def read_reply(reader: asyncio.StreamReader, *, head: bool = False) -> Reply:
    async with asyncio.timeout(10):
        start = await reader.readuntil(b"\r\n\r\n")
        line, *fields = start[:-4].decode("ascii").split("\r\n")
        version, status, reason = line.split(" ", 2)
        assert version == "HTTP/1.1"
        headers = [(name, value) for name, _, value in (each.partition(": ") for each in fields)]
        length = int(next(value for name, value in headers if name == "Content-Length"))
        body = b"" if head else await reader.readexactly(length)
    return Reply(int(status), reason, headers, body, start + body)


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    """Everything that still comes; a reset counts as an end."""
    async with asyncio.timeout(10):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


async def still_open(reader: asyncio.StreamReader, *, seconds: float) -> bool:
    """True when nothing came and nothing ended for that long."""
    try:
        async with asyncio.timeout(seconds):
            await reader.read(1)
    except TimeoutError:
        return True
    except ConnectionError:  # what was still being written met an end that was closed
        return False
    return False


async def nobody(inode: int) -> str:
    return "terraform (pid 4711)"


@asynccontextmanager
async def running(
    folder: Path,
    *,
    broker: StandInBroker | None = None,
    peers: Peers | None = None,
    limits: Limits | None = None,
    describe: Callable[[int], Awaitable[str]] = nobody,
    attesting: Callable[[FakeClock, Grants], Attestation] | None = None,
    holds: Callable[[FakeClock], Holds] | None = None,
) -> AsyncIterator[Rig]:
    clock, plans, audit = FakeClock(), StandInPlans(), StandInAudit()
    broker = broker or StandInBroker(ready=session())
    grants = _grants(folder, clock)
    side = SdkSide(
        plans=lambda: plans,
        broker=broker,
        grants=grants,
        audit=audit,
        peers=peers or Peers(),
        clock=clock,
        describe=describe,
        limits=limits,
        attestation=None if attesting is None else attesting(clock, grants),
        holds=None if holds is None else holds(clock),
    )
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    await side.start(sock)
    try:
        yield Rig(side, clock, broker, plans, audit, grants, port, _grant(grants, "web-admin", ROLE))
    finally:
        await side.stop()


def _grants(folder: Path, clock: FakeClock) -> Grants:
    folder.chmod(0o700)
    (folder / "tokens").mkdir(mode=0o700)
    grants = Grants(
        files=Files(),
        path=folder / "grants.json",
        tokens=folder / "tokens",
        clock=clock,
        max_age=timedelta(days=7),
        idle_timeout=timedelta(days=1),
        boot_id="boot",
        alive=lambda bound: True,
        on_revoke=lambda grant, reason: None,
    )
    grants.load()
    return grants


def _grant(grants: Grants, profile: str, role_arn: str | None) -> str:
    _, token = grants.create(
        profile=profile,
        slug=profile,
        kind="lease",
        ttl=None,
        overrides=Overrides(),
        role_arn=role_arn,
        bound=None,
        peer=None,
        identity="franklin",
        user_arn=FRANKLIN,
    )
    return token.reveal()
