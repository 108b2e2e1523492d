"""aws_vault.py over a real Secret Service whose collection the Go writer has filled; each case is a process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FakeClock
from tests.store.aws_vault.make import FIXTURES, KEYS, TEMPORARY, in_session, keyring_home
from vaultd.engine.seams import ForeignStore
from vaultd.errors import StoreUnavailable
from vaultd.files import Files
from vaultd.store.aws_vault import AwsVault

pytestmark = [pytest.mark.needs("gnome-keyring-daemon", "dbus-run-session"), pytest.mark.process]

ALL = {name: list(pair) for name, pair in KEYS.items()}


def run(case: str, folder: Path) -> Any:
    return json.loads(in_session(keyring_home(folder, (FIXTURES / "awsvault.keyring").read_text()), case))


def test_what_the_go_writer_made(tmp_path: Path) -> None:
    """Every long-term key, by name too; sessions and tokens are not there; another collection says which backend."""
    found = run("read", tmp_path)

    assert found["all"].pop(TEMPORARY).startswith("it is a temporary key")
    assert found["all"] == ALL
    assert found["named"] == {"50% off": ALL["50% off"]}
    assert found["other"].startswith("NotFound: the Secret Service has no collection elsewhere")


def test_deleting(tmp_path: Path) -> None:
    """As it was read; twice is fine; one that was written anew stays, and so does what is not a key."""
    found = run("drop", tmp_path)

    assert [each.split(":")[0] for each in found["said"]] == ["ok", "ok", "NotImported"]
    assert set(found["left"]) == {*KEYS, TEMPORARY} - {"identity"}
    assert len(found["sessions"]) == len(found["left"]) + 2


def test_what_another_program_put_there(tmp_path: Path) -> None:
    """Each says what is wrong with it; the others are read."""
    found = run("planted", tmp_path)

    assert found["50% off"].startswith("several items have that name")
    assert found["moved"].startswith("what is in it was written for another name")
    assert found["text"].startswith("it is damaged")
    assert found["unnamed"].startswith("it is damaged")
    assert found["identity"] == ALL["identity"]


def test_a_locked_collection(tmp_path: Path) -> None:
    """Nobody there to ask: said at once; its name is compared as D-Bus spells it (`my_2dvault`)."""
    found = run("locked", tmp_path)

    assert found["before"] == {"identity": ALL["identity"]}
    assert found["after"].startswith("KeyringBusy: aws-vault's collection is locked: unlock it")


def test_a_service_that_hangs(tmp_path: Path) -> None:
    """The rule of the keyring: 30 s, and the loop goes on."""
    found = run("frozen", tmp_path)

    assert found.pop("said").startswith("KeyringBusy: The Secret Service did not answer within 30 seconds")
    assert found == {"before": "ok", "early": False}


async def test_without_a_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No bus at all: the file backend is offered."""
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={tmp_path}/none")

    with pytest.raises(StoreUnavailable, match="There is no Secret Service in vaultd's session") as told:
        await AwsVault(Files(), clock=FakeClock()).read(
            ForeignStore("secret-service", "awsvault"), passphrase=None, names=()
        )
    assert "--backend file" in told.value.message
