"""The broker: flights, last good, refusals, questions; scenario ids are those of scenarios.md §4.4."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.engine import rig as world
from tests.engine.rig import Rig, chained, direct, plain, web_admin
from vaultd.engine.questions import Question
from vaultd.engine.seams import MintMfa, MintRole, MintServed, Note, Opened
from vaultd.errors import (
    CodeRefused,
    CodeSpent,
    DeviceRefused,
    DurationTooLong,
    IdentityBroken,
    Locked,
    MfaRequired,
    PolicyTooLarge,
    RoleDenied,
    SessionRejected,
    StsUnavailable,
    Throttled,
    TooManyAttempts,
    Unwritable,
    VaultdError,
)
from vaultd.model.credentials import MfaHandle, RoleSession
from vaultd.model.plan import Plan, Sourced
from vaultd.model.secret import Secret


@pytest.fixture
def rig() -> Rig:
    return Rig()


def down() -> StsUnavailable:
    return StsUnavailable("AWS cannot be reached: check the network.")


# ---- cold ----


async def test_a1_cold_one_question_one_of_each_call(rig: Rig) -> None:
    """A1: an SDK request opens the question and gets MfaRequired with it; answered, the session is served."""
    with pytest.raises(MfaRequired, match="vault-client mfa franklin") as caught:
        await rig.get(web_admin())
    assert rig.keeper.orders == []

    await rig.answer(caught.value.details["prompt"]["id"])
    session = await rig.get(web_admin())

    assert (rig.keeper.count(MintMfa), rig.keeper.count(MintRole)) == (1, 1)
    assert session.expiration == rig.clock.now() + timedelta(hours=1)
    assert rig.audit.names() == ["mfa.ask", "mfa.answer", "session.renew"]


async def test_a2_an_mfa_session_serves_every_role_of_its_device(rig: Rig) -> None:
    """A2: M is 10 min old: another role takes no question and one AssumeRole."""
    await rig.warm(web_admin())
    await rig.clock.advance(600)

    await rig.get(web_admin(role="Audit"))

    assert (rig.keeper.count(MintMfa), rig.keeper.count(MintRole)) == (1, 2)
    assert rig.desk.open_questions() == ()


async def test_200_cold_callers_of_five_profiles_on_one_device(rig: Rig) -> None:
    """The issue's number: 1 question, 1 GetSessionToken, 5 AssumeRole, and none of 200 fails."""

    async def caller(plan: Plan) -> RoleSession:
        while True:
            try:
                return await rig.get(plan)
            except MfaRequired as exc:
                endings.add(await rig.desk.wait(exc.details["prompt"]["id"]))

    endings: set[str] = set()
    plans = [web_admin(role=f"Role{n}") for n in range(5)]
    callers = [asyncio.ensure_future(caller(plans[n % 5])) for n in range(200)]
    await rig.clock.settle()
    assert len(rig.desk.open_questions()) == 1
    await rig.answer()
    served = await asyncio.gather(*callers)

    assert (rig.keeper.count(MintMfa), rig.keeper.count(MintRole)) == (1, 5)
    assert len({session.access_key_id for session in served}) == 5
    assert endings == {"answered"}
    assert rig.audit.names().count("mfa.ask") == 1


async def test_a_plan_that_waited_goes_on_by_itself(rig: Rig) -> None:
    """Answered, every waiting plan's session is made without another request."""
    for plan in (web_admin(), web_admin(role="Audit")):
        with pytest.raises(MfaRequired):
            await rig.get(plan)
    await rig.answer()

    assert rig.broker.peek(web_admin()) is not None
    assert rig.broker.peek(web_admin(role="Audit")) is not None


async def test_c1_more_than_an_hour_takes_the_code_directly(rig: Rig) -> None:
    """C1: the question's code goes to AssumeRole, from the identity key; no GetSessionToken."""
    session = await rig.warm(direct())

    order = rig.keeper.orders[0]
    assert len(rig.keeper.orders) == 1
    assert isinstance(order, MintRole)
    assert (order.source, order.mfa_serial, order.duration) == (None, world.SERIAL, timedelta(hours=2))
    assert session.lifetime == timedelta(hours=2)


async def test_two_uses_of_one_device_wait_for_each_other(rig: Rig) -> None:
    """A direct role and an MFA session never share a code: the second question comes after the first."""
    with pytest.raises(MfaRequired) as first:
        await rig.get(direct())
    with pytest.raises(MfaRequired) as second:
        await rig.get(web_admin())
    assert first.value.details["prompt"] == second.value.details["prompt"]
    await rig.answer()
    assert rig.keeper.count(MintMfa) == 0

    await rig.warm(web_admin())
    assert rig.keeper.count(MintMfa) == 1
    assert len(set(rig.keeper.codes)) == len(rig.keeper.codes) == 2


async def test_a_profile_without_role_serves_the_mfa_session(rig: Rig) -> None:
    """interface.md: MintServed, no AssumeRole; its renewal takes a new MFA session, not the old one again."""
    own = world.plan("franklin", world.mfa_step())
    session = await rig.warm(own)

    assert [type(order) for order in rig.keeper.orders] == [MintMfa, MintServed]
    await rig.clock.advance(session.lifetime.total_seconds() - 60 * 10)
    await rig.get(own)
    await rig.clock.settle()
    assert rig.keeper.count(MintServed) == 1
    assert len(rig.desk.open_questions()) == 1


async def test_a_profile_of_an_identity_without_mfa_renews_silently(rig: Rig) -> None:
    """GetSessionToken without a code, made anew when due."""
    own = world.plan("bare", world.mfa_step("bare", None))
    first = await rig.get(own)
    await rig.clock.advance(first.lifetime.total_seconds() - 1700)
    assert await rig.get(own) is first
    await rig.clock.settle()

    assert rig.keeper.count(MintMfa) == 2
    assert (await rig.get(own)).expiration > first.expiration


async def test_two_profiles_without_role_share_one_session(rig: Rig) -> None:
    """One flight per cell: both wait for the same GetSessionToken."""
    rig.keeper.gate = asyncio.Event()
    one, two = (world.mfa_step("bare", None) for _ in range(2))
    object.__setattr__(two, "fingerprint", "another-region-of-the-same-thing")
    callers = [asyncio.ensure_future(rig.get(world.plan("bare", step), wait=None)) for step in (one, two)]
    await rig.clock.settle()
    rig.keeper.gate.set()
    await asyncio.gather(*callers)

    assert (rig.keeper.count(MintMfa), rig.keeper.count(MintServed)) == (1, 2)


# ---- codes ----


async def test_a5_a_wrong_code_then_a_right_one(rig: Rig) -> None:
    """A5: no code goes twice; the question says what happened."""
    rig.keeper.wrong = {"000000"}
    with pytest.raises(MfaRequired):
        await rig.get(web_admin())
    with pytest.raises(CodeRefused) as caught:
        await rig.answer(code=Secret("000000"))
    assert caught.value.details["prompt"]["attempts_left"] == 2

    await rig.answer()

    assert rig.broker.peek(web_admin()) is not None
    assert len(set(rig.keeper.codes)) == len(rig.keeper.codes) == 2


async def test_a7_a_spent_code_costs_no_attempt(rig: Rig) -> None:
    """A7: the keeper refuses it, the question stays whole."""
    rig.keeper.spent = {(world.SERIAL, "123456")}
    with pytest.raises(MfaRequired):
        await rig.get(web_admin())
    with pytest.raises(CodeSpent):
        await rig.answer(code=Secret("123456"))

    assert rig.desk.open_questions()[0].attempts_left == 3


async def test_a9_silence_after_a_code_counts_it_as_spent(rig: Rig) -> None:
    """A9: that code goes once; the question waits for the next; no attempt is lost."""
    rig.keeper.outcomes[MintMfa] = [StsUnavailable("AWS answered 500.", code_sent=True)]
    with pytest.raises(MfaRequired):
        await rig.get(web_admin())
    with pytest.raises(StsUnavailable) as caught:
        await rig.answer()
    assert caught.value.message == ("AWS answered 500; the code counts as spent: wait for the next one and type that.")
    assert rig.desk.open_questions()[0].attempts_left == 3
    await rig.answer()

    assert rig.keeper.count(MintMfa) == 2
    assert len(set(rig.keeper.codes)) == 2
    assert rig.broker.peek(web_admin()) is not None


async def test_a10_a_clean_throttling_lets_the_same_code_go_again(rig: Rig) -> None:
    """A10: at most twice more, within one flight; one question."""
    rig.keeper.outcomes[MintMfa] = [Throttled("Rate exceeded."), Throttled("Rate exceeded.")]
    with pytest.raises(MfaRequired) as caught:
        await rig.get(web_admin())
    typist = asyncio.ensure_future(rig.desk.answer(caught.value.details["prompt"]["id"], rig.code(), by="tty"))
    await rig.clock.advance(5)
    await typist

    assert rig.keeper.count(MintMfa) == 3
    assert len(set(rig.keeper.codes)) == 1
    assert rig.audit.names().count("mfa.ask") == 1


async def test_a10_the_code_is_not_sent_a_fourth_time(rig: Rig) -> None:
    """Throttled three times: the code is done, the question waits for the next one."""
    rig.keeper.outcomes[MintMfa] = [Throttled("Rate exceeded.") for _ in range(3)]
    with pytest.raises(MfaRequired):
        await rig.get(web_admin())
    typist = asyncio.ensure_future(rig.answer())
    await rig.clock.advance(10)
    with pytest.raises(Throttled):
        await typist

    assert rig.keeper.count(MintMfa) == 3
    assert rig.desk.open_questions()[0].attempts_left == 3


async def test_a11_a_hanging_call_is_given_up_after_ten_seconds(rig: Rig) -> None:
    """A11: one attempt, other profiles keep serving meanwhile, and the late result is dropped."""
    await rig.warm(plain())
    rig.keeper.gate = asyncio.Event()
    with pytest.raises(MfaRequired):
        await rig.get(web_admin())
    typist = asyncio.ensure_future(rig.answer())
    await rig.clock.advance(9)
    assert not typist.done()
    assert (await rig.get(plain())).access_key_id
    await rig.clock.advance(1)

    with pytest.raises(StsUnavailable, match="next"):
        await typist
    assert rig.keeper.count(MintMfa) == 1


async def test_a13_a_cancelled_question_is_not_asked_again(rig: Rig) -> None:
    """A13: 100 requests a second for 60 s after a cancel: one question, fast errors that say what to type."""
    with pytest.raises(MfaRequired) as caught:
        await rig.get(web_admin())
    rig.desk.cancel(caught.value.details["prompt"]["id"])

    for _ in range(60):
        for _ in range(100):
            with pytest.raises(MfaRequired, match="vault-client mfa franklin") as refused:
                await rig.get(web_admin())
            assert "prompt" not in refused.value.details
        await rig.clock.advance(1)

    assert rig.audit.names().count("mfa.ask") == 1
    with pytest.raises(TooManyAttempts):
        await rig.get(web_admin(), wait=None)


async def test_a_given_code_is_sent_only_when_it_is_needed(rig: Rig) -> None:
    """interface.md §3: `--token-code` that turns out not to be needed is not sent; needed, it asks nobody."""
    await rig.broker.session(web_admin(), requester="tty", token_code=Secret("111111"))
    await rig.broker.session(web_admin(), requester="tty", token_code=Secret("222222"))

    assert rig.keeper.codes == ["111111"]
    assert rig.desk.open_questions() == ()


async def test_a_given_code_ends_a_cool_down_of_30_s(rig: Rig) -> None:
    """interface.md §3: and not a younger one."""
    with pytest.raises(MfaRequired):
        await rig.get(web_admin())
    rig.desk.cancel(rig.desk.open_questions()[0].id)
    with pytest.raises(TooManyAttempts):
        await rig.broker.session(web_admin(), requester="tty", token_code=rig.code())
    await rig.clock.advance(30)

    assert (await rig.broker.session(web_admin(), requester="tty", token_code=rig.code())).access_key_id


async def test_a_wrong_given_code_leaves_no_question_behind(rig: Rig) -> None:
    """Nobody is at a terminal: the question that it opened goes with it, without a cool-down."""
    rig.keeper.wrong = {"000000"}
    with pytest.raises(CodeRefused):
        await rig.broker.session(web_admin(), requester="tty", token_code=Secret("000000"))

    assert rig.desk.open_questions() == ()
    assert (await rig.broker.session(web_admin(), requester="tty", token_code=rig.code())).access_key_id


async def test_a_given_code_for_a_direct_role(rig: Rig) -> None:
    """C1 by `--token-code`: one call, and the session it made is the answer."""
    session = await rig.broker.session(direct(), requester="tty", token_code=rig.code())

    assert rig.broker.peek(direct()) is session
    assert len(rig.keeper.orders) == 1


async def test_a14_a_device_that_was_replaced_is_detected_once(rig: Rig) -> None:
    """A14: the question moves to the new device and asks for its code; then it works, plans unchanged."""
    rig.keeper.outcomes[MintMfa] = [DeviceRefused("unable to validate MFA code.")]
    rig.keeper.detected = ("arn:aws:iam::123456789012:mfa/phone2",)
    with pytest.raises(MfaRequired):
        await rig.get(web_admin())
    with pytest.raises(CodeRefused, match="phone2") as caught:
        await rig.answer()
    assert caught.value.details["prompt"]["mfa_serial"].endswith("phone2")
    assert caught.value.details["prompt"]["attempts_left"] == 3
    await rig.answer()

    assert rig.broker.peek(web_admin()) is not None
    assert rig.keeper.detections == 1
    last = rig.keeper.orders[1]
    assert isinstance(last, MintMfa)
    assert str(last.mfa_serial).endswith("phone2")


async def test_a14_a_device_without_successor_is_named(rig: Rig) -> None:
    """A14: no blind second question: the error names the serial and what to type, for a minute."""
    rig.keeper.outcomes[MintMfa] = [DeviceRefused("unable to validate MFA code.")]
    with pytest.raises(MfaRequired):
        await rig.get(web_admin())
    with pytest.raises(DeviceRefused, match="mfa/franklin as one of franklin: type"):
        await rig.answer()

    with pytest.raises(DeviceRefused, match="mfa/franklin"):
        await rig.get(web_admin())
    assert rig.desk.open_questions() == ()


async def test_d8_a_broken_key_is_never_a_reason_to_ask(rig: Rig) -> None:
    """D8, E8: one call, the reason, no question, for other profiles of that identity neither."""
    rig.keeper.always[MintRole] = IdentityBroken("The stored secret of franklin is wrong: type `vault-client add`.")
    with pytest.raises(IdentityBroken, match="secret"):
        await rig.get(plain())
    for plan in (plain(), web_admin(role="Audit")):
        with pytest.raises(IdentityBroken):
            await rig.get(plan)

    assert len(rig.keeper.orders) == 1
    assert rig.desk.open_questions() == ()
    rig.keeper.always.clear()
    rig.broker.forget_identity("franklin")
    assert (await rig.get(plain())).access_key_id


# ---- MFA age ----


async def test_b3_the_limit_is_learned_from_the_first_denial(rig: Rig) -> None:
    """B3, aws-facts §1.3.2: denied under an old M: one question, one retry, and the age is remembered."""
    rig.keeper.mfa_limits[world.arn("WebAdmin")] = timedelta(seconds=3600)
    await rig.warm(web_admin())
    await rig.clock.advance(3601)
    with pytest.raises(MfaRequired) as caught:
        await rig.get(web_admin())
    assert rig.keeper.count(MintRole) == 2
    await rig.answer(caught.value.details["prompt"]["id"])

    assert rig.broker.peek(web_admin()) is not None
    assert Note(kind="limit", cell=web_admin().last.fingerprint, seconds=3600) in rig.keeper.notes
    await rig.clock.advance(3550)  # so old is M: inside the margin of 60 s, so AWS is not tried
    calls = rig.keeper.count(MintRole)
    await rig.broker.clear(web_admin())
    with pytest.raises(MfaRequired):
        await rig.get(web_admin())
    assert rig.keeper.count(MintRole) == calls


async def test_b2_the_margin_keeps_a_denial_from_clients(rig: Rig) -> None:
    """B2: M is 3550 s old and the limit configured: no call that AWS would refuse."""
    plan = web_admin(mfa_max_age=timedelta(seconds=3600))
    rig.keeper.mfa_limits[world.arn("WebAdmin")] = timedelta(seconds=3600)
    await rig.warm(plan)
    await rig.clock.advance(3550)
    await rig.broker.clear(plan)

    with pytest.raises(MfaRequired):
        await rig.get(plan)
    assert rig.keeper.count(MintRole) == 1


async def test_b1_within_the_limit_a_renewal_is_silent(rig: Rig) -> None:
    """B1: M is 3400 s old, the session near its end: AssumeRole, no question."""
    plan = web_admin(mfa_max_age=timedelta(seconds=3600))
    rig.keeper.mfa_limits[world.arn("WebAdmin")] = timedelta(seconds=3600)
    first = await rig.warm(plan)
    await rig.clock.advance(3400)
    second = await rig.get(plan)  # nobody had asked since: it waits for the new one

    assert second is not first
    assert second.left(rig.clock.now()) == timedelta(hours=1)
    assert rig.desk.open_questions() == ()


async def test_a_denial_that_a_new_code_does_not_mend_is_the_original_one(rig: Rig) -> None:
    """§1.3.2: the first denial is surfaced, cached for 60 s, and no further code is asked for under that M."""
    await rig.warm(plain("Other"))
    with pytest.raises(MfaRequired):
        await rig.get(web_admin(role="Audit"))
    await rig.answer()
    await rig.clock.advance(120)
    rig.keeper.outcomes[MintRole] = [RoleDenied("first"), RoleDenied("second")]
    rig.keeper.always[MintRole] = RoleDenied("later")
    with pytest.raises(MfaRequired):
        await rig.get(web_admin())
    await rig.answer()

    with pytest.raises(RoleDenied, match="first"):
        await rig.get(web_admin())
    calls = rig.keeper.count(MintRole)
    await rig.clock.advance(59)
    with pytest.raises(RoleDenied, match="first"):
        await rig.get(web_admin())
    assert rig.keeper.count(MintRole) == calls
    for _ in range(5):
        await rig.clock.advance(61)
        with pytest.raises(RoleDenied, match="later"):
            await rig.get(web_admin())
    assert rig.desk.open_questions() == ()
    assert rig.keeper.count(MintMfa) == 2


async def test_a_denial_names_the_profile_to_explain(rig: Rig) -> None:
    """aws/ knows roles only; the remedy is one that can be typed."""
    await rig.warm(plain("Other"))
    rig.keeper.always[MintRole] = RoleDenied("AWS refused: sts:AssumeRole on x; run `vault-client explain PROFILE`")
    with pytest.raises((RoleDenied, MfaRequired)):
        await rig.get(plain())
    error = rig.broker.state(plain()).last_error

    assert error is not None
    assert "run `vault-client explain PROFILE`" not in error["message"]
    assert error["message"].endswith(f"run `vault-client explain {plain().profile}`")


async def test_a_denial_under_a_fresh_mfa_session_asks_nothing(rig: Rig) -> None:
    """Younger than 60 s: not about age. D12: its text is in `status`."""
    rig.keeper.always[MintRole] = RoleDenied("User is not authorized.")
    with pytest.raises(MfaRequired):
        await rig.get(web_admin())
    await rig.answer()
    with pytest.raises(RoleDenied, match="not authorized"):
        await rig.get(web_admin())

    assert rig.desk.open_questions() == ()
    state = rig.broker.state(web_admin())
    assert state.state == "error"
    assert state.last_error == {
        "code": "RoleDenied",
        "message": "User is not authorized.",
        "time": "2026-11-22T12:00:00Z",
    }


async def test_d6_a_dead_mfa_session_is_replaced(rig: Rig) -> None:
    """D6: M is dropped, one question, then the role opens; nothing is learned about ages."""
    await rig.warm(web_admin())
    await rig.clock.advance(3590)
    rig.keeper.outcomes[MintRole] = [SessionRejected("expired")]
    with pytest.raises(MfaRequired):
        await rig.get(web_admin())
    await rig.answer()

    assert rig.broker.peek(web_admin()) is not None
    assert rig.keeper.count(MintMfa) == 2
    assert [note for note in rig.keeper.notes if note.kind == "limit"] == []


# ---- durations, chains ----


async def test_c2_a_duration_above_the_roles_maximum_falls_back_once(rig: Rig) -> None:
    """C2: one fallback to 3600, remembered and said; at most two codes, and the next renewals take none."""
    plan = direct("WebAdmin", duration=timedelta(hours=12))
    rig.keeper.max_durations[world.arn("WebAdmin")] = timedelta(hours=1)
    with pytest.raises(MfaRequired):
        await rig.get(plan)
    with pytest.raises(MfaRequired, match="one hour") as again:
        await rig.answer()
    assert again.value.details["prompt"]["attempts_left"] == 3
    await rig.answer()

    session = await rig.get(plan)
    assert session.lifetime == timedelta(hours=1)
    assert len(rig.keeper.codes) == 2
    assert Note(kind="duration", cell=plan.last.fingerprint, seconds=3600) in rig.keeper.notes
    assert "3600 s at most" in rig.broker.state(plan).warnings[0]
    await rig.clock.advance(3601)
    assert (await rig.get(plan)).access_key_id
    assert len(rig.keeper.codes) == 2


async def test_a_cap_without_a_code_is_retried_at_once(rig: Rig) -> None:
    """Row 16 on the default path: one more call, in the same flight."""
    plan = world.plan("Plain", world.role_step("Plain", duration=timedelta(hours=2)))
    rig.keeper.max_durations[world.arn("Plain")] = timedelta(hours=1)

    assert (await rig.get(plan)).lifetime == timedelta(hours=1)
    assert rig.keeper.count(MintRole) == 2


async def test_c4_the_parent_is_renewed_first(rig: Rig) -> None:
    """C4: the child's renewal begins with its parent's, and the child is never served past its own Expiration."""
    first = await rig.warm(chained())
    assert rig.keeper.count(MintRole) == 2
    await rig.clock.advance(3300)
    assert await rig.get(chained()) is not first

    parent, child = rig.keeper.orders[-2:]
    assert isinstance(parent, MintRole)
    assert isinstance(child, MintRole)
    assert parent.role.role_arn == world.arn("WebAdmin")
    assert isinstance(child.source, RoleSession)
    assert child.source.left(rig.clock.now()) == timedelta(hours=1)
    rig.keeper.always[MintRole] = down()
    await rig.clock.advance(3600 - 14)
    assert rig.broker.peek(chained()) is None


async def test_a_child_goes_on_under_its_old_parent(rig: Rig) -> None:
    """The parent's renewal fails while the old one lives: the child is made from that."""
    await rig.warm(chained())
    await rig.broker.clear(world.plan("Chained", *chained().steps))
    await rig.clock.advance(2000)
    rig.keeper.outcomes[MintRole] = [RoleDenied("not now")]

    assert (await rig.get(chained(), wait=None)).access_key_id


async def test_a_rejected_parent_is_made_again_once(rig: Rig) -> None:
    """Row 9: the parent is dropped and renewed, the child tried once more."""
    await rig.warm(chained())
    await rig.broker.clear(world.plan("Chained", *chained().steps))
    rig.keeper.outcomes[MintRole] = [SessionRejected("dead")]

    assert (await rig.get(chained(), wait=None)).access_key_id
    assert rig.keeper.count(MintRole) == 2 + 3


# ---- failures ----


async def test_d1_two_failures_then_success(rig: Rig) -> None:
    """D1: 500, 500, ok: served, three calls."""
    rig.keeper.outcomes[MintRole] = [down(), down()]
    caller = asyncio.ensure_future(rig.get(plain(), wait=None))
    await rig.clock.advance(4)

    assert (await caller).access_key_id
    assert rig.keeper.count(MintRole) == 3


async def test_d3_nothing_left_and_aws_away(rig: Rig) -> None:
    """D3: the error comes in 0.8 s with AWS's reason, nothing stale, and does not push against the back-off."""
    rig.keeper.always[MintRole] = down()
    caller = asyncio.ensure_future(rig.get(plain()))
    await rig.clock.advance(0.8)
    with pytest.raises(StsUnavailable, match="check the network") as caught:
        await caller
    assert caught.value.details == {}, "a failure that is known is no reason to be held"
    await rig.clock.advance(4)
    calls = rig.keeper.count(MintRole)
    for _ in range(50):
        with pytest.raises(StsUnavailable, match="check the network"):
            await rig.get(plain())

    assert rig.keeper.count(MintRole) == calls == 3


async def test_a_slow_flight_is_not_waited_for(rig: Rig) -> None:
    """0.8 s, then 503; the flight goes on and its session is there for the next request."""
    rig.keeper.gate = asyncio.Event()
    caller = asyncio.ensure_future(rig.get(plain()))
    await rig.clock.advance(0.8)
    with pytest.raises(StsUnavailable, match="not done in time") as caught:
        await caller
    assert caught.value.details == {"under_way": True}, "a request may be held for it"
    rig.keeper.gate.set()
    await rig.clock.settle()

    assert (await rig.get(plain())).access_key_id
    assert rig.keeper.count(MintRole) == 1


async def test_d11_a_final_error_is_answered_from_memory(rig: Rig) -> None:
    """D11: the second request costs no call; a minute later AWS is asked again."""
    rig.keeper.always[MintRole] = PolicyTooLarge("Packed policy consumes 112 %: shorten it.")
    for _ in range(2):
        with pytest.raises(PolicyTooLarge, match="112 %"):
            await rig.get(plain())
    assert rig.keeper.count(MintRole) == 1
    await rig.clock.advance(60)
    with pytest.raises(PolicyTooLarge):
        await rig.get(plain())
    assert rig.keeper.count(MintRole) == 2


@pytest.mark.parametrize("error", [RoleDenied("gone"), down(), Throttled("Rate exceeded.")])
async def test_an_old_session_is_served_whatever_happens_to_its_renewal(rig: Rig, error: VaultdError) -> None:
    """interface.md §4: 200 until it ends, the reason in `status`; never with less than 15 s."""
    first = await rig.get(plain())
    rig.keeper.always[MintRole] = error
    await rig.clock.advance(3000)
    assert await rig.get_late(plain()) is first
    assert await rig.get(plain()) is first
    told = rig.broker.state(plain())
    assert (told.state, told.last_error and told.last_error["code"]) == ("due", error.code)
    await rig.clock.advance(585 - 0.8)
    assert rig.broker.peek(plain()) is first
    await rig.clock.advance(1)

    assert rig.broker.peek(plain()) is None


async def test_a_session_that_ended_before_it_came_is_no_session(rig: Rig) -> None:
    """Expiration in the past: never served, backed off, and the reason names the clock."""
    rig.keeper.role_lifetime = timedelta(seconds=-5)
    with pytest.raises(StsUnavailable, match="check the clock"):
        await rig.get(plain(), wait=None)

    assert rig.broker.peek(plain()) is None


async def test_a_leaving_client_does_not_cancel_the_flight(rig: Rig) -> None:
    """§8.3: a flight without waiters lands all the same; nobody else is hurt."""
    rig.keeper.gate = asyncio.Event()
    callers = [asyncio.ensure_future(rig.get(plain(), wait=None)) for _ in range(3)]
    await rig.clock.settle()
    for leaving in callers[:2]:
        await rig.gone(leaving)
    rig.keeper.gate.set()

    assert (await callers[2]).access_key_id
    assert rig.keeper.count(MintRole) == 1


async def test_a_note_that_cannot_be_written_fails_nobody(rig: Rig) -> None:
    """interface.md §1: disk full: sessions are made and served; `clear` alone says so, since it promised the disk."""
    rig.keeper.note_error = Unwritable("disk full: make room.")
    assert (await rig.get(plain())).access_key_id
    await rig.clock.settle()

    assert (await rig.get(plain())).access_key_id
    with pytest.raises(Unwritable):
        await rig.broker.clear(plain())
    assert rig.broker.peek(plain()) is None


async def test_a_session_is_noted_after_it_was_served(rig: Rig) -> None:
    """A disk that hangs holds up no request."""
    session = await rig.get(plain())
    assert rig.keeper.notes == []
    await rig.clock.settle()

    assert rig.keeper.notes == [Note(kind="session", cell=plain().last.fingerprint, session=session)]


# ---- refresh, clear, mfa ----


async def test_refresh_makes_a_new_last_step_and_no_new_mfa_session(rig: Rig) -> None:
    """interface.md §3: past refusals and back-off too."""
    first = await rig.warm(web_admin())
    rig.keeper.outcomes[MintRole] = [RoleDenied("once")]
    with pytest.raises(RoleDenied):
        await rig.broker.refresh(web_admin(), requester="tty")
    second = await rig.broker.refresh(web_admin(), requester="tty")

    assert second is not first
    assert rig.keeper.count(MintMfa) == 1


async def test_refresh_of_a_direct_role_takes_one_code(rig: Rig) -> None:
    """Asked, answered, repeated: the session that the answer made satisfies the repeated call; the next asks again."""
    await rig.warm(direct())
    with pytest.raises(MfaRequired):
        await rig.broker.refresh(direct(), requester="tty")
    await rig.answer()
    await rig.broker.refresh(direct(), requester="tty")

    assert len(rig.keeper.codes) == 2
    with pytest.raises(MfaRequired):
        await rig.broker.refresh(direct(), requester="tty")


async def test_clear_drops_a_profile_or_everything(rig: Rig) -> None:
    """`clear PROFILE`: its role sessions, M stays; `clear`: MFA sessions too; both from the disk."""
    await rig.warm(web_admin())
    await rig.get(web_admin(role="Audit"))
    await rig.clock.settle()
    rig.keeper.notes.clear()

    await rig.broker.clear(web_admin())
    assert rig.broker.peek(web_admin()) is None
    assert rig.broker.peek(web_admin(role="Audit")) is not None
    assert rig.keeper.notes == [Note(kind="drop", cell=web_admin().last.fingerprint)]
    assert (await rig.get(web_admin())).access_key_id

    await rig.broker.clear(None)
    assert Note(kind="drop_mfa", cell="franklin") in rig.keeper.notes
    with pytest.raises(MfaRequired):
        await rig.get(web_admin())


async def test_open_mfa_ahead_of_time(rig: Rig) -> None:
    """`vault-client mfa`: a question where a code would help, none while M opens every role that we know of."""
    plan = web_admin(mfa_max_age=timedelta(seconds=3600))

    async def mfa() -> object:
        return await rig.broker.open_mfa("franklin", world.SERIAL, world.ENDPOINT, requester="tty")

    assert isinstance(await mfa(), Question)
    await rig.answer()
    assert (await rig.get(plan)).access_key_id
    live = await mfa()
    assert isinstance(live, MfaHandle)
    assert live.expiration == rig.clock.now() + world.HALF_DAY
    await rig.clock.advance(3541)
    assert isinstance(await mfa(), Question)


async def test_open_mfa_asks_when_a_role_was_denied_under_the_living_session(rig: Rig) -> None:
    """M lives, but a role waits for a newer one: `vault-client mfa` is the way to mend it."""
    rig.keeper.mfa_limits[world.arn("WebAdmin")] = timedelta(seconds=3600)
    await rig.warm(web_admin(role="Audit"))
    await rig.clock.advance(5000)
    with pytest.raises(MfaRequired):
        await rig.get(web_admin())
    await rig.clock.advance(120)
    assert rig.desk.open_questions() == ()

    opened = await rig.broker.open_mfa("franklin", world.SERIAL, world.ENDPOINT, requester="tty")
    assert isinstance(opened, Question)


async def test_asks_false_opens_nothing(rig: Rig) -> None:
    """A caller that must not ask gets the error alone."""
    with pytest.raises(MfaRequired):
        await rig.broker.session(web_admin(), requester="status", asks=False)

    assert rig.desk.open_questions() == ()


# ---- lock, restart ----


async def test_lock_serves_nothing_and_drops_late_outcomes(rig: Rig) -> None:
    """Flow 6: one turn; a flight of the older epoch stores nothing, questions end, codes on their way land."""
    await rig.warm(plain())
    with pytest.raises(MfaRequired):
        await rig.get(web_admin())
    rig.keeper.gate = asyncio.Event()
    typist = asyncio.ensure_future(rig.answer())
    slow = asyncio.ensure_future(rig.get(plain("Slow"), wait=None))
    await rig.clock.settle()

    await rig.broker.lock()
    assert rig.broker.peek(plain()) is None
    assert rig.desk.open_questions() == ()
    assert rig.broker.state(plain()).state == "locked"
    rig.keeper.gate.set()
    await rig.clock.settle()
    for waiting in (typist, slow):
        with pytest.raises(Locked):
            await waiting

    rig.broker.restore(Opened(epoch=1, store="file", locked=False))
    assert rig.broker.peek(plain("Slow")) is None
    with pytest.raises(MfaRequired):
        await rig.get(web_admin())
    assert rig.keeper.count(MintMfa) == 1


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.parametrize("way", ["session", "refresh", "refresh of an answer"])
async def test_a_lock_between_landing_and_waiter_serves_nothing(rig: Rig, way: str, turns: int) -> None:
    """Whoever has no session in the turn of the lock gets none after it, in whichever turn it comes."""
    wanted, refreshes = plain(), way != "session"
    if way == "refresh of an answer":
        wanted = direct()
        with pytest.raises(MfaRequired) as caught:
            await rig.broker.refresh(wanted, requester="vault-client")
        rig.keeper.gate = asyncio.Event()
        typist = asyncio.ensure_future(rig.answer(caught.value.details["prompt"]["id"]))
        await rig.clock.settle()
        rig.broker._asking._answered[wanted.last.fingerprint] = rig.clock.boottime()
    rig.keeper.gate = rig.keeper.gate or asyncio.Event()
    call = rig.broker.refresh(wanted, requester="vault-client") if refreshes else rig.get(wanted, wait=None)
    waiter = asyncio.ensure_future(call)
    await rig.clock.settle()
    rig.keeper.gate.set()
    for _ in range(turns):
        await asyncio.sleep(0)

    served = waiter.done()
    await rig.broker.lock()
    await rig.clock.settle()

    if served:
        assert waiter.result().access_key_id
    else:
        with pytest.raises(Locked):
            await waiter
    assert turns or not served
    assert turns < 7 or served, "positive control: the turns reach from before to after"
    if way == "refresh of an answer":
        with contextlib.suppress(Locked):
            await typist


async def test_a_restart_asks_no_second_code(rig: Rig) -> None:
    """Handles, sessions and limits come back with `restore`; a served session costs no call."""
    await rig.warm(web_admin())
    await rig.clock.settle()
    handle = rig.broker._cells.handle("franklin", world.SERIAL)
    assert handle is not None
    reborn = Rig(clock=rig.clock)
    limit = Note(kind="limit", cell=web_admin(role="Audit").last.fingerprint, seconds=3600)
    reborn.broker.restore(
        Opened(epoch=3, store="file", locked=False, handles=(handle,), notes=(*rig.keeper.notes, limit))
    )

    assert (await reborn.get(web_admin())).access_key_id
    assert reborn.keeper.orders == []
    await rig.clock.advance(3545)
    with pytest.raises(MfaRequired):
        await reborn.get(web_admin(role="Audit"))
    assert reborn.keeper.orders == []


async def test_a_locked_start_serves_nothing(rig: Rig) -> None:
    """Locked until restored open; the message ends in what to type."""
    rig.broker.restore(Opened(epoch=1, store="file", locked=True, reason="locked"))

    with pytest.raises(Locked, match="vault-client unlock"):
        await rig.get(plain())


async def test_stop_lets_a_code_land(rig: Rig) -> None:
    """Flow 7: flights with a code have 10 s, others are cancelled."""
    with pytest.raises(MfaRequired):
        await rig.get(web_admin())
    rig.keeper.gate = asyncio.Event()
    typist = asyncio.ensure_future(rig.answer())
    slow = asyncio.ensure_future(rig.get(plain(), wait=None))
    await rig.clock.settle()
    stopping = asyncio.ensure_future(rig.broker.stop())
    await rig.clock.settle()
    assert not stopping.done()
    rig.keeper.gate.set()
    await stopping

    await typist
    with pytest.raises(Locked):
        await slow
    assert rig.broker._cells.handle("franklin", world.SERIAL) is not None


async def test_states_are_the_contracts_words(rig: Rig) -> None:
    """none, mfa_required, fresh, due, expired, in the life of one profile."""
    words = [rig.broker.state(web_admin()).state]
    with pytest.raises(MfaRequired):
        await rig.get(web_admin())
    words.append(rig.broker.state(web_admin()).state)
    await rig.answer()
    for seconds in (1, 1900, 1800):
        words.append(rig.broker.state(web_admin()).state)
        await rig.clock.advance(seconds)
    words.append(rig.broker.state(web_admin()).state)

    assert words == ["none", "mfa_required", "fresh", "fresh", "due", "expired"]
    row = rig.broker.state(web_admin()).wire()
    assert row == {"state": "expired", "expiration": None, "seconds_left": None, "last_error": None}


# ---- corners of a renewal ----


async def test_a_parent_that_cannot_be_made_is_the_childs_error(rig: Rig) -> None:
    """The reason is the parent's; while it backs off or is refused, the child costs no call."""
    await rig.warm(web_admin(role="Audit"))
    rig.keeper.always[MintRole] = RoleDenied("no WebAdmin for you")
    await rig.clock.advance(30)
    with pytest.raises(RoleDenied, match="no WebAdmin"):
        await rig.get(chained(), wait=None)
    calls = rig.keeper.count(MintRole)
    with pytest.raises(RoleDenied, match="no WebAdmin"):
        await rig.get(chained(), wait=None)

    assert rig.keeper.count(MintRole) == calls == 2


async def test_a_parent_whose_renewal_takes_a_code_still_opens_its_child(rig: Rig) -> None:
    """M is gone, the parent lives: the child is renewed from it, and nobody is asked."""
    await rig.warm(chained())
    await rig.broker.clear(world.plan("Chained", *chained().steps))
    rig.broker._cells.clear("mfa:franklin:" + world.SERIAL)
    await rig.clock.advance(2000)

    assert (await rig.get(chained())).access_key_id
    assert rig.desk.open_questions() == ()
    await rig.clock.advance(1700)
    with pytest.raises(MfaRequired):
        await rig.get(world.plan("Chained", *chained().steps[:2], world.role_step("Grandchild")))


@pytest.mark.parametrize(
    ("source", "told"),
    [("asked for", "leave out or lower --duration"), ("config:4", "lower its duration_seconds")],
)
async def test_too_long_names_what_asked_for_it(rig: Rig, source: str, told: str) -> None:
    """C2: who typed `--duration 2h` has no duration_seconds to lower, in the question and in the warning."""
    step = replace(world.role_step("WebAdmin", kind="direct", duration=timedelta(hours=2)), sources=(
        Sourced("duration", "7200s", source),
    ))  # fmt: skip
    plan = world.plan("WebAdmin", step)
    rig.keeper.max_durations[world.arn("WebAdmin")] = timedelta(hours=1)
    with pytest.raises(MfaRequired):
        await rig.get(plan)
    with pytest.raises(MfaRequired, match=rf"one hour at most for WebAdmin: {told} and give the next code\."):
        await rig.answer()
    await rig.answer()
    await rig.get(plan)

    assert rig.broker.state(plan).warnings[0].endswith(f"7200 s: {told}.")


async def test_too_long_for_a_chain_names_what_asked_for_it(rig: Rig) -> None:
    """aws/ does not know who asked for that length. Control: the config file did."""
    said = "a session of x lasts 3600 seconds at most; lower duration_seconds in the AWS config file"
    asked = replace(world.role_step("WebAdmin"), sources=(Sourced("duration", "3600s", "asked for, cut"),))
    for step, told in ((asked, "leave out or lower --duration"), (world.role_step("Audit"), said[-48:])):
        rig.keeper.always[MintRole] = DurationTooLong(said)
        with pytest.raises(DurationTooLong, match=told):
            await rig.get(world.plan(step.profile, step))


async def test_c1_a_direct_role_that_is_denied_is_tried_for_an_hour(rig: Rig) -> None:
    """aws-facts §1.2, conflict 1: the policy may not see the code of that very call; what worked is remembered."""
    rig.keeper.outcomes[MintRole] = [RoleDenied("not you")]
    with pytest.raises(MfaRequired):
        await rig.get(direct())
    with pytest.raises(MfaRequired, match="one hour"):
        await rig.answer()
    assert [note for note in rig.keeper.notes if note.kind == "duration"] == []
    assert rig.broker.state(direct()).warnings == ()
    await rig.answer()

    assert (await rig.get(direct())).lifetime == timedelta(hours=1)
    assert Note(kind="duration", cell=direct().last.fingerprint, seconds=3600) in rig.keeper.notes
    assert "3600 s at most" in rig.broker.state(direct()).warnings[0]


async def test_c1_an_hour_that_is_denied_too_was_not_the_way(rig: Rig) -> None:
    """The first denial is the answer, the question closes, and the next try asks for what is configured."""
    rig.keeper.outcomes[MintRole] = [RoleDenied("not you"), RoleDenied("nor so")]
    await _refused(rig.get(direct()))
    await _refused(rig.answer())
    await rig.answer()
    with pytest.raises(RoleDenied, match="not you"):
        await rig.get(direct())
    assert rig.desk.open_questions() == ()
    assert [note for note in rig.keeper.notes if note.kind == "duration"] == []

    await rig.clock.advance(61)
    assert (await rig.warm(direct())).lifetime == timedelta(hours=2)


async def test_c2_an_open_mfa_session_saves_the_second_code(rig: Rig) -> None:
    """The fallback to an hour takes the MFA session that is there."""
    await rig.warm(web_admin(role="Audit"))
    plan = direct("WebAdmin", duration=timedelta(hours=12))
    rig.keeper.max_durations[world.arn("WebAdmin")] = timedelta(hours=1)
    await _refused(rig.get(plan))
    await rig.answer()

    assert (await rig.get(plan)).lifetime == timedelta(hours=1)
    assert len(rig.keeper.codes) == 2
    assert rig.desk.open_questions() == ()


async def _refused(call: Coroutine[object, object, object]) -> None:
    with pytest.raises(VaultdError):
        await call


@pytest.mark.parametrize("error", [PolicyTooLarge("300 %"), IdentityBroken("key inactive")])
async def test_a_direct_role_that_is_denied_closes_its_question(rig: Rig, error: VaultdError) -> None:
    """Final: the typist hears it, and so does the next request, without a question."""
    rig.keeper.always[MintRole] = error
    with pytest.raises(MfaRequired):
        await rig.get(direct())
    with pytest.raises(type(error)):
        await rig.answer()
    with pytest.raises(type(error)):
        await rig.get(direct())

    assert len(rig.keeper.orders) == 1
    assert rig.desk.open_questions() == ()


async def test_a_direct_role_moves_to_the_new_device_too(rig: Rig) -> None:
    """A14 on the direct path."""
    rig.keeper.outcomes[MintRole] = [DeviceRefused("unable to validate MFA code.")]
    rig.keeper.detected = ("phone2",)
    with pytest.raises(MfaRequired):
        await rig.get(direct())
    with pytest.raises(CodeRefused):
        await rig.answer()
    await rig.answer()

    last = rig.keeper.orders[-1]
    assert isinstance(last, MintRole)
    assert last.mfa_serial == "phone2"


async def test_sessions_without_mfa_fail_and_recover(rig: Rig) -> None:
    """GetSessionToken fails: its reason; a rejected session is made anew on the next request."""
    own = world.plan("bare", world.mfa_step("bare", None))
    rig.keeper.outcomes[MintMfa] = [down()]
    with pytest.raises(StsUnavailable, match="check the network"):
        await rig.get(own, wait=None)
    rig.keeper.outcomes[MintServed] = [SessionRejected("dead")]

    assert (await rig.get(own, wait=None)).access_key_id
    assert rig.keeper.count(MintMfa) == 3


async def test_a_served_mfa_session_is_doubted_with_its_source(rig: Rig) -> None:
    """A profile without role serves the MFA session itself. Its source dropped, nobody knows whether AWS takes it still
    (aws-facts §6): served on, due at once, a code asked for once, and not believed anew by a restart. Roles live on.
    """
    own, role, other = world.plan("bare", world.mfa_step()), web_admin(), world.plan("o", world.mfa_step("other"))
    first, of_role, of_other = await rig.warm(own), await rig.warm(role), await rig.warm(other)
    rig.broker.sign_out("franklin")

    assert [await rig.get(each) for each in (own, role, other)] == [first, of_role, of_other]
    assert [rig.broker.state(each).state for each in (own, role, other)] == ["due", "fresh", "fresh"]
    (question,) = rig.desk.open_questions()
    assert question.profile == "bare"
    await rig.clock.settle()
    assert [note.cell for note in rig.keeper.notes if note.kind == "drop"] == [own.last.fingerprint]
    await rig.clock.advance(200)
    assert rig.desk.open_questions() == (), "control: unanswered, it has ended"
    assert await rig.get(own) is first
    assert rig.desk.open_questions() == (), "once"
    await rig.clock.advance((world.HALF_DAY - timedelta(minutes=10)).total_seconds() - 200)
    rig.broker.used(own)
    assert len(rig.desk.open_questions()) == 1, "and before its end, as always"
    await rig.answer()

    assert await rig.get(own) is not first
    assert rig.broker.state(own).state == "fresh"


async def test_a_served_session_without_mfa_is_made_anew_with_its_source(rig: Rig) -> None:
    """As above, where no code is needed: the first to ask begins the next one."""
    own = world.plan("bare", world.mfa_step("bare", None))
    first = await rig.get(own)
    rig.broker.sign_out("bare")
    assert await rig.get(own) is first
    await rig.clock.settle()

    assert await rig.get(own) is not first
    assert rig.broker.state(own).state == "fresh"


async def test_a_restored_copy_is_doubted_with_its_source(rig: Rig) -> None:
    """After a restart nobody has asked for it yet, so whose it is is not known."""
    own, now = world.plan("bare", world.mfa_step()), rig.clock.now()
    copy = rig.keeper.session(now, now + world.HALF_DAY)
    notes = (Note(kind="session", cell=own.last.fingerprint, session=copy),)
    rig.broker.restore(Opened(epoch=0, store="file", locked=False, notes=notes))
    rig.broker.sign_out("franklin")

    assert await rig.get(own) is copy
    assert rig.broker.state(own).state == "due"
    await rig.clock.settle()
    rig.keeper.notes.clear()
    rig.broker.restore(Opened(epoch=0, store="file", locked=False))
    await rig.clock.settle()
    assert [each.kind for each in rig.keeper.notes] == [], "a keeper that starts again is not given it"


async def test_what_lives_on_is_not_doubted(rig: Rig) -> None:
    """Copy and session of a handle that lives stay as they are; a copy that is doubted already is asked for once."""
    mine = MfaHandle("franklin", world.SERIAL, rig.clock.now(), rig.clock.now() + world.HALF_DAY)
    own, lost = world.plan("bare", world.mfa_step()), world.plan("lost", world.mfa_step("other"))
    of_mine = await rig.warm(own)
    await rig.clock.advance(1)
    of_lost = await rig.warm(lost)
    assert (of_mine.issued, of_mine.expiration) == (mine.issued, mine.expiration)
    for asked in (["lost"], []):
        rig.broker.sign_out("franklin", living=(mine,))
        rig.broker.sign_out("other", living=(mine,))
        assert [await rig.get(each) for each in (own, lost)] == [of_mine, of_lost]
        assert [each.profile for each in rig.desk.open_questions()] == asked
        await rig.clock.advance(200)

    assert [rig.broker.state(each).state for each in (own, lost)] == ["fresh", "due"]
    assert rig.broker.signed_in("franklin", world.SERIAL) == mine
    assert rig.broker.signed_in("other", world.SERIAL) is None


async def test_a_cleared_flight_is_started_again(rig: Rig) -> None:
    """`clear` under way: the waiter's flight is cancelled, and it gets a session made after the clear."""
    rig.keeper.gate = asyncio.Event()
    caller = asyncio.ensure_future(rig.get(plain(), wait=None))
    await rig.clock.settle()
    await rig.broker.clear(plain())
    rig.keeper.gate.set()

    assert (await caller).access_key_id
    assert rig.keeper.count(MintRole) == 2


async def test_an_unknown_exception_below_is_no_detail_to_the_caller(rig: Rig) -> None:
    """InternalError without detail; the flight is gone, and the next request makes another."""
    rig.keeper.outcomes[MintRole] = [ZeroDivisionError("canary")]  # type: ignore[list-item]
    with pytest.raises(VaultdError, match="vaultd logs") as caught:
        await rig.get(plain())
    assert "canary" not in caught.value.message

    assert (await rig.get(plain())).access_key_id
