"""Which process holds a socket, and what it runs: for the policies of a profile, before keys go out (security.md §5).

Rules
- A process is pinned by a descriptor of its /proc directory: that names the process, not the pid, so a pid that is
  reused meanwhile reads as gone. What was read of it counts only if it still holds the socket afterwards.
- A process that called before and calls again on another connection is found on the loop, by looking where it had a
  socket before (2.5 µs a place). Everything else is a scan in a thread, one for all who wait.
- A process that may not be looked into (not dumpable, or with more rights than ours) is told by name only, as a
  possibility.
- A scan has bounds, and whoever stands behind a relay could fill them: what has a relay's name is looked at before all
  others, with bounds of its own, and is a possibility where these end.
- The look is at the first request of a connection: a socket that is handed to another process later keeps its name.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from vaultd.host import processes
from vaultd.model.programs import FileId, Found, Program, may_relay, name_of

#: Processes that are kept pinned, the latest caller first; each is one descriptor.
MOST_PINNED = 16
#: Places that are looked at on the loop for one connection, of all pinned processes.
MOST_PLACES = 12
#: Of them places of connections that are believed to be open, the oldest.
MOST_BUSY = 8
#: Places and sockets that are remembered of one process.
MOST_FREED, MOST_SEEN = 128, 1024
#: Descriptors that one scan reads of relays, all together.
RELAY_LIMIT = 16_384


@dataclass(slots=True, eq=False)
class _Pinned:
    """A process by its directory in /proc. `freed`: descriptors that were connections to us and have ended, the longest
    ago first, as a client takes the lowest that is free; `seen`: where the last scan, or a look, saw which socket.
    """

    directory: int
    program: Program
    seen: dict[str, int]
    freed: deque[int] = field(default_factory=lambda: deque(maxlen=MOST_FREED))
    busy: dict[int, Seat] = field(default_factory=dict)
    last: int = -1

    def place_of(self, wanted: str, most: int) -> tuple[int | None, int]:
        """Where it has this socket, as far as `most` looks tell, and how many are left."""
        for place in self._likely(wanted):
            if most <= 0:
                break
            most -= 1
            link = _link(self.directory, f"fd/{place}")
            if link == wanted:
                return place, most
            if link is not None and link.startswith("socket:"):
                self._note(link, place)
        return None, most

    def _note(self, link: str, place: int) -> None:
        """Of several new connections, any may be the first to ask: what was found for one is known for the others."""
        self.seen[link] = place
        if len(self.seen) > MOST_SEEN:
            del self.seen[next(iter(self.seen))]

    def _likely(self, wanted: str) -> Iterator[int]:
        """A freed place that is looked at is forgotten: it is closed, or another connection's, which frees it again."""
        if (place := self.seen.pop(wanted, None)) is not None:
            yield place
        while self.freed:
            yield self.freed.popleft()
        yield from tuple(islice(self.busy, MOST_BUSY))  # one may have ended, and we have not heard of it
        yield self.last + 1  # one more connection than ever

    def close(self) -> None:
        os.close(self.directory)


class Seat:
    """Where a program has the connection that it was told by; `leave` when that has ended."""

    __slots__ = ("_pinned", "_place", "program")

    def __init__(self, pinned: _Pinned, place: int) -> None:
        self.program = pinned.program
        self._pinned = pinned
        self._place = place
        pinned.last = place
        pinned.busy.pop(place, None)
        pinned.busy[place] = self

    def leave(self) -> None:
        """The next connection of that program is likely there."""
        if self._pinned.busy.get(self._place) is self:
            del self._pinned.busy[self._place]
            self._pinned.freed.append(self._place)


@dataclass(slots=True, eq=False)
class Looked:
    """A scan's results, and the processes that it pinned: to be taken over by `adopt`, on the loop."""

    found: dict[int, Found] = field(default_factory=dict)
    pinned: list[_Pinned] = field(default_factory=list)


class Holders:
    """Holders of sockets. `known`, `adopt` and `close` on the loop, the rest in a thread."""

    def __init__(self) -> None:
        self._pinned: list[_Pinned] = []

    def __len__(self) -> int:
        """How many processes are pinned."""
        return len(self._pinned)

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the pinned processes."""
        return tuple(each.program.peer.pid for each in self._pinned if each.program.peer.pid is not None)

    # ---- on the loop ----

    def known(self, inode: int) -> Seat | None:
        """The holder, when it is a process that called before and still runs the same file."""
        wanted, most = f"socket:[{inode}]", MOST_PLACES
        for pinned in self._pinned:
            place, most = pinned.place_of(wanted, most)
            if place is not None:
                return self._again(pinned, place)
            if most <= 0:
                break
        return None

    def _again(self, pinned: _Pinned, place: int) -> Seat | None:
        if _link(pinned.directory, "exe") != pinned.program.exe:  # it has become another program by execve
            self._drop(pinned)
            return None
        if self._pinned[0] is not pinned:
            self._pinned.remove(pinned)
            self._pinned.insert(0, pinned)
        return Seat(pinned, place)

    def adopt(self, looked: Looked) -> None:
        """Keep what a scan has pinned."""
        for pinned in looked.pinned:
            self._keep(pinned)

    def _keep(self, new: _Pinned) -> None:
        peer = new.program.peer
        for old in self._pinned:
            if (old.program.peer.pid, old.program.peer.started) == (peer.pid, peer.started):
                old.program, old.seen = new.program, new.seen
                new.close()
                return
        self._pinned.insert(0, new)
        while len(self._pinned) > MOST_PINNED:
            self._drop(next((each for each in self._pinned if _link(each.directory, "exe") is None), self._pinned[-1]))

    def _drop(self, pinned: _Pinned) -> None:
        self._pinned.remove(pinned)
        pinned.close()

    def close(self) -> None:
        """Give the descriptors back."""
        while self._pinned:
            self._drop(self._pinned[-1])

    # ---- in a thread ----

    def look(self, inodes: Iterable[int], *, first: Iterable[int] = ()) -> Looked:
        """One scan for all of these sockets: `first` are looked at first, then all, the newest first. Blocks."""
        looked, names = Looked(), {f"socket:[{each}]": each for each in inodes}
        unseen: set[str] = set()
        wanted = set(names)
        for pid, places in _descriptors(first, unseen):
            mine = wanted & places.keys()
            if mine and (pinned := _pin(pid, {link: places[link] for link in mine}, places)) is not None:
                looked.pinned.append(pinned)
                looked.found.update({names[link]: Found(pinned.program) for link in mine})
                wanted -= mine
            if not wanted:
                return looked
        hidden = Found(hidden=tuple(sorted(unseen)))
        looked.found.update({names[each]: hidden for each in wanted})
        return looked


def program_of(pid: int, started: int | None) -> Found:
    """What the process of that pid and start time runs. Blocks."""
    with suppress(OSError):
        directory = _open(pid)
        try:
            program = _read(pid, directory)
            if program is not None and program.peer.started == started:
                return Found(program)
        finally:
            os.close(directory)
    name = _own_name(pid)
    return Found(hidden=() if name is None else (name,))


def file_id(path: str, *, directory: int | None = None) -> FileId | None:
    """The file at a path, links followed; None where there is none that we may see."""
    try:
        found = os.stat(path, dir_fd=directory)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns, found.st_size


def _link(directory: int, place: str) -> str | None:
    try:
        return os.readlink(place, dir_fd=directory)
    except OSError:
        return None


def _open(pid: int) -> int:
    return os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


#: A process, and where it has which socket.
_Places = tuple[int, dict[str, int]]


def _descriptors(first: Iterable[int], unseen: set[str]) -> Iterator[_Places]:
    """Process by process the descriptors that are sockets; `unseen` gets the names of what could not be looked into."""
    known = dict.fromkeys(first)
    most, each = processes.SCAN_LIMIT, processes.SCAN_LIMIT_EACH
    yield from _bounded(known, unseen, most=most, each=each)
    relays: list[int] = []
    others: list[int] = []
    for pid in processes.candidates(()):
        if may_relay(name_of(_exe_of(pid))):
            relays.append(pid)
        elif pid not in known:
            others.append(pid)
    cut = yield from _bounded(relays, unseen, most=RELAY_LIMIT, each=RELAY_LIMIT)
    unseen.update(name_of(_exe_of(pid)) for pid in cut)
    yield from _bounded(others, unseen, most=most, each=each)


def _bounded(
    pids: Iterable[int], unseen: set[str], *, most: int, each: int
) -> Generator[_Places, None, tuple[int, ...]]:
    """`each` descriptors of each, `most` of all; returns those that this did not come to, or not to their end."""
    left = tuple(pids)
    for place, pid in enumerate(left):
        places = dict[str, int]()
        try:
            most -= _sockets(pid, places, min(most, each))
        except PermissionError:
            if (name := _own_name(pid)) is not None:
                unseen.add(name)
        except OSError:
            continue
        yield pid, places
        if most <= 0:
            return left[place:]
    return ()


def _sockets(pid: int, places: dict[str, int], most: int) -> int:
    """Put its sockets into `places`; how many descriptors that took. Raises PermissionError where one is hidden."""
    folder, seen = f"/proc/{pid}/fd", 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if seen >= most:
                break
            seen += 1
            try:
                link = os.readlink(f"{folder}/{entry.name}")  # noqa: PTH115 - thousands of these a scan
            except FileNotFoundError:
                continue
            if link.startswith("socket:"):
                places[link] = int(entry.name)
    return seen


def _exe_of(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115 - one for each process
    except OSError:
        return ""


def _pin(pid: int, held: dict[str, int], places: dict[str, int]) -> _Pinned | None:
    """The process, if it is one of ours that held these sockets before and after it was read."""
    try:
        directory = _open(pid)
    except OSError:
        return None
    program = _read(pid, directory)
    if program is None or any(_link(directory, f"fd/{place}") != link for link, place in held.items()):
        os.close(directory)
        return None
    return _Pinned(directory, program, {**dict(islice(places.items(), MOST_SEEN)), **held})


def _read(pid: int, directory: int) -> Program | None:
    exe = _link(directory, "exe")
    peer = processes.look(pid)
    if exe is None or peer is None or peer.uid != processes.own_uid():
        return None
    script = processes.script_of(pid, exe)
    return Program(
        peer=peer,
        exe=exe,
        file=file_id("exe", directory=directory),
        script=script,
        script_file=None if script is None else file_id(script),
    )


def _own_name(pid: int) -> str | None:
    """The name of a process of this user that may not be looked into, by its own word; None for another user's."""
    try:
        return processes.name_of(pid) if processes.effective_uid(pid) == processes.own_uid() else None
    except (OSError, ValueError, StopIteration):
        return None
