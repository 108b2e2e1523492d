"""`vaultd logs`: the log, and with -f what is written from now on, across rotation."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from pathlib import Path
from typing import IO

from vault_client.errors import Stop
from vaultd.command import running, stdio

_CHUNK = 65536
_POLL_SECONDS = 0.25


def run(options: argparse.Namespace) -> int:
    """Print it; with -f until Ctrl-C, or until nobody reads."""
    path = Path(running.places().log)
    try:
        file = path.open(errors="replace")
    except FileNotFoundError:
        raise Stop(f"there is no {path} yet: type `vaultd start`") from None
    return _print(file, path, follow=options.follow)


def _print(file: IO[str], path: Path, *, follow: bool) -> int:
    with contextlib.closing(file):
        while (part := file.read(_CHUNK)) and not stdio.failure(sys.stdout):
            sys.stdout.write(part)
        while follow and not stdio.failure(sys.stdout):
            sys.stdout.flush()
            time.sleep(_POLL_SECONDS)
            file = reopened(file, path)
            sys.stdout.write(file.read())
    return 0


def reopened(file: IO[str], path: Path) -> IO[str]:
    """The file that stands at `path` now: the log is rotated by rename."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_ino != os.fstat(file.fileno()).st_ino:
            sys.stdout.write(file.read())
            file.close()
            return path.open(errors="replace")
    return file
