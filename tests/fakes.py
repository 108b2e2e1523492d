"""Fakes for the seams of engine/seams.py, shared by every test. Each section has one owner's rule in its docstring."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from vaultd.errors import Locked, StoreDamaged, VaultdError, WrongPassphrase
from vaultd.model.credentials import IdentityKey, MfaHandle, MfaSession, RoleSession
from vaultd.model.partitions import Endpoint
from vaultd.model.plan import RoleParameters
from vaultd.model.secret import Secret

START = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


class FakeClock:
    """Wall and boot time that move only by `advance`, which wakes the sleepers it passes, in order."""

    def __init__(self, start: datetime = START) -> None:
        self._now = start
        self._boot = 1000.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        return self._now

    def boottime(self) -> float:
        return self._boot

    async def sleep(self, seconds: float) -> None:
        waker = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._boot + max(0.0, seconds), next(self._order), waker))
        await waker

    @property
    def sleepers(self) -> int:
        """How many tasks sleep now: the handshake by which a test knows that a loop has gone to sleep."""
        return sum(not waker.done() for _, _, waker in self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Move both times on, waking each sleeper at its own moment and letting the loop settle after each."""
        end = self._boot + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, waker = heapq.heappop(self._sleepers)
            self._step(due - self._boot)
            if not waker.done():
                waker.set_result(None)
            await self.settle()
        self._step(end - self._boot)
        await self.settle()

    def jump(self, wall_seconds: float) -> None:
        """The wall clock alone is set (NTP, a person): boottime does not move."""
        self._now += timedelta(seconds=wall_seconds)

    async def settle(self, turns: int = 20) -> None:
        """Let every runnable task run until it waits."""
        for _ in range(turns):
            await asyncio.sleep(0)

    def _step(self, seconds: float) -> None:
        if seconds > 0:
            self._boot += seconds
            self._now += timedelta(seconds=seconds)


# ---- store: an IdentityStore in memory; may be shut, slow or broken on demand (owner: store) ----


class FakeStore:
    """The IdentityStore of engine/seams.py. `passphrase` set: behaves as the file store, shut until it is given.

    `broken` is raised by every call while it is set; `calls` lists what was asked, as ("save", item).
    """

    def __init__(self, *, passphrase: str | None = None, there: bool = True) -> None:
        self.items: dict[str, str] = {}
        self.calls: list[tuple[str, str]] = []
        self.broken: VaultdError | None = None
        self.abandoned = False
        self.generation = 1
        self._passphrase = passphrase
        self._there = there
        self._open = passphrase is None

    @property
    def kind(self) -> Literal["keyring", "file"]:
        return "keyring" if self._passphrase is None else "file"

    @property
    def backend(self) -> str:
        return "secret-service" if self._passphrase is None else "file"

    def needs_passphrase(self) -> bool:
        return not self._open

    def exists(self) -> bool:
        return self._there

    async def open(
        self,
        passphrase: Secret | None,
        *,
        create: bool = False,
        accept_rollback: bool = False,
        expected: bool = False,
        seen: int = 0,
    ) -> None:
        self._called("open", "")
        if self._passphrase is not None:
            if passphrase is None:
                raise Locked("The file store is shut: run `vault-client unlock`.")
            if self._there and passphrase.reveal() != self._passphrase:
                raise WrongPassphrase("That passphrase does not open the store: run `vault-client unlock` again.")
            self._create(passphrase, create=create, expected=expected)
        self._open = True

    async def load(self, item: str) -> Secret | None:
        self._called("load", item)
        value = self.items.get(item)
        return None if value is None else Secret(value)

    async def save(self, item: str, value: Secret) -> None:
        self._called("save", item)
        self.items[item] = value.reveal()
        self.generation += 1

    async def drop(self, item: str) -> None:
        self._called("drop", item)
        self.items.pop(item, None)
        self.generation += 1

    def close(self) -> None:
        self._open = self._passphrase is None

    def _create(self, passphrase: Secret, *, create: bool, expected: bool) -> None:
        if self._there:
            return
        if expected:
            raise StoreDamaged("The sealed store is missing: restore it from a backup, then run `vault-client unlock`.")
        if not create:
            raise Locked("There is no file store yet: run `vault-client unlock` to make one.")
        self._passphrase, self._there = passphrase.reveal(), True

    def _called(self, verb: str, item: str) -> None:
        self.calls.append((verb, item))
        if self.broken is not None:
            raise self.broken
        if verb != "open" and not self._open:
            raise Locked("The file store is shut: run `vault-client unlock`.")


# ---- aws: STS and IAM that answer from a script (owner: keeper) ----


@dataclass(frozen=True)
class StsCall:
    """One call as the fake saw it; `code` is the code itself, which only a fake may keep."""

    operation: str
    key_id: str
    serial: str | None = None
    code: str | None = None
    role_arn: str | None = None
    region: str = ""


class FakeSts:
    """The Sts of engine/seams.py: fresh sessions by the clock, after the errors planted with `fail`.

    `hold()` makes calls wait until `release()`: a flight that is under way.
    """

    def __init__(self, clock: FakeClock, *, arn: str = "arn:aws:iam::123456789012:user/franklin") -> None:
        self.arn = arn
        self.calls: list[StsCall] = []
        self.skew: float | None = None
        self._clock = clock
        self._errors: dict[str, list[VaultdError]] = {}
        self._gate: asyncio.Event | None = None
        self._order = itertools.count(1)

    def fail(self, operation: str, *errors: VaultdError) -> None:
        """The next calls of `operation` raise these, one each."""
        self._errors.setdefault(operation, []).extend(errors)

    def hold(self) -> None:
        self._gate = asyncio.Event()

    def release(self) -> None:
        assert self._gate is not None
        self._gate.set()
        self._gate = None

    def counts(self) -> Counter[str]:
        return Counter(call.operation for call in self.calls)

    async def session_token(
        self,
        key: IdentityKey,
        *,
        endpoint: Endpoint,
        duration: timedelta,
        mfa_serial: str | None,
        token_code: Secret | None,
    ) -> MfaSession:
        code = token_code.reveal() if token_code else None
        issued = self._clock.now()
        call = StsCall("session_token", key.access_key_id, mfa_serial, code, region=endpoint.region)
        number = await self._called(call)
        handle = MfaHandle(key.identity, mfa_serial, issued=issued, expiration=issued + duration)
        return MfaSession(handle, f"ASIAFAKEMFA{number:05}", Secret(f"mfa-secret-{number}"), Secret(f"mfa-{number}"))

    async def assume_role(
        self,
        source: IdentityKey | MfaSession | RoleSession,
        *,
        endpoint: Endpoint,
        duration: timedelta,
        role: RoleParameters,
        mfa_serial: str | None = None,
        token_code: Secret | None = None,
    ) -> RoleSession:
        code = token_code.reveal() if token_code else None
        issued = self._clock.now()
        number = await self._called(
            StsCall("assume_role", source.access_key_id, mfa_serial, code, role.role_arn, endpoint.region)
        )
        return RoleSession(
            access_key_id=f"ASIAFAKEROLE{number:04}",
            secret_access_key=Secret(f"role-secret-{number}"),
            session_token=Secret(f"role-token-{number}"),
            issued=issued,
            expiration=issued + duration,
            account_id=role.role_arn.split(":")[4],
            role_arn=role.role_arn,
            role_session_name=role.role_session_name,
            aws_request_id=f"request-{number}",
        )

    async def caller_identity(self, key: IdentityKey | MfaSession, *, endpoint: Endpoint) -> str:
        await self._called(StsCall("caller_identity", key.access_key_id, region=endpoint.region))
        return self.arn

    def clock_skew(self) -> float | None:
        return self.skew

    async def _called(self, call: StsCall) -> int:
        self.calls.append(call)
        errors = self._errors.get(call.operation)
        error = errors.pop(0) if errors else None
        if self._gate is not None:
            await self._gate.wait()
        if error is not None:
            raise error
        return next(self._order)


class FakeIam:
    """The Iam of engine/seams.py: the serials it was given, or the error."""

    def __init__(self, *serials: str) -> None:
        self.serials = serials
        self.error: VaultdError | None = None
        self.calls = 0

    async def mfa_devices(self, key: IdentityKey, *, endpoint: Endpoint) -> tuple[str, ...]:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return self.serials
