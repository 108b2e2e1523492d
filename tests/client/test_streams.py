"""Streams that are closed, full or left, and Ctrl-C: one sentence at most, never a traceback."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.client.conftest import CLIENT, Run
from tests.client.stub import Stub, environment, error
from vault_client import __main__ as program
from vault_client import cli

FULL = (
    "vault-client: the output cannot be written (No space left on device): free space or give "
    "stdout another place, then type it again\n"
)
CLOSED = FULL.replace("No space left on device", "Bad file descriptor")
COMMANDS = ["--help", "--version", "list --help", "status --json", "list", "use web-admin --shell sh",
            "unuse --shell sh", "export web-admin", "credential-process web-admin", "grants"]  # fmt: skip


def shell(stub: Stub, line: str) -> subprocess.CompletedProcess[str]:
    """`line` in a shell, where `vc` is the client."""
    vc = f'vc() {{ {" ".join(CLIENT)} "$@"; }}\n'
    return subprocess.run(
        ["/bin/bash", "-c", vc + line], env=environment(stub), capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("redirection", "said"), [(">/dev/full", FULL), (">&-", CLOSED)])
def test_a_stdout_that_takes_nothing(stub: Stub, command: str, redirection: str, said: str) -> None:
    """Full or closed: one sentence, exit 1."""
    ended = shell(stub, f"vc {command} {redirection}")

    assert (ended.returncode, ended.stderr) == (1, said)


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-", "| :"])
def test_a_grant_whose_lines_nobody_gets_is_ended(stub: Stub, redirection: str) -> None:
    """It would live for days, and nobody has its token."""
    # the reader is gone before the lines come: the daemon answers when `true` has ended
    shell(stub, f"vc use web-admin --shell sh {redirection}" if redirection != "| :" else BROKEN)

    assert len(stub.asked("POST", "/v1/grants")) == 1
    assert stub.asked("DELETE", "/v1/grants/g1") == [None]


#: A pipe whose reader is gone for certain, as stdout.
BROKEN = (
    f"{sys.executable} -I -c 'import os, sys; r, w = os.pipe(); os.close(r); os.dup2(w, 1); os.execvp(sys.argv[1], "
    f"sys.argv[1:])' {' '.join(CLIENT)} use web-admin --shell sh"
)


def test_a_reader_who_left(stub: Stub) -> None:
    """As if SIGPIPE had ended it: silence, and the status that a shell shows for it."""
    ended = shell(stub, BROKEN.replace("use web-admin --shell sh", "list"))

    assert (ended.returncode, ended.stderr) == (141, "")


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "<&-", "<&- 2>&-"])
def test_other_streams_are_not_needed(stub: Stub, redirection: str) -> None:
    """Without stderr nothing is said, and the exit status tells; stdin is not read."""
    stub.answers["GET", "/v1/profiles/web-admin/credentials"] = error(404, "UnknownProfile", "no: type `x`", 1)

    assert shell(stub, f"vc export web-admin {redirection}").returncode == 1
    assert shell(stub, f"vc status --json {redirection}").returncode == 0
    assert shell(stub, f"vc {redirection}").returncode == 2


def test_a_closed_stdin_has_no_code(stub: Stub) -> None:
    """`--token-code -` and the passphrase find nothing, and say so."""
    ended = shell(stub, "vc use web-admin --token-code - <&-; vc unlock --stdin <&-; vc add i --stdin <&-")

    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.splitlines()) == 3


@pytest.mark.parametrize("closed", [">&-", "<&-", "2>&-", ">&- <&- 2>&-"])
def test_exec_becomes_cmd_with_what_was_closed_closed(stub: Stub, closed: str) -> None:
    """As it is: no descriptor of ours in the place of one that the caller closed. Control: an open one is open."""
    expected = 7 - sum({">&-": 2, "<&-": 1, "2>&-": 4}[each] for each in closed.split())

    # a shell looks, because Python itself would open what is missing
    inside = "n=0; for f in 0 1 2; do [ -e /proc/$$/fd/$f ] && n=$((n + (1 << f))); done; exit $n"
    assert shell(stub, f"vc exec web-admin -- sh -c '{inside}' {closed}").returncode == expected


class Interrupting:
    """A stderr during whose first write Ctrl-C comes."""

    def __init__(self) -> None:
        self.written = ""

    def write(self, text: str) -> int:
        if not self.written:
            self.written = "interrupted"
            signal.raise_signal(signal.SIGINT)
        return len(text)

    def flush(self) -> None:
        pass


def test_ctrl_c_while_a_sentence_is_said(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right after a wrong passphrase, say: 130, as everywhere."""
    stub.answers["GET", "/v1/profiles"] = error(403, "Locked", "vaultd is locked: type `vault-client unlock`", 1)
    monkeypatch.setattr(sys, "stderr", Interrupting())

    assert cli.run(["list"], stub.environ) == 130


def test_ctrl_c_before_the_command_line_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """While modules are imported, too."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "_take_closed", interrupted)

    assert program.main() == 130


def test_ctrl_c_between_grant_and_lines(stub: Stub, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The grant that nobody got is ended, and eval fails."""
    written: list[str] = []

    def out(text: str) -> None:
        written.append(text)
        if len(written) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(cli.Call, "out", staticmethod(out))

    assert run("use", "web-admin", "--shell", "sh").status == 130
    assert written[1:] == ["false;\n"]
    assert stub.asked("DELETE", "/v1/grants/g1") == [None]
