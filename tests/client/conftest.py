"""Fixtures of the client's tests: the stub daemon, the client in this process, as a process, and on a terminal."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import select
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.client.stub import Stub, environment
from vault_client import cli

CLIENT = [sys.executable, "-m", "vault_client"]


@dataclass
class Ran:
    """How a command ended, with everything that it printed."""

    status: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[Stub]:
    """A control API in a home of its own."""
    daemon = Stub(tmp_path / "v")
    yield daemon
    daemon.close()


@pytest.fixture
def run(stub: Stub, capsysbinary: pytest.CaptureFixture[bytes]) -> Run:
    """The client in this process, for commands that ask nobody."""

    def run(*arguments: str, **environ: str) -> Ran:
        capsysbinary.readouterr()
        status = cli.run(list(arguments), {**stub.environ, "PATH": os.environ["PATH"], **environ})
        out, err = capsysbinary.readouterr()
        return Ran(status, out.decode(), err.decode())

    return run


@pytest.fixture
def process(stub: Stub) -> Run:
    """The client as a process without a terminal."""

    def run(*arguments: str, stdin: str = "", **environ: str) -> Ran:
        done = subprocess.run(
            [*CLIENT, *arguments],
            input=stdin,
            env=environment(stub, **environ),
            capture_output=True,
            text=True,
            start_new_session=True,
            timeout=30,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


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


@pytest.fixture
def terminal(stub: Stub) -> Iterator[Callable[..., OnTerminal]]:
    """Start a command on a pty of its own; `piped` makes its stdout a pipe, as `$(…)` does."""
    started: list[OnTerminal] = []

    def start(*arguments: str, piped: bool = False, command: list[str] | None = None, **environ: str) -> OnTerminal:
        master, slave = pty.openpty()
        child = subprocess.Popen(
            command or [*CLIENT, *arguments],
            stdin=slave,
            stdout=subprocess.PIPE if piped else slave,
            stderr=slave,
            env=environment(stub, TERM="xterm", **environ),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - the child execs at once
        )
        os.close(slave)
        started.append(OnTerminal(child, master))
        return started[-1]

    yield start
    for each in started:
        each.close()
