"""Peer: the process at the other end of a connection, as far as the kernel tells."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Peer:
    """`pid` is None for a client that is gone or was not looked up; `started` is the kernel's start time in ticks.

    `exe` is the resolved executable, `argv0` the name it was started under (the script, for an interpreter), both as
    `shown()` text.
    """

    uid: int
    pid: int | None = None
    exe: str | None = None
    argv0: str | None = None
    started: int | None = None
