"""The exclusive lock on a file of ours, by flock(2).

Rule: it ends with its holder, however that ends; a file that lost its name between open and lock excludes nobody, so
the one that has the name is taken.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from vaultd import ownership


class Lock:
    """A held flock; it ends with `release` or with the last process that inherited its descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Let the next daemon in; the file stays, since removing it would let two in at once."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def take(path: Path, *, fault: Callable[[str, Path], None]) -> Lock | None:
    """None when another process holds it. `fault`: of the file layer. Raises OSError, FileRefused."""
    while True:
        fault("open", path)
        # Not for writing: a file that is open for that keeps its disk from being made read-only.
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | ownership.SAFE, 0o600)
        if not _tried(descriptor, path, fault):
            return None
        if _still_named(descriptor, path):
            return Lock(descriptor)
        os.close(descriptor)  # removed between open and flock: a lock on a nameless file excludes nobody


def _tried(descriptor: int, path: Path, fault: Callable[[str, Path], None]) -> bool:
    try:
        fault("flock", path)
        ownership.ours(descriptor, path)
        _flock(descriptor, path)
    except BlockingIOError:
        os.close(descriptor)
        return False
    except BaseException:
        os.close(descriptor)
        raise
    return True


def _flock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno != errno.EBADF:
            raise
        # NFS has no flock and makes it a lock of bytes, which wants the file open for writing (flock(2)).
        writable = os.open(path, os.O_RDWR | ownership.SAFE)
        os.dup2(writable, descriptor, inheritable=False)
        os.close(writable)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _still_named(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False
