"""POST /v1/identities/{name}/rotate: a step a call, the question where IAM wants a code, and what is told of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FakeClock
from tests.web.control import KEY_ID, House, Started
from vaultd.errors import CodeRefused, IdentityBroken

ROUTE = "/v1/identities/identity/rotate"


@pytest.fixture
async def started(tmp_path: Path) -> AsyncIterator[Started]:
    clock = FakeClock()
    house = House(tmp_path, clock=clock)
    house.iam.now = clock.now
    house.iam.table = {KEY_ID: (True, clock.now() - timedelta(days=100))}
    async with house.run() as running:
        yield running


async def steps(started: Started, **more: object) -> list[dict[str, Any]]:
    """Until it is done."""
    done = [await started.ok("POST", ROUTE, more)]
    while not done[-1]["done"]:
        done.append(await started.ok("POST", ROUTE, more))
    return done


async def asked(started: Started, step: asyncio.Future[dict[str, Any]], call: tuple[str, str]) -> None:
    """Until IAM holds that call of a step under way."""
    while call not in started.house.iam.asked:
        assert not step.done(), step.exception() or step.result()
        await asyncio.sleep(0)


@pytest.mark.parametrize("verb", ["rotate", "remove", "mfa"])
async def test_a_profile_in_an_identitys_place(started: Started, verb: str) -> None:
    """`rotate web-admin`: it is said whose key that profile has. Control: a name that is nobody's."""

    async def refused(name: str) -> str:
        path = f"/v1/identities/{name}"
        if verb == "rotate":
            return str((await started.refused("POST", f"{path}/rotate", {}))[1]["message"])
        if verb == "remove":
            return str((await started.refused("DELETE", path))[1]["message"])
        return str((await started.refused("POST", "/v1/prompts", {"identity": name}))[1]["message"])

    await started.add()
    said = f"web-admin is a profile, and its identity is identity: type `vault-client {verb} identity`"
    assert await refused("web-admin") == said
    assert "is stored" in await refused("nobody")
    assert "is stored" in await refused("looped")  # a profile of no identity


async def test_a_rotation(started: Started) -> None:
    """409 with the question, then a step a call; what is shown of a key is its last four characters."""
    await started.add()
    status, body = await started.refused("POST", ROUTE, {})
    assert (status, body["code"], body["exit"]) == (409, "MfaRequired", 3)
    assert (body["prompt"]["identity"], body["opened"]) == ("identity", True)
    await started.ok("POST", f"/v1/prompts/{body['prompt']['id']}", {"token_code": "123456"})

    told = await steps(started)

    assert [each["did"] for each in told] == [
        "intent", "pending", "tried", "tried", "tried", "swapped", "inactive",
    ]  # fmt: skip
    assert [each["retry_after_seconds"] for each in told] == [0, 0, 2, 2, 0, 0, 0]
    last = told[-1]
    assert last["identity"]["rotation"] == {
        "stage": "inactive", "old_key": KEY_ID[-4:], "new_key": last["new_key"], "delete_after": "2026-11-23T12:00:00Z",
    }  # fmt: skip
    assert last["identity"]["access_key_id"] == last["new_key"]
    assert "canary" not in json.dumps(told)
    assert KEY_ID not in json.dumps(told)
    assert (await started.ok("GET", "/v1/identities"))["identities"] == [last["identity"]]
    assert [each["did"] for each in await steps(started)] == ["kept"]
    assert [each["reason"] for each in started.house.events("identity.rotate")] == [
        "intent", "pending", "swapped", "inactive",
    ]  # fmt: skip


async def test_with_the_code_at_hand(started: Started) -> None:
    """`--token-code`: sent where a session is wanted, and once; a wrong shape is 400."""
    await started.add()
    assert (await started.refused("POST", ROUTE, {"token_code": ""}))[0] == 400
    first = await started.ok("POST", ROUTE, {"token_code": "123456"})
    assert first["did"] == "intent"
    assert (await started.ok("POST", ROUTE, {"token_code": "123456"}))["did"] == "pending", "not needed: not sent"
    assert started.house.sts.counts()["session_token"] == 1


async def test_sessions_of_the_old_key_end(started: Started) -> None:
    """The next call of IAM's asks for a code again; role sessions are served as before."""
    await started.with_session()
    before = await started.ok("GET", "/v1/profiles/web-admin/credentials")
    assert (await steps(started))[-1]["signed_out"] is True

    assert (await started.refused("POST", ROUTE, {"wish": "undo"}))[1]["code"] == "MfaRequired"
    assert await started.ok("GET", "/v1/profiles/web-admin/credentials") == before


async def test_wishes_and_grace(started: Started) -> None:
    """`undo`, `abandon` and `grace_seconds` do as they say; what cannot be is told, 409."""
    await started.with_session()
    status, body = await started.refused("POST", ROUTE, {"wish": "abandon"})
    assert (status, body["code"], body["exit"]) == (409, "RotationStopped", 1)
    await started.ok("POST", ROUTE, {})
    assert (await started.ok("POST", ROUTE, {"wish": "abandon"}))["did"] == "abandoned"

    assert (await steps(started, grace_seconds=0))[-1]["did"] == "deleted"
    assert len(started.house.iam.table) == 1


async def test_another_key_does_not_end_it(started: Started) -> None:
    """`replace` over a rotation is 409, and says what to type; the same body does once that is done."""
    await started.with_session()
    await started.ok("POST", ROUTE, {})
    body = {"name": "identity", "AccessKeyId": "AKIAANOTHERKEY000001", "SecretAccessKey": "canary", "replace": True}
    status, answer = await started.refused("POST", "/v1/identities", body)
    assert (status, answer["code"], answer["exit"]) == (409, "RotationStopped", 1)
    assert "`vault-client rotate identity --abandon`" in answer["message"]
    assert started.house.events("identity.add")[1:] == []

    await started.ok("POST", ROUTE, {"wish": "abandon"})
    added = await started.ok("POST", "/v1/identities", body)
    assert (added["access_key_id"], added["rotation"]) == ("0001", None)


async def test_what_a_forgotten_rotation_leaves_is_named(started: Started) -> None:
    """The key in use is dead at AWS, so `replace` is taken: answer and audit log name what AWS may still have; so does
    the log after `remove`. A key that is stored again is not among them.
    """
    await started.with_session()
    while (await started.ok("POST", ROUTE, {}))["did"] != "pending":
        pass
    dead = IdentityBroken("AWS does not know that key; run `vault-client add identity --replace`")
    started.house.sts.fail("caller_identity", dead, dead)
    body = {"name": "identity", "AccessKeyId": KEY_ID, "SecretAccessKey": "canary", "replace": True}
    added = await started.ok("POST", "/v1/identities", body)
    new = next(each for each in started.house.iam.table if each != KEY_ID)

    (warning,) = added["warnings"]
    assert warning == (
        f"the rotation of identity is forgotten: AWS may still have …{new[-4:]}, which vaultd knows no more; to see, "
        "type `aws iam list-access-keys --user-name franklin`"
    )
    lines = [(each["reason"], each["access_key_id"]) for each in started.house.events("identity.rotate")]
    assert lines[2:] == [("forgotten", new[-4:])]
    del started.house.iam.table[new]
    assert "warnings" not in await started.ok("POST", "/v1/identities", body), "control"

    await started.ok("POST", ROUTE, {"token_code": "234567"})
    await started.ok("DELETE", "/v1/identities/identity")
    last = started.house.events("identity.rotate")[-1]
    assert (last["reason"], last["access_key_id"]) == ("forgotten", KEY_ID[-4:])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"wish": "please"}, "field wish: it is one of go, on, undo and abandon"),
        ({"grace_seconds": -1}, "field grace_seconds: an old key is kept Inactive for 0 seconds to 90 days"),
        ({"grace_seconds": "1d"}, "field grace_seconds: "),
        ({"grace": 1}, "field grace: "),
    ],
)
async def test_bad_bodies(started: Started, body: dict[str, Any], said: str) -> None:
    """400 naming the field."""
    await started.add()
    status, answer = await started.refused("POST", ROUTE, body)
    assert status == 400
    assert answer["message"].startswith(said)


async def test_unknown_and_locked(started: Started) -> None:
    """404 with the nearest name; 403 while locked, and nothing is asked."""
    await started.with_session()
    status, body = await started.refused("POST", "/v1/identities/identty/rotate", {})
    assert (status, "identity" in body["message"]) == (404, True)
    await started.ok("POST", "/v1/lock", {})
    assert (await started.refused("POST", ROUTE, {}))[1]["code"] == "Locked"
    assert started.house.iam.asked == []


async def test_a_broken_key_asks_nobody(started: Started) -> None:
    """E8: no code for a key that AWS does not take."""
    await started.add()
    started.house.sts.fail("caller_identity", IdentityBroken("gone; run `vault-client add identity --replace`"))
    assert (await started.refused("POST", ROUTE, {}))[1]["code"] == "IdentityBroken"
    assert (await started.ok("GET", "/v1/prompts"))["prompts"] == []


async def test_the_daemon_ends_the_grace_and_learns_ages(started: Started) -> None:
    """Its own task: unasked only by a session that is open anyway, and what AWS refuses is let be for a day."""
    clock = started.house.clock
    assert isinstance(clock, FakeClock)
    await started.with_session()
    await clock.advance(61)
    (identity,) = (await started.ok("GET", "/v1/identities"))["identities"]
    assert identity["key_age_days"] == 100
    said = "the key …0001 of identity is 100 days old: type `vault-client rotate identity`"
    assert (await started.ok("GET", "/v1/identities"))["reminders"] == [said]
    assert (await started.ok("GET", "/v1/profiles"))["reminders"] == [said]
    (check,) = (each for each in (await started.ok("GET", "/v1/checks"))["checks"] if each["name"] == "keys")
    assert check["ok"] is True

    await steps(started, grace_seconds=300)
    (told,) = (await started.ok("GET", "/v1/identities"))["reminders"]
    assert told.endswith("if something still needs it, type `vault-client rotate identity --undo`")
    assert (await started.ok("GET", "/v1/profiles"))["reminders"] == [told]
    await clock.advance(400)
    assert len(started.house.iam.table) == 2, "no session: nobody is asked for one"
    assert "may be deleted" in (await started.ok("GET", "/v1/identities"))["reminders"][0]
    await started.ok("POST", "/v1/prompts", {"token_code": "234567"})
    await clock.advance(61)
    assert len(started.house.iam.table) == 1
    assert [each["reason"] for each in started.house.events("identity.rotate")][-1] == "deleted"


async def test_the_daemon_ends_a_grace_and_nothing_else(started: Started) -> None:
    """`--undo` at the very moment at which the grace is over: the daemon's own step comes after it, and is none."""
    clock, iam = started.house.clock, started.house.iam
    assert isinstance(clock, FakeClock)
    await started.with_session()
    await steps(started, grace_seconds=30)
    await started.ok("POST", "/v1/prompts", {"token_code": "234567"})
    clock.jump(31)
    iam.hold = hold = asyncio.Event()
    undoing = asyncio.ensure_future(started.ok("POST", ROUTE, {"wish": "undo"}))
    await asked(started, undoing, ("activate", KEY_ID))
    looking = asyncio.ensure_future(started.daemon.rotations.look())
    await clock.settle()
    hold.set()
    await asyncio.wait({undoing, looking})

    assert undoing.result()["did"] == "reactivated"
    assert {key: active for key, (active, _) in iam.table.items()}[KEY_ID]
    assert started.house.events("identity.rotate")[-1]["reason"] == "reactivated"


@pytest.mark.parametrize("code", ["000000", "123456"])
async def test_a_code_at_hand_leaves_no_question(started: Started, code: str) -> None:
    """`--token-code` that AWS refuses: nobody is at a terminal, so the question that it opened goes with it."""
    await started.add()
    wrong = CodeRefused("AWS refused the code: type the next one.")
    if code == "000000":
        started.house.sts.fail("session_token", wrong)
        said = (await started.refused("POST", ROUTE, {"token_code": code}))[1]["message"]
        assert said.startswith("AWS refused the code")
    else:
        assert (await started.ok("POST", ROUTE, {"token_code": code}))["did"] == "intent"
    assert (await started.ok("GET", "/v1/prompts"))["prompts"] == []


async def test_going_on_begins_nothing(started: Started) -> None:
    """`on`: the rotation that was ended meanwhile is over, and no other is begun; `end` is the daemon's own."""
    await started.with_session()
    assert (await steps(started, grace_seconds=0))[-1]["did"] == "deleted"
    body = await started.ok("POST", ROUTE, {"wish": "on"})
    assert (body["did"], body["done"], body["identity"]["rotation"]) == ("over", True, None)
    assert (await started.refused("POST", ROUTE, {"wish": "end"}))[0] == 400


async def test_two_at_once(started: Started) -> None:
    """The other's step ends the session and leaves nothing to ask IAM: who waited for it is not asked for a code."""
    iam = started.house.iam
    await started.with_session()
    while (await started.ok("POST", ROUTE, {}))["did"] != "swapped":
        pass
    iam.asked.clear()
    iam.hold = hold = asyncio.Event()
    first = asyncio.ensure_future(started.ok("POST", ROUTE, {"wish": "on"}))
    await asked(started, first, ("keys", ""))
    second = asyncio.ensure_future(started.daemon.rotations.step("identity", requester="another", by=None, wish="on"))
    assert isinstance(started.house.clock, FakeClock)
    await started.house.clock.settle()
    hold.set()

    assert ((await first)["did"], (await second).did) == ("inactive", "kept")
    assert (await started.ok("GET", "/v1/prompts"))["prompts"] == []
    assert (await started.refused("POST", ROUTE, {"wish": "undo"}))[1]["code"] == "MfaRequired", "control"


async def test_a_stop_waits_for_the_new_key(started: Started) -> None:
    """`vaultd stop` while AWS makes the key: it is stored first, and no other step begins."""
    iam = started.house.iam
    await started.with_session()
    await started.ok("POST", ROUTE, {})
    iam.hold = hold = asyncio.Event()
    making = asyncio.ensure_future(started.ok("POST", ROUTE, {}))
    await asked(started, making, ("create", "AKIANEWKEY0000000001"))
    stopping = asyncio.ensure_future(started.daemon.rotations.stop())
    await asyncio.wait({stopping}, timeout=0)
    assert not stopping.done()
    hold.set()
    await stopping

    assert (await making)["did"] == "pending"
    assert (await started.refused("POST", ROUTE, {}))[1]["code"] == "StsUnavailable"


async def test_a_key_that_aws_does_not_list_is_not_looked_for_each_minute(started: Started) -> None:
    """Its age is not known, and will not be by asking again: once a day is enough."""
    clock, iam = started.house.clock, started.house.iam
    assert isinstance(clock, FakeClock)
    iam.table.clear()
    await started.with_session()
    await clock.advance(600)

    assert iam.asked == [("keys", "")]


async def test_a_clock_that_is_ahead_asks_iam_seldom(started: Started) -> None:
    """By this machine's clock the grace is over and by AWS's it is not: AWS is not asked each minute until it is."""
    house = started.house
    assert isinstance(house.clock, FakeClock)
    await started.with_session()
    await steps(started, grace_seconds=3600)
    await started.ok("POST", "/v1/prompts", {"token_code": "234567"})
    house.clock.jump(7200)
    house.sts.skew = 7200.0
    house.iam.asked.clear()
    await house.clock.advance(540)

    assert house.iam.asked == [("keys", "")]
    assert len(house.iam.table) == 2
