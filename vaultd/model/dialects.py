"""Session or error → the bytes an SDK reads: HTTP head and JSON body of the container endpoint (interface.md §4).

Rules
- A 200 carries real keys or it is not made: the only place above the keeper where a session is revealed.
- Times have whole seconds and `Z`, by one function of ours: an offset breaks four SDKs (sdk-facts §4).
- `Content-Type: application/json` without parameters: Go v2 reads an error body only then. No `Server`, no `Date`.
- An error has both spellings of code and message, and the message once more as the reason phrase, the only text that
  minio-go and .NET show (sdk-facts §3). Its status and code are of the contract's table, whatever was raised inside.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from vaultd.errors import (
    BadRequest,
    CodeSpent,
    InvalidCode,
    Misconfigured,
    NeedsPerson,
    Temporary,
    TooManyAttempts,
    UnknownIdentity,
    VaultdError,
    WrongPassphrase,
)
from vaultd.model.console import MadeSignIn
from vaultd.model.credentials import RoleSession
from vaultd.model.text import reason_phrase, shown

#: On every reply, errors too (interface.md §4).
_HEADERS: Final = "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
_JSON: Final = "application/json"
_HIDDEN: Final = "vaultd failed inside itself; read why with `vaultd logs`."
#: What a client sees of an error that the contract's table has no row for.
_NEAREST: Final[tuple[tuple[type[VaultdError], int, str], ...]] = (
    (InvalidCode, 403, "MfaRequired"),
    (BadRequest, 400, "BadRequest"),
    (CodeSpent, 403, "MfaRequired"),
    (TooManyAttempts, 403, "MfaRequired"),
    (WrongPassphrase, 403, "Locked"),
    (UnknownIdentity, 403, "IdentityBroken"),
    (Misconfigured, 403, "RoleDenied"),
    (NeedsPerson, 403, ""),
    (Temporary, 503, "StsUnavailable"),
)
_MESSAGE_LIMIT: Final = 1000


def stamp(moment: datetime) -> str:
    """`2026-11-22T20:00:00Z`: UTC, cut to the whole second, so that an expiration is never told later than it is."""
    utc = moment.astimezone(UTC)
    return f"{utc.year:04d}-{utc.month:02d}-{utc.day:02d}T{utc.hour:02d}:{utc.minute:02d}:{utc.second:02d}Z"


def credentials_object(session: RoleSession) -> dict[str, str]:
    """The body of interface.md §4; `RoleArn` is left out for a profile that has no role."""
    role = {} if session.role_arn is None else {"RoleArn": session.role_arn}
    return {
        "AccessKeyId": session.access_key_id,
        "SecretAccessKey": session.secret_access_key.reveal(),
        "Token": session.session_token.reveal(),
        "Expiration": stamp(session.expiration),
        "AccountId": session.account_id,
        **role,
        "Code": "Success",
        "LastUpdated": stamp(session.issued),
        "Type": "AWS-HMAC",
    }


def sign_in_object(made: MadeSignIn) -> dict[str, str]:
    """The answer of POST /v1/profiles/{p}/signin. The URL is a credential: it goes to the caller, and nowhere else."""
    return {
        "url": made.url.reveal(),
        "expires_at": stamp(made.expires),
        "console_until": stamp(made.console_until),
        "destination": made.destination,
        "account_id": made.session.account_id,
        "doubt": shown(made.doubt, limit=_MESSAGE_LIMIT),
    }


def ecs_reply(session: RoleSession) -> bytes:
    """The whole HTTP message, ready to be written. Raises ValueError when a secret of it was wiped."""
    return http_message(200, "OK", json.dumps(credentials_object(session), separators=(",", ":")).encode())


def ecs_error(error: VaultdError) -> bytes:
    """The whole HTTP message for an error; one without a row of the table is told as its nearest row."""
    status, code, message = seen(error)
    body = {"code": code, "message": message, "Code": code, "Message": message}
    allow = {"Allow": "GET"} if status == 405 else {}  # RFC 9110 §15.5.6
    return http_message(status, reason_phrase(message), json.dumps(body, separators=(",", ":")).encode(), headers=allow)


def wire_code(error: VaultdError) -> str:
    """The code a client sees for `error`: what the audit line gives as the reason of a denial."""
    return seen(error)[1]


def http_message(
    status: int, reason: str, body: bytes, *, content_type: str = _JSON, headers: Mapping[str, str] | None = None
) -> bytes:
    """Status line, the fixed header fields and `body`. `reason` has to be a `reason_phrase` already."""
    more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\n{_HEADERS}{more}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode("ascii") + body


def body_of(message: bytes) -> bytes:
    """The body of a whole message."""
    return message.partition(b"\r\n\r\n")[2]


def held_head() -> bytes:
    """The head of a 200 whose body comes in chunks and ends with the connection (interface.md §4 "Hold")."""
    more = "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    return f"HTTP/1.1 200 OK\r\nContent-Type: {_JSON}\r\n{_HEADERS}{more}".encode("ascii")


def closing(message: bytes) -> bytes:
    """The same message, saying that the connection ends with it."""
    line, rest = message.split(b"\r\n", 1)
    return line + b"\r\nConnection: close\r\n" + rest


def without_body(message: bytes) -> bytes:
    """The same message as an answer to HEAD, which carries no body (RFC 9110 §9.3.2)."""
    return message.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


def seen(error: VaultdError) -> tuple[int, str, str]:
    """(status, code, message) as a client of either dialect is told."""
    status, code = error.status, error.code
    for kind, row_status, row_code in _NEAREST:
        if isinstance(error, kind):
            status, code = row_status, row_code or code
            break
    if status == 500:
        return 500, VaultdError.code, _HIDDEN
    return status, code, shown(error.message, limit=_MESSAGE_LIMIT)
