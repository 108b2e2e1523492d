"""Every fault kind as stock boto3 meets it, which calls it meets, and what had happened at AWS by then."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError
from botocore.parsers import ResponseParserError

from tests.strict_sts.bench import Bench, message, outcome
from tests.strict_sts.live import role


def raised(call: Callable[[], object]) -> type[BaseException] | None:
    try:
        call()
    except Exception as exc:  # noqa: BLE001 - the kind is what is asked
        return type(exc)
    return None


@pytest.mark.parametrize("status", [500, 502, 503])
def test_http(bench: Bench, status: int) -> None:
    """Before: nothing happened, the code is still good; once, and no more."""
    bench.strict.fault("http", op="GetSessionToken", arg=status)
    code = bench.strict.totp()
    with pytest.raises(ClientError) as failed:
        bench.mfa(TokenCode=code)

    assert failed.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert outcome(lambda: bench.mfa(TokenCode=code)) == "allowed"
    assert [(call.status, call.fault, call.code) for call in bench.strict.calls()] == [
        (status, "http", 1),
        (200, "", 1),
    ]


def test_after_means_that_it_happened(bench: Bench) -> None:
    """After: the session was issued, the client does not know, and the code is gone (A9)."""
    bench.strict.fault("http", op="GetSessionToken", when="after")
    code = bench.strict.totp()
    assert outcome(lambda: bench.mfa(TokenCode=code)) == "InternalFailure"

    assert outcome(lambda: bench.mfa(TokenCode=code)) == "AccessDenied"
    assert bench.strict.calls()[0].issued.startswith("ASIA")


def test_throttle_and_error(bench: Bench) -> None:
    """400 Throttling with AWS's text, and any error that a test words itself."""
    bench.strict.fault("throttle")
    assert message(bench.client("sts").get_caller_identity) == "Rate exceeded"

    bench.strict.fault("error", arg={"status": 403, "code": "Odd", "message": "Never seen."})
    assert message(bench.client("sts").get_caller_identity) == "Never seen."


def test_latency(bench: Bench) -> None:
    """Waits, then answers truly."""
    bench.strict.fault("latency", arg=0.2)
    began = time.monotonic()

    assert outcome(bench.client("sts").get_caller_identity) == "allowed"
    assert time.monotonic() - began >= 0.2


def test_hang(bench: Bench) -> None:
    """No answer until the client leaves; other calls go on meanwhile; the row is there at once, with status 0."""
    bench.strict.fault("hang", op="GetSessionToken")

    hanging = bench.client("sts", read_timeout=0.3).get_session_token
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(raised, hanging)
        assert outcome(bench.client("sts").get_caller_identity) == "allowed"
        assert waiting.result() is ReadTimeoutError
    assert [(call.status, call.fault) for call in bench.strict.calls("GetSessionToken")] == [(0, "hang")]


def test_reset_lets_go_of_what_hangs(bench: Bench) -> None:
    """`reset` cuts a hanging call, so that no test waits for a time-out of sixty seconds."""
    bench.strict.fault("hang", op="GetSessionToken")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(raised, bench.client("sts").get_session_token)
        while not bench.strict.calls():
            time.sleep(0.01)  # until the call has arrived: it runs in a real thread
        bench.strict.reset()
        assert waiting.result(10) is ConnectionClosedError


@pytest.mark.parametrize(
    ("kind", "seen"),
    [
        ("reset", ConnectionClosedError),
        ("truncate", ResponseParserError),
        ("badxml", ResponseParserError),
        ("html200", KeyError),
    ],
)
def test_broken_answers(bench: Bench, kind: str, seen: type[BaseException]) -> None:
    """Each breaks botocore its own way, a well-formed captive portal with a bare KeyError, and none lasts."""
    bench.strict.fault(kind)

    assert raised(bench.client("sts").get_caller_identity) is seen
    assert outcome(bench.client("sts").get_caller_identity) == "allowed"


def test_truncated_truth(bench: Bench) -> None:
    """After: half of the true answer, the call having happened."""
    bench.strict.fault("truncate", op="GetSessionToken", when="after")

    assert raised(bench.mfa) is ResponseParserError
    assert bench.strict.calls()[0].issued


def test_past_expiration(bench: Bench) -> None:
    """The issued session is over already, by its own word and for AWS."""
    bench.strict.fault("past_expiration", op="GetSessionToken", arg=30)
    keys = bench.mfa()

    assert (bench.strict.clock.now() - keys["Expiration"]).total_seconds() == 30
    assert outcome(lambda: bench.assume("WebAdmin", keys)) == "ExpiredToken"


def test_a_life_of_choice(bench: Bench) -> None:
    """Less than nothing ago is ahead: a session of that life, for the role sessions of that name alone."""
    keys = bench.mfa()
    bench.strict.fault("past_expiration", op="AssumeRole", session_name="short-lived", arg=-40, times=0)
    lives = [
        (bench.assume("LongOps", keys, RoleSessionName=name)["Expiration"] - bench.strict.clock.now()).total_seconds()
        for name in ("short-lived", "other", "short-lived")
    ]

    assert lives == [40, 3600, 40]


def test_matching(bench: Bench) -> None:
    """op, akid, account, region and nth choose the call; times says how often."""
    keys = bench.mfa()
    here, there = bench.client("sts", keys), bench.client("sts", keys, region="eu-west-1")
    robot = bench.client("sts", user="robot")

    bench.strict.fault("throttle", op="GetCallerIdentity", region="eu-west-1", account="123456789012", nth=2, times=2)
    seen = [outcome(client.get_caller_identity) for client in (there, here, there, there, there)]
    assert seen == ["allowed", "allowed", "Throttling", "Throttling", "allowed"]

    bench.strict.fault("throttle", akid=keys["AccessKeyId"], times=0)
    assert [outcome(client.get_caller_identity) for client in (here, robot, here)] == [
        "Throttling",
        "allowed",
        "Throttling",
    ]
    bench.strict.reset()
    assert outcome(robot.get_caller_identity) == "allowed"


def test_a_misspelt_fault_is_an_error(bench: Bench) -> None:
    """Positive control of every test that plants one."""
    for wrong in ({"kind": "htpp"}, {"kind": "http", "when": "during"}):
        with pytest.raises(ValueError, match="fault"):
            bench.strict.fault(**wrong)
    assert role("Audit").startswith("arn:aws:iam::345678901234:")
