"""The daemon threads that blocking AWS calls run on.

Rules (architecture.md §8.6)
- Threads of our own, all daemon: those of concurrent.futures are joined at exit, so one hung call would hold it.
- A call that its caller gave up is dropped: not started if it still waits for a thread, else its late answer is
  thrown away together with the secrets in it.
- An idle thread holds no reference to the last call, so that no secret outlives its use there.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

COUNT = 8


class NotDone(Exception):
    """The deadline passed; `started` tells whether a thread had taken the call up."""

    def __init__(self, *, started: bool) -> None:
        super().__init__("not done in time")
        self.started = started


class _Job(Generic[T]):
    """One call between the loop and a thread. `work` is taken exactly once, by the thread or by `drop`."""

    __slots__ = ("future", "loop", "started", "work")

    def __init__(self, work: Callable[[], T], loop: asyncio.AbstractEventLoop) -> None:
        self.work: list[Callable[[], T]] = [work]
        self.loop = loop
        self.future: asyncio.Future[T] = loop.create_future()
        self.started = False

    def take(self) -> Callable[[], T] | None:
        """The work, once; list.pop is atomic, so a thread and a drop never both get it."""
        try:
            work = self.work.pop()
        except IndexError:
            return None
        return work

    def land(self, result: T | None, error: BaseException | None) -> None:
        """On the loop: a late answer finds the future done or cancelled, and is dropped."""
        if self.future.done():
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)  # type: ignore[arg-type]  # None only where T is None


class Threads:
    """At most `count` daemon threads, made when first needed."""

    def __init__(self, *, count: int = COUNT, name: str = "aws") -> None:
        self._count = count
        self._name = name
        self._queue: queue.SimpleQueue[_Job[object]] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._busy = 0  # calls that wait for a thread or hold one; changed on the loop only

    @property
    def busy(self) -> int:
        """Calls not yet over, given up or not: with any of them, the process ends by os._exit."""
        return self._busy

    async def run(self, work: Callable[[], T], *, deadline: float) -> T:
        """What `work` returns or raises; NotDone after `deadline` seconds. Cancelling it drops the call."""
        job = _Job(work, asyncio.get_running_loop())
        self._busy += 1
        if len(self._threads) < min(self._busy, self._count):
            self._start()
        self._queue.put(job)  # type: ignore[arg-type]  # the queue does not care what comes back
        try:
            await asyncio.wait({job.future}, timeout=deadline)
        finally:
            waited = job.take() is not None
            if not job.future.done():
                job.future.cancel()
        if job.future.cancelled():
            raise NotDone(started=not waited)
        return job.future.result()

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while True:
            self._one(self._queue.get())

    def _one(self, job: _Job[object]) -> None:
        """In its own frame: when it returns, nothing of the call is left on the idle thread."""
        result: object = None
        error: BaseException | None = None
        work = job.take()
        if work is not None:
            try:
                result = work()
            except BaseException as caught:  # noqa: BLE001 - it belongs to the caller, whatever it is
                error = caught
        try:
            job.loop.call_soon_threadsafe(self._landed, job, result, error)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return

    def _landed(self, job: _Job[object], result: object, error: BaseException | None) -> None:
        self._busy -= 1
        job.land(result, error)
