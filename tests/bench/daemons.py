"""A daemon with franklin's key and a live session, and the ways to ask it that the benches share.

Rule: a figure about the daemon is taken from a real process that was started as a user starts it, and asked from
outside; the wall clock is read around nothing but the asking.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.process.harness import BIN, SERIAL, Emulator, Home
from vault_client.link import Link
from vault_client.places import Places

#: Five profiles of one device, each with an AssumeRole of its own.
FIVE = ("web-admin", "audit", "long-ops", "name-lock", "plain")
_ROLES = {
    "web-admin": "234567890123:role/WebAdmin",
    "audit": "345678901234:role/Audit",
    "long-ops": "234567890123:role/LongOps",
    "name-lock": "234567890123:role/NameLock",
    "plain": "234567890123:role/Plain",
}
#: Settings of a daemon whose keeper is no process of its own.
ONE_PROCESS = "[keeper]\nprocess = false\n"
PYTHON = str(BIN / "python")


def profiles(*, more: int = 0, wide: int = 0) -> str:
    """The text of ~/.aws/config: the five, and `more` like them with names of `wide` characters at least."""
    found = [_section(name, f"arn:aws:iam::{role}") for name, role in _ROLES.items()]
    others = [
        _section(f"account-{number:04}".ljust(wide, "x"), f"arn:aws:iam::{number:012}:role/Admin")
        for number in range(more)
    ]
    return "\n".join([*found, *others])


def _section(name: str, role: str) -> str:
    return (
        f"[profile {name}]\nsource_profile = identity\nrole_arn = {role}\nmfa_serial = {SERIAL}\nregion = us-east-1\n"
    )


@contextmanager
def emulator() -> Iterator[Emulator]:
    """STS as strict as AWS, without the data plane."""
    with Emulator.running() as running:
        yield running


@dataclass
class Lease:
    """A token for one profile, as an SDK holds it."""

    profile: str
    address: tuple[str, int]
    token: str

    @classmethod
    def make(cls, home: Home, profile: str, **options: object) -> Lease:
        """POST /v1/grants; raises vault_client's Refusal when a code is needed."""
        said = link(home).call("POST", "/v1/grants", {"profile": profile, "kind": "lease", **options})["set"]
        port = int(said["AWS_CONTAINER_CREDENTIALS_FULL_URI"].split(":")[2].split("/")[0])
        return cls(profile, ("127.0.0.1", port), said["AWS_CONTAINER_AUTHORIZATION_TOKEN"])

    @property
    def request(self) -> bytes:
        """What botocore sends (sdk-facts §2)."""
        return (
            f"GET /v1/credentials/{self.profile} HTTP/1.1\r\nHost: 127.0.0.1:{self.address[1]}\r\n"
            f"Accept-Encoding: identity\r\nAccept: application/json\r\nAuthorization: {self.token}\r\n"
            "User-Agent: python-urllib3/2.5.0\r\n\r\n"
        ).encode()

    def get(self) -> tuple[int, dict[str, Any]]:
        """Status and body of one GET on a connection of its own."""
        with socket.create_connection(self.address, timeout=30) as sock:
            sock.sendall(self.request)
            return answer(sock)


def answer(sock: socket.socket) -> tuple[int, dict[str, Any]]:
    """One reply, read to its Content-Length."""
    got = b""
    while b"\r\n\r\n" not in got:
        got += _some(sock)
    head, _, body = got.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    length = int(fields[b"content-length"])
    while len(body) < length:
        body += _some(sock)
    return int(head.split()[1]), json.loads(body)


def _some(sock: socket.socket) -> bytes:
    part = sock.recv(65536)
    if not part:
        raise AssertionError("the daemon closed the connection without an answer")
    return part


def many(lease: Lease, count: int) -> list[float]:
    """Seconds of each of `count` GETs on one kept connection, one after the other."""
    taken = []
    with socket.create_connection(lease.address, timeout=30) as sock:
        for _ in range(count):
            began = time.perf_counter()
            sock.sendall(lease.request)
            status, _ = answer(sock)
            taken.append(time.perf_counter() - began)
            assert status == 200, status
    return taken


def link(home: Home) -> Link:
    """The control API of that home."""
    return Link(Places(home.env))


@contextmanager
def daemon(
    directory: Path, running: Emulator, *, text: str = "", identity: bool = True, **extra: str
) -> Iterator[Home]:
    """A home with a daemon in it, and franklin's key unless told otherwise."""
    directory.mkdir(parents=True, exist_ok=True)
    home = Home.make(directory, running, profiles=text or profiles(), **extra)
    with home.daemon():
        if identity:
            added = home.add(running)
            assert added.status == 0, added
        yield home


def fresh_code(running: Emulator) -> str:
    """A code that no device showed before: AWS's time goes on by one step, ours stands still."""
    running.ctl("clock", {"advance": 30})
    return running.code()


def signed_in(home: Home, running: Emulator) -> None:
    """The MFA session of the device, by a code of its own."""
    done = home.client("mfa", "identity", "--token-code", fresh_code(running))
    assert done.status == 0, done


def memory(pid: int) -> dict[str, float]:
    """`VmRSS` and `VmHWM` in MB of 1,000,000 bytes, as performance.md counts."""
    found = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in {"VmRSS", "VmHWM"}:
            found[name] = int(value.split()[0]) * 1024 / 1e6
    return found


def seconds(command: list[str], environ: Mapping[str, str]) -> float:
    """Wall time of one process that must end well; its output goes nowhere."""
    nowhere = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
    began = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, environ, file_actions=nowhere)
    _, status = os.waitpid(pid, 0)
    taken = time.perf_counter() - began
    code = os.waitstatus_to_exitcode(status)
    assert code == 0, f"{' '.join(command)} ended with {code}"
    return taken


def bare(home: Home) -> float:
    """Wall time of an interpreter that does nothing, in that home's environment."""
    return seconds([PYTHON, "-I", "-c", "pass"], home.env)
