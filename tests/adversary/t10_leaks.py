"""T10: what lies about: logs, command lines, environments, error answers, a passphrase at the wrong prompt."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.adversary import wire
from tests.adversary.case import Attack, Case
from tests.adversary.ground import KEYS_PATH, Ground
from tests.adversary.homes import fresh
from tests.adversary.people import OWNER, as_user, command_of
from tests.adversary.t09_stolen_disk import canaries, identity_key
from tests.leaks.canary import Hit

ECHO = "echo-canary-7f3a"
_TYPED = "horse-battery-typed-into-the-wrong-prompt"


def _texts(ground: Ground) -> list[Path]:
    return [
        ground.home.state / "vaultd.log",
        ground.home.state / "audit.jsonl",
        *ground.home.directory.glob("*.journal"),
    ]


def in_logs(*, plant: bool) -> Attack:
    def act(ground: Ground) -> bytes:
        planted = ground.home.directory / "planted.journal"
        if plant:
            planted.write_text("\n".join(canaries(ground).values.values()))
        try:
            hits = [
                hit
                for path in _texts(ground)
                for made in (canaries, identity_key)
                for hit in made(ground).scan_path(path)
            ]
        finally:
            planted.unlink(missing_ok=True)
        return " ".join(f"{each.canary}:{each.where}" for each in hits).encode()

    return act


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def careless(ground: Ground) -> Iterator[None]:
    """A program with the token on its command line, as `curl -H`, and the key in its environment."""
    command = ["/bin/sh", "-c", "read x", "sh", ground.token]
    env = {"AWS_SECRET_ACCESS_KEY": ground.emulator.key()[1]}
    with subprocess.Popen([*command_of(OWNER), *command], env=env, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        try:
            yield
        finally:
            process.stdin.close()
            process.wait(10)


def in_processes(over: Callable[[Ground], contextlib.AbstractContextManager[None]]) -> Attack:
    """Every process of this machine, as root sees it, while the client of another home hands a key over."""

    def act(ground: Ground) -> bytes:
        hits = []
        id_, secret = ground.emulator.key()
        with over(ground), fresh(ground) as home, home.daemon():
            command = [*home.inside, "vault-client", "add", "identity", "--stdin"]
            with subprocess.Popen(
                command, env=home.env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd="/"
            ) as process:
                assert process.stdin is not None
                process.stdin.write(f'{{"AccessKeyId":"{id_}","SecretAccessKey":"{secret}"}}')
                process.stdin.close()
                while process.poll() is None:
                    hits += _scan(ground)
            assert process.returncode == 0
            hits += _scan(ground)
        return " ".join(sorted({f"{each.canary}:{each.where}" for each in hits})).encode()

    return act


def _scan(ground: Ground) -> list[Hit]:
    made = [canaries(ground), identity_key(ground)]
    pids = [int(each.name) for each in Path("/proc").glob("[0-9]*") if int(each.name) != os.getpid()]
    return [hit for pid in pids for each in made for hit in each.scan_process(pid)]


def reflected(target: Callable[[Ground], wire.Address], raw: bytes) -> Attack:
    """Bytes of a broken request, in its answer."""

    def act(ground: Ground) -> bytes:
        reply = as_user(OWNER, lambda: wire.talk(target(ground), raw.replace(b"{canary}", ECHO.encode())))
        return reply if ECHO.encode() in reply else b""

    return act


def logged(raw: bytes, *, plant: bool) -> Attack:
    """Bytes of a broken request, in the log."""

    def act(ground: Ground) -> bytes:
        as_user(OWNER, lambda: wire.talk(ground.daemon, raw.replace(b"{canary}", ECHO.encode())))
        found = (ground.home.state / "vaultd.log").read_bytes()
        found += f"a server that logs what it cannot parse: {ECHO}".encode() if plant else b""
        return found if ECHO.encode() in found else b""

    return act


_BROKEN = {
    "header-with-nul": b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {canary}\0\r\n\r\n",
    "bad-method": b"{canary} /healthz HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n",
    "bad-target": b"GET {canary} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "long-header": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: {canary}" + b"a" * 9000 + b"\r\n\r\n",
    "unknown-path": b"GET /{canary} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
    "wrong-token": f"GET {KEYS_PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAuthorization: ".encode()
    + b"{canary}\r\n\r\n",
    "foreign-host": b"GET / HTTP/1.1\r\nHost: {canary}\r\nConnection: close\r\n\r\n",
    "header-without-colon": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n{canary}\r\n\r\n",
}


def typed_code(code: str | None) -> Attack:
    """What reached AWS when that was typed at the prompt for a code; None: a code of six digits that is wrong."""

    def act(ground: Ground) -> bytes:
        with fresh(ground) as home, home.daemon():
            assert home.add(ground.emulator).status == 0
            before = ground.emulator.count("GetSessionToken")
            right = ground.emulator.code()
            wrong = f"{(int(right) + 7) % 1_000_000:06d}"
            home.client("mfa", "identity", "--token-code", code or wrong)
            sent = b"call" * (ground.emulator.count("GetSessionToken") - before)
            logs = b"".join(each.read_bytes() for each in (home.state / "vaultd.log", home.state / "audit.jsonl"))
            return sent + (b"log" if code and code.encode() in logs else b"")

    return act


def debug_log(*, plant: bool) -> Attack:
    """The whole way at DEBUG: key, code, sessions and tokens."""

    def act(ground: Ground) -> bytes:
        with fresh(ground) as home, home.daemon("--debug"):
            assert home.add(ground.emulator).status == 0
            listed = home.client("list", "--json")
            assert listed.status == 0
            log = home.state / "vaultd.log"
            assert "DEBUG" in log.read_text().upper()
            if plant:
                log.write_text(log.read_text() + ground.emulator.key()[1])
            return " ".join(each.form for each in identity_key(ground).scan_path(log)).encode()

    return act


def _naive(ground: Ground) -> wire.Address:
    return ground.naive


def _daemon(ground: Ground) -> wire.Address:
    return ground.daemon


CONSTANT = "No byte of a request comes back in an answer"
UNLOGGED = "No byte of a request that is not understood is logged"
PLANTED = "planted, it is found by the same look"

CASES = (
    Case("T10-logs", "T10", "No log has a secret, in any form", in_logs(plant=False), PLANTED, in_logs(plant=True)),
    Case("T10-debug-log", "T10", "Nor has the debug log", debug_log(plant=False), PLANTED, debug_log(plant=True)),
    Case(
        "T10-command-lines-and-environments", "T10", "No secret stands in a command line or environment of ours",
        in_processes(lambda _: _nothing()), "a careless program's are found", in_processes(careless),
    ),
    *(
        Case(
            f"T10-echo-{name}", "T10", CONSTANT, reflected(_daemon, raw), "the naive server echoes the same bytes",
            reflected(_naive, b"GET /{canary} HTTP/1.1\r\n\r\n" if name == "long-header" else raw),
        )
        for name, raw in _BROKEN.items()
    ),
    *(
        Case(f"T10-logged-{name}", "T10", UNLOGGED, logged(raw, plant=False), PLANTED, logged(raw, plant=True))
        for name, raw in _BROKEN.items()
        if name in {"header-with-nul", "bad-method", "wrong-token"}
    ),
    Case(
        "T10-passphrase-at-the-code-prompt", "T10", "What is no code of six digits is never sent to AWS, nor logged",
        typed_code(_TYPED), "six wrong digits are sent", typed_code(None),
    ),
)  # fmt: skip
