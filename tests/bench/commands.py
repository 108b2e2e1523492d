"""The client's commands on a daemon with a warm session, the AWS CLI beside them, and how often AWS was asked.

The costs themselves are `tests.bench.client`'s and `tests.bench.picker`'s; here is the daemon they are measured on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.bench import client, daemons, picker
from tests.bench.daemons import Lease
from tests.bench.figures import Figure, exactly
from tests.process.harness import BIN, Emulator

_PROFILE = "web-admin"
_WARM = 100


def figures(directory: Path, running: Emulator, *, quick: bool) -> Iterator[Figure]:
    """Each command in bare interpreters, and the AWS calls of 100 warm `exec`."""
    with daemons.daemon(directory, running) as home:
        daemons.signed_in(home, running)
        Lease.make(home, _PROFILE)
        command = str(BIN / "vault-client")
        rounds = 10 if quick else 40
        for row in client.measure(
            client=[command], profile=_PROFILE, environ=home.env, rounds=rounds, beside=_aws_clis()
        ):
            yield Figure.read(row)
        yield picker.figure([command], daemons.FIVE, home.env, rounds=rounds)
        calls, count = len(running.calls()), 10 if quick else _WARM
        for _ in range(count):
            daemons.seconds([command, "exec", _PROFILE, "--", "true"], home.env)
        yield exactly(f"{count} warm exec -- true, AWS calls", len(running.calls()) - calls, "calls", 0)


def _aws_clis() -> dict[str, list[str]]:
    """`aws --version` of the AWS CLI in our environment (1) and of the system's (2), where they are."""
    places = {"aws --version (AWS CLI 1)": BIN / "aws", "aws --version (AWS CLI 2)": Path("/usr/bin/aws")}
    return {name: [str(place), "--version"] for name, place in places.items() if place.exists()}
