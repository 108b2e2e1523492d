"""The scenarios of scenarios.md §4.4 through real processes: emulator, daemon, client, stock AWS CLI, boto3."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.process.crowd import Crowd
from tests.process.harness import SHOW_KEYS, Emulator, Home, MovedClock, until

pytestmark = pytest.mark.process

APPS = ("elasticbeanstalk", "describe-applications", "--query", "Applications[].ApplicationName", "--output", "text")
SHOW_APPS = """\
import boto3
print(*(each["ApplicationName"] for each in boto3.client("elasticbeanstalk").describe_applications()["Applications"]))
"""
FIVE = ("web-admin", "audit", "long-ops", "name-lock", "if-exists")


def test_a1_cold(home: Home, emulator: Emulator) -> None:
    """A1: 1 prompt, 1 GetSessionToken, 1 AssumeRole; what boto3 sees ends when STS said."""
    ran = home.client("exec", "web-admin", "--token-code", emulator.code(), "--", "python", "-c", SHOW_KEYS)

    assert ran.status == 0, ran
    assert (home.asked(), emulator.count("GetSessionToken"), emulator.count("AssumeRole")) == (1, 1, 1)
    (issued,) = emulator.calls("AssumeRole")
    assert ran.json() == {"key": issued["issued"], "until": _stamp(issued["expiration"])}


def _stamp(moment: str) -> str:
    return moment.split(".", maxsplit=1)[0].removesuffix("+00:00").removesuffix("Z") + "Z"


def test_a2_another_account_ten_minutes_later(directory: Path, emulator: Emulator, clock: MovedClock) -> None:
    """A2: the MFA session of ten minutes ago opens the other account: 0 prompts, 1 AssumeRole."""
    with Home.make(directory, emulator, **clock.env).daemon() as home:
        home.add(emulator)
        assert home.client("mfa", "--token-code", emulator.code()).status == 0
        before, asked = emulator.count("AssumeRole"), home.asked()
        clock.ahead(600)
        ran = home.client("exec", "audit", "--region", "eu-west-1", "--", "aws", "sts", "get-caller-identity")

    assert ran.status == 0, ran
    assert ran.json()["Account"] == "345678901234"
    assert (asked, home.asked()) == (1, 1)
    assert (before, emulator.count("AssumeRole"), emulator.count("GetSessionToken")) == (0, 1, 1)


@pytest.fixture
def crowd(request: pytest.FixtureRequest, home: Home) -> Iterator[Crowd]:
    count: int
    profiles: tuple[str, ...]
    count, profiles = request.param
    commands = (("vault-client", "exec", profiles[index % len(profiles)], "--", "true") for index in range(count))
    made = Crowd(home, commands)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("crowd", "roles"),
    [((20, ("web-admin",)), 1), ((200, FIVE), 5)],
    indirect=["crowd"],
    ids=["20-of-one-profile", "200-of-five-profiles"],
)
def test_a3_a_crowd_cold(crowd: Crowd, roles: int, home: Home, emulator: Emulator) -> None:
    """A3: many `exec`, the code given once: 1 prompt, 1 GetSessionToken, one AssumeRole a profile, none fails."""
    until(lambda: crowd.asked() == len(crowd.children), "every window shows the question", seconds=90)
    assert home.client("mfa", "--token-code", emulator.code()).status == 0
    until(crowd.ended, "every command ends", seconds=90)

    failed = [screen for child, screen in zip(crowd.children, crowd.screens.values(), strict=True) if child.returncode]
    assert failed == []
    assert all("\r\x1b[Kanswered elsewhere" in screen for screen in crowd.screens.values())
    assert (home.asked(), emulator.count("GetSessionToken"), emulator.count("AssumeRole")) == (1, 1, roles)


def test_a5_wrong_then_right(home: Home, emulator: Emulator) -> None:
    """A5: the question comes again and says why; the right code opens; no code went out twice."""
    use = ("vault-client", "use", "web-admin", "--shell", "/bin/sh")
    with home.terminal(*use, environment={"PS1": "here$ "}) as shell:
        shell.expect_exact("MFA code: ")
        shell.sendline(_other(emulator))
        shell.expect_exact("AWS refused that code as invalid (2 left): type the next one that the device shows")
        shell.expect_exact("MFA code: ")
        shell.sendline(emulator.code())
        shell.expect_exact("using web-admin (account 234567890123 role WebAdmin, session until ")
        shell.expect_exact("here$ ")
        shell.sendline("exit")
        shell.expect(pexpect.EOF)

    codes = [call["code"] for call in emulator.calls("GetSessionToken")]
    assert [call["error"] for call in emulator.calls("GetSessionToken")] == ["AccessDenied", ""]
    assert len(codes) == len(set(codes)) == 2


def test_a6_three_wrong_codes(home: Home, emulator: Emulator) -> None:
    """A6: at most 3 MFA calls, then a clear error and a cool-down in which nothing more is asked or sent."""
    with home.terminal("vault-client", "exec", "web-admin", "--", "true") as shell:
        for wrong in _others(emulator, 3):
            shell.expect_exact("MFA code: ")
            shell.sendline(wrong)
        shell.expect(r"vault-client: AWS refused 3 codes for \S+mfa/franklin: wait (\d+) s, then type `.*`\.?\r\n")
        shell.expect(pexpect.EOF)
    again = home.client("exec", "web-admin", "--", "true")

    assert shell.exitstatus == 1
    assert emulator.count("GetSessionToken") == 3
    assert again.status == 1, again
    assert "AWS refused 3 codes" in again.err
    assert emulator.count("GetSessionToken") == 3


def _others(emulator: Emulator, count: int) -> list[str]:
    """Codes that the phone does not show, now or next to now."""
    shown = {emulator.code(step=step) for step in range(-3, 4)}
    found = (f"{number:06}" for number in range(100_000, 999_999))
    return [each for each, _ in zip((code for code in found if code not in shown), range(count), strict=False)]


def _other(emulator: Emulator) -> str:
    return _others(emulator, 1)[0]


def test_a13_cancelled(directory: Path, emulator: Emulator, clock: MovedClock) -> None:
    """A13: after a cancel, 100 requests a second for a minute open no question, and each is told what to type."""
    with Home.make(directory, emulator, **clock.living).daemon() as home:
        home.add(emulator)
        token = home.use("web-admin", emulator)["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
        home.client("clear")
        first = home.get(token)
        with home.terminal("vault-client", "mfa") as shell:
            shell.expect_exact("MFA code: ")
            shell.sendintr()
            shell.expect_exact("cancelled: wait 30 s, then type `vault-client mfa identity`")
            shell.expect(pexpect.EOF)
        asked = home.asked()
        answers = list(_minute(home, token, clock))

    assert (first.status, first.code) == (403, "MfaRequired")
    assert {status for status, _ in answers} == {403}
    assert len(answers) == 6000
    assert {code for _, (code, _) in answers} == {"MfaRequired"}
    assert all("vault-client mfa" in message for _, (_, message) in answers)
    assert home.asked() == asked == 2
    assert emulator.count("GetSessionToken") == 1


def _minute(home: Home, token: str, clock: MovedClock) -> Iterator[tuple[int, tuple[str, str]]]:
    connection = http.client.HTTPConnection("127.0.0.1", home.port, timeout=30)
    for _ in range(60):
        for _ in range(100):
            connection.request("GET", "/v1/credentials/web-admin", headers={"Authorization": token})
            reply = connection.getresponse()
            body = json.load(reply)
            yield reply.status, (body["code"], body["message"])
        clock.step(1, turns=1)
    connection.close()


def test_c1_two_hours(home: Home, emulator: Emulator) -> None:
    """C1: above an hour the code goes to AssumeRole directly: no chain, no GetSessionToken, and two hours served."""
    ran = home.client("exec", "long-ops-2h", "--token-code", emulator.code(), "--", "python", "-c", SHOW_KEYS)

    assert ran.status == 0, ran
    (call,) = emulator.calls("AssumeRole")
    assert emulator.count("GetSessionToken") == 0
    assert (call["mfa"], call["credential"], int(call["params"]["DurationSeconds"])) == (True, "long-term", 7200)
    assert ran.json()["until"] == _stamp(call["expiration"])


def test_d1_two_errors_of_aws(home: Home, emulator: Emulator) -> None:
    """D1: 500, 500, ok on a refresh: 3 calls, and the new session is served."""
    token = home.use("web-admin", emulator)["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
    before = json.loads(home.get(token).body)["AccessKeyId"]
    emulator.fault("http", op="AssumeRole", times=2, arg=500)
    ran = home.client("refresh", "web-admin")
    until(lambda: json.loads(home.get(token).body)["AccessKeyId"] != before, "the new session is served")

    assert [call["status"] for call in emulator.calls("AssumeRole")] == [200, 500, 500, 200]
    assert ran.status in {0, 75}, ran


def test_d3_sts_down_and_nothing_left(directory: Path, emulator: Emulator, clock: MovedClock) -> None:
    """D3: the session has ended and AWS is away: 503 with the reason in under 1.5 s, and nothing stale."""
    with Home.make(directory, emulator, **clock.env).daemon() as home:
        home.add(emulator)
        token = home.use("audit", emulator)["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
        served = home.get(token, "audit")
        emulator.fault("reset", op="AssumeRole", times=0)
        clock.ahead(3700)
        took, replies = [], []
        for _ in range(3):
            began = time.monotonic()
            replies.append(home.get(token, "audit"))
            took.append(time.monotonic() - began)
        client = home.client("exec", "audit", "--", "true")

    assert served.status == 200
    assert [(each.status, each.code) for each in replies] == [(503, "StsUnavailable")] * 3
    assert all("AccessKeyId" not in each.body.decode() for each in replies)
    assert min(took) < 1.5
    assert client.status == 75, client


def test_d8_a_wrong_secret(home: Home, emulator: Emulator) -> None:
    """D8: the stored secret has become wrong: said so after 1 call, without a question, with what to type."""
    key, _ = emulator.key()
    before = len(emulator.calls())
    other = "another/secret+of+forty+characters/00001"
    emulator.ctl("mutate", {"key": {"user": "franklin", "id": key, "secret": other}})
    ran = home.client("exec", "web-admin", "--token-code", emulator.code(), "--", "true")
    again = home.client("exec", "audit", "--", "true")

    assert ran.status == 1, ran
    assert "secret" in ran.err
    assert "vault-client add identity --replace" in ran.err
    assert (again.status, len(emulator.calls()) - before) == (1, 1), again
    assert home.events("mfa.answer") <= 1


#: Debian's AWS CLI 2.9 does not read AWS_ENDPOINT_URL yet, so it is told where the emulated AWS is.
@pytest.mark.parametrize(
    ("aws", "version"),
    [("aws", "aws-cli/1."), pytest.param("/usr/bin/aws", "aws-cli/2.", marks=pytest.mark.needs("/usr/bin/aws"))],
    ids=["v1", "v2"],
)
def test_g6_stock_aws_cli(aws: str, version: str, home: Home, emulator: Emulator) -> None:
    """G6: AWS CLI v1 of the package index, v2 of Debian, unchanged: the production account's application is printed."""
    run = ("exec", "web-admin", "--token-code", emulator.code(), "--", aws)
    told = home.client(*run, "--version")
    ran = home.client(*run, *APPS, "--endpoint-url", emulator.url)

    assert told.out.startswith(version), told
    assert (ran.status, ran.out) == (0, "prod-app\n"), ran
    assert emulator.calls("DescribeApplications")[-1]["account"] == "234567890123"


def test_g6_boto3(home: Home, emulator: Emulator) -> None:
    """G6: a boto3 script, unchanged, by `exec` and by the variables of `use`; the audit names the process."""
    ran = home.client("exec", "web-admin", "--token-code", emulator.code(), "--", "python", "-c", SHOW_APPS)
    used = home.run("python", "-c", SHOW_APPS, environment=home.use("web-admin", emulator))

    assert (ran.out, used.out) == ("prod-app\n", "prod-app\n")
    events = home.client("log", "--json").json()["events"]
    serves = [line for line in events if line["event"] == "credentials.serve"]
    assert len(serves) == 2
    assert all("python" in line["peer"]["exe"] for line in serves)
