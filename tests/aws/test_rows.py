"""aws-facts §1.5, row by row: AWS's error → ours, on the emulator and, for texts nobody can provoke there, planted."""

from __future__ import annotations

import logging
import re

import pytest

from tests.aws.rooms import HOUR, Aws, SkippingClock
from tests.strict_sts import SERIAL, StrictSts, role
from vaultd.aws.translate import Called, Reply, from_reply, skew_seconds
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
from vaultd.model.plan import RoleParameters
from vaultd.model.secret import Secret

WRONG = "000000"
DENY = " with an explicit deny in an identity-based policy"
NONE = " because no identity-based policy allows the sts:AssumeRole action"
LOOK = ": look at its trust policy and your sts:AssumeRole permissions"
LONG = " because no permissions boundary allows the sts:AssumeRole action of this user"
REMEDY = re.compile(r"`|type|try again|correct|lower|shorten|set |wait|activate")


def called(*, by_session: bool = False, with_code: bool = False, target: str = SERIAL) -> Called:
    by = "the MFA session of identity franklin" if by_session else "identity franklin"
    return Called("AssumeRole", "franklin", by, "eu-west-1", target, by_session=by_session, with_code=with_code)


async def test_row_1_wrong_and_reused_codes(aws: Aws, strict: StrictSts) -> None:
    """AWS tells neither apart; the message holds the device and no code."""
    with pytest.raises(CodeRefused) as wrong:
        await aws.mfa(WRONG)
    code = strict.totp()
    await aws.mfa(code)
    with pytest.raises(CodeRefused) as reused:
        await aws.mfa(code)

    said = f"AWS refused the code for {SERIAL}; wait for the next one and type that"
    assert wrong.value.message == reused.value.message == said
    assert code not in repr(reused.value.__dict__)


async def test_row_3_an_unknown_device(aws: Aws) -> None:
    """A14: the serial is named, with what people paste by mistake; a child of RoleDenied, no re-ask."""
    with pytest.raises(DeviceRefused, match=r"AWS knows no MFA device .*mfa/nobody of identity franklin; correct"):
        await aws.mfa(WRONG, serial="arn:aws:iam::123456789012:mfa/nobody")
    with pytest.raises(DeviceRefused, match=r"\(that is a user's ARN, not a device's\)"):
        await aws.mfa(WRONG, serial="arn:aws:iam::123456789012:user/franklin")


@pytest.mark.parametrize("style", ["bare", "2021", "2026"])
async def test_rows_5_to_7_denials_are_one_class(aws: Aws, strict: StrictSts, style: str) -> None:
    """D12: three text styles, one error: what was refused for which role and why, uncut and in 200 characters."""
    strict.set_knobs(denied_style=style)

    with pytest.raises(RoleDenied) as denied:
        await aws.assume(aws.key())

    assert type(denied.value) is RoleDenied
    assert denied.value.details["aws_code"] == "AccessDenied"
    assert denied.value.message.startswith("AWS refused: sts:AssumeRole on ")
    assert "WebAdmin" in denied.value.message
    assert "…" not in denied.value.message
    assert denied.value.message.endswith("; run `vault-client explain PROFILE`")
    assert len(denied.value.message) <= 200


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (DENY, "sts:AssumeRole on {arn}" + DENY),
        (LONG, "sts:AssumeRole on role WebAdmin of 234567890123" + LONG),
        (DENY + ": arn:aws:iam::123456789012:policy/ForceMFA", "sts:AssumeRole on {arn}" + DENY),
        (NONE, "sts:AssumeRole on {arn} because no identity-based policy allows it"),
        ("", "sts:AssumeRole on {arn}" + LOOK),
    ],
)  # fmt: skip
def test_a_denial_keeps_role_and_reason(text: str, said: str) -> None:
    """Who is not authorized is our own identity, whose ARN left no room for what a person needs to know."""
    arn = "arn:aws:iam::234567890123:role/WebAdmin"
    user = "arn:aws:iam::123456789012:user/division_abc/subdivision_xyz/franklin"
    whole = f"User: {user} is not authorized to perform: sts:AssumeRole on resource: {arn}{text}"
    error = from_reply(called(), Reply(403, "AccessDenied", whole))

    assert error.message == f"AWS refused: {said.format(arn=arn)}; run `vault-client explain PROFILE`"
    assert len(error.message) <= 200


@pytest.mark.parametrize("path", ["", "a-division/and-its-subdivision/of-some-length/"])
@pytest.mark.parametrize("name", ["WebAdmin", "AWSReservedSSO_AdministratorAccess_0123456789abcdef", "R" * 64])
@pytest.mark.parametrize("text", [DENY, LONG, NONE, ""])
def test_the_reason_outlives_the_arn(path: str, name: str, text: str) -> None:
    """A long ARN gives way to role NAME of ACCOUNT, then to the name; what can be acted on stays, in 200 in all."""
    arn = f"arn:aws:iam::234567890123:role/{path}{name}"
    whole = f"User: arn:aws:iam::1:user/x is not authorized to perform: sts:AssumeRole on resource: {arn}{text}"
    error = from_reply(called(), Reply(403, "AccessDenied", whole))

    kept = NONE.replace("the sts:AssumeRole action", "it") if text == NONE else text or LOOK
    assert f"{kept}; run `vault-client explain PROFILE`" in error.message
    assert f"role/{path}{name}" in error.message or f" role {name[:20]}" in error.message
    assert len(error.message) <= 200


async def test_row_8_a_session_cannot_make_sessions(aws: Aws) -> None:
    """Surfaced as AWS's no."""
    error = from_reply(
        called(by_session=True),
        Reply(403, "AccessDenied", "Cannot call GetSessionToken with session credentials"),
    )

    assert type(error) is RoleDenied


async def test_row_9_an_expired_session(aws: Aws, strict: StrictSts, clock: SkippingClock) -> None:
    """The session that signed is dead, and that alone: details say `expired`."""
    mfa = await aws.mfa(duration=HOUR)
    clock.jump(3601)

    with pytest.raises(SessionRejected, match="the MFA session of identity franklin has expired") as rejected:
        await aws.assume(mfa)
    assert rejected.value.details == {"expired": True}


async def test_row_10_an_unknown_session_and_an_unknown_key(aws: Aws, strict: StrictSts) -> None:
    """On a session: SessionRejected. On the key itself: IdentityBroken, never a reason to ask for a code."""
    mfa = await aws.mfa()
    strict.revoke(akid=mfa.access_key_id, as_="invalid")
    with pytest.raises(SessionRejected) as rejected:
        await aws.assume(mfa)
    assert rejected.value.details == {"expired": False}

    key = aws.key()
    strict.mutate(key={"id": key.access_key_id, "status": "deleted"})
    with pytest.raises(IdentityBroken, match="AWS does not know the key of identity franklin"):
        await aws.whoami(key)


async def test_row_11_a_wrong_secret(aws: Aws, strict: StrictSts) -> None:
    """D8: one call, no retry, and the identity is named."""
    with pytest.raises(IdentityBroken) as broken:
        await aws.whoami(aws.key(secret="x" * 40))

    assert broken.value.message == (
        "the stored secret of identity franklin is wrong; run `vault-client add franklin --replace`"
    )
    assert len(strict.calls()) == 1


@pytest.mark.parametrize(
    ("wire", "said"), [(1800, "clock is 30 minutes behind AWS"), (-1800, "clock is 30 minutes ahead of AWS")]
)
async def test_row_12_a_wrong_clock(aws: Aws, strict: StrictSts, wire: int, said: str) -> None:
    """Both ways, in minutes and in seconds; one call, no retry. The wire clock is real."""
    strict.wire_skew(wire)

    with pytest.raises(ClockSkewed) as skewed:
        await aws.whoami()

    assert said in skewed.value.message
    assert abs(skewed.value.details["skew_seconds"] + wire) <= 5
    assert len(strict.calls()) == 1


def test_row_12_text_of_2014_to_2022() -> None:
    """`Signature expired: A is now earlier than B (C - 15 min.)`: A − C."""
    text = "Signature expired: 20220101T114500Z is now earlier than 20220101T114501Z (20220101T120001Z - 15 min.)"

    assert skew_seconds(text) == -901
    assert skew_seconds("Signature expired: who knows") is None
    error = from_reply(called(), Reply(403, "SignatureDoesNotMatch", "Signature expired: who knows"))
    assert "skew_seconds" not in error.details


async def test_row_14_sts_is_off(aws: Aws, strict: StrictSts) -> None:
    """D10 without fallback: region and account are named, nothing is retried."""
    strict.mutate(region={"name": "ap-east-1", "account": "123456789012", "sts": False})

    with pytest.raises(RegionDisabled) as disabled:
        await aws.mfa(endpoint=aws.endpoint("ap-east-1"))

    assert disabled.value.message.startswith("STS is switched off in ap-east-1 for account 123456789012; activate it")
    assert disabled.value.details == {"region": "ap-east-1", "account_id": "123456789012"}
    assert len(strict.calls()) == 1


async def test_row_14_goes_to_the_fallback(aws: Aws, strict: StrictSts) -> None:
    """D10 with one: without a code at once, and from then on there first, so that the next code is sent once."""
    mfa = await aws.mfa()
    for account in ("123456789012", "234567890123"):
        strict.mutate(region={"name": "ap-east-1", "account": account, "sts": False})
    endpoint = aws.endpoint("ap-east-1", fallback="eu-west-1")

    await aws.assume(mfa, endpoint=endpoint)
    await aws.assume(mfa, endpoint=endpoint)

    assert [call.region for call in strict.calls()] == ["eu-west-1", "ap-east-1", "eu-west-1", "eu-west-1"]


async def test_row_14_a_code_is_not_sent_to_the_fallback_too(aws: Aws, strict: StrictSts) -> None:
    """A10 is the one case where a code goes again: this one counts as spent, the next one goes to the fallback."""
    strict.mutate(region={"name": "ap-east-1", "account": "123456789012", "sts": False})
    endpoint = aws.endpoint("ap-east-1", fallback="eu-west-1")

    with pytest.raises(StsUnavailable, match="account 123456789012, and eu-west-1 takes over; wait") as off:
        await aws.mfa(endpoint=endpoint)
    assert off.value.details == {"code_sent": True}
    await aws.mfa(aws.strict.totp(step=1), endpoint=endpoint)

    assert [(call.region, call.code) for call in strict.calls()] == [("ap-east-1", 1), ("eu-west-1", 2)]


async def test_row_14_the_fallback_may_be_off_too(aws: Aws, strict: StrictSts) -> None:
    """Once, not round and round."""
    mfa = await aws.mfa()
    for region in ("ap-east-1", "me-south-1"):
        strict.mutate(region={"name": region, "account": "123456789012", "sts": False})

    with pytest.raises(RegionDisabled, match="me-south-1"):
        await aws.assume(mfa, endpoint=aws.endpoint("ap-east-1", fallback="me-south-1"))
    assert len(strict.calls()) == 3


async def test_rows_16_and_17_too_long(aws: Aws, strict: StrictSts) -> None:
    """Above MaxSessionDuration; above an hour by chaining."""
    with pytest.raises(DurationTooLong, match="does not give sessions that long"):
        await aws.sts.assume_role(
            aws.key(),
            endpoint=aws.endpoint(),
            duration=12 * HOUR,
            role=RoleParameters(role("WebAdmin"), "franklin"),
            mfa_serial=SERIAL,
            token_code=Secret(strict.totp()),
        )
    with pytest.raises(DurationTooLong, match="3600 seconds at most"):
        await aws.assume(await aws.mfa(strict.totp(step=1)), "LongOps", duration=2 * HOUR)


FAILED = "MultiFactorAuthentication failed, "
FOUND = "1 validation error detected: Value"
EARLY = "Signature not yet current: 20260101T120000Z is still later than 20260101T110000Z (20260101T104500Z + 15 min.)"
TABLE = [
    (403, "AccessDenied", FAILED + "must provide both MFA serial number and one time pass code.", RoleDenied),
    (400, "ValidationError", FOUND + " '999999' at 'tokenCode' failed to satisfy constraint: x", InvalidCode),
    (403, "ExpiredTokenException", "The security token included in the request is expired", SessionRejected),
    (403, "InvalidAccessKeyId", "unknown", SessionRejected),
    (403, "SignatureDoesNotMatch", "The request signature we calculated does not match", SessionRejected),
    (403, "SignatureDoesNotMatch", EARLY, ClockSkewed),
    (400, "Throttling", "Rate exceeded", Throttled),
    (429, "TooManyRequestsException", "slow", Throttled),
    (400, "ValidationError", FOUND + " 'a b' at 'roleSessionName' failed to satisfy constraint: x", BadProfile),
    (400, "PackedPolicyTooLarge", "Packed policy consumes 143% of allotted space", PolicyTooLarge),
    (400, "MalformedPolicyDocument", "Syntax errors in policy.", RoleDenied),
    (403, "OptInRequired", "subscribe", RoleDenied),
    (500, "InternalFailure", "oops", StsUnavailable),
    (503, "ServiceUnavailable", "", StsUnavailable),
    (403, "", "<html>portal</html>", StsUnavailable),
    (407, "407", "Proxy Authentication Required", StsUnavailable),
]


@pytest.mark.parametrize(("status", "code", "text", "expected"), TABLE)
def test_the_table(status: int, code: str, text: str, expected: type[VaultdError]) -> None:
    """Each row's class; each message ends in what to type and is safe for a terminal; no code is echoed (row 4)."""
    error = from_reply(called(by_session=True, with_code=True), Reply(status, code, text))

    assert type(error) is expected
    assert REMEDY.search(error.message.rpartition(";")[2]), error.message
    assert len(error.message) <= 200
    assert "999999" not in error.message + repr(error.details)


@pytest.mark.parametrize(
    "text",
    ["Value '731846' at 'x' failed", "code 731846 was wrong", "731846", "\x1b[31m731846\u202e"],
)
def test_no_text_of_aws_carries_a_code_or_a_control_character(text: str) -> None:
    """Row 4 echoes the code; whatever else may."""
    error = from_reply(called(with_code=True), Reply(403, "AccessDenied", text))

    assert "731846" not in error.message
    assert not re.search("[\x00-\x1f\u202e]", error.message)


def test_account_ids_are_no_codes() -> None:
    """Positive control of the scrubbing: 12 digits stay."""
    error = from_reply(called(), Reply(403, "AccessDenied", "User: arn:aws:iam::123456789012:user/x is not"))

    assert "123456789012" in error.message


async def test_packed_percentages_are_surfaced(aws: Aws, strict: StrictSts) -> None:
    """D11: with AWS's percentage."""
    strict.fault(
        "error",
        arg={"status": 400, "code": "PackedPolicyTooLarge", "message": "Packed policy consumes 143% of allotted space"},
    )

    with pytest.raises(PolicyTooLarge, match=r"consumes 143% of allotted space; shorten them"):
        await aws.assume(aws.key())


async def test_no_code_in_any_log(aws: Aws, strict: StrictSts, caplog: pytest.LogCaptureFixture) -> None:
    """Our loggers at DEBUG, with the exception printed: botocore's own text does not hang on ours (row 4)."""
    code = strict.totp()
    echo = f"1 validation error detected: Value '{code}' at 'tokenCode' failed to satisfy constraint"
    strict.fault("error", arg={"status": 400, "code": "ValidationError", "message": echo})
    with caplog.at_level(logging.DEBUG, logger="vaultd"):
        with pytest.raises(InvalidCode) as refused:
            await aws.mfa(code)
        logging.getLogger("vaultd.test").error("seen", exc_info=refused.value)

    assert (refused.value.__cause__, refused.value.__context__) == (None, None)
    assert "seen" in caplog.text
    assert code not in caplog.text
