"""What a command of `vaultd` learns of the daemon of this home: by its socket, its lock, its files.

Rule: nothing here starts, stops or prints. It loads nothing that is slow, because `status` is typed often.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vault_client.errors import UNREACHABLE, Refusal, Stop
from vault_client.link import Link
from vault_client.places import Places
from vaultd.command import own_unit
from vaultd.command.own_unit import OwnUnit

#: How long a command waits for the first answer of a daemon that holds the lock.
ANSWER_SECONDS = 3.0


def places() -> Places:
    """Of this home."""
    return Places(os.environ)


def answer() -> dict[str, Any] | None:
    """The daemon's status as it gives it, or None when none runs; none is started by the question."""
    if asleep() is not None:
        return None
    try:
        body: dict[str, Any] = Link(places()).call("GET", "/v1/status", seconds=5)
    except Stop as stopped:
        if isinstance(stopped, Refusal) or stopped.exit_status != UNREACHABLE:
            raise
        return None
    return body


def asleep() -> OwnUnit | None:
    """The units that hold the sockets while no daemon runs, so that a connection would start one."""
    unit = own_unit.find()
    return unit if unit is not None and unit.asleep() else None


def heard(seconds: float = ANSWER_SECONDS) -> dict[str, Any] | None:
    """The same, waited for where a daemon holds the lock: it may be just starting."""
    return answer() or (first_answer(seconds) if held() else None)


def first_answer(seconds: float) -> dict[str, Any] | None:
    """What the daemon that holds the lock says, once it serves."""
    end = time.monotonic() + seconds
    while (running := answer()) is None and time.monotonic() < end:
        time.sleep(0.1)
    return running


def held() -> bool:
    """Whether a daemon holds this home's lock."""
    try:
        with Path(places().socket).with_name("vaultd.lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def pid() -> int | None:
    """Of the daemon that holds this home's state, heard or not, as far as it says."""
    from vaultd.lifecycle.holding import holder_of

    holder = holder_of(Path(places().state))
    return None if holder is None else holder.pid


def silent(remedy: str = "type `vaultd stop`") -> str:
    """Of the daemon that holds the lock and was not heard, and what to type; `{pid}` is its own. Empty: none."""
    if not held():
        return ""
    from vaultd.lifecycle.holding import holder_of

    holder = holder_of(Path(places().state))
    if holder is None:  # what says its pid was removed
        return f"vaultd runs but does not answer: end the process that `fuser {places().run}/vaultd.lock` names"
    return holder.silent(remedy.format(pid=holder.pid))


@contextlib.contextmanager
def watched(pid: int) -> Iterator[Any]:
    """A function that waits for the end of `pid`, by pidfd where the system has one."""
    if not hasattr(os, "pidfd_open"):
        yield lambda seconds: polled_end(pid, seconds)
        return
    descriptor = os.pidfd_open(pid)
    try:
        yield lambda seconds: bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


def polled_end(pid: int, seconds: float) -> bool:
    """Whether `pid` ends within `seconds`, where there is no pidfd."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def elsewhere() -> str:
    """The daemon of this state directory that another run directory hides from us, and what to type; empty: none."""
    here = places()
    if not Path(here.state, "running.json").exists():
        return ""
    from vaultd.lifecycle.holding import holder_of

    holder = holder_of(Path(here.state))
    return holder.told(Path(here.run)) if holder is not None and holder.run != Path(here.run) else ""
