"""T8: malware of the same user. What is closed to it, and, written down as such, what is not (security.md §1)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.adversary import wire
from tests.adversary.case import Attack, Case
from tests.adversary.ground import Ground
from tests.adversary.people import OTHER, OWNER, as_process, as_user
from tests.adversary.t02_other_user_unix import KEYS, asks, token_file
from tests.process.harness import PASSPHRASE, until

_ATTACH, _DETACH = 16, 17  # sys/ptrace.h PTRACE_ATTACH, PTRACE_DETACH


@contextmanager
def plain_program() -> Iterator[int]:
    """A process of the owner's that does nothing for itself."""
    with as_process(OWNER, lambda: time.sleep(60)) as pid:
        time.sleep(0.1)  # it drops its ids, and is dumpable again
        yield pid


def of_daemon(look: Callable[[int], bytes]) -> Attack:
    def act(ground: Ground) -> bytes:
        pid = ground.home.pid()
        return as_user(OWNER, lambda: look(pid))

    return act


def of_plain_program(look: Callable[[int], bytes]) -> Attack:
    def act(_: Ground) -> bytes:
        with plain_program() as pid:
            return as_user(OWNER, lambda: look(pid))

    return act


def reads(name: str) -> Callable[[int], bytes]:
    def look(pid: int) -> bytes:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/{name}").read_bytes()[:4096]
        return b""

    return look


def memory(pid: int) -> bytes:
    """The first bytes of the first readable mapping; the mappings are asked for first."""
    with contextlib.suppress(OSError, StopIteration):
        first = next(line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if " r" in line)
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:  # noqa: PTH123
            file.seek(int(first.partition("-")[0], 16))
            return file.read(64)
    return b""


def descriptors(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return " ".join(str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()).encode()
    return b""


def stolen_descriptor(pid: int) -> bytes:
    """pidfd_getfd takes a copy of any descriptor of who may be traced."""
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(pid)
    found: int = libc.syscall(438, pidfd, 0, 0)  # asm-generic/unistd.h __NR_pidfd_getfd
    os.close(pidfd)
    return b"descriptor" if found >= 0 else b""


def attaches(pid: int) -> bytes:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if libc.ptrace(_ATTACH, pid, None, None) != 0:
        return b""
    os.waitpid(pid, 0)
    libc.ptrace(_DETACH, pid, None, None)
    return b"attached"


def reads_remotely(pid: int) -> bytes:
    """process_vm_readv of our own libc's address: refused before the address counts."""
    libc = ctypes.CDLL(None, use_errno=True)
    target = ctypes.create_string_buffer(8)

    class Span(ctypes.Structure):
        _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

    here = Span(ctypes.addressof(target), 8)
    there = Span(ctypes.cast(libc.getpid, ctypes.c_void_p).value, 8)
    got = libc.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    # EFAULT: we were let in, and nothing is at that address there.
    return b"read" if got > 0 or ctypes.get_errno() == 14 else b""


def may_dump_core(pid: int) -> bytes:
    limits = Path(f"/proc/{pid}/limits").read_text()
    [line] = [each for each in limits.splitlines() if each.startswith("Max core file size")]
    return b"" if line.split()[4:6] == ["0", "0"] else line.encode()


def may_dump_core_plain(_: Ground) -> bytes:
    def sleep() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        time.sleep(60)

    with as_process(OWNER, sleep) as pid:
        time.sleep(0.1)
        return may_dump_core(pid)


def while_locked(act: Callable[[Ground], bytes]) -> Attack:
    """`vault-client lock`, and then what same-user code gets by what it has."""

    def attack(ground: Ground) -> bytes:
        assert ground.home.client("lock").status == 0
        try:
            return as_user(OWNER, lambda: act(ground))
        finally:
            unlocked = ground.home.client("unlock", "--stdin", stdin=PASSPHRASE + "\n")
            assert unlocked.status == 0, unlocked

    return attack


def by_token(ground: Ground) -> bytes:
    return wire.granted(wire.talk(ground.daemon, ground.get()))


def by_door(ground: Ground) -> bytes:
    return wire.granted(wire.talk(("127.0.0.1", ground.door), ground.role()))


def by_control(ground: Ground) -> bytes:
    return wire.granted(asks(KEYS)(ground))


def served_unseen(*, by_naive: bool) -> Attack:
    """Keys that went out by a new grant without a line in the audit log."""

    def act(ground: Ground) -> bytes:
        grant, token = ground.used()
        target = ground.naive if by_naive else ground.daemon
        reply = as_user(OWNER, lambda: wire.granted(wire.talk(target, ground.get(token=token))))
        assert reply
        with contextlib.suppress(AssertionError):
            until(lambda: _told_of(ground, grant), "the line", seconds=2 if by_naive else 20)
            return b""
        return reply

    return act


def _told_of(ground: Ground, grant: str) -> bool:
    events = ground.home.ask("GET", "/v1/audit")["events"]
    return any(each["event"] == "credentials.serve" and each["grant"] == grant for each in events)


def _edits_config(ground: Ground) -> bytes:
    """Same-user code may rewrite what we read: here it only shows that it can."""
    path = ground.home.directory / ".aws/config"
    with contextlib.suppress(OSError), path.open("a") as file:
        file.write("")
        return b"opened"
    return b""


def _key_names(ground: Ground) -> bytes:
    with contextlib.suppress(OSError):
        return (ground.home.state / "identities.json").read_bytes()
    return b""


def as_owner(act: Callable[[Ground], bytes]) -> Attack:
    return lambda ground: as_user(OWNER, lambda: act(ground))


def as_other(act: Callable[[Ground], bytes]) -> Attack:
    return lambda ground: as_user(OTHER, lambda: act(ground))


CLOSED = "Memory, environment and descriptors of the daemon are closed to the owner's other programs"
PLAIN = "the same look at a plain program of the owner's succeeds"
LOCKED = "Nothing is served while locked, whatever the program already has"
UNLOCKED = "before and after the lock the same is answered"


def _look(name: str, look: Callable[[int], bytes]) -> Case:
    return Case(f"T8-{name}", "T8", CLOSED, of_daemon(look), PLAIN, of_plain_program(look))


def _residual(name: str, promise: str, act: Callable[[Ground], bytes]) -> Case:
    return Case(
        f"T8-{name}",
        "T8",
        f"Not prevented: {promise}",
        as_owner(act),
        "another user cannot",
        as_other(act),
        residual=True,
    )


CASES = (
    _look("environ", reads("environ")),
    _look("maps", reads("maps")),
    _look("memory", memory),
    _look("descriptors", descriptors),
    _look("pidfd-getfd", stolen_descriptor),
    _look("ptrace", attaches),
    _look("process-vm-readv", reads_remotely),
    Case(
        "T8-core-limit", "T8", "The daemon leaves no core file", of_daemon(may_dump_core),
        "a plain program's limit is found", may_dump_core_plain,
    ),
    Case("T8-locked-token", "T8", LOCKED, while_locked(by_token), UNLOCKED, as_owner(by_token)),
    Case("T8-locked-door", "T8", LOCKED, while_locked(by_door), UNLOCKED, as_owner(by_door)),
    Case("T8-locked-control-socket", "T8", LOCKED, while_locked(by_control), UNLOCKED, as_owner(by_control)),
    Case(
        "T8-every-key-leaves-a-line", "T8", "Keys that go out are in the audit log",
        served_unseen(by_naive=False), "of the naive server's there is no line",
        served_unseen(by_naive=True),
    ),
    _residual("control-socket", "any program of the owner's gets keys over the control socket", by_control),
    Case(
        "T8-token-files", "T8", "Not prevented: any program of the owner's reads the token files", token_file(OWNER),
        "another user cannot", token_file(OTHER), residual=True,
    ),
    _residual("token-in-use", "who has read a token has that role's keys until it is revoked", by_token),
    _residual("profiles", "any program of the owner's rewrites ~/.aws/config, so what a profile means", _edits_config),
    _residual("identities", "any program of the owner's sees which identities there are", _key_names),
)  # fmt: skip
