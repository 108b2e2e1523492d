"""Flights: renewals in progress, one per cell, owned here and by no request (architecture.md §8.2 to §8.5).

Rules: a flight returns its outcome instead of raising, and is removed in the turn in which it stores it; a flight
without waiters lands all the same. Only lock, clear and stop cancel, and never a flight that carries a token code: its
call lands, and an outcome of an older epoch is dropped by whoever minted it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from typing import Any

from vaultd.engine.seams import Clock
from vaultd.errors import VaultdError
from vaultd.model.credentials import MfaHandle, RoleSession

#: None: a key was proved (proving.py).
Outcome = RoleSession | MfaHandle | VaultdError | None
Flight = asyncio.Task[Outcome]

log = logging.getLogger(__name__)


class Flights:
    """The table of flights by cell key, and the epoch that lock moves on."""

    def __init__(self, clock: Clock) -> None:
        self.epoch = 0
        self._clock = clock
        self._flights: dict[str, Flight] = {}
        self._began: dict[str, float] = {}
        self._with_code: set[str] = set()

    def get(self, key: str) -> Flight | None:
        """The flight that is under way for this cell."""
        return self._flights.get(key)

    def age(self, key: str) -> float:
        """For how many seconds a flight of this cell has been under way; 0 when there is none."""
        return self._clock.boottime() - self._began[key] if key in self._flights else 0.0

    def start(self, key: str, work: Coroutine[Any, Any, Outcome], *, code: bool = False) -> Flight:
        """Take off, unless one is under way already: then `work` is dropped."""
        found = self._flights.get(key)
        if found is not None:
            work.close()
            return found
        flight = asyncio.get_running_loop().create_task(self._fly(key, work), name=f"flight {key[:12]}")
        self._flights[key] = flight
        self._began[key] = self._clock.boottime()
        flight.add_done_callback(lambda done: self._remove(key, done))  # cancelled before its first turn
        if code:
            self._with_code.add(key)
        return flight

    async def _fly(self, key: str, work: Coroutine[Any, Any, Outcome]) -> Outcome:
        try:
            return await work
        except VaultdError as exc:
            return exc
        except Exception:
            log.exception("fail flight cell=%s", key[:12])
            return VaultdError("vaultd made an error: type `vaultd logs` for the traceback.")
        finally:
            self._remove(key, asyncio.current_task())

    def _remove(self, key: str, flight: asyncio.Task[Any] | None) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key], self._began[key]
            self._with_code.discard(key)

    def cancel(self, keys: Iterable[str] | None = None) -> None:
        """Cancel these flights, or all, but for those whose code is on its way."""
        for key in list(self._flights) if keys is None else list(keys):
            flight = self._flights.get(key)
            if flight is not None and key not in self._with_code:
                flight.cancel()

    async def drain(self, clock: Clock, seconds: float) -> None:
        """Stop: cancel what carries no code, give the rest `seconds` to land."""
        self.cancel()
        for key in list(self._with_code):
            flight = self._flights.get(key)
            if flight is not None and not await within(clock, {flight}, seconds):
                flight.cancel()


async def within(clock: Clock, waited: set[Any], seconds: float | None) -> bool:
    """Wait for these futures, at most so long by the Clock seam; True when all are done. Cancels none of them."""
    if seconds is None:
        await asyncio.wait(waited)
        return True
    if seconds <= 0:
        return all(each.done() for each in waited)
    timer = asyncio.ensure_future(clock.sleep(seconds))
    try:
        while pending := {each for each in waited if not each.done()}:
            await asyncio.wait({*pending, timer}, return_when=asyncio.FIRST_COMPLETED)
            if timer.done():
                break
    finally:
        timer.cancel()
    return all(each.done() for each in waited)
