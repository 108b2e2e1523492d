"""`doors.sock`: a process of this user hands a listening socket over, and keeps it served for as long as it stays.

The other end is `vaultd link-local`, which a service manager started with a socket that only root can make.

Rules
- SO_PEERCRED comes before the first byte is read; another uid is closed unanswered (security.md §2.1 item 3).
- One JSON line of at most 4 KiB with exactly one descriptor, within 2 s; at most 4 connections, of which a further one
  is closed. Nothing that was sent is echoed or logged.
- The answer is one JSON line, `{"grant": id | null}` or {code, message, exit}. From then on the connection says whether
  the socket is served: either end closes it to end that. `{"over": reason}` before our close: do not come again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from vaultd.errors import BadRequest, VaultdError
from vaultd.host import processes, sockets
from vaultd.host.link_local import PLACES, Dialect, LinkLocal, given_listener
from vaultd.model.peer import Peer

PROTOCOL: Final = 1
LINE_LIMIT: Final = 4096
CONNECTIONS: Final = 4
SECONDS: Final = 2.0
#: Room for one descriptor too many, so that two are seen to be two.
_DESCRIPTORS: Final = 2

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Offer:
    """What is to be done with the socket, and who says so. `profile` is None for the dialect whose tokens tell it."""

    dialect: Dialect
    profile: str | None
    peer: Peer


class Held(Protocol):
    """A socket that is served."""

    @property
    def grant(self) -> str | None:
        """The id of the grant that it is of."""

    async def wait(self) -> str:
        """Returns why it is over, when it is before the other end leaves."""

    async def close(self) -> None:
        """No longer serve; not the end of a grant."""


#: Serves an offered socket, which is its own from then on even where it raises a VaultdError.
Take = Callable[[Offer, socket.socket], Awaitable[Held]]


class Handover:
    """The listener of `doors.sock`. `places` are the addresses that count; a test has its own."""

    def __init__(
        self,
        *,
        take: Take,
        places: Mapping[str, LinkLocal] = PLACES,
        own_uid: int | None = None,
        seconds: float = SECONDS,
    ) -> None:
        self._take = take
        self._places = places
        self._own_uid = processes.own_uid() if own_uid is None else own_uid
        self._seconds = seconds
        self._sock: socket.socket | None = None
        self._serving: set[asyncio.Task[None]] = set()

    def start(self, sock: socket.socket) -> None:
        """Accept on a listening, non-blocking unix socket, which stays its owner's to close."""
        self._sock = sock
        asyncio.get_running_loop().add_reader(sock.fileno(), self._accept)

    async def close(self) -> None:
        """Serve none of the sockets any more, within a moment."""
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock.fileno())
            self._sock = None
        for task in self._serving:
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving, timeout=self._seconds)

    def __len__(self) -> int:
        """How many connections there are."""
        return len(self._serving)

    def _accept(self) -> None:
        assert self._sock is not None
        try:
            conn, _ = self._sock.accept()
        except OSError:  # it left before it was accepted
            return
        peer = sockets.peer_of_unix(conn)
        if peer is None or peer.uid != self._own_uid:
            log.warning("refuse doors-peer uid=%s", None if peer is None else peer.uid)
            conn.close()
        elif len(self._serving) >= CONNECTIONS:
            log.warning("refuse doors-peer reason=crowded")
            conn.close()
        else:
            conn.setblocking(False)
            task = asyncio.ensure_future(self._serve(conn, peer))
            self._serving.add(task)
            task.add_done_callback(self._served)

    def _served(self, task: asyncio.Task[None]) -> None:
        self._serving.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.error("fail hand-over error=%s", type(exc).__name__, exc_info=exc)

    async def _serve(self, conn: socket.socket, peer: Peer) -> None:
        with conn:
            try:
                held = await self._taken(conn, peer)
            except TimeoutError:
                return
            except VaultdError as exc:
                _say(conn, {"code": exc.code, "message": exc.message, "exit": exc.exit})
                return
            if held is not None:
                await self._hold(conn, held)

    async def _taken(self, conn: socket.socket, peer: Peer) -> Held | None:
        async with asyncio.timeout(self._seconds):
            line, descriptor = await self._received(conn)
        if descriptor is None:
            return None
        try:
            offer, place = self._offer(line, peer)
        except BaseException:
            os.close(descriptor)
            raise
        return await self._take(offer, given_listener(descriptor, place=place))

    async def _hold(self, conn: socket.socket, held: Held) -> None:
        """Until the other end leaves, says more than it has to say, or the socket is over."""
        try:
            _say(conn, {"grant": held.grant})
            leaving = asyncio.ensure_future(_readable(conn))
            over = asyncio.ensure_future(held.wait())
            try:
                await asyncio.wait({leaving, over}, return_when=asyncio.FIRST_COMPLETED)
                if over.done() and not over.cancelled():
                    _say(conn, {"over": over.result()})
            finally:
                leaving.cancel()
                over.cancel()
        finally:
            await asyncio.shield(asyncio.wait_for(held.close(), self._seconds))

    async def _received(self, conn: socket.socket) -> tuple[bytes, int | None]:
        """The line and its descriptor; none when the other end left first. Raises BadRequest."""
        line, found = b"", list[int]()
        try:
            while not line.endswith(b"\n"):
                await _readable(conn)
                part, descriptors, flags, _ = socket.recv_fds(conn, LINE_LIMIT + 1, _DESCRIPTORS)
                found += descriptors
                line += part
                if not part:
                    return b"", None
                if len(line) > LINE_LIMIT or len(found) > 1 or flags & socket.MSG_CTRUNC:
                    raise BadRequest(_NOT_UNDERSTOOD)
            if len(found) != 1:
                raise BadRequest(_NOT_UNDERSTOOD)
            return line, found.pop()
        finally:
            for each in found:
                os.close(each)

    def _offer(self, line: bytes, peer: Peer) -> tuple[Offer, LinkLocal]:
        try:
            body = json.loads(line)
            dialect, profile = body["dialect"], body.get("profile")
            place = self._places[dialect]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            raise BadRequest(_NOT_UNDERSTOOD) from exc
        if body.get("protocol") != PROTOCOL:
            raise BadRequest(
                f"This vaultd takes sockets by protocol {PROTOCOL} and was offered one by another: restart the unit, "
                f"`sudo systemctl restart {place.unit}.service`.",
                field="protocol",
            )
        if not (profile is None if place.dialect == "ecs" else isinstance(profile, str)):
            raise BadRequest(_NOT_UNDERSTOOD)
        return Offer(place.dialect, profile, peer), place


#: A sentence, not an exception: one that is raised again and again keeps every traceback.
_NOT_UNDERSTOOD: Final = (
    "A socket is handed over as one JSON line with protocol, dialect and profile, and exactly one descriptor: "
    "use `vaultd link-local`."
)


def _say(conn: socket.socket, line: dict[str, Any]) -> None:
    # A line fits into the buffer of a connection on which nothing was said yet: it is sent whole, or nobody is there.
    with contextlib.suppress(OSError):
        conn.send(json.dumps(line).encode() + b"\n", socket.MSG_NOSIGNAL)


async def _readable(conn: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    there: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not there.done():
            there.set_result(None)

    loop.add_reader(conn.fileno(), wake)
    try:
        await there
    finally:
        loop.remove_reader(conn.fileno())
