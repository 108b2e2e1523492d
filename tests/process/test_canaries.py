"""Issue 3, "Shows": five canaries over everything that processes leave behind, at the highest verbosity.

Rule (interface.md §3): the carriers are the stdout of `use`, `export` and `credential-process`, the environment of
`use` and `exec` children, and `grants/ID.token`; each holds its own grant's values and no other. All else has none.
"""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.leaks.canary import Canaries
from tests.process.harness import PROFILES, SERIAL, Emulator, Home, short_directory, until, variables
from tests.process.wire import talk

pytestmark = pytest.mark.process

OWN = f"\n[profile own]\nsource_profile = identity\nmfa_serial = {SERIAL}\n"
WRONG_SECRET = "mistyped/secret+access/key+of+forty/0001"
WRONG_PASSPHRASE = "a passphrase that was meant for something else"
FORMATS = ("env", "json", "process", "ini", "dotenv", "powershell", "fish")


@dataclass
class Evidence:
    """What was left. `canaries`: owner → values; `carried`: carrier → what it held; `open`: all that must hold none."""

    home: Home
    canaries: dict[str, Canaries] = field(default_factory=dict)
    carried: dict[str, tuple[set[tuple[str, str]], str]] = field(default_factory=dict)
    open: dict[str, bytes | str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    limits: str = ""

    def held(self, content: bytes | str) -> set[tuple[str, str]]:
        """(owner, kind) of every canary in `content`."""
        return {(owner, hit.canary) for owner, each in self.canaries.items() for hit in each.scan(content)}

    def carrier(self, name: str, content: str, *expected: tuple[str, str]) -> None:
        self.carried[name] = (set(expected), content)


@pytest.fixture(scope="module")
def evidence(shared_emulator: Emulator) -> Iterator[Evidence]:
    """The story is lived once; the tests look at what is left of it."""
    shared_emulator.ctl("reset", {})
    with short_directory() as directory:
        home = Home.make(directory, shared_emulator, profiles=PROFILES + OWN, VAULTD_LOG="debug")
        passphrase = f"{secrets.token_hex(8)} ünder/{secrets.token_hex(8)}"
        (directory / "passphrase").write_text(passphrase + "\n")
        found = Evidence(home)
        _, secret = shared_emulator.key()
        found.canaries["person"] = Canaries(secret_key=secret, passphrase=passphrase)
        with home.daemon("--debug"):
            _live(found, shared_emulator, passphrase)
        _after(found)
        yield found


def _live(found: Evidence, emulator: Emulator, passphrase: str) -> None:
    home = found.home
    assert home.add(emulator).status == 0
    _points(found, emulator)
    _carries(found)
    _children(found)
    _looks(home)
    _goes_wrong(found, emulator, passphrase)
    _rotates(found, emulator)
    found.limits = Path(f"/proc/{home.pid()}/limits").read_text()
    for part in ("cmdline", "environ"):
        found.open[f"{part} of the daemon"] = Path(f"/proc/{home.pid()}/{part}").read_bytes()
        found.open[f"{part} of the emulator"] = Path(f"/proc/{emulator.process.pid}/{part}").read_bytes()


def _points(found: Evidence, emulator: Emulator) -> None:
    """`use` of three profiles, the code on stdin; from now on every value is known."""
    home, code = found.home, emulator.code()
    found.canaries["code"] = Canaries(token_code=code)
    for profile in ("web-admin", "audit", "own"):
        used = home.client("use", profile, "--shell", "sh", "--token-code", "-", stdin=code + "\n")
        assert used.status == 0, used
        home.ran.remove(used)
        found.open[f"stderr of use {profile}"] = used.err
        token = variables(used.out)["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
        served = json.loads(home.get(token, profile).body)
        found.tokens[profile] = token
        found.canaries[profile] = Canaries(
            grant_token=token, session_token=served["Token"], secret_key=served["SecretAccessKey"]
        )
        found.carrier(f"stdout of use {profile}", used.out, (profile, "grant_token"))
        grant = variables(used.out)["VAULTD_GRANT"]
        path = home.directory / f"vaultd/run/grants/{grant}.token"
        found.carrier(f"{profile}'s token file", path.read_text(), (profile, "grant_token"))


def _carries(found: Evidence) -> None:
    home = found.home
    for profile in ("web-admin", "audit", "own"):
        keys = ((profile, "secret_key"), (profile, "session_token"))
        commands = [("export", profile, "--format", each) for each in FORMATS]
        for command in [*commands, ("credential-process", profile)]:
            ran = home.client(*command)
            assert ran.status == 0, ran
            home.ran.remove(ran)
            found.open[f"stderr of {command}"] = ran.err
            found.carrier(f"stdout of {command}", ran.out, *keys)


def _children(found: Evidence) -> None:
    """Environments of `exec` children: the token of a grant of their own; with --env, keys and no token."""
    home = found.home
    for options, kinds in (((), ()), (("--env",), ("secret_key", "session_token"))):
        command = ["vault-client", "exec", "web-admin", *options, "--", "sleep", "600"]
        with subprocess.Popen(command, env=home.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
            place = Path(f"/proc/{child.pid}")
            try:
                _became(child.pid, b"sleep\x00600\x00")
            except BaseException:
                child.kill()
                raise
            environment = place.joinpath("environ").read_bytes().decode()
            found.carrier(f"environ of exec {options}", environment, *(("web-admin", kind) for kind in kinds))
            own = dict(each.partition("=")[::2] for each in environment.split("\0"))
            child.kill()
            assert child.stdout is not None
            found.open[f"output of exec {options}"] = child.stdout.read()
        if not options:
            found.tokens["exec"] = own["AWS_CONTAINER_AUTHORIZATION_TOKEN"]


def _became(pid: int, argv: bytes) -> None:
    until(lambda: Path(f"/proc/{pid}/cmdline").read_bytes() == argv, f"{pid} is {argv!r}")


def _looks(home: Home) -> None:
    """Every command that shows something."""
    shown = ("list", "identities", "status", "grants", "log")
    for name in shown:
        home.client(name)
        home.client(name, "--json")
    for command in (("explain", "web-admin"), ("explain", "web-admin", "--json"), ("refresh", "audit"), ("mfa",)):
        home.client(*command)
    for command in (("status", "--json"), ("check",), ("check", "--json"), ("logs",), ("start",)):
        home.run("vaultd", *command)


def _goes_wrong(found: Evidence, emulator: Emulator, passphrase: str) -> None:
    """Refusals of all kinds: spent and wrong codes, wrong secrets and passphrases, requests that are no requests."""
    home, token = found.home, found.tokens["web-admin"]
    key, _ = emulator.key()
    found.canaries["typed"] = Canaries(secret_key=WRONG_SECRET, passphrase=WRONG_PASSPHRASE)
    home.client("add", "other", "--stdin", stdin=json.dumps({"AccessKeyId": key, "SecretAccessKey": WRONG_SECRET}))
    home.client("add", "other", "--stdin", stdin=f'{{"AccessKeyId": 7, "SecretAccessKey": "{WRONG_SECRET}"')
    for line, *headers in (
        ("GET /v1/credentials/audit", f"Authorization: {token}"),
        (f"GET /v1/credentials/{token}", f"Authorization: {token}"),
        ("GET /v1/credentials/web-admin", f"Authorization: {token}x"),
        ("GET /v1/credentials/web-admin", f"Authorization: {token}", f"Origin: {token}"),
        (f"GET /v1/{token} nonsense\r\n\r\n",),
        (f"{token}\x00\r\n\r\n",),
    ):
        reply = talk(home.port, line, *headers)
        found.open[f"answer to {line[:30]!r} {len(headers)}"] = repr(reply)
    _on_a_terminal(found, emulator)
    home.client("lock")
    home.client("unlock", "--stdin", stdin=WRONG_PASSPHRASE + "\n")
    assert home.client("unlock", "--stdin", stdin=passphrase + "\n").status == 0
    home.client("status", "--json")


def _rotates(found: Evidence, emulator: Emulator) -> None:
    """The secret that AWS shows once: with an answer that is cut off, and then to the end of the old key."""
    home, (old, _) = found.home, emulator.key()
    emulator.fault("reset", op="CreateAccessKey", when="after")
    assert home.client("rotate", "identity").status == 1
    assert home.client("rotate", "identity", "--abandon").status == 0
    ran = home.client("rotate", "identity", "--grace", "0s", "--json")
    assert ran.status == 0, ran
    new, secret = emulator.key()
    assert new != old
    found.canaries["rotated"] = Canaries(secret_key=secret)
    for command in (("identities",), ("log",), ("status",)):
        home.client(*command, "--json")


def _on_a_terminal(found: Evidence, emulator: Emulator) -> None:
    """Codes typed at the question: a spent one, a passphrase by mistake, a good one. What the screen shows is kept."""
    home, good = found.home, emulator.code(step=1)
    (spent,) = (each.values["token_code"] for owner, each in found.canaries.items() if owner == "code")
    found.canaries["second code"] = Canaries(token_code=good)
    home.client("clear")
    with home.terminal("vault-client", "use", "web-admin", "--shell", "/bin/sh", environment={"PS1": "$"}) as shell:
        for typed in (spent, WRONG_PASSPHRASE, good):
            shell.expect_exact("MFA code: ")
            place = Path(f"/proc/{shell.pid}")
            found.open[f"argv while asked for {len(typed)}"] = place.joinpath("cmdline").read_bytes()
            found.open[f"environ while asked for {len(typed)}"] = place.joinpath("environ").read_bytes()
            found.open[f"screen before {len(typed)}"] = shell.before or ""
            shell.sendline(typed)
        shell.expect_exact("type exit to leave it")
        found.open["screen after the code"] = shell.before or ""
        _became(int(shell.pid or 0), b"sh\x00")
        environment = place.joinpath("environ").read_bytes().decode()
        own = dict(each.partition("=")[::2] for each in environment.split("\0"))["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
        found.canaries["subshell"] = Canaries(grant_token=own)
        found.carrier("environ of the subshell", environment, ("subshell", "grant_token"))


def _after(found: Evidence) -> None:
    """Every output, and every file of the home."""
    found.canaries["exec"] = Canaries(grant_token=found.tokens["exec"])
    expected, content = found.carried["environ of exec ()"]
    found.carried["environ of exec ()"] = (expected | {("exec", "grant_token")}, content)
    for index, ran in enumerate(found.home.ran):
        found.open[f"output {index}"] = repr(ran)
    for path in found.home.directory.rglob("*"):
        if path.is_file() and path.suffix != ".token" and path.name != "passphrase":
            found.open[str(path)] = path.read_bytes()
            found.open[f"name of {path}"] = str(path)


def test_nothing_is_left_outside_the_carriers(evidence: Evidence) -> None:
    """0 hits in logs, audit, state, argv, environ and every output with VAULTD_LOG=debug and --debug."""
    names = {Path(name).name for name in evidence.open}

    assert {name: held for name, each in evidence.open.items() if (held := evidence.held(each))} == {}
    assert {"vaultd.log", "audit.jsonl", "sessions.sealed", "secrets.sealed", "grants.json"} <= names
    assert "DEBUG" in (evidence.home.state / "vaultd.log").read_text()
    assert len(evidence.home.ran) > 25


def test_each_carrier_holds_its_own(evidence: Evidence) -> None:
    """Its own grant's values, all of them, and nobody else's: also the control that the scanner finds them."""
    assert len(evidence.carried) > 30
    assert {
        name: (held, expected)
        for name, (expected, content) in evidence.carried.items()
        if (held := evidence.held(content)) != expected
    } == {}


def test_control_a_leak_is_found(evidence: Evidence) -> None:
    """Positive control: each canary is found in a log line, and in the log file when it is put there."""
    log = (evidence.home.state / "vaultd.log").read_text()
    for owner, each in evidence.canaries.items():
        for kind, value in each.values.items():
            assert (owner, kind) in evidence.held(f"{log}INFO engine: said {value} here\n")


def test_a_crash_leaves_no_core(evidence: Evidence, home: Home) -> None:
    """No core file is allowed to the daemon, whatever its caller's limit is, and none is there after SIGABRT."""
    assert "Max core file size        0                    0" in evidence.limits
    home.run("vaultd", "stop")
    started = home.run("bash", "-c", "ulimit -c unlimited 2>/dev/null; vaultd start")
    pid, before = home.pid(), set(Path("/").glob("core*"))
    limits = Path(f"/proc/{pid}/limits").read_text()
    home.kill(signal.SIGABRT)

    assert started.status == 0, started
    assert "Max core file size        0                    0" in limits
    assert set(Path("/").glob("core*")) == before
    assert not list(home.directory.rglob("core*"))


def test_the_callers_keys_are_not_given_to_the_daemon(home: Home) -> None:
    """Whoever starts it in a shell with keys: neither process has them, and /proc/PID/environ would show them for good.
    Control: what is started from that shell otherwise has them.
    """
    caller = Canaries.random()
    shell = {"AWS_SECRET_ACCESS_KEY": caller.values["secret_key"], "AWS_SESSION_TOKEN": caller.values["session_token"]}
    home.run("vaultd", "stop")
    started = home.run("vaultd", "start", environment=shell)
    pid = home.pid()
    both = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]

    assert started.status == 0, started
    assert len(both) == 2
    assert [caller.scan_process(each) for each in both] == [[], []]
    assert {hit.canary for hit in caller.scan(home.run("env", environment=shell).out)} == {
        "secret_key",
        "session_token",
    }


def test_the_outputs_are_those_of_commands(evidence: Evidence) -> None:
    """What was scanned is real: commands that worked and commands that were refused, with what they said."""
    statuses = [ran.status for ran in evidence.home.ran]

    assert {0, 1} <= set(statuses)
    assert all(ran.err for ran in evidence.home.ran if ran.status)
