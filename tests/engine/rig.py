"""The tutorial's world as plans, and a broker over a FakeKeeper: shared by the engine's tests."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar, Literal

from tests.fakes import FakeClock, FakeKeeper
from tests.keeper.wired import Wired
from vaultd.engine.broker import Broker
from vaultd.engine.desk import Desk
from vaultd.engine.seams import Opened
from vaultd.errors import MfaRequired
from vaultd.model.credentials import RoleSession
from vaultd.model.partitions import Endpoint
from vaultd.model.plan import Plan, RoleParameters, Step
from vaultd.model.secret import Secret

SERIAL = "arn:aws:iam::123456789012:mfa/franklin"
ENDPOINT = Endpoint(region="us-east-1")
HOUR = timedelta(hours=1)
HALF_DAY = timedelta(hours=12)


def arn(role: str) -> str:
    return f"arn:aws:iam::234567890123:role/{role}"


def mfa_step(identity: str = "franklin", serial: str | None = SERIAL) -> Step:
    return Step(
        kind="mfa_session" if serial else "session_token",
        fingerprint=f"m-{identity}-{serial}",
        profile=identity,
        identity=identity,
        mfa_serial=serial,
        endpoint=ENDPOINT,
        duration=HALF_DAY,
    )


def role_step(
    role: str,
    *,
    kind: str = "assume_role",
    duration: timedelta = HOUR,
    mfa_max_age: timedelta | None = None,
    identity: str = "franklin",
) -> Step:
    return Step(
        kind="assume_role_with_code" if kind == "direct" else "assume_role",
        fingerprint=f"r-{role}-{int(duration.total_seconds())}-{kind}",
        profile=role,
        identity=identity,
        mfa_serial=SERIAL,
        endpoint=ENDPOINT,
        duration=duration,
        role=RoleParameters(role_arn=arn(role), role_session_name=identity),
        mfa_max_age=mfa_max_age,
    )


def plan(name: str, *steps: Step) -> Plan:
    return Plan(profile=name, slug=name, identity=steps[0].identity, steps=steps, mfa_serial=steps[0].mfa_serial)


def web_admin(*, role: str = "WebAdmin", mfa_max_age: timedelta | None = None, duration: timedelta = HOUR) -> Plan:
    """GetSessionToken with a code, then AssumeRole: the default path."""
    return plan(role, mfa_step(), role_step(role, mfa_max_age=mfa_max_age, duration=duration))


def plain(role: str = "Plain") -> Plan:
    """A role that needs no MFA, from the identity key."""
    return plan(role, role_step(role))


def direct(role: str = "LongOps", *, duration: timedelta = 2 * HOUR) -> Plan:
    """More than an hour: AssumeRole with the code (C1)."""
    return plan(role, role_step(role, kind="direct", duration=duration))


def chained() -> Plan:
    """Identity → WebAdmin → Chained (C4)."""
    return plan("Chained", mfa_step(), role_step("WebAdmin"), role_step("Chained"))


@dataclass
class Records:
    """The audit log as a list."""

    events: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    def record(self, event: str, *, sync: bool = False, **fields: object) -> None:
        self.events.append((event, fields))

    def names(self) -> list[str]:
        return [event for event, _ in self.events]


class Whole:
    """A FakeKeeper as a keeper process serves it."""

    expects: Literal["keyring", "file"] = "file"

    def __init__(self, keeper: FakeKeeper) -> None:
        self._keeper = keeper

    def __getattr__(self, name: str) -> Any:
        return getattr(self._keeper, name)


class Rig:
    """A broker with everything under it fake but the desk. `wired`: the keeper is behind the wire (conftest.py)."""

    wired: ClassVar[Wired | None] = None

    def __init__(self, *, jitter: Sequence[float] = (0.0,), clock: FakeClock | None = None) -> None:
        self.clock = clock or FakeClock()
        self.keeper = FakeKeeper(self.clock)
        asked = self.keeper if self.wired is None else self.wired.remote(lambda: Whole(self.keeper))
        if self.wired is not None:
            self.clock.turns = 100
        self.desk = Desk(clock=self.clock, timeout=timedelta(seconds=120), cancel_cooldown=timedelta(seconds=120))
        self.audit = Records()
        self._jitter = list(jitter)
        self._drawn = 0
        self.broker = Broker(
            keeper=asked,
            custody=asked,
            clock=self.clock,
            desk=self.desk,
            audit=self.audit,
            mfa_duration=HALF_DAY,
            jitter=self._draw,
        )
        self.broker.restore(Opened(epoch=0, store="file", locked=False))
        self._code = 100_000

    def _draw(self) -> float:
        self._drawn += 1
        return self._jitter[self._drawn % len(self._jitter)]

    def code(self) -> Secret:
        """The next code that the device shows."""
        self._code += 1
        return Secret(str(self._code))

    async def get(self, wanted: Plan, *, wait: float | None = 0.8) -> RoleSession:
        """One SDK request."""
        return await self.broker.session(wanted, requester="aws", wait=wait)

    async def get_late(self, wanted: Plan, *, wait: float | None = 0.8) -> RoleSession:
        """One SDK request whose patience runs out, or is not needed."""
        asking = asyncio.ensure_future(self.get(wanted, wait=wait))
        await self.clock.advance(0.8 if wait is None else wait)
        return await asking

    async def answer(self, prompt_id: str | None = None, code: Secret | None = None) -> None:
        """A person types a code into the open question, or that one."""
        id_ = prompt_id or self.desk.open_questions()[0].id
        await self.desk.answer(id_, code or self.code(), by="franklin")
        await self.clock.settle()

    async def warm(self, wanted: Plan) -> RoleSession:
        """A terminal's way: ask, answer, ask again."""
        try:
            return await self.get(wanted, wait=None)
        except MfaRequired:
            await self.answer()
        return await self.get(wanted, wait=None)

    async def gone(self, task: asyncio.Task[RoleSession]) -> None:
        """A client that leaves."""
        task.cancel()
        await self.clock.settle()
