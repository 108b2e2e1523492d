"""What is tried again, how often, and what a code is never sent twice for (aws-facts §1.3(6), §1.5 rows 13 and 19)."""

from __future__ import annotations

import pytest

from tests.aws.rooms import Aws, SkippingClock
from tests.strict_sts import StrictSts
from vaultd.aws.clients import Network
from vaultd.errors import RoleDenied, StsUnavailable, Throttled
from vaultd.model.partitions import Endpoint

QUICK = Network(read_timeout=0.2, connect_timeout=0.2)
BROKEN = ["http", "reset", "truncate", "html200", "badxml", "past_expiration"]


async def test_two_retries_then_the_answer(aws: Aws, strict: StrictSts, clock: SkippingClock) -> None:
    """Row 19 for what nobody above repeats: 500, 500, ok is three calls; the pauses grow and are jittered."""
    strict.fault("http", op="ListMFADevices", times=2)

    await aws.devices()

    assert strict.counts()["ListMFADevices"] == 3
    assert clock.slept == [0.4, 0.8]


async def test_three_calls_at_most(aws: Aws, strict: StrictSts) -> None:
    """Then it is told."""
    strict.fault("http", op="ListMFADevices", times=0, arg=503)

    with pytest.raises(StsUnavailable) as away:
        await aws.devices()

    assert strict.counts()["ListMFADevices"] == 3
    assert away.value.details == {"code_sent": False}


async def test_throttling_is_retried_without_a_code(aws: Aws, strict: StrictSts) -> None:
    """Row 13."""
    strict.fault("throttle", op="ListMFADevices", times=2)
    await aws.devices()
    assert strict.counts()["ListMFADevices"] == 3

    strict.fault("throttle", op="ListMFADevices", times=0)
    with pytest.raises(Throttled):
        await aws.devices()


@pytest.mark.parametrize("fault", ["http", "throttle", "reset"])
async def test_sts_is_tried_once(aws: Aws, strict: StrictSts, clock: SkippingClock, fault: str) -> None:
    """seams.Sts: one attempt; repeats and back-off are the engine's, or D2's count of calls would be threefold."""
    mfa = await aws.mfa()
    strict.fault(fault, times=0)

    for call in (aws.assume(mfa), aws.whoami()):
        with pytest.raises(StsUnavailable):
            await call

    assert strict.counts() == {"GetSessionToken": 1, "AssumeRole": 1, "GetCallerIdentity": 1}
    assert clock.slept == []


async def test_no_is_not_retried(aws: Aws, strict: StrictSts) -> None:
    """Patience mends no denial."""
    with pytest.raises(RoleDenied):
        await aws.assume(aws.key())
    assert len(strict.calls()) == 1


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", BROKEN)
async def test_a_code_goes_once_whatever_comes_back(aws: Aws, strict: StrictSts, kind: str, when: str) -> None:
    """A9: one call; StsUnavailable that says the code may be spent, and what to do."""
    strict.fault(kind, when=when, times=0)

    with pytest.raises(StsUnavailable) as away:
        await aws.mfa()

    assert len(strict.calls()) == 1
    assert away.value.details == {"code_sent": True}
    assert away.value.message.startswith("AWS in eu-west-1 is unavailable: ")
    assert away.value.message.endswith("; wait for the next code and try again")


@pytest.mark.parametrize("kind", [kind for kind in BROKEN if kind != "past_expiration"])
async def test_an_answer_without_sense_is_temporary(aws: Aws, strict: StrictSts, kind: str) -> None:
    """A captive portal, a cut line: temporary; never keys that are none."""
    mfa = await aws.mfa()
    strict.fault(kind, op="AssumeRole", times=0)

    with pytest.raises(StsUnavailable):
        await aws.assume(mfa)
    strict.reset()


async def test_a_throttled_code_is_not_resent_here(aws: Aws, strict: StrictSts) -> None:
    """Whether it may go again is the keeper's to say."""
    strict.fault("throttle", times=0)

    with pytest.raises(Throttled) as throttled:
        await aws.mfa()

    assert len(strict.calls()) == 1
    assert throttled.value.details == {"code_sent": False}


async def test_a_hang_is_one_attempt_with_a_code(strict: StrictSts, clock: SkippingClock) -> None:
    """A11: given up at the read time-out; other calls go on meanwhile and after."""
    aws = Aws(strict, clock, network=QUICK)
    strict.fault("hang", op="GetSessionToken", times=0)

    with pytest.raises(StsUnavailable, match="no answer came in time") as away:
        await aws.mfa()

    assert away.value.details == {"code_sent": True}
    assert strict.counts()["GetSessionToken"] == 1
    await aws.whoami()


async def test_a_hang_is_given_up_at_the_deadline(strict: StrictSts, clock: SkippingClock) -> None:
    """The time-outs of a socket do not bound a call that drips, or a name server: our own deadline does."""
    aws = Aws(strict, clock, deadline=0.2)
    await aws.calls.warm()
    strict.fault("hang", op="GetSessionToken", times=0)

    with pytest.raises(StsUnavailable) as away:
        await aws.mfa()
    assert away.value.details == {"code_sent": True}


async def test_retries_stay_within_ten_seconds(strict: StrictSts, clock: SkippingClock) -> None:
    """Row 19: a retry that would begin after the deadline is not begun."""

    class Slow(SkippingClock):
        def boottime(self) -> float:
            self._boot += 3
            return self._boot

    aws = Aws(strict, Slow())
    strict.fault("http", times=0)

    with pytest.raises(StsUnavailable):
        await aws.devices()
    assert len(strict.calls()) == 2


async def test_no_connection_sends_no_code(aws: Aws) -> None:
    """Nobody listens: the code has not left, and that is said."""
    nobody = Endpoint("eu-west-1", sts_url="http://127.0.0.1:9")

    with pytest.raises(StsUnavailable, match="the connection could not be made") as away:
        await aws.mfa(endpoint=nobody)

    assert away.value.details == {"code_sent": False}


async def test_each_call_has_its_own_connection(aws: Aws, strict: StrictSts) -> None:
    """A kept connection that died in suspend would cost a code."""
    await aws.whoami()
    strict.fault("reset", times=1, nth=5)  # positive control of the fixture: nothing yet
    await aws.whoami()

    sent: list[str] = []
    for client in aws.clients._clients.values():
        client.meta.events.register_last("before-send", lambda request, **_: sent.append(request.headers["Connection"]))
    await aws.whoami()
    assert sent == ["close"]
