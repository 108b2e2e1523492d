"""Questions over the control socket: who waits, who is counted, how codes are answered (interface.md §6, flow 3)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes import FakeClock
from tests.web.control import KEY_ID, SECRET, Answer, House, Line, Started, soon
from vaultd.errors import CodeRefused, StsUnavailable

LEASE = {"profile": "web-admin", "kind": "lease"}


def refused() -> CodeRefused:
    return CodeRefused("AWS refused the code: type the next one.")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def started(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Started]:
    async with House(tmp_path, clock=clock).run() as started:
        await started.add()
        yield started


async def asked(started: Started) -> str:
    """A command that needs a code: the id of its question."""
    answer = await started.call("POST", "/v1/grants", LEASE)
    assert answer.status == 409, answer
    found: str = answer.body["prompt"]["id"]
    return found


async def waiting(started: Started, line: Line, question: str, *, attend: bool = True) -> asyncio.Future[Answer]:
    """A terminal at a question, once the daemon has counted it."""
    desk = started.daemon.desk
    before = next(each.askers for each in desk._open.values())
    line.send("GET", f"/v1/prompts/{question}?wait{'&attend' if attend else ''}")
    answer = asyncio.ensure_future(line.answer())
    if attend:
        await soon(lambda: any(each.askers == before + 1 for each in desk._open.values()))
    else:
        await asyncio.sleep(0.02)
    return answer


async def test_a_second_terminals_answer_ends_the_first_ones_wait(started: Started) -> None:
    """First answer wins; the other screens are told `answered`."""
    question = await asked(started)
    async with Line(started) as first, Line(started) as second:
        one, two = await waiting(started, first, question), await waiting(started, second, question)
        assert await started.ok("POST", f"/v1/prompts/{question}", {"token_code": "123456"}) == {}
        assert ((await one).body, (await two).body) == ({"outcome": "answered"}, {"outcome": "answered"})
    assert (await started.refused("POST", f"/v1/prompts/{question}", {"token_code": "111111"}))[0] == 404


@pytest.mark.parametrize(("path", "reason"), [("/v1/lock", "locked"), ("/v1/stop", "stopped")])
async def test_a_lock_or_a_stop_is_told_as_such(started: Started, path: str, reason: str) -> None:
    """It reads as `cancelled`, whose next step would fail: `reason` says which step does not. A cancel has none."""
    question = await asked(started)
    async with Line(started) as line:
        wait = await waiting(started, line, question)
        await started.ok("POST", path)
        assert (await wait).body == {"outcome": "cancelled", "reason": reason}


async def test_an_explicit_cancel_starts_the_cool_down(started: Started) -> None:
    """DELETE ends every wait with `cancelled`, and a new question is refused for a while (403 TooManyAttempts)."""
    question = await asked(started)
    async with Line(started) as line:
        wait = await waiting(started, line, question)
        assert await started.ok("DELETE", f"/v1/prompts/{question}") == {}
        assert (await wait).body == {"outcome": "cancelled"}
    status, body = await started.refused("POST", "/v1/grants", LEASE)
    assert (status, body["code"], body["exit"], body["retry_after_seconds"]) == (403, "TooManyAttempts", 1, 120)
    assert body["message"] == (
        "The MFA question for identity was cancelled: wait 30 s, then type `vault-client mfa identity`."
    )


async def test_a_question_that_nobody_answers_expires(started: Started, clock: FakeClock) -> None:
    """200 {outcome: expired} after `[prompt] timeout`, with nobody counted too."""
    question = await asked(started)
    async with Line(started) as line:
        wait = await waiting(started, line, question, attend=False)
        await soon(lambda: clock.sleepers)
        await clock.advance(121)
        assert (await wait).body == {"outcome": "expired"}


async def test_the_last_terminal_that_leaves_closes_the_question_without_a_cool_down(started: Started) -> None:
    """A closed connection takes only itself; the last one closes the question, and a new one may open at once."""
    question = await asked(started)
    first, second = Line(started), Line(started)
    await first.__aenter__()
    await second.__aenter__()
    one, two = await waiting(started, first, question), await waiting(started, second, question)
    one.cancel()
    await first.close()
    await soon(lambda: [each.askers for each in started.daemon.desk._open.values()] == [1])
    two.cancel()
    await second.close()
    await soon(lambda: not started.daemon.desk.open_questions())

    assert await asked(started) != question


async def test_who_only_waits_is_no_asker(started: Started) -> None:
    """`?wait` without `attend` leaves the question as it is when it goes."""
    question = await asked(started)
    line = Line(started)
    await line.__aenter__()
    wait = await waiting(started, line, question, attend=False)
    wait.cancel()
    await line.close()
    await asyncio.sleep(0.02)

    assert [each.id for each in started.daemon.desk.open_questions()] == [question]


async def leave(started: Started, question: str) -> None:
    assert await started.ok("DELETE", f"/v1/prompts/{question}?leave") == {}


async def test_a_caller_with_nobody_to_ask_closes_the_question_that_it_opened(started: Started) -> None:
    """The 409 tells whether this call opened the question; to leave it is no cancel: another one may open at once."""
    first = await started.call("POST", "/v1/grants", LEASE)
    again = await started.call("POST", "/v1/grants", LEASE)
    found = await started.call("POST", "/v1/prompts", {})
    assert found.body["opened"] is False
    assert [each.body["opened"] for each in (first, again)] == [True, False]
    question = first.body["prompt"]["id"]

    async with Line(started) as line:
        await waiting(started, line, question)
        await leave(started, question)
        assert started.daemon.desk.question(question).id == question, "somebody is at it"
    await soon(lambda: not started.daemon.desk.open_questions())

    opened = await started.call("POST", "/v1/prompts", {})
    assert opened.body["opened"] is True
    await leave(started, opened.body["id"])
    assert started.daemon.desk.open_questions() == ()
    assert await asked(started)


async def test_the_question_of_a_caller_who_left_before_he_was_told_is_closed(started: Started) -> None:
    """Ctrl-C while the key is proved to AWS: nobody knows of that question. Control: who waits for the answer does."""
    sts = started.house.sts
    sts.hold()
    line = Line(started)
    await line.__aenter__()
    before = sts.counts()["caller_identity"]
    line.send("POST", "/v1/grants", json.dumps(LEASE).encode())
    await soon(lambda: sts.counts()["caller_identity"] > before)
    await line.close()
    await asyncio.sleep(0.02)
    sts.release()
    await soon(lambda: started.house.events("mfa.ask"))

    await soon(lambda: not started.daemon.desk.open_questions())
    assert await asked(started)
    assert len(started.daemon.desk.open_questions()) == 1


async def test_codes_by_their_outcomes(started: Started, clock: FakeClock) -> None:
    """interface.md §6: 400 InvalidCode (nothing sent), 409 MfaRequired one attempt less, 409 CodeSpent, 200 {}."""
    question = await asked(started)
    path = f"/v1/prompts/{question}"
    status, body = await started.refused("POST", path, {"token_code": "12345x"})
    assert (status, body["code"], body["exit"]) == (400, "InvalidCode", 1)
    assert started.house.sts.counts()["session_token"] == 0

    started.house.sts.fail("session_token", refused())
    status, body = await started.refused("POST", path, {"token_code": "111111"})
    assert (status, body["code"], body["exit"]) == (409, "MfaRequired", 1)
    assert (body["prompt"]["id"], body["prompt"]["attempts_left"]) == (question, 2)

    status, body = await started.refused("POST", path, {"token_code": "111111"})
    assert (status, body["code"], body["exit"]) == (409, "CodeSpent", 1)
    assert body["retry_after_seconds"] > 0
    assert started.house.sts.counts()["session_token"] == 1

    assert await started.ok("POST", path, {"token_code": "222222"}) == {}
    answers = [(each["decision"], each["identity"]) for each in started.house.events("mfa.answer")]
    assert answers == [("refused", "identity"), ("refused", "identity"), ("accepted", "identity")]


async def test_three_refused_codes_are_enough(started: Started) -> None:
    """403 TooManyAttempts {retry_after_seconds}; the question is gone."""
    question = await asked(started)
    started.house.sts.fail("session_token", refused(), refused(), refused())
    for code in ("111111", "222222"):
        assert (await started.refused("POST", f"/v1/prompts/{question}", {"token_code": code}))[0] == 409
    status, body = await started.refused("POST", f"/v1/prompts/{question}", {"token_code": "333333"})
    assert (status, body["code"]) == (403, "TooManyAttempts")
    assert body["retry_after_seconds"] == 120
    assert started.daemon.desk.open_questions() == ()


async def test_aws_away_is_temporary(started: Started) -> None:
    """503 and exit 75; the code counts as spent and the question stays."""
    question = await asked(started)
    started.house.sts.fail("session_token", StsUnavailable("STS cannot be reached: try again.", code_sent=True))
    status, body = await started.refused("POST", f"/v1/prompts/{question}", {"token_code": "111111"})

    assert (status, body["code"], body["exit"]) == (503, "StsUnavailable", 75)
    assert [each.id for each in started.daemon.desk.open_questions()] == [question]


# ---- --token-code ----


@pytest.mark.parametrize("path", ["/v1/grants", "/v1/profiles/web-admin/refresh"])
async def test_a_code_that_comes_along_is_used_once(started: Started, path: str) -> None:
    """interface.md §3: a wrong --token-code is 409 with exit 1 and leaves no question; one not needed is not sent."""
    body = LEASE if path == "/v1/grants" else {}
    started.house.sts.fail("session_token", refused())
    status, told = await started.refused("POST", path, {**body, "token_code": "111111"})
    assert (status, told["code"], told["exit"]) == (409, "MfaRequired", 1)
    assert started.daemon.desk.open_questions() == ()

    assert (await started.call("POST", path, {**body, "token_code": "222222"})).status in {200, 201}
    assert (await started.call("POST", path, {**body, "token_code": "333333"})).status in {200, 201}
    assert [call.code for call in started.house.sts.calls if call.operation == "session_token"] == ["111111", "222222"]


async def test_a_code_given_unasked_ends_a_cool_down_of_30_s(started: Started, clock: FakeClock) -> None:
    """interface.md §3; before that it is refused and not sent."""
    question = await asked(started)
    await started.ok("DELETE", f"/v1/prompts/{question}")
    await clock.advance(29)
    assert (await started.refused("POST", "/v1/grants", {**LEASE, "token_code": "111111"}))[1]["code"] == (
        "TooManyAttempts"
    )
    assert (await started.refused("POST", "/v1/prompts", {"token_code": "111111"}))[1]["code"] == "TooManyAttempts"
    assert started.house.sts.counts()["session_token"] == 0
    await clock.advance(1)
    assert (await started.call("POST", "/v1/grants", {**LEASE, "token_code": "111111"})).status == 201


# ---- vault-client mfa ----


async def test_mfa_opens_a_session_ahead_of_time(started: Started) -> None:
    """201 with the question; its code opens the session; then 200 with the session's end, and nothing is asked."""
    opened = await started.call("POST", "/v1/prompts", {"identity": "identity"})
    assert (opened.status, opened.body["identity"]) == (201, "identity")
    assert (await started.call("POST", "/v1/prompts", {})).body["id"] == opened.body["id"]
    await started.ok("POST", f"/v1/prompts/{opened.body['id']}", {"token_code": "123456"})

    live = {"live": True, "expiration": "2026-11-23T00:00:00Z"}
    assert (await started.call("POST", "/v1/prompts", {"identity": "identity"})).body == live
    assert (await started.ok("POST", "/v1/prompts", {"token_code": "654321"})) == live
    assert started.house.sts.counts()["session_token"] == 1


async def test_a_wrong_code_of_mfa_leaves_no_question_of_its_own(started: Started) -> None:
    """The question that `mfa --token-code` opened goes with it; one that others wait at stays."""
    started.house.sts.fail("session_token", refused(), refused())
    assert (await started.refused("POST", "/v1/prompts", {"token_code": "111111"}))[1]["exit"] == 1
    assert started.daemon.desk.open_questions() == ()

    question = await asked(started)
    assert (await started.refused("POST", "/v1/prompts", {"token_code": "222222"}))[0] == 409
    assert [each.id for each in started.daemon.desk.open_questions()] == [question]


async def test_mfa_answers_the_oldest_pending_question(started: Started) -> None:
    """Without a name: the oldest; with one: that identity's."""
    started.house.profiles(
        started.house.aws_config.read_text()
        + "[profile other]\nsource_profile = second\nrole_arn = arn:aws:iam::234567890123:role/Other\n"
        "mfa_serial = arn:aws:iam::123456789012:mfa/second\n"
    )
    await started.add("second")
    first = await asked(started)
    second = (await started.call("POST", "/v1/grants", {"profile": "other", "kind": "lease"})).body["prompt"]["id"]

    assert (await started.call("POST", "/v1/prompts", {})).body["id"] == first
    assert (await started.call("POST", "/v1/prompts", {"identity": "second"})).body["id"] == second


async def test_several_identities_and_none_pending_is_usage(started: Started) -> None:
    """Exit 2, naming them."""
    await started.add("second")
    status, body = await started.refused("POST", "/v1/prompts", {})

    assert (status, body["code"], body["exit"]) == (400, "BadRequest", 2)
    assert body["message"] == "no question is open; type `vault-client mfa` and one of: identity, second"


async def test_an_identity_without_device_is_told_so(tmp_path: Path, clock: FakeClock) -> None:
    """No device that vaultd knows: the sentence says what to do."""
    house = House(tmp_path, clock=clock)
    house.iam.serials = ()
    house.profiles("[profile plain]\nsource_profile = identity\nrole_arn = arn:aws:iam::234567890123:role/A\n")
    async with house.run() as started:
        await started.add()
        _, body = await started.refused("POST", "/v1/prompts", {})
    assert body["message"] == (
        "identity identity has no MFA device that vaultd knows: register one with AWS, then type "
        "`vault-client add identity --replace`"
    )


async def test_no_identity_is_told_so(tmp_path: Path, clock: FakeClock) -> None:
    """The first step of the tutorial, for who skipped it."""
    async with House(tmp_path, clock=clock).run() as started:
        status, body = await started.refused("POST", "/v1/prompts", {})
    assert (status, body["message"]) == (404, "no identity is stored: type `vault-client add IDENTITY`")


async def test_a_crowd_at_one_question_is_answered_whole(started: Started) -> None:
    """More terminals than the socket has places: all wait, one code answers all, none is turned away."""
    question = await asked(started)
    lines = [Line(started) for _ in range(40)]
    for line in lines:
        await line.__aenter__()
        line.send("GET", f"/v1/prompts/{question}?wait&attend")
    await soon(lambda: [each.askers for each in started.daemon.desk._open.values()] == [40])
    await started.ok("POST", f"/v1/prompts/{question}", {"token_code": "123456"})
    answers = [await line.answer() for line in lines]
    for line in lines:
        await line.close()
    assert {each.body["outcome"] for each in answers} == {"answered"}


async def test_identities_are_added_replaced_and_removed_with_their_lines(started: Started) -> None:
    """identity.add and identity.remove: identity, account, last 4 of the key, and who did it."""
    body = {"name": "identity", "AccessKeyId": KEY_ID, "SecretAccessKey": SECRET, "replace": True}
    assert (await started.call("POST", "/v1/identities", body)).status == 201
    assert await started.ok("DELETE", "/v1/identities/identity") == {}
    lines = [each for each in started.house.audit() if each["event"].startswith("identity.")]

    assert [each["event"] for each in lines] == ["identity.add", "identity.add", "identity.remove"]
    assert {(each["identity"], each["account_id"], each["access_key_id"]) for each in lines} == {
        ("identity", "123456789012", "0001")
    }
    assert all(each["peer"]["pid"] for each in lines)
