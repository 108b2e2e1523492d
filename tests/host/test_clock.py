from __future__ import annotations

import asyncio
import time
from datetime import UTC, timedelta

import pytest

from vaultd.host.clock import PIECE, SystemClock


def test_now_is_utc_and_aware() -> None:
    """Datetimes are UTC-aware everywhere."""
    now = SystemClock().now()

    assert now.tzinfo is UTC
    assert now.utcoffset() == timedelta()


def test_boottime_counts_suspend() -> None:
    """Boottime is the kernel's CLOCK_BOOTTIME, which goes on in suspend; monotonic does not."""
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    found = SystemClock().boottime()

    assert before <= found <= time.clock_gettime(time.CLOCK_BOOTTIME)


async def test_a_sleep_that_a_suspend_outlasted_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sleep ends by boottime: an hour asked for is over when the machine slept through it, after one piece of 30 s."""
    slept: list[float] = []
    boot = iter([0.0, 4000.0])

    async def piece(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(SystemClock, "boottime", lambda _: next(boot))
    monkeypatch.setattr(asyncio, "sleep", piece)
    await SystemClock().sleep(3600)

    assert slept == [PIECE]


async def test_a_long_sleep_goes_on_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive control: without a suspend the pieces go on until the time is over."""
    slept: list[float] = []
    boot = iter([0.0, 30.0, 60.0, 70.0])

    async def piece(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(SystemClock, "boottime", lambda _: next(boot))
    monkeypatch.setattr(asyncio, "sleep", piece)
    await SystemClock().sleep(70)

    assert slept == [30, 30, 10]


async def test_no_time_is_still_a_turn_of_the_loop() -> None:
    """sleep(0) and a negative sleep give way once and return."""
    turns: list[str] = []
    asyncio.get_running_loop().call_soon(turns.append, "other")
    await SystemClock().sleep(-5)

    assert turns == ["other"]
