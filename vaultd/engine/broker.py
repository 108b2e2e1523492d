"""The broker: plans in, sessions out; it owns the cells and the flights.

Rules
- An old session that still lives is served whatever becomes of its renewal (interface.md §4).
- Nobody waits here for a person: a call that needs a code opens the question and raises MfaRequired with it.
- A request waits for a flight and never owns one; it may leave at any time (architecture.md §8).
- A session that was idle past its renewal is waited for by the first who ask again, within a request's patience and
  without an error (tending.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import timedelta

from vaultd.engine.asking import Asking
from vaultd.engine.cells import Cells, device_key
from vaultd.engine.chains import Chain, Chains
from vaultd.engine.desk import Desk
from vaultd.engine.flights import Flight, Flights, within
from vaultd.engine.notes import Notes
from vaultd.engine.proving import Proving
from vaultd.engine.questions import Question
from vaultd.engine.renewals import DEADLINE_SECONDS, Recorder, Renewals, again, outcome_error
from vaultd.engine.seams import Clock, Custody, Keeper, Note, Opened
from vaultd.engine.states import ProfileState, States
from vaultd.engine.tending import IDLE_SECONDS, Tending
from vaultd.engine.wishes import Wish
from vaultd.errors import Locked, MfaRequired, StsUnavailable, VaultdError
from vaultd.model import steps
from vaultd.model.credentials import SERVE_FLOOR, MfaHandle, RoleSession
from vaultd.model.partitions import Endpoint
from vaultd.model.plan import Plan, Step
from vaultd.model.secret import Secret
from vaultd.model.text import shown

#: Code, denial, lost flight, late code: after so many turns the flight's own error is the answer.
TURNS = 5
#: For a new session while the old one lives nobody waits longer than an SDK does, a terminal neither.
LONGEST_PATIENCE = 0.8


class Broker:
    """Sessions by plan. `jitter` gives numbers in [0, 1)."""

    def __init__(
        self,
        *,
        keeper: Keeper,
        custody: Custody,
        clock: Clock,
        desk: Desk,
        audit: Recorder,
        mfa_duration: timedelta,
        jitter: Callable[[], float],
    ) -> None:
        self._keeper = keeper
        self._clock = clock
        self._notes = Notes(keeper)
        self._cells = Cells(clock=clock, notes=self._notes, jitter=jitter)
        self._flights = Flights(clock)
        self._chains = Chains(cells=self._cells, mfa_duration=mfa_duration)
        self._renewals = Renewals(
            keeper=keeper,
            custody=custody,
            clock=clock,
            cells=self._cells,
            flights=self._flights,
            audit=audit,
            chains=self._chains,
        )
        self._asking = Asking(
            desk=desk,
            renewals=self._renewals,
            chains=self._chains,
            cells=self._cells,
            clock=clock,
            audit=audit,
            mfa_duration=mfa_duration,
        )
        self._tending = Tending(
            cells=self._cells, flights=self._flights, renewals=self._renewals, chains=self._chains, asking=self._asking
        )
        self._proving = Proving(custody=custody, clock=clock, flights=self._flights, cells=self._cells, audit=audit)
        self._states = States(cells=self._cells, chains=self._chains, asking=self._asking)
        self.locked = True
        #: The keeper is shut though nobody locked: its process ended, and the store opens for a person only. What is at
        #: hand is served on, and nothing is made.
        self.stranded = False

    @property
    def epoch(self) -> int:
        """Grows with every lock; an outcome of an older one is dropped."""
        return self._flights.epoch

    def restore(self, opened: Opened) -> None:
        """Take over what `Keeper.open` brought."""
        self.locked, self.stranded = opened.locked, False
        self._flights.epoch = max(self._flights.epoch, opened.epoch)
        if not opened.locked:
            self._cells.restore(opened)

    def lose_keeper(self) -> None:
        """The keeper is shut; see `stranded`. Flights would end in Locked only, so their waiters are told now."""
        self.stranded = True
        self._flights.cancel()

    # ---- serving ----

    def peek(self, plan: Plan, *, patience: float = 0.0) -> RoleSession | None:
        """HOT PATH: the session if it may be served now, without a wait; else None.

        None too when it is idle past its renewal, and a new one worth up to `patience` seconds (0: never).
        """
        cell = self._cells.table.get(plan.steps[-1].fingerprint)
        if cell is None or (session := cell.session) is None:
            return None
        now = self._clock.now()
        if session.expiration - now < SERVE_FLOOR:
            return None
        late = cell.renew_at is not None and now >= cell.renew_at  # steps.due, without the call
        worth = late and not self.stranded and self._tending.worth_waiting(plan, patience=patience)
        return None if worth else session

    def used(self, plan: Plan) -> None:
        """A session of this plan was served: begin its renewal when it is due. Costs one comparison when it is not."""
        cell = self._cells.table.get(plan.steps[-1].fingerprint)
        if cell is not None and steps.due(cell, self._clock.now()):
            self.tend(plan)

    async def session(
        self,
        plan: Plan,
        *,
        requester: str,
        wait: float | None = None,
        asks: bool = True,
        token_code: Secret | None = None,
    ) -> RoleSession:
        """A servable session of `plan`; waits `wait` seconds (None: until the flight lands), never for a person.

        While an old one lives it is the answer after LONGEST_PATIENCE at the latest.

        `token_code` is sent only if a code turns out to be needed. Raises MfaRequired (with the prompt, unless `asks`
        is False or a cool-down runs), TooManyAttempts (terminals only), Locked, RoleDenied, IdentityBroken,
        StsUnavailable, CodeRefused.
        """
        deadline = None if wait is None else self._clock.boottime() + wait
        patience = LONGEST_PATIENCE if wait is None else min(wait, LONGEST_PATIENCE)
        held = self.peek(plan)
        if held is not None and not self.stranded and self._tending.worth_waiting(plan, patience=patience):
            flight = self._tending.begun(plan)
            await within(self._clock, {flight}, patience - self._flights.age(plan.last.fingerprint))
            self._refuse_locked()
            held = self.peek(plan)
        if held is not None:
            self.used(plan)
            return held
        return await self._obtain(Wish(plan, requester, deadline, asks), token_code)

    async def refresh(self, plan: Plan, *, requester: str, token_code: Secret | None = None) -> RoleSession:
        """A new last step, past refusals and back-off; a new MFA session only if the old no longer serves."""
        key = plan.last.fingerprint
        if self._asking.take_answered(key):
            if (flight := self._flights.get(key)) is not None:
                await asyncio.wait({flight})
                self._refuse_locked()
            return await self.session(plan, requester=requester, token_code=token_code)
        return await self._obtain(Wish(plan, requester, None, asks=True, forced=True), token_code)

    async def _obtain(self, wish: Wish, token_code: Secret | None) -> RoleSession:
        lost: VaultdError = StsUnavailable("No session could be made: type `vault-client status`.")
        for _ in range(TURNS):
            self._refuse_locked()
            if not wish.forced and (held := self.peek(wish.plan)) is not None:
                return held
            self._refuse_stranded()
            chain = self._chains.of(wish.plan)
            self._refuse_known(wish, chain)
            needed = await self._code_step(wish, chain)
            if needed is None:
                landed = await self._land(wish, chain)
                if isinstance(landed, RoleSession):
                    return landed
                lost = landed
            elif token_code is None:
                raise self._asking.required(wish, needed)
            else:
                await self._asking.answer_unasked(wish, needed, token_code)
                token_code = None
                wish = replace(wish, forced=wish.forced and needed.kind == "mfa_session")
        raise lost

    async def _code_step(self, wish: Wish, chain: Chain) -> Step | None:
        """The step that a person's code is needed for, once the key behind it is known to be good."""
        needed = self._chains.code_step(chain, len(chain) - 1)
        if needed is None or not wish.asks or self._asking.pending(needed) is not None:
            return needed
        await self._proving.key_of(replace(needed, profile=wish.plan.profile), seconds=self._left(wish))
        self._refuse_locked()
        return self._chains.code_step(chain, len(chain) - 1)

    async def _land(self, wish: Wish, chain: Chain) -> RoleSession | VaultdError:
        """Wait for the flight. An error that is returned is worth another turn: a code is needed, or it was lost."""
        flight = self._fly(wish, chain)
        landed = await within(self._clock, {flight}, self._left(wish))
        self._refuse_locked()  # it landed before the lock, and this waiter runs after it: flow 6 serves nothing more
        if not landed:
            raise self._too_slow(wish.plan)
        if not flight.cancelled() and isinstance(made := flight.result(), RoleSession):
            return made
        error = outcome_error(flight)
        if isinstance(error, MfaRequired) or flight.cancelled():
            return error
        raise error

    def _fly(self, wish: Wish, chain: Chain) -> Flight:
        """Join or begin the flight of the last step. An SDK request does not push against a back-off."""
        last = chain[-1]
        cell, boot = self._cells.get(last.fingerprint), self._clock.boottime()
        flying = self._flights.get(last.fingerprint)
        if flying is None and wish.deadline is not None and steps.pause(cell, boot) > 0 and cell.failure is not None:
            raise again(cell.failure.error)
        return flying or self._renewals.renew(chain, len(chain) - 1)

    def _left(self, wish: Wish) -> float | None:
        return None if wish.deadline is None else wish.deadline - self._clock.boottime()

    def _too_slow(self, plan: Plan) -> VaultdError:
        """Not done in time: AWS's own reason where there is one already (D3), else `under_way`: it may still come."""
        failure = self._cells.get(plan.last.fingerprint).failure
        if failure is not None:
            return again(failure.error)
        return StsUnavailable(
            f"AWS was not done in time with a session for {shown(plan.profile)}: try again, "
            "or type `vault-client status`.",
            under_way=True,
        )

    def _refuse_stranded(self) -> None:
        """Where something would have to be made."""
        self._refuse_locked()
        if self.stranded:
            raise Locked("vaultd's keeper was started again and its store is shut: type `vault-client unlock`.")

    def _refuse_locked(self) -> None:
        if self.locked:
            raise Locked("vaultd is locked: type `vault-client unlock`.")

    def _refuse_known(self, wish: Wish, chain: Chain) -> None:
        """The negative cache: final errors of the last step, of its device, or of the key itself."""
        if wish.forced:
            return
        keys = [chain[-1].fingerprint, device_key(chain[0].identity, None)]
        if self._chains.code_step(chain, len(chain) - 1) is not None:
            keys.append(self._chains.device(chain[0]))
        for key in keys:
            known = steps.refusal(self._cells.get(key), self._clock.boottime())
            if known is not None:
                raise again(known)

    async def open_mfa(
        self, identity: str, mfa_serial: str, endpoint: Endpoint, *, requester: str
    ) -> Question | MfaHandle:
        """`vault-client mfa` ahead of time: the question, or the MFA session while it opens all that it should."""
        self._refuse_stranded()
        return self._asking.open_mfa(identity, mfa_serial, endpoint, requester=requester)

    def signed_in(self, identity: str, mfa_serial: str) -> MfaHandle | None:
        """The MFA session of that device, if it lives."""
        return self._asking.signed_in(identity, mfa_serial)

    async def sign_in(
        self, identity: str, mfa_serial: str, endpoint: Endpoint, *, requester: str, token_code: Secret | None
    ) -> MfaHandle:
        """The MFA session for IAM calls of the identity's own; raises MfaRequired with its prompt.

        No code is asked for while the key itself is no good (E8).
        """
        self._refuse_stranded()
        if (handle := self._asking.signed_in(identity, mfa_serial)) is not None:
            return handle
        await self._proving.key_of(self._asking.mfa_step(identity, mfa_serial, endpoint), seconds=None)
        self._refuse_stranded()
        return await self._asking.sign_in(identity, mfa_serial, endpoint, requester=requester, token_code=token_code)

    def sign_out(self, identity: str, *, living: Collection[MfaHandle] = ()) -> None:
        """The keeper has dropped the identity's MFA sessions but for those `living`. Role sessions live on.

        Where one is served itself nobody knows whether AWS still takes it (aws-facts §6): its next one is due at once.
        """
        for key in self._cells.keys_of(identity=identity):
            handle = self._cells.get(key).handle
            if handle is not None and handle not in living:
                self._cells.apply(key, steps.Dropped())
        for key in self._cells.copies(identity, but=living):
            if not self._cells.get(key).doubted:  # a person is asked once
                self._cells.apply(key, steps.Doubted())

    def rekeyed(self, identity: str) -> None:
        """The identity has another key of the same user: sessions live on, and what was held against the old goes."""
        self._proving.forget(identity)
        self._cells.clear(device_key(identity, None))

    def straight(self, plan: Plan) -> timedelta | None:
        """How long the plan's session is asked for, where it comes straight from the key; None: it is chained."""
        return self._chains.straight(plan)

    def tend(self, plan: Plan) -> float:
        """Begin what is due for an active plan; the seconds until it is worth another look, at most 30."""
        return IDLE_SECONDS if self.locked or self.stranded else self._tending.tend(plan)

    def state(self, plan: Plan) -> ProfileState:
        """What `status` shows; no I/O."""
        return self._states.of(plan, locked=self.locked)

    def marked(self) -> Collection[str] | None:
        """The cells that there are: a profile whose last step has none of them is of state `none`, or `locked`. None
        when it may be of another, for its device.
        """
        return self._states.marked()

    # ---- dropping ----

    async def clear(self, plan: Plan | None) -> None:
        """Drop a profile's role sessions, or everything with the MFA sessions, from the disk too; raises Unwritable."""
        if plan is None:
            keys = self._cells.keys_of()
        else:
            keys = list({plan.last.fingerprint, *self._cells.keys_of(profile=plan.profile)})
        notes = self._drop(keys)
        await self._notes.flushed()
        for note in notes:
            await self._keeper.note(note)

    def forget_identity(self, name: str) -> None:
        """The identity was removed, or has another key: its sessions and refusals go."""
        self._chains.forget(name)
        self._proving.forget(name)
        for note in self._drop(self._cells.keys_of(identity=name)):
            self._notes.put(note)

    def _drop(self, keys: list[str]) -> list[Note]:
        self._flights.cancel(keys)
        notes: dict[tuple[str, str], Note] = {}
        for key in keys:
            cell = self._cells.get(key)
            self._cells.clear(key)
            if cell.handle is not None:
                notes["drop_mfa", cell.handle.identity] = Note(kind="drop_mfa", cell=cell.handle.identity)
            elif cell.session is not None:
                notes["drop", key] = Note(kind="drop", cell=key)
        return list(notes.values())

    async def lock(self) -> None:
        """`lock_now`, for whoever awaits it."""
        self.lock_now()

    def lock_now(self) -> None:
        """Flow 6, the engine's side: one turn. The keeper is closed by the caller."""
        self.locked, self.stranded = True, False
        self._flights.epoch += 1
        self._flights.cancel()
        self._cells.lock()
        self._notes.forget()
        self._proving.forget()
        self._asking.lock()

    async def stop(self) -> None:
        """Flow 7: no new flights; those with a code have 10 s to land, then the notes are written."""
        self.locked = True
        await self._flights.drain(self._clock, DEADLINE_SECONDS)
        await self._notes.flushed()
