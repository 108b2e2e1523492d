"""The owner and another user, by number; how a test acts as one of them.

Rule: whoever acts is a forked child that dropped every id and capability after its imports, so no program of the tests
has to be readable for it. The commands of vaultd run by exec: for them `reachable` lays open, in a mount namespace of
the tests' own, what lies below a directory that only root may enter (a Python below /root).
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tests.process.harness import ROOT

OWNER, OTHER = 64101, 64102
_SET_DUMPABLE = 4  # linux/prctl.h
_NEWNS, _NEWNET = 0x00020000, 0x40000000  # linux/sched.h
T = TypeVar("T")


def command_of(uid: int) -> tuple[str, ...]:
    """What is put before a command to run it as that user."""
    return (
        "setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all",
    )  # fmt: skip


def become(uid: int) -> None:
    """For good. Dumpable again, as a program is that was started by this user."""
    if uid != 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        ctypes.CDLL(None).prctl(_SET_DUMPABLE, 1, 0, 0, 0)


def enter_network(pid: int) -> None:
    """The network namespace of a process, for this one."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/proc/{pid}/ns/net").open("rb") as found:
        if libc.setns(found.fileno(), _NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")


def as_user(uid: int, act: Callable[[], T], *, network: int | None = None, seconds: int = 30) -> T:
    """What `act` returns when that user runs it in a process of its own; what it raises fails the test."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _act(uid, act, network, seconds, writing)
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as pipe:
            said = pipe.read()
    finally:
        status = os.waitpid(pid, 0)[1]
    if not said:
        raise AssertionError(f"the child of uid {uid} said nothing (wait status {status})")
    good, found = pickle.loads(said)
    if not good:
        raise AssertionError(f"as uid {uid}:\n{found}")
    result: T = found
    return result


def _act(uid: int, act: Callable[[], object], network: int | None, seconds: int, writing: int) -> None:
    """In the child; never returns."""
    try:
        signal.alarm(seconds)
        if network is not None:
            enter_network(network)
        become(uid)
        told = (True, act())
    except BaseException:  # noqa: BLE001 (whatever it is, the parent is told)
        told = (False, traceback.format_exc())
    try:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(pickle.dumps(told))
    finally:
        os._exit(0)


@contextmanager
def as_process(uid: int, act: Callable[[], object]) -> Iterator[int]:
    """The same in the background: its pid; ended with the block."""
    pid = os.fork()
    if pid == 0:
        try:
            become(uid)
            act()
        finally:
            os._exit(0)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _closed_ancestor(path: Path) -> Path | None:
    """The first directory on the way that others may not enter."""
    for each in reversed(path.parents):
        if not each.stat().st_mode & 0o001:
            return each
    return None


@contextmanager
def reachable(*paths: Path) -> Iterator[None]:
    """These (interpreter and checkout, when none are named) can be entered by everybody, at their own paths, for this
    thread and its children; what lies beside them below a closed directory is not there at all.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY)
    here = Path.cwd()
    try:
        if libc.unshare(_NEWNS) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        _mount("--make-rprivate", "/")
        _lay_open({each.resolve() for each in paths or (Path(sys.base_prefix), Path(sys.prefix), ROOT)})
        os.chdir(here)
        yield
    finally:
        if libc.setns(before, _NEWNS) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        os.chdir(here)
        os.close(before)


def _lay_open(paths: set[Path]) -> None:
    """All are kept aside before the first closed directory is covered, as several may lie below the same."""
    outer = sorted(each for each in paths if not any(other in each.parents for other in paths))
    closed = {each: _closed_ancestor(each) for each in outer}
    aside = {each: tempfile.mkdtemp(prefix="vaultd-aside-") for each in outer if closed[each]}
    for each, place in aside.items():
        _mount("--bind", str(each), place)
    for each in sorted({found for found in closed.values() if found}):
        _mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", str(each))
    umask = os.umask(0o022)
    for each, place in aside.items():
        each.mkdir(parents=True)
        _mount("--move", place, str(each))
        Path(place).rmdir()
    os.umask(umask)


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)
