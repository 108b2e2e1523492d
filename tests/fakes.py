"""Fakes for the seams of engine/seams.py, shared by every test. Each section has one owner's rule in its docstring."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from datetime import UTC, datetime, timedelta

START = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


class FakeClock:
    """Wall and boot time that move only by `advance`, which wakes the sleepers it passes, in order."""

    def __init__(self, start: datetime = START) -> None:
        self._now = start
        self._boot = 1000.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        return self._now

    def boottime(self) -> float:
        return self._boot

    async def sleep(self, seconds: float) -> None:
        waker = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._boot + max(0.0, seconds), next(self._order), waker))
        await waker

    @property
    def sleepers(self) -> int:
        """How many tasks sleep now: the handshake by which a test knows that a loop has gone to sleep."""
        return sum(not waker.done() for _, _, waker in self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Move both times on, waking each sleeper at its own moment and letting the loop settle after each."""
        end = self._boot + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, waker = heapq.heappop(self._sleepers)
            self._step(due - self._boot)
            if not waker.done():
                waker.set_result(None)
            await self.settle()
        self._step(end - self._boot)
        await self.settle()

    def jump(self, wall_seconds: float) -> None:
        """The wall clock alone is set (NTP, a person): boottime does not move."""
        self._now += timedelta(seconds=wall_seconds)

    async def settle(self, turns: int = 20) -> None:
        """Let every runnable task run until it waits."""
        for _ in range(turns):
            await asyncio.sleep(0)

    def _step(self, seconds: float) -> None:
        if seconds > 0:
            self._boot += seconds
            self._now += timedelta(seconds=seconds)
