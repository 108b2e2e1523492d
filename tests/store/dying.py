"""Kill a process at every system call of a piece of work, one call later each time."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from vaultd.files import Files


def killed_at(point: int, work: Callable[[Files], None]) -> bool:
    """Run `work` in a child that SIGKILLs itself before its `point`-th system call; False when it got through."""
    if child := os.fork():
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            return True
        assert os.waitstatus_to_exitcode(status) == 0, "the work itself failed"
        return False
    calls = 0

    def die(operation: str, path: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == point:
            os.kill(os.getpid(), signal.SIGKILL)

    outcome = 1
    try:
        work(Files(fault=die, chunk=16))  # small chunks: a kill lands inside a write, too
        outcome = 0
    finally:
        os._exit(outcome)


def every_death(work: Callable[[Files], None]) -> Iterator[int]:
    """Yield after each death of `work`, at its first, second, … system call; ends when it survives."""
    point = 1
    while killed_at(point, work):
        yield point
        point += 1
