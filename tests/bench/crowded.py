"""What an SDK waits for while people look at 10,000 profiles with names of 200 characters: `list` without a pause and
one `status --watch`, as many as a company's generated config file has.

Rules: quiet and looked at are spans of one run on one daemon; the daemon has a processor of its own, where there are
two, so that the figure is how long its loop was held and not who had the processor. GETs are paced: back to back, the
one that waits would hide those that it kept from being asked.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.bench import daemons
from tests.bench.daemons import Lease
from tests.bench.figures import Figure, at_most, for_the_record
from tests.bench.thousand import apart
from tests.process.floods import quantile
from tests.process.harness import BIN, Emulator, Home

#: IMDS clients give up after 0.5 s, SDKs after 1 to 2 s; a slice of rows is 2 ms.
GOAL_MS = 20.0
_MANY, _LONG = 10_000, 200
_PACE = 0.005
_MS = 1e3


def figures(directory: Path, running: Emulator, *, quick: bool, many: int = _MANY) -> Iterator[Figure]:
    """p99 and the longest, quiet, looked at, and while a changed file is read; `list` itself."""
    span = 3.0 if quick else 20.0
    text = daemons.profiles(more=many - len(daemons.FIVE), wide=_LONG)
    with daemons.daemon(directory / "crowded", running, text=text) as home:
        daemons.signed_in(home, running)
        lease = Lease.make(home, "web-admin")
        with apart(home.pid()):
            yield from _of(f"{many} profiles, quiet", _paced(lease, span))
            with _looking(home):
                taken = _paced(lease, span)
            yield at_most(f"{many} profiles, list and watch: GET p99", _MS * quantile(taken, 0.99), "ms", GOAL_MS)
            yield for_the_record(f"{many} profiles, list and watch: GET longest", _MS * max(taken), "ms")
            with _looking(home):
                (home.directory / ".aws/config").write_text(f"{text}\n")
                yield from _of(f"{many} profiles, file changed, list and watch", _paced(lease, span / 2))
            client = str(BIN / "vault-client")
            yield for_the_record(f"{many} profiles: list", daemons.seconds([client, "list"], home.env), "s")


def _of(when: str, taken: list[float]) -> Iterator[Figure]:
    yield for_the_record(f"{when}: GET p99", _MS * quantile(taken, 0.99), "ms")
    yield for_the_record(f"{when}: GET longest", _MS * max(taken), "ms")


def _paced(lease: Lease, span: float) -> list[float]:
    taken, end = [], time.perf_counter() + span
    while time.perf_counter() < end:
        taken += daemons.many(lease, 1)
        time.sleep(_PACE)
    return taken


@contextmanager
def _looking(home: Home) -> Iterator[None]:
    """One list after the other, and a watch; all of them end with this."""
    client = str(BIN / "vault-client")
    lines = (["sh", "-c", 'while "$0" list --json; do :; done', client], [client, "status", "--watch", "--json"])
    begun = [
        subprocess.Popen(line, env=home.env, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, process_group=0)
        for line in lines
    ]
    try:
        time.sleep(1.0)
        assert all(each.poll() is None for each in begun), "list or watch has ended"
        yield
        assert all(each.poll() is None for each in begun), "list or watch has ended"
    finally:
        for each in begun:
            with suppress(ProcessLookupError):
                os.killpg(each.pid, signal.SIGTERM)
            each.wait(30)
