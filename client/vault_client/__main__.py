"""`vault-client`, and `python -m vault_client`: hands the command line to cli.py and returns its exit status.

Rule: whatever the caller closed, interrupted or filled up, no traceback. Descriptors 0 to 2 that were closed are taken
here, so that no socket of ours becomes somebody's stdout; as os.open makes them end at execve, CMD gets them closed.
"""

from __future__ import annotations

import os
import sys


def main() -> int:
    """The console script; Ctrl-C is 130 as in every shell."""
    try:
        _take_closed()
        from vault_client.cli import run  # here, because Ctrl-C may come while it is imported

        return run(sys.argv[1:])
    except KeyboardInterrupt:
        return 130


def _take_closed() -> None:
    """Python leaves None for a stream whose descriptor was closed at the start. stdout is opened for reading, so that
    what is written to it fails as it does for everybody else: lines of `use` that nobody gets must not go unnoticed.
    """
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_RDWR)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # the lowest free number: this one
    sys.stdin = sys.stdin or open(0, closefd=False, encoding="utf-8")  # noqa: SIM115 - for the whole process
    sys.stdout = sys.stdout or open(1, "w", closefd=False, encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False, encoding="utf-8", errors="replace")  # noqa: SIM115


if __name__ == "__main__":
    sys.exit(main())
