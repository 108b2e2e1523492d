"""The control API on `control.sock`: its connections, its error bodies, its life (interface.md §6).

Rule: every error body carries code, message and the client's exit status; an unknown exception is InternalError
without detail. The routes themselves are in web/routes/.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from aiohttp import web

from vaultd import __version__
from vaultd.errors import BadRequest, MethodNotAllowed, MfaRequired, NotFound, ProtocolMismatch, VaultdError
from vaultd.host.sockets import a_turn, queue_up
from vaultd.model.text import shown
from vaultd.web import bodies
from vaultd.web.control_connection import ControlConnection
from vaultd.web.control_replies import error_reply
from vaultd.web.rooms import Rooms, connection
from vaultd.web.routes import daemon, grants, identities, imports, profiles, prompts

#: Version of the control API; a client of another one is told so (426).
PROTOCOL = "1"

#: How long a request under way may go on once the daemon stops.
CLOSE_SECONDS = 2.0

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Control:
    """Serves the routes on one bound unix socket."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._runner: web.AppRunner | None = None
        self._server: asyncio.AbstractServer | None = None

    async def start(self, sock: socket.socket) -> None:
        """Begin to serve."""
        app = web.Application(middlewares=[self._guard], client_max_size=bodies.BODY_LIMIT)
        for room in (profiles, grants, prompts, identities, imports, daemon):
            app.add_routes(room.table(self._rooms))
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        server = self._runner.server
        assert server is not None
        loop = asyncio.get_running_loop()
        # From 3.13 on the loop would unlink the path when it closes; it is the service manager's where he made it.
        kept: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
        self._server = await loop.create_unix_server(
            lambda: ControlConnection(server, loop=loop), sock=sock, backlog=a_turn(), **kept
        )
        queue_up(sock)  # a unix socket whose queue is full refuses at once, where TCP would let him try again

    def refuse(self) -> None:
        """No new connections; those that are open go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def close(self) -> None:
        """The end: whoever only waits is let go at once, requests under way get 2 s."""
        self.refuse()
        runner, self._runner = self._runner, None
        if runner is None or runner.server is None:
            return
        runner.server.pre_shutdown()
        for each in runner.server.connections:
            if isinstance(each, ControlConnection):
                each.leave()
        await runner.server.shutdown(CLOSE_SECONDS)
        await runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        using = not _looks(request)
        if using:
            self._rooms.lifecycle.used()
        reply = await _answered(request, partial(self._heard, handler))
        if using:  # again: it may have waited for a person
            self._rooms.lifecycle.used()
        resource = request.match_info.route.resource  # the route as we wrote it: no byte of the request is logged
        route = None if resource is None else resource.canonical
        log.debug("answer control method=%s route=%s status=%d", shown(request.method, limit=20), route, reply.status)
        return reply

    async def _heard(self, handler: Handler, request: web.Request) -> web.StreamResponse:
        """A caller who left before he was told of the question that his call opened was its one asker."""
        try:
            return await handler(request)
        except MfaRequired as exc:
            if exc.details.get("opened") and connection(request).gone.done():
                self._rooms.desk.attend(exc.details["prompt"]["id"]).leave()
            raise


def _looks(request: web.Request) -> bool:
    """It shows what is there, and neither changes nor hands out anything: `status --watch` asks so for days."""
    return request.method == "GET" and not request.path.endswith("/credentials")


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        _same_protocol(request)
        return await handler(request)
    except VaultdError as exc:
        return error_reply(exc)
    except (web.HTTPException, web.RequestPayloadError) as exc:
        return error_reply(_as_ours(exc))
    except (asyncio.CancelledError, ConnectionError):
        raise
    except Exception:
        log.exception("fail control method=%s", request.method)
        return error_reply(VaultdError("vaultd made an error: type `vaultd logs` for the traceback"))


def _as_ours(exc: Exception) -> VaultdError:
    """What aiohttp itself refuses, in our words."""
    if isinstance(exc, web.HTTPNotFound):
        return NotFound("no such route in the control API: type `vault-client --help`")
    if isinstance(exc, web.HTTPMethodNotAllowed):
        return MethodNotAllowed("the control API has no such method there: type `vault-client --help`")
    if isinstance(exc, web.HTTPRequestEntityTooLarge):
        return BadRequest(f"the body is over {bodies.BODY_LIMIT} bytes: send less")
    return BadRequest("the request is not one of the control API: type `vault-client --help`")


def _same_protocol(request: web.Request) -> None:
    theirs = request.headers.get("Vaultd-Protocol", PROTOCOL)
    if theirs != PROTOCOL:
        raise ProtocolMismatch(
            f"vaultd {__version__} speaks protocol {PROTOCOL} and the client {shown(theirs, limit=20)}: "
            "type `vaultd restart` after an update"
        )
