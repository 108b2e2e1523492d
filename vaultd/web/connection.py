"""One connection of the SDK side: attested at accept, bounded in time and size, answered in one write.

Rules (interface.md §4, security.md §0.2, §2.1 items 7 to 10; aiohttp has none of these limits)
- Another uid is cut off before a byte is read; a peer is looked up again before credentials are written.
- First byte 2 s after accept, headers 3 s after a request's first byte: else closed unanswered. A client that does not
  read what it asked for is closed. A kept idle connection lives 120 s (SDKs want 90).
- A FIN on an idle connection closes it. With a request open the peer is looked up: without an inode nobody waits for
  the answer any more, otherwise the client has only half-closed, and is answered.
- Nothing of a request is logged, and a parse error is answered with a constant (security.md §0.5).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from aiohttp import web
from aiohttp.http import HttpProcessingError, RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from vaultd.engine.sightings import Sighting
from vaultd.host.peers import Address, Peers, PeerSocket
from vaultd.web.guard import FIELD_LIMIT, FIELDS_LIMIT, LINE_LIMIT, RequestLines
from vaultd.web.limits import Crowd, Limits
from vaultd.web.replies import Reply, Request

_NOBODY: Final = Sighting(uid=-1, inode=None, pid=None)
_HEAD_END: Final = b"\r\n\r\n"
#: Wherever the parser is, this is an error to it, and takes the way of all of them.
_NO_REQUEST: Final = b"\0"

log = logging.getLogger(__name__)


class Gate(Protocol):
    """What a connection asks of the side that it belongs to."""

    @property
    def peers(self) -> Peers:
        """Looks peers up."""

    @property
    def limits(self) -> Limits:
        """What it may take."""

    @property
    def crowd(self) -> Crowd:
        """The connections of every listener of this daemon: they share one limit."""

    @property
    def malformed(self) -> bytes:
        """The whole message for what cannot be parsed, in the side's own dialect."""

    @property
    def internal(self) -> bytes:
        """The whole message for a failure of ours."""

    def answer_now(self, message: RawRequestMessage, sighting: Sighting) -> Reply | None:
        """The answer, when it takes no waiting; never raises."""

    def turned_away(self, sighting: Sighting) -> None:
        """A peer that is not of this user was cut off."""


class SdkServer(web.Server):
    """aiohttp's low-level server, whose connections are ours."""

    def __init__(self, answer: Callable[[Any], Any], *, gate: Gate, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(answer, request_factory=Request, loop=loop)
        self.gate = gate
        self.crowd = gate.crowd

    def __call__(self) -> Connection:
        """A protocol for the next connection."""
        return Connection(self, loop=self._loop)


class Connection(RequestHandler):
    """One client: aiohttp's parser, and its loop for the requests that have to wait.

    What can be answered at once is answered where it is parsed, without a task: that pays for the guard
    (performance.md rows 4 and 5). Order is kept: while a request waits, or its client does not read, the next queue up.
    `_open` counts the requests that aiohttp's loop has and has not answered.
    """

    __slots__ = ("_crowd", "_due", "_gate", "_half_closed", "_in_head", "_lines", "_open", "_timer", "ends", "sighting")

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
        self._open = 0
        self._lines = RequestLines()
        self.ends: tuple[Address, Address] = (("", 0), ("", 0))
        self.sighting = _NOBODY

    # ---- accept ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Attest the peer, make room, start the clock. aiohttp's loop is not started before something has to wait."""
        local, remote = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        if local and remote:  # else it was gone before it was accepted
            self.ends = (local, remote)
        peer = self._attested()
        if peer is None or not self._crowd.make_room():
            self._manager = None  # aiohttp then takes the loss of a connection that was never made in silence
            cast("asyncio.Transport", transport).abort()
            return
        self.sighting = Sighting(uid=peer.uid, inode=peer.inode, pid=None)
        self._crowd.add(self)
        self._close_in(self._gate.limits.first_byte)
        # Not aiohttp's connection_made: TCP_NODELAY is set by both loops already, and its task is made when needed.
        self.transport = cast("asyncio.Transport", transport)
        if self._manager is not None:
            self._manager.connection_made(self, self.transport)

    def _attested(self) -> PeerSocket | None:
        """The peer, while it is one of ours. A client that is gone is no denial; a stranger is."""
        peers = self._gate.peers
        found = peers.uid_of(*self.ends)
        if found is None or peers.admits(found):
            return found
        if found.inode != 0:
            self._gate.turned_away(Sighting(uid=found.uid, inode=None, pid=None))
        return None

    # ---- reading ----

    @property
    def busy(self) -> bool:
        """A request is queued or being answered."""
        return self._open > 0

    def data_received(self, data: bytes) -> None:
        """Parse and answer; a head that is not complete yet has 3 s from its first byte."""
        if self._close or self._force_close:
            return
        if not self._lines.are_http(data):
            data = _NO_REQUEST
        before = self._request_count
        began, self._in_head = self._in_head, False
        if self._open or self._paused:
            super().data_received(data)
            self._open += self._request_count - before
            self._wake()
        else:
            self._answer_parsed(data)
        whole = self._request_count != before
        if not data or (whole and (data.endswith(_HEAD_END) or (began and _HEAD_END.endswith(data)))):
            return
        self._in_head = True
        if (whole or not began) and self._at_ease():
            self._close_in(self._gate.limits.headers)

    def _at_ease(self) -> bool:
        """No other clock runs: neither an end was begun, nor is the client slow to read."""
        return not (self._close or self._paused)

    def _answer_parsed(self, data: bytes) -> None:
        parser = self._parser
        assert parser is not None
        try:
            messages, _, _ = parser.feed_data(data)
        except HttpProcessingError:
            self._finish(Reply(self._gate.malformed, keep=False, linger=True))
            return
        self._request_count += len(messages)
        for place, (message, _) in enumerate(messages):
            reply = None if self._paused else self._gate.answer_now(message, self.sighting)
            if reply is None:
                self._messages.extend(messages[place:])
                self._open += len(messages) - place
                self._wake()
                return
            parser.message_consumed()
            if not self._finish(reply):
                return
        if len(messages) >= self._max_msg_queue_size:  # the parser holds back what was pipelined beyond
            self._answer_parsed(b"")

    def _finish(self, reply: Reply) -> bool:
        """Write it; False: the connection ends with it."""
        if self._send(reply):
            return True
        self.close()
        if self.transport is not None:
            if reply.linger:
                self._linger(self.transport)
            else:
                self.transport.close()
        return False

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
        if self._open and not self._force_close:
            found = self._gate.peers.uid_of(*self.ends)
            self._half_closed = found is not None and found.inode != 0
        return self._half_closed

    # ---- writing ----

    async def deliver(self, reply: Reply) -> None:
        """From aiohttp's loop. ConnectionError when there is nobody to write to."""
        self._open -= 1
        reply.keep = self._send(reply)
        if self.transport is None or self.transport.is_closing():
            raise ConnectionResetError
        if self._paused:
            await self._drain_helper()

    def _send(self, reply: Reply) -> bool:
        """One write; False: nothing may follow. No await lies between the last look at the peer and the bytes."""
        transport = self.transport
        if transport is None:
            return False
        if reply.sent is not None and self._attested() is None:
            transport.abort()
            return False
        transport.write(reply.bytes)
        if reply.sent is not None:
            reply.sent()
        self._crowd.touch(self)
        if not self._in_head and not self._paused:
            self._due = self._loop.time() + self._gate.limits.idle
        return reply.keep and (not self._half_closed or bool(self._messages))

    def present(self) -> bool:
        """The client is still there: nothing is looked for, and nobody asked, for one that is gone."""
        return self._attested() is not None

    def begin(self, head: bytes) -> bool:
        """The head of a held answer: it says that keys may follow, so the peer is looked up for it too."""
        if self.transport is None or self._attested() is None:
            self.abort()
            return False
        self.transport.write(head)
        return True

    def drip(self, chunk: bytes) -> bool:
        """One chunk more of a held answer. A client that half-closed says nothing more, not even that it left."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return False
        if self._half_closed and self._attested() is None:
            transport.abort()
            return False
        transport.write(chunk)
        return True

    def pause_writing(self) -> None:
        """The client does not read: it has a while to begin."""
        super().pause_writing()
        self._close_in(self._gate.limits.unread)

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        limits = self._gate.limits
        self._due = self._loop.time() + (limits.headers if self._in_head else limits.idle)

    def _linger(self, transport: asyncio.Transport) -> None:
        """Close our half and drop what still comes: an unread rest would reset the connection, reply and all."""
        transport.write_eof()
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
        if self._open and not self._paused:
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
        if (seat := self.sighting.badge.seat) is not None:
            self.sighting.badge.seat = None
            seat.leave()
        super().connection_lost(exc)

    # ---- what went wrong ----

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        """Two constants: aiohttp would put the request's bytes into the body and the log."""
        if isinstance(exc, HttpProcessingError) or status == 400:
            return Reply(self._gate.malformed, keep=False)
        self.log_exception("fail request", exc_info=exc)
        return Reply(self._gate.internal, keep=False)

    def log_exception(self, *args: Any, **kw: Any) -> None:  # noqa: ARG002
        """Our own failures with their traceback; never what a client sent."""
        exc = kw.get("exc_info")
        if not isinstance(exc, HttpProcessingError):
            log.error("fail request error=%s", type(exc).__name__, exc_info=exc if exc is not None else False)
