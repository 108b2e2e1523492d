"""Who may connect: the matrix of security.md §2.1 item 7, with real sockets of real other users."""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from vaultd.host import peers as peers_module
from vaultd.host.peers import ESTABLISHED, FIN_WAIT1, FIN_WAIT2, LIVING, Address, Peers, PeerSocket

ALICE, BOB = 12345, 65534
TIME_WAIT, CLOSE_WAIT, LISTEN = 6, 8, 10

#: Runs as the child: connect, do what the case says, tell, and wait to be let go.
_CHILD = """
import os, socket, struct, sys
case, port, uid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if case != "root-socket":
    os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
family = socket.AF_INET6 if case == "mapped" else socket.AF_INET
sock = socket.socket(family)
if case == "root-socket":
    os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
if case == "bound":
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
sock.connect(("::ffff:127.0.0.1" if case == "mapped" else "127.0.0.1", port))
if case in ("close", "half"):
    sock.send(b"GET / HTTP/1.1\\r\\n\\r\\n")
if case == "half":
    sock.shutdown(socket.SHUT_WR)
if case == "close":
    sock.close()
if case == "reset":
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
if case == "fork" and os.fork():
    print("done", flush=True)
    os._exit(0)
if case == "fork":
    os.setsid()
print("done", flush=True)
sys.stdin.read()
"""


@dataclass
class Client:
    """An accepted connection of a child process."""

    local: Address
    remote: Address
    accepted: socket.socket

    def seen_by(self, uid: int) -> bool:
        with closing(Peers(own_uid=uid)) as peers:
            return peers.allowed(self.local, self.remote)

    def found(self) -> PeerSocket | None:
        with closing(Peers()) as peers:
            return peers.uid_of(self.local, self.remote)


@contextmanager
def client(case: str, uid: int) -> Iterator[Client]:
    """A child of `uid` that has done what `case` says and still lives."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        port = listener.getsockname()[1]
        child = subprocess.Popen(
            ["/usr/bin/env", "-i", sys.executable, "-I", "-S", "-c", _CHILD, case, str(port), str(uid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            accepted, remote = listener.accept()  # after a reset getpeername would fail
            assert child.stdout.readline() == b"done\n"
            with accepted:
                yield Client(accepted.getsockname(), remote, accepted)
        finally:
            child.stdin.close()
            child.wait(10)
            child.stdout.close()


@pytest.mark.needs("root")
@pytest.mark.parametrize(
    ("case", "alice", "states"),
    [
        ("connect", True, {ESTABLISHED}),
        ("mapped", True, {ESTABLISHED}),
        ("bound", True, {ESTABLISHED}),
        ("half", True, {FIN_WAIT1, FIN_WAIT2}),
        ("fork", True, {ESTABLISHED}),
        ("close", False, {FIN_WAIT1, FIN_WAIT2}),
        ("reset", False, {None}),
    ],
)
def test_matrix(case: str, alice: bool, states: set[int | None]) -> None:
    """Alice's living sockets pass for Alice alone; orphaned and reset ones for nobody, root least of all."""
    with client(case, ALICE) as seen:
        found = seen.found()
        assert seen.seen_by(ALICE) == alice
        assert not seen.seen_by(BOB)
        assert not seen.seen_by(0)
        assert (None if found is None else found.state) in states
        if alice:
            assert found is not None
            assert found.uid == ALICE
            assert found.inode > 0


@pytest.mark.needs("root")
def test_another_user_is_refused() -> None:
    """Bob is told from Alice; the positive control is Bob before Bob's own daemon."""
    with client("connect", BOB) as seen:
        assert not seen.seen_by(ALICE)
        assert seen.seen_by(BOB)


@pytest.mark.needs("root")
def test_uid_0_trap() -> None:
    """A client that sends and closes ends up as uid 0, inode 0: a rule that lets root in would let everybody in."""
    with client("close", BOB) as seen:
        found = seen.found()
        while found is not None and found.state == FIN_WAIT1:  # until our kernel acknowledges the FIN, 40 ms later
            assert not seen.seen_by(BOB)
            found = seen.found()
        assert found is not None
        assert (found.uid, found.inode) == (0, 0)
        assert not seen.seen_by(0)
        assert not seen.seen_by(BOB)
    with client("connect", 0) as seen:
        assert seen.seen_by(0)


@pytest.mark.needs("root")
def test_socket_made_as_root() -> None:
    """A socket belongs to whom made it: root's, used by Alice, is not Alice's."""
    with client("root-socket", ALICE) as seen:
        assert not seen.seen_by(ALICE)
        assert seen.found() == PeerSocket(uid=0, inode=_inode(seen), state=ESTABLISHED)


def _inode(seen: Client) -> int:
    found = seen.found()
    assert found is not None
    return found.inode


@pytest.mark.parametrize("state", range(1, 13))
@pytest.mark.parametrize("inode", [0, 7])
@pytest.mark.parametrize("uid", [0, ALICE, BOB])
def test_rule(state: int, inode: int, uid: int) -> None:
    """Inode ≠ 0, own uid, established or half-closed: all of it, and nothing else."""
    expected = inode == 7 and uid == ALICE and state in {ESTABLISHED, FIN_WAIT1, FIN_WAIT2}
    assert Peers(own_uid=ALICE).admits(PeerSocket(uid, inode, state)) == expected
    assert {TIME_WAIT, CLOSE_WAIT, LISTEN}.isdisjoint(LIVING)


@pytest.fixture
def pair() -> Iterator[tuple[Address, Address]]:
    """(local, remote) of a connection of our own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        local = listener.getsockname()
        with socket.create_connection(local) as sock, listener.accept()[0]:
            yield local, sock.getsockname()


def test_inode_is_the_clients(pair: tuple[Address, Address]) -> None:
    """The inode is that of the client's descriptor: what finds its process later."""
    with closing(Peers()) as peers, socket.create_connection(pair[0]) as sock:
        found = peers.uid_of(pair[0], sock.getsockname())
        assert found == PeerSocket(os.getuid(), os.fstat(sock.fileno()).st_ino, ESTABLISHED)
        mapped = (f"::ffff:{pair[0][0]}", pair[0][1]), (f"::ffff:{pair[1][0]}", pair[1][1])
        assert peers.allowed(*mapped)


@pytest.mark.parametrize(
    "remote", [("127.0.0.1", 1), ("127.0.0.2", 1), ("192.0.2.1", 50000), ("::1", 5), ("evil", 5), ("127.0.0.1", 70000)]
)
def test_who_is_not_found_is_refused(remote: Address, pair: tuple[Address, Address]) -> None:
    """No such socket, an address of elsewhere, or no address at all: None, never an exception."""
    with closing(Peers()) as peers:
        assert peers.uid_of(pair[0], remote) is None
        assert not peers.allowed(pair[0], remote)
        assert peers.allowed(*pair)


def test_listener_is_no_peer() -> None:
    """A look-up that falls through to a listener on the client's port does not pass for the client."""
    with closing(Peers()) as peers, socket.create_server(("127.0.0.1", 0)) as listener:
        assert not peers.allowed(("127.0.0.1", 9), listener.getsockname())


def test_netlink_socket_is_renewed(pair: tuple[Address, Address]) -> None:
    """A netlink socket that broke is replaced by the next look-up; one that is broken again and again refuses."""
    with closing(Peers()) as peers:
        assert peers.allowed(*pair)
        assert peers._netlink is not None
        os.close(peers._netlink.detach())
        peers._netlink = _Broken()
        assert peers.allowed(*pair)
    with closing(_AlwaysBroken()) as broken:
        assert not broken.allowed(*pair)


class _Broken(socket.socket):
    def send(self, data: object, flags: int = 0) -> int:
        raise OSError(errno.ENOBUFS, "no buffers")


class _AlwaysBroken(Peers):
    def _open(self) -> socket.socket:
        self._netlink = _Broken()
        return self._netlink


def _answer(ports: bytes, *, kind: int = 20) -> bytes:
    """What the kernel says of a living socket of ours with these ports."""
    head = struct.pack("=IHHIIBBBB", 88, kind, 0, 0, 0, 2, ESTABLISHED, 0, 0)
    return head + ports + bytes(56) + struct.pack("=II", os.getuid(), 7)


@pytest.mark.parametrize(
    ("made", "believed"),
    [
        (_answer, True),
        (lambda ports: _answer(ports, kind=2), False),
        (lambda ports: _answer(ports[2:] + ports[:2]), False),
        (lambda ports: _answer(ports)[:-1], False),
        (lambda _: struct.pack("=IHHIIi", 92, 2, 0, 0, 0, -errno.ENOENT) + bytes(72), False),
    ],
)
def test_answers(made: Callable[[bytes], bytes], believed: bool, pair: tuple[Address, Address]) -> None:
    """An error, a short answer or one to another question is none; the positive control is believed."""
    ours, kernels = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with closing(Peers()) as peers, kernels:
        ours.setblocking(False)
        peers._netlink = ours
        kernels.send(made(struct.pack("!HH", pair[1][1], pair[0][1])))
        assert peers.allowed(*pair) == believed


def test_without_netlink_proc_is_read(pair: tuple[Address, Address], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where AF_NETLINK is closed to us (security.md §0.8) /proc/net/tcp gives the same answer."""
    with closing(Peers()) as peers:
        expected = peers.uid_of(*pair)
    monkeypatch.setattr(peers_module, "_NETLINK", 9999)
    with closing(Peers()) as peers:
        assert peers.uid_of(*pair) == expected
        assert expected is not None
        assert peers.uid_of(pair[0], ("127.0.0.1", 1)) is None
    assert Peers(proc_tcp=Path("/nonexistent")).uid_of(*pair) is None


def test_rubbish_in_proc_is_refused(
    pair: tuple[Address, Address], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A table that cannot be understood lets nobody in."""
    monkeypatch.setattr(peers_module, "_NETLINK", 9999)
    table = tmp_path / "tcp"
    for text in ("", "header\nx\n", "header\n0: a b c\n", "\xff"):
        table.write_text(text)
        assert not Peers(proc_tcp=table).allowed(*pair)
