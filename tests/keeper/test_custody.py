"""Identities: verified before stored, device found not guessed, replaced and removed in an order a kill survives."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.keeper.rooms import (
    ENDPOINT,
    KEY_ID,
    SECRET,
    SERIAL,
    Home,
    add_franklin,
    franklin,
    from_handle,
    handle_of,
    with_code,
)
from vaultd.errors import (
    BadRequest,
    IdentityBroken,
    IdentityExists,
    KeyringBusy,
    Locked,
    RoleDenied,
    StsUnavailable,
    UnknownIdentity,
    Unwritable,
    VaultdError,
)
from vaultd.model.credentials import Identity
from vaultd.model.secret import Secret

NEW_ID = "AKIAFRANKLIN00000002"
U2F = "arn:aws:iam::123456789012:u2f/user/franklin/yubi-ABC"
SECOND = "arn:aws:iam::123456789012:mfa/franklin-2"


def items(home: Home) -> list[dict[str, str]]:
    """The identity items in the keyring."""
    assert home.keyring is not None
    return [json.loads(value) for name, value in home.keyring.items.items() if name.startswith("identity:")]


async def test_add_verifies_detects_and_stores(home: Home) -> None:
    """One GetCallerIdentity, one ListMFADevices; the index has no secret, the item carries uuid and key id."""
    keeper, _ = await home.opened()

    identity = await add_franklin(keeper)

    assert identity == Identity(
        "franklin", "123456789012", "arn:aws:iam::123456789012:user/franklin", SERIAL, KEY_ID[-4:], home.clock.now()
    )
    assert keeper.list() == (identity,)
    assert home.sts.counts() == {"caller_identity": 1}
    entry = home.index.load()[0]
    assert items(home) == [{"v": 1, "uuid": entry.uuid, "akid": KEY_ID, "secret": SECRET}]
    assert SECRET not in (home.path / "identities.json").read_text()


@pytest.mark.parametrize(
    ("serials", "found"),
    [((), None), ((SERIAL, U2F), SERIAL), ((U2F,), None), (("GAHT12345678",), "GAHT12345678")],
)
async def test_the_one_usable_device_is_taken(home: Home, serials: tuple[str, ...], found: str | None) -> None:
    """A16: TOTP beside FIDO is TOTP; hardware serials have no ARN; none is none, never a made-up ARN."""
    keeper, _ = await home.opened()
    home.iam.serials = serials

    assert (await add_franklin(keeper)).mfa_serial == found
    assert tuple(await keeper.detect("franklin", endpoint=ENDPOINT)) == ((found,) if found else ())


async def test_several_devices_are_asked_about(home: Home) -> None:
    """A16: both are named, nothing is stored; with --mfa-serial it goes, without asking IAM."""
    keeper, _ = await home.opened()
    home.iam.serials = (SERIAL, SECOND)

    with pytest.raises(BadRequest) as several:
        await add_franklin(keeper)

    assert several.value.message == (
        f"MfaSerial: the user of identity franklin has several MFA devices: {SERIAL}, {SECOND}; "
        "run `vault-client add franklin --mfa-serial ARN`"
    )
    assert items(home) == []
    added = await keeper.add(franklin(), endpoint=ENDPOINT, mfa_serial=SECOND)
    assert added.mfa_serial == SECOND
    assert home.iam.calls == 1


@pytest.mark.parametrize("serial", [U2F, "arn:aws:iam::123456789012:user/franklin"])
async def test_a_serial_that_sts_cannot_use_is_refused(home: Home, serial: str) -> None:
    """aws-facts §1.5 row 3: FIDO devices and user ARNs are what people paste."""
    keeper, _ = await home.opened()

    with pytest.raises(BadRequest, match=r"^MfaSerial: "):
        await keeper.add(franklin(), endpoint=ENDPOINT, mfa_serial=serial)


async def test_a_refusal_to_list_devices_is_no_reason(home: Home) -> None:
    """aws-facts §2.2: on AccessDenied the serial comes from the config; a replace keeps the one it had."""
    keeper, _ = await home.opened()
    home.iam.error = RoleDenied("denied")

    assert (await add_franklin(keeper)).mfa_serial is None
    home.iam.error = None
    await add_franklin(keeper, key_id=NEW_ID, replace=True)
    home.iam.error = RoleDenied("denied")
    assert (await add_franklin(keeper, key_id=KEY_ID, replace=True)).mfa_serial == SERIAL


async def test_sts_away_is_no_verification(home: Home) -> None:
    """Nothing is stored unverified; neither is a device guessed while IAM is away."""
    keeper, _ = await home.opened()
    home.sts.fail("caller_identity", StsUnavailable("away"))
    with pytest.raises(StsUnavailable):
        await add_franklin(keeper)

    home.iam.error = StsUnavailable("away")
    with pytest.raises(StsUnavailable):
        await add_franklin(keeper)
    assert items(home) == []
    assert keeper.list() == ()


@pytest.mark.parametrize(
    "arn",
    [
        "arn:aws:iam::123456789012:root",
        "arn:aws:sts::123456789012:assumed-role/Admin/x",
        "arn:aws:sts::123456789012:federated-user/x",
    ],
)
async def test_only_users_keys_are_stored(home: Home, arn: str) -> None:
    """Root cannot assume roles (aws-facts §1.1)."""
    keeper, _ = await home.opened()
    home.sts.arn = arn

    with pytest.raises(BadRequest, match=r"^AccessKeyId belongs to .* which is no IAM user .*run `vault-client add`"):
        await add_franklin(keeper)
    assert items(home) == []


@pytest.mark.parametrize("key_id", ["ASIAFRANKLIN00000001", "AKIA", "akiafranklin00000001", "AKIAFRANKLIN 000001"])
async def test_temporary_and_shapeless_key_ids_are_not_sent(home: Home, key_id: str) -> None:
    """Refused here with a sentence; no call."""
    keeper, _ = await home.opened()

    with pytest.raises(BadRequest, match=r"^AccessKeyId "):
        await add_franklin(keeper, key_id=key_id)
    assert home.sts.calls == []


async def test_a_wrong_key_says_add_again(home: Home) -> None:
    """Not `--replace`: there is nothing to replace."""
    keeper, _ = await home.opened()
    home.sts.fail("caller_identity", IdentityBroken("unknown key"))

    with pytest.raises(IdentityBroken) as broken:
        await add_franklin(keeper)

    assert broken.value.message == (
        "AWS does not accept that key for identity franklin; check key id and secret and run "
        "`vault-client add franklin` again"
    )


async def test_an_identity_is_not_overwritten(home: Home) -> None:
    """Without --replace: IdentityExists before any call."""
    keeper = await home.with_franklin()

    with pytest.raises(IdentityExists, match=r"run `vault-client add franklin --replace`"):
        await add_franklin(keeper)
    assert home.sts.calls == []


async def test_replace_keeps_name_and_sessions(home: Home) -> None:
    """New item, index, then the old item goes; the same user's MFA session goes on serving."""
    keeper = await home.with_franklin()
    handle = handle_of(await keeper.mint(with_code()))

    identity = await add_franklin(keeper, key_id=NEW_ID, replace=True)

    assert [item["akid"] for item in items(home)] == [NEW_ID]
    assert keeper.list() == (identity,)
    await keeper.mint(from_handle(handle))
    await keeper.mint(from_handle(None))
    assert home.sts.calls[-1].key_id == NEW_ID


async def test_another_users_key_ends_the_sessions(home: Home) -> None:
    """The name now means somebody else."""
    keeper = await home.with_franklin()
    handle = handle_of(await keeper.mint(with_code()))
    home.sts.arn = "arn:aws:iam::123456789012:user/aretha"

    await add_franklin(keeper, key_id=NEW_ID, replace=True)

    with pytest.raises(VaultdError, match="was dropped"):
        await keeper.mint(from_handle(handle))


async def test_an_index_that_cannot_be_written_leaves_nothing_new(home: Home) -> None:
    """The new item is dropped again, the old key goes on."""
    keeper = await home.with_franklin()
    home.disk.full = True

    with pytest.raises(Unwritable):
        await add_franklin(keeper, key_id=NEW_ID, replace=True)

    home.disk.full = False
    assert [item["akid"] for item in items(home)] == [KEY_ID]
    await keeper.mint(from_handle(None))
    assert home.sts.calls[-1].key_id == KEY_ID


async def test_two_adds_of_one_name_are_one(home: Home) -> None:
    """The second finds the first when it comes to write: IdentityExists, its item is dropped."""
    keeper, _ = await home.opened()
    home.sts.hold()
    both = [asyncio.create_task(add_franklin(keeper, key_id=key_id)) for key_id in (KEY_ID, NEW_ID)]
    await home.clock.settle()
    home.sts.release()

    outcomes = await asyncio.gather(*both, return_exceptions=True)

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Identity", "IdentityExists"]
    assert len(items(home)) == 1
    assert len(home.index.load()) == 1


async def test_remove_takes_everything(home: Home) -> None:
    """Key, line and MFA sessions, from memory and disk; the name is then unknown."""
    keeper = await home.with_franklin()
    handle = handle_of(await keeper.mint(with_code()))

    await keeper.remove("franklin")

    assert items(home) == []
    assert keeper.list() == ()
    assert home.index.load() == ()
    with pytest.raises(UnknownIdentity, match=r"Run `vault-client add franklin`$"):
        await keeper.mint(from_handle(None))
    with pytest.raises(VaultdError, match="was dropped"):
        await keeper.mint(from_handle(handle))
    with pytest.raises(UnknownIdentity):
        await keeper.remove("franklin")
    assert (await home.opened())[1].handles == ()


async def test_a_remove_that_the_keyring_refuses_removes_nothing(home: Home) -> None:
    """The key is dropped first: a line without a key is told, a key without a line is lost."""
    keeper = await home.with_franklin()
    assert home.keyring is not None
    home.keyring.broken = KeyringBusy("locked")

    with pytest.raises(KeyringBusy):
        await keeper.remove("franklin")
    assert len(keeper.list()) == 1


@pytest.mark.parametrize(
    "planted",
    [
        {"v": 1, "uuid": "00000000-0000-0000-0000-000000000000", "akid": KEY_ID, "secret": "planted"},
        {"v": 1, "akid": "AKIAATTACKER00009999", "secret": "planted", "uuid": None},
        {"v": 2},
        [],
    ],
)
async def test_a_planted_item_is_not_used(home: Home, planted: object) -> None:
    """security.md §0.9: an item of equal attributes shadows ours; inner uuid and key id are compared, else refused."""
    await home.with_franklin()
    assert home.keyring is not None
    uuid = home.index.load()[0].uuid
    if isinstance(planted, dict) and planted.get("uuid", "") is None:
        planted["uuid"] = uuid
    home.keyring.items[f"identity:{uuid}"] = json.dumps(planted)
    keeper, _ = await home.opened()

    with pytest.raises(IdentityBroken, match="is not the key that was added, and is not used"):
        await keeper.mint(with_code())
    assert home.sts.calls == []


async def test_a_key_that_is_gone_is_told(home: Home) -> None:
    """Someone emptied the keyring: re-add, no prompt, no crash."""
    await home.with_franklin()
    assert home.keyring is not None
    home.keyring.items.clear()
    keeper, _ = await home.opened()

    with pytest.raises(IdentityBroken, match=r"run `vault-client add franklin --replace`$"):
        await keeper.mint(with_code())


async def test_while_locked_only_the_list_is_there(home: Home) -> None:
    """The index holds no secret; all else needs the store."""
    keeper = await home.with_franklin()
    await keeper.close(None)

    assert [identity.name for identity in keeper.list()] == ["franklin"]
    for call in (
        add_franklin(keeper, replace=True),
        keeper.remove("franklin"),
        keeper.detect("franklin", endpoint=ENDPOINT),
    ):
        with pytest.raises(Locked):
            await call


async def test_a_key_added_survives_the_daemon(home: Home) -> None:
    """After a kill -9 right after `add` the next process uses it."""
    await home.with_franklin()

    keeper, _ = await home.opened()
    await keeper.mint(from_handle(None))

    assert home.sts.calls[-1].key_id == KEY_ID
    assert home.within(keeper)._identities._keys[home.index.load()[0].uuid].secret_access_key == Secret(SECRET)
