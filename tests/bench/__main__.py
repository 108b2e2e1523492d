"""`python -m tests.bench`: every figure that issue 3 and performance.md name, as a table and as bench.json.

Everything a ratio is made of was measured in one run, by turns. The exit status is 0 whatever was measured, and 1 when
something broke; `--only` takes parts by name, `--quick` measures less often.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.bench import callers, commands, crowded, daemons, endpoint, floods, keeper, locking, memory, start, thousand
from tests.bench.figures import Figure, table, write
from tests.process.harness import Emulator

Part = Callable[[Path, Emulator, bool], Iterator[Figure]]


def _endpoint(_directory: Path, _running: Emulator, quick: bool) -> Iterator[Figure]:
    for loop in ("uvloop",) if quick else ("uvloop", "asyncio"):
        for row in endpoint.rows(loop=loop, rounds=5) if quick else endpoint.rows(loop=loop):
            yield Figure.read(row)


PARTS: dict[str, Part] = {
    "endpoint": _endpoint,
    "client": lambda directory, running, quick: commands.figures(directory, running, quick=quick),
    "start": lambda directory, running, quick: start.figures(directory, running, quick=quick),
    "memory": lambda directory, running, quick: memory.figures(directory, running, quick=quick),
    "callers": lambda directory, running, quick: callers.figures(directory, running, quick=quick),
    "floods": lambda directory, running, quick: floods.figures(directory, running, quick=quick),
    "lock": lambda directory, running, quick: locking.figures(directory, running, quick=quick),
    "keeper": lambda directory, running, quick: keeper.figures(directory, running, quick=quick),
    "profiles": lambda directory, running, quick: thousand.figures(directory, running, quick=quick),
    "crowded": lambda directory, running, quick: crowded.figures(directory, running, quick=quick),
}


def measure(names: Sequence[str], *, quick: bool, parts: dict[str, Part]) -> list[Figure]:
    """The figures of the parts named, each on an emulator and in homes of its own."""
    found: list[Figure] = []
    for name in names:
        began = time.monotonic()
        with contextlib.ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vb")))
            found += parts[name](directory, stack.enter_context(daemons.emulator()), quick)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return found


def main(arguments: Sequence[str], parts: dict[str, Part] = PARTS) -> int:
    """The whole program."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Speed and size of vaultd.")
    parser.add_argument("--only", action="append", choices=list(parts), metavar="NAME", help=", ".join(parts))
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller crowds")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), metavar="FILE", help="default: bench.json")
    options = parser.parse_args(arguments)
    figures = measure(options.only or list(parts), quick=options.quick, parts=parts)
    write(options.json, figures)
    print(table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
