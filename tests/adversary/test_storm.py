"""10,000 randomised tries of the peer check (issue 5 Build 1): 0 bytes to the other user, and the owner is served."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

from tests.adversary.conftest import Results
from tests.adversary.ground import Ground
from tests.adversary.people import OTHER, OWNER, as_process, as_user
from tests.adversary.storm import ANSWERED, KINDS, SEED, Tally, storm

pytestmark = [
    pytest.mark.adversary,
    pytest.mark.needs("linux", "root", "ip", "unshare", "setpriv", "iptables", "nft", "socat", "chromium"),
]

TRIES, CONTROL_TRIES, SECONDS = 10_000, 400, 85.0


def _storm(ground: Ground, uid: int, token: str, tries: int, seed: int) -> Tally:
    def act() -> Tally:
        return storm(ground, uid=uid, token=token, tries=tries, seed=seed, seconds=SECONDS)

    return as_user(0, act, seconds=int(SECONDS) + 10)


def _for_ever(ground: Ground, token: str) -> Callable[[], None]:
    def act() -> None:
        for seed in range(1_000_000):
            storm(ground, uid=OWNER, token=token, tries=200, seed=seed, seconds=SECONDS)
            time.sleep(0.05)

    return act


def test_the_owner_gets_something_by_every_kind(ground: Ground, results: Results) -> None:
    """The positive control: the same tries by the owner's uid are answered, of every kind that reads an answer."""
    _, token = ground.used()
    tally = _storm(ground, OWNER, token, CONTROL_TRIES, SEED)
    assert tally.tries == CONTROL_TRIES
    assert all(tally.answered[kind] for kind in ANSWERED), tally
    assert not tally.answered["setuid after socket"], tally
    assert tally.secret
    results.lines.append(
        f"storm, control: {tally.tries} tries by the owner, {tally.got} B answered, {tally.secret} B with secrets"
    )


def test_ten_thousand_tries_by_the_other_user(ground: Ground, results: Results) -> None:
    """0 bytes of anything, and his grant was never served, while the owner goes on from the same source ports."""
    seed = int(os.environ.get("ADVERSARY_SEED", SEED))
    grant, token = ground.used()
    owners_grant, owners = ground.used()
    began = time.monotonic()
    with as_process(0, _for_ever(ground, owners)):
        tally = _storm(ground, OTHER, token, TRIES, seed)
    took = time.monotonic() - began
    results.tries += tally.tries
    results.leaked += tally.got
    kinds = ", ".join(f"{name} {tally.kinds[name]}" for name in KINDS)
    results.lines.append(
        f"storm, seed {seed}: {tally.tries} tries by the other user in {took:.0f} s ({kinds}); "
        f"{tally.got} B received, {tally.secret} B of secrets"
    )
    assert tally.tries == TRIES, tally
    assert (tally.got, tally.secret, sum(tally.answered.values())) == (0, 0, 0), tally
    assert all(tally.kinds[kind] >= 100 for kind in KINDS), tally
    assert ground.last_used(owners_grant), "the owner was not served meanwhile"
    assert ground.last_used(grant) is None, "one of his tries was served, though he read nothing"
