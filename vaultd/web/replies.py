"""What goes through aiohttp's loop: a request without its costly parts, and a reply that is bytes already.

Rule: a reply is one write of a message made beforehand: no `Server`, no `Date`, no compression, no 1xx, no redirect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from vaultd.engine.sightings import Sighting
from vaultd.model.dialects import closing, without_body


class Line(Protocol):
    """What is used of the connection."""

    sighting: Sighting

    async def deliver(self, reply: Reply) -> None:
        """Write it to a client that waited; ConnectionError when there is nobody."""

    def present(self) -> bool:
        """The client is still there."""

    def begin(self, head: bytes) -> bool:
        """Write the head of an answer that is dripped, to a peer that is looked up; False: the client is gone."""

    def drip(self, chunk: bytes) -> bool:
        """Write a chunk more; False: the client is gone."""


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
        self.line = cast("Line", protocol)
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

    def __repr__(self) -> str:
        """No byte of it; aiohttp's own would look for what is not made here."""
        return f"Reply(keep={self.keep})"

    @property
    def keep_alive(self) -> bool:
        """Whether aiohttp's loop waits for another request."""
        return self.keep

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """For a request that had to wait: aiohttp's loop ends here."""
        await cast("Request", request).line.deliver(self)
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """All was written by `prepare`."""


def as_asked(reply: bytes, message: RawRequestMessage, sent: Callable[[], None] | None = None) -> Reply:
    """Kept or closed as the client asked for; without a body for HEAD."""
    whole = _bare(reply, message)
    if message.should_close:
        return Reply(closing(whole), keep=False, sent=sent)
    return Reply(whole, sent=sent)


def refused(reply: bytes, message: RawRequestMessage) -> Reply:
    """400 and the guard's 403: a connection that sent such a thing is not kept."""
    return Reply(_bare(closing(reply), message), keep=False, linger=True)


def _bare(reply: bytes, message: RawRequestMessage) -> bytes:
    return without_body(reply) if message.method == "HEAD" else reply
