"""`vault-client`, and `python -m vault_client`: hands the command line to cli.py and returns its exit status."""

from __future__ import annotations

import sys

from vault_client.cli import run


def main() -> int:
    """The console script; Ctrl-C is 130 as in every shell."""
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
