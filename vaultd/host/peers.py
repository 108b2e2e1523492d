"""Who is at the other end of a TCP connection on this machine: the kernel's answer, asked for each connection.

Rule (security.md §0.2): a peer is let in only while its socket has an inode, belongs to our uid, and is established or
half-closed. A client that sends and closes is reported with inode 0 and, after 40 ms, as uid 0: "root may" would let
every user in. Whatever cannot be looked up is refused, and so is a client outside our network namespace (§0.3), which
the kernel does not find at all.

The question is one NETLINK_SOCK_DIAG exact look-up of the client's socket (3.6 µs, constant at 9,000 connections).
/proc/net/tcp is read only where the kernel has no such netlink family (0.85 ms and more).
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from pathlib import Path
from typing import Final, NamedTuple

ESTABLISHED: Final = 1
FIN_WAIT1: Final = 4
FIN_WAIT2: Final = 5
#: The last two are a half-closed client; an orphan has inode 0 in every state (security.md §0.2).
LIVING: Final = frozenset({ESTABLISHED, FIN_WAIT1, FIN_WAIT2})

#: (address, TCP port) as the event loop's transports give it.
Address = tuple[str, int]

_NETLINK: Final = 16
_SOCK_DIAG: Final = 4
_DIAG_BY_FAMILY: Final = 20
_NO_COOKIE: Final = 0xFFFFFFFF
_MAPPED: Final = "::ffff:"
_LOOPBACK: Final = b"\x7f\0\0\1"

#: linux/netlink.h nlmsghdr, then linux/inet_diag.h inet_diag_req_v2: an exact question, no dump.
_HEADER: Final = struct.pack("=IHHII", 72, _DIAG_BY_FAMILY, 1, 0, 0) + struct.pack("=BBBBI", 2, 6, 0, 0, 0xFFFFFFFF)
#: inet_diag_sockid: ports and addresses in network order (16 bytes an address, of which IPv4 uses 4).
_ENDS: Final = struct.Struct("!HH4s12x4s12x")
_ENDS_AT: Final = len(_HEADER)
_SCOPE_AT: Final = _ENDS_AT + _ENDS.size
#: Interface index and "no cookie".
_SCOPE: Final = struct.Struct("=III")
#: nlmsghdr, then inet_diag_msg: length, type, state, source port, destination port, uid, inode.
_ANSWER: Final = struct.Struct("=IH10x x B 2x 4s 56x II")


class PeerSocket(NamedTuple):
    """The client's end as the kernel has it: owner, inode (0: nobody holds it any more) and TCP state number."""

    uid: int
    inode: int
    state: int


class Peers:
    """Look-ups of TCP clients. One netlink socket for all of them, opened anew after any error.

    `proc_tcp` is where the fallback reads; `own_uid` is ours unless a test says otherwise.
    """

    def __init__(self, *, own_uid: int | None = None, proc_tcp: Path = Path("/proc/net/tcp")) -> None:
        self.own_uid = os.getuid() if own_uid is None else own_uid
        self._proc_tcp = proc_tcp
        self._question = bytearray(_HEADER + bytes(_ENDS.size) + _SCOPE.pack(_loopback(), _NO_COOKIE, _NO_COOKIE))
        self._answer = bytearray(512)
        self._netlink: socket.socket | None = None

    def uid_of(self, local: Address, remote: Address) -> PeerSocket | None:
        """The socket of the client at `remote` that is connected to our `local`; None: there is none, or no answer."""
        try:
            ends = _ENDS.pack(remote[1], local[1], _packed(remote[0]), _packed(local[0]))
        except (OSError, struct.error):
            return None
        for _ in range(2):  # a broken netlink socket is replaced once, then the peer is refused
            netlink = self._netlink or self._open()
            if netlink is None:
                return self._read_proc(ends)
            try:
                return self._ask(netlink, ends)
            except OSError:
                self.close()
        return None

    def allowed(self, local: Address, remote: Address) -> bool:
        """The rule above, for one connection, now."""
        found = self.uid_of(local, remote)
        return found is not None and self.admits(found)

    def admits(self, found: PeerSocket) -> bool:
        """The rule above, for a socket that was looked up."""
        return found.inode != 0 and found.uid == self.own_uid and found.state in LIVING

    def close(self) -> None:
        """Give the netlink socket back; the next look-up opens another."""
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None

    def _ask(self, netlink: socket.socket, ends: bytes) -> PeerSocket | None:
        self._question[_ENDS_AT:_SCOPE_AT] = ends
        netlink.send(self._question)
        # The kernel answers inside send(): what is not there yet will not come (MSG_DONTWAIT by a non-blocking socket).
        if netlink.recv_into(self._answer) < _ANSWER.size:
            return None
        _, kind, state, ports, uid, inode = _ANSWER.unpack_from(self._answer)
        # A wrong pair of ports would be the answer to an older question: never believed.
        if kind != _DIAG_BY_FAMILY or ports != ends[:4]:
            return None
        return PeerSocket(uid=uid, inode=inode, state=state)

    def _open(self) -> socket.socket | None:
        """None where the kernel, or a sandbox without AF_NETLINK (security.md §0.8), has no such socket."""
        try:
            self._netlink = socket.socket(_NETLINK, socket.SOCK_RAW, _SOCK_DIAG)
        except OSError:
            return None
        self._netlink.setblocking(False)
        return self._netlink

    def _read_proc(self, ends: bytes) -> PeerSocket | None:
        """The same from /proc/net/tcp; addresses there are 32-bit words in host order, as hexadecimal."""
        source_port, target_port, source, target = _ENDS.unpack(ends)
        wanted = [f"{_word(source)}:{source_port:04X}", f"{_word(target)}:{target_port:04X}"]
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in self._proc_tcp.read_text("ascii").splitlines()[1:]:
                field = line.split()
                if field[1:3] == wanted:
                    return PeerSocket(uid=int(field[7]), inode=int(field[9]), state=int(field[3], 16))
        return None


def _packed(address: str) -> bytes:
    """Four bytes; a dual-stack listener's `::ffff:127.0.0.1` is the IPv4 connection that it is. OSError for others."""
    return _LOOPBACK if address == "127.0.0.1" else socket.inet_aton(address.removeprefix(_MAPPED))


def _word(address: bytes) -> str:
    return f"{int.from_bytes(address, sys.byteorder):08X}"


def _loopback() -> int:
    """The interface of the question: a client bound to `lo` is found only under it, an unbound one under any."""
    try:
        return socket.if_nametoindex("lo")
    except OSError:
        return 0
