"""Consents: which programs a person has allowed to use a protected profile (security.md §5, "ask-first").

Rule: a consent is for one profile and one program (its file as it is, and its script), until a lock or for eight hours;
none is ever written to disk.
"""

from __future__ import annotations

from typing import Final

from vaultd.engine.seams import Clock

SECONDS: Final = 8 * 3600.0
#: Kept at a time; the oldest goes first.
MOST: Final = 1024

#: Profile, and what `Program.key` gives.
Subject = tuple[str, tuple[object, ...]]


class Consents:
    """The table; boottime, so that a suspend counts."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[Subject, float] = {}

    def hold(self, subject: Subject) -> bool:
        """A person said yes, and it still counts."""
        until = self._until.get(subject)
        return until is not None and self._clock.boottime() < until

    def give(self, subject: Subject) -> None:
        """A person said yes now."""
        self._until.pop(subject, None)
        while len(self._until) >= MOST:
            del self._until[next(iter(self._until))]
        self._until[subject] = self._clock.boottime() + SECONDS

    def drop(self) -> None:
        """A lock ends them all."""
        self._until.clear()
