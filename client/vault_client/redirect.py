"""The way of a secret URL into a browser: one redirect on 127.0.0.1, under a path that nobody can guess, given once.

A browser is started with its address on argv, and argv is open to every user of the machine (/proc/*/cmdline): so it is
given an address of ours, which leads to the real one.

Rules
- The real URL is told once, to a socket of this user (the kernel's table says whose it is), for the exact path; then,
  or after `seconds`, nobody listens any more. Any other request gets 404 and learns nothing.
- Others may read the address, too: their connections end before a byte is read, and take no browser's place.
- Nothing is written to a disk: a file would be closed to the browsers of snap and flatpak, and would stay after a kill.
"""

# pathlib may not load at start-up (architecture.md §2), so os.path it is.
# ruff: noqa: PTH123
from __future__ import annotations

import os
import secrets
import select
import socket
import sys
import time
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

#: How long a browser may take to come, and how often somebody looks whether it has failed meanwhile.
SECONDS, LOOK = 30.0, 0.2
_MOST, _LONGEST = 32, 16 * 1024
_LOCAL = "0100007F" if sys.byteorder == "little" else "7F000001"
_MAPPED = "0000000000000000FFFF0000" if sys.byteorder == "little" else "00000000000000000000FFFF"


class Redirect:
    """Listens inside `with`. `whoever`: the other end is no process of this system (Windows, from WSL), so the
    path alone has to do.
    """

    def __init__(self, target: str, *, whoever: bool = False) -> None:
        self._target = target
        self._whoever = whoever
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port: int = self._listener.getsockname()[1]
        self._path = f"/{secrets.token_urlsafe(32)}"
        self._open: dict[socket.socket, bytearray] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listener, *self._open):
            each.close()
        self._open.clear()

    @property
    def address(self) -> str:
        """What the browser is started with."""
        return f"http://127.0.0.1:{self._port}{self._path}"

    def given(self, *, seconds: float, failed: Callable[[], bool]) -> bool:
        """True when the URL was told; False after `seconds`, or once `failed` says that nobody will come."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            ready, _, _ = select.select([self._listener, *self._open], [], [], min(left, LOOK))
            for each in ready:
                if each is self._listener:
                    self._accept()
                elif each in self._open and self._read(each):  # it may have had to make room in this very turn
                    return True
            if not ready and failed():
                return False
        return False

    def _accept(self) -> None:
        """A browser opens connections ahead and leaves them empty, so each is read when it says something."""
        with suppress(OSError):
            came, _ = self._listener.accept()
            if not self._ours(came):
                came.close()
                return
            came.setblocking(False)
            if len(self._open) >= _MOST:
                self._end(next(iter(self._open)))
            self._open[came] = bytearray()

    def _read(self, came: socket.socket) -> bool:
        heard = self._open[came]
        try:
            piece = came.recv(4096)
        except BlockingIOError:
            return False
        except OSError:
            piece = b""
        heard += piece
        whole = b"\r\n\r\n" in heard
        if piece and not whole and len(heard) <= _LONGEST:
            return False
        told = whole and self._wanted(came, bytes(heard))
        if told:  # before the answer goes out: nobody comes second
            self._listener.close()
        with suppress(OSError):
            if piece:
                came.setblocking(True)
                came.settimeout(2.0)
                came.sendall(self._found() if told else _NOTHING)
        self._end(came)
        return told

    def _end(self, came: socket.socket) -> None:
        del self._open[came]
        came.close()

    def _wanted(self, came: socket.socket, heard: bytes) -> bool:
        head = heard.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        hosts = [line.partition(":")[2].strip() for line in head[1:] if line.lower().startswith("host:")]
        words = head[0].split(" ")
        asked = len(words) == 3 and words[0] == "GET" and secrets.compare_digest(words[1].encode(), self._path.encode())
        if not asked or hosts != [f"127.0.0.1:{self._port}"]:  # by another name: a page that was rebound to us
            return False
        return self._ours(came)

    def _ours(self, came: socket.socket) -> bool:
        """At accept, and once more before the URL is told (security.md §1 T1)."""
        try:
            return self._whoever or owner_of(came.getpeername()[1], self._port) in {None, os.getuid()}
        except OSError:  # he has reset it: nobody is there
            return False

    def _found(self) -> bytes:
        fields = (
            f"Location: {self._target}",
            "Cache-Control: no-store",
            "Referrer-Policy: no-referrer",
            "X-Content-Type-Options: nosniff",
            "Connection: close",
            "Content-Length: 0",
        )
        return ("HTTP/1.1 303 See Other\r\n" + "\r\n".join(fields) + "\r\n\r\n").encode("ascii")


_NOTHING = b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
#: Somebody's, but the kernel's table has no such socket: nobody of this system.
_STRANGER = -1


def owner_of(theirs: int, ours: int, *, tables: tuple[str, ...] = ("/proc/net/tcp", "/proc/net/tcp6")) -> int | None:
    """The user whose socket 127.0.0.1:`theirs` is connected to ours; None where the kernel does not say (macOS)."""
    if not sys.platform.startswith("linux"):
        return None
    for table in tables:
        with suppress(OSError), open(table, encoding="ascii") as lines:
            for line in lines:
                fields = line.split()
                # An IPv6 socket may be connected to an IPv4 address (::ffff:127.0.0.1); inode 0: it is gone.
                named = [each.removeprefix(_MAPPED) for each in fields[1:3]]
                if named == [f"{_LOCAL}:{theirs:04X}", f"{_LOCAL}:{ours:04X}"] and fields[9] != "0":
                    return int(fields[7])
    return _STRANGER
