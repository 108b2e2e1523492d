"""A config file of 1,000 profiles against one of 10: `list`, the endpoint, memory.

Two daemons side by side, asked by turns; each figure is the median of the ratios within one round.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench import daemons
from tests.bench.daemons import FIVE, Lease
from tests.bench.figures import Figure, at_most, for_the_record, within
from tests.process.harness import BIN, Emulator, Home

#: Issue 3, speed: `list`, the endpoint's band (performance.md row 6: ± 10 %), MB.
LIST, BAND, MEMORY = 3.0, (0.9, 1.1), 10.0
_FEW, _MANY = 10, 1000
_TURN = 100


def figures(directory: Path, running: Emulator, *, quick: bool) -> Iterator[Figure]:
    """The three goals, and `list` of 1,000 in bare interpreters."""
    few, many = (daemons.profiles(more=count - len(FIVE)) for count in (_FEW, _MANY))
    rounds = 5 if quick else 15
    with (
        daemons.daemon(directory / "few", running, text=few) as small,
        daemons.daemon(directory / "many", running, text=many) as large,
    ):
        one, other = _lease(small, running), _lease(large, running)
        yield at_most("list, 1,000 profiles against 10", statistics.median(_lists(small, large, rounds)), "×", LIST)
        bare = statistics.median(daemons.bare(small) for _ in range(rounds))
        yield for_the_record("list, 1,000 profiles", _list(large) / bare, "× python -I -c pass")
        with apart(small.pid(), large.pid()):
            ratio = _gets(one, other, rounds * 4)
        yield within("GET p50, 1,000 profiles against 10", ratio, "×", *BAND)
        more = daemons.memory(large.pid())["VmRSS"] - daemons.memory(small.pid())["VmRSS"]
        yield at_most("memory that 990 more profiles take", round(more, 2), "MB", MEMORY)


def _lease(home: Home, running: Emulator) -> Lease:
    daemons.signed_in(home, running)
    return Lease.make(home, "web-admin")


def _lists(small: Home, large: Home, rounds: int) -> list[float]:
    pairs = [(_list(small), _list(large)) for _ in range(rounds)]
    return [large_one / small_one for small_one, large_one in pairs]


def _list(home: Home) -> float:
    return daemons.seconds([str(BIN / "vault-client"), "list"], home.env)


@contextmanager
def apart(*daemons_by_pid: int) -> Iterator[None]:
    """The asker on one processor, both daemons on another: else a request costs 0.6 or 1.6 of itself, as the scheduler
    puts one of them beside the asker or not, for a whole run.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        for pid in daemons_by_pid:
            os.sched_setaffinity(pid, {cores[1]})
        os.sched_setaffinity(0, {cores[0]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, set(cores))


def _gets(small: Lease, large: Lease, rounds: int) -> float:
    """The ratio of the medians of single requests, in short turns: a pause of the machine hits few of them."""
    taken: dict[str, list[float]] = {"small": [], "large": []}
    for _ in range(rounds):
        taken["small"] += daemons.many(small, _TURN)
        taken["large"] += daemons.many(large, _TURN)
    return statistics.median(taken["large"]) / statistics.median(taken["small"])
