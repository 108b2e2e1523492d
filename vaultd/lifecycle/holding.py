"""One daemon a home: the locks that it holds, and how another process learns which daemon that is.

Rules
- Both locks are taken, the one in the run directory and the one in the state directory: the first depends on
  XDG_RUNTIME_DIR, which a login has and cron or su have not, and two daemons on one audit chain and store end both.
- `running.json` beside the second says who holds it: boot, pid, start time, run directory. It is believed of a process
  that still lives, and stays when that ends: a stop that frees the last page of a full disk would let a start begin.
  Nobody tries a lock to find out, since a daemon that is just starting would find it taken.
"""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from vaultd.errors import Unwritable
from vaultd.files import Files
from vaultd.flock import Lock
from vaultd.host import processes
from vaultd.layout import Layout


def state_lock(layout: Layout) -> Path:
    """Held beside `Layout.lock_file`; stands where the audit chain and the store's index are."""
    return layout.state / "vaultd.lock"


def running_json(state: Path) -> Path:
    """{boot, pid, started, run} of the daemon that holds the state directory."""
    return state / "running.json"


@dataclass(frozen=True, slots=True)
class Holder:
    """The daemon that holds a state directory."""

    pid: int
    run: Path

    def silent(self, remedy: str = "type `vaultd stop`") -> str:
        """The one sentence for a daemon that lives and was not heard, and what to type."""
        return f"vaultd (pid {self.pid}) runs but does not answer: {remedy}"

    def told(self, run: Path) -> str:
        """Why one whose run directory would be `run` does not reach it, and what to type."""
        if self.run == run or not (self.run / "control.sock").exists():
            return (
                f"your vaultd (pid {self.pid}) still runs, but its directory {self.run} was removed or its socket is "
                f"gone: type `kill {self.pid}`, then `vaultd start`"
            )
        said = f"your vaultd (pid {self.pid}) runs with another XDG_RUNTIME_DIR"
        if self.run.name == "vaultd":
            value = str(self.run.parent)
            return f"{said}, {value}: type `export XDG_RUNTIME_DIR={shlex.quote(value)}`, then the same again"
        return f"{said}, unset, so that its files are in {self.run}: type `unset XDG_RUNTIME_DIR`, then the same again"


class Hold:
    """Both locks; raises Unwritable (`held`: by a daemon of the same run directory, which `vaultd status` reaches)."""

    def __init__(self, files: Files, layout: Layout) -> None:
        self._locks = _both(files, layout)
        pid = os.getpid()
        mine = {"boot": processes.boot_id(), "pid": pid, "started": processes.start_time(pid), "run": str(layout.run)}
        files.replace(running_json(layout.state), json.dumps(mine).encode())

    def release(self) -> None:
        """Let the next daemon in."""
        for lock in self._locks:
            lock.release()


def _both(files: Files, layout: Layout) -> tuple[Lock, Lock]:
    first = files.lock(layout.lock_file)
    if first is None:
        raise Unwritable(f"another vaultd holds {layout.lock_file}: type `vaultd status`", held=True)
    second = files.lock(state_lock(layout))
    if second is None:
        first.release()
        holder = holder_of(layout.state)
        if holder is None:
            raise Unwritable(f"another vaultd holds {state_lock(layout)}: type `vaultd status` in its session")
        raise Unwritable(holder.told(layout.run))
    return first, second


def holder_of(state: Path) -> Holder | None:
    """Who holds the state directory, as far as it says; None for one that is gone."""
    try:
        found = json.loads(running_json(state).read_bytes())
        boot, pid, started, run = found["boot"], int(found["pid"]), found["started"], Path(found["run"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    lives = _lives(pid) if started is None else processes.alive(pid, started)
    return Holder(pid, run) if lives and boot == processes.boot_id() else None


def _lives(pid: int) -> bool:
    """Where the system tells no start time."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
