"""The keeper's process at its end: whatever hangs in it, it goes with the other end of its line."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.process.harness import short_directory
from vaultd import __version__
from vaultd.keeper import wire
from vaultd.lifecycle.keeping import Process

pytestmark = pytest.mark.process


def started(place: Path, bus: Path) -> Process:
    """On a home of its own, with that session bus."""
    directories = [place / name for name in ("config", "run", "state", "data")]
    for each in directories:
        each.mkdir(mode=0o700)
    config, run, state, data = map(str, directories)
    told = wire.Setup(__version__, (config, run, state, data), "keyring", persist=True, log_level=20)
    return Process(told, {"PATH": os.environ["PATH"], "DBUS_SESSION_BUS_ADDRESS": f"unix:path={bus}"})


def said(process: Process, wanted: str) -> None:
    """Until a message of that kind came."""
    frames = wire.Frames()
    process.sock.settimeout(30)
    while part := process.sock.recv(65536):
        if any(wanted in message for message in frames.feed(part)):
            return
    raise AssertionError(f"it ended and did not say {wanted}")


def greeted(asked: socket.socket) -> None:
    """As a bus takes a client in (its specification, "Authentication Protocol"); what that says then is not answered,
    and jeepney waits 10 s for it.
    """
    asked.settimeout(30)
    got = b""
    while b"BEGIN\r\n" not in got:
        got += (part := asked.recv(4096))
        assert part
        if part.startswith((b"\0AUTH", b"AUTH")):
            asked.sendall(b"OK 0123456789abcdef0123456789abcdef\r\n")
        elif part.startswith(b"NEGOTIATE_UNIX_FD"):
            asked.sendall(b"AGREE_UNIX_FD\r\n")


@pytest.mark.parametrize("hangs", [False, True])
def test_a_thread_that_hangs_does_not_outlive_the_line(hangs: bool) -> None:
    """A keyring that never answers has a thread; the daemon lets go of the keeper, and all of it ends (no pdeathsig: we
    live on). Without the call it is the control.
    """
    with ExitStack() as stack:
        place = stack.enter_context(short_directory())
        bus = stack.enter_context(socket.socket(socket.AF_UNIX))
        bus.bind(str(place / "bus"))
        bus.listen()
        process = started(place, place / "bus")
        said(process, "hello")
        if hangs:
            process.sock.sendall(wire.framed(wire.call(1, "keyring", {})))
            bus.settimeout(30)
            stack.enter_context(asked := bus.accept()[0])
            greeted(asked)
        process.sock.close()
        assert process.end(patience=5) == "ended with status 0"
