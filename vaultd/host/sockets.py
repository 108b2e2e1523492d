"""Sockets from the operating system: listeners, activation, the peer of a unix socket, and word to the service manager.

Rules
- TCP listens on 127.0.0.1 of the loopback device only: with route_localnet a neighbour's packets reach 127.0.0.1 from
  outside, SO_BINDTODEVICE stops them (security.md §0.3). Never SO_REUSEPORT: another process could share the port.
- The control socket is born 0600 in a 0700 directory; a stale one is removed only by the holder of the daemon's lock,
  and only when nobody answers on it.
- Descriptors of socket activation arrive inheritable; they are made close-on-exec before anything else runs.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import pwd
import resource
import socket
import stat
import struct
import sys
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vaultd.errors import FileRefused, Unwritable
from vaultd.host import processes
from vaultd.layout import check_socket_path
from vaultd.model.peer import Peer

#: Under a foreign connect storm 100 cost the owner SYN retries of seconds, and 4,096 made him queue for seconds
#: (security.md §2.1 item 8a).
BACKLOG = 1024
_FIRST_ACTIVATED = 3  # sd_listen_fds(3)
_MAC_BOUND_IF = 25  # netinet/in.h IP_BOUND_IF
_MAC_PEERCRED, _MAC_PEERPID = 1, 2  # sys/un.h, level 0
_LISTENING = "0A"
#: What to do about a port that cannot be had.
ANOTHER = "for good by `[listen] port` in config.toml, for one start with `vaultd start --port N`."


class HasOptions(Protocol):
    """A socket, or asyncio's view of one."""

    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes:
        """As socket.socket.getsockopt."""


@dataclass(frozen=True, slots=True)
class Activated:
    """A listening socket that the service manager passed in, under the name of its unit's FileDescriptorName."""

    name: str
    sock: socket.socket


def listen_tcp(port: int, *, backlog: int = BACKLOG) -> socket.socket:
    """A listening, non-blocking socket on 127.0.0.1. Port taken: Unwritable naming the owner where he is known."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a restart must not wait for TIME_WAIT
        _bind_to_loopback(sock)
        sock.bind(("127.0.0.1", port))
        sock.listen(backlog)
        sock.setblocking(False)
    except OSError as exc:
        sock.close()
        raise _port_refused(port, exc) from exc
    return sock


def a_turn() -> int:
    """The backlog to tell an event loop: asyncio's own accepts that many in one turn and looks at none before its end,
    so 1,024 took the last of 256 descriptors, and 145,000 log lines with it. Four turns' worth may be open at once.
    uvloop hands each over as it comes. `queue_up` follows.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 100 if soft == resource.RLIM_INFINITY else min(100, max(8, soft // 32))


def queue_up(sock: socket.socket) -> None:
    """The kernel's queue back to its length, after a loop that was told `a_turn` made it as short as that."""
    with contextlib.suppress(OSError):  # else it stays short
        sock.listen(BACKLOG)


def listen_unix(path: Path, *, locked: bool, backlog: int = 128) -> socket.socket:
    """A listening, non-blocking socket at `path`, 0600. `locked`: the caller holds the daemon's lock.

    Raises Misconfigured (path too long), FileRefused (the directory or what is there is not ours), Unwritable.
    """
    check_socket_path(path)
    try:
        _check_private(path.parent)
        _clear_stale(path, locked=locked)
        return _bound(path, backlog)
    except OSError as exc:
        reason = os.strerror(exc.errno or 0).lower()
        raise Unwritable(f"{path} cannot be made ({reason}): mend that, then type `vaultd start`.") from exc


def peer_of_unix(sock: HasOptions) -> Peer | None:
    """Who connected, as of connect(): uid always, the rest where the process can still be read. None: refuse him."""
    try:
        uid, pid = _peer_ids(sock)
    except OSError:
        return None
    found = processes.look(pid) if pid > 0 else None
    if found is None:
        return Peer(uid=uid, pid=pid if pid > 0 else None)
    # The credentials are the kernel's word about the connection; the process may have changed its uid since.
    return Peer(uid=uid, pid=pid, exe=found.exe, argv0=found.argv0, started=found.started)


def activated(environ: MutableMapping[str, str] = os.environ) -> tuple[Activated, ...]:
    """The listening sockets passed in for this very process; the variables are removed, so no child believes them."""
    pid, count, names = (environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if pid != str(os.getpid()) or not count.isdecimal():
        return ()
    labels = names.split(":") if names else []
    found = []
    for offset in range(int(count)):
        sock = _passed_in(_FIRST_ACTIVATED + offset)
        if sock is not None:
            found.append(Activated(labels[offset] if offset < len(labels) else "", sock))
    return tuple(found)


def launchd_activated(name: str, *, library: Any = None) -> list[socket.socket]:
    """The listening sockets of a launchd job under the key `name` of its Sockets; none where there is no launchd.

    launchd gives them once a process and name, in an array that is ours to free (launch(3)).
    """
    system = ctypes.CDLL(None, use_errno=True) if library is None else library
    if not hasattr(system, "launch_activate_socket"):
        return []
    descriptors, count = ctypes.POINTER(ctypes.c_int)(), ctypes.c_size_t()
    if system.launch_activate_socket(name.encode(), ctypes.byref(descriptors), ctypes.byref(count)) != 0:
        return []
    try:
        given = [descriptors[place] for place in range(count.value)]
    finally:
        system.free(descriptors)
    return [sock for each in given if (sock := _passed_in(each)) is not None]


def notify(state: str, environ: MutableMapping[str, str] = os.environ) -> bool:
    """Tell the service manager (`READY=1`, `STOPPING=1`, `WATCHDOG=1`). False: there is none, or it does not listen."""
    address = environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in {"/", "@"}:
        return False
    if address[0] == "@":
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(state.encode(), address)
    except OSError:
        return False
    return True


def port_owner(port: int) -> Peer | None:
    """Who listens on 127.0.0.1:`port` or on every address: with pid and exe where it is a process of this user."""
    return _owner_of(
        (uid, inode)
        for address, state, uid, inode in _in_use("tcp")
        if state == _LISTENING and address in _in_our_way(port)
    )


def _owner_of(sockets: Iterable[tuple[int, int]]) -> Peer | None:
    """Of these (uid, inode)."""
    found = list(sockets)
    if not found:
        return None
    # Of several, this user's: a stranger on another device (SO_BINDTODEVICE) does not hold the port of ours.
    uid, inode = next((each for each in found if each[0] == os.geteuid()), found[0])
    return (processes.find_by_inode(inode) if uid == os.geteuid() else None) or Peer(uid=uid)


def taken_by(port: int) -> str:
    """The owner of a port that was refused, for a sentence: a listener, else whoever else keeps it from us, by an IPv6
    socket for every address, or by the near end of a connection.
    """
    others = (row for table in ("tcp", "tcp6") for row in _in_use(table) if row[0] in _in_our_way(port) and row[3])
    return _owner_text(port_owner(port) or _owner_of((uid, inode) for _, _, uid, inode in others))


def _in_our_way(port: int) -> frozenset[str]:
    """As the kernel's tables have 127.0.0.1, every address, and both in IPv6."""
    hosts = ("0100007F", "0" * 8, "0" * 32, "0000000000000000FFFF00000100007F")
    return frozenset(f"{host}:{port:04X}" for host in hosts)


def _peer_ids(sock: HasOptions) -> tuple[int, int]:
    if sys.platform == "darwin":
        uid = struct.unpack_from("=II", sock.getsockopt(0, _MAC_PEERCRED, 76))[1]
        return uid, struct.unpack("=i", sock.getsockopt(0, _MAC_PEERPID, 4))[0]
    pid, uid, _ = struct.unpack("=iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return uid, pid


def _bind_to_loopback(sock: socket.socket) -> None:
    # Where it is not allowed (old kernels without the capability), the peer look-up still denies what comes from
    # outside our network namespace (security.md §0.3).
    with contextlib.suppress(PermissionError):
        if sys.platform == "linux":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
        elif sys.platform == "darwin":
            sock.setsockopt(socket.IPPROTO_IP, _MAC_BOUND_IF, socket.if_nametoindex("lo0"))


def _port_refused(port: int, exc: OSError) -> Unwritable:
    if exc.errno == errno.EADDRINUSE:
        return Unwritable(f"Port {port} is taken by {taken_by(port)}: stop that, or choose another, {ANOTHER}")
    reason = os.strerror(exc.errno or 0).lower()
    return Unwritable(f"Port {port} cannot be opened ({reason}): choose another, {ANOTHER}")


def _owner_text(owner: Peer | None) -> str:
    if owner is None:
        return "another process"
    if owner.pid is not None:
        return f"{owner.exe or owner.argv0 or 'a process'} (pid {owner.pid})"
    try:
        return f"a process of user {pwd.getpwuid(owner.uid).pw_name}"
    except KeyError:
        return f"a process of uid {owner.uid}"


def _in_use(table: str) -> list[tuple[str, str, int, int]]:
    """(address, state, uid, inode) of each socket of `tcp` or `tcp6`."""
    try:
        lines = Path("/proc/net", table).read_text().splitlines()[1:]
    except OSError:
        return []
    rows = [line.split() for line in lines]
    return [(row[1], row[3], int(row[7]), int(row[9])) for row in rows if len(row) > 9]


def _check_private(directory: Path) -> None:
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise FileRefused(
            f"{directory} is refused for the control socket because it is not a directory of yours with mode 0700: "
            f"run `ls -ld {directory}`.",
            path=str(directory),
        )


def _clear_stale(path: Path, *, locked: bool) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
        raise FileRefused(
            f"{path} is refused because it is not a socket of yours: run `rm {path}`, then `vaultd start`.",
            path=str(path),
        )
    if not locked or _answers(path):
        raise Unwritable(f"Another vaultd has {path}: type `vaultd status`.")
    path.unlink()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:  # its backlog is full: somebody listens
            return True
        except OSError:
            return False
        return True


def _bound(path: Path, backlog: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o177)  # around bind, not chmod after it: no window (security.md §2.1 item 2)
        try:
            sock.bind(str(path))
        finally:
            os.umask(before)
        sock.listen(backlog)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _passed_in(descriptor: int) -> socket.socket | None:
    try:
        os.set_inheritable(descriptor, False)
        sock = socket.socket(fileno=descriptor)
    except OSError:
        return None
    try:
        listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        listening = 0
    if not listening:
        sock.detach()
        return None
    sock.setblocking(False)
    return sock
