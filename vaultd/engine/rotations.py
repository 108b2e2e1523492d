"""Rotations: takes a person's rotation to the keeper step by step, and ends it alone once the old key's grace is over.

Rules (aws-facts §2.1, architecture.md §6.5)
- A step is taken when somebody asks for it, and never waits for a person: where IAM needs the MFA session and there is
  none, the answer is the question. Sessions of roles live on through all of it: nothing of a cell names the key.
- Unasked the daemon does two things only, and only by an MFA session that is open anyway: it deletes an old key whose
  grace is over, and it learns once when a key was made. What AWS refuses it lets be for a day.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta

from vaultd.engine.broker import Broker
from vaultd.engine.renewals import Recorder
from vaultd.engine.seams import Clock, Custody, Rotated
from vaultd.errors import SessionRejected, StsUnavailable, Temporary, UnknownIdentity, VaultdError
from vaultd.model.credentials import Identity, MfaHandle
from vaultd.model.ground import Ground
from vaultd.model.peer import Peer
from vaultd.model.reminders import left_behind
from vaultd.model.rotation import Wish, calls_iam
from vaultd.model.secret import Secret
from vaultd.model.text import nearest, shown, typed

#: Between two looks at whether a grace is over; after AWS was not there; a day after a refusal.
LOOK_SECONDS, AWAY_SECONDS, REFUSED_SECONDS = 60.0, 600.0, 86400.0
STOP_SECONDS = 10.0
#: Steps that changed nothing are no line in the audit log.
_QUIET = frozenset({"tried", "kept", "over"})

log = logging.getLogger(__name__)


class Rotations:
    """`ground` gives device and endpoint of an identity; `changed` hears that the identities have."""

    def __init__(
        self,
        *,
        broker: Broker,
        custody: Custody,
        clock: Clock,
        audit: Recorder,
        ground: Callable[[str], Ground],
        changed: Callable[[], None],
    ) -> None:
        self._broker = broker
        self._custody = custody
        self._clock = clock
        self._audit = audit
        self._ground = ground
        self._changed = changed
        #: Name → boottime before which nothing is done unasked.
        self._resting: dict[str, float] = {}
        self._under_way: dict[asyncio.Task[Rotated], str] = {}
        #: By name: one who asks at a time, as the end of a step decides what the next one asks of a person.
        self._turns: dict[str, asyncio.Lock] = {}
        self._stopping = False

    async def step(
        self,
        name: str,
        *,
        requester: str,
        by: Peer | None,
        token_code: Secret | None = None,
        wish: Wish = "go",
        grace: timedelta | None = None,
    ) -> Rotated:
        """One step, by a person. Raises MfaRequired with its prompt, and what `Custody.rotate` raises."""
        self._known(name)
        async with self._turns.setdefault(name, asyncio.Lock()):
            for _ in range(2):
                await self._landing(name)
                identity, ground = self._known(name), self._ground(name)
                handle, serial = None, ground.device.serial
                if serial is not None and calls_iam(identity.rotation, wish, grace, self._clock.now()):
                    code = token_code if self._broker.signed_in(name, serial) is None else None
                    token_code = None if code is not None else token_code  # one code is sent once
                    handle = await self._broker.sign_in(
                        name, serial, ground.endpoint, requester=requester, token_code=code
                    )
                try:
                    rotated = await self._taken(name, ground, handle, wish, grace)
                except SessionRejected:
                    self._broker.sign_out(name)  # the keeper has dropped it; the next turn asks for a code
                    continue
                except VaultdError as exc:
                    self._stopped(identity, exc, by)
                    raise
                self._done(rotated, by)
                return rotated
        raise StsUnavailable(
            f"IAM twice refused an MFA session that AWS had just given: type `vault-client rotate {typed(name)}` again."
        )

    async def _landing(self, name: str) -> None:
        """A step whose asker has gone, or one of the daemon's own, ends first: what the next one needs hangs on it."""
        while before := {task for task, whose in self._under_way.items() if whose == name}:
            await asyncio.wait(before)

    async def _taken(
        self, name: str, ground: Ground, handle: MfaHandle | None, wish: Wish, grace: timedelta | None
    ) -> Rotated:
        if self._stopping:
            raise StsUnavailable(f"vaultd stops; type `vaultd start`, then `vault-client rotate {typed(name)}`")
        task = asyncio.ensure_future(
            self._custody.rotate(name, endpoint=ground.endpoint, handle=handle, wish=wish, grace=grace)
        )
        self._under_way[task] = name
        task.add_done_callback(self._landed)
        await asyncio.wait({task})
        return task.result()

    def _landed(self, task: asyncio.Task[Rotated]) -> None:
        self._under_way.pop(task, None)
        if not task.cancelled():
            task.exception()  # of a step that nobody waits for any more: the next one tells

    async def stop(self) -> None:
        """No step begins any more; one that is under way has 10 s: ended in between, it would cost the new key."""
        self._stopping = True
        if self._under_way:
            await asyncio.wait(set(self._under_way), timeout=STOP_SECONDS)

    async def run(self) -> None:
        """A permanent task of the daemon; ends only by cancellation."""
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            if not (self._broker.locked or self._broker.stranded):
                await self.look()

    async def look(self) -> None:
        """What is due and can be done without a person."""
        for identity in self._custody.list():
            if self._resting.get(identity.name, 0.0) <= self._clock.boottime():
                try:
                    await self._tend(identity)
                except VaultdError as exc:
                    self._rest(identity.name, exc)

    async def _tend(self, identity: Identity) -> None:
        over = identity.rotation is not None and identity.rotation.over(self._clock.now())
        if not over and identity.key_created is not None:
            return
        ground, handle = self._ground(identity.name), None
        if ground.device.serial is not None:
            handle = self._broker.signed_in(identity.name, ground.device.serial)
            if handle is None:
                return  # no code is asked for this: whoever gives one for something else brings it about
        if over:
            await self._end(identity, ground, handle)
        else:
            dated = await self._custody.date(identity.name, endpoint=ground.endpoint, handle=handle)
            if dated.key_created is None:  # AWS does not list it: whoever uses it next is told
                self._resting[identity.name] = self._clock.boottime() + REFUSED_SECONDS
            self._changed()

    async def _end(self, identity: Identity, ground: Ground, handle: MfaHandle | None) -> None:
        rotated = await self._taken(identity.name, ground, handle, "end", None)
        if rotated.did == "kept":  # by AWS's clock it is not over, or a person was faster
            self._resting[identity.name] = self._clock.boottime() + AWAY_SECONDS
        log.info("end grace identity=%s did=%s", shown(identity.name), rotated.did)
        self._done(rotated, None)

    def _rest(self, name: str, exc: VaultdError) -> None:
        log.warning("skip rotation identity=%s error=%s", shown(name), exc.kind)
        if isinstance(exc, SessionRejected):
            self._broker.sign_out(name)  # the next one that somebody opens will do
            return
        rest = AWAY_SECONDS if isinstance(exc, Temporary) else REFUSED_SECONDS
        self._resting[name] = self._clock.boottime() + rest

    # ---- what is known of it afterwards ----

    def forgotten(self, before: Identity, *, by: Peer | None, kept: str = "") -> str:
        """`before` was removed, or the key `kept` has taken its place, and its rotation has gone with it: a line in the
        audit log for each key that it leaves at AWS, and a sentence about them; empty where it had none.
        """
        if before.rotation is None:
            return ""
        self._resting.pop(before.name, None)
        left = [each for each in before.rotation.ids if each != kept]
        for each in left:
            self._note(before, each[-4:], "forgotten", by, decision="allow")
        return left_behind(before, left)

    def _done(self, rotated: Rotated, by: Peer | None) -> None:
        name = rotated.identity.name
        if rotated.living is not None:  # dropped or not: a copy outlives the session that another took the place of
            self._broker.sign_out(name, living=rotated.living)
        if rotated.did == "swapped":
            self._broker.rekeyed(name)
        if rotated.did in _QUIET:
            return
        self._changed()
        self._resting.pop(name, None)
        key = rotated.old_key if rotated.did in {"inactive", "deleted", "reactivated"} else rotated.new_key
        self._note(rotated.identity, key or rotated.old_key, rotated.did, by, decision="allow")

    def _stopped(self, identity: Identity, exc: VaultdError, by: Peer | None) -> None:
        self._changed()  # a stray key may have been written down
        log.warning("stop rotation identity=%s error=%s", shown(identity.name), exc.kind)
        self._note(identity, identity.key_ending, exc.kind, by, decision="deny")

    def _note(self, identity: Identity, key: str, reason: str, by: Peer | None, *, decision: str) -> None:
        self._audit.record(
            "identity.rotate",
            sync=True,
            identity=identity.name,
            account_id=identity.account_id,
            peer=by,
            access_key_id=key,
            decision=decision,
            reason=reason,
        )

    def _known(self, name: str) -> Identity:
        known = {each.name: each for each in self._custody.list()}
        if name not in known:
            raise UnknownIdentity(
                f"no identity {shown(name)} is stored.{nearest(name, known)} Type `vault-client identities`"
            )
        return known[name]
