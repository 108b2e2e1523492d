"""Key, token, signature, skew, expiry, propagation: checked in that order and before anything else (scenarios §4.2)."""

import re
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.strict_sts.bench import Bench, message, outcome
from tests.strict_sts.live import SERIAL, StrictSts, StrictStsThread
from tests.strict_sts.sessions import GST_MFA


def identity(bench: Bench, keys: dict[str, str] | None = None) -> object:
    return bench.client("sts", keys).get_caller_identity()


def test_right_key(bench: Bench) -> None:
    """Positive control of every refusal below: the true key is served, and the answer names its user."""
    assert bench.client("sts").get_caller_identity()["Arn"] == "arn:aws:iam::123456789012:user/franklin"
    assert [(call.status, call.credential) for call in bench.strict.calls()] == [(200, "long-term")]


def test_unknown_key(bench: Bench) -> None:
    """aws-facts §1.5 row 10."""
    stranger = {"AccessKeyId": "AKIAUNKNOWNUNKNOWN00", "SecretAccessKey": "x"}

    assert outcome(lambda: identity(bench, stranger)) == "InvalidClientTokenId"


@pytest.mark.parametrize("status", ["Inactive", "deleted"])
def test_key_switched_off(bench: Bench, status: str) -> None:
    """Inactive and deleted keys are refused alike; moto takes both (aws-facts §3)."""
    key = bench.strict.key()
    mine = {"AccessKeyId": key.id, "SecretAccessKey": key.secret}
    assert outcome(lambda: identity(bench, mine)) == "allowed"
    bench.strict.mutate(key={"id": key.id, "status": status})

    assert outcome(lambda: identity(bench, mine)) == "InvalidClientTokenId"


def test_wrong_secret(bench: Bench) -> None:
    """aws-facts §1.5 row 11."""
    wrong = {"AccessKeyId": bench.strict.key().id, "SecretAccessKey": "wrong"}

    assert outcome(lambda: identity(bench, wrong)) == "SignatureDoesNotMatch"


@pytest.mark.parametrize("token", ["", "another"])
def test_token_of_another_key(bench: Bench, token: str) -> None:
    """A session's key without its token, or with another one, is no key (aws-facts §1.5 row 10)."""
    keys = dict(bench.mfa())

    assert outcome(lambda: identity(bench, keys)) == "allowed"
    assert outcome(lambda: identity(bench, keys | {"SessionToken": token})) == "InvalidClientTokenId"


@pytest.mark.parametrize(("skew", "seen"), [(890, "allowed"), (-890, "allowed"), (910, "late"), (-910, "early")])
def test_skew(bench: Bench, skew: int, seen: str) -> None:
    """15 minutes either way, by the wire clock; the text holds all three times (aws-facts §1.5 row 12)."""
    bench.strict.wire_skew(skew)

    if seen == "allowed":
        assert outcome(lambda: identity(bench)) == "allowed"
        return
    text = message(lambda: identity(bench))
    stamp = r"\d{8}T\d{6}Z"
    late = rf"Signature expired: {stamp} is now earlier than {stamp} \({stamp} - 15 min\.\)"
    early = rf"Signature not yet current: {stamp} is still later than {stamp} \({stamp} \+ 15 min\.\)"
    assert re.fullmatch(late if seen == "late" else early, text)


def test_skew_knob(bench: Bench) -> None:
    """`skew_s` moves the limit: other services have 5 minutes."""
    bench.strict.set_knobs(skew_s=300)
    bench.strict.wire_skew(310)

    assert outcome(lambda: identity(bench)) == "SignatureDoesNotMatch"


def test_logical_clock_does_not_break_signatures(bench: Bench) -> None:
    """Two clocks: ten logical days on, today's signature still holds (scenarios §4.2)."""
    bench.strict.clock.advance(10 * 86400)

    assert outcome(lambda: identity(bench)) == "allowed"


@pytest.mark.parametrize(("seconds", "seen"), [(899, "allowed"), (900, "ExpiredToken")])
def test_expiry(bench: Bench, seconds: int, seen: str) -> None:
    """A session ends at its Expiration; moto never ends one (aws-facts §3)."""
    keys = dict(bench.mfa(DurationSeconds=900))
    bench.strict.clock.advance(seconds)

    assert outcome(lambda: identity(bench, keys)) == seen


@pytest.mark.parametrize(("as_", "seen"), [("expired", "ExpiredToken"), ("invalid", "InvalidClientTokenId")])
def test_revoke(bench: Bench, as_: str, seen: str) -> None:
    """A test ends sessions, those that match only."""
    keys, other = dict(bench.mfa()), dict(bench.plain())

    assert bench.strict.revoke(user="franklin", kind=GST_MFA, as_=as_) == 1
    assert outcome(lambda: identity(bench, keys)) == seen
    assert outcome(lambda: identity(bench, other)) == "allowed"


def test_new_key_propagates_service_by_service(bench: Bench) -> None:
    """A new key works after a while, and at STS before IAM when the knob says so (aws-facts §2.1, E4)."""
    bench.strict.set_knobs(key_propagation_s={"sts": 12, "iam": 20})
    created = bench.client("iam", bench.mfa()).create_access_key()["AccessKey"]

    def seen() -> tuple[str, str]:
        return (
            outcome(lambda: bench.client("sts", created).get_caller_identity()),
            outcome(lambda: bench.client("iam", created).get_user()),
        )

    assert seen() == ("InvalidClientTokenId", "InvalidClientTokenId")
    bench.strict.clock.advance(12)
    assert seen() == ("allowed", "InvalidClientTokenId")
    bench.strict.clock.advance(8)
    assert seen() == ("allowed", "allowed")


def test_order(bench: Bench) -> None:
    """Key, signature, skew, expiry in that order; parameter limits before the code is touched (scenarios §4.2)."""
    keys = dict(bench.mfa(DurationSeconds=900))
    bench.strict.clock.advance(901)
    bench.strict.wire_skew(1000)
    wrong = keys | {"SecretAccessKey": "wrong"}
    seen = [message(lambda: identity(bench, wrong)), message(lambda: identity(bench, keys))]
    bench.strict.wire_skew(0)
    seen.append(message(lambda: identity(bench, keys)))
    bench.strict.revoke(akid=keys["AccessKeyId"], as_="invalid")
    seen.append(message(lambda: identity(bench, wrong)))

    starts = ("The request signature", "Signature expired", "The security token included in the request is expired")
    assert all(text.startswith(start) for text, start in zip(seen, starts, strict=False))
    assert seen[3] == "The security token included in the request is invalid."

    shown: dict[str, Any] = {"SerialNumber": SERIAL, "TokenCode": bench.strict.totp()}
    assert outcome(lambda: bench.assume("WebAdmin", RoleSessionName="a b", **shown)) == "ValidationError"
    assert outcome(lambda: bench.assume("WebAdmin", **shown)) == "allowed"


def test_unsigned(strict: StrictStsThread) -> None:
    """A call without a signature is refused, not served as somebody."""
    with pytest.raises(urllib.error.HTTPError, match="403") as refused:
        urllib.request.urlopen(strict.url, data=b"Action=GetCallerIdentity&Version=2011-06-15")

    assert b"MissingAuthenticationToken" in refused.value.read()
    refused.value.close()


def test_unknown_operation(bench: Bench) -> None:
    """400 InvalidAction and not 500, which botocore would retry (aws-facts §3)."""
    assert outcome(lambda: bench.client("sts").decode_authorization_message(EncodedMessage="x")) == "InvalidAction"
    assert outcome(lambda: bench.client("iam", bench.mfa()).list_roles()) == "InvalidAction"
    assert {call.status for call in bench.strict.calls() if call.error} == {400}


async def test_in_the_tests_own_loop() -> None:
    """`StrictSts` starts, says where it is and stops, in a loop that belongs to the test."""
    async with StrictSts() as strict:
        assert {each.removesuffix("/federation") for each in strict.env.values()} == {strict.url}
        assert strict.totp() != strict.totp(step=1)
        assert strict.seed()
