"""An older file put back, or one of another home put in: told by name, never taken in silence (item 26)."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.house import ENDPOINT, PASSPHRASE, House, bare, key_of, with_code
from tests.crash.points import workbench
from vaultd.engine.seams import Note, Opened
from vaultd.errors import IdentityBroken, Misconfigured, StoreDamaged, StoreRolledBack
from vaultd.files import Files

_OLDER = "identities.json is not the one that sessions.sealed knows"
_LOST = "the store holds 2 keys and identities.json lists none"


@pytest.fixture
def root() -> Iterator[Path]:
    with workbench() as path:
        yield path


def life(path: Path) -> House:
    house = House(path, Files(), tell=lambda _: None)
    house.begin()
    return house


async def opened(house: House, *, accept: bool = False) -> Opened:
    found = await house.keeper.open(passphrase=PASSPHRASE, unlock=True, accept_rollback=accept)
    for each in (*found.warnings, *(house.audit.confirm(found.head) if found.head else ())):
        house.tell(each)
    await seal(house)
    house.audit.record("start")
    await seal(house)
    return found


async def seal(house: House) -> None:
    """As the daemon does: once the store is open, and when `start` is written."""
    await house.keeper.note(Note("head", head=house.audit.head))


async def ended(house: House) -> None:
    house.audit.record("stop", sync=True)
    await house.keeper.close(house.audit.head, lock=False)


async def used(path: Path, *names: str) -> None:
    """A life that adds keys, and ends well."""
    house = life(path)
    await opened(house)
    for name in names:
        await house.keeper.add(key_of(name, 1), endpoint=ENDPOINT)
        house.audit.record("identity.add", identity=name)
    await ended(house)


def test_an_older_secrets_sealed_is_refused_by_name(root: Path) -> None:
    """StoreRolledBack until it is accepted; the note of what was seen may be rolled back with it: the index knows."""

    async def case() -> None:
        await used(root / "home", "ada")
        layout = life(root / "home").layout
        for each in (layout.secrets_sealed, layout.secrets_seen):
            shutil.copy(each, root / each.name)
        await used(root / "home", "bob")
        shutil.copy(root / "secrets.sealed", layout.secrets_sealed)
        with pytest.raises(StoreRolledBack, match=r"secrets\.sealed .*vaultd start --accept-rollback"):
            await opened(life(root / "home"))
        shutil.copy(root / "secrets.seen", layout.secrets_seen)
        with pytest.raises(StoreRolledBack, match=r"secrets\.sealed .*vaultd start --accept-rollback"):
            await opened(life(root / "home"))

        house = life(root / "home")
        await opened(house, accept=True)
        await house.keeper.mint(bare("ada"))
        with pytest.raises(IdentityBroken, match="vault-client add bob --replace"):
            await house.keeper.mint(bare("bob"))

    asyncio.run(case())


def test_a_store_of_another_home_is_refused(root: Path) -> None:
    """The same passphrase opens it, and it is not the one last seen here."""

    async def case() -> None:
        await used(root / "mine", "ada")
        await used(root / "other", "bob", "carl", "dora")
        shutil.copy(life(root / "other").layout.secrets_sealed, life(root / "mine").layout.secrets_sealed)
        with pytest.raises(StoreRolledBack, match=r"is not the one last seen here"):
            await opened(life(root / "mine"))

    asyncio.run(case())


def test_an_index_of_another_home_is_told(root: Path) -> None:
    """One that has seen more than the store is a rollback; one that has seen less names keys that are not there."""

    async def case() -> None:
        await used(root / "mine", "ada")
        await used(root / "newer", "bob", "carl", "dora")
        await used(root / "older", "eve")
        mine = life(root / "mine").layout.identities_json
        shutil.copy(life(root / "newer").layout.identities_json, mine)
        with pytest.raises(StoreRolledBack):
            await opened(life(root / "mine"))
        shutil.copy(life(root / "older").layout.identities_json, mine)
        house = life(root / "mine")
        await opened(house)
        with pytest.raises(IdentityBroken, match="vault-client add eve --replace"):
            await house.keeper.mint(bare("eve"))

    asyncio.run(case())


def test_an_older_index_lists_a_key_that_is_gone(root: Path) -> None:
    """A removed identity that is listed again has no key: IdentityBroken, and nothing is served for it."""

    async def case() -> None:
        await used(root / "home", "ada", "bob")
        house = life(root / "home")
        older = house.layout.identities_json.read_bytes()
        await opened(house)
        await house.keeper.remove("bob")
        await ended(house)
        house.layout.identities_json.write_bytes(older)
        again = life(root / "home")
        await opened(again)
        await again.keeper.mint(bare("ada"))
        with pytest.raises(IdentityBroken, match="the store holds no key for identity bob"):
            await again.keeper.mint(bare("bob"))

    asyncio.run(case())


def test_a_missing_index_over_a_store_forgets_no_key_silently(root: Path) -> None:
    """A store without the index that lists its keys is told, its keys stay in it, and come back with the index."""

    async def case() -> None:
        await used(root / "home", "ada")
        house = life(root / "home")
        kept = house.layout.identities_json.read_bytes()
        house.layout.identities_json.unlink()
        found = await opened(house)
        assert [each.partition(";")[0] for each in found.warnings] == [
            "the store holds a key and identities.json lists none"
        ]
        await ended(house)
        house.layout.identities_json.touch(0o600)
        house.layout.identities_json.write_bytes(kept)
        again = life(root / "home")
        await opened(again)
        await again.keeper.mint(bare("ada"))

    asyncio.run(case())


def test_an_older_index_is_told(root: Path) -> None:
    """One that lists fewer keys, an older state of one, none at all, one that was edited: told, once. The newest is not
    accused, whatever was added, replaced or removed, nor after a restart.
    """

    async def told(house: House) -> list[str]:
        found = await opened(house)
        await ended(house)
        return [re.split("[,;]", each)[0] for each in found.warnings]

    async def case() -> None:
        await used(root / "home", "ada")
        index = life(root / "home").layout.identities_json
        fewer = index.read_bytes()
        await used(root / "home", "bob")
        before = index.read_bytes()
        house = life(root / "home")
        await opened(house)
        await house.keeper.add(key_of("ada", 2), endpoint=ENDPOINT, replace=True)
        await house.keeper.add(key_of("carl", 1), endpoint=ENDPOINT)
        await house.keeper.remove("carl")
        await ended(house)
        newest = index.read_bytes()
        assert await told(life(root / "home")) == [], "positive control"
        for older in (fewer, before, newest.replace(b"mfa/ada", b"mfa/eve"), b'{"version": 1, "identities": []}'):
            index.write_bytes(older)
            said = await told(life(root / "home"))
            assert said == [_LOST if b"[]" in older else _OLDER]
            assert await told(life(root / "home")) == ([_LOST] if b"[]" in older else []), "told once; a loss on"
            index.write_bytes(newest)
            assert await told(life(root / "home")) == [_OLDER]
            assert await told(life(root / "home")) == []

    asyncio.run(case())


def test_an_older_sessions_sealed_is_told(root: Path) -> None:
    """It verifies by itself; the audit log knows that a later life had sealed its end. The newest is not accused."""

    async def case() -> None:
        await used(root / "home", "ada")
        layout = life(root / "home").layout
        shutil.copy(layout.sessions_sealed, root / "older")
        await used(root / "home", "bob")
        said: list[str] = []
        newest = life(root / "home")
        newest.tell = said.append
        await opened(newest)
        await ended(newest)
        assert said == [], "positive control"

        shutil.copy(root / "older", layout.sessions_sealed)
        house = life(root / "home")
        house.tell = said.append
        await opened(house)
        assert [re.split("[,:]", each)[0] for each in said] == [
            _OLDER,
            "sessions.sealed is not the one last written",
        ]
        await ended(house)
        said.clear()
        after = life(root / "home")
        after.tell = said.append
        await opened(after)
        assert said == [], "told once: the line is in the log"

    asyncio.run(case())


def test_a_locked_life_accuses_nobody(root: Path) -> None:
    """Lives that never opened the store seal nothing: the head stays behind, and that is no rollback."""

    async def case() -> None:
        await used(root / "home", "ada")
        for _ in range(3):
            locked = life(root / "home")
            locked.audit.record("start")
            locked.audit.record("unlock", decision="deny", reason="WrongPassphrase")
            locked.audit.record("stop")
        said: list[str] = []
        house = life(root / "home")
        house.audit.record("start")
        house.tell = said.append
        await opened(house)
        assert said == []

    asyncio.run(case())


def test_sessions_of_another_home_are_set_aside(root: Path) -> None:
    """Another data key: it does not verify, and is kept as `.damaged` with one warning; no code is taken for 30 s."""

    async def case() -> None:
        await used(root / "mine", "ada")
        await used(root / "other", "bob")
        mine = life(root / "mine").layout.sessions_sealed
        shutil.copy(life(root / "other").layout.sessions_sealed, mine)
        house = life(root / "mine")
        found = await opened(house)
        assert [each.partition(",")[0] for each in found.warnings] == [
            "sessions.sealed was damaged and is kept as sessions.sealed.damaged"
        ]
        assert mine.with_name("sessions.sealed.damaged").exists()

    asyncio.run(case())


def test_a_damaged_store_says_so_and_is_never_made_anew(root: Path) -> None:
    """Missing, emptied, cut: StoreDamaged each time, and the bytes that are there stay there."""

    async def case() -> None:
        await used(root / "home", "ada")
        store = life(root / "home").layout.secrets_sealed
        whole = store.read_bytes()
        for damaged in (b"", whole[:-1], whole[:100], b"\0" * len(whole)):
            store.write_bytes(damaged)
            with pytest.raises(StoreDamaged, match=r"secrets\.sealed"):
                await opened(life(root / "home"))
            assert store.read_bytes() == damaged
        store.unlink()
        with pytest.raises(StoreDamaged, match=r"secrets\.sealed is missing"):
            await opened(life(root / "home"))
        assert not store.exists()

    asyncio.run(case())


def test_a_damaged_index_or_grants_file_refuses_the_start(root: Path) -> None:
    """interface.md §1: named, not taken for an empty one."""

    async def case() -> None:
        await used(root / "home", "ada")
        house = life(root / "home")
        house.grant("kept")
        for path in (house.layout.identities_json, house.layout.grants_json):
            whole = path.read_bytes()
            for damaged in (b"", whole[: len(whole) // 2], b"[]"):
                path.write_bytes(damaged)
                with pytest.raises(Misconfigured, match=path.name.replace(".", r"\.")):
                    await opened(life(root / "home"))
            path.write_bytes(whole)
        await opened(life(root / "home"))

    asyncio.run(case())


def test_a_log_from_before_a_code_is_told_too(root: Path) -> None:
    """The limit, stated: a log put back from before a code was sent has forgotten it; that it is older is told."""

    async def case() -> None:
        await used(root / "home", "ada")
        layout = life(root / "home").layout
        shutil.copy(layout.sessions_sealed, root / "older")
        house = life(root / "home")
        await opened(house)
        await house.keeper.mint(with_code("ada", "123456"))
        house.audit.record("mfa.answer", identity="ada")
        await ended(house)
        shutil.copy(root / "older", layout.sessions_sealed)
        said: list[str] = []
        again = life(root / "home")
        again.tell = said.append
        await opened(again)
        assert any("is not the one last written" in each for each in said)

    asyncio.run(case())
