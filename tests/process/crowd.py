"""Many commands at once, each on a terminal of its own, as if typed in as many windows."""

from __future__ import annotations

import os
import pty
import selectors
import subprocess
import sys
import termios
from collections.abc import Iterable, Sequence

from tests.process.harness import Home

#: Makes stdin the controlling terminal, which no preexec_fn may do in a process with threads, and becomes the command.
_ON_TERMINAL = f"import fcntl, os, sys; fcntl.ioctl(0, {termios.TIOCSCTTY}, 0); os.execvp(sys.argv[1], sys.argv[1:])"


class Crowd:
    """Many commands at once, each on a terminal of its own, as if typed in as many windows."""

    def __init__(self, home: Home, commands: Iterable[Sequence[str]]) -> None:
        self._selector = selectors.DefaultSelector()
        self.screens: dict[int, str] = {}
        self.children = [self._start(home, command) for command in commands]

    def _start(self, home: Home, command: Sequence[str]) -> subprocess.Popen[bytes]:
        master, slave = pty.openpty()
        child = subprocess.Popen(
            [sys.executable, "-I", "-c", _ON_TERMINAL, *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=home.env,
            cwd="/",
            start_new_session=True,
        )
        os.close(slave)
        self._selector.register(master, selectors.EVENT_READ)
        self.screens[master] = ""
        return child

    def read(self) -> None:
        """Take what the terminals show by now."""
        for key, _ in self._selector.select(0):
            try:
                piece = os.read(key.fd, 65536)
            except OSError:  # EIO: the last process on that terminal has ended
                self._selector.unregister(key.fd)
                continue
            self.screens[key.fd] += piece.decode()

    def asked(self) -> int:
        """How many show the question."""
        self.read()
        return sum("MFA code: " in screen for screen in self.screens.values())

    def ended(self) -> bool:
        self.read()
        return all(child.poll() is not None for child in self.children)

    def close(self) -> None:
        for child in self.children:
            if child.poll() is None:
                child.kill()
            child.wait()
        for master in self.screens:
            os.close(master)
        self._selector.close()
