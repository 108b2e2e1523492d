"""One client of `control.sock`: refused at accept unless it is ours, and able to say that it is gone.

Rule: SO_PEERCRED comes before the first byte is read; another uid is closed unanswered (security.md §2.1 item 3).
"""

from __future__ import annotations

import asyncio
import logging

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from vaultd.host import processes, sockets
from vaultd.model.peer import Peer

#: The control socket has descriptors of its own (interface.md §4); past them the longest idle connection goes.
CONNECTIONS = 32

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
        self.gone: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Attest the peer, then let aiohttp read."""
        peer = sockets.peer_of_unix(transport.get_extra_info("socket"))
        if peer is None or peer.uid != processes.own_uid():
            log.warning("refuse control-peer uid=%s", None if peer is None else peer.uid)
            self._manager = None  # aiohttp then takes the loss of a connection that was never made in silence
            transport.close()
            return
        self.peer = peer
        super().connection_made(transport)
        self._spare()

    def _spare(self) -> None:
        others = [each for each in self._peers.connections if each is not self]
        idle = [each for each in others if not each._request_in_progress]  # noqa: SLF001 (aiohttp has no public word)
        if len(others) >= CONNECTIONS and idle:
            idle[0].force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tell a waiting route that nobody listens any more."""
        if not self.gone.done():
            self.gone.set_result(None)
        super().connection_lost(exc)
