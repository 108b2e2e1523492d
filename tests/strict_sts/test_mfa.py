"""Token codes: right, wrong, spent, too early, too late, another's; and what MFA then opens (aws-facts §1.2)."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.strict_sts.bench import Bench, message, outcome
from tests.strict_sts.live import FRANKLIN, ROBOT, SERIAL, StrictStsThread

WRONG = "MultiFactorAuthentication failed with invalid MFA one time pass code."
UNKNOWN = "MultiFactorAuthentication failed, unable to validate MFA code.  Please verify your MFA serial number"


def test_rfc_6238_vector(strict: StrictStsThread) -> None:
    """The codes are RFC 6238's own: appendix B, SHA-1, T=59 and T=1111111109, last six digits."""
    seed = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
    strict.mutate(device={"serial": "rfc-device", "user": "franklin", "seed": seed})
    at = strict.clock.now().timestamp()

    strict.clock.advance(59 - at)
    assert strict.totp("rfc-device") == "287082"
    strict.clock.advance(1111111109 - 59)
    assert strict.totp("rfc-device") == "081804"


def test_a_code_works_once(bench: Bench) -> None:
    """The second use of a code reads exactly like a wrong one (aws-facts §1.5 row 1), also for another role."""
    code = bench.strict.totp()
    shown: dict[str, Any] = {"SerialNumber": SERIAL, "TokenCode": code}
    bench.client("sts").get_session_token(**shown)

    assert message(lambda: bench.client("sts").get_session_token(**shown)).startswith(WRONG)
    assert message(lambda: bench.assume("LongOps", **shown)).startswith(WRONG)
    assert [call.code for call in bench.strict.calls()] == [1, 1, 1]


@pytest.mark.parametrize(("step", "seen"), [(-2, "AccessDenied"), (-1, "allowed"), (1, "allowed"), (2, "AccessDenied")])
def test_window(bench: Bench, step: int, seen: str) -> None:
    """One step either side."""
    assert outcome(lambda: bench.mfa(step=step)) == seen


def test_window_knob(bench: Bench) -> None:
    bench.strict.set_knobs(totp_window=0)

    assert outcome(lambda: bench.mfa(step=1)) == "AccessDenied"
    assert outcome(bench.mfa) == "allowed"


def test_twenty_threads_race_one_code(bench: Bench) -> None:
    """Verify and spend are one turn: exactly one of twenty wins."""
    code = bench.strict.totp()
    clients = [bench.client("sts") for _ in range(20)]
    with ThreadPoolExecutor(20) as pool:
        calls = [lambda c=c: c.get_session_token(SerialNumber=SERIAL, TokenCode=code) for c in clients]
        outcomes = list(pool.map(outcome, calls))

    assert sorted(outcomes) == ["AccessDenied"] * 19 + ["allowed"]


@pytest.mark.parametrize("code", ["12345", "1234567", "12a456", "١٢٣٤٥٦"])
def test_malformed_code(bench: Bench, code: str) -> None:
    """400 ValidationError that echoes the code (aws-facts §1.5 row 4); Arabic-Indic digits are none for AWS."""
    client = bench.client("sts", parameter_validation=False)
    text = message(lambda: client.get_session_token(SerialNumber=SERIAL, TokenCode=code))

    assert "validation error" in text
    assert f"Value '{code}' at 'tokenCode' failed to satisfy constraint" in text


def test_half_of_the_pair(bench: Bench) -> None:
    """Row 2: serial without code and code without serial."""
    for half in ({"SerialNumber": SERIAL}, {"TokenCode": "123456"}):
        text = message(lambda half=half: bench.client("sts").get_session_token(**half))  # type: ignore[misc]
        assert "must provide both MFA serial number and one time pass code" in text


@pytest.mark.parametrize("serial", ["arn:aws:iam::123456789012:mfa/nobody", FRANKLIN])
def test_unknown_device(bench: Bench, serial: str) -> None:
    """Row 3: no such device, and the user's ARN in the place of a serial."""
    shown = {"SerialNumber": serial, "TokenCode": bench.strict.totp()}

    assert message(lambda: bench.client("sts").get_session_token(**shown)).startswith(UNKNOWN)


def test_somebody_elses_device_and_a_passkey(bench: Bench) -> None:
    """Row 3 too: franklin's device for robot, and a FIDO key, which STS never takes (aws-facts §1.1)."""
    fido = "arn:aws:iam::123456789012:u2f/user/franklin/key-ABC"
    bench.strict.mutate(device={"serial": fido, "user": FRANKLIN, "kind": "u2f"})
    robot = bench.client("sts", user="robot")
    shown = {"SerialNumber": SERIAL, "TokenCode": bench.strict.totp()}

    assert message(lambda: robot.get_session_token(**shown)).startswith(UNKNOWN)
    assert message(lambda: bench.mfa(SerialNumber=fido, TokenCode=bench.strict.totp(fido))).startswith(UNKNOWN)
    assert outcome(bench.mfa) == "allowed"
    assert ROBOT in {call.principal for call in bench.strict.calls()}


def test_device_taken_away(bench: Bench) -> None:
    """A14: a serial that was right and no longer is."""
    code = bench.strict.totp()
    bench.strict.mutate(device={"serial": SERIAL, "removed": True})

    assert message(lambda: bench.client("sts").get_session_token(SerialNumber=SERIAL, TokenCode=code)).startswith(
        UNKNOWN
    )


@pytest.mark.parametrize(("age", "seen"), [(3400, "allowed"), (3599, "allowed"), (3600, "AccessDenied")])
def test_mfa_age(bench: Bench, age: int, seen: str) -> None:
    """Strictly less than 3600 s since the code, while the session itself has hours left (aws-facts §0)."""
    keys = bench.mfa()
    bench.strict.clock.advance(age)

    assert outcome(lambda: bench.assume("WebAdmin", keys)) == seen
    assert outcome(lambda: bench.assume("Audit", keys)) == "allowed"


def test_one_code_opens_many_roles(bench: Bench) -> None:
    """One MFA session, any number of roles (aws-facts §1.2)."""
    keys = bench.mfa()
    for name in ("WebAdmin", "LongOps", "Plain", "IfExists", "Audit"):
        bench.assume(name, keys)

    assert bench.strict.counts() == {"GetSessionToken": 1, "AssumeRole": 5}


def test_a_session_without_mfa_opens_less_than_a_bare_key(bench: Bench) -> None:
    """GetSessionToken turns an absent MFA key into false: IfExists opens for robot's key and not for his session."""
    keys = bench.plain(user="robot")

    assert outcome(lambda: bench.assume("IfExists", user="robot")) == "allowed"
    assert outcome(lambda: bench.assume("IfExists", keys, user="robot")) == "AccessDenied"
    assert outcome(lambda: bench.assume("Plain", keys, user="robot")) == "allowed"


def test_bare_key_is_held_by_force_mfa(bench: Bench) -> None:
    """ForceMFA denies AssumeRole and self service to the bare key, and lets it find its device (aws-facts §0)."""
    iam = bench.client("iam")

    assert outcome(lambda: bench.assume("Plain")) == "AccessDenied"
    assert outcome(iam.list_access_keys) == "AccessDenied"
    assert iam.list_mfa_devices()["MFADevices"][0]["SerialNumber"] == SERIAL
    assert iam.get_user()["User"]["UserName"] == "franklin"


@pytest.mark.parametrize(("visible", "seen"), [(True, "allowed"), (False, "AccessDenied")])
def test_direct_mfa_knob(bench: Bench, visible: bool, seen: str) -> None:
    """Conflict (1) of aws-facts §1.2: does MFA on AssumeRole itself satisfy ForceMFA? Both readings."""
    bench.strict.set_knobs(direct_mfa_visible_to_identity_policy=visible)
    shown: dict[str, Any] = {"SerialNumber": SERIAL, "TokenCode": bench.strict.totp()}

    assert outcome(lambda: bench.assume("WebAdmin", **shown)) == seen
    assert outcome(lambda: bench.assume("WebAdmin", bench.mfa(step=1))) == "allowed"


@pytest.mark.parametrize(("gone", "seen"), [(True, "AccessDenied"), (False, "allowed")])
def test_code_consumed_when_denied_knob(bench: Bench, gone: bool, seen: str) -> None:
    """aws-facts §6 (3): whether a code is gone when the call fails after it was verified."""
    bench.strict.set_knobs(code_consumed_when_denied=gone)
    code = bench.strict.totp()
    shown: dict[str, Any] = {"SerialNumber": SERIAL, "TokenCode": code}
    assert outcome(lambda: bench.assume("WebAdmin", DurationSeconds=43200, **shown)) == "ValidationError"

    assert outcome(lambda: bench.mfa(TokenCode=code)) == seen


@pytest.mark.parametrize(("gone", "seen"), [(True, "AccessDenied"), (False, "allowed")])
def test_code_consumed_when_throttled_knob(bench: Bench, gone: bool, seen: str) -> None:
    """aws-facts §1.3 (6): whether AWS throttles before or after it takes the code."""
    bench.strict.set_knobs(code_consumed_when_throttled=gone)
    bench.strict.fault("throttle", op="GetSessionToken")
    code = bench.strict.totp()
    assert outcome(lambda: bench.mfa(TokenCode=code)) == "Throttling"

    assert outcome(lambda: bench.mfa(TokenCode=code)) == seen


@pytest.mark.parametrize(("accepted", "seen"), [(True, "allowed"), (False, "AccessDenied")])
def test_mfa_params_from_a_session_knob(bench: Bench, accepted: bool, seen: str) -> None:
    """Nobody reports what a code shown by GetSessionToken credentials does (aws-facts §6 (7))."""
    bench.strict.set_knobs(mfa_params_accepted_from_gst=accepted)
    keys = bench.mfa()
    shown: dict[str, Any] = {"SerialNumber": SERIAL, "TokenCode": bench.strict.totp(step=1)}

    assert outcome(lambda: bench.assume("Audit", keys, **shown)) == seen
