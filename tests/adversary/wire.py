"""Raw bytes to a TCP or unix socket, and everything that comes back; no library stands between."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Sequence

#: What a protected connection may take to be closed: first byte 2 s, and slow machines.
SECONDS = 4.0
Address = tuple[str, int]


def request(line: str, *fields: str, host: str | None = None) -> bytes:
    """A request that ends its connection; without `host` there is no Host."""
    hosts = [] if host is None else [f"Host: {host}"]
    return "\r\n".join([f"{line} HTTP/1.1", *hosts, *fields, "Connection: close", "", ""]).encode("latin-1")


def read_all(sock: socket.socket, *, seconds: float = SECONDS) -> bytes:
    """Until it is closed, reset or silent for too long."""
    end, got = time.monotonic() + seconds, b""
    with contextlib.suppress(OSError):
        while (left := end - time.monotonic()) > 0:
            sock.settimeout(left)
            part = sock.recv(65536)
            if not part:
                break
            got += part
    return got


def connected(
    address: Address, *, family: int = socket.AF_INET, prepare: Sequence[Callable[[socket.socket], None]] = ()
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.settimeout(SECONDS)
    for each in prepare:
        each(sock)
    sock.connect(address)
    return sock


def talk(address: Address, sent: bytes, *, seconds: float = SECONDS) -> bytes:
    """b"" also for who is not let in at all."""
    try:
        with connected(address) as sock:
            sock.sendall(sent)
            return read_all(sock, seconds=seconds)
    except OSError:
        return b""


def talk_unix(path: str, sent: bytes, *, seconds: float = SECONDS) -> bytes:
    """The same over a unix socket."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(seconds)
            sock.connect(path)
            sock.sendall(sent)
            return read_all(sock, seconds=seconds)
    except OSError:
        return b""


def status(reply: bytes) -> int:
    """0: no answer."""
    words = reply.split(b" ", 2)
    return int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/") else 0


def body(reply: bytes) -> bytes:
    return reply.partition(b"\r\n\r\n")[2]


def granted(reply: bytes) -> bytes:
    """What a caller gained by an answer: all of a 200, nothing of a refusal."""
    return reply if status(reply) in {200, 201} else b""
