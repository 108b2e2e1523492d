"""The background process of `vaultd start`: begun with nothing of the caller's, heard once.

Rule: it holds none of the caller's descriptors, so that `$(vaultd start)` returns, and of his environment only what the
contract reads. What it says is one JSON line, that it serves or why not; after that nobody waits for it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import shlex
import subprocess
import sys
import time
from typing import Any

from vault_client.errors import Stop
from vaultd.command import running, stdio

#: A start that says nothing for so long is none.
START_SECONDS = 60.0


def spawned(options: argparse.Namespace) -> dict[str, Any]:
    """What the background process says once it serves, or why it does not."""
    from vaultd.host.hardening import handed_on

    reading, writing = os.pipe()
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, reading)
        try:
            process = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
                _command(options, writing),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(writing,),
                start_new_session=True,
                cwd="/",
                env=handed_on(os.environ),
            )
        except OSError as exc:
            raise _not_run(exc) from exc
        finally:
            os.close(writing)
        try:
            return first_line(reading, process)
        except KeyboardInterrupt:
            raise stdio.interrupted("vaultd goes on starting in the background: type `vaultd status`") from None


def _command(options: argparse.Namespace, ready_fd: int) -> list[str]:
    command = [sys.executable, "-I", "-m", "vaultd", "start", "--foreground", "--ready-fd", str(ready_fd)]
    command += ["--port", str(options.port)] if options.port else []
    command += ["--config", str(options.config.absolute())] if options.config else []
    return command + [f"--{flag}" for flag in ("debug", "accept-rollback") if getattr(options, flag.replace("-", "_"))]


def _not_run(exc: OSError) -> Stop:
    """No process came of it: an interpreter that was moved or may not be executed, or no memory for one more."""
    if isinstance(exc, FileNotFoundError | PermissionError):
        mend = f"look at it with `ls -l {shlex.quote(sys.executable)}`, give it back, then type `vaultd start`"
        return Stop(f"the Python that runs vaultd, {sys.executable}, cannot be run ({exc.strerror}): {mend}")
    return Stop(f"no process can be started ({exc.strerror}): end some programs, then type `vaultd start`")


def first_line(reading: int, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """The JSON line from the other end of a pipe, or what is to be said where none comes."""
    told = b""
    end = time.monotonic() + START_SECONDS
    while not told.endswith(b"\n"):
        ready, _, _ = select.select([reading], [], [], max(0.0, end - time.monotonic()))
        part = os.read(reading, 65536) if ready else b""
        if not part:
            break
        told += part
    process.returncode = 0  # it goes on without us, and nobody waits for it
    if told.endswith(b"\n"):
        found: dict[str, Any] = json.loads(told)
        return found
    return {"ok": False, "message": f"the daemon ended before it served: look at {running.places().log}"}
