"""OsKeyring against a real gnome-keyring on a private D-Bus session; each case is a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.store.gnome_session import PRIVATE_BUS

pytestmark = [pytest.mark.needs("gnome-keyring-daemon", "dbus-run-session"), pytest.mark.process]

ROOT = Path(__file__).parents[2]


def run(case: str, home: Path, **extra: str) -> dict[str, Any]:
    """The case's JSON. The home is empty, no display is there, and the null backend is asked for in vain."""
    runtime = home / "run"
    runtime.mkdir(mode=0o700)
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(runtime),
        "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
        **extra,
    }
    ran = subprocess.run(
        [*PRIVATE_BUS, sys.executable, "-m", "tests.store.gnome_session", case],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_round_trip(tmp_path: Path) -> None:
    """Write, replace, read from another instance, drop twice; PYTHON_KEYRING_BACKEND=null has no say."""
    assert run("round_trip", tmp_path) == {
        "backend": "secret-service",
        "found": "second",
        "absent": True,
        "dropped": True,
    }


def test_a_locked_keyring_says_so_at_once(tmp_path: Path) -> None:
    """security.md §3.1: without a prompter KeyringBusy, no hanging thread, and what to do; positive control first."""
    found = run("locked", tmp_path)

    assert found["unlocked"] == "ok"
    for call in ("open", "load", "save"):
        assert found[call].startswith("KeyringBusy: The OS keyring is locked"), found
        assert "vault-client unlock" in found[call]
    assert found["abandoned"] is False


def test_a_fresh_account_without_a_keyring(tmp_path: Path) -> None:
    """Nothing to unlock and nobody to ask: the other store is offered."""
    assert run("no_collection", tmp_path)["open"].startswith("StoreUnavailable: ")


def test_a_planted_item_is_never_taken_for_ours(tmp_path: Path) -> None:
    """security.md §0.9: read-back catches shadowing; where it does not shadow, what is read is what was written."""
    seen = run("planted", tmp_path)["seen"]

    assert len(seen) >= 6
    assert any(said.startswith("StoreDamaged") for said, _ in seen), seen
    for said, found in seen:
        assert (said == "ok") == (found == "ours again"), seen


def test_a_frozen_keyring_is_abandoned_and_comes_back(tmp_path: Path) -> None:
    """30 s by the injected clock, the loop turns meanwhile; after SIGCONT and the breaker it is used again."""
    found = run("frozen", tmp_path)

    assert found.pop("said").startswith("KeyringBusy: The OS keyring did not answer within 30 seconds")
    assert found == {"early": False, "abandoned": True, "later": False, "again": "ok"}


def test_a_keyring_that_dies_in_a_call_is_a_typed_error(tmp_path: Path) -> None:
    """Not a traceback, and not a hang."""
    assert run("killed", tmp_path)["said"].split(":")[0] in {"StoreUnavailable", "KeyringBusy"}


def test_without_a_bus_the_other_store_is_offered(tmp_path: Path) -> None:
    """The same process, told of a bus that is not there: StoreUnavailable in no time (positive control: round_trip)."""
    code = (
        "import asyncio; from tests.fakes import FakeClock; from vaultd.store.os_keyring import OsKeyring\n"
        "asyncio.run(OsKeyring(clock=FakeClock()).open(None))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert "StoreUnavailable" in ran.stderr
    assert "VAULTD_STORE=file vaultd start" in ran.stderr
