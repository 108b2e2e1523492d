"""One connection of the SDK side: attested at accept, bounded in time, size and number, answered in one write.

Rules (interface.md §4, security.md §0.2, §2.1 items 7 to 10; aiohttp has none of these limits)
- Another uid is cut off before a byte is read; a peer is looked up again before credentials are written.
- First byte 2 s after accept, headers 3 s after a request's first byte: else closed unanswered. A client that does not
  read what it asked for is closed. A kept idle connection lives 120 s (SDKs want 90).
- A FIN on an idle connection closes it. With a request open the peer is looked up: without an inode nobody waits for
  the answer any more, otherwise the client has only half-closed, and is answered.
- Beyond the limit the longest idle connection is closed; where none is idle, the new one.
- A reply is bytes made beforehand, written at once: no `Server`, no `Date`, no 1xx, no compression, no redirect.
- Nothing of a request is logged, and a parse error is answered with a constant.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpProcessingError, RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from vaultd.engine.sightings import Sighting
from vaultd.errors import VaultdError
from vaultd.host.peers import Address, Peers, PeerSocket
from vaultd.model.dialects import closing, ecs_error
from vaultd.web.guard import FIELD_LIMIT, FIELDS_LIMIT, LINE_LIMIT, MALFORMED

_NOBODY: Final = Sighting(uid=-1, inode=None, pid=None)
_HEAD_END: Final = b"\r\n\r\n"
_INTERNAL: Final = closing(ecs_error(VaultdError("")))
_MALFORMED: Final = closing(ecs_error(MALFORMED))

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, and how many connections. `linger`: how long the rest of a refused request is read and dropped."""

    first_byte: float = 2.0
    headers: float = 3.0
    idle: float = 120.0
    unread: float = 10.0
    linger: float = 1.0
    connections: int = 1024

    def most(self) -> int:
        """`connections`, or 75 % of the descriptors that this process may have."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return self.connections if soft == resource.RLIM_INFINITY else min(self.connections, soft * 3 // 4)


class Gate(Protocol):
    """What a connection asks of the side that it belongs to."""

    @property
    def peers(self) -> Peers:
        """Looks peers up."""

    @property
    def limits(self) -> Limits:
        """What it may take."""

    def answer_now(self, message: RawRequestMessage, sighting: Sighting) -> Reply | None:
        """The answer, when it takes no waiting; never raises a VaultdError."""

    def turned_away(self, sighting: Sighting) -> None:
        """A peer of another user was cut off, or one that had been ours is not any more."""


class Request(web.BaseRequest):
    """A parsed message and its connection. BaseRequest's own parts (URL, state, peer names) are never made: 3 µs."""

    def __init__(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> None:
        self.parsed = message
        self.connection = cast("Connection", protocol)
        self._payload = payload
        self._payload_writer = writer
        self._task = task

    def _finish(self) -> None:
        """Nothing was opened."""

    def _cancel(self, exc: BaseException) -> None:
        """Nobody reads a body here."""


class Reply(web.StreamResponse):
    """A whole HTTP message. `keep`: the connection may go on. `linger`: the rest of the request is dropped first.

    `sent`: these are credentials; the peer is looked up before they are written, and `sent` is called after it.
    """

    def __init__(  # StreamResponse's own state (headers, cookies) is never made
        self,
        message: bytes,
        *,
        keep: bool = True,
        linger: bool = False,
        sent: Callable[[], None] | None = None,
    ) -> None:
        self.bytes = message
        self.keep = keep
        self.linger = linger
        self.sent = sent

    @property
    def keep_alive(self) -> bool:
        """Whether aiohttp's loop waits for another request."""
        return self.keep

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """For a request that had to wait: aiohttp's loop ends here. ConnectionError: there is nobody to write to."""
        connection = cast("Request", request).connection
        self.keep = connection.send(self)
        if connection.transport is None or connection.transport.is_closing():
            raise ConnectionResetError
        if connection.writing_paused:
            await connection.drained()
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """All was written by `prepare`."""


class Connection(RequestHandler):
    """One client: aiohttp's parser, and its loop for the requests that have to wait.

    What can be answered at once is answered where it is parsed, without a task: that pays for the guard
    (performance.md rows 4 and 5). Order is kept: while a request waits, or its client does not read, the next queue up.
    """

    __slots__ = ("_crowd", "_due", "_gate", "_half_closed", "_in_head", "_lingering", "_timer", "ends", "sighting")

    def __init__(self, server: SdkServer, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # aiohttp reads None as "none"
            keepalive_timeout=0,
            lingering_time=0,
            tcp_keepalive=False,
            max_line_size=LINE_LIMIT,
            max_field_size=FIELD_LIMIT,
            max_headers=FIELDS_LIMIT,
            auto_decompress=False,
        )
        self._gate = server.gate
        self._crowd = server.crowd
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._in_head = False
        self._half_closed = False
        self._lingering = False
        self.ends: tuple[Address, Address] = (("", 0), ("", 0))
        self.sighting = _NOBODY

    # ---- accept ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Attest the peer, make room, start the clock. aiohttp's loop is not started before something has to wait."""
        peer = self._attest(transport)
        if peer is None or not self._crowd.make_room():
            self._manager = None  # aiohttp then takes the loss of a connection that was never made in silence
            cast("asyncio.Transport", transport).abort()
            return
        self.sighting = Sighting(uid=peer.uid, inode=peer.inode, pid=None)
        self._crowd.add(self)
        self._close_in(self._gate.limits.first_byte)
        BaseProtocol.connection_made(self, transport)
        if self._manager is not None:
            self._manager.connection_made(self, cast("asyncio.Transport", transport))

    def _attest(self, transport: asyncio.BaseTransport) -> PeerSocket | None:
        local, remote = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        if not local or not remote:  # gone before it was accepted
            return None
        self.ends = (local, remote)
        peer = self._gate.peers.uid_of(local, remote)
        if peer is not None and self._gate.peers.admits(peer):
            return peer
        if peer is not None and peer.inode != 0:
            self._gate.turned_away(Sighting(uid=peer.uid, inode=None, pid=None))
        return None

    # ---- reading ----

    @property
    def busy(self) -> bool:
        """A request is queued or being answered."""
        return self._request_in_progress or bool(self._messages)

    def data_received(self, data: bytes) -> None:
        """Parse and answer; a head that is not complete yet has 3 s from its first byte."""
        before = self._request_count
        if self._request_in_progress or self._messages or self._paused:
            super().data_received(data)
            self._wake()
        elif not (self._force_close or self._close):
            self._answer_parsed(data)
        whole = self._request_count != before
        if whole and (data.endswith(_HEAD_END) or (self._in_head and _HEAD_END.endswith(data))):
            self._in_head = False
        elif data and (whole or not self._in_head) and not self._lingering:
            self._in_head = True
            self._close_in(self._gate.limits.headers)

    def _answer_parsed(self, data: bytes) -> None:
        parser = self._parser
        assert parser is not None
        try:
            messages, _, _ = parser.feed_data(data)
        except HttpProcessingError:
            self.send(Reply(_MALFORMED, keep=False, linger=True))
            return
        self._request_count += len(messages)
        for place, (message, _) in enumerate(messages):
            reply = None if self._paused else self._gate.answer_now(message, self.sighting)
            if reply is None:
                self._messages.extend(messages[place:])
                self._wake()
                return
            parser.message_consumed()
            if not self.send(reply):
                self.close()
                if not reply.linger and self.transport is not None:
                    self.transport.close()
                return
        if len(messages) >= self._max_msg_queue_size:  # the parser holds back what was pipelined beyond
            self._answer_parsed(b"")

    def _wake(self) -> None:
        """See to it that aiohttp's loop runs and looks at its queue."""
        if not self._messages:
            return
        if self._task_handler is None:
            self._task_handler = self._loop.create_task(self.start())
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if len(self._messages) >= self._max_msg_queue_size and not self._buffer_paused:
            self._pause_reading_for_buffer()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's contract; aiohttp always says None
        """True keeps the writing half open, for a client that waits for its answer."""
        if self.busy and not self._force_close:
            found = self._gate.peers.uid_of(*self.ends)
            self._half_closed = found is not None and found.inode != 0
            return self._half_closed
        return False

    # ---- writing ----

    def send(self, reply: Reply) -> bool:
        """One write; False: nothing may follow. No await lies between the last look at the peer and the bytes."""
        transport = self.transport
        if transport is None:
            return False
        if reply.sent is not None and not self._gate.peers.allowed(*self.ends):
            self._gate.turned_away(self.sighting)
            transport.abort()
            return False
        transport.write(reply.bytes)
        if reply.sent is not None:
            reply.sent()
        self._crowd.touch(self)
        if not self._in_head and not self._paused:
            self._due = self._loop.time() + self._gate.limits.idle
        if reply.linger:
            self._linger()
        return reply.keep and (not self._half_closed or bool(self._messages))

    def pause_writing(self) -> None:
        """The client does not read: it has a while to begin."""
        super().pause_writing()
        self._close_in(self._gate.limits.unread)

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        self._due = self._loop.time() + self._gate.limits.idle

    async def drained(self) -> None:
        """Until the client has read what was written; ConnectionError when it left."""
        await self._drain_helper()

    def _linger(self) -> None:
        """Close our half and drop what still comes: an unread rest would reset the connection, reply and all."""
        self.close()
        if self.transport is not None and not self._half_closed and self.transport.can_write_eof():
            self._lingering = True
            self.transport.write_eof()
            self._close_in(self._gate.limits.linger)

    # ---- the clock ----

    def _close_in(self, seconds: float) -> None:
        self._due = self._loop.time() + seconds
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._due, self._look_at_clock)

    def _look_at_clock(self) -> None:
        # One timer a connection: a request only moves `_due`, and the timer follows when it rings.
        now = self._loop.time()
        if self.busy and not self.writing_paused:
            self._due = max(self._due, now + 1.0)
        if now >= self._due:
            self.abort()
        else:
            self._timer = self._loop.call_at(self._due, self._look_at_clock)

    def _process_keepalive(self) -> None:
        """The timer of aiohttp rings once and changes nothing: `_look_at_clock` is the only clock here."""

    # ---- the end ----

    def abort(self) -> None:
        """Close now, unanswered."""
        if self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Take everything back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._crowd.remove(self)
        super().connection_lost(exc)

    # ---- what went wrong ----

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        """Two constants: aiohttp would put the request's bytes into the body and the log (security.md §0.5)."""
        if isinstance(exc, HttpProcessingError) or status == 400:
            return Reply(_MALFORMED, keep=False, linger=True)
        self.log_exception("fail request", exc_info=exc)
        return Reply(_INTERNAL, keep=False)

    def log_exception(self, *args: Any, **kw: Any) -> None:  # noqa: ARG002
        """Our own failures with their traceback; never what a client sent."""
        exc = kw.get("exc_info")
        if not isinstance(exc, HttpProcessingError):
            log.error("fail request error=%s", type(exc).__name__, exc_info=exc if exc is not None else False)


class Crowd:
    """The connections in the order of their last use: the first idle one is the longest idle."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._members: dict[Connection, None] = {}

    def __len__(self) -> int:
        return len(self._members)

    def make_room(self) -> bool:
        """False: full, and everyone is being answered."""
        if len(self._members) < self._most:
            return True
        idle = next((each for each in self._members if not each.busy), None)
        if idle is None:
            return False
        self.remove(idle)
        idle.abort()
        return True

    def add(self, member: Connection) -> None:
        """As the last used."""
        self._members[member] = None

    def touch(self, member: Connection) -> None:
        """It was used just now."""
        if self._members.pop(member, self) is None:
            self._members[member] = None

    def remove(self, member: Connection) -> None:
        """No matter whether it was in."""
        self._members.pop(member, None)


class SdkServer(web.Server):
    """aiohttp's low-level server, whose connections are ours."""

    def __init__(self, answer: Callable[[Any], Any], *, gate: Gate, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(answer, request_factory=Request, loop=loop)
        self.gate = gate
        self.crowd = Crowd(gate.limits.most())

    def __call__(self) -> Connection:
        """A protocol for the next connection."""
        return Connection(self, loop=self._loop)
