"""The client against the real daemon and the strict STS: the words of both sides fit each other (interface.md §6)."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.conftest import CLIENT
from tests.client.terminal import OnTerminal, start
from tests.process.harness import Emulator, Home, alive, until, variables
from vault_client import shell
from vaultd.model import environment

pytestmark = pytest.mark.process
ASK = "MFA code: "


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator.running() as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, emulator: Emulator) -> Iterator[Home]:
    """A daemon with the tutorial's identity, and an emulator that has forgotten everything."""
    emulator.ctl("reset", {})
    with Home.make(tmp_path, emulator).daemon() as running:
        assert running.add(emulator).status == 0
        yield running


def on_terminal(home: Home, *arguments: str, piped: bool = False) -> OnTerminal:
    return start([*CLIENT, *arguments], env={**home.env, "TERM": "xterm"}, piped=piped)


def test_every_variable_of_the_daemon_is_put_back() -> None:
    """`unuse` knows without the grant what any grant may set or unset."""
    theirs = {*environment.ECS_VARIABLES, *environment.IMDS_VARIABLES, *environment.SHADOWING,
              *environment.REGION_VARIABLES}  # fmt: skip

    assert theirs <= set(shell.MANAGED)


def test_use_on_a_terminal(home: Home, emulator: Emulator) -> None:
    """The tutorial's main step: asked once, with who asks and for what; a wrong code first; lines that serve."""
    asking = on_terminal(home, "use", "web-admin", "--shell", "bash", piped=True)
    head = asking.until(ASK)
    asking.type("000000\n")
    again = asking.until(ASK)
    asking.type(emulator.code() + "\n")
    ended = asking.end()

    exe = Path(sys.executable).resolve()
    assert head.startswith(
        f"vaultd · web-admin · requested by python (pid {asking.child.pid}, {exe}, started by python"
    )
    assert "code for arn:aws:iam::123456789012:mfa/franklin" in head
    assert "AWS refused that code as invalid (2 left): type the next one" in again
    assert ended.status == 0, ended
    assert variables(ended.out)["VAULTD_PROFILE"] == "web-admin"
    assert home.client("use", "web-admin", "--shell", "sh").status == 0  # warm: nobody is asked
    assert emulator.count("AssumeRole") == 1


def test_a_shell_that_gets_nothing_any_more(home: Home, emulator: Emulator) -> None:
    """Prompt and doctor say it: of a profile that means another role by now, of one that is gone, of a dead grant."""
    used, config = home.use("web-admin", emulator), home.directory / ".aws/config"
    written = config.read_text()

    def told() -> tuple[str, str]:
        rows = json.loads(home.client("doctor", "--json", environment=used).out)["checks"]
        (said,) = [f"{row['ok']}: {row['message']}" for row in rows if row["name"] == "grant"]
        return home.client("prompt", environment=used).out.strip().partition("·")[2], said

    assert told()[1].startswith("True: ")  # control
    assert told()[0].endswith("m")
    config.write_text(written.replace(":role/", ":role/other-"))
    until(lambda: told()[0] == "error", "the file is looked at")
    assert "means another role than when this token was made" in told()[1]
    config.write_text(written.replace("[profile web-admin]", "[profile web-chief]"))
    until(lambda: "There is no profile web-admin" in told()[1], "the file is looked at")
    assert told()[0] == "error"
    config.write_text(written)
    until(lambda: told()[1].startswith("True: "), "the file is looked at")
    assert home.client("revoke", "--all").status == 0
    assert told() == ("expired", f"False: the grant {used['VAULTD_GRANT']} was revoked or has expired")
    assert not os.path.exists(used["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"])  # noqa: PTH110 - interface.md §3


def test_an_edit_of_the_settings_is_told(home: Home) -> None:
    """They are read at the start: `status` and `doctor` say so until a restart."""
    path = home.directory / "vaultd/config/config.toml"
    due = f"{path} was changed after vaultd started, which goes by what it said then"
    assert due not in home.client("status").out  # control
    path.write_text(path.read_text() + "\n[profiles.web-admin]\nprotected = true\n")
    (row,) = [row for row in json.loads(home.client("doctor", "--json").out)["checks"] if row["name"] == "settings"]

    assert f"{due}: type `vaultd restart`\n" in home.client("status").out
    assert (row["ok"], row["message"], row["remedy"]) == (False, due, "type `vaultd restart`")


def test_answered_in_another_terminal(home: Home, emulator: Emulator) -> None:
    """Two askers, one question: the first answer clears the other's line, and both go on."""
    first = on_terminal(home, "use", "web-admin", "--shell", "bash", piped=True)
    first.until(ASK)
    second = on_terminal(home, "mfa")
    second.until(ASK)
    second.type(emulator.code() + "\n")

    assert first.until("answered elsewhere") == "\r\x1b[Kanswered elsewhere"
    assert (first.end().status, second.end().status) == (0, 0)
    assert emulator.count("GetSessionToken") == 1


def test_cancel_and_cool_down(home: Home, emulator: Emulator) -> None:
    """Ctrl-C starts the cool-down: the next command is refused at once with what to type."""
    asking = on_terminal(home, "use", "web-admin", "--shell", "bash", piped=True)
    asking.until(ASK)
    asking.type("\x03")
    assert asking.end().status == 1
    ended = home.client("use", "web-admin", "--shell", "sh")

    assert ended.status == 1
    assert "vault-client" in ended.err
    assert len(ended.err.splitlines()) == 1


def test_leaving_starts_no_cool_down(home: Home, emulator: Emulator) -> None:
    """A terminal that goes away closes its question, and the next one may ask at once."""
    asking = on_terminal(home, "use", "web-admin", "--shell", "bash", piped=True)
    asking.until(ASK)
    asking.hang_up()
    assert asking.end().status != 0
    until(lambda: not json.loads(home.client("status", "--json").out)["prompts"], "the question is closed")
    next_one = on_terminal(home, "mfa", "identity")
    next_one.until(ASK)
    next_one.type(emulator.code() + "\n")

    assert next_one.end().status == 0


def test_token_codes(home: Home, emulator: Emulator) -> None:
    """Without a terminal 3; a wrong code 1; the right one 0; one that is not needed is not sent."""
    assert home.client("exec", "web-admin", "--", "true").status == 3
    wrong = home.client("exec", "web-admin", "--token-code", "000000", "--", "true")
    right = home.client("exec", "web-admin", "--token-code", emulator.code(), "--", "true")
    unneeded = home.client("export", "web-admin", "--format", "json", "--token-code", "123456")

    assert wrong.status == 1, wrong
    assert right.status == 0, right
    assert unneeded.status == 0
    assert emulator.count("GetSessionToken") == 2


def test_exec_and_its_grant(home: Home, emulator: Emulator) -> None:
    """CMD has the variables; the grant ends within 5 s of its end, SIGKILL included."""
    assert home.client("mfa", "--token-code", emulator.code()).status == 0
    command = [
        sys.executable,
        "-I",
        "-c",
        "import os, sys; print(os.environ['VAULTD_GRANT'], flush=True); sys.stdin.read()",
    ]
    child = start([*CLIENT, "exec", "web-admin", "--", *command], env=home.env, piped=True)
    assert child.child.stdout is not None
    grant = child.child.stdout.readline().decode().strip()
    rows = {row["id"]: row for row in json.loads(home.client("grants", "--json").out)["grants"]}

    assert rows[grant]["kind"] == "exec"
    assert rows[grant]["peer"]["pid"] == child.child.pid
    assert grant in home.client("grants").out
    os.kill(child.child.pid, signal.SIGKILL)
    child.close()
    until(lambda: grant not in home.client("grants", "--json").out, "the grant is revoked")


def test_subshell_is_bound_to_its_pid(home: Home, emulator: Emulator) -> None:
    """The subshell form gives its own pid; `exit` ends the grant."""
    assert home.client("mfa", "--token-code", emulator.code()).status == 0
    inner = start([*CLIENT, "use", "web-admin"], env={**home.env, "SHELL": "/bin/sh", "PS1": "$ ", "TERM": "xterm"})
    inner.until("type exit to leave it")
    inner.until("$ ")
    assert json.loads(home.client("grants", "--json").out)["grants"][0]["kind"] == "shell"
    inner.type("exit\n")
    assert inner.end().status == 0
    until(lambda: json.loads(home.client("grants", "--json").out)["grants"] == [], "the grant is revoked")


def test_what_is_shown(home: Home, emulator: Emulator) -> None:
    """Each reading command understands the real daemon, as text and as --json."""
    assert home.client("mfa", "--token-code", emulator.code()).status == 0
    assert home.client("exec", "web-admin", "--", "true").status == 0
    for line in ("status", "list", "identities", "grants", "log", "explain web-admin"):
        text, objects = home.client(*line.split()), home.client(*line.split(), "--json")
        assert (text.status, objects.status) == (0, 0), (text, objects)
        assert json.loads(objects.out)
    assert "web-admin" in home.client("list").out
    assert "unlocked" in home.client("status").out.splitlines()[0]
    assert "GetSessionToken with an MFA code" in home.client("explain", "web-admin").out
    assert "grant.create" in home.client("log").out


def test_lock_unlock_clear_refresh_remove(home: Home, emulator: Emulator) -> None:
    """The commands that change the daemon, once around."""
    assert home.client("mfa", "--token-code", emulator.code()).status == 0
    assert home.client("refresh", "web-admin").status == 0
    assert home.client("clear", "web-admin").status == 0
    assert home.client("lock").status == 0
    locked = home.client("use", "web-admin", "--shell", "sh")
    assert (locked.status, locked.out) == (1, "false;\n")
    assert "unlock" in locked.err
    wrong = home.client("unlock", "--stdin", stdin="no\n")
    assert wrong.status == 1, wrong
    assert home.client("unlock", "--stdin", stdin=Path(home.extra["VAULTD_PASSPHRASE_FILE"]).read_text()).status == 0
    assert home.client("use", "web-admin", "--shell", "sh").status == 0  # sessions that live are served without a code
    assert home.client("revoke", "--all").status == 0
    assert home.client("remove", "identity").status == 0
    unknown = home.client("use", "web-admin", "--shell", "sh")
    assert unknown.status == 1
    assert unknown.err.rstrip().endswith("`vault-client add identity`"), unknown.err


def test_unknown_profile_and_down(home: Home) -> None:
    """The nearest names; and 69 after a stop."""
    unknown = home.client("use", "web-admn", "--shell", "sh")
    pid = home.pid()
    home.stop()

    assert unknown.status == 1
    assert "web-admin" in unknown.err
    assert not alive(pid)
    assert home.client("list").status == 69
