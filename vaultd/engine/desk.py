"""The desk: questions to a person, and what becomes of them.

Rules
- One open question per device (identity, mfa_serial), whoever asks; `purpose` tells the desk whose callback takes the
  code, so that two uses of one device wait for each other: a code is good once (aws-facts §1.2).
- Askers are terminals and dialogs, counted by `attend`. The last to leave closes a question that askers opened,
  without a cool-down. A question that an SDK request or the refresher opened (`stays`) lives to its time-out.
- First answer wins. Three refused codes, or an explicit cancel, start a cool-down. How many codes may go out is the
  keeper's to say.
- A question of kind `consent` asks whether a program may use a protected profile, one for each program and profile.
  Only an explicit yes counts; a no is a cancel, with its cool-down. At most MOST_CONSENTS are open.
- Codes are checked for their shape here, passed down, and not kept. Deadlines are by boottime (architecture.md §8.9).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Literal

from vaultd.engine.consents import Consents, Subject
from vaultd.engine.cooldowns import Cooldowns, whole_seconds
from vaultd.engine.flights import within
from vaultd.engine.questions import Ending, Key, OnCode, OnConsent, Open, Question, Verdict
from vaultd.engine.seams import Clock
from vaultd.errors import BadRequest, CodeRefused, InvalidCode, TooManyAttempts, UnknownPrompt, VaultdError
from vaultd.model.secret import Secret
from vaultd.model.text import shown

#: Refused codes per question (aws-facts §1.3.7).
ATTEMPTS = 3
#: A program may be copied to any number of names, and a person answers one question at a time.
MOST_CONSENTS = 16

log = logging.getLogger(__name__)


class Attendance:
    """One asker at one question; `leave` takes only himself, once."""

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave: Callable[[], None] | None = leave

    def leave(self) -> None:
        """The terminal is gone, or has its outcome."""
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()


class Desk:
    """Open questions, askers, cool-downs and consents (architecture.md §7)."""

    def __init__(self, *, clock: Clock, timeout: timedelta, cancel_cooldown: timedelta) -> None:
        self._clock = clock
        self._timeout = timeout
        self._cooldown = cancel_cooldown.total_seconds()
        self._open: dict[Key, Open] = {}
        self._cooldowns = Cooldowns(clock)
        self.consents = Consents(clock)
        self._landings: set[asyncio.Task[VaultdError | None]] = set()
        #: Why every question was ended at once; None once another is asked.
        self.shut: Literal["locked", "stopped"] | None = None
        #: How often every question was ended: who began to ask before that is not to go on.
        self.locks = 0

    # ---- opening and finding ----

    def ask(
        self,
        *,
        identity: str,
        mfa_serial: str,
        profile: str,
        requester: str,
        purpose: str,
        on_code: OnCode,
        stays: bool = False,
    ) -> Question:
        """Open or join the one question of that device; raises TooManyAttempts in a cool-down."""
        self._sweep()
        device = (identity, mfa_serial)
        found = self._open.get(device)
        if found is not None:
            return found.question
        self._cooldowns.check(device)
        self.shut = None
        question = Question(
            id=secrets.token_hex(8),
            kind="code",
            identity=identity,
            mfa_serial=mfa_serial,
            profile=profile,
            requester=requester,
            attempts_left=ATTEMPTS,
            expires_at=self._clock.now() + self._timeout,
        )
        self._open[device] = Open(
            question=question,
            purpose=purpose,
            on_code=on_code,
            stays=stays,
            deadline=self._deadline(),
            ended=asyncio.get_running_loop().create_future(),
        )
        return question

    def ask_consent(
        self, *, subject: Subject, identity: str, requester: str, on_end: OnConsent, stays: bool
    ) -> Question:
        """Open or join the question whether a program may use a profile; raises TooManyAttempts in a cool-down, and
        when too many are open.
        """
        self._sweep()
        found = self._open.get(subject)
        if found is not None:
            return found.question
        self._cooldowns.check(subject)
        if sum(each.subject is not None for each in self._open.values()) >= MOST_CONSENTS:
            raise TooManyAttempts(
                f"{MOST_CONSENTS} programs wait for a person to allow them: type `vault-client mfa` for each of them.",
                retry_after_seconds=whole_seconds(self._timeout.total_seconds()),
            )
        self.shut = None
        question = Question(
            id=secrets.token_hex(8),
            kind="consent",
            identity=identity,
            mfa_serial="",
            profile=subject[0],
            requester=requester,
            attempts_left=1,
            expires_at=self._clock.now() + self._timeout,
        )
        self._open[subject] = Open(
            question=question,
            purpose="consent",
            on_code=None,
            stays=stays,
            deadline=self._deadline(),
            ended=asyncio.get_running_loop().create_future(),
            subject=subject,
            on_consent=on_end,
        )
        return question

    def asked(self, subject: Subject) -> Question | None:
        """The open question about a program and a profile."""
        self._sweep()
        found = self._open.get(subject)
        return None if found is None else found.question

    def pending(self, identity: str, mfa_serial: str) -> Question | None:
        """The open question of a device."""
        self._sweep()
        found = self._open.get((identity, mfa_serial))
        return None if found is None else found.question

    def open_questions(self) -> tuple[Question, ...]:
        """Every open question, the oldest first."""
        self._sweep()
        return tuple(each.question for each in self._open.values())

    def thaw(self, identity: str, mfa_serial: str) -> None:
        """A code was given unasked, or a person asks to be asked: end a cool-down that is 30 s old."""
        self._cooldowns.thaw((identity, mfa_serial))

    def question(self, question_id: str) -> Question:
        """Raises UnknownPrompt."""
        return self._find(question_id).question

    def attended(self, question_id: str) -> bool:
        """A person can see the question, or has just typed its code; False too when it is gone."""
        self._sweep()
        found = next((each for each in self._open.values() if each.question.id == question_id), None)
        return found is not None and (found.askers > 0 or found.landing is not None)

    # ---- answering ----

    async def answer(self, question_id: str, code: Secret, *, by: str) -> None:
        """Hand a code down and wait for AWS's word on it.

        Raises InvalidCode, CodeSpent, CodeRefused (with prompt and attempts_left), TooManyAttempts, UnknownPrompt,
        StsUnavailable (the code counts as spent; the question is open), Locked, and what AWS said of the key or role.
        """
        digits = code.digits(6)
        if digits is None:
            raise InvalidCode("A token code is six digits: type the ones that your device shows now.")
        found = self._find(question_id)
        if found.on_code is None:
            raise BadRequest("That question takes yes or no: type `vault-client mfa`.", field="token_code")
        while found.landing is not None:  # somebody else's code is on its way: his may win
            await asyncio.wait({found.landing})
            found = self._find(question_id)
        landing = asyncio.ensure_future(self._land(found, digits, by))
        found.landing = landing
        self._landings.add(landing)
        landing.add_done_callback(self._landings.discard)
        # The code is sent whether or not the one who typed it stays (architecture.md §8.5): never awaited bare.
        await asyncio.wait({landing})
        error = landing.result()
        if error is not None:
            raise error

    async def _land(self, found: Open, code: Secret, by: str) -> VaultdError | None:
        """Runs to its end whoever leaves; returns the error instead of raising it."""
        verdict = Verdict(error=VaultdError("The answer was lost: type `vaultd logs` for the reason."))
        try:
            assert found.on_code is not None
            verdict = await found.on_code(found.question, code, by)
        except Exception:
            log.exception("fail answer identity=%s", shown(found.question.identity))
        finally:
            found.landing = None
        if found.ended.done():  # locked or cancelled meanwhile; the code stays sent
            return verdict.error
        return self._judge(found, verdict)

    def _judge(self, found: Open, verdict: Verdict) -> VaultdError | None:
        error = verdict.error
        if error is None:
            self._cooldowns.end(found.device)
            self._end(found, "answered")
            return None
        if isinstance(error, TooManyAttempts):
            why = error.message.partition("; ")[0]  # without the keeper's next step: a cool-down has its own
            seconds = float(error.details.get("retry_after_seconds", self._cooldown))
            self._cooldowns.begin(found.device, why, seconds, whole=True)
        if not verdict.again:
            # Final, and remembered by the broker: "answered" sends the waiting back to hear the reason.
            self._end(found, "answered")
            return error
        return self._once_more(found, verdict, error)

    def _once_more(self, found: Open, verdict: Verdict, error: VaultdError) -> VaultdError:
        left = found.question.attempts_left - (1 if verdict.counted else 0)
        if left <= 0:
            why = f"AWS refused {ATTEMPTS} codes for {shown(found.question.mfa_serial)}"
            self._cooldowns.begin(found.device, why, self._cooldown)
            self._end(found, "cancelled")
            return self._cooldowns.refusal(found.device) or error
        self._move(found, verdict.mfa_serial)
        found.deadline = self._deadline()
        found.question = replace(
            found.question,
            attempts_left=left,
            expires_at=self._clock.now() + self._timeout,
            note=error.message,
        )
        error.details.update(prompt=found.question.wire())
        if isinstance(error, CodeRefused):
            error.details.update(attempts_left=left)
        if found.abandoned:
            self._end(found, "cancelled")
        return error

    def _move(self, found: Open, mfa_serial: str | None) -> None:
        if mfa_serial is None or (found.question.identity, mfa_serial) in self._open:
            return
        del self._open[found.device]
        found.question = replace(found.question, mfa_serial=mfa_serial)
        self._open[found.device] = found

    def decide(self, question_id: str, *, allow: bool, by: str) -> None:
        """A person's yes or no to a consent. Raises UnknownPrompt, and BadRequest for a question that takes a code."""
        found = self._find(question_id)
        if found.subject is None:
            raise BadRequest("That question takes a token code: type `vault-client mfa`.", field="allow")
        if not allow:
            self.cancel(question_id, by=by)
            return
        self.consents.give(found.subject)
        self._tell(found, "allow", by)
        self._end(found, "answered")

    # ---- ends ----

    def cancel(self, question_id: str, *, by: str = "") -> None:
        """A person said no: the one way, beside refused codes, to start the cool-down."""
        found = self._find(question_id)
        if found.subject is None:
            why = f"The MFA question for {shown(found.question.identity)} was cancelled"
        else:
            why = f"Profile {shown(found.question.profile)} was denied to {shown(found.question.requester)}"
            self._tell(found, "deny", by)
        self._cooldowns.begin(found.device, why, self._cooldown)
        self._end(found, "cancelled")

    def _tell(self, found: Open, decision: str, by: str) -> None:
        if found.on_consent is not None:
            found.on_consent(found.question.profile, found.question.identity, decision, by)

    def attend(self, question_id: str) -> Attendance:
        """Count an asker in."""
        found = self._find(question_id)
        found.askers += 1
        found.attended = True
        return Attendance(lambda: self._leave(found))

    def _leave(self, found: Open) -> None:
        found.askers -= 1
        if found.abandoned and found.landing is None:
            self._end(found, "cancelled")

    async def wait(self, question_id: str) -> Ending:
        """How it ends; a lock reads as cancelled. Raises UnknownPrompt."""
        found = self._find(question_id)
        while not found.ended.done():
            await within(self._clock, {found.ended}, found.deadline - self._clock.boottime())
            self._sweep()
            if not found.ended.done() and found.landing is not None:
                await asyncio.wait({found.landing})
        return found.ended.result()

    def lock(self, *, why: Literal["locked", "stopped"] = "locked") -> None:
        """End every question and consent; one turn. Cool-downs stay: a lock is no way around them."""
        self.shut = why
        self.locks += 1
        self.consents.drop()
        for found in list(self._open.values()):
            self._end(found, "cancelled")

    def _end(self, found: Open, ending: Ending) -> None:
        if not found.ended.done():
            found.ended.set_result(ending)
        if self._open.get(found.device) is found:
            del self._open[found.device]

    def _find(self, question_id: str) -> Open:
        self._sweep()
        for found in self._open.values():
            if found.question.id == question_id:
                return found
        raise UnknownPrompt("That question was answered elsewhere, or is gone: run your command again.")

    def _sweep(self) -> None:
        boot = self._clock.boottime()
        for found in [each for each in self._open.values() if each.landing is None and boot >= each.deadline]:
            self._end(found, "expired")

    def _deadline(self) -> float:
        return self._clock.boottime() + self._timeout.total_seconds()
