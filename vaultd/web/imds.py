"""A door: one grant as the instance metadata service, on a listener of its own (interface.md §5, IMDSv2 only).

Rules
- Who reaches a door has no token of ours: its metadata token, bound to this grant, is what every GET has to show (401
  before 404), and the guard is what keeps a DNS-rebound page from asking for one.
- The token path and what the grant alone says go out while locked and without a session; credentials are waited for
  0.4 s in all, since Go gives each reply 0.5 s (sdk-facts §10.3), and then it is 403, whatever the reason: most SDKs
  stop at once. The CRT aborts its process at any error body there: its socket is closed unanswered (§6, §10.12).
- Nothing of a request is echoed; the audit line is queued after the bytes went out.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import socket
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from aiohttp.http import RawRequestMessage

from vaultd.engine.grants import Grant, Grants
from vaultd.engine.seams import Clock
from vaultd.engine.sightings import Sighting
from vaultd.errors import BadRequest, InvalidToken, MethodNotAllowed, NotFound, VaultdError
from vaultd.host.peers import Peers
from vaultd.host.sockets import a_turn, queue_up
from vaultd.model import metadata_tokens
from vaultd.model.clients import closes_on_error
from vaultd.model.dialects import closing, wire_code
from vaultd.model.imds_dialect import (
    CREDENTIALS,
    EXTENDED,
    TOKEN_PATH,
    TTL_HEADER,
    Instance,
    imds_credentials,
    imds_error,
    imds_extended,
    metadata_reply,
)
from vaultd.web.connection import SdkServer
from vaultd.web.guard import FOREIGN_AT_DOOR, Guard
from vaultd.web.limits import Crowd, Limits
from vaultd.web.replies import Reply, Request, as_asked, refused
from vaultd.web.serving import Rendered, Served, Serving, Witness

#: Seconds for credentials that are not ready.
PATIENCE: Final = 0.4

_TOKEN_HEADER: Final = b"x-aws-ec2-metadata-token"
_TTL_HEADER: Final = TTL_HEADER.lower().encode()
_TTL_DIGITS: Final = len(str(metadata_tokens.LONGEST_TTL))
_SLASHES: Final = re.compile("//+")
_KEYS: Final = (f"{CREDENTIALS}/", f"{EXTENDED}/")

_MALFORMED: Final = BadRequest(
    "The request is not plain HTTP/1.1 with one Host and no body; "
    "set the tool up with `vault-client use --imds PROFILE`."
)
#: Sentences, not exceptions: one that is raised again keeps each traceback, and in it the request with its token.
_BAD_TTL: Final = (
    f"A metadata token needs the header {TTL_HEADER} once, from 1 to {metadata_tokens.LONGEST_TTL}; "
    "send `PUT /latest/api/token` with it."
)
_NO_TOKEN: Final = (
    "The metadata token is missing, past its time or of another port; ask for one with `PUT /latest/api/token`, "  # noqa: S105
    "and where none helps type `vault-client use --imds PROFILE`."
)
_NOT_FOUND: Final = "There is no such metadata; set the tool up with `vault-client use --imds PROFILE`."
_NOT_ALLOWED: Final = (
    "Metadata is read with GET, and its token is asked for with PUT alone; "
    "set the tool up with `vault-client use --imds PROFILE`."
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Behind:
    """What stands behind every door of the daemon; `plain` and `extended` are the two renderings of credentials."""

    serving: Serving
    grants: Grants
    audit: Witness
    peers: Peers
    clock: Clock
    limits: Limits
    crowd: Crowd
    plain: Rendered
    extended: Rendered

    @staticmethod
    def renderings() -> tuple[Rendered, Rendered]:
        """`plain` and `extended`."""
        return Rendered(imds_credentials), Rendered(imds_extended)


class DoorSide:
    """One listener, for one grant. A Gate of its connections."""

    def __init__(self, behind: Behind, grant: Grant) -> None:
        assert grant.metadata_key is not None
        self._behind = behind
        self._grant = grant
        self._key = grant.metadata_key
        self._rendered = dict(
            zip((f"{each}{grant.slug}" for each in _KEYS), (behind.plain, behind.extended), strict=True)
        )
        self._tree: tuple[str | None, dict[str, bytes]] | None = None
        self.peers, self.limits, self.crowd = behind.peers, behind.limits, behind.crowd
        self.malformed, self.internal = closing(imds_error(_MALFORMED)), closing(imds_error(VaultdError("")))
        self._guard = Guard(port=0)
        self._server: SdkServer | None = None
        self._sock: socket.socket | None = None
        self._listener: asyncio.Server | None = None
        self._closed = False

    # ---- its life ----

    async def start(self, sock: socket.socket, *, hosts: Collection[str]) -> None:
        """Serve on a bound TCP socket, which is ours from now on; `hosts` are what Host may name."""
        loop = asyncio.get_running_loop()
        self._guard = Guard(port=sock.getsockname()[1], hosts=hosts, foreign=FOREIGN_AT_DOOR)
        self._server = SdkServer(self._answer, gate=self, loop=loop)
        try:
            self._listener = await loop.create_server(self._server, sock=sock, backlog=a_turn())
            queue_up(sock)
        except BaseException:
            sock.close()
            raise
        self._sock = sock
        if self._closed:  # the grant ended meanwhile
            self.close()

    def close(self) -> None:
        """Free the port at once, and cut off who is connected: the grant has ended."""
        self._refuse()
        if self._server is not None:
            for each in list(self._server.connections):
                each.abort()  # type: ignore[attr-defined]  # they are ours: SdkServer makes no others

    async def stop(self, *, deadline: float) -> None:
        """No new connections; requests that are being answered have `deadline` seconds."""
        self._refuse()
        if self._server is not None:
            await self._server.shutdown(deadline)

    def _refuse(self) -> None:
        """While it is being opened, what is opened is closed by `start`: a loop has the socket's descriptor."""
        self._closed = True
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def turned_away(self, sighting: Sighting) -> None:
        """A peer of another user was cut off at accept."""
        self._behind.audit.denied(reason="ForbiddenPeer", grant=self._grant, sighting=sighting)

    # ---- a request ----

    def answer_now(self, message: RawRequestMessage, sighting: Sighting) -> Reply | None:
        """The answer to everything but credentials that have to be made: None."""
        try:
            return self._decided(message, sighting)
        except Exception as exc:  # noqa: BLE001 (logged with its traceback, and the CRT has to be spared the 500)
            return self._failed(exc, message)

    def _decided(self, message: RawRequestMessage, sighting: Sighting) -> Reply | None:
        if (refusal := self._guard.refusal(message)) is not None:
            return self._refused(refusal, message, sighting)
        path = _plain(message.path)
        try:
            if path == TOKEN_PATH:
                return as_asked(self._token(message), message)
            grant = self._entered(message)
            if path.startswith(_KEYS):
                return self._ready(grant, path, message, sighting)
            return as_asked(self._told(grant, path), message)
        except VaultdError as exc:
            return self._failing(exc, path, message, sighting)

    async def _answer(self, request: Request) -> Reply:
        """A request that aiohttp's loop took: it had to wait for its credentials, or for its turn."""
        message, sighting = request.parsed, request.line.sighting
        if (reply := self.answer_now(message, sighting)) is not None:
            return reply
        if self._behind.serving.unmet(self._grant, sighting) and not request.line.present():
            return Reply(b"", keep=False)
        path = _plain(message.path)
        try:
            return self._serving(await self._made(path, sighting), message, sighting)
        except VaultdError as exc:
            return self._failing(exc, path, message, sighting)
        except Exception as exc:  # noqa: BLE001 (as above)
            return self._failed(exc, message)

    # ---- the token path ----

    def _token(self, message: RawRequestMessage) -> bytes:
        if message.method != "PUT":
            raise MethodNotAllowed(_NOT_ALLOWED)
        asked = _only(message, _TTL_HEADER)
        ttl = int(asked) if asked.isdigit() and len(asked) <= _TTL_DIGITS else 0
        if not 1 <= ttl <= metadata_tokens.LONGEST_TTL:
            raise BadRequest(_BAD_TTL)
        expiry = self._behind.clock.now() + timedelta(seconds=ttl)
        token = metadata_tokens.make(self._key, expiry=expiry, nonce=secrets.token_bytes(metadata_tokens.NONCE_SIZE))
        return metadata_reply(token, headers={TTL_HEADER: str(ttl)})

    def _entered(self, message: RawRequestMessage) -> Grant:
        """405 and 401 come before the path is looked at."""
        if message.method != "GET":
            raise MethodNotAllowed(_NOT_ALLOWED)
        token = _only(message, _TOKEN_HEADER)
        if not metadata_tokens.check(self._key, token, self._behind.clock.now()):
            raise InvalidToken(_NO_TOKEN)
        grant = self._behind.grants.entered(self._grant.id)
        if grant is None:
            raise InvalidToken(_NO_TOKEN)
        return grant

    # ---- what the grant says ----

    def _told(self, grant: Grant, path: str) -> bytes:
        region = grant.overrides.region or self._region(grant)
        if self._tree is None or self._tree[0] != region:
            told = Instance(grant.id, grant.slug, grant.role_arn or grant.user_arn, region, grant.created).tree()
            self._tree = region, {each: metadata_reply(text) for each, text in told.items()}
        found = self._tree[1].get(path)
        if found is None:
            raise NotFound(_NOT_FOUND)
        return found

    def _region(self, grant: Grant) -> str | None:
        """None where no file names one, and where the profile is broken or gone: nothing is invented."""
        try:
            return self._behind.serving.plan(grant).region
        except VaultdError:
            return None

    # ---- credentials ----

    def _ready(self, grant: Grant, path: str, message: RawRequestMessage, sighting: Sighting) -> Reply | None:
        rendered = self._rendering(path)
        serving = self._behind.serving
        plan = serving.plan(grant)
        if sighting.badge.cleared != grant.id and not serving.cleared(grant, sighting):
            return None
        served = serving.ready(grant, plan, rendered, patience=PATIENCE)
        return None if served is None else self._serving(served, message, sighting)

    async def _made(self, path: str, sighting: Sighting) -> Served:
        serving = self._behind.serving
        plan, rendered = serving.plan(self._grant), self._rendering(path)
        left = await serving.admitted(self._grant, plan, sighting, patience=PATIENCE)
        ready = None if serving.locked else serving.ready(self._grant, plan, rendered, patience=left)
        return ready or await serving.made(self._grant, plan, sighting, rendered, patience=left)

    def _rendering(self, path: str) -> Rendered:
        found = self._rendered.get(path)
        if found is None:
            raise NotFound(_NOT_FOUND)
        return found

    def _serving(self, served: Served, message: RawRequestMessage, sighting: Sighting) -> Reply:
        sent = self._behind.serving.sent(served, sighting, self._behind.audit)
        return as_asked(served.message, message, sent)

    # ---- errors ----

    def _refused(self, error: VaultdError, message: RawRequestMessage, sighting: Sighting) -> Reply:
        """400 on PUT, whatever it is: SDKs take a 403 there for "no IMDSv2 here"."""
        if error.status == 403:
            self._behind.audit.denied(reason=error.code, grant=self._grant, sighting=sighting)
        else:
            error = _MALFORMED
        status = 400 if message.method == "PUT" else error.status
        return refused(imds_error(error, status=status), message)

    def _failing(self, error: VaultdError, path: str, message: RawRequestMessage, sighting: Sighting) -> Reply:
        if error.status == 401:
            self._behind.audit.denied(reason=wire_code(error), grant=self._grant, sighting=sighting)
        elif path in self._rendered and not isinstance(error, MethodNotAllowed):
            self._behind.audit.denied(reason=wire_code(error), grant=self._grant, sighting=sighting)
            return self._unserved(imds_error(error, status=403), message)
        elif type(error) is NotFound:
            return self._unserved(imds_error(error), message)
        allow = "PUT" if path == TOKEN_PATH else "GET"
        return as_asked(imds_error(error, allow=allow), message)

    def _failed(self, exc: Exception, message: RawRequestMessage) -> Reply:
        log.error("fail request error=%s", type(exc).__name__, exc_info=exc)
        return self._unserved(self.internal, message)

    def _unserved(self, error: bytes, message: RawRequestMessage) -> Reply:
        """No credentials: told, or to the CRT not a word."""
        if _plain(message.path).startswith(_KEYS) and closes_on_error(_only(message, b"user-agent")):
            return Reply(b"", keep=False)
        return Reply(error, keep=False) if error is self.internal else as_asked(error, message)


def _plain(path: str) -> str:
    """Repeated slashes as one, and none at the end: AWS CLI 2 asks `//latest/…` (sdk-facts §10.1)."""
    return (_SLASHES.sub("/", path) if "//" in path else path).rstrip("/")


def _only(message: RawRequestMessage, name: bytes) -> bytes:
    """The value of a header that was sent once; else empty."""
    found = [value for each, value in message.raw_headers if each.lower() == name]
    return found[0] if len(found) == 1 else b""
