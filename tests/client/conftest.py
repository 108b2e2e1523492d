"""Fixtures of the client's tests: the stub daemon, the client in this process, as a process, and on a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.client.stub import Stub, environment
from tests.client.terminal import OnTerminal, Ran, start
from vault_client import cli

CLIENT = [sys.executable, "-m", "vault_client"]


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


@pytest.fixture
def terminal(stub: Stub) -> Iterator[Callable[..., OnTerminal]]:
    """Start a command on a pty of its own; `piped` makes its stdout a pipe, as `$(…)` does."""
    started: list[OnTerminal] = []

    def run(*arguments: str, piped: bool = False, command: list[str] | None = None, **environ: str) -> OnTerminal:
        env = environment(stub, TERM="xterm", **environ)
        started.append(start(command or [*CLIENT, *arguments], env=env, piped=piped))
        return started[-1]

    yield run
    for each in started:
        each.close()
