"""Our own daemon threads: deadlines, dropped calls, nothing kept, nothing that holds the exit up."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import weakref

import pytest

from vaultd.aws.threads import NotDone, Threads


class Answer:
    """Something that can be seen to be gone."""


async def until(condition: object, loop_turns: int = 2000) -> None:
    """Let threads land: turns of the loop, each at most a millisecond."""
    assert callable(condition)
    for _ in range(loop_turns):
        if condition():
            return
        await asyncio.wait({asyncio.ensure_future(asyncio.sleep(0.001))})
    raise AssertionError("it never came")


async def test_results_and_errors_come_back() -> None:
    """As they are."""
    threads = Threads()

    assert await threads.run(lambda: 7, deadline=5) == 7
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0, deadline=5)
    assert threads.busy == 0


async def test_at_most_eight_at_once() -> None:
    """architecture.md §8.6; the ninth waits, and all are daemons of ours."""
    threads, gate, seen = Threads(), threading.Event(), set()

    def work() -> None:
        seen.add(threading.current_thread())
        gate.wait(5)

    calls = [asyncio.create_task(threads.run(work, deadline=5)) for _ in range(9)]
    await until(lambda: len(seen) == 8)
    gate.set()
    await asyncio.gather(*calls)

    assert len(seen) == 8
    assert all(thread.daemon for thread in seen)


async def test_one_thread_is_enough_for_one_call_after_another() -> None:
    """Threads are made when needed."""
    threads = Threads()
    for _ in range(5):
        await threads.run(lambda: None, deadline=5)

    assert len(threads._threads) == 1


async def test_the_deadline_tells_whether_it_had_begun() -> None:
    """A call that no thread took up is never made: its code has not left."""
    threads, gate = Threads(count=1), threading.Event()
    ran: list[int] = []
    with pytest.raises(NotDone) as hung:
        await threads.run(lambda: gate.wait(5), deadline=0.05)
    with pytest.raises(NotDone) as queued:
        await threads.run(lambda: ran.append(1), deadline=0.05)

    assert (hung.value.started, queued.value.started) == (True, False)
    assert threads.busy == 2
    gate.set()
    await until(lambda: threads.busy == 0)
    assert ran == []


async def test_a_cancelled_call_is_dropped_with_its_answer() -> None:
    """The late answer reaches nobody and nothing holds it."""
    threads, gate, begun = Threads(), threading.Event(), threading.Event()
    answers: list[weakref.ref[Answer]] = []

    def work() -> Answer:
        begun.set()
        gate.wait(5)
        answer = Answer()
        answers.append(weakref.ref(answer))
        return answer

    call = asyncio.create_task(threads.run(work, deadline=5))
    await until(begun.is_set)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    gate.set()
    await until(lambda: threads.busy == 0)

    gc.collect()
    assert answers[0]() is None


async def test_an_idle_thread_holds_nothing() -> None:
    """Neither the work, whose closure has keys, nor its answer."""
    threads = Threads()
    key = Answer()
    gone = weakref.ref(key)

    async def once(secret: Answer) -> None:
        await threads.run(lambda: secret, deadline=5)

    await once(key)
    del key
    gc.collect()
    await until(lambda: gone() is None)


def test_a_hung_call_does_not_hold_the_exit_up() -> None:
    """With concurrent.futures' pool this process would wait for its thread; with ours it ends."""
    code = (
        "import asyncio, threading\n"
        "from vaultd.aws.threads import Threads, NotDone\n"
        "async def main():\n"
        "    try:\n"
        "        await Threads().run(lambda: threading.Event().wait(), deadline=0.05)\n"
        "    except NotDone:\n"
        "        print('left')\n"
        "asyncio.run(main())\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)

    assert (done.stdout, done.stderr) == ("left\n", "")
