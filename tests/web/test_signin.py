"""POST /v1/profiles/{p}/signin: what is taken, what is answered, and what is told of it in the audit log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.web.control import ROLE, House, Started, soon
from vaultd.errors import DurationTooLong, SessionRejected, StsUnavailable

ROUTE = "/v1/profiles/web-admin/signin"


@pytest.fixture
async def started(tmp_path: Path) -> AsyncIterator[Started]:
    async with House(tmp_path).run() as running:
        yield running


async def test_a_sign_in(started: Started) -> None:
    """The URL, until when it is taken, until when the console lasts; the region is the profile's."""
    await started.with_session()
    answer = await started.call("POST", ROUTE, {"service": "s3"})

    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    url = answer.body.pop("url")
    assert parse_qs(urlsplit(url).query)["SigninToken"] == ["canary-signin-token-1"]
    assert answer.body == {
        "expires_at": "2026-11-22T12:15:00Z",
        "console_until": "2026-11-22T13:00:00Z",
        "destination": "https://eu-west-1.console.aws.amazon.com/s3/home?region=eu-west-1",
        "account_id": "234567890123",
        "doubt": "",
        "warnings": [],
    }
    (order,) = started.house.console.orders
    assert order.endpoint.signin_url == "https://signin.aws.amazon.com/federation"
    assert (order.endpoint.fallback_region, order.duration) == (None, None)


async def test_it_is_served_as_keys_are(started: Started) -> None:
    """The audit line has who, which keys and why; neither URL nor token is in any file."""
    await started.with_session()
    body = await started.ok("POST", ROUTE, {})
    (line,) = [each for each in started.house.events("credentials.serve") if each["reason"] == "console sign-in"]

    assert (line["profile"], line["role_arn"], line["decision"]) == ("web-admin", ROLE, "allow")
    assert line["peer"]["pid"] > 0
    assert len(line["access_key_id"]) == 4
    written = b"".join(path.read_bytes() for path in started.house.root.rglob("*") if path.is_file())
    assert b"canary-signin-token" not in written
    assert "canary-signin-token" in body["url"]  # control


async def test_a_code_is_asked_for(started: Started) -> None:
    """409 with the question, and nothing was asked of the console; --token-code does in one go."""
    await started.add()
    status, body = await started.refused("POST", ROUTE, {})
    assert (status, body["code"], body["prompt"]["profile"]) == (409, "MfaRequired", "web-admin")
    assert started.house.console.orders == []
    assert (await started.ok("POST", ROUTE, {"token_code": "123456"}))["account_id"] == "234567890123"


async def test_longer_than_an_hour(started: Started) -> None:
    """Straight from the key, by a code of its own; then the console lasts as long as was asked."""
    await started.add()
    body = await started.ok("POST", ROUTE, {"duration_seconds": 28800, "token_code": "123456"})
    (order,) = started.house.console.orders
    assert order.duration is not None
    assert order.duration.total_seconds() == 28800
    assert body["console_until"] == "2026-11-22T20:00:00Z"

    started.house.console.takes_duration = False
    body = await started.ok("POST", ROUTE, {"duration_seconds": 28800})
    assert body["console_until"] == "2026-11-22T20:00:00Z"  # the session's own end


async def test_a_role_that_gives_less_is_told(started: Started) -> None:
    """As `exec --duration` tells it (aws-facts §1.5 row 16): nobody believes in 8 hours and loses it after one."""
    started.house.sts.fail("assume_role", DurationTooLong("web-admin gives no sessions that long; lower it"))
    await started.with_session()
    body = await started.ok("POST", ROUTE, {"duration_seconds": 28800, "token_code": "654321"})

    assert body["console_until"] == "2026-11-22T13:00:00Z"
    said = "AWS gives web-admin 3600 s at most, not the asked 28800 s: leave out or lower --duration."
    assert body["warnings"] == [said]
    fitting = await started.ok("POST", ROUTE, {"duration_seconds": 3600})  # control: as long as was asked for
    assert fitting["warnings"] == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"service": "s3/home"}, "field service: a page of the console is written like"),
        ({"service": ""}, "field service: "),
        ({"region": "http://evil"}, "field region: a region is written like eu-west-1"),
        ({"region": "cn-north-1"}, "region: cn-north-1 is not in aws"),
        ({"duration_seconds": 899}, "field duration_seconds: sessions of 900 to 43200 seconds"),
        ({"duration_seconds": "3600"}, "field duration_seconds: "),
        ({"logout_first": 1}, "field logout_first: "),
        ({"destination": "https://evil.example"}, "field destination: "),
        ([], "the body is not a JSON object"),
    ],
)
async def test_bad_bodies(started: Started, body: object, said: str) -> None:
    """400 naming the field; nothing was asked of the console."""
    await started.with_session()
    status, answer = await started.refused("POST", ROUTE, body)
    assert (status, answer["code"]) == (400, "BadRequest")
    assert answer["message"].startswith(said)
    assert started.house.console.orders == []


async def test_what_cannot_sign_in(tmp_path: Path) -> None:
    """A profile without a role, and one that is none: each with its own sentence, and no code is asked for."""
    house = House(tmp_path)
    house.profiles("[profile identity]\nregion = eu-west-1\n")
    async with house.run() as started:
        await started.add()
        status, body = await started.refused("POST", "/v1/profiles/identity/signin", {})
        assert (status, body["code"], body["exit"]) == (400, "BadRequest", 1)
        assert "has no role_arn" in body["message"]
        assert (await started.refused("POST", "/v1/profiles/nobody/signin", {}))[1]["code"] == "UnknownProfile"
        assert (await started.ok("GET", "/v1/prompts"))["prompts"] == []


async def test_locked(started: Started) -> None:
    """403, and no line of a serving."""
    await started.with_session()
    await started.ok("POST", "/v1/lock", {})
    assert (await started.refused("POST", ROUTE, {}))[1]["code"] == "Locked"
    assert not [each for each in started.house.events("credentials.serve") if each["reason"] == "console sign-in"]


async def test_locked_while_aws_answers(started: Started) -> None:
    """A URL that was made meanwhile is handed out to nobody, and told as served to nobody."""
    await started.with_session()
    started.house.console.gate = gate = asyncio.Event()
    asked = asyncio.ensure_future(started.refused("POST", ROUTE, {}))
    await soon(lambda: started.house.console.orders)
    await started.ok("POST", "/v1/lock", {})
    gate.set()
    assert (await asked)[1]["code"] == "Locked"
    assert not [each for each in started.house.events("credentials.serve") if each["reason"] == "console sign-in"]


async def test_aws_is_away_or_says_no(started: Started) -> None:
    """503 with exit 75; a refusal of a session that is a minute old makes it anew, of a new one it is final."""
    await started.with_session()
    console = started.house.console
    console.errors = [StsUnavailable("AWS is away: try again")]
    assert (await started.refused("POST", ROUTE, {}))[1]["exit"] == 75

    console.errors = [SessionRejected("no; try again")]
    status, body = await started.refused("POST", ROUTE, {})
    assert (status, body["code"]) == (403, "RoleDenied")
    assert body["message"].endswith("`vault-client explain web-admin`")

    await started.house.clock.advance(120)  # type: ignore[attr-defined]
    console.errors = [SessionRejected("no; try again")]
    before = started.house.sts.counts()["assume_role"]
    await started.ok("POST", ROUTE, {})
    assert started.house.sts.counts()["assume_role"] == before + 1
    assert "canary" not in json.dumps(body)


async def test_a_program_that_may_not(tmp_path: Path) -> None:
    """`allow_executables` is for sign-ins, too: 403 and a line of denial."""
    house = House(tmp_path, settings='[profiles.web-admin]\nallow_executables = ["/usr/bin/terraform"]\n')
    async with house.run() as started:
        await started.with_session()
        status, body = await started.refused("POST", ROUTE, {})
        assert (status, body["code"]) == (403, "ForbiddenPeer")
        assert house.console.orders == []
    assert house.events("credentials.deny")


async def test_a_federation_url_that_is_not_allowed(tmp_path: Path) -> None:
    """Named with its variable; on loopback it is taken."""
    house = House(tmp_path, environ={"VAULTD_FEDERATION_URL": "https://signin.evil.example/federation"})
    async with house.run() as started:
        await started.with_session()
        status, body = await started.refused("POST", ROUTE, {})
        assert (status, body["exit"]) == (422, 78)
        assert body["message"].startswith("VAULTD_FEDERATION_URL=https://signin.evil.example/federation: keys are not")
    house.environ["VAULTD_FEDERATION_URL"] = "http://127.0.0.1:9/federation"
    async with house.run() as started:
        assert (await started.ok("POST", ROUTE, {}))["url"].startswith("http://127.0.0.1:9/federation?Action=login&")
