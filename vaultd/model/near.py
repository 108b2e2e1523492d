"""Near misses of a wrong name, in bounded time: the loop that serves SDKs waits for each.

Rule: as many names are compared whole as WORK allows. Of more those that begin or end as the wanted one does, the
longest such beginnings and ends first: a slip of the finger leaves one of the two as it was.
"""

from __future__ import annotations

import difflib
from bisect import bisect_left
from collections.abc import Iterable

#: Characters of all names compared times those of the wanted one: 0.1 µs each at worst, so that 700 names of an
#: ordinary length are all looked at.
WORK = 200_000
#: Neighbours on each side that are compared in any case.
_LEAST = 1
#: Of a wanted name; a longer one is cut for a terminal, too.
_LONGEST = 200
_CLOSE = 0.6


class Names:
    """Names to compare with, sorted once. An identity and a profile may have one name."""

    def __init__(self, names: Iterable[str]) -> None:
        self._all = tuple(dict.fromkeys(names))
        self._letters = sum(map(len, self._all))
        self._forwards: list[str] = sorted(self._all)
        self._backwards: list[str] = sorted(each[::-1] for each in self._all)

    def close(self, wanted: str, *, also: Iterable[str] = (), most: int = 3) -> list[str]:
        """The nearest, the best first; `also`: a few more names to compare with."""
        wanted = wanted[:_LONGEST]
        compared = dict.fromkeys((*also, *self._worth(wanted)))
        return difflib.get_close_matches(wanted, list(compared), n=most, cutoff=_CLOSE)

    def _worth(self, wanted: str) -> Iterable[str]:
        if self._letters * len(wanted) <= WORK:
            return self._all
        # to each side in both orders, by the letters of an average name
        each = max(_LEAST, WORK * len(self._all) // (4 * self._letters * len(wanted)))
        ends = (name[::-1] for name in _beside(self._backwards, wanted[::-1], each))
        return (*_beside(self._forwards, wanted, each), *ends)


def _beside(names: list[str], wanted: str, each: int) -> list[str]:
    """The nearest of a sorted list have the longest beginning in common."""
    at = bisect_left(names, wanted)
    return names[max(0, at - each) : at + each]
