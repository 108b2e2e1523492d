"""A connection without a socket: the product's own protocol between a list of chunks and a list of bytes.

Rule: it behaves as a loop's transport does: nothing arrives while reading is paused, the loss of a connection is told
once and later, and nothing is sent after the end. Real sockets are in tests/web; here every split of the bytes is the
input's choice, and comes again the same way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

#: Turns of the loop that an answer may take; what waits for more than that waits for somebody.
TURNS = 40


class Pipe(asyncio.Transport):
    """The transport of one protocol; `sent` is what it wrote."""

    def __init__(self, protocol: asyncio.Protocol, known: Mapping[str, object]) -> None:
        super().__init__(known)
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self.sent = bytearray()
        self.ended = False
        self.reading = True
        self._over: asyncio.Future[None] = self._loop.create_future()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.ended:
            self.sent += data

    def writelines(self, parts: Any) -> None:
        for part in parts:
            self.write(part)

    def write_eof(self) -> None:
        """The other side is told by the end."""

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Never full: `drain` in the product is paused and resumed by hand."""

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_reading(self) -> bool:
        return self.reading

    def is_closing(self) -> bool:
        return self.ended

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if not self.ended:
            self.ended = True
            self._loop.call_soon(self._lost)

    def get_protocol(self) -> asyncio.Protocol:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert protocol is self._protocol

    def _lost(self) -> None:
        self._protocol.connection_lost(None)
        self._over.set_result(None)

    async def over(self) -> None:
        """The connection was lost, and the protocol knows."""
        await self._over


async def turns(count: int, until: Callable[[], bool] = lambda: False) -> None:
    """Let the loop turn so often, or until it holds."""
    for _ in range(count):
        if until():
            return
        await asyncio.sleep(0)


@dataclass(frozen=True, slots=True)
class How:
    """`half_close`: the client's end says that nothing more comes. `stall`: it does not read until all was sent."""

    half_close: bool = False
    stall: bool = False


PLAIN: Final = How()


async def converse(
    protocol: asyncio.Protocol,
    chunks: list[bytes],
    how: How = PLAIN,
    *,
    known: Mapping[str, object],
    patience: Callable[[Pipe], Awaitable[None]] | None = None,
) -> bytes:
    """Everything that the protocol answers to the chunks; the connection is closed and forgotten after it.

    `known` is what the transport tells of itself; `patience` is awaited once all was sent.
    """
    pipe = Pipe(protocol, known)
    protocol.connection_made(pipe)
    if how.stall and not pipe.ended:
        protocol.pause_writing()
    await _feed(pipe, protocol, chunks)
    if how.stall and not pipe.ended:
        protocol.resume_writing()
    if how.half_close and not pipe.ended and not protocol.eof_received():
        pipe.close()
    await turns(TURNS, lambda: pipe.ended)
    if patience is not None and not pipe.ended:
        await patience(pipe)
    pipe.close()
    await pipe.over()
    await turns(3)
    return bytes(pipe.sent)


async def _feed(pipe: Pipe, protocol: asyncio.Protocol, chunks: list[bytes]) -> None:
    for chunk in chunks:
        await turns(TURNS, lambda: pipe.reading or pipe.ended)
        if pipe.ended or not pipe.reading:
            return
        protocol.data_received(chunk)
