"""From `vault-client use` without a name to the picker's first frame, as a multiple of `python -I -c pass`.

Rule: both are started by turns, in the same way, on a terminal of 80 by 24; the frame counts when every profile is in
what the terminal was sent. It is left by Ctrl-C, which must do nothing else.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import statistics
import struct
import termios
import time
from collections.abc import Mapping, Sequence

from tests.bench import daemons
from tests.bench.figures import Figure, at_most

GOAL = 6.0
_CANCELLED = 130


def figure(client: Sequence[str], names: Sequence[str], environ: Mapping[str, str], *, rounds: int) -> Figure:
    """The median of `rounds`. `names`: the profiles that are on the screen."""
    environ = {**environ, "TERM": "xterm-256color"}
    bare, drawn = [], []
    for _ in range(rounds):
        bare.append(_ended([daemons.PYTHON, "-I", "-c", "pass"], environ))
        drawn.append(first_frame([*client, "use"], names, environ))
    value = statistics.median(drawn) / statistics.median(bare)
    return at_most("vault-client use, picker to first frame, wall", value, "× python -I -c pass", GOAL)


def first_frame(line: list[str], names: Sequence[str], environ: Mapping[str, str]) -> float:
    """Seconds until all of `names` were drawn; the picker is cancelled then."""
    began = time.perf_counter()
    pid, master = _started(line, environ)
    try:
        shown = b""
        while not all(name.encode() in shown for name in names):
            assert select.select([master], [], [], 30)[0], f"no frame came: {shown!r}"
            shown += os.read(master, 65536)
        taken = time.perf_counter() - began
        os.write(master, b"\x03")
        _drained(master)
        assert _status(pid) == _CANCELLED
        return taken
    finally:
        os.close(master)


def _ended(line: list[str], environ: Mapping[str, str]) -> float:
    began = time.perf_counter()
    pid, master = _started(line, environ)
    try:
        assert _status(pid) == 0, line
        return time.perf_counter() - began
    finally:
        os.close(master)


def _started(line: list[str], environ: Mapping[str, str]) -> tuple[int, int]:
    """A leader of a session of its own, whose terminal is a new pty: the first that it opens (no fork of ours)."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    opened = (os.POSIX_SPAWN_OPEN, 0, os.ttyname(slave), os.O_RDWR, 0)
    copies = [(os.POSIX_SPAWN_DUP2, 0, number) for number in (1, 2)]
    pid = os.posix_spawnp(line[0], line, environ, file_actions=[opened, *copies], setsid=True)
    os.close(slave)
    return pid, master


def _drained(master: int) -> None:
    try:
        while os.read(master, 65536):
            pass
    except OSError:  # EIO: its last process is gone
        pass


def _status(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
