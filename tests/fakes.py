"""Fakes for the seams of engine/seams.py, shared by every test. Each section has one owner's rule in its docstring."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from vaultd.engine.seams import (
    Head,
    ListedKey,
    Minted,
    MintMfa,
    MintRole,
    MintServed,
    NewKey,
    Note,
    Opened,
    Rotated,
    SignedIn,
    SignIn,
)
from vaultd.errors import (
    CodeRefused,
    CodeSpent,
    DurationTooLong,
    IdentityExists,
    Locked,
    RoleDenied,
    StoreDamaged,
    Throttled,
    UnknownIdentity,
    VaultdError,
    WrongPassphrase,
)
from vaultd.model.console import sign_in_url
from vaultd.model.credentials import Identity, IdentityKey, MfaHandle, MfaSession, RoleSession
from vaultd.model.partitions import Endpoint
from vaultd.model.plan import RoleParameters
from vaultd.model.rotation import Wish
from vaultd.model.secret import Secret

START = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


class FakeClock:
    """Wall and boot time that move only by `advance`, which wakes the sleepers it passes, in order."""

    def __init__(self, start: datetime = START) -> None:
        self._now = start
        self._boot = 1000.0
        #: How many turns of the loop `settle` takes: more where a wire lies between two ends.
        self.turns = 20
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

    async def settle(self, turns: int | None = None) -> None:
        """Let every runnable task run until it waits."""
        for _ in range(self.turns if turns is None else turns):
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

    def names(self) -> frozenset[str] | None:
        return None if self._passphrase is None else frozenset(self.items)

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
    """The Iam of engine/seams.py: the serials it was given, or the error; and one user's access keys, as AWS has them.

    `asked` lists a rotation's calls, as ("create", "AKIA…"); the next calls of a verb raise what `fail` has planted,
    with `after`: once it was done. A key is its id's entry in `table`: (active, created).
    """

    def __init__(self, *serials: str) -> None:
        self.serials = serials
        self.error: VaultdError | None = None
        self.calls = 0
        self.table: dict[str, tuple[bool, datetime]] = {}
        self.asked: list[tuple[str, str]] = []
        self.users: set[str] = set()
        self.now: Callable[[], datetime] = lambda: datetime.now(UTC)
        self.hold: asyncio.Event | None = None
        #: What GetAccessKeyLastUsed says of a key; one that was made here was used by nobody.
        self.used: dict[str, str] = {}
        #: CreateAccessKey's answer names this key instead.
        self.answers_with = ""
        self._planted: list[tuple[str, VaultdError, bool]] = []
        self._made = itertools.count(1)

    def fail(self, verb: str, error: VaultdError, *, after: bool = False) -> None:
        self._planted.append((verb, error, after))

    async def keys(self, source: IdentityKey | MfaSession, *, user: str, endpoint: Endpoint) -> tuple[ListedKey, ...]:
        await self._asked("keys", "", user)
        self._raise("keys", after=True)
        return tuple(ListedKey(each, active, created) for each, (active, created) in self.table.items())

    async def create(self, source: IdentityKey | MfaSession, *, user: str, endpoint: Endpoint) -> NewKey:
        key_id = f"AKIANEWKEY{next(self._made):010}"
        await self._asked("create", key_id, user)
        assert len(self.table) < 2, "AWS allows two"
        self.table[key_id] = (True, self.now())
        self.used[key_id] = "never"
        self._raise("create", after=True)
        return NewKey(self.answers_with or key_id, Secret(f"canary-secret-of-{key_id}"), self.table[key_id][1])

    async def set_status(
        self, source: IdentityKey | MfaSession, key_id: str, *, active: bool, user: str, endpoint: Endpoint
    ) -> None:
        await self._asked("activate" if active else "deactivate", key_id, user)
        self._there(key_id)
        self.table[key_id] = (active, self.table[key_id][1])

    async def delete(self, source: IdentityKey | MfaSession, key_id: str, *, user: str, endpoint: Endpoint) -> None:
        await self._asked("delete", key_id, user)
        self._there(key_id)
        del self.table[key_id]

    async def last_used(self, source: IdentityKey | MfaSession, key_id: str, *, endpoint: Endpoint) -> str:
        await self._asked("last_used", key_id, "")
        return self.used.get(key_id, "2026-11-22 by s3 in us-east-1")

    async def _asked(self, verb: str, key_id: str, user: str) -> None:
        self.asked.append((verb, key_id))
        self.users |= {user} - {""}
        if self.hold is not None:
            await self.hold.wait()
        self._raise(verb, after=False)

    def _raise(self, verb: str, *, after: bool) -> None:
        for each in self._planted:
            if (each[0], each[2]) == (verb, after):
                self._planted.remove(each)
                raise each[1]

    def _there(self, key_id: str) -> None:
        if key_id not in self.table:
            raise RoleDenied(f"AWS refused: no {key_id}; run `vault-client explain PROFILE`", aws_code="NoSuchEntity")

    async def mfa_devices(self, key: IdentityKey, *, endpoint: Endpoint) -> tuple[str, ...]:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return self.serials


# ---- the keeper, for the engine's tests ----

Order = MintMfa | MintRole | MintServed


class FakeConsole:
    """The console's sign-in: keeps what it was asked, raises `errors` one by one, takes a duration or not."""

    def __init__(self) -> None:
        self.orders: list[SignIn] = []
        self.errors: list[VaultdError] = []
        self.takes_duration = True
        self.gate: asyncio.Event | None = None

    async def url(self, order: SignIn) -> SignedIn:
        self.orders.append(order)
        if self.gate is not None:
            await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        token = f"canary-signin-token-{len(self.orders)}"
        duration = order.duration if self.takes_duration else None
        return SignedIn(Secret(sign_in_url(order.site, token)), duration)


class FakeKeeper:
    """Keeper and Custody in memory (owner: engine). Rule: it counts every order, and fails only as it is told.

    `outcomes[kind]` are consumed in order: an error is raised, None lets the call through; `always[kind]` holds for
    every call. `gate`, while set, holds every mint until the test opens it. `mfa_limits` denies a role above an MFA
    age, as AWS does: with a plain RoleDenied. `wrong` are codes that AWS refuses.
    """

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.orders: list[Order] = []
        self.codes: list[str] = []
        self.notes: list[Note] = []
        self.outcomes: dict[type[Order], list[VaultdError | None]] = {}
        self.always: dict[type[Order], VaultdError] = {}
        self.note_error: VaultdError | None = None
        self.gate: asyncio.Event | None = None
        self.mfa_limits: dict[str, timedelta] = {}
        self.max_durations: dict[str, timedelta] = {}
        self.role_lifetime: timedelta | None = None
        self.wrong: set[str] = set()
        self.spent: set[tuple[str, str]] = set()
        self.unmarked: Counter[tuple[str, str]] = Counter()
        self.detected: tuple[str, ...] = ()
        self.detections = 0
        self.probes = 0
        self.probe_error: VaultdError | None = None
        self.closed: list[Head | None] = []
        self.epoch = 0
        self._number = itertools.count(1)

    def count(self, kind: type[Order]) -> int:
        """How many orders of that kind came."""
        return sum(isinstance(order, kind) for order in self.orders)

    async def open(
        self, *, passphrase: Secret | None = None, unlock: bool = False, accept_rollback: bool = False
    ) -> Opened:
        return Opened(epoch=self.epoch, store="file", locked=False)

    async def mint(self, order: Order) -> Minted:
        self.orders.append(order)
        code = None if isinstance(order, MintServed) else order.token_code
        mark = None if code is None else (str(getattr(order, "mfa_serial", None)), code.reveal())
        if mark is not None:
            self._mark(mark)
        if self.gate is not None:
            await self.gate.wait()
        try:
            self._fail(order)
        except Throttled:
            if mark is not None and self.unmarked[mark] < 2:
                self.unmarked[mark] += 1
                self.spent.discard(mark)
            raise
        if mark is not None and mark[1] in self.wrong:
            raise CodeRefused("AWS refused the code: type the next one.")
        return self._made(order)

    def _mark(self, mark: tuple[str, str]) -> None:
        if mark in self.spent:
            raise CodeSpent("That code was sent before: wait for the next one.", retry_after_seconds=30)
        self.spent.add(mark)
        self.codes.append(mark[1])

    def _fail(self, order: Order) -> None:
        queued = self.outcomes.get(type(order), [])
        error = queued.pop(0) if queued else self.always.get(type(order))
        if error is not None:
            raise error
        if isinstance(order, MintRole):
            self._deny(order)

    def _deny(self, order: MintRole) -> None:
        limit = self.mfa_limits.get(order.role.role_arn)
        if limit is not None and isinstance(order.source, MfaHandle) and order.source.age(self.clock.now()) >= limit:
            raise RoleDenied("User is not authorized to perform: sts:AssumeRole.")
        longest = self.max_durations.get(order.role.role_arn)
        if longest is not None and order.duration > longest:
            raise DurationTooLong("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")

    def _made(self, order: Order) -> Minted:
        now = self.clock.now()
        if isinstance(order, MintMfa):
            return Minted(handle=MfaHandle(order.identity, order.mfa_serial, now, now + order.duration))
        if isinstance(order, MintServed):
            return Minted(session=self.session(order.handle.issued, order.handle.expiration))
        return Minted(session=self.session(now, now + (self.role_lifetime or order.duration), order.role.role_arn))

    def session(self, issued: datetime, expiration: datetime, role_arn: str | None = None) -> RoleSession:
        """A session as AWS would give it; each has an access key id of its own."""
        return RoleSession(
            access_key_id=f"ASIA{next(self._number):016d}",
            secret_access_key=Secret("s3cr3t"),
            session_token=Secret("t0k3n"),
            issued=issued,
            expiration=expiration,
            account_id="234567890123",
            role_arn=role_arn,
        )

    async def note(self, note: Note) -> None:
        if self.note_error is not None:
            raise self.note_error
        self.notes.append(note)

    async def close(self, head: Head | None, *, lock: bool = True) -> int:
        self.closed.append(head)
        self.epoch += 1
        return self.epoch

    def list(self) -> tuple[Identity, ...]:
        return ()

    async def add(
        self, key: IdentityKey, *, endpoint: Endpoint, mfa_serial: str | None = None, replace: bool = False
    ) -> Identity:
        raise IdentityExists(f"{key.identity} is stored already: type `vault-client add --replace`.")

    async def remove(self, name: str) -> None:
        raise UnknownIdentity(f"no identity {name} is stored: type `vault-client add`.")

    async def probe(self, name: str, *, endpoint: Endpoint) -> str:
        self.probes += 1
        if self.probe_error is not None:
            raise type(self.probe_error)(self.probe_error.message, **self.probe_error.details)
        return f"arn:aws:iam::123456789012:user/{name}"

    async def detect(self, name: str, *, endpoint: Endpoint) -> Sequence[str]:
        self.detections += 1
        return self.detected

    async def rotate(
        self, name: str, *, endpoint: Endpoint, handle: MfaHandle | None, wish: Wish, grace: timedelta | None
    ) -> Rotated:
        raise UnknownIdentity(f"no identity {name} is stored: type `vault-client add`.")

    async def date(self, name: str, *, endpoint: Endpoint, handle: MfaHandle | None) -> Identity:
        raise UnknownIdentity(f"no identity {name} is stored: type `vault-client add`.")
