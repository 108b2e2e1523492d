"""What AWS or the way to it answered → our errors: aws-facts §1.5, row by row, as a table.

Rules
- AWS's texts grow at their end (policy ARNs since 2026, row 5), so a rule looks at the code and at the beginning.
- A message of ours never carries a token code, which row 4 echoes: AWS's text is scrubbed, then `shown()`.
- An error is a value here, raised by the caller outside of its `except`: botocore's own message must not hang on it
  as a cause, since the traceback in the log would print it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from vaultd.errors import (
    BadProfile,
    ClockSkewed,
    CodeRefused,
    DeviceRefused,
    DurationTooLong,
    IdentityBroken,
    InvalidCode,
    PolicyTooLarge,
    RegionDisabled,
    RoleDenied,
    SessionRejected,
    StsUnavailable,
    Throttled,
    VaultdError,
)
from vaultd.model.text import shown, typed

#: What of AWS's own words a message carries; with ours around it stays under the 200 of interface.md §6.
_WORDS = 130
#: Of a denial: there is `AWS refused: ` before it, and behind it the way to `explain` with a name of 25 characters.
_DENIAL = 125
#: Of AWS's reason, where the shortest name and all of it have no room together.
_REASON = 90

_ECHO = re.compile(r"Value '[^']*'")
_SIX_DIGITS = re.compile(r"(?<!\d)\d{6}(?!\d)")
_STAMPS = re.compile(r"\b(\d{8}T\d{6}Z)\b")
#: Who is not authorized is our own identity; what the person needs is the role and the reason (rows 5 to 7).
_NOT_AUTHORIZED = re.compile(
    r"User: \S+ is not authorized to perform: (?P<action>\S+) on resource: (?P<resource>\S+)(?P<reason>.*)", re.DOTALL
)
_ACCOUNT = re.compile(r"account:\s*(\d{12})")


@dataclass(frozen=True, slots=True)
class Called:
    """The call that failed, in the words of a message. `signed_by`: `identity NAME` or `the session of …`.

    `target` is what was asked for: a role ARN, an MFA serial, or nothing.
    """

    operation: str
    identity: str
    signed_by: str
    region: str
    target: str = ""
    by_session: bool = False
    with_code: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """An error reply of AWS: HTTP status, code, AWS's words."""

    status: int
    code: str
    text: str
    request_id: str | None = None

    @property
    def words(self) -> str:
        """AWS's text, scrubbed of what it may echo, for a terminal."""
        return shown(self._scrubbed, limit=_WORDS)

    @property
    def _scrubbed(self) -> str:
        return _SIX_DIGITS.sub("******", _ECHO.sub("Value '…'", self.text))

    @property
    def denial(self) -> str:
        """Of `User: ARN is not authorized to perform: ACTION on resource: ARN because …` what tells why. The reason is
        what a person can act on, so the ARN gives way first; where AWS gave none, where to look takes its place.
        """
        found = _NOT_AUTHORIZED.fullmatch(self._scrubbed)
        if found is None:
            return self.words
        action = found["action"]
        reason = found["reason"].partition(": arn:")[0].rstrip(" .")  # row 5, 2026: the policy's ARN
        longer = f" allows the {action} action"
        reason = f"{reason.removesuffix(longer)} allows it" if reason.endswith(longer) else reason or _unsaid(action)
        said = [f"{action} on {each}" for each in _resources(found["resource"])]
        fitting = next((each for each in said if len(each + reason) <= _DENIAL), None)
        if fitting is None:
            reason = shown(reason, limit=_REASON)
            fitting = shown(said[-1], limit=_DENIAL - len(reason))
        return shown(fitting + reason, limit=_DENIAL)


def _resources(arn: str) -> tuple[str, ...]:
    """The ARN, and what may stand for a role's: its name with the account, its name."""
    kind, _, name = arn.partition("/")
    if not kind.endswith(":role"):
        return (arn,)
    name = name.rpartition("/")[2]
    return arn, f"role {name} of {arn.split(':')[4]}", f"role {name}"


def _unsaid(action: str) -> str:
    """AWS gave no reason: the two policies that decide, of which only one is the caller's."""
    if action == "sts:AssumeRole":
        return ": look at its trust policy and your sts:AssumeRole permissions"
    return f": look at your permissions for {action}"


@dataclass(frozen=True, slots=True)
class Rule:
    """Matches by AWS's code and the beginning of its text (a pattern; empty: any)."""

    codes: frozenset[str]
    begins: str
    make: Callable[[Called, Reply], VaultdError]


def from_reply(called: Called, reply: Reply) -> VaultdError:
    """The error for an HTTP error reply; what no row knows is a 5xx → StsUnavailable, else AWS's no."""
    for rule in RULES:
        if reply.code in rule.codes and re.match(rule.begins, reply.text, re.DOTALL):
            return rule.make(called, reply)
    if reply.status >= 500 or not re.fullmatch(r"[A-Za-z.]+", reply.code):
        # A reply without one of AWS's codes is some proxy's or captive portal's.
        return unavailable(called, f"{called.operation} answered {reply.status}")
    return _denied(called, reply)


def from_exception(called: Called, exc: BaseException) -> VaultdError:
    """The error for what botocore raised; VaultdErrors pass."""
    from botocore import exceptions as boto

    if isinstance(exc, VaultdError):
        return exc
    if isinstance(exc, boto.ClientError):
        return from_reply(called, _reply(exc.response))
    if isinstance(exc, boto.ParamValidationError):
        return BadProfile(
            f"{called.operation} was not sent for {shown(called.target)}: a parameter has a shape that AWS refuses; "
            "run `vault-client explain PROFILE`"
        )
    return _transport(called, exc)


def _transport(called: Called, exc: BaseException) -> StsUnavailable:
    """Row 19, by how far the request got. botocore's ConnectTimeoutError is no ReadTimeoutError: nothing has left."""
    from botocore import exceptions as boto

    if isinstance(exc, boto.SSLError):
        why = "the TLS certificate is not trusted or the handshake failed (set ca_bundle under [aws] in config.toml)"
        return unavailable(called, why, sent=False)
    if isinstance(exc, (boto.EndpointConnectionError, boto.ConnectTimeoutError, boto.ProxyConnectionError)):
        return unavailable(called, "the connection could not be made", sent=False)
    if isinstance(exc, boto.ReadTimeoutError):
        return unavailable(called, "no answer came in time")
    return unavailable(called, f"the answer was cut or made no sense ({type(exc).__name__})")


def unavailable(called: Called, why: str, *, sent: bool = True) -> StsUnavailable:
    """Row 19. `code_sent`: whether a code may have been consumed at AWS."""
    code_sent = called.with_code and sent
    then = "wait for the next code and try again" if code_sent else "try again, or run `vaultd check`"
    return StsUnavailable(f"AWS in {shown(called.region)} is unavailable: {why}; {then}", code_sent=code_sent)


def skew_seconds(text: str) -> float | None:
    """Row 12: the seconds by which this machine is ahead, from `Signature expired: A is now earlier than B (C - …`."""
    stamps = [datetime.strptime(each, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) for each in _STAMPS.findall(text)]
    return (stamps[0] - stamps[-1]).total_seconds() if len(stamps) >= 2 else None


def skew_text(seconds: float) -> str:
    """`clock is N minutes behind|ahead of AWS` (interface.md §6)."""
    side = "ahead of" if seconds > 0 else "behind"
    return f"clock is {round(abs(seconds) / 60)} minutes {side} AWS"


def _reply(response: Mapping[str, Any]) -> Reply:
    error = response.get("Error", {})
    meta = response.get("ResponseMetadata", {})
    return Reply(
        status=int(meta.get("HTTPStatusCode") or 0),
        code=str(error.get("Code") or ""),
        text=str(error.get("Message") or ""),
        request_id=meta.get("RequestId"),
    )


# ---- the rows ----


def _code_refused(called: Called, _: Reply) -> VaultdError:
    return CodeRefused(f"AWS refused the code for {shown(called.target)}; wait for the next one and type that")


def _params(called: Called, reply: Reply) -> VaultdError:
    return RoleDenied(
        f"AWS wants MFA serial and code together for {called.operation} by {shown(called.signed_by)}; "
        "run `vault-client explain PROFILE`",
        aws_code=reply.code,
    )


def _device(called: Called, reply: Reply) -> VaultdError:
    serial = called.target
    hint = ""
    if ":user/" in serial:
        hint = " (that is a user's ARN, not a device's)"
    elif ":u2f/" in serial:
        hint = " (FIDO devices do not work with STS)"
    return DeviceRefused(
        f"AWS knows no MFA device {shown(serial)} of identity {shown(called.identity)}{hint}; correct mfa_serial in "
        f"the AWS config file or run `vault-client add {typed(called.identity)} --replace`",
        aws_code=reply.code,
    )


def _bad_code(_: Called, __: Reply) -> VaultdError:
    return InvalidCode("the code must be six digits; type the six digits that the device shows")


def _denied(called: Called, reply: Reply) -> VaultdError:
    return RoleDenied(
        f"AWS refused: {reply.denial}; run `vault-client explain PROFILE`",
        aws_code=reply.code,
        operation=called.operation,
        aws_request_id=reply.request_id,
    )


def _expired(called: Called, reply: Reply) -> VaultdError:
    if called.by_session:
        return SessionRejected(f"{shown(called.signed_by)} has expired at AWS; try again", expired=True)
    return _denied(called, reply)


def _unknown_key(called: Called, _: Reply) -> VaultdError:
    if called.by_session:
        return SessionRejected(f"AWS no longer knows {shown(called.signed_by)}; try again", expired=False)
    return IdentityBroken(
        f"AWS does not know the key of identity {shown(called.identity)}: deleted, inactive or mistyped; "
        f"run `vault-client add {typed(called.identity)} --replace`"
    )


def _bad_secret(called: Called, _: Reply) -> VaultdError:
    if called.by_session:
        return SessionRejected(f"AWS refused the signature of {shown(called.signed_by)}; try again", expired=False)
    return IdentityBroken(
        f"the stored secret of identity {shown(called.identity)} is wrong; "
        f"run `vault-client add {typed(called.identity)} --replace`"
    )


def _skewed(_: Called, reply: Reply) -> VaultdError:
    seconds = skew_seconds(reply.text)
    said = skew_text(seconds) if seconds is not None else "clock is wrong"
    return ClockSkewed(
        f"AWS refused the signature because this machine's {said}; set the clock and try again",
        **({} if seconds is None else {"skew_seconds": seconds}),
    )


def _throttled(called: Called, _: Reply) -> VaultdError:
    return Throttled(f"AWS throttles {called.operation} in {shown(called.region)}; try again", code_sent=False)


def _busy(called: Called, _: Reply) -> VaultdError:
    return unavailable(called, f"{called.operation} came upon another change of the same user")


def _region_off(called: Called, reply: Reply) -> VaultdError:
    found = _ACCOUNT.search(reply.text)
    account = found.group(1) if found else "unknown"
    return RegionDisabled(
        f"STS is switched off in {shown(called.region)} for account {account}; activate it there under IAM, Account "
        "settings, or set sts_region_fallback under [aws] in config.toml",
        region=called.region,
        account_id=account,
    )


def _session_name(called: Called, reply: Reply) -> VaultdError:
    return BadProfile(
        f"AWS refused the role session name for {shown(called.target)}; set role_session_name to 2 to 64 characters of "
        f"A-Z a-z 0-9 _+=,.@- ({reply.code})"
    )


def _too_long(called: Called, _: Reply) -> VaultdError:
    return DurationTooLong(
        f"{shown(called.target)} does not give sessions that long; lower duration_seconds in the AWS config file"
    )


def _chained(called: Called, _: Reply) -> VaultdError:
    return DurationTooLong(
        f"a session of {shown(called.target)} made from another session lasts 3600 seconds at most; "
        "lower duration_seconds in the AWS config file"
    )


def _too_large(called: Called, reply: Reply) -> VaultdError:
    return PolicyTooLarge(
        f"AWS refused the session policy or tags: {reply.words}; shorten them in the AWS config file",
        operation=called.operation,
    )


def _of(*codes: str) -> frozenset[str]:
    return frozenset(codes)


_DENIED = _of("AccessDenied", "AccessDeniedException")
_VALIDATION = _of("ValidationError", "ValidationException")
_SIGNATURE = _of("SignatureDoesNotMatch", "RequestExpired", "RequestTimeTooSkewed")
_THROTTLE = _of("Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException")

RULES: tuple[Rule, ...] = (
    Rule(_DENIED, r"MultiFactorAuthentication failed with invalid MFA one time pass code", _code_refused),  # row 1
    Rule(_DENIED, r"MultiFactorAuthentication failed.{0,3}must provide both", _params),  # row 2
    Rule(_DENIED, r"MultiFactorAuthentication failed.{0,3}unable to validate MFA code", _device),  # row 3
    Rule(_VALIDATION, r".*'tokenCode' failed to satisfy", _bad_code),  # row 4
    Rule(_DENIED, r"", _denied),  # rows 5 to 8
    Rule(_of("ExpiredToken", "ExpiredTokenException"), r"", _expired),  # row 9
    Rule(_of("InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId"), r"", _unknown_key),  # row 10
    Rule(_SIGNATURE, r"Signature (expired|not yet current)", _skewed),  # row 12
    Rule(_of("RequestExpired", "RequestTimeTooSkewed"), r"", _skewed),
    Rule(_of("SignatureDoesNotMatch"), r"", _bad_secret),  # row 11
    Rule(_THROTTLE, r"", _throttled),  # row 13
    Rule(_of("EntityTemporarilyUnmodifiable", "ConcurrentModification"), r"", _busy),  # IAM's own 409s
    Rule(_of("RegionDisabledException"), r"", _region_off),  # row 14
    Rule(_VALIDATION, r".*'roleSessionName' failed to satisfy", _session_name),  # row 15
    Rule(_VALIDATION, r".*exceeds the MaxSessionDuration", _too_long),  # row 16
    Rule(_VALIDATION, r".*exceeds the 1 hour session limit", _chained),  # row 17
    Rule(_of("PackedPolicyTooLarge"), r"", _too_large),  # row 18
)
