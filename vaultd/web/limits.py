"""How long, how much and how many: the numbers of interface.md §4, and the order in which connections make room.

Rule: beyond the limit the longest idle connection is closed; where none is idle, the new one.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import Protocol

#: Descriptors that the daemon itself has open, without connections (18 when idle, some more at work).
_OWN = 32


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, and how many connections and IMDS listeners.

    `unread`: how long a client may not read what it asked for. `linger`: how long the rest of a refused request is
    read and dropped.
    """

    first_byte: float = 2.0
    headers: float = 3.0
    idle: float = 120.0
    unread: float = 10.0
    linger: float = 1.0
    connections: int = 1024
    doors: int = 256

    def most_doors(self) -> int:
        """`doors`, or an eighth of the descriptors: each listener is one, beside those of the connections."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return self.doors if soft == resource.RLIM_INFINITY else min(self.doors, soft // 8)

    def most(self) -> int:
        """`connections`, or 75 % of the descriptors that this process may have."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return self.connections if soft == resource.RLIM_INFINITY else min(self.connections, soft * 3 // 4)

    def most_held(self) -> int:
        """Half of the connections: a held one counts as busy, and makes no room for who would be answered at once."""
        return self.most() // 2


def most_controls(*, at_least: int) -> int:
    """Of the quarter that TCP leaves, all but what the daemon itself has open: 200 commands may wait for one code."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = Limits().connections if soft == resource.RLIM_INFINITY else soft // 4 - _OWN
    return max(at_least, min(Limits().connections, most))


class Member(Protocol):
    """A connection, as far as making room goes."""

    @property
    def busy(self) -> bool:
        """A request is open."""

    def abort(self) -> None:
        """Close now."""


class Crowd:
    """The connections in the order of their last use: the first idle one is the longest idle."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._members: dict[Member, None] = {}

    def __len__(self) -> int:
        return len(self._members)

    def make_room(self) -> bool:
        """False: full, and everyone is being answered."""
        if len(self._members) < self._most:
            return True
        idle = next((each for each in self._members if not each.busy), None)
        if idle is None:
            return False
        self.remove(idle)
        idle.abort()
        return True

    def add(self, member: Member) -> None:
        """As the last used."""
        self._members[member] = None

    def touch(self, member: Member) -> None:
        """It was used just now."""
        if member in self._members:
            del self._members[member]
            self._members[member] = None

    def remove(self, member: Member) -> None:
        """No matter whether it was in."""
        self._members.pop(member, None)
