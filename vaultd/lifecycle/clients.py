"""Who uses the daemon: whose sessions are kept fresh, and which process a connection was.

Rule: looking at processes reads /proc, so it is done in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from datetime import timedelta

from vaultd.catalog import Catalog
from vaultd.engine.grants import Grants
from vaultd.engine.seams import Clock
from vaultd.engine.sightings import Sighting
from vaultd.errors import VaultdError
from vaultd.host import processes
from vaultd.model.peer import Peer
from vaultd.model.plan import Plan

#: A grant that asked within this time has its session kept fresh (architecture.md §6.2).
ACTIVE = timedelta(minutes=30)


class Clients:
    """By the grants, which are made after the audit that asks `look`."""

    def __init__(self, *, grants: Callable[[], Grants], catalog: Callable[[], Catalog], clock: Clock) -> None:
        self._grants = grants
        self._catalog = catalog
        self._clock = clock

    def active(self) -> Iterable[Plan]:
        """The plans of grants in use or pinned by a live process; one that cannot be planned is passed over."""
        now, grants = self._clock.now(), self._grants()
        for grant in grants.list():
            used = grants.last_used(grant.id)
            if grant.kind != "exec" and (used is None or now - used > ACTIVE):
                continue
            with contextlib.suppress(VaultdError):
                yield self._catalog().plan(grant.profile, grant.overrides)

    def look(self, sighting: Sighting) -> Peer | None:
        """Who a client was. The processes that hold grants first, as theirs are most calls. Blocks."""
        if sighting.pid is not None:
            return processes.look(sighting.pid)
        if sighting.inode is None:
            return None
        first = [grant.bound.pid for grant in self._grants().list() if grant.bound is not None]
        return processes.find_by_inode(sighting.inode, first=first)

    async def describe(self, inode: int) -> str:
        """The process that holds a socket, for the line that a person reads before typing a code."""
        found = await asyncio.to_thread(self.look, Sighting(uid=processes.own_uid(), inode=inode, pid=None))
        return "an AWS SDK" if found is None else processes.describe(found)
