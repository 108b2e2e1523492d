"""Who holds a socket: by scan, by where it called before, through execve, fork, reuse and processes that hide."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vaultd.host import holders as holders_module
from vaultd.host import processes
from vaultd.host.holders import MOST_PINNED, Holders, file_id, program_of
from vaultd.model.programs import Program

BOB = 65534

#: Connects as often as it reads a line `c`, closes the oldest at `x`, becomes cat at `e`; tells inodes.
CALLER = """\
import os, socket, sys
held = []
for line in sys.stdin:
    if line == "c\\n":
        held.append(socket.create_connection(("127.0.0.1", int(sys.argv[1]))))
        print(os.fstat(held[-1].fileno()).st_ino, flush=True)
    elif line == "x\\n":
        held.pop(0).close()
        print(0, flush=True)
    else:
        for each in held:
            each.set_inheritable(True)
        print(0, flush=True)
        os.execv("/bin/cat", ["cat"])
"""


class Caller:
    """A process of ours with connections to a listener of ours."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid

    def does(self, what: str) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as sock:
        yield sock.getsockname()[1]


@contextmanager
def calling(port: int, *, script: Path | None = None) -> Iterator[Caller]:
    command = [sys.executable, *(["-c", CALLER] if script is None else [str(script)]), str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Caller(process)
        finally:
            process.kill()


@pytest.fixture
def holders() -> Iterator[Holders]:
    made = Holders()
    yield made
    made.close()


def found_pid(holders: Holders, inode: int) -> int | None:
    """By a scan, which is taken over."""
    looked = holders.look([inode])
    holders.adopt(looked)
    program = looked.found[inode].program
    return None if program is None else program.peer.pid


def seated(holders: Holders, inode: int) -> int | None:
    """Without one."""
    seat = holders.known(inode)
    return None if seat is None else seat.program.peer.pid


def test_a_scan_finds_the_holder_and_what_it_runs(holders: Holders, listener: int, tmp_path: Path) -> None:
    """Path and file by the kernel; the script by its own word, whole; a socket that nobody holds is nobody's."""
    script = tmp_path / "caller.py"
    script.write_text(CALLER)
    with calling(listener, script=script) as caller:
        inode = caller.does("c")
        looked = holders.look([inode, 1])
        holders.adopt(looked)
        program = looked.found[inode].program
        assert program is not None
        assert program.peer.pid == caller.pid
        assert (program.exe, program.file) == (os.path.realpath(sys.executable), file_id(sys.executable))
        assert (program.script, program.script_file) == (str(script), file_id(str(script)))
        assert looked.found[1].program is None
        assert program_of(caller.pid, program.peer.started).program == program
        assert program_of(caller.pid, 1).program is None
    changed = tmp_path / "changed"
    changed.write_text("1")
    before = file_id(str(changed))
    changed.write_text("2")
    os.utime(changed, ns=(0, 0))
    assert file_id(str(changed)) != before


def test_what_was_read_counts_for_who_holds_the_socket_afterwards(
    holders: Holders, listener: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its holder gives the socket up while it is read (it ends, or its pid is another's): nobody is named. Control: one
    that keeps it is.
    """
    with calling(listener) as caller:
        read = holders_module._read

        def read_late(pid: int, directory: int) -> Program | None:
            found = read(pid, directory)
            caller.does("x")
            return found

        kept = caller.does("c")
        assert found_pid(holders, kept) == caller.pid
        monkeypatch.setattr(holders_module, "_read", read_late)
        assert found_pid(Holders(), kept) is None


def test_who_called_before_is_found_where_it_was(holders: Holders, listener: int) -> None:
    """A place that was left is looked at first, one more than ever last; never is a wrong process given."""
    with calling(listener) as caller, calling(listener) as other:
        first = caller.does("c")
        assert seated(holders, first) is None  # nobody is known yet
        assert found_pid(holders, first) == caller.pid
        seat = holders.known(first)
        assert seat is not None
        assert seated(holders, caller.does("c")) == caller.pid  # the next descriptor
        caller.does("x")
        seat.leave()
        assert seated(holders, caller.does("c")) == caller.pid  # the one that was left
        assert seated(holders, other.does("c")) is None
        caller.process.kill()
        caller.process.wait()
        assert seated(holders, first) is None


def test_the_last_of_several_asks_first(holders: Holders, listener: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look tells where the others are: with eight at a time, scans for them took a third of the machine."""
    monkeypatch.setattr(holders_module, "MOST_SEEN", 2)
    with calling(listener) as caller:
        first = caller.does("c")
        assert found_pid(holders, first) == caller.pid
        seats = [holders.known(each) for each in (first, caller.does("c"), caller.does("c"))]
        for seat in seats:
            assert seat is not None
            caller.does("x")
            seat.leave()
        three = [caller.does("c") for _ in seats]

        assert [seated(holders, each) for each in reversed(three)] == [caller.pid] * 3
        for _ in range(5):  # sockets that never ask are remembered within bounds
            caller.does("c")
            assert seated(holders, 1) is None
        assert max(len(each.seen) for each in holders._pinned) <= 2


def test_another_program_by_execve_is_not_taken_for_the_old(holders: Holders, listener: int) -> None:
    """The same process and socket, another executable: looked at anew."""
    with calling(listener) as caller:
        inode = caller.does("c")
        assert found_pid(holders, inode) == caller.pid
        assert seated(holders, inode) == caller.pid
        caller.does("e")
        until(lambda: Path(f"/proc/{caller.pid}/exe").readlink().name == "cat")
        looked = Holders()
        assert seated(holders, inode) is None
        program = looked.look([inode]).found[inode].program
        assert program is not None
        assert program.name == "cat"
        assert program.peer.pid == caller.pid


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end


def test_storms_of_forks_name_nobody_else(holders: Holders, listener: int) -> None:
    """While processes come and go by hundreds: a holder that lives is found as itself, one that ended as nobody."""
    storm = "while :; do /bin/true; /bin/true & done"
    with (
        subprocess.Popen(["/bin/sh", "-c", storm], start_new_session=True) as shell,
        calling(listener) as caller,
    ):
        try:
            for _ in range(50):
                inode = caller.does("c")
                assert (seated(holders, inode) or found_pid(holders, inode)) == caller.pid
                with calling(listener) as short:
                    gone = short.does("c")
                short.process.wait()
                assert (seated(holders, gone), found_pid(holders, gone)) == (None, None)
        finally:
            os.killpg(shell.pid, 9)
            shell.wait()


def test_a_forked_child_is_found_when_its_parent_ended(holders: Holders, listener: int) -> None:
    """Whoever holds the socket now, not who opened it."""
    code = (
        "import os, socket, sys\n"
        "s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
        "pid = os.fork()\n"
        "if pid: print(pid, os.fstat(s.fileno()).st_ino, flush=True); os._exit(0)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(listener)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid, inode = map(int, process.stdout.readline().split())
        process.wait()
        assert found_pid(holders, inode) == pid


def test_pins_are_bounded_and_given_back(listener: int) -> None:
    """A descriptor each, of so many processes at most, and none after `close`."""
    before, holders = descriptors(), Holders()
    for _ in range(MOST_PINNED + 4):
        with calling(listener) as caller:
            assert found_pid(holders, caller.does("c")) == caller.pid
    assert len(holders) <= MOST_PINNED
    assert descriptors() <= before + MOST_PINNED
    holders.close()
    assert descriptors() == before


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


HIDDEN = """\
import ctypes, os, socket, sys
libc = ctypes.CDLL(None)
libc.prctl(15, sys.argv[2].encode(), 0, 0, 0)  # PR_SET_NAME
libc.prctl(4, int(sys.argv[3]), 0, 0, 0)  # PR_SET_DUMPABLE
held = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
print(os.fstat(held.fileno()).st_ino, flush=True)
sys.stdin.read()
"""


@contextmanager
def of_bob(port: int, name: str, *, dumpable: int, by: tuple[str, ...] = ()) -> Iterator[tuple[int, int]]:
    """A process of Bob's with a connection, which `by` makes of root: its pid and the socket's inode."""
    command = [*by, "/usr/bin/python3", "-I", "-c", HIDDEN, str(port), name, str(dumpable)]
    who = None if by else BOB
    with subprocess.Popen(command, user=who, group=who, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield process.pid, int(process.stdout.readline())
        finally:
            process.kill()


def seen_by_bob(*inodes: int) -> list[tuple[int | None, list[str]]]:
    """Pid, and the hidden names: looked at by a fork that has become that user, since root sees everything."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.setresgid(BOB, BOB, BOB)
            os.setresuid(BOB, BOB, BOB)
            found = [Holders().look(inodes).found[each] for each in inodes]
            rows = [(None if each.program is None else each.program.peer.pid, each.hidden) for each in found]
            os.write(writing, json.dumps(rows).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        rows = json.loads(told.read())
    os.waitpid(child, 0)
    return [(pid, hidden) for pid, hidden in rows]


@pytest.mark.needs("root")
def test_what_hides_is_told_by_name_as_a_possibility(listener: int) -> None:
    """A client that is not dumpable cannot be looked into by its own user; control: a plain one is found."""
    with of_bob(listener, "plain", dumpable=1) as (pid, one), of_bob(listener, "sshd", dumpable=0) as (_, two):
        assert seen_by_bob(one, two) == [(pid, []), (None, ["sshd"])]


#: A capability that the looking process has not: its descriptors can be listed, and none of them read.
CAPABLE = (
    "setpriv", f"--reuid={BOB}", f"--regid={BOB}", "--clear-groups",
    "--inh-caps=+net_bind_service", "--ambient-caps=+net_bind_service",
)  # fmt: skip


@pytest.mark.needs("root")
def test_who_lets_only_list_his_descriptors_hides_as_well(listener: int) -> None:
    """A relay with a capability of its own (a unit with AmbientCapabilities=), or outside the user namespace that the
    daemon runs in: told by name, not taken for a process without that socket.
    """
    with of_bob(listener, "socat", dumpable=1, by=CAPABLE) as (pid, inode):
        assert Path(f"/proc/{pid}/fd").stat().st_uid == BOB  # control: it is dumpable
        assert seen_by_bob(inode) == [(None, ["socat"])]


#: Connects, and holds many descriptors: as a relay of that name, or as who is in the way of a scan.
MANY = """\
import os, socket, sys
held = [os.open("/dev/null", os.O_RDONLY) for _ in range(int(sys.argv[2]))]
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
print(os.fstat(sock.fileno()).st_ino, flush=True)
sys.stdin.read()
"""


@contextmanager
def holding(port: int, many: int, *, exe: Path | None = None) -> Iterator[tuple[int, int]]:
    command = [str(exe or "/usr/bin/python3"), "-I", "-c", MANY, str(port), str(many)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield process.pid, int(process.stdout.readline())
        finally:
            process.kill()


def named(folder: Path, name: str) -> Path:
    """An interpreter under the name of a relay."""
    made = folder / name
    made.write_bytes(Path("/usr/bin/python3").resolve().read_bytes())
    made.chmod(0o700)
    return made


def test_nobody_is_in_the_way_of_a_relay(
    holders: Holders, listener: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is behind it may start processes with descriptors until a scan is at its bounds (a container of this
    user): a relay is looked at before them all. Control: another program is not found then.
    """
    monkeypatch.setattr(processes, "SCAN_LIMIT", 64)
    relay = named(tmp_path, "slirp4netns")
    with (
        holding(listener, 0, exe=relay) as (pid, inode),
        holding(listener, 0) as (_, other),
        holding(listener, 100),
    ):
        assert found_pid(holders, inode) == pid
        assert found_pid(holders, other) is None


def test_a_relay_with_more_descriptors_than_others_may_have(
    holders: Holders, listener: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tunnel holds thousands: it is looked at to its end. Control: another program is not."""
    monkeypatch.setattr(processes, "SCAN_LIMIT_EACH", 16)
    with (
        holding(listener, 64, exe=named(tmp_path, "ssh")) as (pid, inode),
        holding(listener, 64) as (_, other),
    ):
        assert found_pid(holders, inode) == pid
        assert found_pid(holders, other) is None


def test_a_relay_that_was_not_looked_through_is_a_possibility(
    holders: Holders, listener: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bounds of relays have an end, too: what lies behind it is told by name, and not taken for nobody's."""
    monkeypatch.setattr(holders_module, "RELAY_LIMIT", 16)
    with (
        holding(listener, 64, exe=named(tmp_path, "socat")) as (_, inode),
        holding(listener, 64, exe=named(tmp_path, "ncat")),
    ):
        found = holders.look([inode]).found[inode]
        assert found.program is None
        assert {"socat", "ncat"} <= set(found.hidden)
