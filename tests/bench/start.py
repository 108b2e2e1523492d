"""`vaultd start` to the first credential, from a sealed session; and what was imported before it.

A token that was handed out before the daemon stopped is asked for the moment the new one serves: no code, no STS call.
The imports are read from the interpreter's own `-X importtime` trace of a daemon in the foreground, which writes each
import when it happens; that the trace would show boto3 is proven by making the daemon call AWS afterwards.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.bench import daemons
from tests.bench.daemons import Lease
from tests.bench.figures import Figure, at_most, exactly, for_the_record
from tests.process.harness import Emulator, Home, stop, until

#: Issue 3, speed: seconds.
FIRST_CREDENTIAL = 1.2
_SDK = ("boto3", "botocore")


def figures(directory: Path, running: Emulator, *, quick: bool) -> Iterator[Figure]:
    """Start to first credential, in seconds and in bare interpreters; imports of boto3 before it."""
    with daemons.daemon(directory, running) as home:
        daemons.signed_in(home, running)
        lease = Lease.make(home, "web-admin")
        home.stop()
        calls = len(running.calls())
        taken = [_started(home, lease) for _ in range(3 if quick else 7)]
        bare = statistics.median(daemons.bare(home) for _ in range(15))
        yield at_most("start to first credential", statistics.median(taken), "s", FIRST_CREDENTIAL)
        yield for_the_record("start to first credential", statistics.median(taken) / bare, "× python -I -c pass")
        yield exactly("start to first credential, STS calls", len(running.calls()) - calls, "calls", 0)
        settings = home.directory / "vaultd/config/config.toml"
        settings.write_text(settings.read_text() + daemons.ONE_PROCESS)  # where boto3 would be seen at all
        before, after = _imported(home, lease)
        yield exactly("boto3 and botocore modules before it", before, "modules", 0)
        yield for_the_record("boto3 and botocore modules after a call", after, "modules")
        assert after, "the trace does not show botocore where it must be"


def _started(home: Home, lease: Lease) -> float:
    began = time.perf_counter()
    done = home.run("vaultd", "start")
    try:
        status, _ = lease.get()
        taken = time.perf_counter() - began
        assert (done.status, status) == (0, 200), (done, status)
        return taken
    finally:
        home.stop()


def _imported(home: Home, lease: Lease) -> tuple[int, int]:
    """Modules of boto3 and botocore up to the first credential, and after a session was made."""
    trace = home.directory / "imports"
    with trace.open("wb") as file, _foreground(home, file):
        until(lambda: _serves(lease), "the daemon in the foreground serves")
        before = _count(trace)
        refreshed = home.client("refresh", lease.profile)
        assert refreshed.status == 0, refreshed
        return before, _count(trace)


@contextmanager
def _foreground(home: Home, errors: IO[bytes]) -> Iterator[None]:
    command = [daemons.PYTHON, "-I", "-X", "importtime", "-m", "vaultd", "start", "--foreground"]
    with subprocess.Popen(command, env=home.env, stdout=subprocess.DEVNULL, stderr=errors, text=True) as process:
        try:
            yield
        finally:
            stop(process)


def _serves(lease: Lease) -> bool:
    try:
        return lease.get()[0] == 200
    except OSError:
        return False


def _count(trace: Path) -> int:
    """Lines `import time: self | cumulative | module` of boto3 and botocore. Each is written when its import ends."""
    names = [line.rpartition("|")[2].strip() for line in trace.read_text().splitlines() if "|" in line]
    assert "vaultd.daemon" in names, "the trace shows nothing"
    return sum(1 for name in names if name.partition(".")[0] in _SDK)
