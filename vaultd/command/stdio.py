"""stdin, stdout and stderr of `vaultd`, so that none of them ends a command that was on its way.

Rules
- A descriptor 0, 1 or 2 that the caller closed is /dev/null before anything else is opened: a socket that took its
  number would be printed into, and uvloop asserts that its own are above 2.
- What cannot be written is lost, never raised, and remembered by the stream: a start that nobody hears is a start.
- No character is too strange for the terminal's encoding: it is shown as its escape.
- Lines go out one by one, so that they are in order in a pipe that stderr goes into as well.
"""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from vault_client.errors import Stop

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

#: Exit status after Ctrl-C, as shells count SIGINT.
INTERRUPTED = 130


class _Lossy(io.FileIO):
    """The descriptor itself; `failure` is why the first write that failed did so."""

    failure: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        size = memoryview(data).nbytes
        try:
            while (written := super().write(data)) is None:  # the caller's own descriptor may be set non-blocking
                select.select([], [self.fileno()], [])
        except OSError as exc:
            self.failure = self.failure or exc
            return size
        return written


@contextmanager
def guarded() -> Iterator[None]:
    """The three streams as the module says; what stands in for one of Python's own (a test's capture) stays."""
    open_missing()
    kept = sys.stdin, sys.stdout, sys.stderr
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False, encoding="utf-8")  # noqa: SIM115 (a descriptor, and not ours)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _stream(1, sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _stream(2, sys.stderr)
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = kept


def open_missing() -> None:
    """/dev/null for each of 0, 1, 2 that is closed: open(2) gives the lowest number that is free."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def failure(stream: TextIO) -> OSError | None:
    """Why something written to `stream` was lost; None while nothing was."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw.failure if isinstance(raw, _Lossy) else None


def interrupted(message: str) -> Stop:
    """Ctrl-C, and what goes on all the same."""
    print(file=sys.stderr)  # the line on which the terminal shows ^C
    return Stop(message, INTERRUPTED)


def _stream(number: int, like: TextIO | None) -> io.TextIOWrapper:
    raw = _Lossy(number, "w", closefd=False)
    encoding = like.encoding if like is not None else "utf-8"
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding, errors="backslashreplace", line_buffering=True)
