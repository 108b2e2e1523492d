"""The aws room on the strict STS emulator: how the tests of this folder build it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from tests.fakes import FakeClock
from tests.strict_sts import SERIAL, StrictSts, role
from vaultd.aws.calls import Calls
from vaultd.aws.clients import Clients, Network
from vaultd.aws.iam import BotoIam
from vaultd.aws.sts import BotoSts
from vaultd.aws.threads import Threads
from vaultd.model.credentials import IdentityKey, MfaSession, RoleSession
from vaultd.model.partitions import Endpoint
from vaultd.model.plan import RoleParameters
from vaultd.model.secret import Secret

HOUR = timedelta(hours=1)
REGION = "eu-west-1"


class SkippingClock(FakeClock):
    """Sleeps are over at once, are written down, and move both times: back-off without waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._step(seconds)


class Aws:
    """Sts and Iam as the daemon builds them, towards one emulator."""

    def __init__(
        self, strict: StrictSts, clock: FakeClock, *, deadline: float = 10.0, network: Network | None = None
    ) -> None:
        self.strict = strict
        self.clock = clock
        self.threads = Threads()
        self.clients = Clients(network or Network())
        self.calls = Calls(
            clients=self.clients, threads=self.threads, clock=clock, jitter=lambda: 0.5, deadline=deadline
        )
        self.sts = BotoSts(calls=self.calls, clock=clock)
        self.iam = BotoIam(calls=self.calls)

    def endpoint(self, region: str = REGION, *, fallback: str | None = None) -> Endpoint:
        return Endpoint(region, sts_url=self.strict.url, iam_url=self.strict.url, fallback_region=fallback)

    def key(self, user: str = "franklin", *, secret: str | None = None) -> IdentityKey:
        key = self.strict.key(user)
        return IdentityKey(user, key.id, Secret(secret or key.secret))

    async def mfa(self, code: str | None = None, *, serial: str = SERIAL, **more: Any) -> MfaSession:
        return await self.sts.session_token(
            more.get("key") or self.key(),
            endpoint=more.get("endpoint") or self.endpoint(),
            duration=more.get("duration") or 12 * HOUR,
            mfa_serial=serial,
            token_code=Secret(code or self.strict.totp()),
        )

    async def assume(
        self,
        source: IdentityKey | MfaSession | RoleSession,
        name: str = "WebAdmin",
        *,
        endpoint: Endpoint | None = None,
        duration: timedelta = HOUR,
        **more: Any,
    ) -> RoleSession:
        return await self.sts.assume_role(
            source,
            endpoint=endpoint or self.endpoint(),
            duration=duration,
            role=RoleParameters(role(name), "franklin", **more),
        )

    async def whoami(self, source: IdentityKey | MfaSession | None = None, *, endpoint: Endpoint | None = None) -> str:
        return await self.sts.caller_identity(source or self.key(), endpoint=endpoint or self.endpoint())

    async def devices(self) -> tuple[str, ...]:
        """The one call that is repeated here."""
        return await self.iam.mfa_devices(self.key(), endpoint=self.endpoint())


def ops(strict: StrictSts) -> Mapping[str, int]:
    return dict(strict.counts())
