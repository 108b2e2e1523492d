"""The federation endpoint on the strict emulator: what is sent, what is refused, and what is tried again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.aws.rooms import HOUR, Aws, SkippingClock
from tests.aws.test_proxy import proxied
from tests.model.test_console import PARTITIONS
from tests.strict_sts import StrictSts
from vaultd.aws.clients import Network
from vaultd.aws.console import FederationConsole
from vaultd.engine.seams import SignedIn, SignIn
from vaultd.errors import Misconfigured, SessionRejected, StsUnavailable, Throttled, VaultdError
from vaultd.model.console import site
from vaultd.model.credentials import RoleSession

OP = "getSigninToken"


async def straight(aws: Aws) -> RoleSession:
    """By the key of a user without MFA: nothing is chained."""
    return await aws.assume(aws.key("robot"), "Plain")


async def chained(aws: Aws) -> RoleSession:
    return await aws.assume(await aws.mfa())


def order(aws: Aws, session: RoleSession, duration: timedelta | None = None, **changed: str) -> SignIn:
    asked = {"partition": "aws", "region": "us-east-2", **changed}
    where = site(**asked, service="s3", logout_first=False, override=f"{aws.strict.url}/federation")
    return SignIn(session, where, replace(aws.endpoint(), signin_url=where.federation), "web-admin", duration)


async def signed(aws: Aws, session: RoleSession, duration: timedelta | None = None) -> SignedIn:
    return await FederationConsole(calls=aws.calls).url(order(aws, session, duration))


def sent(aws: Aws) -> list[tuple[str | None, int]]:
    """SessionDuration and status of each call."""
    return [(call.params.get("SessionDuration"), call.status) for call in aws.strict.calls(OP)]


async def test_g5_chained_without_session_duration(aws: Aws) -> None:
    """G5, via M: SessionDuration is absent, and the URL signs in."""
    made = await signed(aws, await chained(aws))

    assert (made.duration, sent(aws)) == (None, [(None, 200)])
    given = parse_qs(urlsplit(made.url.reveal()).query)
    assert given["Destination"] == ["https://us-east-2.console.aws.amazon.com/s3/home?region=us-east-2"]
    assert "canary" not in repr(made)
    assert given["SigninToken"][0] not in repr(made)


async def test_g5_straight_with_session_duration(aws: Aws) -> None:
    """G5, direct: SessionDuration is present."""
    assert (await signed(aws, await straight(aws), 8 * HOUR)).duration == 8 * HOUR
    assert sent(aws) == [("28800", 200)]


async def test_a_session_duration_that_aws_refuses(aws: Aws) -> None:
    """A session that was straight in our books only: once without, and the answer says that it was not taken."""
    assert (await signed(aws, await chained(aws), 8 * HOUR)).duration is None
    assert sent(aws) == [("28800", 400), (None, 200)]


async def test_keys_go_in_the_body(aws: Aws) -> None:
    """POST, and no key in the URL; the emulator refuses a GET (control: tests/strict_sts/test_federation.py)."""
    await signed(aws, await chained(aws))
    (call,) = aws.strict.calls(OP)
    assert (call.status, call.user_agent) == (200, "vaultd")


async def test_a_session_that_ended_at_aws(aws: Aws) -> None:
    """One call: nothing that is refused is sent again."""
    session = await chained(aws)
    aws.strict.revoke(akid=session.access_key_id)

    with pytest.raises(SessionRejected):
        await signed(aws, session)
    assert sent(aws) == [(None, 400)]


async def test_an_mfa_session_is_refused(aws: Aws) -> None:
    """GetSessionToken's keys open no console (aws-facts §2.3)."""
    mfa = await aws.mfa()
    keys = (mfa.access_key_id, mfa.secret_access_key, mfa.session_token)
    with pytest.raises(SessionRejected):
        await signed(aws, RoleSession(*keys, mfa.handle.issued, mfa.handle.expiration, "123456789012"))


@pytest.mark.parametrize(
    ("fault", "how", "raised", "said"),
    [
        ("http", {"arg": 429}, Throttled, "throttles GetSigninToken"),
        ("http", {"arg": 503}, StsUnavailable, "GetSigninToken answered 503"),
        ("http", {"arg": 302}, StsUnavailable, "GetSigninToken answered 302"),
        ("html200", {}, StsUnavailable, "made no sense"),
        ("truncate", {"when": "after"}, StsUnavailable, "was cut or made no sense"),
        ("reset", {}, StsUnavailable, "was cut"),
    ],
)
async def test_what_is_temporary(
    aws: Aws, fault: str, how: dict[str, object], raised: type[VaultdError], said: str
) -> None:
    """Three tries, then one sentence of ours; when it passes after two, nobody hears of it."""
    session = await chained(aws)
    aws.strict.fault(fault, op=OP, times=3, **how)

    with pytest.raises(raised) as failed:
        await signed(aws, session)
    assert said in failed.value.message
    assert session.session_token.reveal()[:20] not in failed.value.message
    assert len(sent(aws)) == 3

    aws.strict.fault(fault, op=OP, times=2, **how)
    await signed(aws, session)
    assert len(sent(aws)) == 6


@pytest.mark.parametrize(("partition", "region", "signin", "_console"), PARTITIONS)
async def test_g5_the_way_there_is_the_proxys(
    aws: Aws, clock: SkippingClock, partition: str, region: str, signin: str, _console: str
) -> None:
    """G5: each partition's own host is asked for, through `[aws] https_proxy`; its certificate is not ours here, so
    nothing is sent.
    """
    session = await chained(aws)
    where = site(partition=partition, region=region, service=None, logout_first=False, override=None)
    async with proxied(int(aws.strict.url.rsplit(":", 1)[1])) as proxy:
        behind = Aws(aws.strict, clock, network=Network(https_proxy=proxy.url))
        asked = SignIn(session, where, replace(aws.endpoint(), signin_url=where.federation), "web-admin")
        with pytest.raises(StsUnavailable) as failed:
            await FederationConsole(calls=behind.calls).url(asked)

    assert [line.rpartition(" ")[0] for line in proxy.asked] == [f"CONNECT {signin}:443"] * 3
    assert "hunter2" not in failed.value.message
    assert aws.strict.calls(OP) == []


async def test_a_proxy_that_is_down(aws: Aws, clock: SkippingClock, strict: StrictSts) -> None:
    """Unavailable, and its password is not told."""
    session = await chained(aws)
    where = site(partition="aws", region=None, service=None, logout_first=False, override=None)
    async with proxied(1) as proxy:
        pass
    behind = Aws(strict, clock, network=Network(https_proxy=proxy.url))
    asked = SignIn(session, where, replace(aws.endpoint(), signin_url=where.federation), "web-admin")
    with pytest.raises(StsUnavailable, match="the connection could not be made") as failed:
        await FederationConsole(calls=behind.calls).url(asked)
    assert "hunter2" not in failed.value.message


async def test_the_last_gate(aws: Aws) -> None:
    """Whatever was checked above: keys leave for no other host, and nothing is connected."""
    asked = order(aws, await chained(aws))
    asked = replace(asked, endpoint=replace(asked.endpoint, signin_url="https://signin.evil.example/federation"))
    with pytest.raises(Misconfigured, match=r"keys are not sent to signin\.evil\.example"):
        await FederationConsole(calls=aws.calls).url(asked)
    assert aws.strict.calls(OP) == []


async def test_loopback_is_not_the_proxys(aws: Aws, clock: SkippingClock) -> None:
    """It has another one: VAULTD_FEDERATION_URL there is connected to from here. Control: the partitions above."""
    session = await chained(aws)
    port = int(aws.strict.url.rsplit(":", 1)[1])
    async with proxied(port) as proxy:
        behind = Aws(aws.strict, clock, network=Network(https_proxy=proxy.url))
        asked = order(aws, session)
        asked = replace(asked, endpoint=replace(asked.endpoint, signin_url=f"https://127.0.0.1:{port}/federation"))
        with pytest.raises(StsUnavailable, match="TLS"):
            await FederationConsole(calls=behind.calls).url(asked)
    assert proxy.asked == []


@pytest.mark.parametrize("whose", ["the profile's", "ours"])
async def test_a_ca_bundle_that_is_not_there(aws: Aws, clock: SkippingClock, whose: str) -> None:
    """Whom keys are sent to is told by the bundle that STS has: without it they are sent to nobody."""
    asked, gone = order(aws, await chained(aws)), "/nowhere/ca.pem"
    behind = Aws(aws.strict, clock, network=Network(ca_bundle=gone if whose == "ours" else None))
    if whose != "ours":
        asked = replace(asked, endpoint=replace(asked.endpoint, ca_bundle=gone))
    with pytest.raises(Misconfigured, match=r"the CA bundle /nowhere/ca\.pem is not there; set ca_bundle"):
        await FederationConsole(calls=behind.calls).url(asked)
    assert aws.strict.calls(OP) == []
