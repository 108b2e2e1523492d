"""lifecycle/watchdog.py: fed only when the loop turned in time and the refresher is not overdue."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from tests.fakes import FakeClock
from vaultd.lifecycle.watchdog import Watchdog, allowed_seconds


@dataclass
class Fed:
    """What the service manager hears; `overdue` is what the refresher says of itself."""

    clock: FakeClock = field(default_factory=FakeClock)
    heard: list[str] = field(default_factory=list)
    overdue: bool = False

    def watchdog(self, seconds: float | None = 30.0) -> Watchdog:
        return Watchdog(seconds=seconds, clock=self.clock, overdue=lambda: self.overdue, notify=self.heard.append)

    async def meals(self, seconds: float, *, step: float = 0.5) -> int:
        """How often it is fed in so long a time, when the loop turns each `step`."""
        before = len(self.heard)
        for _ in range(int(seconds / step)):
            await self.clock.advance(step)
        return len(self.heard) - before

    async def stuck(self, seconds: float) -> None:
        """Time that goes by without a turn of the loop: it hung, or the machine slept."""
        self.clock._step(seconds)
        await self.clock.advance(0)


@pytest.fixture
async def fed() -> AsyncIterator[Fed]:
    made = Fed()
    task = asyncio.ensure_future(made.watchdog().run())
    await asyncio.sleep(0)
    yield made
    task.cancel()
    await asyncio.wait({task})


async def test_a_live_daemon_feeds_it_well_within_its_time(fed: Fed) -> None:
    """At once, then four times in the 30 s that the service manager bears."""
    assert fed.heard == ["WATCHDOG=1"]
    assert await fed.meals(30) == 4


async def test_an_overdue_refresher_starves_it(fed: Fed) -> None:
    """Sessions that nobody keeps fresh are no service, however well the loop turns; once it looks again, it is fed."""
    fed.overdue = True
    assert await fed.meals(30) == 0
    fed.overdue = False
    assert await fed.meals(30) == 4


async def test_a_loop_that_turned_late_does_not_feed_it(fed: Fed) -> None:
    """Not for that turn; 1 s later, when it turned in time again."""
    await fed.stuck(25)
    assert len(fed.heard) == 1
    await fed.clock.advance(1)
    assert len(fed.heard) == 2


async def test_a_loop_that_is_stuck_again_and_again_starves_it(fed: Fed) -> None:
    """Each turn comes more than 7.5 s late; the control is a loop that is slow, and in time."""
    for _ in range(20):
        await fed.stuck(20)
    assert len(fed.heard) == 1
    await fed.clock.advance(1)
    for _ in range(20):
        await fed.stuck(14)
    assert len(fed.heard) == 22


async def test_a_machine_that_slept_is_well(fed: Fed) -> None:
    """After 8 h of suspend the refresher, which sleeps on for up to 30 s, is not yet held overdue; after that it is."""
    await fed.stuck(8 * 3600)
    fed.overdue = True
    assert await fed.meals(30) >= 3
    assert await fed.meals(60) <= 2
    assert await fed.meals(60) == 0


async def test_nothing_is_sent_where_nobody_watches() -> None:
    """The task waits: it is one of those that may never end."""
    fed = Fed()
    task = asyncio.ensure_future(fed.watchdog(None).run())
    await asyncio.sleep(0)
    await fed.clock.advance(7200)

    assert (fed.heard, task.done()) == ([], False)
    task.cancel()
    await asyncio.wait({task})


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_whose_watchdog_it_is(environ: dict[str, str], seconds: float | None) -> None:
    """sd_watchdog_enabled(3): a process that inherited the variables of another is not watched."""
    assert allowed_seconds(environ) == seconds
