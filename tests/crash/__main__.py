"""`python -m tests.crash`: the crash table, and exit 1 when anything was torn, lost, undone, reset or sent again."""

from __future__ import annotations

import logging
import sys

from tests.crash.points import breaches, told_table, whole_table, workbench


def main() -> int:
    logging.getLogger("vaultd").addHandler(logging.NullHandler())
    with workbench() as root:
        tried = whole_table(root)
    print(told_table(tried))
    found = breaches(tried)
    print("\n".join(found), file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
