"""What a person's command asks of the daemon as a whole: its state, lock, unlock, stop; and what it has to be told.

Rule: it decides nothing. Each wish goes to the part that owns the matter (architecture.md §7).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from vaultd.engine.refresher import Refresher
from vaultd.engine.seams import Outlook
from vaultd.lifecycle.locking import Locking
from vaultd.lifecycle.reporting import Reporting
from vaultd.lifecycle.unlocking import Unlocking
from vaultd.lifecycle.watching import Watching
from vaultd.model.peer import Peer
from vaultd.model.secret import Secret

log = logging.getLogger(__name__)


class Commands:
    """Implements web.rooms.Lifecycle. `end` begins the orderly end, and returns at once."""

    def __init__(
        self,
        *,
        reporting: Reporting,
        unlocking: Unlocking,
        locking: Locking,
        profiles: Watching,
        refresher: Refresher,
        outlook: Outlook,
        port: Callable[[], int],
        end: Callable[[Peer | None], None],
    ) -> None:
        self._reporting = reporting
        self._unlocking = unlocking
        self._locking = locking
        self._profiles = profiles
        self._refresher = refresher
        self._outlook = outlook
        self._port = port
        self._end = end
        self._warming: asyncio.Future[Any] | None = None

    def status(self) -> dict[str, Any]:
        """What is true of the daemon itself; the lists of interface.md §6 are added by its route."""
        return self._reporting.status(self._port())

    async def lock(self, *, by: Peer | None = None) -> None:
        """Flow 6."""
        await self._unlocking.lock(by=by)

    async def unlock(
        self, passphrase: Secret | None, *, accept_rollback: bool, by: Peer | None = None
    ) -> dict[str, bool]:
        """Open the store for a person who is there."""
        return await self._unlocking.unlock(passphrase, accept_rollback=accept_rollback, by=by)

    async def checks(self) -> list[dict[str, Any]]:
        """The diagnoses of `vaultd check`, with what only a running daemon knows."""
        return await self._reporting.checks(self._port())

    def identities_changed(self) -> None:
        """Plans are made anew."""
        self._profiles.reload()

    def granted(self) -> None:
        """A grant was made: its session is to be kept fresh, and boto3 to be there when it is needed."""
        self._refresher.nudge()
        if self._warming is None:
            self._warming = asyncio.ensure_future(self._outlook.warm())
            self._warming.add_done_callback(_warmed)

    def used(self) -> None:
        """A command of a person, or a request with a good token."""
        self._locking.used()

    def stop(self, *, by: Peer | None = None) -> None:
        """Begin the orderly end."""
        self._end(by)

    def close(self) -> None:
        """At the end: a warm-up that is under way is given up."""
        if self._warming is not None:
            self._warming.cancel()


def _warmed(warming: asyncio.Future[Any]) -> None:
    """A warm-up is a convenience: the first call does without, and tells what is wrong."""
    if not warming.cancelled() and (exc := warming.exception()) is not None:
        log.warning("skip warm-up error=%s", type(exc).__name__)
