"""The fixtures are what the Go packages write: made anew, and read back (`make import-fixtures`)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.store.aws_vault.make import FIXTURES, KEYS, built, collection, file_store, in_session, keyring_home, stored
from tests.store.aws_vault.test_files import opened, read

pytestmark = [pytest.mark.sdk, pytest.mark.needs("go", "gnome-keyring-daemon", "dbus-run-session")]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("generator"))


async def test_a_file_store(program: Path, tmp_path: Path) -> None:
    """The same names as the fixture's, and the same keys in them."""
    made = file_store(program, tmp_path / "made")

    assert sorted(made) == sorted(json.loads((FIXTURES / "file.json").read_text()))
    assert opened(await read(stored(tmp_path, made))) == KEYS


def test_a_collection(program: Path, tmp_path: Path) -> None:
    """What a session of today leaves is read by the next one."""
    home = keyring_home(tmp_path / "read", collection(program, tmp_path))

    found = json.loads(in_session(home, "read"))["all"]

    assert {name: tuple(pair) for name, pair in found.items() if isinstance(pair, list)} == KEYS
