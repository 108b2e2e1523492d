"""The price of a keeper in a process of its own (issue 5, build 6): memory, a renewal, the start; against one process.

Proportional set size in MB of 1,000,000 bytes, the sum of both processes: what they share is counted once. A renewal is
`POST /v1/profiles/{p}/refresh` of a role session, to the emulator and back, in turns of one daemon and the other.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench import daemons
from tests.bench.daemons import Lease
from tests.bench.figures import Figure, at_most, for_the_record
from tests.process.harness import Emulator, Home
from vault_client.link import Link

#: Above this the split would not be the default (issue 5): MB, and milliseconds a renewal.
MEMORY, RENEWAL = 30.0, 5.0
_PROFILE = "web-admin"


@dataclass
class Way:
    """A daemon that keeps its keys one way or the other."""

    name: str
    home: Home
    lease: Lease
    link: Link

    def pids(self) -> set[int]:
        status = self.link.call("GET", "/v1/status")
        return {int(status["pid"]), int(status["keeper_pid"])}

    def memory(self) -> float:
        return sum(pss(pid) for pid in self.pids())

    def renewal(self) -> float:
        began = time.perf_counter()
        self.link.call("POST", f"/v1/profiles/{_PROFILE}/refresh", {})
        return (time.perf_counter() - began) * 1000

    def started(self) -> float:
        """Seconds from `vaultd start` to the first credential."""
        self.home.stop()
        began = time.perf_counter()
        done = self.home.run("vaultd", "start")
        status, _ = self.lease.get()
        taken = time.perf_counter() - began
        assert (done.status, status) == (0, 200), (done, status)
        return taken


def pss(pid: int) -> float:
    """Proportional set size."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise AssertionError(f"no Pss of {pid}")


def figures(directory: Path, running: Emulator, *, quick: bool) -> Iterator[Figure]:
    """What the second process costs."""
    with contextlib.ExitStack() as stack:
        one = _way("one process", "false", stack, directory, running)
        two = _way("two processes", "true", stack, directory, running)
        assert (len(one.pids()), len(two.pids())) == (1, 2)
        renewals = _in_turns(one, two, 20 if quick else 200)
        held = one.memory(), two.memory()
        yield for_the_record("PSS with clients, one process", held[0], "MB")
        yield for_the_record("PSS with clients, daemon and keeper", held[1], "MB")
        yield at_most("PSS that the keeper's process adds", held[1] - held[0], "MB", MEMORY)
        yield for_the_record("renewal, one process", renewals[0], "ms")
        yield for_the_record("renewal, daemon and keeper", renewals[1], "ms")
        yield at_most("renewal: what the wire adds", renewals[1] - renewals[0], "ms", RENEWAL)
        starts = [[each.started() for _ in range(3 if quick else 7)] for each in (one, two)]
        for each, taken in zip((one, two), starts, strict=True):
            yield for_the_record(f"start to first credential, {each.name}", statistics.median(taken), "s")
        yield from _restart(two)


def _way(name: str, apart: str, stack: contextlib.ExitStack, directory: Path, running: Emulator) -> Way:
    place = directory / apart
    home = stack.enter_context(daemons.daemon(place, running, settings=f"[keeper]\nprocess = {apart}\n"))
    daemons.signed_in(home, running)
    return Way(name, home, Lease.make(home, _PROFILE), daemons.link(home))


def _in_turns(one: Way, two: Way, count: int) -> tuple[float, float]:
    """Medians in ms."""
    for each in (one, two):
        for _ in range(5):
            each.renewal()
    taken = [(one.renewal(), two.renewal()) for _ in range(count)]
    return statistics.median(each[0] for each in taken), statistics.median(each[1] for each in taken)


def _restart(way: Way) -> Iterator[Figure]:
    """From the keeper's SIGKILL to the next renewal."""
    status = way.link.call("GET", "/v1/status")
    os.kill(int(status["keeper_pid"]), 9)
    began = time.perf_counter()
    way.renewal()
    yield for_the_record("keeper killed, to the next renewal", time.perf_counter() - began, "s")
