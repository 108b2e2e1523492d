"""Word to the service manager that the daemon is alive, as long as it is: a hung one is killed and started again.

Rules (architecture.md §8.10)
- It is fed only when the loop has turned in time and the refresher is not overdue.
- A turn that comes late is looked at once more, soon: a machine that slept is well, a loop that is stuck again is not.
  After such a turn the refresher is given one of its sleeps to look around (30 s), because suspend counts as time for
  it and not for the timer that it waits for.
- Without a watchdog for this very process nothing is sent, and the task only waits.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping

from vaultd.engine.refresher import LONGEST_SECONDS
from vaultd.engine.seams import Clock

#: Of the time that the service manager waits: how often it is fed, how late a turn may be, how soon it is tried again.
_FED, _LATE, _SOON = 4, 4, 30
#: How long the refresher may sleep on after the machine woke up, and do its work.
GRACE_SECONDS = LONGEST_SECONDS + 10

log = logging.getLogger(__name__)


def allowed_seconds(environ: Mapping[str, str]) -> float | None:
    """How long the service manager bears silence (sd_watchdog_enabled(3)); None: there is no watchdog for us."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isascii() and text.isdecimal() and int(text) else None


class Watchdog:
    """`overdue` is the refresher's; `notify` tells the service manager."""

    def __init__(
        self,
        *,
        seconds: float | None,
        clock: Clock,
        overdue: Callable[[], bool],
        notify: Callable[[str], object],
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._overdue = overdue
        self._notify = notify
        self._woke: float | None = None

    async def run(self) -> None:
        """A permanent task of the daemon; ends only by cancellation."""
        if self._seconds is None:
            while True:
                await self._clock.sleep(3600)
        pause, late, soon = self._seconds / _FED, self._seconds / _LATE, self._seconds / _SOON
        self._notify("WATCHDOG=1")
        while True:
            begun = self._clock.boottime()
            await self._clock.sleep(pause)
            over = self._clock.boottime() - begun - pause
            pause = soon if over > late else self._seconds / _FED
            self._turned(over, late)

    def _turned(self, over: float, late: float) -> None:
        if over > late:
            self._woke = self._clock.boottime()
            log.warning("turn loop late seconds=%.1f", over)
        elif self._overdue() and not self._in_grace:
            log.error("starve watchdog refresher=overdue")
        else:
            self._notify("WATCHDOG=1")

    @property
    def _in_grace(self) -> bool:
        return self._woke is not None and self._clock.boottime() - self._woke < GRACE_SECONDS
