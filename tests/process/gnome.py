"""A real gnome-keyring on a D-Bus session of its own, whose home is the test's."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from tests.process.harness import stop, until
from tests.store.gnome_session import SESSION_BUS


@dataclass(frozen=True)
class Keyring:
    """`env`: how others find the bus. `daemon` may be stopped and continued by signals."""

    daemon: subprocess.Popen[str]
    env: dict[str, str]


@contextmanager
def gnome_keyring(environment: Mapping[str, str], *, unlock: bool = True) -> Iterator[Keyring]:
    """`unlock`: with an open login keyring, made when it is new; else locked, and nobody there to ask."""
    command = ["dbus-daemon", SESSION_BUS, "--nofork", "--nopidfile", "--print-address=1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(environment)) as bus:
        try:
            assert bus.stdout is not None
            env = {**environment, "DBUS_SESSION_BUS_ADDRESS": bus.stdout.readline().strip()}
            with _daemon(env, unlock=unlock) as daemon:
                yield Keyring(daemon, {"DBUS_SESSION_BUS_ADDRESS": env["DBUS_SESSION_BUS_ADDRESS"]})
        finally:
            stop(bus)


@contextmanager
def _daemon(env: Mapping[str, str], *, unlock: bool) -> Iterator[subprocess.Popen[str]]:
    command = ["gnome-keyring-daemon", "--foreground", "--components=secrets", *(["--unlock"] if unlock else [])]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True, env=dict(env)
    ) as daemon:
        try:
            assert daemon.stdin is not None
            daemon.stdin.write("login password" if unlock else "")
            daemon.stdin.close()
            until(lambda: _owned(env), "gnome-keyring takes its name on the bus")
            yield daemon
        finally:
            daemon.kill()


def _owned(env: Mapping[str, str]) -> bool:
    asked = "org.freedesktop.DBus.NameHasOwner"
    command = ["dbus-send", "--session", "--print-reply", "--dest=org.freedesktop.DBus", "/", asked]
    done = subprocess.run(
        [*command, "string:org.freedesktop.secrets"], env=dict(env), capture_output=True, text=True, check=False
    )
    return "boolean true" in done.stdout
