"""What a run of the tests started and has not stopped: the processes that still live in its temporary directory."""

from __future__ import annotations

import os
import select
from pathlib import Path

from vaultd.host import processes

#: For what was told to end a moment ago.
PATIENCE_MS = 5000


def living_below(folder: Path) -> list[str]:
    """`pid: command line` of each process that has `folder` in its command line, environment or working directory."""
    mark = os.fsencode(folder)
    others = [each for each in Path("/proc").iterdir() if each.name.isdecimal() and int(each.name) != os.getpid()]
    return [
        f"{each.name}: {_shown(each)}"
        for each in others
        if any(mark in told for told in _told(each))
        and not processes.is_ancestor(int(each.name), of=os.getpid())  # `timeout … pytest --basetemp=…`
        and not _ends(int(each.name))
    ]


def _shown(process: Path) -> str:
    return _read(process / "cmdline").replace(b"\0", b" ").decode(errors="replace")


def _told(process: Path) -> list[bytes]:
    try:
        cwd = bytes((process / "cwd").readlink())
    except OSError:
        cwd = b""
    return [_read(process / "cmdline"), _read(process / "environ"), cwd]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _ends(pid: int) -> bool:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return True
    try:
        waiting = select.poll()
        waiting.register(pidfd, select.POLLIN)
        return bool(waiting.poll(PATIENCE_MS))
    finally:
        os.close(pidfd)
