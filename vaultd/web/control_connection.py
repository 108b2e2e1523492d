"""One client of `control.sock`: refused at accept unless it is ours, and able to say that it is gone.

Rules: SO_PEERCRED comes before the first byte is read; another uid is closed unanswered (security.md §2.1 item 3).
What cannot be parsed is answered by a constant and never logged: a broken request may hold a passphrase (§0.5).
Past its own 32 the longest idle connection goes, and where descriptors are scarce and none is idle, the new one: 400
silent connections of one program must not take the socket from the next command (interface.md §4).
"""

from __future__ import annotations

import asyncio
import logging
import select
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from vaultd.errors import BadRequest, VaultdError
from vaultd.host import processes, sockets
from vaultd.model.peer import Peer
from vaultd.web.control_replies import error_reply
from vaultd.web.limits import most_controls

#: The control socket has descriptors of its own (interface.md §4); past them the longest idle connection goes. One
#: whose question is still open is not idle: 200 `exec` may wait for one code.
CONNECTIONS = 32
#: A connection without a request is idle only after as long as its first byte may take (interface.md §4): 200 commands
#: started together connect faster than they are read.
IDLE_SECONDS = 2.0

log = logging.getLogger(__name__)


class ControlConnection(RequestHandler):
    """A keep-alive connection of the same user, with the process behind it as `peer`."""

    def __init__(self, server: web.Server, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # aiohttp's own AppRunner passes it; the stub lags
            keepalive_timeout=90,
            lingering_time=0,
            tcp_keepalive=False,
            max_line_size=4096,
            max_field_size=4096,
            max_headers=64,
        )
        self._peers = server
        self.peer: Peer | None = None
        self.heard = 0.0
        self.gone: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Attest the peer, then let aiohttp read."""
        peer = sockets.peer_of_unix(transport.get_extra_info("socket"))
        if peer is None or peer.uid != processes.own_uid():
            log.warning("refuse control-peer uid=%s", None if peer is None else peer.uid, extra={"rarely": True})
            self._manager = None  # aiohttp then takes the loss of a connection that was never made in silence
            transport.close()
            return
        self.peer = peer
        self.heard = self._loop.time()
        others = self._living()
        super().connection_made(transport)
        if len(others) >= CONNECTIONS:
            self._spare(others)

    def data_received(self, data: bytes) -> None:
        """Note when the client last made a request. Bytes alone count for nothing: one a second is no request."""
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self.heard = self._loop.time()

    def _spare(self, others: list[ControlConnection]) -> None:
        """Make room for this one. Whoever is too fresh to be idle is looked at once more when he is not."""
        idle = [each for each in others if each.idle]
        if idle:
            min(idle, key=lambda each: each.heard).force_close()
        elif len(others) >= most_controls(at_least=CONNECTIONS):
            self.force_close()
        else:
            self._loop.call_later(IDLE_SECONDS, self._spare_late)

    def _spare_late(self) -> None:
        if self.transport is None or not self.idle:
            return
        if len(self._living()) > CONNECTIONS:
            self.force_close()

    def _living(self) -> list[ControlConnection]:
        """All that were not closed yet; of a closed one aiohttp takes the transport at once."""
        mine = (each for each in self._peers.connections if isinstance(each, ControlConnection))
        return [each for each in mine if each.transport is not None]

    @property
    def idle(self) -> bool:
        """No request is open, and none is about to come or waits to be read by a loop that was late."""
        if self._request_in_progress or self._messages or self._loop.time() - self.heard < IDLE_SECONDS:
            return False
        return not (self._request_count == 0 and self._unread())

    def _unread(self) -> bool:
        sock = None if self.transport is None else self.transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:
            return False
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def leave(self) -> None:
        """Tell a waiting route that nobody listens any more, or soon will not."""
        if not self.gone.done():
            self.gone.set_result(None)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client has gone."""
        self.leave()
        super().connection_lost(exc)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """What aiohttp refuses before a route is asked, such as an Expect, it would repeat in its text."""
        if isinstance(resp, web.HTTPException):
            resp = error_reply(BadRequest("the request is not one of the control API: type `vault-client --help`"))
        return await super().finish_response(request, resp, start_time)

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        """Two constants: aiohttp would put the request's bytes into the body and the log."""
        said: VaultdError = BadRequest("the request is not HTTP/1.1 that can be read: type `vault-client --help`")
        if isinstance(exc, ConnectionError):  # he left in the middle of his body: nobody is there to be answered
            log.debug("leave control-connection")
        elif not isinstance(exc, HttpProcessingError) and status != 400:
            self.log_exception("fail request", exc_info=exc)
            said = VaultdError("vaultd made an error: type `vaultd logs` for the traceback")
        reply = error_reply(said)
        reply.force_close()
        return reply

    def log_exception(self, *args: Any, **kw: Any) -> None:  # noqa: ARG002
        """Our own failures with their traceback; never what a client sent."""
        exc = kw.get("exc_info")
        if not isinstance(exc, HttpProcessingError):
            log.error("fail request error=%s", type(exc).__name__, exc_info=exc if exc is not None else False)
