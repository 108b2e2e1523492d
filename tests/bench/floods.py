"""What the guard costs beside a bare route, and what the owner waits while another user floods his port.

Rules: guarded and bare requests are made by turns, one at a time, so that both meet the same machine; quiet and
attacked are spans of one run on one daemon. An attack that did not come about is an error, not a good figure.
Without root there is no other user: then only the guard is measured.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.endpoint import Served, latencies
from tests.bench.figures import Figure, at_most, for_the_record
from tests.process.floods import Tally, ask_for, attack, connecting, cpu, healthz, holding, quantile
from tests.process.harness import Emulator, Home

#: Issue 5: "Cost it may have".
GUARD_P50, GUARD_P99_US = 1.10, 25.0
ATTACKED = 5.0
#: Requests of one round. What the scheduler does to a busy machine is milliseconds: the p99 added is the median over
#: the rounds of the difference within one, as in tests.bench.endpoint.
EACH = 200
#: Connections that the other user of security.md §0.4 held.
HELD, A_SECOND = 251, 1000
_MS, _US = 1e3, 1e6


def figures(directory: Path, _running: Emulator, *, quick: bool = False) -> Iterator[Figure]:
    """The rows of issue 5, Build 3."""
    yield from guard(rounds=2 if quick else 61)
    if os.geteuid() != 0:
        print("floods: the other user needs root: only the guard is measured", file=sys.stderr)
        return
    yield from floods(directory / "flooded", span=0.5 if quick else 6.0)


def guard(*, rounds: int) -> Iterator[Figure]:
    """Two peer look-ups, Host, headers, token and the audit queue against a bare aiohttp route."""
    servers = {kind: Served(kind, "uvloop") for kind in ("vaultd", "route")}
    try:
        for server in servers.values():
            server.check()
        for name, fresh in (("kept", False), ("new", True)):
            taken = [latencies(servers, EACH, fresh=fresh) for _ in range(rounds)]
            ours, bare = ([each for turn in taken for each in turn[kind]] for kind in ("vaultd", "route"))
            p50 = quantile(ours, 0.5) / quantile(bare, 0.5)
            added = _US * statistics.median(
                quantile(turn["vaultd"], 0.99) - quantile(turn["route"], 0.99) for turn in taken
            )
            yield at_most(f"guard, {name} connection: p50", p50, "× bare route", GUARD_P50)
            yield at_most(f"guard, {name} connection: p99 added", added, "µs", GUARD_P99_US)
            for who, values in (("guarded", ours), ("bare", bare)):
                yield for_the_record(f"guard, {name} connection: {who} p50", _US * quantile(values, 0.5), "µs")
                yield for_the_record(f"guard, {name} connection: {who} p99", _US * quantile(values, 0.99), "µs")
    finally:
        for server in servers.values():
            server.stop()


def floods(directory: Path, *, span: float) -> Iterator[Figure]:
    """The owner's GET on new connections: quiet, at 1,000 foreign connections a second, held ones, and full speed."""
    directory.mkdir(parents=True, exist_ok=True)
    home = Home.make(directory)
    with home.daemon():
        _times(home, 0.3)  # the first ones pay for what is imported late
        quiet = _times(home, span)
        yield from _shown("quiet", quiet)
        paced, _ = _attacked(home, connecting(home.port, A_SECOND), span, least=int(A_SECOND * span / 2))
        yield from _shown("1,000 a second", paced)
        yield at_most("flood, 1,000 a second: p99", quantile(paced, 0.99) / quantile(quiet, 0.99), "× quiet", ATTACKED)
        held, _ = _attacked(home, holding(home.port, HELD), span, least=HELD)
        yield from _shown(f"{HELD} held", held)
        full, made = _attacked(home, connecting(home.port, None), span, least=int(A_SECOND * span))
        yield from _shown("full speed", full)
        yield for_the_record("flood, full speed: p99", quantile(full, 0.99) / quantile(quiet, 0.99), "× quiet")
        yield for_the_record("flood, full speed: foreign connections", made, "a second")
        yield from _shown("quiet again", _times(home, span))
        lines = len((home.state / "vaultd.log").read_text().splitlines())
        yield at_most("flood, all of them: log lines", lines, "lines", 20)


def _attacked(home: Home, act: Callable[[Tally], object], span: float, *, least: int) -> tuple[list[float], float]:
    """Times under attack, and the connections of it a second."""
    with attack(act) as tally:
        time.sleep(0.2)
        before, began, burnt = tally.made, time.monotonic(), cpu(home.pid())
        taken = _times(home, span)
        lasted = time.monotonic() - began
        assert tally.made - before >= least * 0.5, f"the attack made {tally.made - before} connections only"
        assert cpu(home.pid()) > burnt
        return taken, (tally.made - before) / lasted


def _times(home: Home, span: float) -> list[float]:
    return ask_for(home.port, healthz(home.port), span=span)


def _shown(name: str, taken: list[float]) -> Iterator[Figure]:
    unanswered = sum(each == float("inf") for each in taken)
    yield for_the_record(f"flood, {name}: p50", _MS * quantile(taken, 0.5), "ms")
    yield for_the_record(f"flood, {name}: p99", _MS * quantile(taken, 0.99), "ms")
    yield at_most(f"flood, {name}: unanswered of {len(taken)}", unanswered, "requests", 0)
