"""Real processes for tests: the emulator, the daemon in a home of its own, the client, a moved wall clock.

Rule: everything started here is stopped here, by its pid, however the test ends; nothing reads the machine's own
AWS files, keyring or vaultd.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pexpect

from tests.process.wire import Reply, talk
from vault_client.link import Link
from vault_client.places import Places

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SERIAL = "arn:aws:iam::123456789012:mfa/franklin"
PASSPHRASE = "process tests' passphrase"
DEADLINE = 30.0

#: The tutorial's profile and the scenario roles of tests/strict_sts.
PROFILES = """\
[profile web-admin]
source_profile = identity
role_arn = arn:aws:iam::234567890123:role/WebAdmin
mfa_serial = arn:aws:iam::123456789012:mfa/franklin
region = us-east-1

[profile audit]
source_profile = identity
role_arn = arn:aws:iam::345678901234:role/Audit
mfa_serial = arn:aws:iam::123456789012:mfa/franklin

[profile long-ops]
source_profile = identity
role_arn = arn:aws:iam::234567890123:role/LongOps
mfa_serial = arn:aws:iam::123456789012:mfa/franklin

[profile long-ops-2h]
source_profile = identity
role_arn = arn:aws:iam::234567890123:role/LongOps
mfa_serial = arn:aws:iam::123456789012:mfa/franklin
duration_seconds = 7200

[profile name-lock]
source_profile = identity
role_arn = arn:aws:iam::234567890123:role/NameLock
mfa_serial = arn:aws:iam::123456789012:mfa/franklin

[profile if-exists]
source_profile = identity
role_arn = arn:aws:iam::234567890123:role/IfExists
mfa_serial = arn:aws:iam::123456789012:mfa/franklin

[profile chained]
source_profile = web-admin
role_arn = arn:aws:iam::234567890123:role/Chained
"""

#: What `vault-client exec PROFILE -- python -c` runs to print what an SDK of the customer's would use.
SHOW_KEYS = """\
import json, boto3
keys = boto3.Session().get_credentials()
frozen = keys.get_frozen_credentials()
print(json.dumps({"key": frozen.access_key, "until": keys._expiry_time.strftime("%Y-%m-%dT%H:%M:%SZ")}))
"""


def until(holds: Callable[[], bool], what: str, *, seconds: float = DEADLINE) -> None:
    """Poll for a condition of another process; fails naming it. The only wait on real time that tests have."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(f"not in {seconds} s: {what}")
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def short_directory() -> Iterator[Path]:
    """A directory whose path leaves room for a unix socket's 107 bytes; pytest's may not."""
    with tempfile.TemporaryDirectory(prefix="vaultd-") as name:
        yield Path(name)


@dataclass
class MovedClock:
    """A clock that every process started with one of its environments shares, ahead of the real one.

    `env` moves the wall clock alone, as for a machine whose clock is set; `living` all clocks, as if the time had
    been lived through, and `step` then waits until the event loop has turned.
    """

    library: Path
    shared: Path
    now: float = 0.0

    @classmethod
    def build(cls, directory: Path) -> MovedClock:
        library = directory / "moved_clock.so"
        source = Path(__file__).with_name("moved_clock.c")
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source, "-lm"], check=True)
        shared = directory / "clock"
        shared.write_bytes(struct.pack("dQ", 0.0, 0).ljust(mmap.PAGESIZE, b"\0"))
        return cls(library, shared)

    @property
    def env(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.library), "VAULTD_MOVED_CLOCK": str(self.shared)}

    @property
    def living(self) -> dict[str, str]:
        return {**self.env, "VAULTD_MOVED_CLOCK_ALL": "1"}

    def ahead(self, seconds: float) -> None:
        self.now = seconds
        with self.shared.open("r+b") as file:
            file.write(struct.pack("d", seconds))

    def step(self, seconds: float, *, turns: int = 4) -> None:
        """Move on; return once the one `living` event loop has turned so often that what was due has begun."""
        before = self.turns()
        self.ahead(self.now + seconds)
        until(lambda: self.turns() >= before + turns, "the daemon's loop turns")

    def turns(self) -> int:
        return int(struct.unpack_from("Q", self.shared.read_bytes(), 8)[0])


@dataclass
class Emulator:
    """tests.strict_sts as a process."""

    process: subprocess.Popen[str]
    url: str
    env: dict[str, str]
    cafile: str | None = None

    @classmethod
    @contextmanager
    def running(
        cls,
        *arguments: str,
        moto: bool = False,
        environment: Mapping[str, str] | None = None,
        cafile: str | None = None,
    ) -> Iterator[Emulator]:
        command = [
            sys.executable,
            "-m",
            "tests.strict_sts",
            "--port",
            "0",
            *arguments,
            *(["--with-moto"] if moto else []),
        ]
        clean = {name: value for name, value in os.environ.items() if not name.upper().startswith(("AWS_", "HTTP"))}
        env = {**clean, **(environment or {})}
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=env) as process:
            try:
                assert process.stdout is not None
                started = json.loads(process.stdout.readline())
                yield cls(process, started["url"], started["env"], cafile)
            finally:
                stop(process)

    def ctl(self, path: str, body: object = None) -> dict[str, Any]:
        """A control request: GET without a body, else POST."""
        sent = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}/_ctl/{path}", data=sent, headers={"Content-Type": "application/json"}
        )
        trust = None if self.cafile is None else ssl.create_default_context(cafile=self.cafile)
        with urllib.request.urlopen(request, timeout=DEADLINE, context=trust) as reply:
            found: dict[str, Any] = json.load(reply)
            return found

    def code(self, *, step: int = 0) -> str:
        """What the phone shows now, or `step` × 30 s from now."""
        return str(self.ctl(f"totp?serial={quote(SERIAL)}&step={step}")["code"])

    def calls(self, op: str | None = None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ctl("calls" if op is None else f"calls?op={op}")["calls"]
        return found

    def count(self, op: str) -> int:
        return len(self.calls(op))

    def key(self) -> tuple[str, str]:
        found = self.ctl("key?user=franklin")
        return str(found["id"]), str(found["secret"])

    def fault(self, kind: str, *, op: str, when: str = "before", times: int = 1, arg: object = None) -> None:
        self.ctl("fault", {"match": {"op": op}, "kind": kind, "when": when, "times": times, "arg": arg})


@dataclass
class Ran:
    """A finished command."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Home:
    """A VAULTD_HOME with settings and profiles of its own, and the commands run in it."""

    directory: Path
    port: int
    extra: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(
        cls,
        directory: Path,
        emulator: Emulator | None = None,
        *,
        settings: str = "",
        profiles: str = PROFILES,
        **extra: str,
    ) -> Home:
        home = cls(directory, free_port())
        (directory / "vaultd/config").mkdir(parents=True, mode=0o700, exist_ok=True)
        (directory / "vaultd").chmod(0o700)
        (directory / ".aws").mkdir(exist_ok=True)
        (directory / ".aws/config").write_text(profiles)
        (directory / "vaultd/config/config.toml").write_text(f"[listen]\nport = {home.port}\n{settings}")
        passphrase = directory / "passphrase"
        passphrase.write_text(PASSPHRASE + "\n")
        passphrase.chmod(0o600)
        home.extra = {
            "VAULTD_STORE": "file",
            "VAULTD_PASSPHRASE_FILE": str(passphrase),
            **(emulator.env if emulator else {}),
            **extra,
        }
        return home

    #: Put before each command: `nsenter …` for a home with mounts of its own.
    inside: tuple[str, ...] = ()
    #: Every command run here, for whoever looks for secrets in what was printed.
    ran: list[Ran] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("LANG", "TZ", "COVERAGE_PROCESS_START") if name in os.environ}
        return {
            **kept,
            "PATH": f"{BIN}:/usr/bin:/bin",
            "HOME": str(self.directory),
            "VAULTD_HOME": str(self.directory / "vaultd"),
            **self.extra,
        }

    def run(self, *command: str, stdin: str = "", environment: Mapping[str, str] | None = None) -> Ran:
        """Run a command without a terminal in this home."""
        done = subprocess.run(
            [*self.inside, *command],
            env={**self.env, **(environment or {})},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=DEADLINE * 3,
            cwd="/",
            check=False,
            start_new_session=True,
        )
        self.ran.append(Ran(done.returncode, done.stdout, done.stderr))
        return self.ran[-1]

    @contextmanager
    def terminal(self, *command: str, environment: Mapping[str, str] | None = None) -> Iterator[pexpect.spawn[str]]:
        """A command on a terminal of its own, which is closed at the end, whatever runs in it."""
        child = pexpect.spawn(
            command[0],
            list(command[1:]),
            env={"TERM": "xterm", **self.env, **(environment or {})},
            cwd=str(self.directory),
            encoding="utf-8",
            timeout=DEADLINE,
            dimensions=(50, 250),
        )
        try:
            yield child
        finally:
            child.close(force=True)

    def client(self, *arguments: str, stdin: str = "", environment: Mapping[str, str] | None = None) -> Ran:
        return self.run("vault-client", *arguments, stdin=stdin, environment=environment)

    def link(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One call of the control API, without a process for it."""
        return Link(Places({"VAULTD_HOME": str(self.directory / "vaultd")})).call(method, path, body)

    def add(self, emulator: Emulator, name: str = "identity", *options: str) -> Ran:
        """Store franklin's key by `add --stdin`."""
        access_key_id, secret = emulator.key()
        body = json.dumps({"AccessKeyId": access_key_id, "SecretAccessKey": secret})
        return self.client("add", name, "--stdin", *options, stdin=body)

    def use(self, profile: str, emulator: Emulator, *, step: int = 0) -> dict[str, str]:
        """What `eval "$(vault-client use PROFILE)"` puts into a shell; the code is given where one is needed."""
        used = self.client("use", profile, "--shell", "sh", "--token-code", emulator.code(step=step))
        assert used.status == 0, used
        plain = ("PATH", "PWD", "SHLVL", "_")
        return {name: value for name, value in variables(used.out).items() if name not in plain}

    def get(self, token: str, slug: str = "web-admin") -> Reply:
        """What an SDK gets from the credential endpoint."""
        return talk(self.port, f"GET /v1/credentials/{slug}", f"Authorization: {token}")

    def asked(self) -> int:
        """How many questions were opened since this home was made."""
        return self.events("mfa.ask")

    def events(self, event: str) -> int:
        return sum(line["event"] == event for line in self.audit())

    @property
    def state(self) -> Path:
        return self.directory / "vaultd/state"

    def audit(self) -> list[dict[str, Any]]:
        path = self.state / "audit.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def pid(self) -> int:
        found: int = json.loads((self.directory / "vaultd/run/endpoint.json").read_text())["pid"]
        return found

    @contextmanager
    def daemon(self, *arguments: str) -> Iterator[Home]:
        """`vaultd start` in the background until the block ends."""
        started = self.run("vaultd", "start", *arguments)
        assert started.status == 0, started
        try:
            yield self
        finally:
            self.stop()

    def stop(self) -> None:
        """`vaultd stop`, and by pid when that does not help."""
        try:
            pid = self.pid()
        except FileNotFoundError:
            return
        self.run("vaultd", "stop")
        if alive(pid):
            os.kill(pid, signal.SIGKILL)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Kill the daemon, and wait until it is gone."""
        pid = self.pid()
        os.kill(pid, number)
        until(lambda: not alive(pid), f"daemon {pid} is gone")


def alive(pid: int) -> bool:
    """True while `pid` runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def stop(process: subprocess.Popen[str]) -> None:
    """SIGTERM, then SIGKILL after the deadline."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()


def variables(lines: str) -> dict[str, str]:
    """The environment after a shell evaluated `lines`."""
    shell = shutil.which("bash") or "/bin/sh"
    done = subprocess.run(
        [shell, "-c", f"{lines}\nenv -0"], env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=True
    )
    pairs: Sequence[str] = done.stdout.decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def refused_yet(port: int) -> bool:
    """Nobody listens on `port`."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
