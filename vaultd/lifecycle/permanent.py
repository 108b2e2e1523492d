"""The permanent tasks of a daemon, and what ends them: a signal, `stop`, or the death of one of them.

Rule: one dead, all dead (architecture.md §8.7), and a task that comes to an end is as dead as one that fails.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from vaultd.errors import VaultdError

_CAUGHT: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


def catch_signals(*, stop: Callable[[], object], lock: Callable[[], object]) -> None:
    """On the running loop, until `let_signals_go`."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)  # a closed terminal is no reason to end
    loop.add_signal_handler(signal.SIGUSR1, lock)  # drop all, as ssh-agent does (security.md §2.2 item 27)


def let_signals_go() -> None:
    """Each does what it does to any process."""
    for number in _CAUGHT:
        asyncio.get_running_loop().remove_signal_handler(number)


async def tend(stopping: asyncio.Event, work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Until `stopping`; raises the group of what one of them died of."""
    async with asyncio.TaskGroup() as tasks:
        permanent = [tasks.create_task(_for_ever(each)) for each in work]
        await stopping.wait()
        for task in permanent:
            task.cancel()


async def _for_ever(work: Coroutine[Any, Any, None]) -> None:
    await work
    raise AssertionError(f"the permanent task {work!r} has ended")


def why(exc: BaseException) -> str:
    """Of the daemon's end, for the audit line; a permanent task that died of an error of ours says it itself."""
    first = exc.exceptions[0] if isinstance(exc, BaseExceptionGroup) else exc
    return first.message if isinstance(first, VaultdError) else f"died of {type(exc).__name__}: see `vaultd logs`"
