"""One case against a real gnome-keyring, run as `[*PRIVATE_BUS, python, "-m", "tests.store.gnome_session", CASE]`.

Prints one JSON object. The bus, the home directory and the daemon are this process's own; it stops the daemon by pid.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import secretstorage

from tests.fakes import FakeClock
from vaultd.errors import VaultdError
from vaultd.model.secret import Secret
from vaultd.store.os_keyring import SERVICE, OsKeyring

SESSION_BUS: Final = f"--config-file={Path(__file__).parents[1] / 'session-bus.conf'}"
#: Runs what follows on a session bus of its own.
PRIVATE_BUS: Final = ("dbus-run-session", SESSION_BUS, "--")


@contextmanager
def gnome_keyring(*, unlock: bool) -> Iterator[subprocess.Popen[bytes]]:
    command = ["gnome-keyring-daemon", "--foreground", "--components=secrets"]
    with subprocess.Popen(
        [*command, "--unlock"] if unlock else command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as daemon:
        assert daemon.stdin is not None
        daemon.stdin.write(b"login password" if unlock else b"")
        daemon.stdin.close()
        try:
            _wait_for_the_name()
            yield daemon
        finally:
            daemon.kill()


def _wait_for_the_name() -> None:
    for _ in range(200):
        with closing(secretstorage.dbus_init()) as bus:
            if secretstorage.check_service_availability(bus):
                return
        time.sleep(0.05)
    raise AssertionError("gnome-keyring did not take its name on the bus")


async def outcome(call: Awaitable[object]) -> str:
    try:
        await call
    except VaultdError as exc:
        return f"{exc.kind}: {exc.message}"
    return "ok"


async def round_trip() -> dict[str, object]:
    store = OsKeyring(clock=FakeClock())
    with gnome_keyring(unlock=True):
        await store.open(None)
        await store.save("uuid-1", Secret("first"))
        await store.save("uuid-1", Secret("second"))
        found = await OsKeyring(clock=FakeClock()).load("uuid-1")
        absent = await store.load("uuid-2")
        await store.drop("uuid-1")
        await store.drop("uuid-1")
        return {
            "backend": store.backend,
            "found": found.reveal() if found else None,
            "absent": absent is None,
            "dropped": await store.load("uuid-1") is None,
        }


async def locked() -> dict[str, object]:
    """A login keyring exists and is locked; no program is there that could ask for its password."""
    store = OsKeyring(clock=FakeClock())
    with gnome_keyring(unlock=True):
        first = await outcome(store.save("uuid-1", Secret("1")))
    with gnome_keyring(unlock=False):
        return {
            "unlocked": first,
            "open": await outcome(store.open(None)),
            "load": await outcome(store.load("uuid-1")),
            "save": await outcome(store.save("uuid-1", Secret("2"))),
            "abandoned": store.abandoned,
        }


async def no_collection() -> dict[str, object]:
    """A fresh account: the service runs, but there is no keyring and nobody to ask for a password."""
    with gnome_keyring(unlock=False):
        return {"open": await outcome(OsKeyring(clock=FakeClock()).open(None))}


async def planted() -> dict[str, object]:
    """Other programs put items of our service and user name there, before and after ours.

    Which of the two a search finds first is the daemon's chance: on, until it was theirs.
    """
    store = OsKeyring(clock=FakeClock())
    seen: list[tuple[str, str]] = []
    with gnome_keyring(unlock=True):
        for number in range(60):
            if number >= 6 and any(said != "ok" for said, _ in seen):
                break
            item = f"uuid-{number}"
            if number % 2:
                await store.save(item, Secret("ours"))
            _plant(item)
            said = await outcome(store.save(item, Secret("ours again")))
            found = await store.load(item)
            seen.append((said, found.reveal() if found else "nothing"))
    return {"seen": seen}


def _plant(item: str) -> None:
    with closing(secretstorage.dbus_init()) as bus:
        collection = secretstorage.get_default_collection(bus)
        attributes = {"service": SERVICE, "username": item, "application": "another program"}
        collection.create_item("planted", attributes, b"PLANTED")


async def frozen() -> dict[str, object]:
    """The daemon is stopped (SIGSTOP): the call hangs, the loop does not, and 30 s of the clock end it."""
    clock = FakeClock()
    store = OsKeyring(clock=clock)
    with gnome_keyring(unlock=True) as daemon:
        await store.save("uuid-1", Secret("1"))
        daemon.send_signal(signal.SIGSTOP)
        call = asyncio.create_task(outcome(store.load("uuid-1")))
        await clock.advance(29.9)
        early = call.done()
        await clock.advance(0.1)
        said, was_abandoned = await call, store.abandoned
        daemon.send_signal(signal.SIGCONT)
        for _ in range(400):
            if not store.abandoned:
                break
            await asyncio.to_thread(time.sleep, 0.02)
        await clock.advance(60)
        return {
            "early": early,
            "said": said,
            "abandoned": was_abandoned,
            "later": store.abandoned,
            "again": await outcome(store.load("uuid-1")),
        }


async def killed() -> dict[str, object]:
    """The daemon dies in the middle of a call."""
    clock = FakeClock()
    store = OsKeyring(clock=clock)
    with gnome_keyring(unlock=True) as daemon:
        await store.open(None)
        daemon.send_signal(signal.SIGSTOP)
        call = asyncio.create_task(outcome(store.load("uuid-1")))
        await clock.settle()
        daemon.kill()
        return {"said": await asyncio.wait_for(call, 20)}


CASES: dict[str, Callable[[], Awaitable[dict[str, object]]]] = {
    each.__name__: each for each in (round_trip, locked, no_collection, planted, frozen, killed)
}


async def main(case: str) -> None:
    print(json.dumps(await CASES[case]()))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
    sys.stdout.flush()
    os._exit(0)  # a call that hangs in a thread must not keep the test waiting
