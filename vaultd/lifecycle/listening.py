"""The sockets of a daemon and what it leaves in the run directory: opened once, taken away at the end.

Rule: what the service manager passed in is used and stays his; what we made goes with us. The lock is held already.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from vaultd.errors import Misconfigured, Unwritable, VaultdError
from vaultd.files import Files
from vaultd.host import processes, sockets
from vaultd.layout import Layout

#: The keys of launchd/vaultd.plist.
_LAUNCHD = ("http", "control")


class Listening:
    """`open`, `announce`, and at the end `leave_nothing`, which may come after any of them."""

    def __init__(self, files: Files, layout: Layout) -> None:
        self._files = files
        self._layout = layout
        self._sockets: list[socket.socket] = []
        self._made: list[Path] = []

    def open(self, port: int) -> tuple[socket.socket, socket.socket]:
        """TCP and unix: of the service manager, else our own. Raises Misconfigured, Unwritable, FileRefused."""
        given = self._activated()
        unix = given.get(socket.AF_UNIX)
        if unix is None:
            path = self._layout.control_sock
            self._sockets.append(unix := sockets.listen_unix(path, locked=True))
            self._made.append(path)  # the manager's own stays, or it could not start us again
        tcp = given.get(socket.AF_INET)
        if tcp is None:
            self._sockets.append(tcp := listen_on(port))
        return tcp, unix

    def doors(self) -> socket.socket:
        """Where listening sockets are handed over to us. Raises Misconfigured, Unwritable, FileRefused."""
        path = self._layout.doors_sock
        self._sockets.append(sock := sockets.listen_unix(path, locked=True))
        self._made.append(path)
        return sock

    def announce(self, port: int) -> None:
        """`endpoint.json`: now we serve."""
        self._made.append(self._layout.endpoint_json)
        self._files.replace(self._layout.endpoint_json, json.dumps({"port": port, "pid": os.getpid()}).encode())

    def leave_nothing(self) -> None:
        """Close and remove what was made; all of it, whatever cannot be."""
        for each in self._sockets:
            each.close()
        for path in self._made:
            with contextlib.suppress(VaultdError):
                self._files.remove(path)

    def _activated(self) -> dict[int, socket.socket]:
        """The first of each family; raises Misconfigured for one that is open to the network."""
        given: dict[int, socket.socket] = {}
        passed = [each.sock for each in sockets.activated()]
        for each in (*passed, *(sock for name in _LAUNCHD for sock in sockets.launchd_activated(name))):
            self._sockets.append(each)
            given.setdefault(each.family, each)
        tcp = given.get(socket.AF_INET)
        if tcp is not None and (address := tcp.getsockname()[0]) != "127.0.0.1":
            raise Misconfigured(
                f"the service manager passes a socket on {address} in: write `ListenStream=127.0.0.1:PORT` into its "
                "socket unit, then start it again"
            )
        return given


def listen_on(port: int) -> socket.socket:
    """As sockets.listen_tcp; another vaultd of this user is named as such, with its pid."""
    try:
        return sockets.listen_tcp(port)
    except Unwritable as exc:
        pids = _vaultds(port)
        if not pids:
            raise
        who = f"pid {' or '.join(str(each) for each in pids)}"
        raise Unwritable(
            f"Port {port} is taken by another vaultd of yours ({who}), which has a home of its own: stop that one "
            f"with its own VAULTD_HOME, or choose another, {sockets.ANOTHER}"
        ) from exc


def _vaultds(port: int) -> list[int]:
    """The vaultd that listens there. A daemon lets nobody see its descriptors, not even its own user: then it is one of
    those that run, or none.
    """
    owner = sockets.port_owner(port)
    if owner is None or owner.uid != processes.own_uid():
        return []
    if owner.pid is not None:
        return [owner.pid] if _is_vaultd(owner.pid) else []
    return [pid for pid in _own() if _is_vaultd(pid)]


def _own() -> Iterator[int]:
    for name in sorted(Path("/proc").glob("[0-9]*")):
        pid = int(name.name)
        peer = processes.look(pid)
        if peer is not None and peer.uid == processes.own_uid() and pid != os.getpid():
            yield pid


def _is_vaultd(pid: int) -> bool:
    """By what `vaultd start` runs, or by the script of that name; a daemon's command line holds no secret."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    module = words[2:5] == [b"-m", b"vaultd", b"start"]
    return module or [Path(os.fsdecode(each)).name for each in words[:3]][1:] == ["vaultd", "start"]
