"""One end of the socketpair between daemon and keeper, on the loop of that end.

Rule: what is sent leaves in the same turn as far as the socket takes it, so that a lock is on its way before anything
else runs; what comes is handed on in order. An end that is gone is told once, and nothing is raised to whoever sends.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from vaultd.keeper.wire import Frames, Malformed, Message, framed

_CHUNK = 256 * 1024


class Line:
    """`take` gets each message, `gone` the end: of the other side, or of one that talks nonsense (True)."""

    def __init__(self, sock: socket.socket, *, take: Callable[[Message], None], gone: Callable[[bool], None]) -> None:
        self._sock = sock
        self._take = take
        self._gone = gone
        self._frames = Frames()
        self._waiting = bytearray()
        self._open = True
        self._loop = asyncio.get_running_loop()
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._readable)

    def send(self, message: Message) -> None:
        """Send it, or the rest of it as soon as the other end takes more."""
        if not self._open:
            return
        idle = not self._waiting
        self._waiting += framed(message)
        if idle:
            self._flush()

    def close(self) -> None:
        """Let go of the socket; `gone` is not called for it."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
            self._sock.close()
            self._waiting.clear()

    def _flush(self) -> None:
        try:
            while self._waiting:
                del self._waiting[: self._sock.send(self._waiting)]
        except BlockingIOError:
            self._loop.add_writer(self._sock.fileno(), self._flush)
            return
        except OSError:  # gone; what it said last may still be there to be read, so the reader is to find the end
            self._waiting.clear()
        self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        try:
            part = self._sock.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if not part:
            self._end(nonsense=False)
            return
        try:
            for message in self._frames.feed(part):
                self._take(message)
                if not self._open:
                    return
        except Malformed:
            self._end(nonsense=True)

    def _end(self, *, nonsense: bool) -> None:
        if self._open:
            self.close()
            # Not within whoever was sending: he is to have left his own words in order before he hears of the end.
            self._loop.call_soon(self._gone, nonsense)
