"""What SDKs read: exact fields and times, and messages that no shown text can break."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpResponseParser
from hypothesis import given
from hypothesis import strategies as st

from vaultd import errors
from vaultd.errors import VaultdError
from vaultd.model.credentials import RoleSession
from vaultd.model.dialects import closing, credentials_object, ecs_error, ecs_reply, stamp, wire_code, without_body
from vaultd.model.secret import Secret

NOON = datetime(2026, 11, 22, 12, 0, 0, 999_999, tzinfo=UTC)
#: interface.md §4: every (status, code) that a client may see.
TABLE = {
    (400, "BadRequest"),
    (401, "InvalidToken"),
    (403, "ForbiddenOrigin"),
    (403, "ProfileMismatch"),
    (403, "ForbiddenPeer"),
    (403, "MfaRequired"),
    (403, "Locked"),
    (403, "RoleDenied"),
    (403, "IdentityBroken"),
    (404, "NotFound"),
    (404, "UnknownProfile"),
    (405, "MethodNotAllowed"),
    (503, "StsUnavailable"),
    (500, "InternalError"),
}
#: Raised on the control side only; never on the way to an SDK.
CONTROL_ONLY = {
    "IdentityExists", "ProtocolMismatch", "UnknownGrant", "UnknownPrompt", "Refused", "NeedsPerson", "RotationStopped",
    "NotImported",
}  # fmt: skip


def session(*, token: str = "t" * 900, role_arn: str | None = "arn:aws:iam::111122223333:role/R") -> RoleSession:
    return RoleSession(
        access_key_id="ASIAEXAMPLE",
        secret_access_key=Secret("s" * 40),
        session_token=Secret(token),
        issued=NOON,
        expiration=NOON + timedelta(hours=1),
        account_id="111122223333",
        role_arn=role_arn,
    )


def read(message: bytes) -> tuple[int, str, dict[str, str], bytes]:
    """The message through aiohttp's own response parser, strict: one head, and exactly the body it announces."""
    loop = asyncio.new_event_loop()
    try:
        parser = HttpResponseParser(BaseProtocol(loop), loop, 2**20, max_line_size=8190, max_field_size=8190)
        ((head, _),), _, rest = parser.feed_data(message)
    finally:
        loop.close()
    start, _, body = message.partition(b"\r\n\r\n")
    assert rest == b""
    assert len(head.headers) == start.count(b"\r\n")
    assert int(head.headers["Content-Length"]) == len(body)
    return head.code, head.reason, dict(head.headers), body


def every_error() -> list[type[VaultdError]]:
    found, queue = [], [VaultdError]
    while queue:
        found.append(queue.pop())
        queue += found[-1].__subclasses__()
    return [each for each in found if each.__module__ == errors.__name__]


def test_stamp() -> None:
    """Whole seconds and Z, cut and not rounded, in UTC whatever the zone."""
    assert stamp(NOON) == "2026-11-22T12:00:00Z"
    assert stamp(NOON.astimezone(timezone(timedelta(hours=-8)))) == "2026-11-22T12:00:00Z"


@given(st.datetimes(min_value=datetime(1000, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 (hypothesis adds the zone)
def test_stamp_is_never_later(moment: datetime) -> None:
    """Parsed as every SDK does it, it is the moment or less than a second before it."""
    parsed = datetime.strptime(stamp(moment), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert timedelta() <= moment - parsed < timedelta(seconds=1)


def test_reply() -> None:
    """The fields of interface.md §4 in their order, and nothing else."""
    status, reason, headers, body = read(ecs_reply(session()))
    assert (status, reason) == (200, "OK")
    assert headers == {
        "Content-Type": "application/json",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Content-Length": str(len(body)),
    }
    assert list(json.loads(body)) == [
        "AccessKeyId",
        "SecretAccessKey",
        "Token",
        "Expiration",
        "AccountId",
        "RoleArn",
        "Code",
        "LastUpdated",
        "Type",
    ]
    assert json.loads(body) == credentials_object(session())
    assert json.loads(body)["Expiration"] == "2026-11-22T13:00:00Z"


def test_reply_under_9_kb() -> None:
    """The C runtime takes about 10,000 bytes; the longest token that the emulator makes is 8 KB."""
    assert len(ecs_reply(session(token="t" * 8192)).partition(b"\r\n\r\n")[2]) < 9000


def test_profile_without_role() -> None:
    """No RoleArn rather than null: some SDKs take null for text."""
    assert "RoleArn" not in credentials_object(session(role_arn=None))


def test_wiped_secret_is_never_served_empty() -> None:
    """A session whose keys were dropped raises; a 200 with empty keys is cached for ever by Go."""
    dropped = session()
    dropped.secret_access_key.wipe()
    with pytest.raises(ValueError, match="wiped"):
        ecs_reply(dropped)


@pytest.mark.parametrize("kind", [each for each in every_error() if each.__name__ not in CONTROL_ONLY], ids=str)
def test_every_error_has_a_row(kind: type[VaultdError]) -> None:
    """Whatever is raised inside, the client sees a status and code of the table, and never a 429."""
    status, _, headers, body = read(ecs_error(kind("Something is off; type `vault-client status`.")))
    told = json.loads(body)
    assert (status, told["code"]) in TABLE | {(404, "UnknownIdentity")}
    assert wire_code(kind("x")) == told["code"]
    assert headers["Content-Type"] == "application/json"
    assert (headers.get("Allow") == "GET") == (status == 405)


def test_internal_error_says_nothing() -> None:
    """500: no detail, whatever the message was."""
    _, _, _, body = read(ecs_error(VaultdError("canary")))
    assert b"canary" not in body
    assert json.loads(body)["message"].endswith("`vaultd logs`.")


def check_text(text: str) -> dict[str, Any]:
    status, reason, headers, body = read(ecs_error(errors.Locked(text)))
    assert status == 403
    assert re.fullmatch(r"[ -~]{0,160}", reason)
    assert set(headers) == {"Content-Type", "Cache-Control", "X-Content-Type-Options", "Content-Length"}
    told: dict[str, Any] = json.loads(body)
    assert told["code"] == told["Code"] == "Locked"
    assert told["message"] == told["Message"]
    assert body.isascii()
    return told


@given(st.text(max_size=2000))
def test_no_text_breaks_a_message(text: str) -> None:
    """Any text: a valid head of exactly our fields, a reason of at most 160 printable characters, JSON that parses."""
    check_text(text)


@pytest.mark.parametrize("text", ["a\r\nX-Evil: 1", "a\r\n\r\nbody", "a\nb", "\u2028", "\x85", "\x00", "\ud800"])
def test_injection(text: str) -> None:
    """Line ends of every kind are no line ends on the wire, and no separators for a terminal."""
    told = check_text(f"Profile {text} is locked; type `vault-client unlock`.")
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029]", told["message"])


def test_closing_and_without_body() -> None:
    """The two variants change nothing but what they say."""
    message = ecs_error(errors.NotFound("x"))
    _, _, headers, body = read(closing(message))
    assert headers.pop("Connection") == "close"
    assert body == message.partition(b"\r\n\r\n")[2]
    assert without_body(message) + body == message
