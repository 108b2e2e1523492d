"""The audit log: what was served, denied, renewed and asked, one chained line each (interface.md §8).

Rules
- Nothing here fails its caller: a line that cannot be written is counted in `lost`, and the chain goes on without it.
- Serves are noted after their bytes went out. By one grant to one process within 10 s they are one line with `count`;
  so are denials for one reason to one user, so that a flood cannot fill the disk.
- A process is looked up in a thread, at most five times a second; past that, and for a client that is gone, `peer.pid`
  is null (architecture.md §5: not inside a 25 µs guard).
- A value that is not plain text, number, time or Peer is written as its type's name: a Secret that strays in here stays
  secret. Of an access key id the last 4 characters are kept, whatever is passed.
- fdatasync for unlock, `identity.add` and what the caller calls a consent only (security.md §2.2 item 28).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from vaultd.engine import audit_chain
from vaultd.engine.audit_chain import FIELDS, FIRST
from vaultd.engine.audit_proof import verify
from vaultd.engine.grant_records import Grant, peer_wire
from vaultd.engine.seams import Clock, Head
from vaultd.engine.sightings import Looks, Sighting
from vaultd.errors import TooManyReaders, Unwritable, VaultdError
from vaultd.files import Files
from vaultd.model.credentials import RoleSession
from vaultd.model.dialects import stamp
from vaultd.model.peer import Peer
from vaultd.model.text import shown

__all__ = ["Audit", "Sighting", "Subscription", "verify"]

WINDOW = 10.0
#: A short-lived client is looked up at once; after that, new ones are taken together.
PAUSE = 0.1
#: New connections come in thousands a second: others get the loop after so many (0.3 ms).
TURN = 64
#: Denials of more kinds than this in one window share a line: the kinds are the attacker's choice.
MOST_DENIALS = 64
BACKLOG = 1000
#: Each keeps a connection of the control socket, which has 32: the other half is for commands.
READERS = 16
_SYNCED = {"unlock", "identity.add"}

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Window:
    """Serves or denials that become one line. `opened` is boottime."""

    opened: float
    time: datetime
    fields: dict[str, Any]
    sighting: Sighting
    count: int = 1


class Subscription:
    """The events from now on, each a dict of one line. A reader that falls 1,000 behind is `cut`: it gets those, and
    no more; `on_cut` is told.
    """

    def __init__(self, leave: Callable[[Subscription], None], on_cut: Callable[[], object] | None = None) -> None:
        self.cut = False
        self._events: deque[dict[str, Any]] = deque()
        self._arrived = asyncio.Event()
        self._leave = leave
        self._on_cut = on_cut
        self._closed = False

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> dict[str, Any]:
        while not self._events:
            if self._closed:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        return self._events.popleft()

    def close(self) -> None:
        """No more events; whoever waits for one is told."""
        self._closed = True
        self._leave(self)
        self._arrived.set()

    def put(self, event: dict[str, Any]) -> None:
        """For Audit: one more event."""
        if len(self._events) < BACKLOG:
            self._events.append(event)
            self._arrived.set()
            return
        self.cut = True
        self.close()
        if self._on_cut is not None:
            self._on_cut()


class Audit:
    """The chain's one writer. `look` finds a process (blocking, called in a thread); `redact` cleans free text."""

    def __init__(
        self,
        *,
        files: Files,
        path: Path,
        clock: Clock,
        max_bytes: int,
        keep: int,
        look: Callable[[Sighting], Peer | None] | None,
        redact: Callable[[str], str] = shown,
    ) -> None:
        self.head = Head(seq=0, digest=FIRST)
        self.lost = 0
        self._files = files
        self._path = path
        self._clock = clock
        self._max_bytes = max_bytes
        self._keep = keep
        self._redact = redact
        self._size = 0
        self._doubt = False
        self._subscribers: list[Subscription] = []
        #: Seen, and its process not looked up yet; then open until its 10 s are over.
        self._waiting: dict[Hashable, _Window] = {}
        self._windows: dict[Hashable, _Window] = {}
        self._denials: dict[Hashable, _Window] = {}
        self._looks = Looks(look, clock=clock)
        self._wake = asyncio.Event()
        self._opened = asyncio.Event()

    # ---- start ----

    def resume(self, head: Head | None) -> tuple[str, ...]:
        """Go on where the file ends; a torn last line is cut. Warnings, to be put into the `start` line's reason.

        Raises FileRefused when the file is not ours. `head` None: not known yet (locked), see `confirm`.
        """
        try:
            warnings = self._find_tail()
        except Unwritable as exc:  # the disk takes nothing: serve, count the lines as lost, try again at each
            warnings = (exc.message,)
        for warning in warnings:
            log.warning("resume audit reason=%s", warning)
        return (*warnings, *self.confirm(head)) if head is not None else warnings

    def confirm(self, head: Head) -> tuple[str, ...]:
        """Warnings where files and seal do not agree: a cut tail, a rewritten chain, or a seal that is an older one."""
        said = audit_chain.compare(self._files, self._path, head, now=self.head)
        return said or audit_chain.older_seal(self._files, self._path, head)

    def _find_tail(self) -> tuple[str, ...]:
        tail = audit_chain.read_tail(self._files, self._path)
        self.head, self._size, self._doubt = tail.head, tail.size, bool(tail.torn)
        warnings = []
        if tail.torn:
            self._files.cut(self._path, tail.size)
            self._doubt = False
            warnings.append(f"The last line of {self._path} was torn and has been cut: see `vault-client log`.")
        if tail.damaged:
            warnings.append(f"The end of {self._path} is damaged and the chain goes on after it: see `vaultd check`.")
        return tuple(warnings)

    # ---- writing ----

    def record(self, event: str, *, sync: bool = False, **fields: object) -> None:
        """Write one line now. `fields` are those of interface.md §8; never raises."""
        unknown = fields.keys() - set(FIELDS)
        if unknown:
            log.error("drop audit-fields event=%s names=%s", event, sorted(unknown))
        plain = {name: self._plain(name, value) for name, value in fields.items() if name in FIELDS}
        self._write({"time": stamp(self._clock.now()), "event": event, **plain}, sync=sync or event in _SYNCED)

    def _plain(self, name: str, value: object) -> Any:
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, str):
            return shown(value[-4:] if name == "access_key_id" else self._redact(value))
        if isinstance(value, datetime):
            return stamp(value)
        if isinstance(value, Peer):
            return {each: self._plain(each, part) for each, part in peer_wire(value).items()}
        return f"<{type(value).__name__}>"

    def _write(self, fields: dict[str, Any], *, sync: bool) -> None:
        try:
            if self._doubt:
                self._find_tail()
            line = audit_chain.line_of(fields, after=self.head)
            self._rotate(len(line) + 1)
            self._files.append(self._path, line + b"\n", sync=sync)
        except VaultdError as exc:
            if not self._doubt:
                log.warning("lose audit-line event=%s reason=%s", fields["event"], exc)
            self._doubt = True  # the disk may hold a part of it: look before the next line is written
            self.lost += 1
            return
        self._size += len(line) + 1
        self.head = Head(seq=self.head.seq + 1, digest=audit_chain.digest_of(line))
        if self._subscribers:
            self._publish(line)

    def _publish(self, line: bytes) -> None:
        event = json.loads(line)
        for subscriber in tuple(self._subscribers):  # one that is cut leaves the list
            subscriber.put(event)

    def _rotate(self, length: int) -> None:
        if not self._size or self._size + length <= self._max_bytes:
            return
        try:
            for number in range(self._keep - 1, -1, -1):
                source = audit_chain.older(self._path, number)
                if self._files.stat_key(source) is not None:
                    self._files.rename(source, audit_chain.older(self._path, number + 1))
            if not self._keep:
                self._files.remove(self._path)
        except VaultdError as exc:  # rather a file that is too long than a line that is lost
            log.warning("keep audit-file reason=%s", exc)
            return
        self._size = 0

    # ---- serves and denials ----

    def served(self, *, grant: Grant, session: RoleSession, sighting: Sighting, identity: str | None = None) -> None:
        """Keys went out. O(1): counted, or queued for `run`."""
        key = (grant.id, session.access_key_id, sighting)
        if (waiting := self._waiting.get(key)) is not None:
            waiting.count += 1
            return
        self._queue(
            key,
            sighting,
            event="credentials.serve",
            profile=grant.profile,
            identity=identity,
            account_id=session.account_id,
            role_arn=session.role_arn,
            role_session_name=session.role_session_name,
            grant=grant.id,
            access_key_id=session.access_key_id,
            expiration=session.expiration,
            decision="allow",
            aws_request_id=session.aws_request_id,
        )

    def denied(self, *, reason: str, grant: Grant | None, sighting: Sighting) -> None:
        """A request was turned away, `reason` is the wire code. O(1), and bounded in lines whatever arrives."""
        key: Hashable = ("deny", reason, None if grant is None else grant.id, sighting.uid)
        if len(self._denials) >= MOST_DENIALS and key not in self._denials:
            key, grant, sighting = ("deny", reason), None, Sighting(sighting.uid, None, None)
        if (window := self._denials.get(key)) is not None:
            window.count += 1
            return
        profile, grant_id = (None, None) if grant is None else (grant.profile, grant.id)
        self._queue(
            key,
            sighting,
            event="credentials.deny",
            profile=profile,
            grant=grant_id,
            decision="deny",
            reason=reason,
        )
        self._denials[key] = self._waiting[key]

    def _queue(self, key: Hashable, sighting: Sighting, **fields: object) -> None:
        self._waiting[key] = _Window(self._clock.boottime(), self._clock.now(), fields, sighting)
        self._wake.set()

    # ---- the permanent task ----

    async def run(self) -> None:
        """Look up and write what `served` and `denied` queued, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look_up_queued())
            tasks.create_task(self._close_windows())

    async def _look_up_queued(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._drain()
            await self._clock.sleep(PAUSE)

    async def _close_windows(self) -> None:
        while True:
            await self._opened.wait()
            while self._windows:
                oldest = min(window.opened for window in self._windows.values())
                await self._clock.sleep(oldest + WINDOW - self._clock.boottime())
                self._close(self._clock.boottime() - WINDOW)
            self._opened.clear()

    async def flush(self) -> None:
        """Everything up to now is on disk after this: look-ups done, windows closed. For whoever reads the log."""
        await self._drain()
        self._close(self._clock.boottime())

    def flush_now(self) -> None:
        """The same without an await, for lock and stop: who was not looked up yet has pid null."""
        for key in list(self._waiting):
            self._open(key, Peer(uid=self._waiting[key].sighting.uid))
        self._close(self._clock.boottime())

    async def _drain(self) -> None:
        for taken in itertools.count(1):
            if not self._waiting:
                return
            key = next(iter(self._waiting))
            peer = await self._looks.who(self._waiting[key].sighting)
            if key in self._waiting:  # else flush_now took it meanwhile
                self._open(key, peer)
            if taken % TURN == 0:
                await asyncio.sleep(0)

    def _open(self, key: Hashable, peer: Peer) -> None:
        """Its process is known now: join the window of that process, or begin one."""
        waiting = self._waiting.pop(key)
        fields = waiting.fields
        joined = (fields["event"], fields["grant"], fields.get("reason"), fields.get("access_key_id"), peer)
        if (window := self._windows.get(joined)) is not None:
            window.count += waiting.count
            if self._denials.get(key) is waiting:
                self._denials[key] = window
            return
        fields["peer"] = peer
        self._windows[joined] = waiting
        self._opened.set()

    def _close(self, opened_by: float) -> None:
        for key in [key for key, window in self._windows.items() if window.opened <= opened_by]:
            window = self._windows.pop(key)
            self._denials = {each: denial for each, denial in self._denials.items() if denial is not window}
            plain = {name: self._plain(name, value) for name, value in window.fields.items()}
            self._write({"time": stamp(window.time), "count": window.count, **plain}, sync=False)

    # ---- reading ----

    def tail(self, n: int, *, profile: str | None = None) -> list[dict[str, Any]]:
        """The last `n` lines (of `profile`), the oldest first. What was counted so far is written before."""
        self._close(self._clock.boottime())
        return self._last(n, profile)

    async def read(self, n: int, *, profile: str | None = None) -> list[dict[str, Any]]:
        """The same as `tail`, read in a thread: 100,000 lines are a second, and requests come meanwhile."""
        self._close(self._clock.boottime())
        return await asyncio.to_thread(self._last, n, profile)

    def _last(self, n: int, profile: str | None) -> list[dict[str, Any]]:
        """Touches files only. A line may be appended meanwhile, and a file rotated: then it is there twice."""
        found: list[dict[str, Any]] = []
        seen: int | None = None
        for line in audit_chain.lines_backwards(self._files, self._path) if n > 0 else ():
            event = audit_chain.parsed(line)
            if event is None or (seen is not None and event["seq"] >= seen):
                continue
            seen = event["seq"]
            if profile is None or event.get("profile") == profile:
                found.append(event)
            if len(found) >= n:
                break
        return found[::-1]

    def subscribe(self, *, on_cut: Callable[[], object] | None = None) -> Subscription:
        """Every line written from now on; `close()` it. Raises TooManyReaders."""
        if len(self._subscribers) >= READERS:
            raise TooManyReaders(
                f"{READERS} readers follow the audit log already: end a `vault-client log -f` or `status --watch`, "
                "then type it again"
            )
        subscription = Subscription(self._forget, on_cut)
        self._subscribers.append(subscription)
        return subscription

    def _forget(self, subscription: Subscription) -> None:
        if subscription in self._subscribers:
            self._subscribers.remove(subscription)
