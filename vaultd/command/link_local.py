"""`vaultd link-local imds PROFILE`, `vaultd link-local ecs`: hand the service manager's socket to the user's vaultd.

Rules
- It serves nothing, asks nothing and knows no secret: it passes one descriptor on and waits. It runs as the user.
- It stays. Whatever was started first, and however often vaultd is restarted, the socket is handed over again within a
  second of there being one to take it.
- While there is none, connections wait for the few seconds of a restart; later ones are closed at once, so that an SDK
  is told, instead of waiting for its time-out. After a `vault-client revoke` they are closed until the unit is
  started again: to exit would only have the service manager start us at the next connection.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket
import sys
import time
from typing import Any, NoReturn

from vaultd.command import running
from vaultd.host import processes, sockets

#: Between two looks for a daemon, and before the next try after a refusal that may need a person.
POLL_SECONDS, REFUSED_SECONDS = 1.0, 10.0
#: A restart takes this long at most; who connects meanwhile waits.
GRACE_SECONDS = 5.0
#: The daemon answers at once; one that does not is not waited for.
ANSWER_SECONDS = 10.0
_NO_SOCKET = 2


def run(dialect: str, profile: str | None) -> int:
    """Until SIGTERM, which is exit 0. 2 when no service manager has passed a socket in."""
    listener = _given(dialect)
    if listener is None:
        unit = f"vaultd-{dialect}"
        print(
            f"vaultd: link-local is started by a service manager, which passes the socket in: install its units with "
            f"`vaultd service install --link-local PROFILE`, then `sudo systemctl start {unit}.socket`",
            file=sys.stderr,
        )
        return _NO_SOCKET
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    line = {"protocol": 1, "dialect": dialect, **({} if profile is None else {"profile": profile})}
    return _Giving(listener, json.dumps(line).encode() + b"\n").go_on()


def _leave(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(0)


def _given(dialect: str) -> socket.socket | None:
    """The first that systemd passed in, else launchd's of that name."""
    given = [each.sock for each in sockets.activated()] or sockets.launchd_activated(dialect)
    return given[0] if given else None


class _Giving:
    """Hands `listener` over again and again. `said` keeps a line from being printed each second."""

    def __init__(self, listener: socket.socket, line: bytes) -> None:
        self._listener = listener
        self._line = line
        self._said = ""
        self._path = os.path.join(os.path.dirname(running.places().socket), "doors.sock")  # noqa: PTH118, PTH120
        self._away = time.monotonic()

    def go_on(self) -> NoReturn:
        """For as long as the service runs."""
        self._say("waits for vaultd: start it with `vaultd start`", ready=True)
        while True:
            wait = POLL_SECONDS
            with contextlib.suppress(OSError):
                wait = self._once()
            self._turn_away(wait)

    def _once(self) -> float:
        """Hand over and stay until it ends; returns how long to wait then. OSError: there is no daemon."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as conn:
            conn.settimeout(ANSWER_SECONDS)  # connect() would wait for whoever lets his backlog be full
            conn.connect(self._path)
            peer = sockets.peer_of_unix(conn)
            if peer is None or peer.uid != processes.own_uid():
                self._say(f"{self._path} is another user's: look at it with `ls -l`")
                return REFUSED_SECONDS
            socket.send_fds(conn, [self._line], [self._listener.fileno()])
            lines = conn.makefile("rb")
            answer = _line(lines.readline(8192))
            if "message" in answer:
                self._say(f"vaultd refused: {answer['message']}")
                return REFUSED_SECONDS
            if "grant" not in answer:
                return POLL_SECONDS
            self._say("is served by vaultd")
            conn.settimeout(None)
            over = _line(lines.readline(8192)).get("over")
            self._away = time.monotonic()
        if over is not None:
            self._say(f"is no longer served ({over}): to have it again, restart this unit")
            self._refuse_for_ever()
        self._say("waits for vaultd, which has left")
        return POLL_SECONDS

    def _turn_away(self, seconds: float) -> None:
        """Wait, and after the grace time close whoever comes."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if time.monotonic() - self._away < GRACE_SECONDS:
                time.sleep(left)
            elif select.select([self._listener], [], [], left)[0]:
                self._close_next()

    def _refuse_for_ever(self) -> NoReturn:
        while True:
            select.select([self._listener], [], [])
            self._close_next()

    def _close_next(self) -> None:
        try:
            self._listener.accept()[0].close()
        except OSError as exc:
            if exc.errno == errno.EINVAL:  # it was shut down, and would be readable for ever
                self._say("has a socket that listens no more: type `sudo systemctl restart 'vaultd-*.socket'`")
                raise SystemExit(1) from exc

    def _say(self, text: str, *, ready: bool = False) -> None:
        sockets.notify(("READY=1\n" if ready else "") + f"STATUS={text}")
        if text != self._said:
            print(f"vaultd: {text}", file=sys.stderr, flush=True)
        self._said = text


def _line(text: bytes) -> dict[str, Any]:
    """A JSON object; an empty one for the end of the connection and for anything else."""
    with contextlib.suppress(ValueError):
        found = json.loads(text)
        if isinstance(found, dict):
            return found
    return {}
