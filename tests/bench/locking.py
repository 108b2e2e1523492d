"""From logind's signal to a daemon that has forgotten everything: what a closing lid waits for.

Rule: the time is the machine's own: from the signal's write to the end of file on the inhibitor that logind handed out,
which the daemon lets go once its keeper has said that keys and sessions are gone and the marker is on disk. The same
for `kill -USR1` up to the marker; both beside `vault-client lock`, a process of its own, for comparison.
"""

from __future__ import annotations

import os
import select
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench import daemons
from tests.bench.daemons import Lease
from tests.bench.figures import Figure, at_most, for_the_record
from tests.presence.logind import Logind, private_bus
from tests.process.harness import PASSPHRASE, Emulator, Home, until

_GOAL_MS = 200.0
_LIMIT = 5.0
_SETTINGS = "[store]\nlock_on_suspend = true\n"


def figures(directory: Path, running: Emulator, *, quick: bool) -> Iterator[Figure]:
    """The slowest and the middle of each way; the contract's bound is on the slowest."""
    rounds = 5 if quick else 20
    with tempfile.TemporaryDirectory(prefix="vb") as folder, private_bus(Path(folder)) as bus:
        logind = Logind(bus.address)
        logind.start()
        try:
            home = Home.make(
                directory,
                running,
                settings=_SETTINGS,
                profiles=daemons.profiles(),
                DBUS_SYSTEM_BUS_ADDRESS=bus.address,
            )
            with home.daemon():
                assert home.add(running).status == 0
                daemons.signed_in(home, running)
                Lease.make(home, "web-admin")
                yield from _measured(home, logind, rounds)
        finally:
            logind.stop()


def _measured(home: Home, logind: Logind, rounds: int) -> Iterator[Figure]:
    suspend = _times(home, rounds, lambda: _suspend(logind))
    yield at_most("suspend: signal to all forgotten, slowest", max(suspend), "ms", _GOAL_MS)
    yield for_the_record("suspend: signal to all forgotten, middle", statistics.median(suspend), "ms")
    usr1 = _times(home, rounds, lambda: _usr1(home))
    yield at_most("SIGUSR1 to the marker on disk, slowest", max(usr1), "ms", _GOAL_MS)
    command = _times(home, rounds, lambda: _command(home))
    yield for_the_record("vault-client lock, a process of its own, middle", statistics.median(command), "ms")


def _times(home: Home, rounds: int, lock: Callable[[], float]) -> list[float]:
    """Milliseconds of each; unlocked again in between, so that there is something to forget."""
    found = []
    for _ in range(rounds):
        assert home.client("unlock", "--stdin", stdin=PASSPHRASE + "\n").status == 0
        assert home.client("refresh", "web-admin").status == 0
        found.append(1000 * lock())
        until(lambda: bool(home.link("GET", "/v1/status")["locked"]), "it is locked")
    return found


def _suspend(logind: Logind) -> float:
    until(lambda: bool(logind.inhibitors) and not logind.released(), "an inhibitor is held")
    before, began = len(logind.inhibitors), time.perf_counter()
    logind.sleeps(begins=True)
    ready, _, _ = select.select([logind.inhibitors[-1]], [], [], _LIMIT)
    ended = time.perf_counter()
    assert ready, f"the inhibitor is still held after {_LIMIT} s"
    logind.sleeps(begins=False)
    until(lambda: len(logind.inhibitors) > before, "the inhibitor is taken anew")
    return ended - began


def _usr1(home: Home) -> float:
    marker, began = home.state / "locked", time.perf_counter()
    os.kill(home.pid(), signal.SIGUSR1)
    while not marker.exists():
        assert time.perf_counter() - began < _LIMIT
    return time.perf_counter() - began


def _command(home: Home) -> float:
    began = time.perf_counter()
    assert home.client("lock").status == 0
    return time.perf_counter() - began
