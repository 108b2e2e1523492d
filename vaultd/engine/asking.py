"""Asking: between broker and desk: opens questions for plans that need a code, and uses the codes that come back.

Rule: nobody waits here for a person. A plan that needs a code is remembered with its question and goes on by itself
once a code was taken (architecture.md §6.3); what AWS says of a code decides whether the question stays open.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import timedelta
from functools import partial

from vaultd.engine.cells import Cells
from vaultd.engine.chains import Chains
from vaultd.engine.desk import Desk
from vaultd.engine.flights import Flight
from vaultd.engine.questions import Question, Verdict
from vaultd.engine.renewals import Recorder, Renewals, again
from vaultd.engine.seams import Clock
from vaultd.engine.wishes import Waiting, Wish
from vaultd.errors import (
    BadProfile,
    CodeRefused,
    CodeSpent,
    DeviceRefused,
    Locked,
    MfaRequired,
    Temporary,
    TooManyAttempts,
    VaultdError,
)
from vaultd.model import steps
from vaultd.model.credentials import MfaHandle
from vaultd.model.partitions import Endpoint
from vaultd.model.plan import Plan, Step
from vaultd.model.secret import Secret
from vaultd.model.text import shown, typed

#: A `refresh` repeated so soon after its question was answered takes the session that the answer made.
ANSWERED_SECONDS = 60.0

log = logging.getLogger(__name__)


class Asking:
    """Questions on behalf of plans. `mfa_duration` is asked for a session opened ahead of time."""

    def __init__(
        self,
        *,
        desk: Desk,
        renewals: Renewals,
        chains: Chains,
        cells: Cells,
        clock: Clock,
        audit: Recorder,
        mfa_duration: timedelta,
    ) -> None:
        self._desk = desk
        self._renewals = renewals
        self._chains = chains
        self._cells = cells
        self._clock = clock
        self._audit = audit
        self._mfa_duration = mfa_duration
        self._waiting: dict[str, dict[str, Waiting]] = {}
        self._answered: dict[str, float] = {}

    def pending(self, step: Step) -> Question | None:
        """The open question of the step's device."""
        return self._desk.pending(step.identity, self._chains.serial(step) or "")

    @property
    def asks(self) -> bool:
        """Whether any question is open."""
        return bool(self._desk.open_questions())

    def take_answered(self, key: str) -> bool:
        """True once, shortly after the code that a `refresh` of this cell waited for was taken."""
        since = self._answered.pop(key, None)
        return since is not None and self._clock.boottime() - since < ANSWERED_SECONDS

    def lock(self) -> None:
        """End every question; nobody waits any more."""
        self._waiting.clear()
        self._answered.clear()
        self._desk.lock()

    def required(self, wish: Wish, step: Step) -> VaultdError:
        """MfaRequired for this wish, its question open at the desk; `opened`: by this very call, so that a caller who
        has nobody to ask can close it again.
        """
        needed = self._renewals.code_needed(replace(step, profile=wish.plan.profile))
        if not wish.asks:
            return needed
        opened = self.pending(step) is None
        try:
            question = self.ask(wish.plan, step, wish.requester, stays=wish.deadline is not None, forced=wish.forced)
        except TooManyAttempts as exc:
            # To an SDK a cool-down is just a missing code (interface.md §4 lists no other); the text says what to type.
            return MfaRequired(exc.message) if wish.deadline is not None else exc
        return MfaRequired(needed.message, prompt=question.wire(), opened=opened)

    def ask(self, plan: Plan, step: Step, requester: str, *, stays: bool, forced: bool = False) -> Question:
        """Open or join the question of that step's device; `plan` goes on once it is answered."""
        question = self._open(step, profile=plan.profile, requester=requester, stays=stays)
        waiting = self._waiting.setdefault(question.id, {})
        known = waiting.get(plan.last.fingerprint)
        waiting[plan.last.fingerprint] = Waiting(plan, forced or (known is not None and known.forced))
        return question

    def _open(self, step: Step, *, profile: str, requester: str, stays: bool) -> Question:
        serial = self._chains.serial(step)
        if serial is None:
            raise BadProfile(
                f"Identity {shown(step.identity)} has no MFA device: type "
                f"`vault-client add {typed(step.identity)} --replace --mfa-serial ARN`."
            )
        known = self._desk.pending(step.identity, serial)
        if known is not None:
            return known
        question = self._desk.ask(
            identity=step.identity,
            mfa_serial=serial,
            profile=profile,
            requester=requester,
            purpose="mfa-session" if step.kind == "mfa_session" else f"role {step.fingerprint}",
            on_code=partial(self._on_code, step),
            stays=stays,
        )
        living = {each.id for each in self._desk.open_questions()}
        self._waiting = {key: plans for key, plans in self._waiting.items() if key in living}
        self._audit.record("mfa.ask", profile=profile, identity=step.identity, reason=requester)
        log.info("ask code identity=%s profile=%s", shown(step.identity), shown(profile))
        return question

    async def answer_unasked(self, wish: Wish, step: Step, code: Secret) -> None:
        """`--token-code`: open the question and answer it in one go."""
        self._desk.thaw(step.identity, self._chains.serial(step) or "")
        question = self.ask(wish.plan, step, wish.requester, stays=False, forced=False)
        attendance = self._desk.attend(question.id)
        try:
            await self._desk.answer(question.id, code, by=wish.requester)
        finally:
            attendance.leave()

    def open_mfa(self, identity: str, mfa_serial: str, endpoint: Endpoint, *, requester: str) -> Question | MfaHandle:
        """`vault-client mfa` ahead of time: the question, or the MFA session while it opens all that it should."""
        step = self.mfa_step(identity, mfa_serial, endpoint)
        serial = self._chains.serial(step) or mfa_serial
        handle = self._cells.handle(identity, serial)
        pending = self._desk.pending(identity, serial)
        if pending is None and handle is not None and self._cells.opens_all(handle):
            return handle
        self._desk.thaw(identity, serial)
        return self._open(step, profile="", requester=requester, stays=False)

    async def sign_in(
        self, identity: str, mfa_serial: str, endpoint: Endpoint, *, requester: str, token_code: Secret | None
    ) -> MfaHandle:
        """The MFA session for calls of the identity's own, at any age; else the question for it, as MfaRequired."""
        step = self.mfa_step(identity, mfa_serial, endpoint)
        if (handle := self.signed_in(identity, mfa_serial)) is not None:
            return handle
        opened = self.pending(step) is None
        if token_code is not None:
            self._desk.thaw(identity, self._chains.serial(step) or mfa_serial)
        question = self._open(step, profile="", requester=requester, stays=False)
        if token_code is None:
            said = f"IAM wants an MFA code of {shown(identity)} for that: type `vault-client mfa {typed(identity)}`."
            raise MfaRequired(said, prompt=question.wire(), opened=opened)
        attendance = self._desk.attend(question.id)
        try:
            await self._desk.answer(question.id, token_code, by=requester)
        finally:
            attendance.leave()
        if (handle := self.signed_in(identity, mfa_serial)) is None:
            raise self._renewals.code_needed(step)
        return handle

    def signed_in(self, identity: str, mfa_serial: str) -> MfaHandle | None:
        """The MFA session that is there, while a call made now is sure to arrive before its end."""
        serial = self._chains.moved(identity, mfa_serial)
        handle = self._cells.handle(identity, serial)
        return handle if handle is not None and steps.usable(handle, None, self._clock.now()) else None

    def mfa_step(self, identity: str, mfa_serial: str, endpoint: Endpoint) -> Step:
        """GetSessionToken with a code, for the identity itself and no profile."""
        return Step(
            kind="mfa_session",
            fingerprint="",
            profile="",
            identity=identity,
            mfa_serial=mfa_serial,
            endpoint=endpoint,
            duration=self._mfa_duration,
        )

    # ---- answers ----

    async def _on_code(self, step: Step, question: Question, code: Secret, by: str) -> Verdict:
        """The desk hands down a code: use it, and let every waiting plan go on."""
        flight = self._renewals.with_code(step, code)
        await asyncio.wait({flight})
        verdict = self._verdict(flight)
        self._audit.record(
            "mfa.answer",
            profile=question.profile or None,
            identity=question.identity,
            decision="accepted" if verdict.error is None else "refused",
            reason=by if verdict.error is None else verdict.error.kind,
        )
        if verdict.error is None:
            self._go_on(question)
        return verdict

    def _verdict(self, flight: Flight) -> Verdict:
        if flight.cancelled():
            return Verdict(error=Locked("vaultd was locked meanwhile: type `vault-client unlock`."))
        outcome = flight.result()
        return _judged(again(outcome)) if isinstance(outcome, VaultdError) else Verdict()

    def _go_on(self, question: Question) -> None:
        for key, waiting in self._waiting.pop(question.id, {}).items():
            if waiting.forced:
                self._answered[key] = self._clock.boottime()
            chain = self._chains.of(waiting.plan)
            if self._chains.code_step(chain, len(chain) - 1) is None:
                self._renewals.renew(chain, len(chain) - 1)


def _judged(error: VaultdError) -> Verdict:
    """What an error says of the code: wrong, spent, for another device, or not the matter at all."""
    if isinstance(error, DeviceRefused) and "moved_to" in error.details:
        serial = str(error.details["moved_to"])
        moved = f"AWS no longer knows that MFA device; {shown(serial)} has taken its place: type its next code."
        return Verdict(error=CodeRefused(moved), again=True, mfa_serial=serial)
    if isinstance(error, CodeRefused):
        return Verdict(error=error, again=True, counted=True)
    if isinstance(error, CodeSpent):
        return Verdict(error=error, again=True)
    if isinstance(error, Temporary):
        # A9: whether AWS used the code up is not known, so it counts as spent, and not as wrong.
        spent = f"{error.message.rstrip('.')}; the code counts as spent: wait for the next one and type that."
        return Verdict(error=type(error)(spent, **error.details), again=True)
    return Verdict(error=error, again=isinstance(error, MfaRequired))
