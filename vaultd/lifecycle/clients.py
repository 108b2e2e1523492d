"""Who uses the daemon: whose sessions are kept fresh, and which process a connection was.

Rule: looking at processes reads /proc, so it is done in a thread; but for the few places where a known one had sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import timedelta

from vaultd.catalog import Catalog
from vaultd.config import Settings
from vaultd.engine.grants import Grants
from vaultd.engine.seams import Clock
from vaultd.engine.sightings import Sighting
from vaultd.errors import VaultdError
from vaultd.host import processes
from vaultd.host.holders import Holders, Looked, Seat, file_id, program_of
from vaultd.model.peer import Peer
from vaultd.model.plan import Plan
from vaultd.model.programs import Found, Policy, Program

#: A grant that asked within this time has its session kept fresh (architecture.md §6.2).
ACTIVE = timedelta(minutes=30)


def policies_of(settings: Settings) -> dict[str, Policy]:
    """`[profiles.NAME]` of config.toml, as far as it says who may call."""
    return {
        name: Policy(
            protected=each.protected,
            allow=None if each.allow_executables is None else tuple(map(os.path.expanduser, each.allow_executables)),
            relays=frozenset(each.relays),
        )
        for name, each in settings.profiles.items()
    }


class Clients:
    """By the grants, which are made after the audit that asks `look_up`. Implements engine.attestation.Programs."""

    def __init__(self, *, grants: Callable[[], Grants], catalog: Callable[[], Catalog], clock: Clock) -> None:
        self._grants = grants
        self._catalog = catalog
        self._clock = clock
        self._holders = Holders()

    def active(self) -> Iterable[Plan]:
        """The plans of grants in use or pinned by a live process; one that cannot be planned is passed over."""
        now, grants = self._clock.now(), self._grants()
        for grant in grants.list():
            used = grants.last_used(grant.id)
            if grant.kind != "exec" and (used is None or now - used > ACTIVE):
                continue
            with contextlib.suppress(VaultdError):
                yield self._catalog().plan(grant.profile, grant.overrides)

    def look_up(self, sighting: Sighting) -> Peer | None:
        """Who a client was. The processes that hold grants first, as theirs are most calls. Blocks."""
        if sighting.pid is not None:
            return processes.look(sighting.pid)
        if sighting.inode is None:
            return None
        return processes.find_by_inode(sighting.inode, first=self._likely())

    def _likely(self) -> list[int]:
        """Pids that call more often than others; from a thread."""
        bound = [grant.bound.pid for grant in self._grants().list() if grant.bound is not None]
        return [*self._holders.pids, *bound]

    async def describe(self, inode: int) -> str:
        """The process that holds a socket, for the line that a person reads before typing a code."""
        found = await asyncio.to_thread(self.look_up, Sighting(uid=processes.own_uid(), inode=inode, pid=None))
        return "an AWS SDK" if found is None else await self.describe_peer(found)

    # ---- engine.attestation.Programs ----

    def known(self, inode: int) -> Seat | None:
        """The holder of a socket, when it called before."""
        return self._holders.known(inode)

    async def look(self, inodes: Collection[int]) -> Mapping[int, Found]:
        """The holders of sockets, by one scan."""
        looked = await asyncio.to_thread(self._scan, inodes)
        self._holders.adopt(looked)
        return looked.found

    def _scan(self, inodes: Collection[int]) -> Looked:
        return self._holders.look(inodes, first=self._likely())

    async def behind(self, peer: Peer) -> Found:
        """What a process runs that is known by pid and start time."""
        return Found() if peer.pid is None else await asyncio.to_thread(program_of, peer.pid, peer.started)

    async def listed(self, program: Program, entries: Collection[str]) -> bool:
        """Is its file, or its script, at one of these paths now? A program that was replaced since it was started is
        not.
        """
        own = {each for each in (program.file, program.script_file) if each is not None}
        return await asyncio.to_thread(lambda: any(file_id(each) in own for each in entries))

    async def describe_peer(self, peer: Peer) -> str:
        """A process in words."""
        return await asyncio.to_thread(processes.describe, peer)

    def close(self) -> None:
        """No more look-ups."""
        self._holders.close()
