"""The SDK side: what is listened on, which answer a request gets, and the one place where an error becomes bytes.

Rules
- Checked in the contract's order (interface.md §4): 400, Host and headers, 404 for a path outside the table, 405, 401,
  ProfileMismatch, UnknownProfile, the rest. The path is compared byte for byte.
- An unknown exception is 500 without detail, its traceback in the log.
- The audit line is queued after the bytes went out.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import socket
from collections.abc import Awaitable, Callable, Collection
from typing import Final

from aiohttp.http import RawRequestMessage

from vaultd.engine.grants import Grant, Grants
from vaultd.engine.seams import Clock
from vaultd.engine.sightings import Sighting
from vaultd.errors import MethodNotAllowed, NotFound, VaultdError
from vaultd.host.peers import Peers
from vaultd.host.sockets import BACKLOG
from vaultd.model.dialects import body_of, closing, ecs_error, held_head, http_message, wire_code
from vaultd.model.environment import CREDENTIALS_PATH
from vaultd.model.plan import Plan, Plans
from vaultd.web.connection import SdkServer
from vaultd.web.ecs import Credentials
from vaultd.web.guard import LOOPBACK, MALFORMED, Guard, bare_token
from vaultd.web.hold import BLANK, END, Ended, Holds, last_chunk
from vaultd.web.limits import Crowd, Limits
from vaultd.web.replies import Reply, Request, as_asked, refused
from vaultd.web.serving import Served, Sessions, Witness

HEALTH_PATH: Final = "/healthz"
_SLUG: Final = re.compile(r"[A-Za-z0-9._~-]+", re.ASCII)
_MALFORMED: Final = closing(ecs_error(MALFORMED))
_INTERNAL: Final = closing(ecs_error(VaultdError("")))
#: A held answer begins with its first blank.
_HELD: Final = held_head() + BLANK
_HEALTHY: Final = http_message(200, "OK", b"ok", content_type="text/plain")
#: Sentences, not exceptions: one that is raised again keeps each traceback, and in it the request with its token.
_NOT_FOUND: Final = "There is nothing at this path; type `vault-client use PROFILE` for the right one."
_NOT_ALLOWED: Final = "Credentials are read with GET only; type `vault-client use PROFILE`."

log = logging.getLogger(__name__)


class SdkSide:
    """The credential endpoint on one TCP listener."""

    def __init__(
        self,
        *,
        plans: Callable[[], Plans],
        broker: Sessions,
        grants: Grants,
        audit: Witness,
        peers: Peers,
        clock: Clock,
        describe: Callable[[int], Awaitable[str]],
        limits: Limits | None = None,
        crowd: Crowd | None = None,
        holds: Holds | None = None,
    ) -> None:
        self._audit = audit
        self._clock = clock
        self._holds = holds
        self._credentials = Credentials(plans=plans, broker=broker, grants=grants, clock=clock, describe=describe)
        self.peers = peers
        self.limits = limits or Limits()
        self.crowd = crowd or Crowd(self.limits.most())
        self.malformed, self.internal = _MALFORMED, _INTERNAL
        self._guard = Guard(port=0)
        self._server: SdkServer | None = None
        self._listener: asyncio.Server | None = None

    # ---- its life ----

    async def start(self, sock: socket.socket, *, hosts: Collection[str] = LOOPBACK) -> None:
        """Serve on a bound TCP socket; its port is the one that Host may name, and one of `hosts` before it."""
        loop = asyncio.get_running_loop()
        self._guard = Guard(port=sock.getsockname()[1], hosts=hosts)
        self._server = SdkServer(self._answer, gate=self, loop=loop)
        self._listener = await loop.create_server(self._server, sock=sock, backlog=BACKLOG)

    async def stop(self, *, deadline: float = 2.0) -> None:
        """No new connections, holds end blank; requests that are being answered have `deadline` seconds."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._holds is not None:
            self._holds.end(self)
        if self._server is not None:
            await self._server.shutdown(deadline)
            self._server = None
        self.peers.close()

    def __len__(self) -> int:
        """How many connections are open."""
        return len(self.crowd)

    def turned_away(self, sighting: Sighting) -> None:
        """A peer of another user was cut off at accept."""
        self._audit.denied(reason="ForbiddenPeer", grant=None, sighting=sighting)

    # ---- a request ----

    def answer_now(self, message: RawRequestMessage, sighting: Sighting) -> Reply | None:
        """The answer to everything but a request whose session has to be made: None."""
        try:
            return self._decided(message, sighting)
        except Exception as exc:
            log.exception("fail request error=%s", type(exc).__name__)
            return Reply(_INTERNAL, keep=False)

    def _decided(self, message: RawRequestMessage, sighting: Sighting) -> Reply | None:
        if (refusal := self._guard.refusal(message)) is not None:
            return self._refused(refusal, message, sighting)
        grant: Grant | None = None
        try:
            if message.path == HEALTH_PATH and message.method == "GET":
                return as_asked(_HEALTHY, message)
            grant = self._granted(message)
            served = self._credentials.ready(grant, self._credentials.plan(grant, message.path))
        except VaultdError as exc:
            return self._told(exc, message, grant, sighting)
        return None if served is None else self._serving(served, message, sighting)

    async def _answer(self, request: Request) -> Reply:
        """A request that aiohttp's loop took: it had to wait for its session, or for its turn."""
        message, sighting = request.parsed, request.line.sighting
        reply = self.answer_now(message, sighting)
        return reply or await self._made(request)

    async def _made(self, request: Request) -> Reply:
        message, sighting, arrived = request.parsed, request.line.sighting, self._clock.boottime()
        grant = self._granted(message)
        plan: Plan | None = None
        try:
            plan = self._credentials.plan(grant, message.path)
            served = await self._credentials.made(grant, plan, sighting)
        except VaultdError as exc:
            held = None if plan is None else await self._held(request, grant, plan, exc, arrived)
            return held or self._told(exc, message, grant, sighting)
        return self._serving(served, message, sighting)

    # ---- a held request ----

    async def _held(
        self, request: Request, grant: Grant, plan: Plan, error: VaultdError, arrived: float
    ) -> Reply | None:
        """What a hold ends in; None: this one is answered at once."""
        message, line = request.parsed, request.line
        if self._holds is None or self._listener is None:
            return None
        until = self._holds.until(error, grant=grant.id, fields=message.raw_headers, arrived=arrived)
        if until is None:
            return None
        if not line.begin(_HELD):
            return Reply(b"", keep=False)
        obtain = functools.partial(self._credentials.awaited, plan, line.sighting)
        ended = await self._holds.hold(line, side=self, grant=grant.id, error=error, until=until, obtain=obtain)
        return self._end_of_hold(self._holds, ended, grant, request)

    def _end_of_hold(self, holds: Holds, ended: Ended, grant: Grant, request: Request) -> Reply:
        if ended.gone:
            return Reply(b"", keep=False)
        sighting, error = request.line.sighting, ended.error
        try:
            if error is None:
                return self._keys(request)
        except VaultdError as exc:
            error = exc
        except Exception as exc:  # nothing but blanks may follow the head
            log.exception("fail hold error=%s", type(exc).__name__)
            error = VaultdError("")
        holds.rest(grant.id)
        self._audit.denied(
            reason="Locked" if self._credentials.locked else wire_code(error), grant=grant, sighting=sighting
        )
        return Reply(END, keep=False)

    def _keys(self, request: Request) -> Reply:
        served = self._credentials.landed(bare_token(request.parsed), request.parsed.path)
        sent = self._credentials.sent(served, request.line.sighting, self._audit)
        return Reply(last_chunk(body_of(served.message)), keep=False, sent=sent)

    def _granted(self, message: RawRequestMessage) -> Grant:
        """404 and 405 come before the token is looked at."""
        path = message.path
        if path != HEALTH_PATH and not _is_credentials(path):
            raise NotFound(_NOT_FOUND)
        if message.method != "GET":
            raise MethodNotAllowed(_NOT_ALLOWED)
        return self._credentials.grant(bare_token(message))

    def _serving(self, served: Served, message: RawRequestMessage, sighting: Sighting) -> Reply:
        return as_asked(served.message, message, self._credentials.sent(served, sighting, self._audit))

    # ---- errors ----

    def _refused(self, error: VaultdError, message: RawRequestMessage, sighting: Sighting) -> Reply:
        """400 and the guard's 403: a connection that sent such a thing is not kept."""
        if error.status == 403:
            self._audit.denied(reason=error.code, grant=None, sighting=sighting)
        return refused(ecs_error(error), message)

    def _told(self, error: VaultdError, message: RawRequestMessage, grant: Grant | None, sighting: Sighting) -> Reply:
        if grant is not None or error.status == 401:
            self._audit.denied(reason=wire_code(error), grant=grant, sighting=sighting)
        return as_asked(ecs_error(error), message)


def _is_credentials(path: str) -> bool:
    slug = path[len(CREDENTIALS_PATH) :]
    return path.startswith(CREDENTIALS_PATH) and bool(_SLUG.fullmatch(slug)) and slug not in {".", ".."}
