"""The control API on `control.sock`: its connections, its error bodies, its life (interface.md §6).

Rule: every error body carries code, message and the client's exit status; an unknown exception is InternalError
without detail. The routes themselves are in web/routes/.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable

from aiohttp import web

from vaultd import __version__
from vaultd.errors import BadRequest, MethodNotAllowed, MfaRequired, NotFound, ProtocolMismatch, VaultdError
from vaultd.model.text import shown
from vaultd.web import bodies
from vaultd.web.control_connection import ControlConnection
from vaultd.web.rooms import Rooms, reply
from vaultd.web.routes import daemon, grants, identities, profiles, prompts

#: Version of the control API; a client of another one is told so (426).
PROTOCOL = "1"

#: A unix socket whose queue is full refuses a client at once, where TCP would let him try again.
BACKLOG = 1024

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
        app = web.Application(middlewares=[_guard], client_max_size=bodies.BODY_LIMIT)
        for room in (profiles, grants, prompts, identities, daemon):
            app.add_routes(room.table(self._rooms))
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        server = self._runner.server
        assert server is not None
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(
            lambda: ControlConnection(server, loop=loop), sock=sock, backlog=BACKLOG
        )

    async def close(self) -> None:
        """No new connections; requests under way get 2 s."""
        if self._server is not None:
            self._server.close()
        if self._runner is not None and self._runner.server is not None:
            self._runner.server.pre_shutdown()
            await self._runner.server.shutdown(CLOSE_SECONDS)
            await self._runner.cleanup()


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        _same_protocol(request)
        return await handler(request)
    except VaultdError as exc:
        return error_reply(exc)
    except web.HTTPNotFound:
        return error_reply(NotFound("no such route in the control API: type `vault-client --help`"))
    except web.HTTPMethodNotAllowed:
        return error_reply(MethodNotAllowed("the control API has no such method there: type `vault-client --help`"))
    except web.HTTPRequestEntityTooLarge:
        return error_reply(BadRequest(f"the body is over {bodies.BODY_LIMIT} bytes: send less"))
    except (asyncio.CancelledError, ConnectionError):
        raise
    except Exception:
        log.exception("fail control route=%s", request.match_info.route.name or request.method)
        return error_reply(VaultdError("vaultd made an error: type `vaultd logs` for the traceback"))


def _same_protocol(request: web.Request) -> None:
    theirs = request.headers.get("Vaultd-Protocol", PROTOCOL)
    if theirs != PROTOCOL:
        raise ProtocolMismatch(
            f"vaultd {__version__} speaks protocol {PROTOCOL} and the client {shown(theirs, limit=20)}: "
            "type `vaultd restart` after an update"
        )


def error_reply(error: VaultdError) -> web.Response:
    """{code, message, exit, …details}; MfaRequired is 409 here, and 403 on the SDK side."""
    status = 409 if isinstance(error, MfaRequired) else error.status
    body = {"code": error.code, "message": error.message, "exit": error.exit, **error.details}
    return reply(body, status=status)
