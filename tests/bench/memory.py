"""Memory of the daemon: before boto3 is needed, with its clients, after 10,000 requests; and what Argon2id leaves.

Of a daemon in one process, for which the goals were set; what a second one costs is measured in keeper.py.
Resident set in MB of 1,000,000 bytes, from /proc. Opening the store takes 64 MiB for Argon2id; the allocator maps a
block of that size for itself and gives it back, so it stands in the peak and not in what stays.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.bench import daemons
from tests.bench.daemons import Lease
from tests.bench.figures import Figure, at_most, for_the_record
from tests.process.harness import Emulator, Home

#: Issue 3, speed: MB.
BEFORE_BOTO3, WITH_CLIENTS = 70.0, 95.0
#: "Flat": what 10,000 requests may add, in MB. One request that kept one object of 100 bytes would add it.
FLAT = 1.0
#: What a derivation may leave behind, in MB: library code that it touched, none of its 64 MiB.
KEPT = 6.0
_REQUESTS = 10_000
_A_CONNECTION = 50


def figures(directory: Path, running: Emulator, *, quick: bool) -> Iterator[Figure]:
    """RSS at each point, and its growth."""
    with daemons.daemon(directory, running, identity=False, settings=daemons.ONE_PROCESS) as home:
        home.client("status")
        opened = daemons.memory(home.pid())
        yield at_most("memory before boto3 is needed", opened["VmRSS"], "MB", BEFORE_BOTO3)
        yield for_the_record("memory at its peak, Argon2id under way", opened["VmHWM"], "MB")
        yield at_most("memory of Argon2id's 67 MB that stays", _kept_by_argon2id(home), "MB", KEPT)
        added = home.add(running)
        assert added.status == 0, added
        daemons.signed_in(home, running)
        lease = Lease.make(home, "web-admin")
        assert running.count("ListMFADevices") == 1, "IAM was not asked"
        yield at_most("memory with STS and IAM clients", daemons.memory(home.pid())["VmRSS"], "MB", WITH_CLIENTS)
        yield from _growth(home, lease, _REQUESTS // 10 if quick else _REQUESTS)


_DERIVE = """
import json, secrets
from vaultd.store.sealed_format import DEFAULT, default_kdf, derive

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6

assert default_kdf() == DEFAULT, "this build has no Argon2id"
before = resident()
derive(DEFAULT, secrets.token_bytes(16), "a passphrase")
print(json.dumps(resident() - before))
"""


def _kept_by_argon2id(home: Home) -> float:
    """RSS after one derivation of the store's own cost, less RSS before it, in a process of its own."""
    done = subprocess.run([daemons.PYTHON, "-I", "-c", _DERIVE], env=home.env, capture_output=True, check=True)
    return round(float(json.loads(done.stdout)), 2)


def _growth(home: Home, lease: Lease, count: int) -> Iterator[Figure]:
    """After a warm-up, on kept and on new connections, with a command of the client among them."""
    _ask(home, lease, count // 10)
    begin = daemons.memory(home.pid())["VmRSS"]
    _ask(home, lease, count)
    grown = daemons.memory(home.pid())["VmRSS"] - begin
    yield at_most(f"memory that {count:,} requests add", round(grown, 3), "MB", FLAT)


def _ask(home: Home, lease: Lease, count: int) -> None:
    """Half on connections that are kept for 50 requests, half on new ones; 1 in 100 is a control request."""
    for _ in range(count // 2 // _A_CONNECTION):
        daemons.many(lease, _A_CONNECTION - 1)
        for _ in range(_A_CONNECTION - 1):
            status, _ = lease.get()
            assert status == 200, status
        daemons.link(home).call("GET", "/v1/status")
