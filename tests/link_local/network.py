"""A network of the tests' own: this thread and what it starts are in it; the machine's is never touched."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.process.harness import stop

_NEWNET = 0x40000000  # linux/sched.h CLONE_NEWNET


@contextmanager
def own_network() -> Iterator[None]:
    """A namespace with nothing but lo, until the block ends; it goes with its last process."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        try:
            ip("link", "set", "lo", "up")
            yield
        finally:
            if libc.setns(before, _NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(before)


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@dataclass(frozen=True)
class Neighbour:
    """Another machine on a wire to this network: 10.99.0.1 is we, 10.99.0.2 it."""

    pid: int

    @classmethod
    @contextmanager
    def connected(cls) -> Iterator[Neighbour]:
        command = ["unshare", "-n", "sh", "-c", "echo; exec sleep 600"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
            try:
                assert holder.stdout is not None
                assert holder.stdout.readline() == "\n"
                other = cls(holder.pid)
                ip("link", "add", "wire0", "type", "veth", "peer", "name", "wire1", "netns", str(holder.pid))
                ip("address", "add", "10.99.0.1/24", "dev", "wire0")
                ip("link", "set", "wire0", "up")
                other.run("ip", "address", "add", "10.99.0.2/24", "dev", "wire1")
                other.run("ip", "link", "set", "wire1", "up")
                yield other
            finally:
                stop(holder)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        inside = ["nsenter", "-t", str(self.pid), "-n", "--"]
        return subprocess.run([*inside, *command], capture_output=True, text=True, check=False, timeout=30)
