"""vaultd/store/identities.py: the index round-trips, and says which field is wrong."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.store.dying import every_death
from vaultd.errors import FileRefused, Misconfigured, Unwritable
from vaultd.files import Files
from vaultd.model.credentials import Identity
from vaultd.model.rotation import Rotation
from vaultd.store.identities import IdentityIndex, IndexEntry

ADA = IndexEntry(
    identity=Identity(
        name="identity",
        account_id="123456789012",
        user_arn="arn:aws:iam::123456789012:user/team/ada",
        mfa_serial="arn:aws:iam::123456789012:mfa/ada",
        key_ending="WXYZ",
        created=datetime(2026, 11, 22, 12, 0, tzinfo=UTC),
    ),
    uuid="0b6c1f1e-4a57-4c5e-8d55-000000000001",
    backend="file",
    generation=7,
)
BOB = replace(
    ADA,
    identity=replace(ADA.identity, name="bob", mfa_serial=None),
    uuid="0b6c1f1e-4a57-4c5e-8d55-000000000002",
    state="pending",
    backend="secret-service",
)


OTHER = "0b6c1f1e-4a57-4c5e-8d55-000000000003"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "identities.json"


def test_round_trip(path: Path) -> None:
    """Every field comes back, entries by name; without a file there are none."""
    index = IdentityIndex(Files(), path)
    assert index.load() == ()
    index.save((ADA, BOB))

    assert index.load() == (BOB, ADA)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_replacement_lies_beside_the_active_key(path: Path) -> None:
    """Rotation: a pending key of the same name, under its own uuid."""
    pending = replace(BOB, identity=ADA.identity)
    index = IdentityIndex(Files(), path)
    index.save((ADA, pending))

    assert index.load() == (ADA, pending)


def test_a_rotation_round_trips(path: Path) -> None:
    """Stage and intent are kept here and nowhere else (architecture.md §7); without one the file says nothing of it."""
    index = IdentityIndex(Files(), path)
    index.save((ADA,))
    assert "rotation" not in path.read_text()
    when = datetime(2026, 11, 22, 13, 0, 0, 7, tzinfo=UTC)
    for rotation in (
        Rotation("intent", BOB.uuid, ("AKIAIOSFODNN7EXAMPLE",), when, timedelta(hours=1)),
        Rotation("inactive", BOB.uuid, ("AKIAIOSFODNN7EXAMPLE",), when, new="AKIAIOSFODNN7EXAMPL2"),
        Rotation("intent", BOB.uuid, ("AKIAIOSFODNN7EXAMPLE",), when, stray=("AKIAIOSFODNN7EXAMPL3",)),
    ):
        entry = replace(ADA, identity=replace(ADA.identity, key_created=when, rotation=rotation))
        index.save((entry,))
        assert index.load() == (entry,)


@pytest.mark.parametrize("state", ["pending", "retired"])
def test_two_of_a_state_are_refused(path: Path, state: Any) -> None:
    """Which of two would be swapped in, or deleted?"""
    index = IdentityIndex(Files(), path)
    index.save((ADA, replace(BOB, identity=ADA.identity, state=state), replace(BOB, state=state, uuid=OTHER)))
    content = json.loads(path.read_bytes())
    for line in content["identities"]:
        line["name"] = "identity"
    path.write_text(json.dumps(content))
    with pytest.raises(Misconfigured, match=f"two {state} keys under one name"):
        index.load()


BAD: list[tuple[str, Any, str]] = [
    ("key_created", "2026-11-22T12:00:00", "identities.0.key_created"),
    ("rotation", {"stage": "intent"}, "identities.0.rotation.item"),
    ("account_id", "12", "identities.0.account_id"),
    ("account_id", None, "identities.0.account_id"),
    ("uuid", "x", "identities.0.uuid"),
    ("created", "2026-11-22T12:00:00", "identities.0.created"),
    ("state", "gone", "identities.0.state"),
    ("generation", -1, "identities.0.generation"),
    ("key_ending", "AKIAIOSFODNN7EXAMPLE", "identities.0.key_ending"),
    ("secret", "x", "identities.0.secret"),
    ("name", "", "identities.0.name"),
]


@pytest.mark.parametrize(("field", "value", "named"), BAD)
def test_a_wrong_field_is_named(path: Path, field: str, value: Any, named: str) -> None:
    """architecture.md §9: names file and field, ends in what to type, repeats no value."""
    index = IdentityIndex(Files(), path)
    index.save((ADA,))
    content = json.loads(path.read_bytes())
    content["identities"][0][field] = value
    path.write_text(json.dumps(content))

    with pytest.raises(Misconfigured) as caught:
        index.load()
    assert str(path) in caught.value.message
    assert named in caught.value.message
    assert "AKIAIOSFODNN7EXAMPLE" not in caught.value.message
    assert caught.value.message.endswith("run `vault-client add IDENTITY`.")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"version": 2, "identities": []}', b'{"version": 1}'])
def test_another_files_bytes_are_a_typed_error(path: Path, content: bytes) -> None:
    """Never an empty index: the keys would look as if they had never been added."""
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(Misconfigured, match=r"identities\.json"):
        IdentityIndex(Files(), path).load()


@pytest.mark.parametrize("content", [b"", b" \n"])
def test_an_empty_index_says_what_became_of_the_keys(path: Path, content: bytes) -> None:
    """Not in a parser's words; and that a key of which vaultd has the only copy, as after a rotation, no `add` of the
    old one brings back.
    """
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(Misconfigured) as caught:
        IdentityIndex(Files(), path).load()
    assert caught.value.message == (
        f"{path}: the file is empty: restore it from a backup, or move it away; a key that only vaultd had, as after a "
        "rotation, is then out of reach, and a new one from the IAM console is needed: run `vault-client add IDENTITY`."
    )


def test_doubles_are_refused(path: Path) -> None:
    """Two active keys under one name, or one item for two names: which one would be used?"""
    index = IdentityIndex(Files(), path)
    index.save((ADA, BOB))
    content = json.loads(path.read_bytes())
    for field, value in (("name", "bob"), ("uuid", BOB.uuid)):
        doubled = json.loads(json.dumps(content))
        for line in doubled["identities"]:
            line[field] = value
            line["state"] = "active"
        path.write_text(json.dumps(doubled))
        with pytest.raises(Misconfigured, match=r"two active keys|one uuid twice"):
            index.load()


def test_a_hostile_index_is_refused(path: Path) -> None:
    """interface.md §1."""
    path.symlink_to("elsewhere")
    with pytest.raises(FileRefused):
        IdentityIndex(Files(), path).load()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("operation", ["open", "write", "fsync", "rename"])
def test_a_full_disk_keeps_the_old_index(path: Path, operation: str, code: int) -> None:
    """Unwritable naming the file; nothing is lost."""

    def fault(called: str, _: Path) -> None:
        if called == operation:
            raise OSError(code, os.strerror(code))

    IdentityIndex(Files(), path).save((ADA,))
    with pytest.raises(Unwritable, match=r"identities\.json"):
        IdentityIndex(Files(fault=fault), path).save((ADA, BOB))

    assert IdentityIndex(Files(), path).load() == (ADA,)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_kill_leaves_the_old_or_the_new_index(path: Path) -> None:
    """At every system call of a save."""
    index = IdentityIndex(Files(), path)
    index.save((ADA,))
    found = set()
    for _ in every_death(lambda files: IdentityIndex(files, path).save((ADA, BOB))):
        found.add(index.load())
        index.save((ADA,))

    assert found == {(ADA,), (BOB, ADA)}
