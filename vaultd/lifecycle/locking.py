"""When the daemon locks by itself: nobody used it, the machine sleeps, the screen is locked, SIGUSR1 (interface.md §7).

Rules
- Used is what a person's command or an SDK's request with a good token does. What only looks (status, lists, the log,
  a `status --watch` in some terminal) keeps nothing open, nor does what the daemon does by itself.
- Idle is counted in boottime, so that a sleep counts. The request that comes after the limit locks, and is told so:
  a timer may be late by as much as the machine slept.
- A lock by itself does what `vault-client lock` does: nothing is served from its turn on, and a restart stays locked.
  What is locked already is left as it is, unless its store is just being opened; but a sleep waits for a lock that is
  still under way (the screen's, a moment before), too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from datetime import timedelta
from typing import Final

from vaultd.engine.seams import Clock
from vaultd.errors import VaultdError
from vaultd.host.logind import Lock
from vaultd.host.presence import Presence
from vaultd.host.system_bus import DEFAULT_ADDRESS
from vaultd.lifecycle.surroundings import Surroundings
from vaultd.lifecycle.unlocking import LockReason, Unlocking

_ALWAYS: Final = frozenset({"signal"})

log = logging.getLogger(__name__)


class Locking:
    """`after`: [store] lock_after_idle, None for never."""

    def __init__(self, *, unlocking: Unlocking, clock: Clock, after: timedelta | None) -> None:
        self._unlocking = unlocking
        self._clock = clock
        self._after = None if after is None else after.total_seconds()
        self._used = clock.boottime()
        self._dropping: set[asyncio.Task[None]] = set()

    def used(self) -> None:
        """HOT PATH: a command of a person, or a request with a good token. Past the limit it locks instead."""
        now = self._clock.boottime()
        if self._after is not None and now - self._used >= self._after and self._unlocking.openable:
            self.begin("idle")
        self._used = now

    def begin(self, reason: LockReason) -> Awaitable[None]:
        """Nothing is served from now on; what is returned is done once the keeper says that all is forgotten, or could
        not write that it is locked. It never raises, and goes on whether or not it is awaited.
        """
        if not (self._unlocking.openable or reason in _ALWAYS):
            return self._unlocking.dropped()
        log.info("lock daemon reason=%s", reason)
        self._unlocking.shut(reason)
        task = asyncio.ensure_future(self._drop(reason))
        self._dropping.add(task)
        task.add_done_callback(self._dropping.discard)
        return asyncio.shield(task)

    async def lock(self, reason: LockReason) -> None:
        """The same, awaited."""
        await self.begin(reason)

    async def _drop(self, reason: LockReason) -> None:
        try:
            await self._unlocking.drop()
        except VaultdError as exc:
            log.error("lock daemon failed reason=%s error=%s said=%s", reason, exc.kind, exc.message)  # noqa: TRY400

    async def run(self) -> None:
        """Lock when the time is over, until cancelled."""
        assert self._after is not None
        while True:
            left = self._used + self._after - self._clock.boottime()
            if left <= 0 and self._unlocking.openable:
                await self.lock("idle")
            await self._clock.sleep(left if left > 0 else self._after)

    @property
    def watches(self) -> bool:
        """`run` has something to do."""
        return self._after is not None


def presence_of(around: Surroundings, *, lock: Lock) -> Presence | None:
    """Who says that the machine sleeps and the screen is locked; None where no setting asks, and no bus is touched."""
    store = around.settings.store
    if not (store.lock_on_suspend or store.lock_on_screen_lock):
        return None
    return Presence(
        lock=lock,
        sleep=around.clock.sleep,
        suspend=store.lock_on_suspend,
        screen=store.lock_on_screen_lock,
        address=around.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or DEFAULT_ADDRESS,
    )
