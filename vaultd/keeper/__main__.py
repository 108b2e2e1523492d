"""`python -I -m vaultd.keeper N`: the keeper as a process, talked to over descriptor N; started by the daemon only."""

from __future__ import annotations

import sys

from vaultd.keeper.process import main

if __name__ == "__main__":
    main(int(sys.argv[1]))
