"""Attestation: which program asks for keys, and whether the profile's policy gives them to it (security.md §5).

Rules
- Once for each connection and grant, after the token was good and before the session is looked at: who has no token
  costs no look-up. A connection that was cleared costs one comparison.
- By default a relay is refused, everything else of this user is served: also one that cannot be told (not dumpable),
  unless a process that may be it has a relay's name. With `allow_executables` or `protected` who cannot be told is
  refused.
- A look-up that is late (whoever stands behind a relay can keep the machine busy) is 503 for this request and goes on
  for the next. One that hangs, or fails, finds nobody: it must not be the end of everybody's work.
- `protected`: each new program is confirmed by a person once, by an explicit yes; a no counts for the cool-down.
- Scans run in a thread, one at a time for all who wait, and besides at most MOST_LEFT that hang.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import Final, Protocol, TypeVar

from vaultd.engine.desk import Desk
from vaultd.engine.flights import within
from vaultd.engine.renewals import Recorder
from vaultd.engine.seams import Clock
from vaultd.engine.sightings import Seat, Sighting
from vaultd.errors import ConsentRequired, ForbiddenPeer, Locked, StsUnavailable, TooManyAttempts
from vaultd.model.peer import Peer
from vaultd.model.plan import Plan
from vaultd.model.programs import Found, Policy, Program, table_of
from vaultd.model.text import shown, typed

#: `admit` waits so long for a look-up (2 ms as a rule, 120 ms at most on two cores with eight times the work that they
#: can do), and at most as long again for one that was under way.
LONGEST: Final = 0.15
#: A look-up takes no longer, on whatever machine: it hangs, as on a network file system that is away.
HANGS: Final = 3.0
#: Threads that hang so; with as many of them nobody is looked for.
MOST_LEFT: Final = 2
_OPEN: Final = Policy()
_NOBODY: Final = Found()

log = logging.getLogger(__name__)

Told = TypeVar("Told")


class Programs(Protocol):
    """The operating system's side (lifecycle/clients.py)."""

    def known(self, inode: int) -> Seat | None:
        """The holder of a socket, when it called before; some microseconds, on the loop."""

    async def look(self, inodes: Collection[int]) -> Mapping[int, Found]:
        """The holders of sockets, by a scan in a thread."""

    async def behind(self, peer: Peer) -> Found:
        """What a process runs that is known by pid and start time."""

    async def listed(self, program: Program, entries: Collection[str]) -> bool:
        """Is it one of these files, or is its script?"""

    async def describe_peer(self, peer: Peer) -> str:
        """`terraform (pid 4711, /usr/bin/terraform, started by zsh)`."""


class Attestation:
    """The policies in motion. `met` is told of every program that was let to a grant."""

    def __init__(
        self,
        *,
        programs: Programs,
        policies: Mapping[str, Policy],
        desk: Desk,
        clock: Clock,
        audit: Recorder,
        met: Callable[[str, Peer], None],
    ) -> None:
        self._programs = programs
        self._policies = policies
        self._desk = desk
        self._clock = clock
        self._audit = audit
        self._met = met
        self._wanted: dict[int, asyncio.Future[Found | None]] = {}
        self._scan: asyncio.Task[None] | None = None
        self._left: set[asyncio.Future[Mapping[int, Found]]] = set()

    # ---- a connection ----

    def clears(self, grant_id: str, profile: str, sighting: Sighting) -> bool:
        """On the loop, for a connection that this grant was not cleared for: False: `admit` has to see to it.

        Raises ForbiddenPeer for a relay that is known already.
        """
        policy, badge = self._policies.get(profile, _OPEN), sighting.badge
        if policy.strict:
            return self._still_passed(grant_id, profile, policy, sighting)
        program = badge.program or self._seated(sighting)
        if program is None:
            return False
        if program.relay is not None:
            self._refuse_relay(policy, profile, Found(program))
        badge.program, badge.cleared = program, grant_id
        self._met(grant_id, program.peer)
        return True

    def _seated(self, sighting: Sighting) -> Program | None:
        """Who called before, by where he had a connection."""
        seat = None if sighting.inode is None else self._programs.known(sighting.inode)
        if seat is None:
            return None
        if sighting.badge.seat is not None:
            sighting.badge.seat.leave()
        sighting.badge.seat = seat
        return seat.program

    def _still_passed(self, grant_id: str, profile: str, policy: Policy, sighting: Sighting) -> bool:
        badge = sighting.badge
        if badge.passed != grant_id or badge.program is None:
            return False
        return not policy.protected or self._desk.consents.hold((profile, badge.program.key))

    async def admit(self, grant_id: str, plan: Plan, sighting: Sighting) -> None:
        """The same with a look-up, and with a question where a person has to confirm.

        Raises ForbiddenPeer, ConsentRequired with the question, and StsUnavailable for a look-up that is late.
        """
        badge = sighting.badge
        if badge.cleared == grant_id or self.clears(grant_id, plan.profile, sighting):
            return
        policy, locks = self._policies.get(plan.profile, _OPEN), self._desk.locks
        found = await self._find(sighting)
        if found is None:
            raise _late(plan.profile)
        if found.program is not None:
            badge.program = found.program  # for the audit line, also of a denial
            self._seated(sighting)
        await self._judge(policy, plan, found, stays=True, locks=locks)
        if policy.strict:
            badge.passed = grant_id
        else:
            badge.cleared = grant_id
        if found.program is not None:
            self._met(grant_id, found.program.peer)

    def holds(self, grant_id: str, profile: str, sighting: Sighting) -> bool:
        """For a request that was admitted and had to wait: has its consent not ended meanwhile?"""
        policy = self._policies.get(profile, _OPEN)
        return not policy.strict or self._still_passed(grant_id, profile, policy, sighting)

    async def admit_caller(self, plan: Plan, peer: Peer) -> None:
        """For keys that go out over the control socket: the same rules for the process at its other end."""
        policy, locks = self._policies.get(plan.profile, _OPEN), self._desk.locks
        await self._judge(policy, plan, await self._programs.behind(peer), stays=False, locks=locks)

    # ---- the policies ----

    async def _judge(self, policy: Policy, plan: Plan, found: Found, *, stays: bool, locks: int) -> None:
        self._refuse_relay(policy, plan.profile, found)
        if not policy.strict:
            return
        if found.program is None:
            raise _untold(plan.profile)
        if policy.allow is not None:
            listed = await self._promptly(self._programs.listed(found.program, policy.allow))
            if listed is None:
                raise _late(plan.profile)
            if not listed:
                raise _unlisted(plan.profile, found.program)
        if policy.protected and not self._desk.consents.hold((plan.profile, found.program.key)):
            await self._ask(plan, found.program, stays=stays, locks=locks)

    def _refuse_relay(self, policy: Policy, profile: str, found: Found) -> None:
        family = policy.refused_relay(found)
        if family is not None:
            raise _relayed(profile, family, sure=found.program is not None)

    async def _ask(self, plan: Plan, program: Program, *, stays: bool, locks: int) -> None:
        """Raises ConsentRequired with the open question, or ForbiddenPeer after a no. `locks`: of the desk, before
        anything was waited for.
        """
        told = await self._promptly(self._programs.describe_peer(program.peer))
        requester = told or f"{program.path} (pid {program.peer.pid})"
        if self._desk.locks != locks:  # else a question would be open, and a yes be given, while nothing is served
            raise Locked("vaultd was locked meanwhile: type `vault-client unlock`.")
        subject = (plan.profile, program.key)
        opened = self._desk.asked(subject) is None
        try:
            note = partial(self._note, program.peer)
            question = self._desk.ask_consent(
                subject=subject, identity=plan.identity, requester=requester, on_end=note, stays=stays
            )
        except TooManyAttempts as exc:
            raise ForbiddenPeer(exc.message) from exc
        if opened:
            self._audit.record(
                "consent.ask", profile=plan.profile, identity=plan.identity, peer=program.peer, reason=requester
            )
            log.info("ask consent profile=%s", shown(plan.profile))
        raise ConsentRequired(
            f"Profile {shown(plan.profile)} is protected and waits for a person to allow {shown(program.path)}: "
            f"type `vault-client mfa {typed(plan.identity)}`.",
            prompt=question.wire(),
            opened=opened,
        )

    def _note(self, peer: Peer, profile: str, identity: str, decision: str, by: str) -> None:
        """`peer`: whom the question was opened for."""
        self._audit.record(
            "consent.answer", sync=True, profile=profile, identity=identity, peer=peer, decision=decision, reason=by
        )

    # ---- look-ups ----

    async def _promptly(self, asked: Awaitable[Told]) -> Told | None:
        """What a thread is asked about files that may be on a disk that is away; None: it does not say in time."""
        task = asyncio.ensure_future(asked)
        await within(self._clock, {task}, LONGEST)
        return task.result() if task.done() else None

    async def _find(self, sighting: Sighting) -> Found | None:
        """None: not in time."""
        if sighting.inode is None:
            return _NOBODY
        future = self._wanted.get(sighting.inode)
        if future is None:
            future = self._wanted[sighting.inode] = asyncio.get_running_loop().create_future()
        if self._scan is None:
            self._scan = asyncio.ensure_future(self._look())
        await asyncio.wait({future})  # bounded by `_look`, which has one timer for all
        return future.result()

    async def _look(self) -> None:
        """Scan for all who wait, until nobody does."""
        try:
            while batch := tuple(self._wanted):
                if len(self._left) >= MOST_LEFT:
                    log.error("skip look-up because=others-hang", extra={"rarely": True})
                    self._tell(batch, {})
                    continue
                scan = asyncio.ensure_future(self._programs.look(batch))
                if await self._in_time(scan, batch):
                    self._tell(batch, _result_of(scan))
                else:
                    self._leave(scan)
                    self._tell(batch, {})
        finally:
            self._scan = None

    async def _in_time(self, scan: asyncio.Future[Mapping[int, Found]], waiting: Collection[int]) -> bool:
        """One timer for all: who came since it rang hears at the next. False: it hangs."""
        began = self._clock.boottime()
        while not await within(self._clock, {scan}, LONGEST):
            if self._clock.boottime() - began >= HANGS:
                return False
            self._tell(waiting, None)
            waiting = tuple(self._wanted)
        return True

    def _leave(self, scan: asyncio.Future[Mapping[int, Found]]) -> None:
        log.error("leave look-up because=it-hangs", extra={"rarely": True})
        self._left.add(scan)
        scan.add_done_callback(self._left.discard)
        scan.add_done_callback(_result_of)

    def _tell(self, inodes: Collection[int], found: Mapping[int, Found] | None) -> None:
        for inode in inodes:
            future = self._wanted.pop(inode, None)
            if future is not None:
                future.set_result(None if found is None else found.get(inode, _NOBODY))


def _result_of(scan: asyncio.Future[Mapping[int, Found]]) -> Mapping[int, Found]:
    """Whoever cannot be told for an error of ours is treated as such."""
    if (exc := scan.exception()) is None:
        return scan.result()
    log.error("fail look-up error=%s", type(exc).__name__, exc_info=exc, extra={"rarely": True})
    return {}


def _relayed(profile: str, family: str, *, sure: bool) -> ForbiddenPeer:
    who = (
        f"{family}, a relay that others may stand behind" if sure else f"a hidden process that may be {family}, a relay"
    )
    return ForbiddenPeer(
        f'Profile {shown(profile)} is not given to {who}: to allow it write `relays = ["{family}"]` under '
        f"{table_of(profile)} in config.toml, then type `vaultd restart`."
    )


def _unlisted(profile: str, program: Program) -> ForbiddenPeer:
    return ForbiddenPeer(
        f"Profile {shown(profile)} is not given to {program.path}: to allow it add that path to allow_executables "
        f"under {table_of(profile)} in config.toml, then type `vaultd restart`."
    )


def _late(profile: str) -> StsUnavailable:
    return StsUnavailable(
        f"Profile {shown(profile)} waits until it is known which program asks, for which this machine was too busy: "
        "run the same again.",
        under_way=True,
    )


def _untold(profile: str) -> ForbiddenPeer:
    return ForbiddenPeer(
        f"Profile {shown(profile)} is given to known programs alone, and it cannot be told which one asks: run it as "
        "a plain process of yours (not setuid, not in a container), or remove protected and allow_executables under "
        f"{table_of(profile)} in config.toml and type `vaultd restart`."
    )
