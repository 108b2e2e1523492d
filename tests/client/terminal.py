"""A process on a terminal of its own: what a person would see and type."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import select
import subprocess
import termios
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Ran:
    """How a command ended, with everything that it printed."""

    status: int
    out: str
    err: str


@dataclass
class OnTerminal:
    """A client whose controlling terminal is a pty of ours."""

    child: subprocess.Popen[bytes]
    master: int
    screen: str = ""
    _closed: bool = field(default=False)

    def until(self, text: str, seconds: float = 20.0) -> str:
        """Read until `text` shows; everything before it, and itself."""
        while text not in self.screen:
            assert select.select([self.master], [], [], seconds)[0], f"{text!r} never came; screen: {self.screen!r}"
            piece = self._read()
            assert piece, f"{text!r} never came; screen: {self.screen!r}"
            self.screen += piece
        seen, _, self.screen = self.screen.partition(text)
        return seen + text

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def hang_up(self) -> None:
        """The terminal window is closed."""
        self._closed = True
        os.close(self.master)

    def end(self) -> Ran:
        """Wait for the end; `out` is stdout where it is a pipe, `err` the rest of the screen."""
        out = b""
        if self.child.stdout is not None:
            out = self.child.stdout.read()
            self.child.stdout.close()
        while not self._closed and (piece := self._read()):
            self.screen += piece
        status = self.child.wait(20)
        self.close()
        return Ran(status, out.decode(), self.screen)

    def close(self) -> None:
        """Nothing of it stays open."""
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()
        if self.child.stdout is not None:
            self.child.stdout.close()
        if not self._closed:
            self.hang_up()

    def _read(self) -> str:
        try:
            return os.read(self.master, 65536).decode("utf-8", "replace")
        except OSError as exc:
            if exc.errno == errno.EIO:  # the last process on the terminal is gone
                return ""
            raise


def start(
    command: list[str], *, env: Mapping[str, str], piped: bool = False, columns: int = 0, cwd: str | None = None
) -> OnTerminal:
    """Start a command on a pty of its own; `piped` makes its stdout a pipe, as `$(…)` does."""
    master, slave = pty.openpty()
    if columns:
        termios.tcsetwinsize(slave, (50, columns))
    child = subprocess.Popen(
        command,
        stdin=slave,
        stdout=subprocess.PIPE if piped else slave,
        stderr=slave,
        env=env,
        cwd=cwd,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - the child execs at once
    )
    os.close(slave)
    return OnTerminal(child, master)
