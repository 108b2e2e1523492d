"""The machine's clocks behind the Clock seam.

Rule: boottime counts suspend, so that a laptop that slept eight hours has eight hours behind it (security.md §2.2 item
27). The event loop's own timers do not count suspend, so no sleep is handed to them whole.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

#: The most that is slept in one piece: a deadline that passed while suspended is noticed within this (architecture.md
#: §6 flow 2: "no sleep above 30 s").
PIECE = 30.0

# Linux counts suspend in CLOCK_BOOTTIME only; macOS has no such name, and its CLOCK_MONOTONIC goes on while asleep.
_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """The Clock of the daemon; tests have a FakeClock instead."""

    def now(self) -> datetime:
        """Wall time, UTC."""
        return datetime.now(UTC)

    def boottime(self) -> float:
        """Seconds since the machine was started, suspend included."""
        return time.clock_gettime(_BOOT)

    async def sleep(self, seconds: float) -> None:
        """Return once `seconds` of boottime are over."""
        end = self.boottime() + seconds
        await asyncio.sleep(min(max(0.0, seconds), PIECE))
        while (left := end - self.boottime()) > 0:  # noqa: ASYNC110 - time is what is waited for, there is no event
            await asyncio.sleep(min(left, PIECE))


def suspended() -> float:
    """Seconds that the machine has slept since it was started: what one clock counts and another does not."""
    # macOS: its CLOCK_MONOTONIC, which is _BOOT there, goes on while asleep, and another one stops
    awake = getattr(time, "CLOCK_UPTIME_RAW", time.CLOCK_MONOTONIC)
    return time.clock_gettime(_BOOT) - time.clock_gettime(awake)
