"""`make promises`: every control of SECURITY.md is taken away once, and every test that is named for it must notice.

`python -m tests.promises [NAME…]`: a promise, or all of a threat (`T4`). Prints a row for each test as it goes, and
ends with 1 when one is open. `--write` puts the table of promises into SECURITY.md instead.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence

from tests.promises.copies import uncommitted
from tests.promises.promise import Promise
from tests.promises.promises import PROMISES, ROOT, SECURITY, chosen, written
from tests.promises.run import Row, Run


def main(argv: Sequence[str] | None = None) -> int:
    """1 when a test survives its break, 2 when nothing could be run."""
    parser = argparse.ArgumentParser(prog="python -m tests.promises", description=__doc__)
    parser.add_argument("name", nargs="*", help="a promise or a threat; all of them when none is named")
    parser.add_argument("--jobs", type=int, default=2, help="copies of the tree that are worked in at once")
    parser.add_argument("--committed", action="store_true", help="take HEAD, whatever else lies in the work tree")
    parser.add_argument("--write", action="store_true", help="write the table into SECURITY.md, and run nothing")
    given = parser.parse_args(argv)
    if given.write:
        SECURITY.write_text(written(SECURITY.read_text()))
        return 0
    try:
        promises = chosen(tuple(given.name))
    except KeyError as unknown:
        return _refused(f"there is no promise {unknown}: the names stand in SECURITY.md")
    if (changed := uncommitted(ROOT)) and not given.committed:
        return _refused(f"{changed[0]} is not committed ({len(changed)} in all): commit, or say --committed for HEAD")
    return _run(promises, given.jobs)


def _refused(why: str) -> int:
    print(f"promises: {why}", file=sys.stderr)
    return 2


def _run(promises: tuple[Promise, ...], jobs: int) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    begun = time.monotonic()
    try:
        rows = Run(ROOT, jobs, lambda line: print(line, flush=True)).over(promises)
    except KeyboardInterrupt:
        return 130
    return _closed(promises, rows, time.monotonic() - begun)


def _closed(promises: tuple[Promise, ...], rows: Sequence[Row], seconds: float) -> int:
    opened = [each for each in rows if not each.proven]
    print("", *(each.told() for each in opened), sep="\n")
    print(
        f"{len(promises)} of {len(PROMISES)} promises, {len(rows)} tests: {len(rows) - len(opened)} fail without their "
        f"control, {len(opened)} open; {seconds:.0f} s"
    )
    return 1 if opened else 0


if __name__ == "__main__":
    sys.exit(main())
