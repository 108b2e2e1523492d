"""Processes by pid: who they are, and whether they still live.

Rules
- A process is (boot id, pid, start time): a pid alone is reused. What was read of one is kept only if the start time
  is the same afterwards (security.md §5, race rules).
- Only the executable, argv[0] and an interpreter's script are read. The rest of a command line can carry a token code
  or a key, and everything in it is forgeable by code of the same user.
- A look-up reads /proc and may take milliseconds: off the loop, please (architecture.md §5). Systems without /proc
  know no start time here: nothing is found, and nothing can be bound to a process.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from vaultd.model.peer import Peer
from vaultd.model.text import shown

_PROC = Path("/proc")
#: proc(5): fields 3 (state), 4 (ppid) and 22 (start time, ticks) of /proc/PID/stat, counted after "(comm) ".
_STATE, _PPID, _START = 0, 1, 19
_ENDED = {"Z", "X", "x"}
#: One scan reads at most this many descriptors, and of one process at most that many: a process that held 18,000
#: made it 80 ms (security.md §5).
SCAN_LIMIT = 16_384
SCAN_LIMIT_EACH = 2_048
_GENERATIONS = 256


#: What the kernel appends to the path of a running program whose file is gone.
_DELETED = " (deleted)"
#: A name that nobody takes for a sentence.
_PLAIN = re.compile(r"[A-Za-z0-9_.+@%~/…-]+")
_INTERPRETERS = re.compile(r"-?(python|pypy|node|ruby|perl|php|bash|sh|dash|zsh|fish|pwsh)[0-9.]*")


def boot_id() -> str:
    """The kernel's random id of this boot; empty where it has none, which no stored id equals."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def own_uid() -> int:
    """The uid that the daemon acts as: the only one it serves."""
    return os.geteuid()


def start_time(pid: int) -> int | None:
    """The kernel's start time of a process in ticks since boot; None when there is no such process."""
    stat = _stat(pid)
    return int(stat[_START]) if stat else None


def alive(pid: int, started: int) -> bool:
    """True while the process of that pid and start time runs. A zombie has ended: only its parent has not looked."""
    stat = _stat(pid)
    return stat is not None and int(stat[_START]) == started and stat[_STATE] not in _ENDED


def look(pid: int) -> Peer | None:
    """What the kernel tells of a process; `exe` is None where it may not be read (another user's, not dumpable)."""
    started = start_time(pid)
    if started is None:
        return None
    try:
        uid = effective_uid(pid)
    except (OSError, ValueError, StopIteration):
        return None
    peer = Peer(uid=uid, pid=pid, exe=_exe(pid), argv0=_argv0(pid), started=started)
    return peer if start_time(pid) == started else None


def describe(peer: Peer, *, looking: bool = True) -> str:
    """`terraform (pid 4711, /usr/bin/terraform, started by zsh)`: who asks, before a person types a code.

    The executable is the kernel's word and always shown; a script's name is its own choice, and so is every name of a
    file: one that could be read as more than a name is quoted and cut. `looking`: whether the path is held against the
    file that is there, which may be on a slow disk.
    """
    if peer.pid is None:
        return f"a process of uid {peer.uid}"
    program = Path(peer.exe or peer.argv0 or "process").name
    interpreted = _INTERPRETERS.fullmatch(program) is not None and peer.argv0 is not None
    name = Path(peer.argv0).name if interpreted and peer.argv0 else program.removesuffix(_DELETED)
    facts = (f"pid {peer.pid}", _place(peer, looking=looking), _started_by(peer))
    return shown(f"{_as_name(name, 40)} ({', '.join(each for each in facts if each)})")


def _place(peer: Peer, *, looking: bool) -> str | None:
    """The path of its executable, which another file may have here: in a mount namespace of its own, or since."""
    if peer.exe is None:
        return None
    place = _as_name(peer.exe.removesuffix(_DELETED), 70)
    return f"not the file at {place}" if looking and _is_elsewhere(peer) else place


def _is_elsewhere(peer: Peer) -> bool:
    try:
        running = os.stat(_PROC / str(peer.pid) / "exe")  # noqa: PTH116 - the link's end, which may have no path here
        if peer.pid is None or start_time(peer.pid) != peer.started:
            return False
    except OSError:  # it has ended
        return False
    try:
        there = os.stat(peer.exe or "")  # noqa: PTH116
    except OSError:
        return True
    return (running.st_dev, running.st_ino) != (there.st_dev, there.st_ino)


def _as_name(text: str, most: int) -> str:
    """As it is, or in quotes that it cannot end; of one that is too long both ends."""
    if len(text) > most:
        text = f"{text[: most // 2]}…{text[1 - most // 2 :]}"
    if _PLAIN.fullmatch(text):
        return text
    return '"' + "".join(each if each.isprintable() and each != '"' else "?" for each in text) + '"'


def _started_by(peer: Peer) -> str | None:
    stat = _stat(peer.pid) if peer.pid is not None else None
    if stat is None or int(stat[_START]) != peer.started:
        return None
    parent = look(int(stat[_PPID]))
    if parent is None:
        return None
    return f"started by {_as_name(Path(parent.argv0 or parent.exe or 'process').name.lstrip('-'), 30)}"


def find_by_inode(inode: int, *, first: Iterable[int] = ()) -> Peer | None:
    """The process of this user that holds the socket: `first` are looked at first, then all, the newest first."""
    name = f"socket:[{inode}]"
    budget = SCAN_LIMIT
    for pid in candidates(first):
        found, seen = _holds(pid, name, min(budget, SCAN_LIMIT_EACH))
        if found and (peer := look(pid)) is not None and peer.uid == own_uid():
            return peer
        budget -= seen
        if budget <= 0:
            return None
    return None


def is_ancestor(pid: int, of: int) -> bool:
    """True when `pid` is `of` itself or one of its parents."""
    current = of
    for _ in range(_GENERATIONS):
        if current == pid:
            return True
        stat = _stat(current)
        if stat is None or (current := int(stat[_PPID])) <= 0:
            return False
    return False


def _stat(pid: int) -> list[str] | None:
    try:
        text = (_PROC / str(pid) / "stat").read_bytes().decode("utf-8", "replace")
    except OSError:
        return None
    # The name is the process's own choice and may hold blanks and parentheses: the last one closes it.
    return text[text.rindex(")") + 2 :].split()


def effective_uid(pid: int) -> int:
    """Raises OSError, ValueError or StopIteration for a process that is gone."""
    # Not the owner of /proc/PID: that is root for a process that is not dumpable, ourselves for example.
    text = (_PROC / str(pid) / "status").read_text(errors="replace")
    return int(next(line for line in text.splitlines() if line.startswith("Uid:")).split()[2])


def name_of(pid: int) -> str | None:
    """The name that the process goes by (15 characters, its own choice); readable when nothing else is."""
    with suppress(OSError):
        return (_PROC / str(pid) / "comm").read_bytes().decode("utf-8", "replace").rstrip("\n")
    return None


def script_of(pid: int, exe: str) -> str | None:
    """The full path of the script that an interpreter runs, by argv[1]: the process's own word. None: no interpreter,
    or one with code from elsewhere (`-c`, `-m`, stdin).
    """
    if not _INTERPRETERS.fullmatch(exe.removesuffix(_DELETED).rpartition("/")[2]):
        return None
    with suppress(OSError, ValueError), (_PROC / str(pid) / "cmdline").open("rb") as stream:
        script = os.fsdecode([*stream.read(4096).split(b"\0", 2), b"", b""][1])
        if script and not script.startswith("-"):
            path = os.path.normpath(os.path.join(os.readlink(_PROC / str(pid) / "cwd"), script))  # noqa: PTH115, PTH118 - text
            return path if os.path.isfile(path) else None  # noqa: PTH113
    return None


def _exe(pid: int) -> str | None:
    with suppress(OSError):
        return shown(os.readlink(_PROC / str(pid) / "exe"))  # noqa: PTH115 - os.readlink is text, Path would parse it
    return None


def _argv0(pid: int) -> str | None:
    """argv[0]; for an interpreter the script that it runs, since every tool in Python would read `python`.

    Nothing else of the command line is looked at: an option's value may be a secret.
    """
    with suppress(OSError), (_PROC / str(pid) / "cmdline").open("rb") as stream:
        first, second = [*stream.read(4096).split(b"\0", 2), b"", b""][:2]
        script = os.fsdecode(second) if _INTERPRETERS.fullmatch(Path(os.fsdecode(first)).name) else ""
        runs = bool(script) and not script.startswith("-") and (_PROC / str(pid) / "cwd" / script).is_file()
        return shown(script if runs else os.fsdecode(first)) or None
    return None


def candidates(first: Iterable[int]) -> Iterator[int]:
    """Pids in the order of a search: these first, then all there are, the newest first."""
    tried = set(first)
    yield from tried
    with suppress(OSError):
        for name in sorted((int(each) for each in os.listdir(_PROC) if each.isdecimal()), reverse=True):  # noqa: PTH208
            if name not in tried:
                yield name


def _holds(pid: int, name: str, limit: int) -> tuple[bool, int]:
    folder = f"{_PROC}/{pid}/fd"
    seen = 0
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if seen >= limit:
                break
            seen += 1
            with suppress(OSError):
                if os.readlink(f"{folder}/{entry.name}") == name:  # noqa: PTH115 - thousands of these a scan
                    return True, seen
    return False, seen
