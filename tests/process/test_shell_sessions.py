"""Shell integration against the real daemon, in each real shell: the recorded sessions, and what ends a grant.

The recordings themselves: `python -m tests.process.sessions`.
"""

from __future__ import annotations

import os
import signal

import pytest

from tests.process.harness import Emulator, Home
from tests.process.sessions import ASK, SHELLS, day, gone, grants, session

pytestmark = pytest.mark.process

ALL = [pytest.param(name, marks=pytest.mark.needs(name), id=name) for name in SHELLS]
POSIX = ALL[:2]
WEB_ADMIN = "arn:aws:sts::234567890123:assumed-role/WebAdmin/franklin"
AUDIT = "arn:aws:sts::345678901234:assumed-role/Audit/franklin"


@pytest.fixture
def opened(home: Home, emulator: Emulator) -> Home:
    """A home whose MFA session is there, so that no `use` asks."""
    assert home.client("mfa", "identity", "--token-code", emulator.code()).status == 0
    return home


@pytest.mark.parametrize("name", ALL)
def test_a_day_at_the_terminal(name: str, home: Home, emulator: Emulator) -> None:
    """`use` with a code, the AWS CLI, switch, `use -`, `unuse`: who one is follows, and one's own variables are back.
    A terminal that is closed, and a shell that is killed, leave no grant.
    """
    recorded = day(name, home, emulator)
    said = [text for typed, text in recorded.said if typed.startswith("aws")]

    assert said == [WEB_ADMIN, AUDIT, WEB_ADMIN]
    text = recorded.text()
    assert f"web-admin bound to pid {recorded.terminal.child.pid};" in text
    assert "AWS_PROFILE is of-mine, VAULTD_PROFILE is not set" in text
    assert "web-admin·59m" in text
    assert text.count("the daemon's grants: none") == 3
    assert home.asked() == 1
    reasons = [line["reason"] for line in home.audit() if line["event"] == "grant.revoke"]
    assert reasons == ["revoked", "revoked", "revoked", "process ended", "process ended"]


@pytest.mark.parametrize("name", POSIX)
def test_brackets_end_with_their_grant(name: str, opened: Home) -> None:
    """`(vault-client use x; aws …)`: another role inside, the outer one after it, and no grant of the inside left."""
    with session(name, opened) as shell:
        shell.type("vault-client use web-admin")
        inside = shell.type(f"(vault-client use audit --region eu-central-1; {ASK})")
        outside = shell.type(ASK)
        assert AUDIT in inside
        assert outside == WEB_ADMIN
        shell.type("vault-client unuse")
        gone(opened)


@pytest.mark.parametrize("name", ALL)
def test_two_terminals_that_switch(name: str, opened: Home) -> None:
    """Each has its own; one that is closed takes only its own."""
    with session(name, opened) as first, session(name, opened) as second:
        first.type("vault-client use web-admin")
        second.type("vault-client use audit --region eu-central-1")
        first.begin("vault-client use audit --region eu-central-1")
        second.type("vault-client use web-admin")
        first.end("vault-client use audit --region eu-central-1")
        assert (first.type(ASK), second.type(ASK)) == (AUDIT, WEB_ADMIN)
        held = {(each["profile"], each["peer"]["pid"]) for each in grants(opened)}
        assert held == {("audit", first.terminal.child.pid), ("web-admin", second.terminal.child.pid)}
        first.terminal.hang_up()
        assert second.type(ASK) == WEB_ADMIN
    gone(opened)


@pytest.mark.parametrize("name", ALL)
def test_an_answer_that_was_lost(name: str, opened: Home) -> None:
    """The client was killed between token and variables: the daemon has a grant of this shell that nobody knows, and
    what the function then calls ends that one and no other.
    """
    pid = "$fish_pid" if name == "fish" else "$$"
    told = f'env -u VAULTD_GRANT VAULTD_INTEGRATION="{name} {pid} {pid} 0 - -" vault-client'
    with session(name, opened) as shell:
        shell.type("vault-client use web-admin")
        shell.type(f"{told} use audit >/dev/null 2>&1")
        assert [each["profile"] for each in grants(opened)] == ["web-admin", "audit"]  # control
        shell.type(f"{told.replace(' -u VAULTD_GRANT', '')} __sweep >/dev/null")
        assert [each["profile"] for each in grants(opened)] == ["web-admin"]
        assert shell.type(ASK) == WEB_ADMIN


@pytest.mark.parametrize("name", ALL)
def test_a_shell_that_dies_while_the_code_is_asked(name: str, home: Home, emulator: Emulator) -> None:
    """Nobody is left to take the variables: the code may still be typed, and no grant is left, bound or not."""
    with session(name, home) as shell:
        shell.begin("vault-client use web-admin")
        shell.terminal.until("MFA code: ")
        os.kill(shell.terminal.child.pid, signal.SIGKILL)
        shell.terminal.child.wait()
        shell.terminal.type(emulator.code() + "\n")
        shell.terminal.end()  # when the client, too, is gone from the terminal
    assert grants(home) == []
    assert "credentials.serve" not in {line["event"] for line in home.audit()}
