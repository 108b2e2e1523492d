"""What a person is told of a lock and an unlock: what holds, what was made, which file is wrong (interface.md §2)."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FakeClock, FakeStore
from tests.web.control import House, Started, soon
from vaultd.errors import KeyringBusy, StoreUnavailable
from vaultd.files import Files
from vaultd.keeper.keeper import DaemonKeeper
from vaultd.store.os_keyring import translated

PHRASE = "correct horse"


class NoKeyring(FakeStore):
    """A machine without an OS keyring."""

    async def open(self, *args: Any, **options: Any) -> None:
        raise StoreUnavailable("there is no OS keyring here: type `VAULTD_STORE=file vaultd start`")


class Disk:
    """Full, once told so, for the marker of a lock."""

    full = False
    code = errno.ENOSPC

    def __call__(self, operation: str, path: Path) -> None:
        if self.full and "locked" in path.name:
            raise OSError(self.code, os.strerror(self.code))


def on_file(house: House, phrase: str | None) -> Path:
    """The passphrase file that VAULTD_PASSPHRASE_FILE names; absent for None."""
    path = house.root / "passphrase"
    path.unlink(missing_ok=True)
    if phrase is not None:
        path.write_text(phrase)
        path.chmod(0o600)
    house.environ["VAULTD_PASSPHRASE_FILE"] = str(path)
    return path


async def wrong(started: Started, body: dict[str, str]) -> str:
    """The message of an unlock that is refused after its delay."""
    before = started.daemon.unlocking._wrong
    attempt = asyncio.ensure_future(started.refused("POST", "/v1/unlock", body))
    await soon(lambda: started.daemon.unlocking._wrong > before)
    assert isinstance(started.house.clock, FakeClock)
    await started.house.clock.advance(10)
    return str((await attempt)[1]["message"])


async def test_a_lock_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    """It holds in memory, and the command fails, because a restart would serve again; with room it is kept."""
    disk = Disk()
    house = House(tmp_path, files=Files(fault=disk))
    async with house.run() as started:
        await started.with_session()
        disk.full = True
        _, body = await started.refused("POST", "/v1/lock", {})
        assert (body["code"], body["exit"]) == ("Unwritable", 1)
        assert body["message"].startswith("vaultd is locked, but ")
        assert "a restart would open the store again: make room, see `df -h " in body["message"]
        assert body["message"].endswith("`, then type `vault-client lock` again.")
        disk.code = errno.EACCES
        _, body = await started.refused("POST", "/v1/lock", {})
        assert "give yourself access with `chmod u+rwx " in body["message"], "there is room enough"
        told = await started.ok("GET", "/v1/status")
        assert (told["locked"], told["locked_reason"]) == (True, body["message"]), "whoever asks later is told, too"
        assert (await started.refused("GET", "/v1/profiles/web-admin/credentials"))[1]["code"] == "Locked"
        disk.full = False
        await started.ok("POST", "/v1/lock", {})
    async with house.run() as started:
        assert started.told["locked"], "control: written, it survives"


async def test_a_store_that_is_made_is_told_from_one_that_is_opened(tmp_path: Path) -> None:
    """`created` for a new store, nothing for one that was there, `open` for one that nobody checked a passphrase of."""
    house = House(tmp_path, store=NoKeyring())
    async with house.run() as started:
        assert await started.ok("POST", "/v1/unlock", {"passphrase": PHRASE}) == {"created": True}
        assert await started.ok("POST", "/v1/unlock", {"passphrase": "another"}) == {"open": True}
    async with house.run() as started:
        assert await started.ok("POST", "/v1/unlock", {"passphrase": PHRASE}) == {}


async def test_an_opened_keyring_is_no_new_store(tmp_path: Path) -> None:
    """Only the encrypted file is made by an unlock."""
    house = House(tmp_path)
    async with house.run() as started:
        await started.ok("POST", "/v1/lock", {})
        assert await started.ok("POST", "/v1/unlock", {}) == {}


@pytest.mark.parametrize(("content", "state"), [(None, "is not there"), ("\n", "holds no passphrase")])
async def test_a_passphrase_file_that_gives_none_is_named(tmp_path: Path, content: str | None, state: str) -> None:
    """By the start, by `locked_reason` and by an unlock without passphrase; a lock by a person keeps its own reason."""
    house = House(tmp_path, store=NoKeyring())
    path = on_file(house, content)
    said = (
        f"{path}, which VAULTD_PASSPHRASE_FILE names, {state}: write the passphrase into it and type `vaultd restart`"
    )
    async with house.run() as started:
        assert started.told["locked_reason"] == f"{said}, or type `vault-client unlock`, which sets a new one"
        await started.ok("POST", "/v1/unlock", {"passphrase": PHRASE})
    async with house.run() as started:
        reason = f"{said}, or type `vault-client unlock`"
        assert started.told["locked_reason"] == reason
        assert (await started.refused("POST", "/v1/unlock", {}))[1]["message"] == reason
        assert (await started.ok("GET", "/v1/status"))["locked_reason"] == reason
        await started.ok("POST", "/v1/unlock", {"passphrase": PHRASE})
        await started.ok("POST", "/v1/lock", {})
    async with house.run() as started:
        assert str(path) not in started.told["locked_reason"]


async def test_a_wrong_passphrase_on_file_names_the_file(tmp_path: Path) -> None:
    """So does an unlock that takes it from there; one that a person gave is his own."""
    house = House(tmp_path, store=NoKeyring())
    path = on_file(house, PHRASE)
    async with house.run() as started:
        assert not started.told["locked"]
    on_file(house, "wrong")
    said = f"the passphrase in {path} does not open the store: write the right one into it and type `vaultd restart`"
    async with house.run() as started:
        assert started.told["locked_reason"] == f"{said}, or type `vault-client unlock`"
        assert (await wrong(started, {})).startswith(said)
        assert str(path) not in await wrong(started, {"passphrase": "typed wrong"})
        assert (await started.ok("GET", "/v1/status"))["locked_reason"].startswith(said), "the file is still the reason"
        assert await started.ok("POST", "/v1/unlock", {"passphrase": PHRASE}) == {}


class KeyringLocked(Exception):
    """As the keyring package calls it."""


async def test_another_store_is_named_only_while_no_key_is_in_this_one(tmp_path: Path) -> None:
    """A locked keyring: whoever follows the advice with keys in it would find none of them."""
    store = FakeStore()
    house = House(tmp_path, store=store)
    locked = translated(KeyringLocked())
    assert isinstance(locked, KeyringBusy)
    store.broken = locked
    async with house.run() as started:
        way = "; or choose the encrypted file instead with `vaultd stop`, then `VAULTD_STORE=file vaultd start`."
        assert started.told["locked_reason"] == locked.message.removesuffix(".") + way
        store.broken = None
        await started.ok("POST", "/v1/unlock", {})
        await started.add()
    store.broken = locked
    async with house.run() as started:
        assert started.told["locked_reason"] == locked.message
        assert "VAULTD_STORE" not in locked.message


async def test_a_keeper_that_dies_of_a_lock_without_a_marker_is_not_opened_again(tmp_path: Path) -> None:
    """The marker is not all that keeps it shut: what a person locked, and the disk did not take, stays locked."""
    disk = Disk()
    house = House(tmp_path, files=Files(fault=disk))
    async with house.run() as started:
        await started.with_session()
        daemon, keeper = started.daemon, started.daemon._keeper

        def is_open() -> bool:
            assert isinstance(keeper, DaemonKeeper)
            return keeper._store is not None

        await daemon.unlocking.reopen("killed by SIGKILL")
        assert is_open(), "control: open before, open again"
        disk.full = True
        await started.refused("POST", "/v1/lock", {})
        disk.full = False
        await daemon.unlocking.reopen("killed by SIGKILL")
        assert not is_open()
        assert daemon.broker.locked
