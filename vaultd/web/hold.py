"""Held requests: a 200 that drips blanks while a person types the code or AWS takes its time, then keys or nothing.

Rules (interface.md §4 "Hold"; sdk-facts §5, §8.9, §8.10, §10.8)
- Held is only who bears it (model/clients.py), and only while there is something to wait for: a question that a person
  can see, or a flight that has not failed. Its time counts from the request's arrival.
- One blank at once, then one every 0.5 s for all of them by one ticker: Java gives up after 1 s without a byte.
- An end without keys is a clean one, blanks only: JS v2 never settles on a cut body, Go caches keys that are empty.
  For 10 s after it the grant's requests hear the truth at once, or JS v3 repeats the wait five times.
- A held request dies with its client, found within one tick, and nobody else notices.
- All of them are at most half of the connections, and a grant's at most half of that: beyond, one is answered at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal, Protocol

from vaultd.engine.questions import Ending
from vaultd.engine.seams import Clock
from vaultd.errors import MfaRequired, StsUnavailable, UnknownPrompt, VaultdError
from vaultd.model.clients import LONGEST, bearing

#: Seconds between two blanks; the contract allows 0.8.
TICK: Final = 0.5
#: Requests of one grant that are held at a time, where there are connections for so many.
PER_GRANT: Final = 256
#: Seconds without anybody at a question that was seen: somebody may change terminals.
UNSEEN: Final = 5.0
#: Seconds after an end without keys in which the grant's requests are not held.
REST: Final = 10.0
#: One blank as a chunk (RFC 9112 §7.1).
BLANK: Final = b"1\r\n \r\n"
#: The end of a chunked body.
END: Final = b"0\r\n\r\n"

Mode = Literal["auto", "off", "always"]

log = logging.getLogger(__name__)


def last_chunk(body: bytes) -> bytes:
    """All of `body`, and the end."""
    return b"%x\r\n%b\r\n%b" % (len(body), body, END)


class Questions(Protocol):
    """What is used of the desk."""

    def attended(self, question_id: str) -> bool:
        """A person can see it."""

    async def wait(self, question_id: str) -> Ending:
        """How it ends; raises UnknownPrompt."""


class Dripping(Protocol):
    """What is used of the connection."""

    def drip(self, chunk: bytes) -> bool:
        """Write it; False: the client is gone."""


#: Has the session made, or raises, within the seconds it is given.
Obtain = Callable[[float], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a hold ended: `error` None: the session is there. `gone`: there is nobody left to tell."""

    error: VaultdError | None = None
    gone: bool = False


@dataclass(slots=True, eq=False)
class _Held:
    line: Dripping
    side: object
    grant: str
    until: float
    error: VaultdError
    over: asyncio.Future[Literal["gone", "ended"]]
    #: The question that is waited for, and since when nobody sees it (boottime).
    question: str | None = None
    unseen: float | None = None

    def end(self, why: Literal["gone", "ended"]) -> None:
        if not self.over.done():
            self.over.set_result(why)


class Holds:
    """The owner of every held request of every listener (architecture.md §7). `longest`: `[prompt] hold_max`; `most`:
    how many may be held at a time.
    """

    def __init__(self, *, questions: Questions, clock: Clock, mode: Mode, longest: timedelta, most: int) -> None:
        self._questions = questions
        self._clock = clock
        self._mode = mode
        self._longest = min(longest, LONGEST)
        self._most = most
        self._most_of_grant = min(PER_GRANT, most // 2)
        self._held: dict[_Held, None] = {}
        self._per_grant: Counter[str] = Counter()
        self._resting: dict[str, float] = {}
        self._ticker: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._held)

    def until(
        self, error: VaultdError, *, grant: str, fields: Iterable[tuple[bytes, bytes]], arrived: float
    ) -> float | None:
        """Until when, by boottime, a request that met `error` may be held; None: it is answered at once."""
        if not self._worth(error):
            return None
        now = self._clock.boottime()
        if self._resting.get(grant, now) > now or self._full(grant):
            return None
        bears = bearing(fields).hold
        if bears is None:
            return None
        until = arrived + min(bears, self._longest).total_seconds()
        return until if until > now + TICK else None

    def _full(self, grant: str) -> bool:
        return len(self._held) >= self._most or self._per_grant[grant] >= self._most_of_grant

    def _worth(self, error: VaultdError) -> bool:
        """Somebody can answer, or AWS still may."""
        if self._mode == "off":
            return False
        if isinstance(error, MfaRequired) and (question := _question(error)):
            return self._mode == "always" or self._questions.attended(question)
        return isinstance(error, StsUnavailable) and bool(error.details.get("under_way"))

    async def hold(
        self, line: Dripping, *, side: object, grant: str, error: VaultdError, until: float, obtain: Obtain
    ) -> Ended:
        """Drip on `line`, whose head is out, until the session is there, or will not be. Raises nothing of it. `side`:
        the listener, with which it ends.
        """
        held = _Held(line, side, grant, until, error, asyncio.get_running_loop().create_future())
        work = asyncio.ensure_future(self._work(held, obtain))
        self._take_in(held)
        watched: set[asyncio.Future[Any]] = {work, held.over}
        try:
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._take_out(held)
            work.cancel()
        if held.over.done() and held.over.result() == "gone":
            return Ended(gone=True)
        return Ended(error=work.result() if work.done() else held.error)

    def rest(self, grant: str) -> None:
        """A hold of that grant ended without keys."""
        now = self._clock.boottime()
        self._resting = {key: until for key, until in self._resting.items() if until > now}
        self._resting[grant] = now + REST

    def end(self, side: object) -> None:
        """A listener stops: what it holds ends blank."""
        for held in tuple(self._held):
            if held.side is side:
                held.end("ended")

    # ---- one held request ----

    async def _work(self, held: _Held, obtain: Obtain) -> VaultdError | None:
        """Wait for what its error says is missing, then try again: None once the session is there."""
        while True:
            try:
                if (question := _question(held.error)) and await self._ending(held, question) not in {"answered", None}:
                    return held.error
                await obtain(held.until - self._clock.boottime())
            except VaultdError as exc:
                held.error = exc
                if not self._worth(exc) or self._clock.boottime() >= held.until:
                    return exc
            except Exception as exc:
                log.exception("fail hold error=%s", type(exc).__name__)
                return VaultdError("")
            else:
                return None

    async def _ending(self, held: _Held, question: str) -> Ending | None:
        """None: it ended before anybody could wait for it, no matter how: the broker knows."""
        held.question = question
        try:
            return await self._questions.wait(question)
        except UnknownPrompt:
            return None
        finally:
            held.question, held.unseen = None, None

    # ---- all of them ----

    def _take_in(self, held: _Held) -> None:
        self._held[held] = None
        self._per_grant[held.grant] += 1
        if self._ticker is None:
            self._ticker = asyncio.ensure_future(self._tick())

    def _take_out(self, held: _Held) -> None:
        del self._held[held]
        self._per_grant[held.grant] -= 1
        if not self._per_grant[held.grant]:
            del self._per_grant[held.grant]
        if not self._held and self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(TICK)
            now = self._clock.boottime()
            for held in tuple(self._held):
                self._drip(held, now)

    def _drip(self, held: _Held, now: float) -> None:
        try:
            there = held.line.drip(BLANK)
        except Exception as exc:  # one broken line must not silence the others
            log.exception("fail drip error=%s", type(exc).__name__)
            there = False
        if not there:
            held.end("gone")
        elif now + TICK >= held.until or self._deserted(held, now):  # before its time is up, not after
            held.end("ended")

    def _deserted(self, held: _Held, now: float) -> bool:
        """Whoever could have answered has left: the terminal was closed, the connection to it is gone."""
        if held.question is None or self._mode == "always" or self._questions.attended(held.question):
            held.unseen = None
        elif held.unseen is None:
            held.unseen = now
        return held.unseen is not None and now - held.unseen >= UNSEEN


def _question(error: VaultdError) -> str | None:
    prompt = error.details.get("prompt") if isinstance(error, MfaRequired) else None
    return None if prompt is None else str(prompt["id"])
