"""The desk: one question per device, askers, attempts, cool-downs."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tests.fakes import FakeClock
from vaultd.engine.desk import Desk
from vaultd.engine.questions import OnCode, Question, Verdict
from vaultd.errors import (
    CodeRefused,
    InvalidCode,
    RoleDenied,
    StsUnavailable,
    TooManyAttempts,
    UnknownPrompt,
)
from vaultd.model.secret import Secret

SERIAL = "arn:aws:iam::123456789012:mfa/franklin"
GOOD = Secret("123456")


class Callback:
    """The broker's side of a question: gives the verdicts in order, then takes every code."""

    def __init__(self, *verdicts: Verdict) -> None:
        self.verdicts = list(verdicts)
        self.codes: list[str] = []
        self.gate: asyncio.Event | None = None

    async def __call__(self, question: Question, code: Secret, by: str) -> Verdict:
        self.codes.append(code.reveal())
        if self.gate is not None:
            await self.gate.wait()
        return self.verdicts.pop(0) if self.verdicts else Verdict()


def refused() -> Verdict:
    return Verdict(error=CodeRefused("AWS refused the code: type the next one."), again=True, counted=True)


@pytest.fixture
def desk(clock: FakeClock) -> Desk:
    return Desk(clock=clock, timeout=timedelta(seconds=120), cancel_cooldown=timedelta(seconds=120))


def ask(desk: Desk, on_code: OnCode, *, serial: str = SERIAL, purpose: str = "mfa", stays: bool = False) -> Question:
    return desk.ask(
        identity="franklin",
        mfa_serial=serial,
        profile="web-admin",
        requester="aws (pid 7)",
        purpose=purpose,
        on_code=on_code,
        stays=stays,
    )


async def test_one_open_question_per_device(desk: Desk) -> None:
    """Whoever asks joins the open question of that device, whatever it is for; another device has its own."""
    first = ask(desk, Callback())

    assert ask(desk, Callback()) == first
    assert ask(desk, Callback(), purpose="role x") == first
    assert ask(desk, Callback(), serial="other").id != first.id
    assert len(desk.open_questions()) == 2


async def test_the_wire_form_is_fit_for_a_terminal(desk: Desk) -> None:
    """Strings of the wire form went through shown(): a hostile profile name cannot move the cursor."""
    question = desk.ask(
        identity="a\x1b[2J",
        mfa_serial=SERIAL,
        profile="p\u202e",
        requester="r\n",
        purpose="mfa",
        on_code=Callback(),
    )
    wire = question.wire()

    assert (wire["identity"], wire["profile"], wire["requester"]) == ("a?[2J", "p?", "r?")
    assert wire["expires_at"] == "2026-11-22T12:02:00Z"
    assert wire["attempts_left"] == 3


@pytest.mark.parametrize("typed", ["12345", "1234567", "12a456", "١٢٣٤٥٦", "correct horse"])
async def test_a_code_of_the_wrong_shape_is_not_sent(desk: Desk, typed: str) -> None:
    """A12: refused locally, the question stays, nothing reaches the keeper."""
    callback = Callback()
    question = ask(desk, callback)

    with pytest.raises(InvalidCode, match="six digits"):
        await desk.answer(question.id, Secret(typed), by="tty")

    assert callback.codes == []
    assert desk.question(question.id).attempts_left == 3


async def test_blanks_in_a_code_are_left_out(desk: Desk) -> None:
    """A12: ` 123 456 ` is normalised."""
    callback = Callback()

    await desk.answer(ask(desk, callback).id, Secret(" 123 456 "), by="tty")

    assert callback.codes == ["123456"]
    assert desk.open_questions() == ()


async def test_a_refused_code_costs_an_attempt_and_keeps_the_question(desk: Desk) -> None:
    """A5: the error carries the prompt with one attempt less; the next code is taken."""
    question = ask(desk, Callback(refused()))

    with pytest.raises(CodeRefused) as caught:
        await desk.answer(question.id, GOOD, by="tty")

    assert caught.value.details["attempts_left"] == 2
    assert caught.value.details["prompt"]["id"] == question.id
    await desk.answer(question.id, GOOD, by="tty")
    assert desk.open_questions() == ()


async def test_three_refused_codes_start_a_cool_down(desk: Desk, clock: FakeClock) -> None:
    """A6: the third refusal ends the question; asking again is refused at once, until 120 s have passed."""
    callback = Callback(refused(), refused(), refused())
    question = ask(desk, callback)
    for _ in range(2):
        with pytest.raises(CodeRefused):
            await desk.answer(question.id, GOOD, by="tty")
    with pytest.raises(TooManyAttempts) as caught:
        await desk.answer(question.id, GOOD, by="tty")

    assert caught.value.details["retry_after_seconds"] == 120
    with pytest.raises(TooManyAttempts):
        ask(desk, callback)
    assert len(callback.codes) == 3
    await clock.advance(120)
    assert ask(desk, callback).attempts_left == 3


async def test_a_spent_code_is_no_wrong_code(desk: Desk) -> None:
    """A9: AWS was silent after the code: the question stays, says so, and no attempt is lost."""
    silent = Verdict(error=StsUnavailable("Silence. Wait for the next code.", code_sent=True), again=True)
    question = ask(desk, Callback(silent))

    with pytest.raises(StsUnavailable):
        await desk.answer(question.id, GOOD, by="tty")

    assert desk.question(question.id).attempts_left == 3
    assert "next code" in desk.question(question.id).note


async def test_a_final_error_closes_the_question_without_a_cool_down(desk: Desk) -> None:
    """What no code mends ends the question; those who wait come back and hear the reason."""
    question = ask(desk, Callback(Verdict(error=RoleDenied("no"))))
    waiting = asyncio.ensure_future(desk.wait(question.id))
    await asyncio.sleep(0)

    with pytest.raises(RoleDenied):
        await desk.answer(question.id, GOOD, by="tty")

    assert await waiting == "answered"
    assert ask(desk, Callback()).id != question.id


async def test_the_first_answer_wins(desk: Desk, clock: FakeClock) -> None:
    """A second answer waits for the first; once that is taken, the question is gone and nothing more is sent."""
    callback = Callback()
    callback.gate = asyncio.Event()
    question = ask(desk, callback)
    first = asyncio.ensure_future(desk.answer(question.id, GOOD, by="one"))
    second = asyncio.ensure_future(desk.answer(question.id, Secret("654321"), by="two"))
    await clock.settle()
    callback.gate.set()

    await first
    with pytest.raises(UnknownPrompt):
        await second
    assert callback.codes == ["123456"]


async def test_the_second_answer_goes_when_the_first_was_refused(desk: Desk, clock: FakeClock) -> None:
    """The first was wrong: the second is tried."""
    callback = Callback(refused())
    callback.gate = asyncio.Event()
    question = ask(desk, callback)
    first = asyncio.ensure_future(desk.answer(question.id, GOOD, by="one"))
    second = asyncio.ensure_future(desk.answer(question.id, Secret("654321"), by="two"))
    await clock.settle()
    callback.gate.set()
    await asyncio.wait({first, second})

    assert isinstance(first.exception(), CodeRefused)
    assert second.exception() is None
    assert callback.codes == ["123456", "654321"]


async def test_a_code_lands_though_its_typist_leaves(desk: Desk, clock: FakeClock) -> None:
    """§8.5: the client is cancelled while AWS looks at the code: the answer counts all the same."""
    callback = Callback()
    callback.gate = asyncio.Event()
    question = ask(desk, callback)
    waiting = asyncio.ensure_future(desk.wait(question.id))
    typist = asyncio.ensure_future(desk.answer(question.id, GOOD, by="tty"))
    await clock.settle()
    typist.cancel()
    await clock.settle()
    callback.gate.set()

    assert await waiting == "answered"


async def test_an_asker_who_leaves_takes_only_himself(desk: Desk) -> None:
    """The last of the askers closes the question, without a cool-down."""
    question = ask(desk, Callback())
    one, two = desk.attend(question.id), desk.attend(question.id)

    one.leave()
    one.leave()
    assert desk.question(question.id) == question
    two.leave()

    with pytest.raises(UnknownPrompt):
        desk.question(question.id)
    assert ask(desk, Callback()).id != question.id


async def test_a_question_of_an_sdk_outlives_its_askers(desk: Desk, clock: FakeClock) -> None:
    """SDK requests are not askers: what they opened lives to its time-out."""
    question = ask(desk, Callback(), stays=True)
    desk.attend(question.id).leave()
    waiting = asyncio.ensure_future(desk.wait(question.id))

    await clock.advance(119)
    assert desk.open_questions() == (question,)
    await clock.advance(1)

    assert await waiting == "expired"
    assert ask(desk, Callback()).id != question.id


async def test_only_a_cancel_starts_the_cool_down(desk: Desk, clock: FakeClock) -> None:
    """After an explicit cancel nobody is asked for 120 s; the error says what to type, and when that works: the one
    duration that the cancelled command was told, too (30 s), not the 120 s after which whoever comes is asked.
    """
    question = ask(desk, Callback())
    waiting = asyncio.ensure_future(desk.wait(question.id))
    await clock.settle()
    desk.cancel(question.id)

    assert await waiting == "cancelled"
    with pytest.raises(TooManyAttempts, match=r"cancelled: wait 30 s, then type `vault-client mfa franklin`\.$"):
        ask(desk, Callback())
    await clock.advance(29)
    with pytest.raises(TooManyAttempts, match=r"cancelled: wait 1 s, then type `vault-client mfa franklin`\.$"):
        ask(desk, Callback())
    await clock.advance(90)
    with pytest.raises(TooManyAttempts, match=r"cancelled: type `vault-client mfa franklin`\.$"):
        ask(desk, Callback())
    await clock.advance(1)
    ask(desk, Callback())


async def test_a_code_given_unasked_ends_a_cool_down_that_is_30_s_old(desk: Desk, clock: FakeClock) -> None:
    """interface.md §3: not before."""
    desk.cancel(ask(desk, Callback()).id)
    await clock.advance(29)
    desk.thaw("franklin", SERIAL)
    with pytest.raises(TooManyAttempts):
        ask(desk, Callback())

    await clock.advance(1)
    desk.thaw("franklin", SERIAL)

    ask(desk, Callback())


async def test_the_keepers_limit_is_a_cool_down(desk: Desk, clock: FakeClock) -> None:
    """interface.md §3: at most 6 codes in 10 min, which the keeper counts; until then nobody is asked."""
    limit = TooManyAttempts("6 codes were sent; wait 421 s, then run `vault-client mfa`", retry_after_seconds=421)
    question = ask(desk, Callback(Verdict(error=limit)))
    with pytest.raises(TooManyAttempts):
        await desk.answer(question.id, GOOD, by="tty")

    assert desk.open_questions() == ()
    await clock.advance(420)
    with pytest.raises(TooManyAttempts) as cooling:
        ask(desk, Callback())
    assert cooling.value.message == (
        "6 codes were sent: wait 1 s, then type `vault-client mfa franklin`."  # one next step, not two
    )
    await clock.advance(1)
    ask(desk, Callback())


async def test_a_lock_ends_every_question(desk: Desk, clock: FakeClock) -> None:
    """Waiters are told; a code that is on its way lands without a question."""
    callback = Callback()
    callback.gate = asyncio.Event()
    question = ask(desk, callback)
    waiting = asyncio.ensure_future(desk.wait(question.id))
    typist = asyncio.ensure_future(desk.answer(question.id, GOOD, by="tty"))
    await clock.settle()

    desk.lock()
    assert desk.open_questions() == ()
    callback.gate.set()
    await typist

    assert await waiting == "cancelled"


async def test_a_question_moves_to_the_device_that_replaced_its_own(desk: Desk) -> None:
    """Row 3: the same question goes on under the other serial, and asks for a fresh code."""
    moved = Verdict(error=CodeRefused("moved: type its next code."), again=True, mfa_serial="new")
    question = ask(desk, Callback(moved))

    with pytest.raises(CodeRefused) as caught:
        await desk.answer(question.id, GOOD, by="tty")

    assert caught.value.details["prompt"]["mfa_serial"] == "new"
    assert desk.pending("franklin", SERIAL) is None
    found = desk.pending("franklin", "new")
    assert found is not None
    assert found.id == question.id


async def test_a_broken_callback_does_not_wedge_the_question(desk: Desk) -> None:
    """An unknown exception below is an error to the typist; the question is over, not stuck."""

    async def broken(question: Question, code: Secret, by: str) -> Verdict:
        raise ZeroDivisionError

    question = ask(desk, broken)
    with pytest.raises(Exception, match="vaultd logs"):
        await desk.answer(question.id, GOOD, by="tty")

    assert desk.open_questions() == ()


async def test_attended_is_what_a_person_can_see(desk: Desk) -> None:
    """An asker is at it, or its code is on its way; a question that is open and unseen, or gone, is not attended."""
    on_code = Callback()
    question = ask(desk, on_code, stays=True)
    assert not desk.attended(question.id)
    first, second = desk.attend(question.id), desk.attend(question.id)
    first.leave()
    assert desk.attended(question.id)
    second.leave()
    assert not desk.attended(question.id)

    on_code.gate = asyncio.Event()
    answering = asyncio.ensure_future(desk.answer(question.id, GOOD, by="franklin"))
    await asyncio.sleep(0)
    assert desk.attended(question.id)
    on_code.gate.set()
    await answering
    assert not desk.attended(question.id)
    assert not desk.attended("no such question")


@pytest.mark.parametrize("ending", ["answered", "cancelled", "expired"])
async def test_a_hundred_wait_for_one_ending(ending: str, desk: Desk, clock: FakeClock) -> None:
    """All of them hear it in the same moment, whoever of them leaves before; no sleeper stays behind."""
    question = ask(desk, Callback(), stays=True)
    waiting = [asyncio.ensure_future(desk.wait(question.id)) for _ in range(100)]
    await clock.settle()
    for leaves in waiting[:10]:
        leaves.cancel()
    await clock.advance(119)
    assert not any(each.done() for each in waiting[10:])

    match ending:
        case "answered":
            await desk.answer(question.id, GOOD, by="franklin")
        case "cancelled":
            desk.cancel(question.id)
        case _:
            await clock.advance(1)
    await clock.settle()

    assert [each.result() for each in waiting[10:]] == [ending] * 90
    assert clock.sleepers == 0
