"""Mounts of the tests' own: a disk that is full or read-only, without touching the machine's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.process.harness import stop


@dataclass(frozen=True)
class Mounts:
    """A mount namespace of its own, so that a disk can be full or read-only without touching the machine's."""

    pid: int

    @classmethod
    @contextmanager
    def private(cls) -> Iterator[Mounts]:
        own = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
        with subprocess.Popen([*own, "sh", "-c", "echo; exec sleep 600"], stdout=subprocess.PIPE, text=True) as holder:
            try:
                assert holder.stdout is not None
                assert holder.stdout.readline() == "\n", "unshare is not allowed here"
                yield cls(holder.pid)
            finally:
                stop(holder)

    @property
    def inside(self) -> tuple[str, ...]:
        own = () if os.geteuid() == 0 else ("-U", "--preserve-credentials")
        return ("nsenter", "-t", str(self.pid), "-m", *own, "--")

    def run(self, *command: str) -> str:
        return subprocess.run([*self.inside, *command], check=True, capture_output=True, text=True, cwd="/").stdout
