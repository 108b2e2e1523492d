from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from vaultd.host import processes
from vaultd.model.peer import Peer

ROOT = os.geteuid() == 0
BOB = 65534


def run_python(code: str, *arguments: str, executable: str = sys.executable) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [executable, "-I", "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )


@contextmanager
def child(code: str = "", *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python that ran `code`, said a line and waits for its stdin to close."""
    process = run_python(f"{code}\nimport sys; print('ready', flush=True); sys.stdin.read()", *arguments)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdout.readline()
        yield process
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def started(pid: int) -> int:
    found = processes.start_time(pid)
    assert found is not None
    return found


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def no_such_pid() -> int:
    done = subprocess.Popen([sys.executable, "-I", "-c", ""])
    done.wait()
    return done.pid


def test_the_boot_id_is_the_kernels() -> None:
    """A boot has one id, which grants.json compares."""
    assert processes.boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert processes.boot_id()


def test_start_time_survives_a_hostile_name() -> None:
    """The name in /proc/PID/stat is the process's own choice: blanks, parentheses and digits in it change nothing."""
    rename = "import ctypes; ctypes.CDLL(None).prctl(15, b') R 1 (1 2 3', 0, 0, 0)"
    with child() as plain, child(rename) as hostile:
        comm = Path(f"/proc/{hostile.pid}/comm").read_text()
        ticks = os.sysconf("SC_CLK_TCK")

        assert ") R 1 (" in comm
        assert abs(started(hostile.pid) - started(plain.pid)) < 30 * ticks
        assert processes.is_ancestor(os.getpid(), of=hostile.pid)


def test_execve_keeps_pid_and_start_time() -> None:
    """A grant bound to the caller stays bound to what it becomes (interface.md §3, exec)."""
    code = "import os, sys\nsys.stdin.readline()\nos.execv(sys.executable, [sys.executable, '-I', '-c', 'input()'])"
    process = run_python(code)
    assert process.stdin is not None
    assert process.stdout is not None
    before = started(process.pid)
    process.stdin.write(b"go\n")
    while b"input()" not in Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0"):
        os.sched_yield()
    after = started(process.pid)
    process.communicate(b"\n")

    assert before == after


def test_a_process_that_is_not_there() -> None:
    """Nothing is known of a pid without a process."""
    pid = no_such_pid()

    assert processes.start_time(pid) is None
    assert processes.look(pid) is None
    assert not processes.alive(pid, 1)
    assert not processes.is_ancestor(os.getpid(), of=pid)


def test_a_zombie_has_ended() -> None:
    """A killed process whose parent has not looked yet is over: a grant must not outlive it by its parent's manners."""
    process = run_python("input()")
    assert process.stdin is not None
    assert process.stdout is not None
    begun = started(process.pid)
    alive_before = processes.alive(process.pid, begun)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    assert alive_before
    assert processes.start_time(process.pid) == begun
    assert not processes.alive(process.pid, begun)

    process.communicate()


def test_another_start_time_is_another_process() -> None:
    """A reused pid is not the process that was bound."""
    own = started(os.getpid())

    assert processes.alive(os.getpid(), own)
    assert not processes.alive(os.getpid(), own - 1)


def test_a_pid_that_changes_hands_while_it_is_read_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """security.md §5, race rules: what was read of two processes is told of neither. Control: of one it is told."""
    times = [7, 7, 7, 8]
    monkeypatch.setattr(processes, "start_time", lambda _: times.pop(0))

    one = processes.look(os.getpid())
    assert one is not None
    assert one.started == 7
    assert processes.look(os.getpid()) is None


def test_look_tells_exe_and_argv0_and_nothing_else_of_the_command_line() -> None:
    """An argument may be a token code or a key: only argv[0] is read (interface.md §8, peer)."""
    with child("", "--token-code", "canary-123456") as process:
        peer = processes.look(process.pid)

        assert b"canary-123456" in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert peer == Peer(
            uid=os.geteuid(),
            pid=process.pid,
            exe=os.path.realpath(sys.executable),
            argv0=sys.executable,
            started=started(process.pid),
        )
        assert "canary" not in repr(peer)


def test_look_shows_no_control_characters() -> None:
    """The name a process was started under is its starter's choice; a terminal may show it (interface.md §6)."""
    process = subprocess.Popen(
        ["evil\x1b[31m\u202e"], executable="/bin/cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"x")
    process.stdout.read(1)  # cat runs: its command line is in place
    peer = processes.look(process.pid)
    process.communicate()

    assert peer is not None
    assert peer.argv0 == "evil?[31m?"


def test_look_tells_the_uid_of_a_process_that_is_not_dumpable() -> None:
    """/proc/PID of such a process belongs to root: its uid is read from its status."""
    with child("import ctypes; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)") as process:
        peer = processes.look(process.pid)

        assert peer is not None
        assert peer.uid == os.geteuid()


@pytest.mark.needs("root")
def test_a_process_of_another_user_has_no_exe() -> None:
    """What may not be read is null; the uid is still right."""
    code = f"import os; os.setgroups([]); os.setgid({BOB}); os.setuid({BOB})"
    with child(code) as process:
        seen = in_child_as(BOB - 1, lambda: repr(processes.look(process.pid)))

        assert f"Peer(uid={BOB}, pid={process.pid}, exe=None" in seen


def test_find_by_inode_finds_the_holder_of_a_socket() -> None:
    """The audit line names the process behind a connection."""
    code = "import os, socket; s = socket.socket(); print(os.fstat(s.fileno()).st_ino, flush=True)"
    process = run_python(code + "\ninput()")
    assert process.stdout is not None
    inode = int(process.stdout.readline())
    by_scan = processes.find_by_inode(inode)
    by_hint = processes.find_by_inode(inode, first=[process.pid])
    process.communicate(b"\n")

    assert by_scan is not None
    assert by_scan.pid == process.pid
    assert by_hint == by_scan
    assert processes.find_by_inode(inode) is None


def test_a_socket_that_nobody_holds_is_not_found() -> None:
    """Inode 0 is a client that is gone."""
    assert processes.find_by_inode(0) is None


def test_the_scan_is_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process with very many descriptors must not make every look-up slow (security.md §5: 18,000 made it 80 ms)."""
    with socket.socket() as sock:
        inode = os.fstat(sock.fileno()).st_ino
        found = processes.find_by_inode(inode, first=[os.getpid()])
        monkeypatch.setattr(processes, "SCAN_LIMIT_EACH", 0)
        capped = processes.find_by_inode(inode, first=[os.getpid()])

    assert found is not None
    assert found.pid == os.getpid()
    assert capped is None


def test_is_ancestor() -> None:
    """A shell may bind a grant to itself through any depth of children, and to nothing beside its own line."""
    with child() as one, child() as other:
        assert processes.is_ancestor(os.getpid(), of=one.pid)
        assert processes.is_ancestor(one.pid, of=one.pid)
        assert processes.is_ancestor(1, of=one.pid) or os.getppid() == 0
        assert not processes.is_ancestor(one.pid, of=os.getpid())
        assert not processes.is_ancestor(one.pid, of=other.pid)


def test_look_names_the_script_of_an_interpreter(tmp_path: Path) -> None:
    """Every tool in Python would read `python`; the script's path is shown, and no later argument."""
    script = tmp_path / "deploy"
    script.write_text("import sys\nprint('up', flush=True)\nsys.stdin.read()\n")
    process = subprocess.Popen(
        [sys.executable, str(script), "canary-123456"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    peer = processes.look(process.pid)
    said = processes.describe(peer) if peer is not None else ""
    process.communicate()

    assert peer is not None
    assert peer.argv0 == str(script)
    assert said.startswith(f"deploy (pid {process.pid}, {os.path.realpath(sys.executable)}, started by ")
    assert "canary" not in repr(peer) + said


def test_describe_names_the_asker() -> None:
    """The line before a token code says which program wants it."""
    pid = no_such_pid()

    assert processes.describe(Peer(uid=1, pid=pid, exe="/usr/bin/terraform", argv0="terraform")) == (
        f"terraform (pid {pid}, /usr/bin/terraform)"
    )
    assert processes.describe(Peer(uid=1, pid=pid, argv0="tf")) == f"tf (pid {pid})"
    assert processes.describe(Peer(uid=5)) == "a process of uid 5"


def in_child_as(uid: int, act: Callable[[], str]) -> str:
    """The result of `act` in a forked child of another uid."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:  # pragma: no cover - the child
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
            os.write(writing, act().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        said = stream.read().decode()
    os.waitpid(pid, 0)
    return said


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Callable[[str], Peer]]:
    """Starts a copy of sleep under any name."""
    with ExitStack() as ends:

        def start(name: str) -> Peer:
            copy = tmp_path / name
            shutil.copy("/bin/sleep", copy)
            process = ends.enter_context(subprocess.Popen([copy, "60"]))
            ends.callback(process.kill)
            found = None
            while found is None or found.exe is None or not found.exe.startswith(str(tmp_path)):  # until its execve
                found = processes.look(process.pid)
            return found

        yield start


def test_a_name_speaks_for_itself_alone(sleeper: Callable[[str], Peer]) -> None:
    """A file may be called like our whole sentence, and be as long: it is quoted and cut, and what the kernel says of
    it is still there. Control: a plain name is shown as it is.
    """
    plain = sleeper("terraform")
    assert processes.describe(plain).startswith(f"terraform (pid {plain.pid}, ")
    forged = sleeper("terraform (pid 1, \N{DIVISION SLASH}usr\N{DIVISION SLASH}bin, started by zsh)" + " " * 150)
    said = processes.describe(forged)
    assert said.startswith('"terraform (pid 1, ')
    assert f'" (pid {forged.pid}, ' in said
    assert said.endswith(")")
    assert "started by" in said.rpartition(str(forged.pid))[2]
    assert '"' not in processes.describe(plain)
    quoting = sleeper('a" b\u200b\u2028')
    assert processes.describe(quoting).startswith(f'"a? b??" (pid {quoting.pid}, ')


def test_a_path_that_another_file_has_is_no_proof(sleeper: Callable[[str], Peer], tmp_path: Path) -> None:
    """A program that runs from elsewhere under a path of here (a mount of its own, a container), or was replaced since:
    the path is said to be another's. Control: before that it is not.
    """
    peer = sleeper("terraform")
    assert "not the file" not in processes.describe(peer)
    shutil.copy("/bin/true", tmp_path / "other")
    (tmp_path / "other").rename(tmp_path / "terraform")
    assert "not the file at " in processes.describe(peer)
    again = processes.look(peer.pid or 0)
    assert again is not None
    assert "not the file at " in processes.describe(again)
    assert "deleted" not in processes.describe(again)


@pytest.mark.needs("root")
def test_a_mount_of_its_own_lends_no_path(tmp_path: Path) -> None:
    """The kernel gives the path that the process sees: in a mount namespace any file has any path."""
    shutil.copy("/bin/sleep", tmp_path / "evil")
    target = str(Path("/bin/true").resolve())
    line = f"mount --bind {tmp_path}/evil {target} && exec {target} 60"
    with subprocess.Popen(["unshare", "--mount", "/bin/sh", "-c", line]) as process:
        try:
            found = None
            while found is None or found.exe != target:
                found = processes.look(process.pid)
                assert process.poll() is None, "it could be mounted"
            assert f"not the file at {target}" in processes.describe(found)
        finally:
            process.kill()
