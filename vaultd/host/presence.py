"""Whether a person is there: the machine sleeps, or the screen is locked.

Rules
- Linux asks logind (host/logind.py). macOS has no such bus: the screen is looked at every 2 s. That part is written
  from Apple's documentation and was never run: no Mac was at hand.
- On either, a sleep that nobody announced (no logind, its bus away, macOS) is seen afterwards, by the clock that counts
  it against the one that does not: within 5 s of waking, keys are gone.
- `trouble` ends in what to type, and says what does not lock meanwhile.
"""

from __future__ import annotations

import asyncio
import ctypes
import ctypes.util
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final

from vaultd.host.clock import suspended
from vaultd.host.logind import Lock, Logind
from vaultd.host.system_bus import DEFAULT_ADDRESS, Sleep

LOOK_SECONDS: Final = 5.0
SCREEN_SECONDS: Final = 2.0
#: The two clocks are read one after the other; a sleep is longer than that.
_LEAST: Final = 1.0


class Presence:
    """`run` for as long as the daemon runs. `slept` and `platform` are the machine's; a test has its own."""

    def __init__(
        self,
        *,
        lock: Lock,
        sleep: Sleep,
        suspend: bool,
        screen: bool,
        address: str = DEFAULT_ADDRESS,
        slept: Callable[[], float] = suspended,
        platform: str = sys.platform,
        screen_locked: Callable[[], bool] | None = None,
    ) -> None:
        self._lock = lock
        self._sleep = sleep
        self._suspend = suspend
        self._screen = screen
        self._slept = slept
        self._screen_locked = screen_locked or mac_screen_locked
        self.logind = (
            Logind(lock=lock, woken=self._woken, sleep=sleep, address=address, suspend=suspend, screen=screen)
            if platform == "linux"
            else None
        )
        self._asleep_so_far = slept()

    @property
    def trouble(self) -> tuple[str, ...]:
        """What does not lock, and why."""
        if self.logind is None or not self.logind.trouble:
            return ()
        late = ["keys are forgotten only after the machine woke"] if self._suspend else []
        never = ["a locked screen locks nothing"] if self._screen else []
        what = " and ".join([*late, *never])
        remedy = "type `loginctl` to see what it says, or `vault-client lock` before you leave"
        return (f"{self.logind.trouble}, so {what}: {remedy}",)

    async def run(self) -> None:
        """Until cancelled."""
        parts: list[Coroutine[Any, Any, None]] = []
        if self._suspend:
            parts.append(self._watch_clocks())
        if self.logind is not None:
            parts.append(self.logind.run())
        elif self._screen:
            parts.append(self._watch_screen())
        async with asyncio.TaskGroup() as tasks:
            for part in parts:
                tasks.create_task(part)

    def _woken(self) -> None:
        """It was announced, and dealt with."""
        self._asleep_so_far = self._slept()

    async def _watch_clocks(self) -> None:
        while True:
            await self._sleep(LOOK_SECONDS)
            before, self._asleep_so_far = self._asleep_so_far, self._slept()
            if self._asleep_so_far - before >= _LEAST:
                await self._lock("suspend")

    async def _watch_screen(self) -> None:
        before = await asyncio.to_thread(self._screen_locked)
        while True:
            await self._sleep(SCREEN_SECONDS)
            now = await asyncio.to_thread(self._screen_locked)
            if now and not before:
                await self._lock("screen")
            before = now


def mac_screen_locked() -> bool:
    """`CGSSessionScreenIsLocked` of the window server's session; False where there is none (ssh, a daemon at boot)."""
    graphics = ctypes.CDLL(ctypes.util.find_library("CoreGraphics"))
    core = ctypes.CDLL(ctypes.util.find_library("CoreFoundation"))
    graphics.CGSessionCopyCurrentDictionary.restype = ctypes.c_void_p
    core.CFStringCreateWithCString.restype = ctypes.c_void_p
    core.CFStringCreateWithCString.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32)
    core.CFDictionaryGetValue.restype = ctypes.c_void_p
    core.CFDictionaryGetValue.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    core.CFBooleanGetValue.restype = ctypes.c_bool
    core.CFBooleanGetValue.argtypes = (ctypes.c_void_p,)
    core.CFRelease.argtypes = (ctypes.c_void_p,)
    session = graphics.CGSessionCopyCurrentDictionary()
    if not session:
        return False
    name = core.CFStringCreateWithCString(None, b"CGSSessionScreenIsLocked", 0x0600)  # kCFStringEncodingASCII
    value = core.CFDictionaryGetValue(session, name)
    locked = bool(value) and bool(core.CFBooleanGetValue(value))
    core.CFRelease(name)
    core.CFRelease(session)
    return locked
