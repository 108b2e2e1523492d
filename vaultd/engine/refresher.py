"""The refresher: looks after the sessions of active grants, so that nobody has to wait for a renewal.

Rule: it sleeps until the next renewal or a nudge, never above 30 s, and asks the wall clock anew each time: suspend and
a clock that is set are noticed within 30 s, and sessions are judged by now() alone (architecture.md §6.2).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from vaultd.engine.broker import Broker
from vaultd.engine.flights import within
from vaultd.engine.seams import Clock
from vaultd.model.plan import Plan

#: No sleep is longer; two looks are at least this far apart, however often it is nudged.
LONGEST_SECONDS, SHORTEST_SECONDS = 30.0, 1.0
#: Without a look for so long, the loop or this task is stuck. A machine that wakes from suspend is given one sleep.
OVERDUE_SECONDS = 90.0


class Refresher:
    """`active` gives the plans of grants used in the last 30 min, or pinned by a live exec."""

    def __init__(self, *, broker: Broker, clock: Clock, active: Callable[[], Iterable[Plan]]) -> None:
        self._broker = broker
        self._clock = clock
        self._active = active
        self._nudged: asyncio.Future[None] | None = None
        self._again = False
        self._looked: float | None = None

    async def run(self) -> None:
        """A permanent task of the daemon; ends only by cancellation."""
        while True:
            seconds = self._look()
            self._looked = self._clock.boottime()
            await self._sleep(seconds)

    def nudge(self) -> None:
        """Something changed (a grant, an unlock): look now, at most once a second."""
        self._again = True
        if self._nudged is not None and not self._nudged.done():
            self._nudged.set_result(None)

    @property
    def overdue(self) -> bool:
        """True when it has not looked for 90 s of boottime: the watchdog is not fed then."""
        return self._looked is not None and self._clock.boottime() - self._looked > OVERDUE_SECONDS

    def _look(self) -> float:
        """Tend every active plan; the seconds until the next look."""
        self._again = False
        seconds = LONGEST_SECONDS
        for plan in self._active():
            seconds = min(seconds, self._broker.tend(plan))
        return max(SHORTEST_SECONDS, seconds)

    async def _sleep(self, seconds: float) -> None:
        """Until then, or a nudge; a nudge that came within the last second waits for its end."""
        self._nudged = asyncio.get_running_loop().create_future()
        if not self._again:
            await within(self._clock, {self._nudged}, seconds)
        if self._again and self._looked is not None:
            await self._clock.sleep(self._looked + SHORTEST_SECONDS - self._clock.boottime())
