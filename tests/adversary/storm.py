"""Randomised tries of the peer check: what a connection can do around the kernel's look-up, in any order and speed.

Each try is one connection of one kind, to one of the daemon's listeners, with whatever token is right there. Owner and
other user take their source ports from the same few, so that a look-up may meet the next owner of its address.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.adversary import wire
from tests.adversary.ground import Ground

SEED = 20261122
#: Source ports that everybody here uses, again and again.
_PORTS = range(20000, 20256)
_RESET = struct.pack("ii", 1, 0)
_SECONDS = 3.0


@dataclass
class Tally:
    """`got` are all bytes that were received, `secret` those of answers with a secret in them."""

    tries: int = 0
    not_connected: int = 0
    got: int = 0
    secret: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)


@dataclass
class Try:
    """One connection to be."""

    rng: random.Random
    uid: int
    address: wire.Address
    sent: bytes

    def made(self, family: int = socket.AF_INET) -> socket.socket:
        sock = socket.socket(family)
        sock.settimeout(_SECONDS)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # A close that resets leaves no TIME_WAIT behind, which would keep its source port from the next.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        if family == socket.AF_INET and self.rng.random() < 0.5:
            with contextlib.suppress(OSError):
                sock.bind(("127.0.0.1", self.rng.choice(_PORTS)))
        return sock

    def connect(self) -> socket.socket:
        sock = self.made()
        try:
            sock.connect(self.address)
        except OSError:
            sock.close()
            raise
        return sock

    def pause(self) -> None:
        """None at all, a turn of the scheduler, or up to a millisecond."""
        chance = self.rng.random()
        if chance > 0.7:
            time.sleep(0 if chance < 0.85 else self.rng.random() / 1000)


def _read(sock: socket.socket) -> bytes:
    return wire.read_all(sock, seconds=_SECONDS)


def _ask(made: Try) -> bytes:
    with made.connect() as sock:
        made.pause()
        sock.sendall(made.sent)
        return _read(sock)


def _connect_and_close(made: Try) -> bytes:
    with made.connect():
        made.pause()
    return b""


def _send_and_close(made: Try) -> bytes:
    """In order, not by reset: the orphan that the kernel calls root's."""
    with made.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
        sock.sendall(made.sent)
        made.pause()
    return b""


def _reset(made: Try) -> bytes:
    with made.connect() as sock:
        sock.sendall(made.sent[: made.rng.randrange(len(made.sent))])
        made.pause()
    return b""


def _half_close(made: Try) -> bytes:
    with made.connect() as sock:
        made.pause()
        sock.sendall(made.sent)
        sock.shutdown(socket.SHUT_WR)
        return _read(sock)


def _in_pieces(made: Try) -> bytes:
    with made.connect() as sock:
        cut = made.rng.randrange(1, len(made.sent))
        sock.sendall(made.sent[:cut])
        made.pause()
        sock.sendall(made.sent[cut:])
        return _read(sock)


def _mapped(made: Try) -> bytes:
    with made.made(socket.AF_INET6) as sock:
        sock.connect((f"::ffff:{made.address[0]}", made.address[1]))
        made.pause()
        sock.sendall(made.sent)
        return _read(sock)


def _in_flight(made: Try) -> bytes:
    """While the daemon looks, the connection is in no process: only in a message that nobody has read."""
    here, there = socket.socketpair(socket.AF_UNIX)
    with here, there:
        with made.connect() as sock:
            sock.sendall(made.sent)
            socket.send_fds(here, [b"x"], [sock.fileno()])
        made.pause()
        [descriptor] = socket.recv_fds(there, 1, 1)[1]
        with socket.socket(fileno=descriptor) as sock:
            return _read(sock)


def _fork_and_exit(made: Try) -> bytes:
    """Who connected is gone; the child that reads tells us by a pipe."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(OSError):
            sock = made.connect()
            if os.fork() == 0:
                made.pause()
                sock.sendall(made.sent)
                os.write(writing, _read(sock)[:60000])
        os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with os.fdopen(reading, "rb") as pipe:
        return pipe.read()


def _became_him(made: Try) -> bytes:
    """Root's socket, used by him: never his, and the owner's no more than anybody's."""
    os.seteuid(0)
    try:
        sock = made.made()
    finally:
        os.seteuid(made.uid)
    with sock:
        sock.connect(made.address)
        made.pause()
        sock.sendall(made.sent)
        return _read(sock)


KINDS: dict[str, tuple[Callable[[Try], bytes], float]] = {
    "ask": (_ask, 20),
    "connect and close": (_connect_and_close, 15),
    "send and close": (_send_and_close, 15),
    "reset": (_reset, 12),
    "half-close": (_half_close, 10),
    "in pieces": (_in_pieces, 10),
    "IPv4-mapped": (_mapped, 6),
    "descriptor in flight": (_in_flight, 6),
    "fork and exit": (_fork_and_exit, 2),
    "setuid after socket": (_became_him, 4),
}
#: Kinds whose owner is answered: what shows that the others are denied by their uid.
ANSWERED = ("ask", "half-close", "in pieces", "IPv4-mapped", "descriptor in flight", "fork and exit")


@contextmanager
def _acting_as(uid: int) -> Iterator[None]:
    """The effective uid alone, so that a try may begin as root; capabilities go with it."""
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def storm(ground: Ground, *, uid: int, token: str, tries: int, seed: int, seconds: float) -> Tally:
    """In a process of root's. Ends early when the time is over: the tally says how many there were."""
    rng, tally = random.Random(seed), Tally()
    targets = (
        (ground.daemon, ground.get(token=token)),
        (("127.0.0.1", ground.door), ground.put()),
        (("127.0.0.1", ground.door), ground.role()),
        (("169.254.169.254", 80), ground.put(host="169.254.169.254")),
    )
    names, weights = list(KINDS), [weight for _, weight in KINDS.values()]
    end = time.monotonic() + seconds
    with _acting_as(uid):
        while tally.tries < tries and time.monotonic() < end:
            name = rng.choices(names, weights)[0]
            address, sent = rng.choices(targets, (5, 2, 2, 1))[0]
            try:
                got = KINDS[name][0](Try(rng, uid, address, sent))
            except OSError as exc:
                if exc.errno in {errno.EADDRNOTAVAIL, errno.EADDRINUSE}:  # the source port is taken: no try
                    tally.not_connected += 1
                    continue
                got = b""  # cut off while sending: a try, and a denial
            _count(tally, ground, name, got)
    return tally


def _count(tally: Tally, ground: Ground, name: str, got: bytes) -> None:
    tally.tries += 1
    tally.kinds[name] += 1
    tally.answered[name] += bool(got)
    tally.got += len(got)
    tally.secret += len(ground.leaked(got))
