"""What the daemon says while `status --watch` looks: its events, and its status again and again, without a wait.

Rules
- A connection is read when there is something to read: a daemon that hangs keeps nobody's key from working.
- An event has the status asked for again, so has every third second; but not before it has had a rest of 0.3 s, and
  of as long as its last answer took: the loop that makes it serves SDKs.
- A daemon that is away is looked for every second.
"""

from __future__ import annotations

import select
import time

from vault_client.errors import UNREACHABLE, Refusal, Stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from vault_client.link import Connection, Link

    Body = dict[str, Any]

#: Seconds between two looks at the status: unasked, at the least, and where the daemon is away.
EVERY, _SOONEST, _AGAIN = 3.0, 0.3, 1.0
#: An answer of the control API is there at once, or something is wrong.
_HANGS = 5.0
_TICK = 1.0


def rest(took: float) -> float:
    """Seconds from an answer to the next look."""
    return max(_SOONEST, took)


class Feed:
    """Three connections at most: the events, a status that is under way, and once the log of before.

    `turn` takes what is there and gives ("status", body), ("event", body), ("past", body) and ("away", why).
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self.first: Body = link.call("GET", "/v1/status", seconds=_HANGS)
        self._stream: Connection | None = None
        self._headed = False
        self._asked: dict[str, tuple[Connection, float]] = {}
        self._status_at = time.monotonic() + EVERY
        self._stream_at = 0.0
        self._rested = 0.0
        self._late = False

    @property
    def sources(self) -> list[Connection]:
        """For select."""
        return [*([self._stream] if self._stream else []), *(each for each, _ in self._asked.values())]

    @property
    def due(self) -> float:
        """In how many seconds `turn` has something to do unasked."""
        wanted = [] if "status" in self._asked else [max(self._status_at, self._rested)]
        wanted += [] if self._stream else [self._stream_at]
        wanted += [since + _HANGS for _, since in self._asked.values() if not self._late]
        return max(0.0, min([*wanted, time.monotonic() + _TICK]) - time.monotonic())

    def turn(self, ready: Sequence[object]) -> Iterator[tuple[str, Any]]:
        """One look at each connection, and at the clock."""
        yield from self._answers(ready)
        if self._stream is not None and self._stream in ready:
            yield from self._events()
        yield from self._begin(time.monotonic())

    def _answers(self, ready: Sequence[object]) -> Iterator[tuple[str, Any]]:
        for name, (connection, since) in list(self._asked.items()):
            if connection not in ready:
                continue
            del self._asked[name]
            self._late = False
            try:
                yield name, connection.reply()
            except Stop as stop:
                yield from self._gone(stop)
            finally:
                connection.close()
                now = time.monotonic()
                self._rested = now + rest(now - since)

    def _events(self) -> Iterator[tuple[str, Any]]:
        stream = self._stream
        assert stream is not None
        try:
            if not self._headed:
                stream.events()
                self._headed = True
            while stream.pending or select.select([stream], [], [], 0)[0]:
                event = stream.event()
                if event is None or event.get("event") == "stream.cut":
                    self._drop(_AGAIN)
                    return
                self._soon()
                yield "event", event
        except Refusal:  # others follow it already: what is asked every third second tells the same, later
            self._drop(10 * EVERY)
        except (Stop, ValueError) as exc:
            self._drop(_AGAIN)
            if isinstance(exc, Stop):
                yield from self._gone(exc)

    def _soon(self) -> None:
        self._status_at = min(self._status_at, time.monotonic() + _SOONEST)

    def _drop(self, seconds: float) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream, self._headed = None, False
        self._stream_at = time.monotonic() + seconds
        self._soon()

    def _gone(self, stop: Stop) -> Iterator[tuple[str, Any]]:
        self._status_at = time.monotonic() + _AGAIN
        away = stop.exit_status == UNREACHABLE
        yield "away", "vaultd is away, and looked for every second: type `vaultd start`" if away else stop.message

    def _begin(self, now: float) -> Iterator[tuple[str, Any]]:
        try:
            if self._stream is None and now >= self._stream_at:
                self._stream_at = now + _AGAIN
                self._stream = self._link.open("GET", "/v1/events", seconds=_HANGS)
                self._ask("past", "/v1/audit?n=500", now)
            if "status" not in self._asked and now >= max(self._status_at, self._rested):
                self._status_at = now + EVERY
                self._ask("status", "/v1/status", now)
        except Stop as stop:
            yield from self._gone(stop)
        if not self._late and any(now - since >= _HANGS for _, since in self._asked.values()):
            self._late = True
            yield "away", "vaultd does not answer: type `vaultd logs` in another terminal"

    def _ask(self, name: str, path: str, now: float) -> None:
        if name not in self._asked:
            self._asked[name] = self._link.open("GET", path, seconds=_HANGS), now

    def close(self) -> None:
        """No connection stays."""
        for each in self.sources:
            each.close()
