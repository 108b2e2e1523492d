"""Which process a client was: looked up after its bytes went out, off the loop, and not often.

Rule: at most five look-ups a second (a scan of /proc is 1.5 ms and more, security.md §5); a socket found once is not
looked up again for 10 s. Everything else is a Peer with a uid alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from vaultd.engine.seams import Clock
from vaultd.model.peer import Peer
from vaultd.model.programs import Program

PER_SECOND = 5
REMEMBERED = 10.0
#: /proc answers in milliseconds; a look-up that hangs on a dying process is given up.
DEADLINE = 2.0


class Seat(Protocol):
    """Where a program has a connection, as host/holders.py knows it."""

    @property
    def program(self) -> Program:
        """Who has it."""

    def leave(self) -> None:
        """The connection has ended."""


@dataclass(slots=True, eq=False)
class Badge:
    """What was found out about the program behind one connection. `cleared`: the grant that it may use without another
    look; `passed`: the grant for which only the consent is to be looked at (a lock and eight hours end one); `seat`: to
    be left when the connection ends.
    """

    cleared: str | None = None
    passed: str | None = None
    program: Program | None = None
    seat: Seat | None = None


@dataclass(frozen=True, slots=True)
class Sighting:
    """What is known of a client as its bytes go out: `inode` of its TCP socket, or `pid` of a unix socket's peer."""

    uid: int
    inode: int | None
    pid: int | None
    badge: Badge = field(default_factory=Badge, compare=False, repr=False)


class Looks:
    """`look` is called in a thread; None: nobody is ever looked up."""

    def __init__(self, look: Callable[[Sighting], Peer | None] | None, *, clock: Clock) -> None:
        self._look = look
        self._clock = clock
        self._moments: deque[float] = deque(maxlen=PER_SECOND)
        self._known: dict[int, tuple[float, Peer]] = {}

    async def who(self, sighting: Sighting) -> Peer:
        """The process, as far as it can be told; never raises."""
        if sighting.badge.program is not None:  # attested before its keys went out
            return sighting.badge.program.peer
        unknown, now = Peer(uid=sighting.uid), self._clock.boottime()
        if (known := self._recall(sighting.inode, now)) is not None:
            return known
        if self._look is None or (sighting.inode or sighting.pid) is None or not self._may_look(now):
            return unknown
        looking = asyncio.ensure_future(asyncio.to_thread(self._look, sighting))
        await asyncio.wait({looking}, timeout=DEADLINE)
        found = None
        with contextlib.suppress(Exception):  # a look-up that fails or hangs costs the pid, not the line
            found = looking.result() if looking.done() else None
        if found is None:
            return unknown
        if sighting.inode is not None:
            self._known[sighting.inode] = (now, found)
        return found

    def _recall(self, inode: int | None, now: float) -> Peer | None:
        self._known = {each: seen for each, seen in self._known.items() if now - seen[0] < REMEMBERED}
        found = None if inode is None else self._known.get(inode)
        return None if found is None else found[1]

    def _may_look(self, now: float) -> bool:
        if len(self._moments) == PER_SECOND and now - self._moments[0] < 1.0:
            return False
        self._moments.append(now)
        return True
