"""keeper/importing.py: foreign keys offered, adopted and deleted, in this process and behind the wire."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.keeper.rooms import ENDPOINT, KEY_ID, SECRET, SERIAL, Home, franklin
from tests.keeper.test_rotation import FIRST, Person
from tests.store.aws_vault.craft import item, message
from tests.store.aws_vault.make import KEYS, PASSPHRASE, stored
from vaultd.engine.seams import ForeignKey, ForeignStore, Kin, Offer
from vaultd.errors import BadRequest, IdentityBroken, Locked, NotFound, NotImported, VaultdError
from vaultd.files import Files
from vaultd.model.credentials import IdentityKey
from vaultd.model.secret import Secret

PHRASE = Secret(PASSPHRASE)


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("foreign")


def source(folder: Path, files: dict[str, str] | None = None) -> ForeignStore:
    return ForeignStore("file", str(stored(folder, files)))


def sealed(name: str, *, key_id: str = KEY_ID, secret: str = SECRET) -> str:
    return message(item(name, AccessKeyID=key_id, SecretAccessKey=secret)).decode()


async def test_what_is_offered(home: Home, folder: Path) -> None:
    """Names and last 4 only; what each will be called, and what is stored under that name already."""
    keeper = await home.with_franklin()
    files = {"franklin": sealed("franklin"), "a%2Ffranklin": sealed("a/franklin"), "torn": "x"}

    offers = {each.name: each for each in await keeper.offers(source(folder, files), passphrase=PHRASE, names=())}

    assert offers["franklin"] == Offer("franklin", "franklin", KEY_ID[-4:], held="same")
    assert offers["a/franklin"] == Offer("a/franklin", "a-franklin", KEY_ID[-4:], held="no", kin=Kin("franklin"))
    assert offers["torn"].wrong.startswith("it is damaged")
    assert home.sts.calls == [], "nothing is verified before somebody wants it"


@pytest.mark.parametrize("changed", [{"key_id": "AKIAOTHER00000000001"}, {"secret": "canary-another-secret"}])
async def test_another_key_under_the_name(home: Home, folder: Path, changed: dict[str, str]) -> None:
    """Its id or its secret differs: `other`, and neither stored nor deleted."""
    keeper = await home.with_franklin()
    there = source(folder, {"franklin": sealed("franklin", **changed)})

    (offer,) = await keeper.offers(there, passphrase=PHRASE, names=())
    assert offer.held == "other"
    with pytest.raises(VaultdError, match="identity franklin exists"):
        await keeper.adopt(there, "franklin", passphrase=PHRASE, endpoint=ENDPOINT, mfa_serial=None)
    with pytest.raises(NotImported, match="is not what is stored here"):
        await keeper.discard(there, "franklin", passphrase=PHRASE)
    assert (Path(there.place) / "franklin").exists()
    assert await keeper.holds(franklin())


async def test_the_old_key_of_a_rotation(home: Home, folder: Path) -> None:
    """Known while it is kept, by its own name and another; the new one is no old one, and another secret is not it."""
    person = await Person(home).begin()
    await person.until("inactive")
    files = {
        "franklin": sealed("franklin"), "copy": sealed("copy"), "new": sealed("new", key_id=FIRST),
        "forged": sealed("forged", secret="canary-another"),
    }  # fmt: skip

    offers = await person.keeper.offers(source(folder, files), passphrase=PHRASE, names=())

    old = Kin("franklin", old=True)
    assert {each.name: (each.held, each.kin) for each in offers} == {
        "franklin": ("other", old), "copy": ("no", old), "new": ("no", Kin()), "forged": ("no", Kin()),
    }  # fmt: skip
    assert await person.keeper.kin(franklin()) == old


async def test_the_go_writers_keys_to_the_end(home: Home, folder: Path) -> None:
    """Each is verified and stored with its device, then deleted there; sessions and tokens stay where they are."""
    keeper, _ = await home.opened()
    there = source(folder)

    for name in KEYS:
        identity = await keeper.adopt(there, name, passphrase=PHRASE, endpoint=ENDPOINT, mfa_serial=None)
        assert identity.key_ending == KEYS[name][0][-4:]
        assert identity.mfa_serial == SERIAL
        await keeper.discard(there, name, passphrase=PHRASE)

    assert [each.name for each in keeper.list()] == ["50% off", "bücher", "escape", "identity", "team-prod"]
    left = {os.fsdecode(name).split(",")[0].split(":")[0] for name in Files().names(Path(there.place), most=9) or ()}
    assert left == {"oidc", "sts.GetSessionToken", "temporary"}
    for name, (key_id, secret) in KEYS.items():
        called = {"../../escape": "escape", "team/prod": "team-prod"}.get(name, name)
        assert await keeper.holds(IdentityKey(called, key_id, Secret(secret)))


async def test_adopting_twice_is_once(home: Home, folder: Path) -> None:
    """Running it again goes on: the second is the identity that is there, without a call to AWS."""
    keeper, _ = await home.opened()
    there = source(folder, {"franklin": sealed("franklin")})

    first = await keeper.adopt(there, "franklin", passphrase=PHRASE, endpoint=ENDPOINT, mfa_serial=None)
    home.sts.calls.clear()
    second = await keeper.adopt(there, "franklin", passphrase=PHRASE, endpoint=ENDPOINT, mfa_serial=None)

    assert first == second
    assert home.sts.calls == []


async def test_what_aws_refuses_is_not_stored(home: Home, folder: Path) -> None:
    """As with `add`; the source stays."""
    keeper, _ = await home.opened()
    there = source(folder, {"franklin": sealed("franklin")})
    home.sts.fail("caller_identity", IdentityBroken("row 10"))

    with pytest.raises(IdentityBroken):
        await keeper.adopt(there, "franklin", passphrase=PHRASE, endpoint=ENDPOINT, mfa_serial=None)

    assert keeper.list() == ()
    with pytest.raises(NotImported):
        await keeper.discard(there, "franklin", passphrase=PHRASE)
    assert (Path(there.place) / "franklin").exists()


async def test_a_store_that_forgets_keeps_the_source(home: Home, folder: Path) -> None:
    """The read-back before a deletion is a read of the store, not of what is held in memory."""
    keeper, _ = await home.opened()
    there = source(folder, {"franklin": sealed("franklin")})
    await keeper.adopt(there, "franklin", passphrase=PHRASE, endpoint=ENDPOINT, mfa_serial=None)
    assert home.keyring is not None
    assert await keeper.holds(franklin()), "control"
    for name in [name for name in home.keyring.items if name.startswith("identity:")]:
        del home.keyring.items[name]

    with pytest.raises(NotImported):
        await keeper.discard(there, "franklin", passphrase=PHRASE)

    assert not await keeper.holds(franklin())
    assert (Path(there.place) / "franklin").exists()


async def test_what_is_not_there_or_not_sound(home: Home, folder: Path) -> None:
    """Typed, by name, and nothing is stored."""
    keeper, _ = await home.opened()
    there = source(folder, {"torn": "x", "-": sealed("-"), "n" * 140: sealed("n" * 140)})

    for call in (keeper.adopt(there, "nobody", passphrase=PHRASE, endpoint=ENDPOINT, mfa_serial=None),
                 keeper.discard(there, "nobody", passphrase=PHRASE)):  # fmt: skip
        with pytest.raises(NotFound, match="has no key nobody"):
            await call
    with pytest.raises(BadRequest, match="torn cannot be imported: it is damaged"):
        await keeper.adopt(there, "torn", passphrase=PHRASE, endpoint=ENDPOINT, mfa_serial=None)
    for name in ("-", "n" * 140):
        with pytest.raises(BadRequest, match="no identity can have its name"):
            await keeper.adopt(there, name, passphrase=PHRASE, endpoint=ENDPOINT, mfa_serial=None)
    assert keeper.list() == ()


class Held:
    """aws-vault's store, which answers once the test lets it."""

    def __init__(self, home: Home) -> None:
        self._inner = home.foreign
        self.reading, self.go = asyncio.Event(), asyncio.Event()

    async def read(
        self, source: ForeignStore, *, passphrase: Secret | None, names: tuple[str, ...]
    ) -> tuple[ForeignKey, ...]:
        self.reading.set()
        await self.go.wait()
        return await self._inner.read(source, passphrase=passphrase, names=names)

    async def drop(self, source: ForeignStore, found: ForeignKey) -> None:
        await self._inner.drop(source, found)


@pytest.mark.parametrize("what", ["offers", "adopt", "adopt again"])
async def test_locked_in_the_middle(home: Home, folder: Path, what: str) -> None:
    """Locked and unlocked while the other store is read: what was begun before the lock ends Locked, and stores nothing
    (architecture.md §3: what lands after a lock is dropped).
    """
    home.foreign = held = Held(home)
    keeper = await home.with_franklin() if what == "adopt again" else (await home.opened())[0]
    there = source(folder, {"franklin": sealed("franklin")})
    before = keeper.list()
    call: Coroutine[Any, Any, object] = (
        keeper.offers(there, passphrase=PHRASE, names=())
        if what == "offers"
        else keeper.adopt(there, "franklin", passphrase=PHRASE, endpoint=ENDPOINT, mfa_serial=None)
    )
    calling = asyncio.ensure_future(call)
    await held.reading.wait()
    await keeper.close(None)
    await keeper.open(unlock=True)
    held.go.set()

    with pytest.raises(Locked):
        await calling
    assert keeper.list() == before
    assert await keeper.offers(there, passphrase=PHRASE, names=()), "control: it is open"


async def test_locked(home: Home, folder: Path) -> None:
    """Every call; positive control: open, it is offered."""
    keeper, _ = await home.opened()
    there = source(folder, {"franklin": sealed("franklin")})
    assert len(await keeper.offers(there, passphrase=PHRASE, names=())) == 1
    await keeper.close(None)

    for call in (keeper.offers(there, passphrase=PHRASE, names=()),
                 keeper.adopt(there, "franklin", passphrase=PHRASE, endpoint=ENDPOINT, mfa_serial=None),
                 keeper.discard(there, "franklin", passphrase=PHRASE), keeper.holds(franklin()),
                 keeper.kin(franklin())):  # fmt: skip
        with pytest.raises(Locked):
            await call
