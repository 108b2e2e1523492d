"""1, 20 and 200 callers of five profiles at once, cold, on one device: how often a person and AWS were asked, and who
was served.

SDK callers are GETs with tokens of five grants, all sent before the first reply is read: while a code is missing each
is told so (403), and once it is given all are served. Commands are processes of `vault-client exec`, each on a terminal
of its own; one code ends the question on all of them. AWS answers after 0.1 s, as far away as performance.md puts it.
"""

from __future__ import annotations

import contextlib
import os
import pty
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.bench import daemons
from tests.bench.daemons import FIVE, Lease
from tests.bench.figures import Figure, exactly, for_the_record
from tests.process.harness import BIN, DEADLINE, Emulator, Home

CROWDS = (1, 20, 200)
_STS_SECONDS = 0.1
_QUESTION = b"MFA code: "


@dataclass(frozen=True, slots=True)
class Rush:
    """What one crowd cost: seconds from the code to the last one served, and the questions and calls it took."""

    count: int
    served: int
    seconds: float
    questions: int
    sessions: int
    roles: int


def figures(directory: Path, running: Emulator, *, quick: bool) -> Iterator[Figure]:
    """SDK callers, then commands; each crowd against one caller."""
    crowds = CROWDS[:2] if quick else CROWDS
    for name, rush in (("GETs", _sdk_rush), ("exec processes", _command_rush)):
        with daemons.daemon(directory / name[:4], running) as home, _far(running):
            leases = _leases(home, running)
            rushes = [rush(home, running, leases, count) for count in crowds]
            alone = rushes[0].seconds
            for each in rushes:
                yield from _rows(name, each, alone)


def _rows(name: str, rush: Rush, alone: float) -> Iterator[Figure]:
    crowd = f"{rush.count} cold {name}"
    yield exactly(f"{crowd}, served", rush.served, "callers", rush.count)
    yield exactly(f"{crowd}, prompts", rush.questions, "prompts", 1)
    yield exactly(f"{crowd}, GetSessionToken", rush.sessions, "calls", 1)
    yield exactly(f"{crowd}, AssumeRole", rush.roles, "calls", min(rush.count, len(FIVE)))
    yield for_the_record(f"{crowd}, from the code to the last", rush.seconds, "s")
    if rush.count > 1:
        yield for_the_record(f"{crowd}, against one", rush.seconds / alone, "×")


@contextlib.contextmanager
def _far(running: Emulator) -> Iterator[None]:
    """AWS as far away as performance.md puts it."""
    for op in ("GetSessionToken", "AssumeRole"):
        running.fault("latency", op=op, times=0, arg=_STS_SECONDS)
    try:
        yield
    finally:
        running.ctl("reset", {})


def _leases(home: Home, running: Emulator) -> list[Lease]:
    daemons.signed_in(home, running)
    return [Lease.make(home, profile) for profile in FIVE]


def _chosen(leases: list[Lease], count: int) -> list[Lease]:
    return [leases[number % len(leases)] for number in range(count)]


def _measured(home: Home, running: Emulator, count: int, rush: Callable[[], tuple[int, float]]) -> Rush:
    """`rush` from nothing: no session of any kind is left, and the counts begin at zero."""
    cleared = home.client("clear")
    assert cleared.status == 0, cleared
    asked, sessions, roles = _questions(home), running.count("GetSessionToken"), running.count("AssumeRole")
    served, seconds = rush()
    return Rush(
        count=count,
        served=served,
        seconds=seconds,
        questions=_questions(home) - asked,
        sessions=running.count("GetSessionToken") - sessions,
        roles=running.count("AssumeRole") - roles,
    )


def _questions(home: Home) -> int:
    return sum(1 for line in home.audit() if line["event"] == "mfa.ask")


# ---- SDKs ----


def _sdk_rush(home: Home, running: Emulator, leases: list[Lease], count: int) -> Rush:
    chosen = _chosen(leases, count)

    def rush() -> tuple[int, float]:
        refused = _all_at_once(chosen)
        assert set(refused) == {403}, refused
        began = time.perf_counter()
        daemons.signed_in(home, running)
        return _all_at_once(chosen).count(200), time.perf_counter() - began

    return _measured(home, running, count, rush)


def _all_at_once(leases: list[Lease]) -> list[int]:
    """The statuses of one GET each, every one sent before the first reply is read."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.create_connection(lease.address, timeout=DEADLINE)) for lease in leases]
        for sock, lease in zip(socks, leases, strict=True):
            sock.sendall(lease.request)
        return [daemons.answer(sock)[0] for sock in socks]


# ---- commands ----


def _command_rush(home: Home, running: Emulator, leases: list[Lease], count: int) -> Rush:
    profiles = [lease.profile for lease in _chosen(leases, count)]

    def rush() -> tuple[int, float]:
        with contextlib.ExitStack() as stack:
            commands = [stack.enter_context(_Command(home, profile)) for profile in profiles]
            _until_all_ask(commands)
            began = time.perf_counter()
            daemons.signed_in(home, running)
            ended = [command.ended() for command in commands]
            return ended.count(0), time.perf_counter() - began

    return _measured(home, running, count, rush)


class _Command:
    """`vault-client exec PROFILE -- true` on a terminal of its own."""

    def __init__(self, home: Home, profile: str) -> None:
        self.terminal, line = pty.openpty()
        command = [str(BIN / "vault-client"), "exec", profile, "--", "true"]
        self.process = subprocess.Popen(
            command, env=home.env, stdin=line, stdout=line, stderr=line, start_new_session=True
        )
        os.close(line)
        self.said = b""

    def fileno(self) -> int:
        return self.terminal

    def read(self) -> None:
        try:
            self.said += os.read(self.terminal, 65536)
        except OSError as exc:  # the other side has ended: its last words are in `said`
            raise AssertionError(f"exec ended before it asked: {self.said.decode()}") from exc

    def ended(self) -> int:
        return self.process.wait(DEADLINE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.terminal)


def _until_all_ask(commands: list[_Command]) -> None:
    waiting = set(commands)
    while waiting:
        ready, _, _ = select.select(list(waiting), [], [], DEADLINE)
        assert ready, f"{len(waiting)} commands never asked"
        for command in ready:
            command.read()
            if _QUESTION in command.said:
                waiting.discard(command)
