"""`python -m tests.promises.reaped SECONDS COMMAND…`: runs a command, and leaves no process of it behind.

Rule: this process adopts whatever the command's processes orphan (daemons of the tests, their keepers) and ends all of
it, by pid, when the command is done, over its time, or this process is told to end. Exit status: the command's, or
OVERDUE. A broken program may not stop when asked: that is why nothing here asks.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

#: No status of pytest's (0 to 5).
OVERDUE: Final = 124
_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


def main(argv: list[str]) -> int:
    seconds, command = float(argv[0]), argv[1:]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        libc.prctl(_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(OVERDUE))
    process = subprocess.Popen(command, start_new_session=True)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return OVERDUE
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """The command's session, then every process that became our child, until there is none."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    while found := _children():
        for pid in found:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _children() -> list[int]:
    if sys.platform != "linux":
        return []
    task = Path(f"/proc/self/task/{os.getpid()}/children")
    return [int(each) for each in task.read_text().split()]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
