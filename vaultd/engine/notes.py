"""Notes: what the broker wants sealed for the next start, handed to the keeper one after the other.

Rule: a session is served first and sealed after (it costs one call; architecture.md §5), and a note that cannot be
written never fails a request (interface.md §1: "state disk full: valid sessions are still served").
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from vaultd.engine.seams import Keeper, Note
from vaultd.errors import VaultdError

#: Turns of the loop that a reply needs to leave before the disk is touched.
_TURNS = 8

log = logging.getLogger(__name__)


class Notes:
    """A queue with one task that drains it, alive only while there is something to write."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._queue: deque[Note] = deque()
        self._task: asyncio.Task[None] | None = None

    def put(self, note: Note) -> None:
        """Seal it soon."""
        self._queue.append(note)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._drain(), name="notes")

    async def flushed(self) -> None:
        """Wait until everything handed in so far is written or has failed."""
        if self._task is not None:
            await asyncio.wait({self._task})

    def forget(self) -> None:
        """Lock: nothing that still waits is written; the keeper could not seal it any more."""
        self._queue.clear()

    async def _drain(self) -> None:
        try:
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            while self._queue:
                await self._write(self._queue.popleft())
        finally:
            self._task = None

    async def _write(self, note: Note) -> None:
        try:
            await self._keeper.note(note)
        except VaultdError as exc:
            log.warning("fail note kind=%s error=%s", note.kind, exc.kind)
        except Exception:
            log.exception("fail note kind=%s", note.kind)
