"""How often each profile was used from here: what the picker shows first.

Rules
- The client's own file (`habits.json` in the state directory), of profile names, counts and times; the daemon never
  reads it. Nothing depends on it but an order: whatever is wrong with it, it is passed over, and written anew.
- A use counts half after 30 days, and a script's loop of uses counts once in ten minutes.
"""

# pathlib may not load at start-up (architecture.md §2), so os.path it is.
# ruff: noqa: PTH105, PTH108
from __future__ import annotations

import json
import os
import stat
import time
from contextlib import suppress

from vault_client.places import Places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_HALF_LIFE = 30 * 86400.0
_ONCE_IN = 600.0
_MOST = 1000
_LONGEST = 256 * 1024


def scores(environ: Mapping[str, str], *, now: float | None = None) -> dict[str, float]:
    """How much each profile is used, above 0; empty where nothing is known."""
    moment = time.time() if now is None else now
    return {name: _faded(*pair, moment) for name, pair in _read(_path(environ)).items()}


def count(environ: Mapping[str, str], profile: str, *, now: float | None = None) -> None:
    """`profile` is used now. Never fails: a read-only or full disk keeps nobody from working."""
    moment = time.time() if now is None else now
    path = _path(environ)
    kept = _read(path)
    before, last = kept.get(profile, (0.0, 0.0))
    if 0 <= moment - last < _ONCE_IN:
        return
    kept[profile] = (_faded(before, last, moment) + 1, moment)
    if len(kept) > _MOST:
        del kept[min(kept, key=lambda name: _faded(*kept[name], moment))]
    with suppress(OSError):
        _write(path, json.dumps(kept).encode())


def _path(environ: Mapping[str, str]) -> str:
    return f"{Places(environ).state}/habits.json"


def _faded(count: float, last: float, now: float) -> float:
    return float(count * 0.5 ** (max(0.0, now - last) / _HALF_LIFE))


def _read(path: str) -> dict[str, tuple[float, float]]:
    try:
        return parsed(_bytes(path))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def parsed(raw: bytes) -> dict[str, tuple[float, float]]:
    """Profile → (count, time of its last use). Raises a builtin error for what is no such file."""
    return {str(name): _pair(*pair) for name, pair in json.loads(raw).items()}


def _pair(count: float, last: float) -> tuple[float, float]:
    if not (0 <= count < 1e9 and 0 <= last < 1e12):  # NaN and text are neither
        raise ValueError
    return float(count), float(last)


def _bytes(path: str) -> bytes:
    """Only of a plain file of ours (interface.md §1): a FIFO would not come back, a link may lead anywhere."""
    number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(number)
        foreign = found.st_uid != os.getuid() or found.st_nlink != 1 or found.st_mode & 0o022
        if foreign or not stat.S_ISREG(found.st_mode) or found.st_size > _LONGEST:
            return b"{}"
        return os.read(number, _LONGEST)
    finally:
        os.close(number)


def _write(path: str, raw: bytes) -> None:
    """Whole or not at all; into a directory that is there."""
    draft = f"{path}.{os.getpid()}"
    number = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            os.write(number, raw)
        finally:
            os.close(number)
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise
