"""The credential endpoint over raw sockets: every row of interface.md §4's table, the whole message read."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.web.rig import PATH, SECRET, TOKEN_TEXT, StandInBroker, read_reply, running, session, until_closed
from vaultd.errors import IdentityBroken, Locked, MfaRequired, RoleDenied, StsUnavailable, VaultdError

FIXED = {"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

#: (what is changed in a good request, status, code, the last thing its message tells to type)
ROWS: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "not HTTP/1.1": ({"version": "HTTP/1.0"}, 400, "BadRequest", "`vault-client use PROFILE`."),
    "absolute form": ({"path": "http://127.0.0.1" + PATH}, 400, "BadRequest", "`vault-client use PROFILE`."),
    "no Host": ({"Host": None}, 400, "BadRequest", "`vault-client use PROFILE`."),
    "empty Host": ({"Host": ""}, 400, "BadRequest", "`vault-client use PROFILE`."),
    "unparsable": ({"version": "HTTP/9x"}, 400, "BadRequest", "`vault-client use PROFILE`."),
    "oversized": ({"X_Long": "a" * 5000}, 400, "BadRequest", "`vault-client use PROFILE`."),
    "a body": ({"Content_Length": "1"}, 400, "BadRequest", "`vault-client use PROFILE`."),
    "wrong Host": ({"Host": "evil.example"}, 403, "ForbiddenOrigin", "as `vault-client use PROFILE` sets it up."),
    "Origin": ({"Origin": "http://a.example"}, 403, "ForbiddenOrigin", "as `vault-client use PROFILE` sets it up."),
    "no token": ({"Authorization": None}, 401, "InvalidToken", "`vault-client use PROFILE`."),
    "wrong token": ({"Authorization": "x" * 43}, 401, "InvalidToken", "`vault-client use PROFILE`."),
    "token not ASCII": ({"Authorization": "\xff\xfe"}, 401, "InvalidToken", "`vault-client use PROFILE`."),
    "another profile": ({"path": "/v1/credentials/audit"}, 403, "ProfileMismatch", "`vault-client use web-admin`."),
    "slug of no profile": ({"path": "/v1/credentials/nope"}, 403, "ProfileMismatch", "`vault-client use web-admin`."),
    "no such path": ({"path": "/latest/meta-data/"}, 404, "NotFound", "for the right one."),
    "wrong method": ({"method": "POST"}, 405, "MethodNotAllowed", "`vault-client use PROFILE`."),
}


def check_error(reply: Any, status: int, code: str) -> str:
    """The whole of an error message but for its text, which is returned."""
    assert reply.status == status
    for name, value in FIXED.items():
        assert reply.header(name) == value
    assert reply.header("Content-Length") == str(len(reply.body))
    allowed = {*FIXED, "Content-Length", "Connection", "Allow"}
    assert {name for name, _ in reply.headers} <= allowed
    body = json.loads(reply.body)
    assert body == {"code": code, "message": body["message"], "Code": code, "Message": body["message"]}
    assert reply.reason == "".join(char if " " <= char <= "~" else "?" for char in body["message"])[:160]
    return str(body["message"])


@pytest.mark.parametrize("name", ROWS)
async def test_rows(name: str, tmp_path: Path) -> None:
    """Each row of the table: status, code in both spellings, message as the reason phrase, the fixed headers."""
    changed, status, code, ending = ROWS[name]
    async with running(tmp_path) as rig:
        reply = await rig.get(**changed)

        message = check_error(reply, status, code)
        assert message.endswith(ending)
        assert rig.token.encode() not in reply.raw


async def test_credentials_whole_message(tmp_path: Path) -> None:
    """200: exactly these bytes; no Server, no Date; whole seconds and Z; under 9 kB."""
    body = (
        '{"AccessKeyId":"ASIAEXAMPLEEXAMPLE01","SecretAccessKey":"' + SECRET + '","Token":"' + TOKEN_TEXT + '",'
        '"Expiration":"2026-11-22T13:00:00Z","AccountId":"234567890123",'
        '"RoleArn":"arn:aws:iam::234567890123:role/WebAdmin","Code":"Success",'
        '"LastUpdated":"2026-11-22T12:00:00Z","Type":"AWS-HMAC"}'
    )
    head = (
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n"
        f"X-Content-Type-Options: nosniff\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    async with running(tmp_path) as rig:
        assert (await rig.get()).raw == (head + body).encode()
        assert rig.broker.used_plans == ["web-admin"]
        ((profile, sighting, identity),) = rig.audit.serves
        assert (profile, identity) == ("web-admin", "franklin")
        assert sighting.inode
        assert rig.audit.denials == []


async def test_connection_close_is_honoured(tmp_path: Path) -> None:
    """JS v2 sends `Connection: close`: it is told so, and the connection ends."""
    async with running(tmp_path) as rig:
        reader, writer = await rig.connect()
        writer.write(rig.request(Connection="close"))
        reply = await read_reply(reader)
        assert (reply.status, reply.header("Connection")) == (200, "close")
        assert await until_closed(reader) == b""
        writer.close()


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
async def test_bearer_in_any_letter_case(scheme: str, tmp_path: Path) -> None:
    """The token is accepted bare and as `Bearer TOKEN`; another scheme is not one."""
    async with running(tmp_path) as rig:
        assert (await rig.get(Authorization=f"{scheme} {rig.token}")).status == 200
        assert (await rig.get(Authorization=f"Basic {rig.token}")).status == 401


async def test_two_tokens_are_none(tmp_path: Path) -> None:
    """Two Authorization fields are ambiguous: 401, whichever is right."""
    async with running(tmp_path) as rig:
        assert (await rig.get(authorization=rig.token)).status == 401


@pytest.mark.parametrize(
    "path",
    [
        PATH + "/",
        PATH + "?",
        PATH + "?a=b",
        PATH + "#f",
        "/v1/credentials/web%2dadmin",
        "/v1/credentials/./web-admin",
        "/v1/credentials/..",
        "/v1/credentials/.",
        "/v1/x/../credentials/web-admin",
        "//v1/credentials/web-admin",
        "/V1/credentials/web-admin",
        "/v1/credentials/",
        "/v1/credentials",
        "/v1/credentials/web-admin;x",
        "/",
        "/healthz/",
        "/healthz?x",
    ],
)
async def test_path_is_compared_byte_for_byte(path: str, tmp_path: Path) -> None:
    """A query, a closing slash, an escape or a dot segment is 404, with a good token too."""
    async with running(tmp_path) as rig:
        check_error(await rig.get(path), 404, "NotFound")
        assert rig.audit.serves == []


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"version": "HTTP/1.0", "Host": "evil.example"}, "BadRequest"),
        ({"Host": "evil.example", "path": "/nope"}, "ForbiddenOrigin"),
        ({"Cookie": "", "method": "POST"}, "ForbiddenOrigin"),
        ({"path": "/nope", "method": "POST"}, "NotFound"),
        ({"method": "OPTIONS", "Authorization": None}, "MethodNotAllowed"),
        ({"method": "DELETE", "Authorization": "wrong"}, "MethodNotAllowed"),
        ({"path": "/healthz", "method": "POST"}, "MethodNotAllowed"),
        ({"path": "/v1/credentials/nope", "Authorization": "wrong"}, "InvalidToken"),
        ({"path": "/v1/credentials/audit"}, "ProfileMismatch"),
    ],
)
async def test_order_of_checks(changed: dict[str, Any], code: str, tmp_path: Path) -> None:
    """400, Host and headers, 404, 405, 401, ProfileMismatch: the earlier wrong thing is told."""
    async with running(tmp_path) as rig:
        assert json.loads((await rig.get(**changed)).body)["code"] == code


async def test_mismatch_before_unknown_profile_before_the_rest(tmp_path: Path) -> None:
    """A profile that left the config since the grant is UnknownProfile; with another path it is ProfileMismatch."""
    broker = StandInBroker(error=Locked("Locked; type `vault-client unlock`."))
    async with running(tmp_path, broker=broker) as rig:
        assert json.loads((await rig.get()).body)["code"] == "Locked"
        rig.plans.roles.clear()
        rig.plans.number += 1
        message = check_error(await rig.get(), 404, "UnknownProfile")
        assert message == "There is no profile web-admin; list them with `vault-client list`."
        check_error(await rig.get("/v1/credentials/audit"), 403, "ProfileMismatch")


async def test_head_is_405_without_a_body(tmp_path: Path) -> None:
    """HEAD is not GET here; its answer carries no body, and the connection stays usable."""
    async with running(tmp_path) as rig:
        reader, writer = await rig.connect()
        writer.write(rig.request(method="HEAD"))
        reply = await read_reply(reader, head=True)
        assert (reply.status, reply.header("Allow")) == (405, "GET")
        writer.write(rig.request())
        assert (await read_reply(reader)).status == 200
        writer.close()


async def test_healthz(tmp_path: Path) -> None:
    """`ok` and nothing else, without a token, under the same Host and header guard."""
    async with running(tmp_path, broker=StandInBroker()) as rig:
        reply = await rig.get("/healthz", Authorization=None)
        assert (reply.status, reply.body) == (200, b"ok")
        assert (await rig.get("/healthz", Host="evil.example")).status == 403
        assert (await rig.get("/healthz", Via="")).status == 403


async def test_expect_is_ignored(tmp_path: Path) -> None:
    """No 1xx is ever sent: the first status line is the answer."""
    async with running(tmp_path) as rig:
        reply = await rig.get(Expect="100-continue")
        assert reply.raw.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_revoked_and_expired_tokens(tmp_path: Path) -> None:
    """401 for a token that was revoked, and for one whose time is over; the positive control is 200."""
    async with running(tmp_path, broker=StandInBroker(ready=session())) as rig:
        other = rig.another_token("web-admin")
        assert (await rig.get(Authorization=other)).status == 200
        rig.grants.revoke(rig.grants.list()[1].id, reason="test")
        check_error(await rig.get(Authorization=other), 401, "InvalidToken")
        assert rig.audit.denials[-1][:2] == ("InvalidToken", None)
        await rig.clock.advance(2 * 86400)
        assert (await rig.get()).status == 401


async def test_a_grant_that_ends_while_its_session_is_made(tmp_path: Path) -> None:
    """Once `revoke` has returned, nothing goes out for that grant, not to who was waiting. Control: another's."""
    broker = StandInBroker(later=session(), release=asyncio.Event())
    assert broker.release is not None
    async with running(tmp_path, broker=broker) as rig:
        revoked, kept = rig.another_token("web-admin"), rig.another_token("web-admin")
        asked = [asyncio.ensure_future(rig.get(Authorization=token)) for token in (revoked, kept)]
        await broker.was_asked(2)
        rig.grants.revoke(rig.grants.list()[1].id, reason="test")
        broker.release.set()
        check_error(await asked[0], 401, "InvalidToken")
        assert (await asked[1]).status == 200
        assert rig.audit.denials[-1][:2] == ("InvalidToken", "web-admin")


async def test_profile_that_means_another_role(tmp_path: Path) -> None:
    """A profile that has since come to mean another role is refused, not followed (architecture.md §4)."""
    async with running(tmp_path) as rig:
        assert (await rig.get()).status == 200
        rig.plans.roles["web-admin"] = "arn:aws:iam::999999999999:role/Other"
        rig.plans.number += 1
        message = check_error(await rig.get(), 403, "ProfileMismatch")
        assert message == (
            "Profile web-admin means another role than when this token was made; type `vault-client use web-admin`."
        )
        assert rig.audit.denials[-1][:2] == ("ProfileMismatch", "web-admin")


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"identity": "mallory"}, "identity"),
        ({"user_arn": "arn:aws:iam::999999999999:user/franklin"}, "IAM user"),
        ({"identity": "mallory", "user_arn": "arn:aws:iam::999999999999:user/mallory"}, "identity"),
    ],
)
async def test_profile_without_role_that_means_somebody_else(
    tmp_path: Path, changed: dict[str, str], word: str
) -> None:
    """Without a role a grant pins identity and IAM user: `None == None` is no agreement, and nobody is followed."""
    async with running(tmp_path) as rig:
        rig.plans.roles["own"] = None
        token, path = rig.another_token("own", role_arn=None), "/v1/credentials/own"
        assert (await rig.get(path, Authorization=token)).status == 200, "positive control"
        for name, value in changed.items():
            setattr(rig.plans, name, value)
        rig.plans.number += 1
        message = check_error(await rig.get(path, Authorization=token), 403, "ProfileMismatch")
        assert message == (
            f"Profile own means another {word} than when this token was made; type `vault-client use own`."
        )


async def test_role_stays_the_same_role_whoever_assumes_it(tmp_path: Path) -> None:
    """With a role its ARN alone decides: the identity's account may change under it."""
    async with running(tmp_path) as rig:
        rig.plans.identity, rig.plans.user_arn = "mallory", "arn:aws:iam::999999999999:user/mallory"
        rig.plans.number += 1
        assert (await rig.get()).status == 200


async def test_remedy_is_one_word_of_a_shell(tmp_path: Path) -> None:
    """A profile may be called `$(…)`: what is pasted from a message names it, and runs nothing."""
    async with running(tmp_path) as rig:
        name = "$(touch x)"
        rig.plans.roles[name] = None
        grant = next(each for each in rig.grants.list() if each.profile == "web-admin")
        made, token = rig.grants.create(
            profile=name, slug="pwn", kind="lease", ttl=None, overrides=grant.overrides, role_arn=None,
            bound=None, peer=None,
        )  # fmt: skip
        assert made.user_arn is None
        reply = await rig.get("/v1/credentials/pwn", Authorization=token.reveal())
        assert check_error(reply, 403, "ProfileMismatch").endswith("type `vault-client use '$(touch x)'`.")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MfaRequired("web-admin needs a code; type `vault-client mfa`."), 403),
        (Locked("vaultd is locked; type `vault-client unlock`."), 403),
        (RoleDenied("AWS refused WebAdmin; type `vault-client explain web-admin`."), 403),
        (IdentityBroken("The key of franklin is inactive; type `vault-client add franklin --replace`."), 403),
        (StsUnavailable("AWS did not answer; type `vault-client status`."), 503),
    ],
)
async def test_errors_of_the_broker(error: VaultdError, status: int, tmp_path: Path) -> None:
    """What keeps a session from being made is told in full, and audited under its wire code."""
    async with running(tmp_path, broker=StandInBroker(error=error)) as rig:
        assert check_error(await rig.get(), status, error.code) == error.message
        assert rig.audit.denials == [(error.code, "web-admin", rig.side.peers.own_uid)]
        assert rig.audit.serves == []


@pytest.mark.parametrize("waits", [False, True])
async def test_internal_error_is_constant(waits: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An unknown exception, at once or behind a wait: 500 without detail, closed, its traceback in the log."""
    error = RuntimeError("inner canary")
    async with running(tmp_path, broker=StandInBroker(error=error)) as rig:
        rig.plans.broken = None if waits else error
        with caplog.at_level(logging.ERROR):
            reply = await rig.get()
        assert check_error(reply, 500, "InternalError") == ("vaultd failed inside itself; read why with `vaultd logs`.")
        assert reply.header("Connection") == "close"
        assert b"canary" not in reply.raw
        assert "RuntimeError" in caplog.text


@pytest.mark.parametrize("seconds", [-5, 0, 14])
async def test_never_a_200_with_keys_that_end(seconds: int, tmp_path: Path) -> None:
    """Whatever the broker hands up, keys with less than 15 s are not served; the positive control has 15."""
    from datetime import timedelta

    async with running(tmp_path, broker=StandInBroker(later=session(lives=timedelta(seconds=seconds)))) as rig:
        reply = await rig.get()
        check_error(reply, 503, "StsUnavailable")
        assert SECRET.encode() not in reply.raw
        rig.broker.later = session(lives=timedelta(seconds=15))
        assert (await rig.get()).status == 200


_MALFORMED = {
    "NUL": b"Authorization: CANARY\0x\r\n",
    "control": b"Authorization: CANARY\x01\r\n",
    "no colon": b"AuthorizationCANARY\r\n",
    "blank before colon": b"Authorization : CANARY\r\n",
    "folded": b"Authorization: a\r\n CANARY\r\n",
    "bare LF": b"Authorization: CANARY\nX\r\n",
    "bad name": b"Auth\xffCANARY: x\r\n",
    "bad length": b"Content-Length: CANARY\r\n",
}


@pytest.mark.parametrize("name", _MALFORMED)
async def test_nothing_of_a_malformed_request_comes_back(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of itself aiohttp reflects and logs request bytes on parse errors (security.md §0.5): neither happens here."""
    async with running(tmp_path) as rig:
        good = rig.request().removesuffix(b"\r\n")
        with caplog.at_level(logging.DEBUG):
            reply = await rig.ask(good + _MALFORMED[name] + b"\r\n")
        check_error(reply, 400, "BadRequest")
        assert b"CANARY" not in reply.raw
        assert "CANARY" not in caplog.text
        assert rig.token not in caplog.text


@pytest.mark.parametrize("name", _MALFORMED)
async def test_nothing_comes_back_from_behind_a_request_that_waits(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The same where aiohttp's own loop has the connection, and its own answer to a parse error lies near: the one that
    waits is served, then the constant.
    """
    release = asyncio.Event()
    async with running(tmp_path, broker=StandInBroker(later=session(), release=release)) as rig:
        reader, writer = await rig.connect()
        with caplog.at_level(logging.DEBUG):
            writer.write(rig.request())
            await rig.broker.was_asked(1)
            writer.write(rig.request().removesuffix(b"\r\n") + _MALFORMED[name] + b"\r\n")
            release.set()
            assert (await read_reply(reader)).status == 200
            reply = await read_reply(reader)
        check_error(reply, 400, "BadRequest")
        assert b"CANARY" not in reply.raw
        assert "CANARY" not in caplog.text
        writer.close()


async def test_duplicate_host_is_400(tmp_path: Path) -> None:
    """Two Host fields, even equal ones."""
    async with running(tmp_path) as rig:
        check_error(await rig.get(host=f"127.0.0.1:{rig.port}"), 400, "BadRequest")


async def test_kept_connection_answers_again_and_again(tmp_path: Path) -> None:
    """One connection, errors and successes mixed: the guard's refusals end it, the others do not."""
    async with running(tmp_path) as rig:
        reader, writer = await rig.connect()
        for path, status in [
            (PATH, 200),
            ("/nope", 404),
            (PATH, 200),
            ("/healthz", 200),
            ("/v1/credentials/audit", 403),
        ]:
            writer.write(rig.request(path))
            assert (await read_reply(reader)).status == status
        writer.write(rig.request(Origin="x"))
        assert (await read_reply(reader)).status == 403
        assert await until_closed(reader) == b""
        writer.close()


async def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    """A request that waits holds back those behind it on its connection, 40 of them (aiohttp queues 32)."""
    release = asyncio.Event()
    async with running(tmp_path, broker=StandInBroker(later=session(), release=release)) as rig:
        reader, writer = await rig.connect()
        writer.write(rig.request() + rig.request("/healthz") * 40)
        writer.write(rig.request("/nope"))
        await rig.broker.was_asked(1)
        release.set()
        statuses = [(await read_reply(reader)).status for _ in range(42)]
        assert statuses == [200] * 41 + [404]
        writer.close()


async def test_pipelined_requests_that_need_no_waiting(tmp_path: Path) -> None:
    """A batch larger than the parser's queue is answered whole, in one go."""
    async with running(tmp_path) as rig:
        reader, writer = await rig.connect()
        writer.write(rig.request("/healthz") * 100 + rig.request("/nope"))
        assert [(await read_reply(reader)).status for _ in range(101)] == [200] * 100 + [404]
        writer.close()


async def test_stop_refuses_new_connections(tmp_path: Path) -> None:
    """After stop nobody connects, and kept connections are gone."""
    async with running(tmp_path) as rig:
        reader, writer = await rig.connect()
        writer.write(rig.request())
        await read_reply(reader)
        assert len(rig.side) == 1
        await rig.side.stop()
        assert await until_closed(reader) == b""
        with pytest.raises(ConnectionRefusedError):
            await rig.connect()
        writer.close()
