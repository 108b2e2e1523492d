"""`python -m vaultd`."""

import sys

from vaultd.cli import main

if __name__ == "__main__":
    sys.exit(main())
