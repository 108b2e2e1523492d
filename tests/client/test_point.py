"""`use`, `unuse` and `exec`: whose environment says what (interface.md §3)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.client.conftest import CLIENT, Run
from tests.client.stub import (
    IDENTITY,
    KEYS,
    SECRET,
    STATUS,
    TOKEN,
    UNSET,
    Answer,
    Stub,
    environment,
    error,
    mfa_required,
)
from tests.client.terminal import OnTerminal

Start = Callable[..., OnTerminal]
SHOW = "import json, os; print(json.dumps(dict(os.environ)))"


def shown(process: Run, *arguments: str, **environ: str) -> dict[str, str]:
    """The environment of a command that `exec` became."""
    ended = process("exec", "web-admin", *arguments, "--", sys.executable, "-I", "-c", SHOW, **environ)
    assert (ended.status, ended.err) == (0, "")
    found: dict[str, str] = json.loads(ended.out)
    return found


def test_exec_sets_and_unsets(process: Run, stub: Stub) -> None:
    """All of the contract's variables, both forms of the token, and none of those that would shadow them."""
    shadows = dict.fromkeys(UNSET, "old")
    found = shown(process, OTHER="kept", VAULTD_SHELL="1", **shadows)

    assert stub.asked("POST", "/v1/grants") == [{"profile": "web-admin", "kind": "exec"}]
    assert not set(UNSET) & set(found)
    assert {name: found[name] for name in stub.grant()["set"]} == stub.grant()["set"]
    assert found["OTHER"] == "kept"
    assert not {"VAULTD_SUBSHELL", "VAULTD_SHELL"} & set(found)


def test_exec_becomes_the_command(process: Run, stub: Stub) -> None:
    """No process of ours stays: CMD has the pid that we started, and its end is the command's own."""
    child = subprocess.Popen(
        [*CLIENT, "exec", "web-admin", "--", "sh", "-c", "echo $$"], env=environment(stub), stdout=subprocess.PIPE
    )
    out, _ = child.communicate(timeout=20)

    assert int(out) == child.pid
    assert process("exec", "web-admin", "--", "sh", "-c", "exit 42").status == 42
    assert process("exec", "web-admin", "--", "sh", "-c", "kill -9 $$").status == -signal.SIGKILL


def test_exec_passes_options_through(process: Run) -> None:
    """Everything after -- is CMD's, options and a second -- too."""
    ended = process("exec", "web-admin", "--", "echo", "--help", "-f", "--", "--region")

    assert ended.out == "--help -f -- --region\n"


def test_exec_gives_signals_back(process: Run) -> None:
    """SIGPIPE, which Python ignores, is CMD's own again: `yes | head` must end. Control: in a Python it is ignored."""
    ended = process("exec", "web-admin", "--", "grep", "SigIgn", "/proc/self/status")
    python = "print(next(line for line in open('/proc/self/status') if line.startswith('SigIgn')))"
    control = process("exec", "web-admin", "--", sys.executable, "-I", "-c", python)

    pythons = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)
    assert int(ended.out.split()[1], 16) & pythons == 0  # what else is ignored came from whoever started the tests
    assert int(control.out.split()[1], 16) & 1 << (signal.SIGPIPE - 1)


def test_exec_does_not_leak_our_locale(process: Run) -> None:
    """In a C locale Python sets LC_CTYPE for itself (PEP 538); CMD does not get it, but keeps one that was there."""
    assert "LC_CTYPE" not in json_env(process, LC_ALL="", LANG="")
    assert json_env(process, LC_ALL="", LANG="", LC_CTYPE="C.UTF-8")["LC_CTYPE"] == "C.UTF-8"


def json_env(process: Run, **environ: str) -> dict[str, str]:
    """Like `shown`, through env, which is no Python."""
    ended = process("exec", "web-admin", "--", "env", **environ)
    return dict(line.partition("=")[::2] for line in ended.out.splitlines())


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ({}, ("127.0.0.1,localhost", "127.0.0.1,localhost")),
        ({"NO_PROXY": "corp"}, ("corp,127.0.0.1,localhost", "corp,127.0.0.1,localhost")),
        ({"no_proxy": "a, b"}, ("a,b,127.0.0.1,localhost", "a,b,127.0.0.1,localhost")),
        ({"NO_PROXY": "x", "no_proxy": "y,localhost"}, ("x,127.0.0.1,localhost", "y,localhost,127.0.0.1")),
        ({"NO_PROXY": "*", "no_proxy": "*"}, ("*", "*")),
    ],
)
def test_proxies_exceptions_are_extended(process: Run, present: dict[str, str], expected: tuple[str, str]) -> None:
    """Extended, never replaced; a spelling that is new does not hide what the other one says."""
    found = shown(process, **present)

    assert (found["NO_PROXY"], found["no_proxy"]) == expected


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ({}, ("us-west-2", "us-west-2", "us-west-2")),
        ({"AWS_REGION": "eu-west-1"}, ("eu-west-1", "eu-west-1", None)),
        ({"AWS_DEFAULT_REGION": "eu-west-1"}, ("eu-west-1", "eu-west-1", None)),
        ({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-2"}, ("eu-west-1", "eu-west-2", None)),
        (
            {"AWS_REGION": "ap-east-1", "AWS_DEFAULT_REGION": "ap-east-1", "VAULTD_REGION": "ap-east-1"},
            ("us-west-2", "us-west-2", "us-west-2"),
        ),
        ({"AWS_REGION": "eu-west-1", "VAULTD_REGION": "ap-east-1"}, ("eu-west-1", "eu-west-1", None)),
    ],
)
def test_the_users_region_wins(process: Run, present: dict[str, str], expected: tuple[str, str, str | None]) -> None:
    """A region that the user set holds under both names; one that an outer `use` set is no choice of the user's."""
    found = shown(process, **present)

    assert (found["AWS_REGION"], found["AWS_DEFAULT_REGION"], found.get("VAULTD_REGION")) == expected


def test_region_option_beats_the_users(process: Run, stub: Stub) -> None:
    """--region is the latest word."""
    grant = stub.grant()
    grant["set"] |= {"AWS_REGION": "eu-north-1", "AWS_DEFAULT_REGION": "eu-north-1"}
    stub.answers["POST", "/v1/grants"] = (201, grant)
    found = shown(process, "--region", "eu-north-1", "--duration", "1h", AWS_REGION="eu-west-1")

    assert (found["AWS_REGION"], found["AWS_DEFAULT_REGION"]) == ("eu-north-1", "eu-north-1")
    assert stub.asked("POST", "/v1/grants") == [
        {"profile": "web-admin", "kind": "exec", "region": "eu-north-1", "duration_seconds": 3600}
    ]


def test_no_region_is_left_alone(process: Run, stub: Stub) -> None:
    """Neither the profile nor the user has one."""
    grant = stub.grant()
    del grant["set"]["AWS_REGION"], grant["set"]["AWS_DEFAULT_REGION"]
    stub.answers["POST", "/v1/grants"] = (201, grant)
    found = shown(process)

    assert not {"AWS_REGION", "AWS_DEFAULT_REGION", "VAULTD_REGION"} & set(found)
    assert shown(process, AWS_REGION="eu-west-1")["AWS_REGION"] == "eu-west-1"


def test_exec_env(process: Run, stub: Stub) -> None:
    """Static keys and no endpoint; the grant, whose token nobody holds, ends before CMD begins."""
    found = shown(process, "--env", AWS_PROFILE="old")

    assert found["AWS_ACCESS_KEY_ID"] == KEYS["AccessKeyId"]
    assert found["AWS_SECRET_ACCESS_KEY"] == SECRET
    assert found["AWS_SESSION_TOKEN"] == KEYS["Token"]
    assert found["VAULTD_PROFILE"] == "web-admin"
    assert TOKEN not in found.values()
    assert not {"AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_PROFILE", "VAULTD_GRANT"} & set(found)
    assert stub.asked("DELETE", "/v1/grants/g1") == [None]


CREDENTIALS = "/v1/profiles/web-admin/credentials"


def test_exec_env_with_a_code_from_a_pipe(process: Run, stub: Stub) -> None:
    """`code | vault-client exec P --env --token-code - -- CMD`: the one line that there is answers both calls."""
    stub.answers["GET", CREDENTIALS] = [mfa_required(), (200, KEYS)]
    ended = process("exec", "web-admin", "--env", "--token-code", "-", "--", "true", stdin="123456\n")

    assert (ended.status, ended.err) == (0, "")
    assert [body and body.get("token_code") for body in stub.asked("POST", "/v1/grants")] == ["123456"]
    assert stub.asked("POST", "/v1/prompts/q1") == [{"token_code": "123456"}]


def test_a_code_from_a_pipe_where_the_shell_is_not_seen(process: Run, stub: Stub) -> None:
    """The second try of `use`, for a shell that the daemon cannot see, has the code of the first."""
    refused = error(400, "BadRequest", "field pid: it is no parent of the caller and his; leave it out", 1)
    stub.answers["POST", "/v1/grants"] = [refused, (201, stub.grant())]
    told = f"bash {os.getpid()} {os.getpid()} 0 - -"
    ended = process("use", "web-admin", "--token-code", "-", stdin="123456\n", VAULTD_INTEGRATION=told)

    assert ended.status == 0, ended.err
    assert [body and body.get("token_code") for body in stub.asked("POST", "/v1/grants")] == ["123456"] * 2


@pytest.mark.parametrize("answer", [error(403, "RoleDenied", "AWS said no: run it again", 1), mfa_required()])
def test_exec_env_without_keys_leaves_no_grant(process: Run, stub: Stub, answer: Answer) -> None:
    """Nobody will use it, whatever became of the keys."""
    stub.answers["GET", CREDENTIALS] = answer
    ended = process("exec", "web-admin", "--env", "--", "true")

    assert ended.status in {1, 3}
    assert stub.asked("DELETE", "/v1/grants/g1") == [None]


@pytest.mark.parametrize("command", ["no-such-command", "/no/such/command", "./no-such"])
def test_exec_not_found(process: Run, stub: Stub, command: str) -> None:
    """127, before a grant is asked for."""
    ended = process("exec", "web-admin", "--", command)

    assert ended.status == 127
    assert ended.err == f"vault-client: {command} was not found: check its name and PATH, then type it again\n"
    assert stub.requests == []


def test_exec_not_executable(process: Run, stub: Stub, tmp_path: Path) -> None:
    """126, by path and through PATH, before a grant is asked for; a directory is told as one."""
    plain = tmp_path / "plain"
    plain.write_text("x")
    odd = tmp_path / "a b"
    odd.write_text("x")
    said = f"vault-client: {plain} is not executable: type chmod +x {plain} if it should be\n"

    assert (process("exec", "web-admin", "--", str(plain)).status, stub.requests) == (126, [])
    assert process("exec", "web-admin", "--", str(plain)).err == said
    assert f"type chmod +x '{odd}' if" in process("exec", "web-admin", "--", str(odd)).err
    through = process("exec", "web-admin", "--", "plain", PATH=f"{tmp_path}:/usr/bin")
    assert (through.status, through.err) == (126, said)
    directory = process("exec", "web-admin", "--", str(tmp_path))
    assert (directory.status, directory.err) == (
        126,
        f"vault-client: {tmp_path} is a directory and no program: name a program in it, then type it again\n",
    )
    empty = process("exec", "web-admin", "--", "")
    assert (empty.status, empty.err) == (
        127,
        "vault-client: the CMD after -- is empty: look at the variable that should hold its name, then type it again\n",
    )
    assert stub.requests == []


def test_exec_of_a_script_without_interpreter(process: Run, stub: Stub, tmp_path: Path) -> None:
    """Found too late: the grant is revoked again; 127 for a missing interpreter, 126 for no program at all."""
    script, noise = tmp_path / "script", tmp_path / "noise"
    script.write_text("#!/no/such/interpreter\n")
    noise.write_bytes(b"\0\1\2")
    script.chmod(0o755)
    noise.chmod(0o755)

    first, second = (process("exec", "web-admin", "--", str(path)) for path in (script, noise))

    assert (first.status, second.status) == (127, 126)
    assert first.err == (
        f"vault-client: {script} cannot be run (No such file or directory): check its first line and mode, then type "
        f"it again\n"
    )
    assert stub.asked("DELETE", "/v1/grants/g1") == [None, None]


def test_warnings_go_to_stderr(process: Run, stub: Stub) -> None:
    """A [default] that an SDK would prefer: said, with its fix, beside the lines."""
    stub.answers["POST", "/v1/grants"] = (201, stub.grant(warnings=["[default] would win: delete it"]))
    ended = process("use", "web-admin", "--shell", "sh")

    assert "vault-client: warning: [default] would win: delete it\n" in ended.err
    assert "default" not in ended.out


def test_use_says_what_it_did(process: Run) -> None:
    """On stderr, because stdout is for eval; with the way back."""
    ended = process("use", "web-admin", "--shell", "bash")

    assert ended.err == (
        "vault-client: using web-admin (account 234567890123 role WebAdmin, session until "
        f"{ended.err.split('until ')[1].split(',', maxsplit=1)[0]}, kept fresh); undo it with: "
        'eval "$(vault-client unuse)"\n'
    )
    assert TOKEN not in ended.err


def test_a_variable_name_that_no_shell_takes(process: Run, stub: Stub) -> None:
    """Lines for eval are built from names of ours only; the grant is revoked."""
    grant = stub.grant()
    grant["set"]["X; touch /x"] = "1"
    stub.answers["POST", "/v1/grants"] = (201, grant)
    ended = process("use", "web-admin", "--shell", "sh")

    assert (ended.status, ended.out) == (1, "false;\n")
    assert ended.err == (
        "vault-client: vaultd sent the variable X; touch /x, which is none of those that use and exec set, so nothing "
        "was set: look who answers with `vaultd status`, or type `vaultd restart`\n"
    )
    assert stub.asked("DELETE", "/v1/grants/g1") == [None]


def test_unuse_without_daemon_still_gives_the_lines(process: Run, stub: Stub) -> None:
    """The way back does not depend on the daemon: lines, and a word about the grant."""
    stub.answers["DELETE", "/v1/grants/gone"] = error(404, "UnknownGrant", "no such grant", 1)
    known = process("unuse", "--shell", "sh", VAULTD_GRANT="gone")
    down = process("unuse", "--shell", "sh", VAULTD_GRANT="g1", VAULTD_HOME="/nonexistent")

    assert (known.status, known.err) == (0, "")
    assert down.status == 0
    assert down.out == known.out != ""
    assert down.err.startswith("vault-client: this shell is as before, but its grant g1 was not ended, because vaultd")
    assert down.err.endswith(": type `vaultd start`, then `vault-client revoke g1`\n")


# ---- the subshell form ----


def test_subshell(stub: Stub, terminal: Start) -> None:
    """With a terminal on stdout `use` becomes a shell of the same pid, which the grant is bound to."""
    shell = terminal("use", "web-admin", SHELL="/bin/sh", PS1="$ ")
    shell.until("this is a subshell, type exit to leave it")
    shell.until("$ ")
    shell.type("echo pid=$$ profile=$VAULTD_PROFILE sub=$VAULTD_SUBSHELL.\n")
    shell.until("profile=web-admin sub=g1.")
    shell.type("exit 7\n")

    assert shell.end().status == 7
    assert stub.asked("POST", "/v1/grants") == [{"profile": "web-admin", "kind": "shell", "pid": shell.child.pid}]


def test_unuse_in_a_subshell_says_exit(stub: Stub, process: Run) -> None:
    """Nothing to restore there: `exit` for eval, the word on stderr, and the grant ends with the shell."""
    ended = process("unuse", "--shell", "sh", VAULTD_GRANT="g1", VAULTD_SUBSHELL="g1")

    assert (ended.status, ended.out) == (0, "exit\n")
    assert ended.err == "vault-client: this is a subshell of `vault-client use`: type exit to leave it\n"
    assert stub.requests == []


def test_unuse_on_a_terminal_names_the_way(stub: Stub, terminal: Start) -> None:
    """A command cannot change its parent: it says what to type, and ends nothing."""
    ended = terminal("unuse", "--shell", "bash", VAULTD_GRANT="g1").end()

    assert ended.status == 2
    assert ended.err == 'vault-client: a command cannot change its shell: type eval "$(vault-client unuse)"\r\n'
    assert stub.requests == []


def test_typed_secrets_stay_off_the_screen(stub: Stub, terminal: Start) -> None:
    """`add` and `unlock` on a terminal: nothing that is typed shows."""
    shell = terminal("add", "identity")
    seen = shell.until("Access key ID: ")
    shell.type("AKIAEXAMPLE00000WXYZ\n")
    seen += shell.until("Secret access key: ")
    shell.type(SECRET + "\n")
    ended = shell.end()

    assert ended.status == 0
    assert not [typed for typed in ("AKIAEXAMPLE", SECRET) if typed in seen + ended.err]
    assert (stub.asked("POST", "/v1/identities")[0] or {})["SecretAccessKey"] == SECRET


@pytest.mark.parametrize(
    ("line", "question", "again"),
    [
        ("add identity", "Access key ID: ", "`vault-client add identity` again"),
        ("add identity --replace", "Access key ID: ", "`vault-client add identity --replace` again"),
        ("unlock", "passphrase for vaultd's store: ", "`vault-client unlock` again"),
    ],
)
def test_a_question_left_unanswered_names_its_command(
    stub: Stub, terminal: Start, line: str, question: str, again: str
) -> None:
    """Ctrl-D: the command that asked is the one to type."""
    stub.answers["GET", "/v1/status"] = (200, {**STATUS, "locked": line == "unlock"})
    shell = terminal(*line.split())
    shell.until(question)
    shell.type("\x04")
    ended = shell.end()

    assert ended.status == 3
    assert f"the question was left unanswered: type {again}\r\n" in ended.err


@pytest.mark.parametrize(
    ("line", "question", "said"),
    [
        (
            "add identity",
            "Access key ID: ",
            "cancelled, and nothing was stored: type `vault-client add identity` again",
        ),
        (
            "add identity --replace",
            "Access key ID: ",
            "cancelled, and nothing was stored: type `vault-client add identity --replace` again",
        ),
        (
            "unlock",
            "New passphrase for vaultd's store: ",
            "cancelled, and no store was made: type `vault-client unlock` again",
        ),
    ],
)
def test_ctrl_c_at_a_question_names_the_state(stub: Stub, terminal: Start, line: str, question: str, said: str) -> None:
    """On a line of its own, the state that is left and what to type; nothing was sent, and it is 130."""
    stub.answers["GET", "/v1/status"] = (200, {**STATUS, "locked": line == "unlock"})
    shell = terminal(*line.split())
    shell.until(question)
    shell.type("\x03")
    ended = shell.end()

    assert ended.status == 130
    assert ended.err == f"\r\nvault-client: {said}\r\n"
    assert not [each for each in stub.requests if each[0] == "POST"]


def test_ctrl_c_at_the_secret_key(stub: Stub, terminal: Start) -> None:
    """The second question is left as the first is."""
    shell = terminal("add", "identity")
    shell.until("Access key ID: ")
    shell.type("AKIAEXAMPLE00000WXYZ\n")
    shell.until("Secret access key: ")
    shell.type("\x03")
    ended = shell.end()

    assert ended.status == 130
    assert (
        ended.err == "\r\nvault-client: cancelled, and nothing was stored: type `vault-client add identity` again\r\n"
    )
    assert stub.asked("POST", "/v1/identities") == []


@pytest.mark.parametrize("line", ["add identity", "add identity --replace"])
def test_add_says_that_it_is_locked_before_it_asks(stub: Stub, terminal: Start, line: str) -> None:
    """Nobody types a secret key for a daemon that cannot store it."""
    why = "locked by `vault-client lock`: type `vault-client unlock`"
    stub.answers["GET", "/v1/status"] = (200, {**STATUS, "locked": True, "locked_reason": why})
    ended = terminal(*line.split()).end()

    assert (ended.status, ended.err) == (1, f"vault-client: {why}\r\n")
    assert stub.asked("POST", "/v1/identities") == []


def test_add_checks_the_key_id_before_the_secret(stub: Stub, terminal: Start) -> None:
    """A secret pasted into the wrong question ends there."""
    shell = terminal("add", "identity")
    shell.until("Access key ID: ")
    shell.type(SECRET + "\n")
    ended = shell.end()

    assert ended.status == 1
    assert "that is no access key ID (16 or more capital letters and digits): copy it again and retry" in ended.err
    assert SECRET not in ended.err
    assert stub.asked("POST", "/v1/identities") == []


def test_add_lets_the_person_choose_a_device(stub: Stub, terminal: Start) -> None:
    """Several TOTP devices: a numbered list, and the choice goes along (aws-facts §2.2)."""
    several = error(400, "BadRequest", "several devices: give --mfa-serial", 1, mfa_serials=["arn:a", "arn:b"])
    stub.answers["POST", "/v1/identities"] = [several, (201, IDENTITY)]
    shell = terminal("add", "identity")
    shell.until("Access key ID: ")
    shell.type("AKIAEXAMPLE00000WXYZ\n")
    shell.until("Secret access key: ")
    shell.type(SECRET + "\n")
    shell.until("  2  arn:b")
    shell.until("number of the one to use: ")
    shell.type("3\n")
    shell.until("type a number from 1 to 2")
    shell.until("number of the one to use: ")
    shell.type("2\n")

    assert shell.end().status == 0
    assert (stub.asked("POST", "/v1/identities")[1] or {})["MfaSerial"] == "arn:b"


def test_unlock_asks_once_for_an_old_store_and_twice_for_a_new_one(stub: Stub, terminal: Start) -> None:
    """A new store's passphrase is typed twice; two that differ make none."""
    stub.answers["GET", "/v1/status"] = (200, {**STATUS, "locked": True})
    for second, status in (("other", 1), ("pass", 0)):
        shell = terminal("unlock")
        shell.until("New passphrase for vaultd's store: ")
        shell.type("pass\n")
        shell.until("The same again: ")
        shell.type(second + "\n")
        assert shell.end().status == status
    (stub.home / "data").mkdir()
    (stub.home / "data" / "secrets.sealed").touch()
    shell = terminal("unlock")
    shell.until("Passphrase of vaultd's store: ")
    shell.type("old one\n")

    assert shell.end().status == 0
    assert stub.asked("POST", "/v1/unlock") == [{"passphrase": "pass"}, {"passphrase": "old one"}]
