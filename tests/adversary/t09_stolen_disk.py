"""T9: a stolen disk, a backup, a synchronised directory: what the files say, and whether a copy opens."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from tests.adversary.case import Attack, Case, once
from tests.adversary.ground import Ground, OwnersHome, give
from tests.adversary.homes import copied, opened
from tests.adversary.people import OWNER
from tests.leaks.canary import Canaries
from tests.process.harness import PASSPHRASE


def canaries(ground: Ground) -> Canaries:
    """As they are in use: in clear, base64, hex, reversed and every other form that the leak tests know."""
    role, session, key, *_ = (each.decode() for each in ground.secrets)
    del key
    return Canaries(secret_key=role, session_token=session, passphrase=PASSPHRASE, grant_token=ground.token)


def identity_key(ground: Ground) -> Canaries:
    return Canaries(secret_key=ground.emulator.key()[1])


def found(made: Callable[[Ground], Canaries], *, plant: bool) -> Attack:
    """In every file below config, state and data; the run directory is memory, and holds the token files."""

    def act(ground: Ground) -> bytes:
        hits = []
        planted = ground.home.state / "planted.txt"
        if plant:
            planted.write_text("\n".join(made(ground).values.values()))
        try:
            for name in ("config", "state", "data"):
                hits += made(ground).scan_path(ground.home.root / name)
        finally:
            planted.unlink(missing_ok=True)
        return " ".join(f"{each.canary}:{each.form}" for each in hits).encode()

    return act


def copy_opens(*, passphrase: str | None = None, spoil: Callable[[OwnersHome], None] | None = None) -> Attack:
    def act(ground: Ground) -> bytes:
        with copied(ground.home, passphrase=passphrase) as home:
            if spoil is not None:
                spoil(home)
            return opened(home)

    return act


def _flipped(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def _in_a_record(home: OwnersHome) -> None:
    _flipped(home.root / "data/secrets.sealed", -5)


def _in_the_header(home: OwnersHome) -> None:
    _flipped(home.root / "data/secrets.sealed", 60)


def _cheap_kdf(home: OwnersHome) -> None:
    """1 KiB, once: what would make guessing cheap is refused before anything is derived."""
    path = home.root / "data/secrets.sealed"
    content = bytearray(path.read_bytes())
    content[12:16] = (1024).to_bytes(4, "little")
    path.write_bytes(content)


def _gone(home: OwnersHome) -> None:
    """The store is gone and the index is there: not a new store."""
    (home.root / "data/secrets.sealed").unlink()


def sessions_alone(*, whole: bool) -> Attack:
    """The sealed sessions in a home with another store, or in a copy of their own."""

    def act(ground: Ground) -> bytes:
        with contextlib.ExitStack() as stack:
            home = stack.enter_context(copied(ground.home))
            if not whole:
                for each in ("data/secrets.sealed", "state/identities.json"):
                    (home.root / each).unlink()
            give(home.directory, OWNER)
            if not opened(home):
                return b""
            listed = home.client("list", "--json").json()["profiles"]
            return b" ".join(each["state"].encode() for each in listed if each["state"] in {"fresh", "due"})

    return act


PLANTED = "the same search finds them in a file where they were planted"
COPY = "an unspoiled copy with the right passphrase opens"
_COPY = once(copy_opens())

CASES = (
    Case(
        "T9-session-secrets", "T9", "No file at rest has a session's secret, in any form",
        found(canaries, plant=False), PLANTED, found(canaries, plant=True),
    ),
    Case(
        "T9-identity-key", "T9", "No file at rest has an identity's secret key, in any form",
        found(identity_key, plant=False), PLANTED, found(identity_key, plant=True),
    ),
    Case(
        "T9-wrong-passphrase", "T9", "A copy opens by the passphrase alone",
        copy_opens(passphrase="wrong horse"), COPY, _COPY,
    ),
    Case("T9-spoiled-record", "T9", "A changed store is refused", copy_opens(spoil=_in_a_record), COPY, _COPY),
    Case("T9-spoiled-header", "T9", "A changed store is refused", copy_opens(spoil=_in_the_header), COPY, _COPY),
    Case(
        "T9-cheap-kdf", "T9", "A store with a cheaper key derivation is refused",
        copy_opens(spoil=_cheap_kdf), COPY, _COPY,
    ),
    Case("T9-store-gone", "T9", "A store that is gone is not silently made anew", copy_opens(spoil=_gone), COPY, _COPY),
    Case(
        "T9-sessions-without-their-store", "T9", "Sealed sessions are nothing without their store",
        sessions_alone(whole=False), "with their store they are served again", sessions_alone(whole=True),
    ),
)  # fmt: skip
