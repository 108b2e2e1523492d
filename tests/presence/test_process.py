"""A daemon as a user starts it, that locks by itself: nothing is served, a restart stays locked, `unlock` goes on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.presence.logind import Logind, PrivateBus
from tests.process.harness import PASSPHRASE, Emulator, Home, until

pytestmark = [pytest.mark.process, pytest.mark.needs("dbus-daemon")]

BOTH = "[store]\nlock_on_suspend = true\nlock_on_screen_lock = true\n"
#: Long enough for a `use` on a busy machine, whose parts are each a use themselves.
IDLE = '[store]\nlock_after_idle = "10s"\n'


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator.running() as running:
        yield running


@contextmanager
def shell(place: Path, emulator: Emulator, settings: str, **extra: str) -> Iterator[tuple[Home, str]]:
    """A running daemon, and the token of a shell that uses web-admin."""
    emulator.ctl("reset", {})
    home = Home.make(place, emulator, settings=settings, **extra)
    with home.daemon():
        assert home.add(emulator).status == 0
        token = home.use("web-admin", emulator)["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
        assert home.get(token).status == 200
        yield home, token


def is_locked(home: Home) -> bool:
    return bool(home.link("GET", "/v1/status")["locked"])


def stays_locked_and_opens(home: Home, token: str, emulator: Emulator, *, reason: str) -> None:
    """What a lock means, whatever it came from."""
    codes = emulator.count("GetSessionToken")
    refused = home.get(token)
    assert (refused.status, json.loads(refused.body)["Code"]) == (403, "Locked")
    assert home.client("refresh", "web-admin").status == 1
    assert home.link("GET", "/v1/status")["locked_by"] == reason
    assert reason in home.client("log").out
    assert [line["reason"] for line in home.audit() if line["event"] == "lock"] == [reason]
    home.kill()
    assert home.run("vaultd", "start").status == 0
    assert home.get(token).status == 403, "a restart stays locked, with the passphrase on file"
    assert home.client("unlock", "--stdin", stdin=PASSPHRASE + "\n").status == 0
    assert home.get(token).status == 200
    assert emulator.count("GetSessionToken") == codes, "no code was asked again"


SAYS: dict[str, Callable[[Logind], None]] = {
    "suspend": lambda logind: logind.sleeps(begins=True),
    "screen": lambda logind: logind.locks(),
}


@pytest.mark.parametrize("reason", SAYS)
def test_logind_locks(place: Path, emulator: Emulator, bus: PrivateBus, logind: Logind, reason: str) -> None:
    """A laptop's lid, and its screen."""
    with shell(place, emulator, BOTH, DBUS_SYSTEM_BUS_ADDRESS=bus.address) as (home, token):
        until(lambda: bool(logind.inhibitors), "the daemon holds an inhibitor")
        until(lambda: ("ListSessions", ()) in logind.asked, "it knows the sessions")
        SAYS[reason](logind)
        until(lambda: is_locked(home), "it is locked")
        if reason == "suspend":
            until(logind.released, "the machine may sleep")
        said = home.client("status").out
        assert "[store] lock_on_" in said, said
        stays_locked_and_opens(home, token, emulator, reason=reason)


def test_sigusr1_locks(place: Path, emulator: Emulator) -> None:
    """For scripts and screen lockers that know no D-Bus: `kill -USR1`."""
    with shell(place, emulator, "") as (home, token):
        os.kill(home.pid(), signal.SIGUSR1)
        until(lambda: is_locked(home), "it is locked")
        stays_locked_and_opens(home, token, emulator, reason="signal")


def test_idle_locks(place: Path, emulator: Emulator) -> None:
    """Looking at it meanwhile does not keep it open."""
    with shell(place, emulator, IDLE) as (home, token):
        until(lambda: is_locked(home), "it is locked")
        stays_locked_and_opens(home, token, emulator, reason="idle")


def test_a_machine_without_a_bus_starts_and_says_so(place: Path, emulator: Emulator) -> None:
    """A container: exit 0, it serves, and status, check and doctor tell what does not lock."""
    with shell(place, emulator, BOTH, DBUS_SYSTEM_BUS_ADDRESS=f"unix:path={place}/none") as (home, token):
        until(lambda: bool(home.link("GET", "/v1/status")["trouble"]), "it has looked for the bus")
        assert "the system bus cannot be used: No such file or directory" in home.client("status").out
        checked = home.run("vaultd", "check")
        assert (checked.status, "the system bus cannot be used" in checked.out + checked.err) == (1, True)
        assert home.get(token).status == 200
