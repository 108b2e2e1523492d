"""Blocking calls into what may never answer (a keyring's D-Bus, a disk of the network), one at a time.

Rules (security.md §3.1, architecture.md §5)
- Each call runs on a fresh daemon thread: a hung thread of a pool starves the next call and blocks exit.
- A call that has not returned after 30 s is abandoned, and for 60 s every call is KeyringBusy at once. While an
  abandoned thread lives nothing is written: its own write may land late, over a newer one. The daemon then leaves by
  `os._exit` (`abandoned`).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar, cast

from vaultd.engine.seams import Clock
from vaultd.errors import KeyringBusy, VaultdError

_log = logging.getLogger(__name__)

DEADLINE = timedelta(seconds=30)
BREAKER = timedelta(seconds=60)

_Far = TypeVar("_Far")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Words:
    """What is said of the other end: `late` after the deadline, `undecided` when an abandoned call may still write,
    `absent` where there is none, `translate` for its own exceptions. What it says itself may hold anything.
    """

    late: str
    undecided: str
    absent: Callable[[], VaultdError]
    translate: Callable[[Exception], VaultdError]


class OneCall(Generic[_Far]):
    """`find` gives the other end, on the thread of a call; None: there is none here. It is kept until `forget`."""

    def __init__(
        self,
        find: Callable[[], _Far | None],
        *,
        clock: Clock,
        words: Words,
        deadline: timedelta = DEADLINE,
        breaker: timedelta = BREAKER,
    ) -> None:
        self._find = find
        self._clock = clock
        self._words = words
        self._deadline = deadline
        self._breaker = breaker
        self._turn: asyncio.Task[object] | None = None
        self._threads: list[threading.Thread] = []
        self._broken_until: float | None = None
        self.found: _Far | None = None

    @property
    def abandoned(self) -> bool:
        """True while a thread that nobody waits for any more is still in a call."""
        self._threads = [each for each in self._threads if each.is_alive()]
        return bool(self._threads)

    def forget(self) -> None:
        """The next call finds the other end anew."""
        self.found = None

    async def call(self, work: Callable[[_Far], _Result], *, writes: bool = False) -> _Result:
        """`work` on a thread, when every earlier call is over. A caller who leaves does not hurry the next one in."""
        turn: asyncio.Task[_Result | VaultdError] = asyncio.create_task(
            self._take_turn(self._turn, work, writes=writes)
        )
        self._turn = cast("asyncio.Task[object]", turn)
        await asyncio.wait({turn})
        outcome = turn.result()
        if isinstance(outcome, VaultdError):
            raise outcome
        return outcome

    async def _take_turn(
        self, earlier: asyncio.Task[object] | None, work: Callable[[_Far], _Result], *, writes: bool
    ) -> _Result | VaultdError:
        if earlier is not None and not earlier.done():
            await asyncio.wait({earlier})
        if (busy := self._why_not(writes=writes)) is not None:
            return busy
        return await self._in_time(work)

    def _why_not(self, *, writes: bool) -> KeyringBusy | None:
        if self._broken_until is not None and self._clock.boottime() < self._broken_until:
            return KeyringBusy(self._words.late)
        if writes and self.abandoned:
            return KeyringBusy(self._words.undecided)
        return None

    async def _in_time(self, work: Callable[[_Far], _Result]) -> _Result | VaultdError:
        landed: asyncio.Future[_Result | VaultdError] = asyncio.get_running_loop().create_future()
        thread = self._start(work, landed)
        timer = asyncio.create_task(self._clock.sleep(self._deadline.total_seconds()))
        either: set[asyncio.Future[Any]] = {landed, timer}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            if not landed.done():  # too late, or the loop ends: nobody will hear of this call any more
                landed.cancel()
                self._threads.append(thread)
        if not landed.cancelled():
            self._broken_until = None
            return landed.result()
        self._broken_until = self._clock.boottime() + self._breaker.total_seconds()
        _log.warning("abandon keyring-call after_seconds=%d", self._deadline.total_seconds())
        return KeyringBusy(self._words.late)

    def _start(
        self, work: Callable[[_Far], _Result], landed: asyncio.Future[_Result | VaultdError]
    ) -> threading.Thread:
        loop, known = asyncio.get_running_loop(), self.found

        def run() -> None:
            found, outcome = self._attempt(work, known)

            def land() -> None:  # a closure: asyncio's logs print the arguments of callbacks (security.md §0.5)
                if not landed.done():
                    self.found = found
                    landed.set_result(outcome)

            with suppress(RuntimeError):  # the loop is gone: nobody waits any more
                loop.call_soon_threadsafe(land)

        thread = threading.Thread(target=run, name="vaultd-keyring", daemon=True)
        thread.start()
        return thread

    def _attempt(
        self, work: Callable[[_Far], _Result], found: _Far | None
    ) -> tuple[_Far | None, _Result | VaultdError]:
        """On the thread: find if need be, call, translate."""
        try:
            if found is None:
                found = self._find()
            if found is None:
                return None, self._words.absent()
            return found, work(found)
        except VaultdError as exc:
            return found, exc
        except Exception as exc:  # noqa: BLE001 - keyring, SecretStorage, jeepney and macOS each raise their own
            return found, self._words.translate(exc)
