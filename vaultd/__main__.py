"""`vaultd`, and `python -m vaultd`: hands the command line to cli.py and returns its exit status."""

from __future__ import annotations

import sys


def main() -> int:
    """The console script; Ctrl-C is 130 as in every shell, while Python still imports, too."""
    try:
        from vaultd.cli import main as run

        return run()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
