"""The life of the keeper's process: started, greeted, found dead or hung, replaced, ended with the daemon.

Rules (architecture.md §6.7, §7)
- A dead keeper is started again at once, and whoever waited for it is told (calls.py).
- Until the new one was opened again as far as it goes without a person, calls wait for that (`watch`), 10 s at most.
- A keeper that dies five times in a minute is lost: every call says so, and `watch` ends the daemon.
- One that somebody has given up on must say that it is there; one that says nothing, or nonsense, is killed.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from vaultd.errors import KeeperEnded, VaultdError
from vaultd.keeper import wire
from vaultd.keeper.calls import Calls, copied, ended
from vaultd.keeper.line import Line

#: How long a call waits for a keeper that was started again.
REOPEN_SECONDS = 10.0
#: Of a process that says nothing at all, once somebody had given up on it.
HUNG_SECONDS = 20.0
#: How long a keeper that was let go may take to end; and, on the loop, one whose end of the line is closed already.
END_SECONDS, DYING_SECONDS = 3.0, 0.2
#: So many deaths within so long a time are no accident.
DEATHS, DEATHS_SECONDS = 5, 60.0

_LOST = f"vaultd's keeper process ended {DEATHS} times within a minute"

log = logging.getLogger(__name__)


class Child(Protocol):
    """A keeper process that was just started, with the daemon's end of the socketpair to it."""

    @property
    def sock(self) -> socket.socket:
        """Its first frame was sent already."""

    @property
    def pid(self) -> int:
        """Of the process."""

    def kill(self) -> None:
        """SIGKILL."""

    def end(self, *, patience: float) -> str:
        """Wait so many seconds for its end, then kill it; how it ended, in words (`killed by SIGKILL`)."""


class Life:
    """`spawn` starts a process; the first is started by the constructor, before there is a loop.

    `take` gets what comes up and is not of its life; it raises Malformed for nonsense.
    """

    def __init__(self, spawn: Callable[[], Child], *, calls: Calls, take: Callable[[wire.Message], None]) -> None:
        self._spawn = spawn
        self._calls = calls
        self._take = take
        self._child: Child | None = spawn()
        self._line: Line | None = None
        self._was_open = False
        self._ending = False
        self._died: deque[float] = deque(maxlen=DEATHS)
        self._deaths: list[str] = []
        self._news: asyncio.Future[None] | None = None
        self._reopening: asyncio.Future[None] | None = None
        self._lost: VaultdError | None = None
        self._proving = False
        self.hello: wire.Hello | None = None
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """Of the process that is there now."""
        return None if self._child is None else self._child.pid

    @property
    def lost(self) -> bool:
        """There is no keeper, and there will be none."""
        return self._lost is not None

    @property
    def over(self) -> bool:
        """Lost, or ended with the daemon: there is no other one that a call could be said to again."""
        return self._ending or self._lost is not None

    def line(self) -> Line:
        """To the process that is there now; raises where there is none."""
        if self._lost is not None:
            raise copied(self._lost)
        if self._child is None:
            raise KeeperEnded("vaultd stops: type `vaultd start`", code_sent=False)
        return self._attached(self._child)

    def was_opened(self) -> None:
        """Whoever waits for that goes on; and the next one is to be opened, too."""
        self._was_open = True
        self._settle()

    def was_closed(self) -> None:
        """The next one is waited for by nobody."""
        self._was_open = False

    async def reopened(self) -> None:
        """While a new keeper is being opened: wait for it."""
        if self._reopening is not None:
            done, _ = await asyncio.wait({self._reopening}, timeout=REOPEN_SECONDS)
            if not done:
                raise ended("was started again, and its store is not open yet", code=False)

    async def watch(self, reopen: Callable[[str], Awaitable[None]]) -> None:
        """For ever: `reopen` after each death, told how it died. Raises once the keeper is lost."""
        while True:
            if self._lost is not None:
                raise self._lost
            if not self._deaths:
                self._news = asyncio.get_running_loop().create_future()
                await self._news
                continue
            said = "; ".join(self._deaths)
            self._deaths.clear()
            try:
                await reopen(said)
            finally:
                if not self._deaths:
                    self._settle()

    async def end(self) -> None:
        """The process ends: by the end of the socketpair, and by force where that does not do."""
        self._ending = True
        child, self._child = self._child, None
        if self._line is not None:
            self._line.close()
        self._calls.fail(KeeperEnded("vaultd stops: type `vaultd start`"))
        if child is not None:
            child.sock.close()
            said = await asyncio.to_thread(child.end, patience=END_SECONDS)
            log.info("end keeper pid=%d how=%r", child.pid, said)

    # ---- given up ----

    def prove_life(self) -> None:
        """Whoever gave up may have waited for a process that hangs, and the deadline of his call went with him."""
        child, line = self._child, self._line
        if child is None or line is None or self._proving:
            return
        self._proving = True
        line.send({"ping": True})
        asyncio.get_running_loop().call_later(HUNG_SECONDS, self._proved, child)

    def _proved(self, child: Child) -> None:
        if self._proving and child is self._child:
            self.hung("ping")
        self._proving = False

    def hung(self, name: str) -> None:
        """Or worse: it is of no use any more, and its end brings another one."""
        log.error("kill keeper pid=%s call=%s", self.pid, name)
        if self._child is not None:
            self._child.kill()

    # ---- what comes up ----

    def _attached(self, child: Child) -> Line:
        if self._line is None:
            self._line = Line(child.sock, take=self._heard, gone=self._gone)
        return self._line

    def _heard(self, message: wire.Message) -> None:
        self._proving = False
        if "hello" in message:
            self._greeted(wire.unpacked(wire.Hello, message["hello"]))
        elif "pong" not in message:
            self._take(message)

    def _greeted(self, hello: wire.Hello) -> None:
        self.hello = hello
        if hello.refused:
            self._lose(hello.refused)
            return
        log.info("start keeper pid=%d dumpable=%s", hello.pid, hello.dumpable)

    def _gone(self, nonsense: bool) -> None:
        """The other end is closed, or talks nonsense: that one is over."""
        child, self._child, self._line = self._child, None, None
        if child is None or self._ending:
            return
        if nonsense:
            child.kill()
        said = child.end(patience=DYING_SECONDS)
        said = f"talking nonsense and was {said}" if nonsense else said
        log.error("die keeper pid=%d how=%r calls=%d", child.pid, said, len(self._calls))
        if self._lost is None and not self._replaced(said):
            self._lose(f"{_LOST}, at last {said}: type `vaultd logs`, then `vaultd start`")
        self._calls.fail(self._lost or ended(f"was {said}, and another one has been started", code=False))
        self._deaths.append(said)
        self._told()

    def _replaced(self, said: str) -> bool:
        """A new one in its place, unless too many have died."""
        now = time.monotonic()
        self._died.append(now)
        if len(self._died) == DEATHS and now - self._died[0] < DEATHS_SECONDS:
            return False
        try:
            self._child = self._spawn()
        except OSError as exc:
            self._lose(f"vaultd's keeper was {said}, and none can be started ({exc.strerror}): type `vaultd restart`")
            return True
        self.restarts += 1
        self.hello = None
        if self._was_open and self._reopening is None:
            self._reopening = asyncio.get_running_loop().create_future()
        self._attached(self._child)
        return True

    def _settle(self) -> None:
        reopening, self._reopening = self._reopening, None
        if reopening is not None and not reopening.done():
            reopening.set_result(None)

    def _lose(self, why: str) -> None:
        self._lost = VaultdError(why)
        self._settle()
        self._told()

    def _told(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
