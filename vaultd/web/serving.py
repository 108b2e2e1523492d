"""grant → plan → session → bytes (architecture.md §6 flow 1): what both dialects do alike, before and after the path.

Rules
- A profile that has since come to mean another role than the grant's is refused, not followed; one without a role, when
  it has come to mean another identity or another IAM user. What a role's plan begins at may change: its ARN is pinned.
- Which program asks is looked at once for each connection and grant, after the token and before the session.
- Nothing with keys is written once the broker is locked.
- What is ready goes out without an await; what is not is waited for as long as the dialect's clients bear.
- Keys are rendered once a session, and the bytes go when the session goes.
"""

from __future__ import annotations

import asyncio
import functools
import weakref
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final, NamedTuple, Protocol

from vaultd.engine.attestation import LONGEST, Attestation
from vaultd.engine.flights import within
from vaultd.engine.grants import Grant
from vaultd.engine.seams import Clock
from vaultd.engine.sightings import Sighting
from vaultd.errors import Locked, ProfileMismatch, StsUnavailable
from vaultd.model.credentials import RoleSession
from vaultd.model.plan import Plan, Plans
from vaultd.model.secret import Secret
from vaultd.model.text import shown, typed

#: Of a request's patience, for finding out which process asks: a question names it.
NAMING: Final = 0.1
#: Grants whose plan is at hand.
MOST_KNOWN: Final = 1024
_SOMEBODY: Final = "a process of yours"


class Sessions(Protocol):
    """What is used of the broker."""

    @property
    def locked(self) -> bool:
        """True from the turn of the lock on."""

    def peek(self, plan: Plan, *, patience: float = 0.0) -> RoleSession | None:
        """The session, when it may be served now; None where a new one is worth so many seconds."""

    async def session(self, plan: Plan, *, requester: str, wait: float | None = None) -> RoleSession:
        """The session, made within `wait` seconds; raises the errors of interface.md §4."""

    def used(self, plan: Plan) -> None:
        """Its session was served: renew it when due."""


class Witness(Protocol):
    """What is used of the audit log; both are O(1) and never raise."""

    def served(self, *, grant: Grant, session: RoleSession, sighting: Sighting, identity: str | None = None) -> None:
        """Keys went out."""

    def denied(self, *, reason: str, grant: Grant | None, sighting: Sighting) -> None:
        """A request was turned away; `reason` is the wire code."""


class Served(NamedTuple):
    """What goes out, and for whom. `message` is the whole HTTP message."""

    grant: Grant
    plan: Plan
    session: RoleSession
    message: bytes

    def __repr__(self) -> str:
        """Without the message, which has the keys: asyncio's debug mode prints results and arguments."""
        return f"Served(grant={self.grant.id})"


class Serving:
    """Sessions for grants. `describe` names the process behind a socket's inode, off the loop."""

    def __init__(
        self,
        *,
        plans: Callable[[], Plans],
        broker: Sessions,
        clock: Clock,
        describe: Callable[[int], Awaitable[str]],
        attestation: Attestation | None = None,
    ) -> None:
        self._attestation = attestation
        self._plans = plans
        self._broker = broker
        self._clock = clock
        self._naming = _Naming(describe, clock)
        self._known: dict[str, Plan] = {}
        self._number = -1

    @property
    def locked(self) -> bool:
        """Nothing is served."""
        return self._broker.locked

    def plan(self, grant: Grant) -> Plan:
        """What the grant's profile means now. Raises ProfileMismatch, UnknownProfile, BadProfile."""
        plans = self._plans()
        if plans.number != self._number:
            self._known.clear()
            self._number = plans.number
        return self._known.get(grant.id) or self._learn(plans, grant)

    def unmet(self, grant: Grant, sighting: Sighting) -> bool:
        """A look-up lies before this request, for which its client should still be there."""
        return self._attestation is not None and sighting.badge.cleared != grant.id

    def cleared(self, grant: Grant, sighting: Sighting) -> bool:
        """May the program behind this connection use the grant, as far as it can be told without waiting? False:
        `admitted` will tell. Raises ForbiddenPeer.
        """
        if sighting.badge.cleared == grant.id or self._attestation is None:
            return True
        return self._attestation.clears(grant.id, grant.profile, sighting)

    async def admitted(self, grant: Grant, plan: Plan, sighting: Sighting, *, patience: float) -> float:
        """Returns when it may, and what is left of `patience` (seconds). Raises what `Attestation.admit` does."""
        end = self._clock.boottime() + patience
        while self._attestation is not None and not self._broker.locked:  # locked: nobody is asked, and nothing served
            try:
                await self._attestation.admit(grant.id, plan, sighting)
            except StsUnavailable:  # it is late
                if self._clock.boottime() + LONGEST > end:
                    raise
            else:
                break
        return end - self._clock.boottime()

    def still_admitted(self, grant: Grant, sighting: Sighting) -> bool:
        """For a request that was admitted: does it still hold? A consent may have ended meanwhile."""
        return self._attestation is None or self._attestation.holds(grant.id, grant.profile, sighting)

    def ready(self, grant: Grant, plan: Plan, rendered: Rendered, *, patience: float = 0.0) -> Served | None:
        """What goes out now, without waiting. None too when it was long idle: `made` within `patience` is better."""
        session = self._broker.peek(plan, patience=patience)
        return None if session is None else self._served(grant, plan, session, rendered)

    async def made(
        self, grant: Grant, plan: Plan, sighting: Sighting, rendered: Rendered, *, patience: float
    ) -> Served:
        """The same within `patience` seconds; raises whatever keeps a session from being made."""
        session = await self.session(plan, sighting, patience=patience)
        if self._broker.locked:  # no turn lies between this and the bytes
            raise Locked("vaultd is locked: type `vault-client unlock`.")
        return self._served(grant, plan, session, rendered)

    def sent(self, served: Served, sighting: Sighting, audit: Witness) -> Callable[[], None]:
        """What is to be done after the bytes went out: the audit line, and a look at what is due."""
        return functools.partial(self._sent, served, sighting, audit)

    def _sent(self, served: Served, sighting: Sighting, audit: Witness) -> None:
        audit.served(grant=served.grant, session=served.session, sighting=sighting, identity=served.plan.identity)
        self._broker.used(served.plan)

    async def session(self, plan: Plan, sighting: Sighting, *, patience: float) -> RoleSession:
        """Have it made within `patience` seconds; raises what keeps it from being made."""
        began = self._clock.boottime()
        requester = await self._naming.of(plan, sighting)
        left = max(0.0, patience - (self._clock.boottime() - began))
        return await self._broker.session(plan, requester=requester, wait=left)

    def _served(self, grant: Grant, plan: Plan, session: RoleSession, rendered: Rendered) -> Served:
        if not session.servable(self._clock.now()):  # the last gate: never a 200 with keys that have ended
            name = shown(grant.profile)
            raise StsUnavailable(
                f"The session of {name} has just ended; type `vault-client refresh {typed(grant.profile)}`."
            )
        return Served(grant, plan, session, rendered.message(session))

    def _learn(self, plans: Plans, grant: Grant) -> Plan:
        plan = agreed(plans.plan(grant.profile, grant.overrides), grant)
        if len(self._known) >= MOST_KNOWN:  # grants come and go; the files may stay as they are for months
            self._known.clear()
        self._known[grant.id] = plan
        return plan


def agreed(plan: Plan, grant: Grant) -> Plan:
    """The same plan; raises ProfileMismatch where it means something else than what the grant was made for."""
    if (other := _other_meaning(plan, grant)) is not None:
        name = shown(grant.profile)
        raise ProfileMismatch(
            f"Profile {name} means another {other} than when this token was made; "
            f"type `vault-client use {typed(grant.profile)}`."
        )
    return plan


def _other_meaning(plan: Plan, grant: Grant) -> str | None:
    """What has changed of what the grant pinned; None: nothing. A role decides alone, whoever assumes it."""
    if plan.role_arn != grant.role_arn:
        return "role"
    if plan.role_arn is not None or (plan.identity, plan.user_arn) == (grant.identity, grant.user_arn):
        return None
    return "identity" if plan.identity != grant.identity else "IAM user"


class Rendered:
    """Bytes per session, dropped with its secret key: a lock empties the broker's cells, and with them this."""

    def __init__(self, render: Callable[[RoleSession], bytes]) -> None:
        self._render = render
        self._messages: dict[int, tuple[weakref.ref[Secret], datetime, bytes]] = {}

    def message(self, session: RoleSession) -> bytes:
        """Made at the first call for a session."""
        secret = session.secret_access_key
        found = self._messages.get(id(secret))
        if found is not None and found[1] == session.expiration:
            return found[2]
        key, messages = id(secret), self._messages
        ref = weakref.ref(secret, lambda _: messages.pop(key, None))
        message = self._render(session)
        messages[key] = (ref, session.expiration, message)
        return message

    def __len__(self) -> int:
        return len(self._messages)


class _Naming:
    """Who asks, for the question that a person sees. One look-up a profile at a time: 200 cold callers are one."""

    def __init__(self, describe: Callable[[int], Awaitable[str]], clock: Clock) -> None:
        self._describe = describe
        self._clock = clock
        self._looking: dict[str, asyncio.Task[str]] = {}

    async def of(self, plan: Plan, sighting: Sighting) -> str:
        """Never raises, and never takes longer than NAMING."""
        task = self._looking.get(plan.last.fingerprint)
        if task is None:
            if sighting.inode is None:
                return _SOMEBODY
            task = asyncio.ensure_future(self._look(sighting.inode))
            self._looking[plan.last.fingerprint] = task
            task.add_done_callback(lambda _: self._looking.pop(plan.last.fingerprint, None))
        await within(self._clock, {task}, NAMING)
        return task.result() if task.done() and not task.cancelled() and task.exception() is None else _SOMEBODY

    async def _look(self, inode: int) -> str:
        return shown(await self._describe(inode))
