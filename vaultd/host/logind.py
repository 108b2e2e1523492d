"""What systemd-logind says of this user: the machine is about to sleep, a screen was locked.

Rules
- Before a sleep the machine is held up (a `delay` inhibitor) until `lock` has returned, and no longer: the inhibitor is
  let go however that ends. It is taken anew after each sleep, and when logind was started anew.
- A screen counts that belongs to the session which the daemon runs in; where it runs in none (a systemd user service,
  most terminals of a desktop) or that session has ended, any of this user. GNOME and KDE lock by themselves and then
  set LockedHint, without logind's `Lock`: either counts. `Unlock` opens nothing: that is what `vault-client unlock` is.
- A screen that was locked while the bus was away counts when it is back. What cannot be judged, counts.
- Only logind's own signals do: any process may send us one, and the bus says whose it is.
- A bus that is not there or goes, and a logind that refuses or never answers, are `trouble`, and tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Literal

from vaultd.host.system_bus import THE_BUS, Bus, BusError, Signal, Sleep, Target, close_all, ended

NAME: Final = "org.freedesktop.login1"
MANAGER: Final = Target(NAME, "/org/freedesktop/login1", "org.freedesktop.login1.Manager")
SESSION: Final = "org.freedesktop.login1.Session"
SESSIONS: Final = "/org/freedesktop/login1/session"
PROPERTIES: Final = "org.freedesktop.DBus.Properties"
#: Between tries to reach the bus, and between tries at a logind that did not do what it was asked.
FIRST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 30.0

log = logging.getLogger(__name__)

Why = Literal["suspend", "screen"]
#: Forgets everything; returns once that is acknowledged, and never raises.
Lock = Callable[[Why], Awaitable[None]]


class Logind:
    """`run` for as long as the daemon runs; `woken` is called after each sleep. `trouble`: what keeps it."""

    def __init__(
        self, *, lock: Lock, woken: Callable[[], None], sleep: Sleep, address: str, suspend: bool, screen: bool
    ) -> None:
        self._lock = lock
        self._after = woken
        self._sleep = sleep
        self._address = address
        self._suspend = suspend
        self._screen = screen
        self.trouble = ""
        self._bus: Bus
        self._owner = ""
        self._inhibitor: Any = None
        self._asleep = False
        self._own: str | None = None
        self._mine: set[str] = set()
        #: Whose LockedHint is set, as it was last heard; None: never.
        self._locked: set[str] | None = None
        self._work: set[asyncio.Task[None]] = set()

    @property
    def holding(self) -> bool:
        """An inhibitor is held: a sleep waits for us."""
        return self._inhibitor is not None

    async def run(self) -> None:
        """Follow logind until cancelled, through every loss of it."""
        wait = FIRST_WAIT
        try:
            while True:
                try:
                    bus = await Bus.connect(self._address, on_signal=self._heard, hears=self._hears, sleep=self._sleep)
                    wait = FIRST_WAIT
                    await self._follow(bus)
                except BusError as exc:
                    self._lose(f"the system bus cannot be used: {exc}")
                await self._sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)
        finally:
            self._release()
            for task in self._work:
                task.cancel()

    async def _follow(self, bus: Bus) -> None:
        """Until the connection is lost, which raises BusError."""
        try:
            self._bus, self._asleep = bus, False
            await self._subscribe(bus)
            while not bus.lost.done():
                await self._begin()
                with contextlib.suppress(TimeoutError):
                    await ended(asyncio.shield(bus.lost), sleep=self._sleep, seconds=LONGEST_WAIT)
            raise BusError(bus.lost.result())
        finally:
            bus.close()
            self._owner = ""
            self._release()

    async def _subscribe(self, bus: Bus) -> None:
        await bus.subscribe(sender=THE_BUS.name, interface=THE_BUS.interface, member="NameOwnerChanged", arg0=NAME)
        await bus.subscribe(sender=NAME, interface=MANAGER.interface, path=MANAGER.path)
        if self._screen:
            await bus.subscribe(sender=NAME, interface=SESSION, path_namespace=SESSIONS)
            await bus.subscribe(sender=NAME, interface=PROPERTIES, path_namespace=SESSIONS)
        with contextlib.suppress(BusError):  # nobody has the name yet: the bus will tell who takes it
            (self._owner,) = await bus.call(THE_BUS, "GetNameOwner", "s", NAME)

    # ---- what is asked of logind ----

    async def _begin(self) -> None:
        """Ask for what is not there yet; told by `trouble`, and asked again, when logind does not give it."""
        try:
            if self._suspend and not self._asleep and self._inhibitor is None:
                await self._inhibit()
            if self._screen:
                await self._look()
        except BusError as exc:
            self._lose(f"systemd-logind cannot be used: {exc}")
        else:
            if self.trouble:
                log.info("follow logind")
            self.trouble = ""

    async def _inhibit(self) -> None:
        (held,) = await self._bus.call(
            MANAGER, "Inhibit", "ssss", "sleep", "vaultd", "forgets keys before the machine sleeps", "delay"
        )
        if self._asleep or self._inhibitor is not None:  # taken too late, or twice
            close_all([held])
            return
        self._inhibitor = held

    async def _look(self) -> None:
        """Which sessions are ours, and whether one of them was locked while nobody told us."""
        own = await self._own_session()
        (rows,) = await self._bus.call(MANAGER, "ListSessions")
        mine = {path for _, uid, _, _, path in rows if uid == os.getuid()}
        self._own = own if own in mine else None
        self._mine = mine if self._own is None else {self._own}
        now = {path for path in self._mine if await self._hint(path)}
        before, self._locked = self._locked, now
        if before is not None and now - before:
            await self._lock("screen")

    async def _own_session(self) -> str | None:
        try:
            (path,) = await self._bus.call(MANAGER, "GetSessionByPID", "u", os.getpid())
        except BusError as exc:
            if exc.name:  # an answer: it is in none
                return None
            raise
        return str(path)

    async def _hint(self, path: str) -> bool:
        try:
            ((_, hint),) = await self._bus.call(Target(NAME, path, PROPERTIES), "Get", "ss", SESSION, "LockedHint")
        except BusError as exc:
            if exc.name:  # it has ended meanwhile, or this logind knows no hint
                return False
            raise
        return bool(hint)

    # ---- what it says ----

    def _hears(self, sender: str) -> bool:
        return bool(sender) and sender == self._owner

    def _heard(self, signal: Signal) -> None:
        if signal.sender == THE_BUS.name:
            self._owned(signal)
        elif signal.sender == self._owner and signal.interface == MANAGER.interface:
            self._managed(signal)
        elif signal.sender == self._owner:
            self._sessioned(signal)

    def _owned(self, signal: Signal) -> None:
        if signal.member != "NameOwnerChanged" or signal.body[0] != NAME:
            return
        self._owner, self._asleep = str(signal.body[2]), False
        self._release()
        if self._owner:
            self._do(self._begin())
        else:
            self._lose("systemd-logind has ended")

    def _managed(self, signal: Signal) -> None:
        if signal.member == "PrepareForSleep" and self._suspend:
            self._do(self._sleeping() if signal.body[0] else self._woken())
        elif signal.member in {"SessionNew", "SessionRemoved"} and self._screen:
            self._do(self._begin())

    def _sessioned(self, signal: Signal) -> None:
        if signal.member == "Lock":
            self._do(self._screen_locked(signal.path))
        elif signal.member == "PropertiesChanged" and signal.body[0] == SESSION and "LockedHint" in signal.body[1]:
            self._hinted(signal.path, locked=bool(signal.body[1]["LockedHint"][1]))

    def _hinted(self, path: str, *, locked: bool) -> None:
        known = self._locked or set()
        self._locked = known | {path} if locked else known - {path}
        if locked:
            self._do(self._screen_locked(path))

    async def _sleeping(self) -> None:
        self._asleep = True
        try:
            await self._lock("suspend")
        finally:
            self._release()

    async def _woken(self) -> None:
        told, self._asleep = self._asleep, False
        if not told:  # it slept, and nobody said so before
            await self._lock("suspend")
        self._after()
        await self._begin()

    async def _screen_locked(self, path: str) -> None:
        if path in self._mine or not await self._is_anothers(path):
            await self._lock("screen")

    async def _is_anothers(self, path: str) -> bool:
        """Another user's session, or not the one that we run in."""
        if self._own is not None:
            return True
        try:
            ((_, (uid, _)),) = await self._bus.call(Target(NAME, path, PROPERTIES), "Get", "ss", SESSION, "User")
        except (BusError, ValueError, TypeError):
            return False
        return bool(uid != os.getuid())

    # ---- within ----

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._work.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.error("fail logind-signal error=%s", type(exc).__name__, exc_info=exc)

    def _release(self) -> None:
        held, self._inhibitor = self._inhibitor, None
        close_all([held])

    def _lose(self, why: str) -> None:
        if why != self.trouble:
            log.warning("lose logind reason=%s", why)
        self.trouble = why
