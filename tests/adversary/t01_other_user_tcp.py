"""T1: another local user at every TCP listener. He has stolen every token, and still gets not one byte."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable

from tests.adversary import wire
from tests.adversary.case import Attack, Case
from tests.adversary.ground import KEYS_PATH, TOKEN_PATH, TTL, Ground, by, by_other, by_owner
from tests.adversary.people import OTHER, OWNER, as_user, become, command_of
from vaultd.host.peers import Peers

_LO = b"lo\0"
_CLOSES_AT_ONCE = struct.pack("ii", 1, 0)


def keys(ground: Ground) -> bytes:
    return wire.talk(ground.daemon, ground.get())


def no_token(ground: Ground) -> bytes:
    return wire.talk(ground.daemon, wire.request(f"GET {KEYS_PATH}", host=f"127.0.0.1:{ground.home.port}"))


def health(ground: Ground) -> bytes:
    return wire.talk(ground.daemon, wire.request("GET /healthz", host=f"127.0.0.1:{ground.home.port}"))


def malformed(ground: Ground) -> bytes:
    return wire.talk(ground.daemon, b"\0\xff nonsense\r\n\r\n")


def half_closed_health(ground: Ground) -> bytes:
    with contextlib.suppress(OSError), wire.connected(ground.daemon) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        return wire.read_all(sock)
    return b""


def half_closed(ground: Ground) -> bytes:
    with contextlib.suppress(OSError), wire.connected(ground.daemon) as sock:
        sock.sendall(ground.get())
        sock.shutdown(socket.SHUT_WR)
        return wire.read_all(sock)
    return b""


def pipelined(ground: Ground) -> bytes:
    one = ground.get().replace(b"Connection: close\r\n", b"")
    return wire.talk(ground.daemon, one + one + ground.get())


def in_pieces(ground: Ground) -> bytes:
    """A byte a segment, so that accept, look-up and parser fall between them."""
    with contextlib.suppress(OSError), wire.connected(ground.daemon) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in ground.get():
            sock.sendall(bytes([byte]))
        return wire.read_all(sock)
    return b""


def mapped(ground: Ground) -> bytes:
    """An IPv6 socket that reaches IPv4."""
    address = ("::ffff:127.0.0.1", ground.home.port)
    with contextlib.suppress(OSError), wire.connected(address, family=socket.AF_INET6) as sock:
        sock.sendall(ground.get())
        return wire.read_all(sock)
    return b""


def prepared(*prepare: Callable[[socket.socket], None]) -> Callable[[Ground], bytes]:
    """With a socket that was made ready so."""

    def act(ground: Ground) -> bytes:
        with contextlib.suppress(OSError), wire.connected(ground.daemon, prepare=prepare) as sock:
            sock.sendall(ground.get())
            return wire.read_all(sock)
        return b""

    return act


def forked(ground: Ground) -> bytes:
    """The process that connected is gone when the answer comes; its child reads."""
    reading, writing = os.pipe()
    middle = os.fork()
    if middle == 0:
        with contextlib.suppress(OSError):
            sock = wire.connected(ground.daemon)
            if os.fork() == 0:
                sock.sendall(ground.get())
                os.write(writing, wire.read_all(sock) or b"")
        os._exit(0)
    os.close(writing)
    os.waitpid(middle, 0)
    with os.fdopen(reading, "rb") as pipe:
        return pipe.read()


def passed_on(ground: Ground) -> bytes:
    """SCM_RIGHTS: one process connects, another of the same user asks."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(OSError), wire.connected(ground.daemon) as sock:
            socket.send_fds(theirs, [b"x"], [sock.fileno()])
        os._exit(0)
    theirs.close()
    found = socket.recv_fds(ours, 1, 1)[1]
    os.waitpid(pid, 0)
    if not found:
        return b""
    with contextlib.suppress(OSError), socket.socket(fileno=found[0]) as sock:
        sock.sendall(ground.get())
        return wire.read_all(sock)
    return b""


def roots_socket(uid: int) -> Attack:
    """Made by root (a setuid program), used by that user."""

    def act(ground: Ground) -> bytes:
        def inside() -> bytes:
            with contextlib.suppress(OSError), socket.socket() as sock:
                become(uid)
                sock.settimeout(wire.SECONDS)
                sock.connect(ground.daemon)
                sock.sendall(ground.get())
                return wire.read_all(sock)
            return b""

        return as_user(0, inside)

    return act


def _orphans(ground: Ground) -> int:
    """How often a rule that lets root in would have let a client in who sent and closed, and is another user's."""
    taken = 0
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()

        def leave() -> None:
            with wire.connected(address) as sock:
                sock.sendall(ground.get())

        as_user(OTHER, leave)
        accepted, remote = listener.accept()
        peers = Peers(own_uid=OWNER)
        end = time.monotonic() + 5
        with accepted:
            while not taken and time.monotonic() < end:
                found = peers.uid_of(accepted.getsockname(), remote)
                taken += found is not None and found.uid == 0
                time.sleep(0.005)
        peers.close()
    return taken


def uid_zero_trap(ground: Ground) -> bytes:
    """Send and close, many times: the grant tells whether one of them was served."""
    grant, token = ground.used()

    def leave() -> None:
        for _ in range(50):
            with contextlib.suppress(OSError), wire.connected(ground.daemon) as sock:
                sock.sendall(ground.get(token=token))

    # The kernel calls an orphan root's only after 40 ms (security.md §0.2): a busy daemon looks later than that.
    pid = ground.home.pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        as_user(OTHER, leave)
        time.sleep(0.3)
    finally:
        os.kill(pid, signal.SIGCONT)
    served = ground.last_used(grant)
    assert as_user(OWNER, lambda: wire.granted(wire.talk(ground.daemon, ground.get(token=token))))
    assert ground.last_used(grant), "the grant does not tell that it was served, so it proves nothing"
    return b"served" if served else b""


def uid_zero_control(ground: Ground) -> bytes:
    return b"served" * _orphans(ground)


def user_namespace(uid: int) -> Attack:
    """Inside a user namespace he has the owner's number."""

    def act(ground: Ground) -> bytes:
        script = (
            f"import os,socket;assert os.getuid()=={OWNER};"
            f"s=socket.create_connection(('127.0.0.1',{ground.home.port}),4);"
            f"s.sendall({ground.get()!r});r=b''\nwhile p:=s.recv(65536): r+=p\nos.write(1,r)"
        )
        inside = ["unshare", "--user", f"--map-user={OWNER}", sys.executable, "-I", "-c", script]
        done = subprocess.run([*command_of(uid), *inside], capture_output=True, check=False, timeout=20, cwd="/")
        assert b"AssertionError" not in done.stderr, done.stderr
        assert b"unshare" not in done.stderr, done.stderr
        return done.stdout

    return act


def door_put(ground: Ground) -> bytes:
    return wire.talk(("127.0.0.1", ground.door), ground.put())


def door_keys(ground: Ground) -> bytes:
    return wire.talk(("127.0.0.1", ground.door), ground.role())


def link_local_put(ground: Ground) -> bytes:
    return wire.talk(("169.254.169.254", 80), ground.put(host="169.254.169.254"))


def _stolen_question() -> bytes:
    """With a live metadata token of the owner's: what is attacked is the reading."""
    asked = wire.request(f"PUT {TOKEN_PATH}", TTL, host="169.254.169.254")
    reply = as_user(OWNER, lambda: wire.talk(("169.254.169.254", 80), asked))
    token = wire.body(reply).decode()
    path = "GET /latest/meta-data/iam/security-credentials/web-admin"
    return wire.request(path, f"X-aws-ec2-metadata-token: {token}", host="169.254.169.254")


def link_local_role(uid: int) -> Attack:
    def act(ground: Ground) -> bytes:
        sent = _stolen_question()
        return as_user(uid, lambda: wire.talk(("169.254.169.254", 80), sent))

    return act


def link_local_ecs(ground: Ground) -> bytes:
    sent = wire.request(f"GET {KEYS_PATH}", f"Authorization: {ground.token}", host="169.254.170.2")
    return wire.talk(("169.254.170.2", 80), sent)


def scan(ground: Ground) -> bytes:
    """Every TCP listener of this network that is not the naive ones', with every request that opens something."""
    found = b""
    with open("/proc/net/tcp", encoding="ascii") as lines:  # noqa: PTH123
        rows = [line.split() for line in list(lines)[1:]]
    for row in rows:
        if row[3] == "0A" and int(row[7]) == OWNER and row[1].startswith("0100007F"):
            port = int(row[1][9:], 16)
            if port != ground.naive_port:
                found += wire.talk(("127.0.0.1", port), ground.get(port=port), seconds=2)
    return found


def last_of_connection(uid: int) -> Attack:
    """While others' connections are being turned away."""

    def act(ground: Ground) -> bytes:
        idle = [wire.connected(ground.daemon) for _ in range(8)]  # root's: denied, too
        try:
            return as_user(uid, lambda: keys(ground))
        finally:
            for each in idle:
                each.close()

    return act


def _device(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, _LO)


def _other_source(sock: socket.socket) -> None:
    sock.bind(("127.7.7.7", 0))


def _reset_at_close(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _CLOSES_AT_ONCE)


def _tiny_window(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)


def fast_open(ground: Ground) -> bytes:
    """The request rides in the SYN where the kernel does it; else it follows it."""
    with contextlib.suppress(OSError), socket.socket() as sock:
        sock.sendto(ground.get(), socket.MSG_FASTOPEN, ground.daemon)
        return wire.read_all(sock)
    return b""


PROMISE = "Another user of the machine gets no byte from a TCP listener, whatever token he has"
OWNER_GETS = "the same by the owner's uid is answered"


def _pair(name: str, act: Callable[[Ground], bytes], *, promise: str = PROMISE) -> Case:
    return Case(name, "T1", promise, by_other(act), OWNER_GETS, by_owner(act))


CASES = (
    _pair("T1-stolen-token", keys),
    Case(
        "T1-stolen-token-naive", "T1", PROMISE,
        by_other(keys),
        "the same uid at a server without a check", by_other(lambda ground: wire.talk(ground.naive, ground.get())),
    ),
    _pair("T1-no-token", no_token),
    _pair("T1-healthz", health),
    _pair("T1-malformed", malformed),
    _pair("T1-half-closed-healthz", half_closed_health),
    _pair("T1-half-closed", half_closed),
    _pair("T1-pipelined", pipelined),
    _pair("T1-byte-by-byte", in_pieces),
    _pair("T1-ipv4-mapped", mapped),
    _pair("T1-bound-to-lo", prepared(_device)),
    _pair("T1-another-source-address", prepared(_other_source)),
    _pair("T1-linger-reset", prepared(_reset_at_close)),
    _pair("T1-tiny-window", prepared(_tiny_window)),
    _pair("T1-fast-open", fast_open),
    _pair("T1-fork-and-exit", forked),
    _pair("T1-descriptor-passed-on", passed_on),
    Case(
        "T1-roots-socket-then-setuid", "T1", "A socket that root made is nobody's but root's",
        roots_socket(OTHER), OWNER_GETS, by_owner(keys),
    ),
    Case("T1-root-himself", "T1", "Root is no exception to the uid check", by(0, keys), OWNER_GETS, by_owner(keys)),
    Case(
        "T1-uid-0-trap", "T1", "A client that sends and closes is served nothing, though the kernel calls it root's",
        uid_zero_trap, "a rule that lets root in takes the same client at a listener of the tests' own",
        uid_zero_control,
    ),
    Case(
        "T1-user-namespace", "T1", "The owner's number inside a user namespace is not the owner",
        user_namespace(OTHER), "the same program by the owner in a user namespace of his own is answered",
        user_namespace(OWNER),
    ),
    _pair("T1-imds-door-token", door_put, promise="Another user gets no metadata token from an IMDS door"),
    _pair("T1-imds-door-keys", door_keys, promise="Another user gets nothing from a door by a stolen metadata token"),
    _pair("T1-link-local-token", link_local_put, promise="Another user gets no metadata token from 169.254.169.254"),
    Case(
        "T1-link-local-keys", "T1", "Another user gets nothing from 169.254.169.254 by a stolen metadata token",
        link_local_role(OTHER), OWNER_GETS, link_local_role(OWNER),
    ),
    _pair("T1-container-address", link_local_ecs, promise="Another user gets nothing from 169.254.170.2"),
    _pair("T1-scan-of-all-listeners", scan, promise="No listener of the owner's daemon says a byte to another user"),
    Case(
        "T1-beside-others-turned-away", "T1", PROMISE, last_of_connection(OTHER), OWNER_GETS, last_of_connection(OWNER),
    ),
)  # fmt: skip
