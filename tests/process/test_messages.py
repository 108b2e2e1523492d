"""Issue 3, "Bad input": each refused by real processes, and the whole message read: stdout, stderr, exit status."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.harness import PASSPHRASE, PROFILES, SERIAL, Emulator, Home, MovedClock, Ran, until
from tests.process.wire import Reply, talk

pytestmark = pytest.mark.process

BROKEN = """
[profile loop-a]
source_profile = loop-b
role_arn = arn:aws:iam::234567890123:role/A

[profile loop-b]
source_profile = loop-a
role_arn = arn:aws:iam::234567890123:role/B

[profile orphan]
source_profile = nobody
role_arn = arn:aws:iam::234567890123:role/WebAdmin
mfa_serial = arn:aws:iam::123456789012:mfa/franklin
"""
LOOP_LINE, ORPHAN_LINE = (
    len((PROFILES + BROKEN).split(mark)[0].splitlines()) + 2 for mark in ("[profile loop-b]", "[profile orphan]")
)


#: A key that is well formed; where it would be used, it is wrong.
_KEY = json.dumps(
    {"AccessKeyId": "AKIAWELLFORMED000001", "SecretAccessKey": "well/formed+secret+of+forty+characters01"}
)


def said(ran: Ran) -> tuple[int, str, str]:
    """All that a command said; without the line that makes a failed `use` fail where it is evaluated."""
    return ran.status, "" if ran.status and ran.out == "false;\n" else ran.out, ran.err


def refused(status: int, message: str, *, program: str = "vault-client") -> tuple[int, str, str]:
    """One sentence on stderr, nothing on stdout."""
    return status, "", f"{program}: {message}\n"


@pytest.fixture
def broken(directory: Path, emulator: Emulator) -> Iterator[Home]:
    made = Home.make(directory, emulator, profiles=PROFILES + BROKEN)
    with made.daemon():
        assert made.add(emulator).status == 0
        yield made


# ---- the credential endpoint ----


def test_every_row_of_the_endpoints_table(home: Home, emulator: Emulator, clock: MovedClock) -> None:
    """interface.md §4's table over a raw socket: status, code, headers, the message also as reason phrase."""
    right = "Authorization: " + home.use("web-admin", emulator)["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
    other = "Authorization: " + home.use("audit", emulator)["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
    path, host = "GET /v1/credentials/web-admin", f"Host: 127.0.0.1:{home.port}"
    rows: list[tuple[int, str, str, tuple[str, ...]]] = [
        (400, "BadRequest", path, (right, "Host:")),
        (400, "BadRequest", path, (right, host, host)),
        (400, "BadRequest", f"GET http://127.0.0.1:{home.port}/v1/credentials/web-admin", (right,)),
        (400, "BadRequest", path, (right, "Content-Length: 1")),
        (400, "BadRequest", path, (right, "X-Long: " + "x" * 5000)),
        (400, "BadRequest", f"{path} HTTP/1.0\r\n{host}\r\n{right}\r\n\r\n", ()),
        (403, "ForbiddenOrigin", path, (right, "Host: attacker.example")),
        (403, "ForbiddenOrigin", path, (right, "Origin: http://attacker.example")),
        (403, "ForbiddenOrigin", path, (right, "Via:")),
        (404, "NotFound", "GET /v1/credentials/web-admin/", (right,)),
        (404, "NotFound", "GET /v1/credentials/web-admin?a=b", (right,)),
        (404, "NotFound", "GET /", ()),
        (405, "MethodNotAllowed", "POST /v1/credentials/web-admin", (right,)),
        (401, "InvalidToken", path, ()),
        (401, "InvalidToken", path, ("Authorization: wrong",)),
        (403, "ProfileMismatch", path, (other,)),
        (403, "ProfileMismatch", "GET /v1/credentials/nonsense", (right,)),
    ]
    for status, code, line, headers in rows:
        reply = talk(home.port, line, *headers)
        assert (reply.status, reply.code) == (status, code), (line, headers, reply)
        _is_an_error(reply)
        assert "Authorization" not in reply.message
    assert talk(home.port, path, right).status == 200
    for command, status, code in ((("clear",), 403, "MfaRequired"), (("lock",), 403, "Locked")):
        home.client(*command)
        reply = talk(home.port, path, right)
        assert (reply.status, reply.code) == (status, code), reply
        _is_an_error(reply)


def _is_an_error(reply: Reply) -> None:
    """Headers, both spellings, the reason phrase; a sentence that ends in what to type."""
    body = json.loads(reply.body)
    assert body == {"code": reply.code, "message": reply.message, "Code": reply.code, "Message": reply.message}
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert "server" not in reply.headers
    assert reply.reason == re.sub(r"[^ -~]", "?", reply.message)[:160]
    assert re.search(r"`[a-z-]+ .*`|set the tool up|ask 127\.0\.0\.1", reply.message), reply.message


def test_rows_that_need_a_changed_world(home: Home, emulator: Emulator) -> None:
    """RoleDenied, StsUnavailable, UnknownProfile (it left the config), IdentityBroken; healthz stays well."""
    admin = home.use("web-admin", emulator)["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
    audit = home.use("audit", emulator)["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
    emulator.ctl("mutate", {"role": {"arn": "arn:aws:iam::234567890123:role/WebAdmin", "deleted": True}})
    told = home.client("refresh", "web-admin", "--token-code", emulator.code(step=1))
    living = home.get(admin)
    home.client("clear", "web-admin")
    home.client("refresh", "web-admin")
    denied = home.get(admin)
    home.client("clear", "audit")
    emulator.fault("http", op="AssumeRole", times=0, arg=503)
    away = home.get(audit, "audit")
    config = home.directory / ".aws/config"
    config.write_text(config.read_text().replace("profile web-admin", "profile web-adm"))
    until(lambda: home.get(admin).status == 404, "the change is seen")
    left = home.get(admin)
    other = "another/secret+of+forty+characters/00001"
    emulator.ctl("mutate", {"key": {"user": "franklin", "id": emulator.key()[0], "secret": other}})
    home.client("clear")
    home.client("mfa", "--token-code", "000000")  # any that was not sent yet: the signature is looked at first
    broken = home.get(audit, "audit")
    healthy = talk(home.port, "GET /healthz")

    assert told.status == 1, told
    assert living.status == 200  # an old session that still lives is served, whatever becomes of its renewal
    assert (denied.status, denied.code) == (403, "RoleDenied"), denied
    assert (away.status, away.code) == (503, "StsUnavailable"), away
    assert (left.status, left.code) == (404, "UnknownProfile"), left
    assert left.message == (
        "There is no profile web-admin in ~/.aws/config. Did you mean web-adm? Run `vault-client list`."
    )
    assert (broken.status, broken.code) == (403, "IdentityBroken"), broken
    assert (healthy.status, healthy.body) == (200, b"ok")
    for reply in (denied, away, left, broken):
        _is_an_error(reply)


# ---- names and files ----


def test_unknown_names(broken: Home) -> None:
    """Profile: nearest names; a loop: its members; a missing source: what to add; each with its file and line."""
    loop = (
        f"~/.aws/config:{LOOP_LINE} [profile loop-b] source_profile=loop-a: the loop loop-a → loop-b → loop-a ends in "
        "no identity; point one of them at an identity and run `vault-client explain loop-b`."
    )
    orphan = (
        f"~/.aws/config:{ORPHAN_LINE} [profile orphan] source_profile=nobody: no section and no stored key has that "
        "name: run `vault-client add nobody`"
    )
    near = "There is no profile web-admn in ~/.aws/config. Did you mean web-admin? Run `vault-client list`."
    far = "There is no profile zzz in ~/.aws/config. Run `vault-client list`."
    for command in (("use",), ("explain",), ("refresh",)):
        assert said(broken.client(*command, "web-admn")) == refused(1, near)
        assert said(broken.client(*command, "zzz")) == refused(1, far)
        assert said(broken.client(*command, "loop-a")) == refused(78, loop)
        assert said(broken.client(*command, "orphan")) == refused(1, orphan)
    assert said(broken.client("revoke", "none")) == refused(
        1, "There is no grant 'none': list them with `vault-client grants`."
    )
    assert said(broken.client("remove", "idenity")) == refused(
        1, "no identity idenity is stored. Did you mean identity? Type `vault-client identities`"
    )
    assert said(broken.client("add", "identity", "--stdin", stdin=_KEY)) == refused(
        1,
        "identity is stored already (key …IN01): to put another key in its place, type "
        "`vault-client add identity --replace`",
    )


def test_an_unreadable_config(cold: Home, emulator: Emulator) -> None:
    """A FIFO, or one that others may write to, in place of ~/.aws/config: start, list and use all say so."""
    path = cold.directory / ".aws/config"
    path.unlink()
    os.mkfifo(path)
    fifo = f"{path} is refused because it is a FIFO, not a file: run `ls -l {path}`."
    started = cold.run("vaultd", "start")

    assert started.status == 0
    assert f"warning: {fifo}\n" in started.out
    assert said(cold.client("use", "web-admin")) == refused(78, fifo)
    listed = cold.client("list")
    assert (listed.status, listed.err.splitlines()[0]) == (78, f"vault-client: {fifo}")
    path.unlink()
    path.write_text(PROFILES)
    path.chmod(0o622)
    until(lambda: "FIFO" not in cold.client("use", "web-admin").err, "the change is seen")
    assert said(cold.client("use", "web-admin")) == refused(
        78, f"{path} is refused because it may be written to by others: run `chmod go-w {path}`."
    )
    path.chmod(0o600)
    until(lambda: cold.client("list").out.startswith("PROFILE"), "it is read again")


@pytest.mark.needs("setpriv")
def test_a_config_without_permission(cold: Home) -> None:
    """Mode 000: the sentence names the file and what to do. Root is run without the right to read any file."""
    path = cold.directory / ".aws/config"
    path.chmod(0)
    if os.geteuid() == 0:
        cold.inside = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--")
    cold.run("vaultd", "start")

    assert said(cold.client("use", "web-admin")) == refused(
        78, f"{path} is refused because it may not be read by you: run `chmod 600 {path}`."
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[listen]\nprot = 1\n", "2: [listen] prot is not a known key; write port"),
        ("[lisen]\nport = 9\n", "1: [lisen] is not a known key; write listen"),
        ("[listen]\nport = 'x'\n", "2: [listen] port is refused: write a whole number"),
        (
            "\n[prompt]\ntimeout = 120\n",
            '3: [prompt] timeout is refused: a duration is a number and its unit; write "90s", "30m", "12h" or "7d"',
        ),
        ("[profiles.x]\nprotcted = true\n", "2: [profiles.x] protcted is not a known key; write protected"),
    ],
)
def test_wrong_settings(text: str, message: str, directory: Path) -> None:
    """config.toml: file, line, key and the nearest known key, exit 78, by `start` and by `check`."""
    home = Home.make(directory)
    path = directory / "vaultd/config/config.toml"
    path.write_text(text)
    checked = home.run("vaultd", "check", "--json")
    (found,) = (each for each in checked.json()["checks"] if each["name"] == "settings")

    assert said(home.run("vaultd", "start")) == refused(78, f"{path}:{message}", program="vaultd")
    assert checked.status == 1
    assert found == {
        "name": "settings",
        "ok": False,
        "message": f"{path}:{message}",
        "remedy": f"edit {path}, then type `vaultd check`",
    }


# ---- store ----


def test_a_wrong_passphrase(home: Home) -> None:
    """On file: starts locked, says so, exit 0; given: refused, exit 1; the right one opens."""
    sealed = home.directory / "vaultd/data/secrets.sealed"
    wrong = f"That passphrase does not open {sealed}: run `vault-client unlock` again."
    (home.directory / "passphrase").write_text("wrong\n")
    restarted = home.run("vaultd", "restart")

    assert restarted.status == 0
    assert f"store: the encrypted file {sealed}, locked\n" in restarted.out
    assert restarted.out.endswith(
        f"next: the passphrase in {home.directory}/passphrase does not open the store: write the right one into it and "
        "type `vaultd restart`, or type `vault-client unlock`\n"
    )
    assert said(home.client("use", "web-admin")) == refused(1, "vaultd is locked: type `vault-client unlock`.")
    assert said(home.client("unlock", "--stdin", stdin="also wrong\n")) == refused(1, wrong)
    assert said(home.client("unlock")) == refused(
        3,
        "there is no terminal to ask for the passphrase on: type `vault-client unlock` in one, or give it with --stdin",
    )
    assert said(home.client("unlock", "--stdin", stdin=PASSPHRASE + "\n")) == (
        0,
        "",
        "vault-client: unlocked: sessions that still live are served again\n",
    )


def test_start_asks_for_the_passphrase(cold: Home) -> None:
    """On a terminal: twice when the store is new, and no store when they differ; once later; never shown."""
    del cold.extra["VAULTD_PASSPHRASE_FILE"]
    again = "The same passphrase again: "
    with cold.terminal("vaultd", "start") as shell:
        shell.expect_exact("New passphrase for vaultd's store: ")
        shell.sendline(PASSPHRASE)
        shell.expect_exact(again)
        shell.sendline("another")
        shell.expect_exact("vaultd: the two differ, so no store was made: type `vault-client unlock`\r\n")
        shell.expect_exact(", locked\r\n")
        shell.wait()
    assert shell.exitstatus == 0
    assert not (cold.directory / "vaultd/data/secrets.sealed").exists()
    for questions in (("New passphrase for vaultd's store: ", again), ("Passphrase of vaultd's store: ",)):
        cold.run("vaultd", "stop")
        with cold.terminal("vaultd", "start") as shell:
            for question in questions:
                shell.expect_exact(question)
                shell.sendline(PASSPHRASE)
            shell.expect_exact("secrets.sealed\r\n")
            assert PASSPHRASE not in str(shell.before)
            shell.wait()
        assert cold.run("vaultd", "status", "--json").json()["locked"] is False


def test_no_keyring(cold: Home) -> None:
    """Asked for and absent: starts, locked, and names both ways to choose the file store."""
    cold.extra["VAULTD_STORE"] = "keyring"
    started = cold.run("vaultd", "start")
    reason = (
        "There is no OS keyring in this session: choose the encrypted file with `VAULTD_STORE=file vaultd start`, or "
        'with `backend = "file"` under `[store]` in config.toml and `vaultd restart`.'
    )

    assert started.status == 0
    assert "store: the OS keyring, locked\n" in started.out
    assert started.out.endswith(f"next: {reason}\n")
    assert cold.client("status", "--json").json()["locked_reason"] == reason
    assert cold.client("use", "web-admin").status == 1


# ---- the daemon itself ----


def test_the_daemon_is_down(cold: Home) -> None:
    """69, naming the log and the start command, by every command; `stop` and `status` as the contract says."""
    down = refused(69, f"vaultd is not running (its log is {cold.state}/vaultd.log): type `vaultd start`")
    for command in (("list",), ("use", "web-admin"), ("exec", "web-admin", "--", "true"), ("status",), ("lock",)):
        assert said(cold.client(*command)) == down
    assert said(cold.run("vaultd", "status")) == (69, "vaultd is not running: type `vaultd start`\n", "")
    told = cold.run("vaultd", "status", "--json")
    assert (told.status, {**told.json(), "version": ""}) == (
        69,
        {"running": False, "pid": None, "port": None, "version": "", "locked": None},
    )
    assert said(cold.run("vaultd", "stop")) == (0, "vaultd is not running\n", "")
    assert said(cold.run("vaultd", "logs")) == refused(
        1, f"there is no {cold.state}/vaultd.log yet: type `vaultd start`", program="vaultd"
    )


def test_a_second_start(home: Home) -> None:
    """Says so, exit 0, and changes nothing; restart gives another pid on the same port."""
    pid = home.pid()
    again = home.run("vaultd", "start")
    restarted = home.run("vaultd", "restart")
    told = home.run("vaultd", "status")

    assert said(again) == (0, f"vaultd is already running (pid {pid}) on http://127.0.0.1:{home.port}\n", "")
    assert restarted.status == 0
    assert restarted.out.startswith(f"vaultd (pid {pid}) has stopped\nvaultd ")
    assert home.pid() != pid
    assert told.status == 0
    pids = f"pid {home.pid()}, keeper pid {home.link('GET', '/v1/status')['keeper_pid']}"
    assert told.out.endswith(f" serves on http://127.0.0.1:{home.port} ({pids}), unlocked\n")


def test_a_port_that_is_taken(cold: Home) -> None:
    """Names the owner and both ways out, exit 1; nothing is left behind; `check` says the same without starting."""
    owner = f"{Path(sys.executable).resolve()} (pid {os.getpid()})"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", cold.port))
        taken.listen()
        started = cold.run("vaultd", "start")
        checked = {each["name"]: each for each in cold.run("vaultd", "check", "--json").json()["checks"]}

    assert said(started) == refused(
        1,
        f"Port {cold.port} is taken by {owner}: stop that, or choose another, "
        "for good by `[listen] port` in config.toml, for one start with `vaultd start --port N`.",
        program="vaultd",
    )
    assert not (cold.directory / "vaultd/run/control.sock").exists()
    assert not (cold.directory / "vaultd/run/endpoint.json").exists()
    assert checked["port"]["ok"] is False
    assert checked["port"]["message"] == f"127.0.0.1:{cold.port} is taken by {owner}"
    assert checked["port"]["remedy"].endswith("`vaultd start`")


def test_wrong_usage(home: Home) -> None:
    """2, naming the way to the help; CMD not found 127, not executable 126, before anything is asked."""
    assert said(home.client("use")) == refused(2, "use: PROFILE is missing: type `vault-client use --help`")
    assert said(home.client("lst")) == refused(
        2, "there is no command lst (did you mean list?): type `vault-client --help`"
    )
    assert said(home.client("exec", "web-admin", "--", "no-such-command")) == refused(
        127, "no-such-command was not found: check its name and PATH, then type it again"
    )
    assert said(home.client("exec", "web-admin", "--", "/etc/passwd")) == refused(
        126, "/etc/passwd is not executable: type chmod +x /etc/passwd if it should be"
    )
    assert home.asked() == 0


# ---- codes ----


def test_a_code_of_the_wrong_shape(home: Home, emulator: Emulator) -> None:
    """Refused here, exit 1: 0 calls, whatever takes a code."""
    before = len(emulator.calls())
    shape = refused(1, "--token-code is not six digits, so nothing was sent: give the code that the device shows")
    for code in ("12345", "1234567", "12a456", "１２３４５６", "my passphrase"):
        assert said(home.client("use", "web-admin", "--token-code", code)) == shape
        assert said(home.client("mfa", "--token-code", "-", stdin=code + "\n")) == shape
    assert len(emulator.calls()) == before
    assert home.asked() == 0


def test_codes_that_are_refused(home: Home, emulator: Emulator) -> None:
    """No terminal: 3 and what to run. Wrong: 1. Spent: 1, with the seconds to wait and 0 calls. STS away: 75."""
    code = emulator.code()
    nobody = home.client("use", "web-admin")
    wrong = home.client("use", "web-admin", "--token-code", f"{(int(code) + 1) % 10**6:06}")
    right = home.client("use", "web-admin", "--shell", "sh", "--token-code", code)
    home.client("clear")
    before = emulator.count("GetSessionToken")
    spent = home.client("use", "web-admin", "--token-code", code)
    counted = emulator.count("GetSessionToken")
    emulator.fault("reset", op="GetSessionToken", times=0)
    away = home.client("use", "web-admin", "--token-code", emulator.code(step=1))

    assert said(nobody) == refused(
        3,
        f"web-admin needs a code of {SERIAL} and there is no terminal to ask on: type `vault-client mfa identity` in "
        "one, or give --token-code CODE",
    )
    assert said(wrong) == refused(1, f"AWS refused the code for {SERIAL}; wait for the next one and type that")
    assert right.status == 0, right
    assert (spent.status, spent.out) == (1, "false;\n")
    assert re.fullmatch(
        rf"vault-client: that code of {SERIAL} was sent before; wait \d+ s for the next one and type that\n", spent.err
    ), spent.err
    assert (before, counted) == (2, 2)
    assert (away.status, away.out) == (75, "false;\n")
    assert away.err.startswith("vault-client: AWS in us-east-1 is unavailable: ")
    assert "wait for the next one and type that" in away.err


def test_sts_away_with_a_session_left(home: Home, emulator: Emulator) -> None:
    """The session that lives is served, by the endpoint and to a new grant; only what is new is 75."""
    token = home.use("web-admin", emulator)["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
    emulator.fault("reset", op="AssumeRole", times=0)
    served, granted = home.get(token), home.client("exec", "web-admin", "--", "true")
    other = home.client("use", "audit")

    assert (served.status, granted.status) == (200, 0)
    assert (other.status, other.out) == (75, "false;\n")
    assert other.err.startswith("vault-client: AWS in us-east-1 is unavailable: ")
    assert "try again" in other.err


# ---- on a terminal ----


def test_use_as_a_subshell(home: Home, emulator: Emulator) -> None:
    """`use` typed bare: asks on the terminal who wants what, then a subshell that serves, until exit."""
    shell_options = {"PS1": "in$ ", "SHELL": "/bin/sh"}
    with home.terminal("vault-client", "use", "web-admin", environment=shell_options) as shell:
        shell.expect(rf"vaultd · web-admin · requested by (.+) · code for {SERIAL}\r\nMFA code: ")
        requester = str(shell.match[1] if isinstance(shell.match, re.Match) else "")
        shell.sendline(emulator.code())
        shell.expect(
            r"vault-client: using web-admin \(account 234567890123 role WebAdmin, session until "
            r"(\d{4}-\d\d-\d\d )?\d\d:\d\d, kept fresh\); this is a subshell, type exit to leave it\r\n"
        )
        shell.expect_exact("in$ ")
        shell.sendline("vault-client unuse >/dev/null; echo profile=$VAULTD_PROFILE")
        shell.expect_exact("this is a subshell of `vault-client use`: type exit to leave it")
        shell.expect(r"\r\nprofile=web-admin\r\n")
        shell.sendline("exit")
        shell.wait()

    assert re.search(r"\(pid \d+", requester)
    until(lambda: home.client("grants", "--json").json()["grants"] == [], "the grant ends with the subshell")


def test_use_by_eval_and_an_answer_elsewhere(home: Home, emulator: Emulator) -> None:
    """`eval "$(…)"` in a real shell: the question stays on the terminal; answered elsewhere, its line is cleared."""
    with home.terminal("bash", "--norc", "--noprofile", environment={"PS1": "out$ "}) as shell:
        shell.expect_exact("out$ ")
        shell.sendline('eval "$(vault-client use web-admin)"')
        shell.expect_exact("MFA code: ")
        until(lambda: len(home.link("GET", "/v1/prompts")["prompts"]) == 1, "the question is open")
        assert home.client("mfa", "--token-code", emulator.code()).status == 0
        shell.expect_exact("\r\x1b[Kanswered elsewhere")
        shell.expect_exact('undo it with: eval "$(vault-client unuse)"')
        shell.sendline('echo "profile=$VAULTD_PROFILE"; eval "$(vault-client unuse)"; echo "profile=<$VAULTD_PROFILE>"')
        shell.expect(r"[\r\n]profile=web-admin\r\n")
        shell.expect(r"profile=<>\r\n")

    assert (home.asked(), emulator.count("GetSessionToken")) == (1, 1)
    until(lambda: home.client("grants", "--json").json()["grants"] == [], "unuse ended the grant")


def test_ctrl_c_cancels(home: Home, emulator: Emulator) -> None:
    """Ctrl-C at the question cancels it: exit 1, a cool-down with its seconds for the next, nothing sent."""
    with home.terminal("vault-client", "exec", "web-admin", "--", "true") as shell:
        shell.expect_exact("MFA code: ")
        shell.sendintr()
        shell.expect_exact("vault-client: cancelled: wait 30 s, then type `vault-client mfa identity`\r\n")
        shell.wait()
    again = home.client("exec", "web-admin", "--", "true")

    assert shell.exitstatus == 1
    assert (again.status, again.out) == (1, "")
    assert re.fullmatch(
        r"vault-client: The MFA question for identity was cancelled: wait (30|2\d) s, then type "
        r"`vault-client mfa identity`\.\n",
        again.err,
    ), again.err
    assert emulator.count("GetSessionToken") == 0


# ---- check and logs ----


def test_check(home: Home) -> None:
    """All well: exit 0, each diagnosis once, with and without a daemon; `--json` is the contract's object."""
    first = ["settings", "permissions", "profiles", "store", "keys", "daemon"]
    names = [*first, "port", "peers", "clock", "audit", "user"]
    running, told = home.run("vaultd", "check", "--json"), home.run("vaultd", "check")
    home.run("vaultd", "stop")
    stopped = home.run("vaultd", "check", "--json")
    audit = home.state / "audit.jsonl"
    audit.chmod(0o666)
    wrong = home.run("vaultd", "check", "--json")

    with_keeper = [*first, "keeper", *names[6:]]
    for ran, looked_at in ((running, with_keeper), (stopped, names)):
        assert ran.status == 0, ran
        assert [each["name"] for each in ran.json()["checks"]] == looked_at
        assert all(set(each) == {"name", "ok", "message", "remedy"} for each in ran.json()["checks"])
        assert all(each["ok"] and each["message"] and not each["remedy"] for each in ran.json()["checks"])
    assert told.status == 0
    assert [line.split()[1] for line in told.out.splitlines()] == with_keeper
    assert wrong.status == 1
    bad = next(each for each in wrong.json()["checks"] if not each["ok"])
    assert bad["name"] == "permissions"
    assert str(audit) in bad["message"]
    assert bad["remedy"]


def test_logs_that_follow(home: Home, emulator: Emulator) -> None:
    """`logs` prints the log; `-f` goes on with what is written from now on, until Ctrl-C."""
    with home.terminal("vaultd", "logs", "-f") as shell:
        shell.expect(r"INFO \S+: open store kind=file")
        home.client("mfa", "--token-code", emulator.code())
        shell.expect(r"INFO \S+: open mfa-session identity=identity")
        shell.sendintr()
        shell.wait()
    printed = home.run("vaultd", "logs")

    assert shell.exitstatus == 130
    assert printed.status == 0
    assert "open mfa-session identity=identity" in printed.out
    assert all(re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z [A-Z]+ ", line) for line in printed.out.splitlines())
