"""The scenarios' bench: the daemon as daemon.build makes it, on the strict STS emulator, in one virtual time.

Rules
- Everything is real but the time and the OS keyring: catalog, broker, desk, keeper, sealed log, boto3 in its threads.
- Virtual time stands still while a call to AWS is under way in a thread, so that no outcome hangs on this machine's
  speed; `Scene.hanging` calls are left out of that. A test never sleeps: it drives an operation to its end.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from tests.fakes import FakeClock, FakeStore
from tests.keeper.wired import Wired
from tests.strict_sts import SERIAL, StrictSts, role
from tests.strict_sts.calls import Call
from vaultd.aws.calls import Calls
from vaultd.aws.clients import Clients
from vaultd.aws.sts import BotoSts
from vaultd.aws.threads import Threads
from vaultd.config import load_settings
from vaultd.daemon import Daemon, build
from vaultd.engine.grant_records import Door, Grant
from vaultd.engine.questions import Question
from vaultd.engine.sightings import Sighting
from vaultd.engine.states import ProfileState
from vaultd.errors import MfaRequired, VaultdError
from vaultd.files import Files
from vaultd.keeper.keeper import DaemonKeeper
from vaultd.keeper.remote import RemoteKeeper
from vaultd.layout import Layout
from vaultd.lifecycle.keeping import Amazon, Here
from vaultd.lifecycle.surroundings import Surroundings, make_keeper, real_amazon
from vaultd.model.credentials import Identity, IdentityKey, RoleSession
from vaultd.model.environment import CREDENTIALS_PATH, ecs_change, imds_change
from vaultd.model.plan import Overrides, Plan
from vaultd.model.secret import Secret
from vaultd.web.ecs import Credentials

T = TypeVar("T")

#: Of real time, for something that has to happen: past this the test is stuck.
STUCK_SECONDS = 20.0
#: What is on its way in a socket is seen by no turn of the loop but the one that looks for it.
WIRE_TURNS = 4
NO_OVERRIDES = Overrides()
NOBODY = Sighting(uid=1000, inode=None, pid=None)


def section(name: str, role_name: str, *, source: str = "identity", **more: object) -> str:
    """A role's profile."""
    lines = [f"{key} = {value}" for key, value in {"source_profile": source, **more}.items()]
    return "\n".join([f"[profile {name}]", f"role_arn = {role(role_name)}", *lines, "region = us-east-1", ""])


#: The tutorial's profile and one for each role of the scenarios.
PROFILES = "\n".join(
    (
        section("web-admin", "WebAdmin", mfa_serial=SERIAL),
        section("audit", "Audit", mfa_serial=SERIAL),
        section("long-ops", "LongOps", mfa_serial=SERIAL, duration_seconds=7200),
        section("long-audit", "LongOps", mfa_serial=SERIAL),
        section("web-admin-12h", "WebAdmin", mfa_serial=SERIAL, duration_seconds=43200),
        section("web-admin-15m", "WebAdmin", mfa_serial=SERIAL, duration_seconds=900),
        section("chained", "Chained", source="web-admin"),
        section("ext", "Ext", mfa_serial=SERIAL, external_id="vaultd-scenario"),
        section("name-lock", "NameLock", mfa_serial=SERIAL),
        section("if-exists", "IfExists", mfa_serial=SERIAL),
        section("plain", "Plain", source="robot"),
        section("hidden", "Hidden", mfa_serial=SERIAL),
    )
)


class SceneClock(FakeClock):
    """A FakeClock whose sleepers are woken one moment at a time."""

    def next_wake(self) -> float | None:
        """The boottime of the next sleeper that still sleeps."""
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        return self._sleepers[0][0] if self._sleepers else None

    def pass_to(self, boot: float) -> None:
        """Move both times to `boot` and wake who is due by then."""
        self._step(boot - self._boot)
        while (due := self.next_wake()) is not None and due <= self._boot:
            heapq.heappop(self._sleepers)[2].set_result(None)


@dataclass
class Options:
    """How a scene differs from the common one. `settings` is config.toml's text, `profiles` that of the AWS config."""

    home: Path
    profiles: str = PROFILES
    settings: str = ""
    knobs: Mapping[str, object] = field(default_factory=dict)
    templates: Mapping[str, Path] = field(default_factory=dict)
    moto: str | None = None
    clock: SceneClock = field(default_factory=SceneClock)
    store: FakeStore = field(default_factory=FakeStore)
    #: Given: the identities are in the sealed file under it, not in a keyring.
    passphrase: Secret | None = None
    #: With its sockets open, for clients that are processes.
    serving: bool = False
    #: boto3's clients, and the port that they know AWS by: made once for all scenes, at 0.1 s a client.
    clients: Clients | None = None
    port: int = 0
    users: Sequence[str] = ("franklin",)
    #: The keeper is behind the wire.
    wired: Wired | None = None
    #: Chance, seeded; a number stands for itself.
    jitter: float | random.Random = 0.0


@dataclass(frozen=True)
class Use:
    """What `vault-client use` leaves behind: a grant and its token."""

    profile: str
    grant: Grant
    token: Secret


class Scene:
    """One home with a running daemon in it, and its AWS."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.clock = options.clock
        knobs = {"date_header": "logical", **options.knobs}
        self.strict = StrictSts(
            clock=self.clock, knobs=knobs, templates=options.templates, moto=options.moto, port=options.port
        )
        self.files = Files()
        self.layout = Layout.find({"VAULTD_HOME": str(options.home)})
        #: Calls in threads that a fault keeps for ever: time goes on in spite of them.
        self.hanging = 0
        #: A10 alone: the same code may go again.
        self.resends = False
        self.daemon: Daemon
        self.amazon: Amazon
        self._since = 0
        self._typed: set[str] = set()
        self._refresher: asyncio.Task[None] | None = None
        self._endpoint: Credentials

    # ---- its life ----

    async def begin(self) -> None:
        """The emulator, a daemon on an empty home, its identities added."""
        await self.strict.__aenter__()
        self.files.make_dirs(self.layout)
        (self.options.home / "aws-config").write_text(self.options.profiles)
        (self.options.home / "aws-config").chmod(0o600)
        await self.start()
        for user in self.options.users:
            await self.add(user)
        self.mark()

    async def start(self) -> None:
        """`vaultd start`, but for sockets and signals."""
        backend = "file" if self.options.passphrase else "keyring"
        around = Surroundings(
            layout=self.layout,
            files=self.files,
            environ={"AWS_CONFIG_FILE": str(self.options.home / "aws-config"), **self.strict.env},
            settings=load_settings(
                f'[store]\nbackend = "{backend}"\n[listen]\nport = 0\n{self.options.settings}', path="config.toml"
            ),
            clock=self.clock,
        )
        self.amazon = real_amazon(around)
        if self.options.clients is not None:
            self._calls._clients = self.options.clients
        jitter = self.options.jitter
        chance: Callable[[], float] = jitter.random if isinstance(jitter, random.Random) else lambda: float(jitter)
        self.daemon = self._built(around, chance)
        tcp, unix = self.daemon._listen() if self.options.serving else (None, None)
        self.daemon._resume()
        await self.daemon.unlocking.begin(passphrase=self.options.passphrase, accept_rollback=False)
        assert not self.daemon.broker.locked, self.daemon.unlocking.reason
        if tcp is not None and unix is not None:
            await self.daemon._serve(tcp, unix)
        self._endpoint = Credentials(
            plans=self.daemon.catalog,
            broker=self.daemon.broker,
            grants=self.daemon.grants,
            clock=self.clock,
            describe=self.daemon.clients.describe,
        )
        self._refresher = asyncio.ensure_future(self.daemon.refresher.run())

    def _built(self, around: Surroundings, chance: Callable[[], float]) -> Daemon:
        wired, store = self.options.wired, self.options.store
        if wired is None:
            return build(around, amazon=self.amazon, keyring=store, jitter=chance)
        wired.outlook = Here(self.amazon)
        keeper = wired.remote(lambda: make_keeper(around, self.amazon, store))
        return build(around, keeper=keeper, jitter=chance)

    async def stop(self) -> None:
        """`vaultd stop`: everything is sealed and forgotten."""
        if self._refresher is not None:
            self._refresher.cancel()
            with suppress(asyncio.CancelledError):
                await self._refresher
        await self.drive(self.daemon._end())

    async def restart(self) -> None:
        """Stop, and start on the same home."""
        await self.stop()
        await self.start()

    async def end(self) -> None:
        """Stop everything, and hold the scenario to the one rule of all of them."""
        try:
            codes = self.codes_sent()
            assert self.resends or len(codes) == len(set(codes)), f"a code was sent twice: {codes}"
            await self.stop()
        finally:
            await self.strict.__aexit__(None, None, None)

    # ---- time ----

    @property
    def _calls(self) -> Calls:
        sts = self.amazon.sts
        assert isinstance(sts, BotoSts)
        return sts._calls

    @property
    def _threads(self) -> Threads:
        return self._calls._threads

    async def calm(self) -> None:
        """Until nothing runs any more that does not wait for time to pass, or for a person."""
        loop: Any = asyncio.get_running_loop()
        began = time.monotonic()
        idle, enough = 0, 1 if self.options.wired is None else WIRE_TURNS
        while True:
            busy = self._threads.busy > self.hanging
            await asyncio.sleep(0.0005 if busy else 0)
            idle = idle + 1 if not busy and not loop._ready and self._threads.busy <= self.hanging else 0
            if idle >= enough:
                return
            assert time.monotonic() - began < STUCK_SECONDS, "the calls to AWS do not land"

    async def drive(self, operation: Awaitable[T]) -> T:
        """Its result; virtual time passes only as far as it takes."""
        task = asyncio.ensure_future(operation)
        began = time.monotonic()
        while not task.done():
            await self.calm()
            due = self.clock.next_wake()
            if not task.done() and due is not None:
                self.clock.pass_to(due)
            assert time.monotonic() - began < STUCK_SECONDS, "the operation does not end"
        await self.calm()
        return task.result()

    async def advance(self, seconds: float) -> None:
        """Time passes; what begins on the way lands before it goes on."""
        end = self.clock.boottime() + seconds
        await self.calm()
        while (due := self.clock.next_wake()) is not None and due <= end:
            self.clock.pass_to(due)
            await self.calm()
        self.clock.pass_to(end)
        await self.calm()

    async def together(self, operations: Iterable[Awaitable[T]]) -> list[T | BaseException]:
        """Drive many at once; what each ended in."""
        return await self.drive(asyncio.gather(*operations, return_exceptions=True))

    async def hung(self, operation: Coroutine[Any, Any, T], op: str) -> asyncio.Task[T]:
        """Begin an operation whose next `op` hangs at AWS; back when it does. To be driven; `unhang` at the end."""
        self.strict.fault("hang", op=op)
        since, self.hanging = self.strict.calls()[-1].seq, 1
        task = asyncio.ensure_future(operation)
        await self.until(lambda: bool(self.strict.calls(op, since=since)))
        return task

    async def unhang(self) -> None:
        """The hanging call's thread is let go."""
        self.strict._release()
        await self.until(lambda: self._threads.busy == 0)
        self.hanging = 0

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait in real time for what a thread or a socket brings about; virtual time stands."""
        began = time.monotonic()
        while not true():
            assert time.monotonic() - began < STUCK_SECONDS, "it does not happen"
            await asyncio.sleep(0.001)

    # ---- people and programs ----

    @property
    def keeper(self) -> DaemonKeeper | RemoteKeeper:
        return self.daemon._keeper

    async def add(self, user: str = "franklin", *, name: str | None = None, **more: Any) -> Identity:
        """`vault-client add`; franklin's key goes by the tutorial's name, `identity`."""
        name = name or ("identity" if user == "franklin" else user)
        key = self.strict.key(user)
        ground = self.daemon.catalog().identity_ground(name)
        added = await self.drive(
            self.keeper.add(IdentityKey(name, key.id, Secret(key.secret)), endpoint=ground.endpoint, **more)
        )
        self.daemon.commands.identities_changed()
        return added

    def plan(self, profile: str, overrides: Overrides = NO_OVERRIDES) -> Plan:
        return self.daemon.catalog().plan(profile, overrides)

    async def ask(self, profile: str, overrides: Overrides = NO_OVERRIDES) -> RoleSession:
        """A terminal's request: it waits for the flight, and is told when a code is needed."""
        return await self.drive(self.asked(profile, overrides))

    async def asked(self, profile: str, overrides: Overrides = NO_OVERRIDES) -> RoleSession:
        """`ask`, to be driven."""
        plan = self.plan(profile, overrides)
        return self._served(await self.daemon.broker.session(plan, requester="vault-client use"))

    def use(self, profile: str, *, door: Door | None = None) -> Use:
        """`vault-client use`: the profile counts as active while its grant is used."""
        plan = self.plan(profile)
        grant, token = self.daemon.grants.create(
            profile=profile,
            slug=plan.slug,
            kind="shell",
            ttl=None,
            overrides=NO_OVERRIDES,
            role_arn=plan.role_arn,
            bound=None,
            peer=None,
            identity=plan.identity,
            user_arn=plan.user_arn,
            door=door,
        )
        self.daemon.refresher.nudge()
        return Use(profile, grant, token)

    async def use_imds(self, profile: str) -> Use:
        """`vault-client use --imds`: a grant with a door of its own."""
        sides, made = self.daemon._sides, list[Use]()
        assert sides is not None

        def create(door: Door) -> Grant:
            made.append(self.use(profile, door=door))
            return made[0].grant

        await sides.doors.open(create)
        return made[0]

    def environment(self, use: Use) -> dict[str, str]:
        """What a child of that grant is given, and where its calls go."""
        named = {"profile": use.profile, "grant_id": use.grant.id, "region": "us-east-1"}
        if use.grant.door is not None:
            change = imds_change(port=use.grant.door.port, **named)
        else:
            path = str(self.daemon.grants.token_path(use.grant.id))
            change = ecs_change(port=self.daemon.port, token=use.token, token_path=path, **named)
        return {**self.strict.env, **change.set, "HOME": str(self.options.home), "PATH": os.environ["PATH"]}

    async def get(self, use: Use) -> RoleSession:
        """An SDK's GET, behind the guard: 0.8 s of patience, and never an asker."""
        return await self.drive(self.got(use))

    async def got(self, use: Use) -> RoleSession:
        """`get`, to be driven."""
        grant = self._endpoint.grant(use.token.reveal_bytes())
        plan = self._endpoint.plan(grant, CREDENTIALS_PATH + grant.slug)
        served = self._endpoint.ready(grant, plan, NOBODY) or await self._endpoint.made(grant, plan, NOBODY)
        self.daemon.broker.used(plan)
        return self._served(served.session)

    async def warm(self, profile: str, overrides: Overrides = NO_OVERRIDES) -> RoleSession:
        """Ask, answer with the code that the device shows, ask again."""
        try:
            return await self.ask(profile, overrides)
        except MfaRequired:
            await self.answer()
        return await self.ask(profile, overrides)

    async def answer(self, code: str | None = None) -> None:
        """A person types a code into the open question: this one, or the one that his device shows."""
        typed = await self.code(self.question().mfa_serial) if code is None else code
        await self.drive(self.answered(typed))

    async def answered(self, code: str) -> None:
        """`answer`, to be driven."""
        await self.daemon.desk.answer(self.question().id, Secret(code), by="franklin")

    async def code(self, serial: str = SERIAL) -> str:
        """The code that the device shows; a person who has typed it already waits for the next."""
        while (shown := self.strict.totp(serial)) in self._typed:
            await self.advance(30 - self.clock.now().timestamp() % 30)
        self._typed.add(shown)
        return shown

    def question(self) -> Question:
        """The one open question."""
        (question,) = self.daemon.desk.open_questions()
        return question

    def asking(self) -> bool:
        return bool(self.daemon.desk.open_questions())

    def state(self, profile: str, overrides: Overrides = NO_OVERRIDES) -> ProfileState:
        """The profile's row in `status`."""
        return self.daemon.broker.state(self.plan(profile, overrides))

    def _served(self, session: RoleSession) -> RoleSession:
        assert session.expiration > self.clock.now(), "a session that has ended was served"
        return session

    # ---- what AWS and the audit saw ----

    def mark(self) -> None:
        """Count from now on."""
        calls = self.strict.calls()
        self._since = calls[-1].seq if calls else 0

    def calls(self, op: str | None = None) -> list[Call]:
        return self.strict.calls(op, since=self._since)

    def counts(self) -> Counter[str]:
        """Calls by operation, but for the GetCallerIdentity that proves a key before a person is asked."""
        return Counter(call.op for call in self.calls() if call.op != "GetCallerIdentity")

    def codes_sent(self) -> list[int]:
        """The ordinal of each code that reached AWS, in order; the whole scene's."""
        return [call.code for call in self.strict.calls() if call.code is not None]

    def prompts(self) -> int:
        """Questions put to a person, over the whole scene."""
        return sum(event["event"] == "mfa.ask" for event in self.daemon.audit.tail(10_000))

    @property
    def began(self) -> datetime:
        """When the first MFA session of the scene was given."""
        return next(call.time for call in self.strict.calls("GetSessionToken") if not call.error)

    def age(self) -> float:
        """How old that MFA session is."""
        return (self.clock.now() - self.began).total_seconds()

    def ends(self, session: RoleSession) -> bool:
        """True when the session's Expiration is the one that STS gave it."""
        return any(
            call.issued == session.access_key_id and call.expiration == session.expiration
            for call in self.strict.calls()
        )


async def refused(operation: Awaitable[object]) -> VaultdError:
    """The error that it ends in."""
    try:
        await operation
    except VaultdError as exc:
        return exc
    raise AssertionError("it was not refused")
