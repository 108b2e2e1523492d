"""A key's rotation: each arrow, a kill at each point of it, AWS away or saying no, and what it never does."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FakeClock, FakeIam, FakeStore
from tests.keeper.rooms import ENDPOINT, KEY_ID, SERIAL, Home, add_franklin, franklin, from_handle, handle_of, with_code
from vaultd.engine.seams import Rotated
from vaultd.errors import (
    IdentityBroken,
    KeyringBusy,
    Locked,
    RoleDenied,
    RotationStopped,
    SessionRejected,
    StsUnavailable,
    Unwritable,
    VaultdError,
)
from vaultd.keeper import codec
from vaultd.keeper.keeper import DaemonKeeper
from vaultd.keeper.remote import RemoteKeeper
from vaultd.model.credentials import Identity, IdentityKey, MfaHandle, MfaSession
from vaultd.model.partitions import Endpoint
from vaultd.model.rotation import GRACE, Rotation, Wish
from vaultd.model.secret import Secret

FIRST = "AKIANEWKEY0000000001"
SECOND = "AKIANEWKEY0000000002"
OTHER = "AKIASOMEBODYELSES001"
DAY = timedelta(days=1)
#: The steps that a rotation without trouble takes, up to the grace.
STEPS = ["intent", "pending", "tried", "tried", "tried", "swapped", "inactive"]
AWAY = StsUnavailable("AWS is away; try again")
NO = RoleDenied("AWS refused: iam:X on Y; run `vault-client explain PROFILE`", aws_code="AccessDenied")
DEAD = IdentityBroken("AWS does not know that key; run `vault-client add franklin --replace`")
FULL = KeyringBusy("the keyring does not answer; unlock it")


class Person:
    """Who rotates, with a code for each MFA session that it takes."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.keeper: DaemonKeeper | RemoteKeeper
        self.handle: MfaHandle | None = None
        self._code = 100_000

    async def begin(self) -> Person:
        """A key of a hundred days, known to AWS and stored here; the MFA session is open."""
        self.home.iam.now = self.home.clock.now
        self.home.iam.table = {KEY_ID: (True, self.home.clock.now() - 100 * DAY)}
        self.keeper = await self.home.with_franklin()
        await self.sign_in()
        return self

    async def restart(self) -> None:
        """Another life of the daemon in the same home."""
        self.keeper, opened = await self.home.opened()
        self.handle = opened.handles[-1] if opened.handles else None

    async def sign_in(self) -> None:
        self._code += 1
        await self.home.clock.advance(120)  # six codes in ten minutes are sent for one device
        self.handle = handle_of(await self.keeper.mint(with_code(str(self._code))))

    async def step(self, wish: Wish = "go", grace: timedelta | None = None) -> Rotated:
        """One step; a session that is gone costs a code."""
        for _ in range(2):
            if self.handle is None:
                await self.sign_in()
            try:
                return await self.keeper.rotate(
                    "franklin", endpoint=ENDPOINT, handle=self.handle, wish=wish, grace=grace
                )
            except SessionRejected:
                self.handle = None
        raise AssertionError("a new session was refused, too")

    async def until(self, *last: str, grace: timedelta | None = None) -> list[Rotated]:
        """Step by step up to that one."""
        done = [await self.step(grace=grace)]
        while done[-1].did not in last:
            assert len(done) < 20, [each.did for each in done]
            done.append(await self.step(grace=grace))
        return done

    async def refused(self, wish: Wish = "go") -> VaultdError:
        try:
            await self.step(wish)
        except VaultdError as exc:
            return exc
        raise AssertionError("it was not refused")

    async def signs_with(self) -> str:
        """The id of the key that a call is signed with."""
        await self.home.clock.advance(600)
        self._code += 1
        await self.keeper.mint(with_code(str(self._code)))
        return self.home.sts.calls[-1].key_id

    @property
    def identity(self) -> Identity:
        (identity,) = self.keeper.list()
        return identity

    @property
    def rotation(self) -> Rotation | None:
        return self.identity.rotation

    def aws(self) -> dict[str, bool]:
        """AWS's keys: is it Active?"""
        return {each: active for each, (active, _) in self.home.iam.table.items()}

    def stored(self) -> list[str]:
        """The key ids of the items."""
        assert self.home.keyring is not None
        items = [json.loads(each) for name, each in self.home.keyring.items.items() if name.startswith("identity:")]
        return sorted(each["akid"] for each in items)

    def asked(self) -> list[tuple[str, str]]:
        """What was asked of IAM but for looking."""
        return [each for each in self.home.iam.asked if each[0] not in {"keys", "last_used"}]


@pytest.fixture
async def person(home: Home) -> Person:
    return await Person(home).begin()


# ---- the arrows ----


async def test_the_order_of_it(person: Person) -> None:
    """E1: list, create, stored, three looks, swap, Inactive; a day later deleted. The user is named in each call."""
    steps = await person.until("inactive")

    assert [each.did for each in steps] == STEPS
    assert [each.usable for each in steps if each.did == "tried"] == [1, 2, 3]
    assert person.asked() == [("create", FIRST), ("deactivate", KEY_ID)]
    assert person.aws() == {KEY_ID: False, FIRST: True}
    assert person.stored() == sorted([KEY_ID, FIRST])
    assert (steps[-1].old_key, steps[-1].new_key) == (KEY_ID[-4:], FIRST[-4:])
    assert steps[-1].last_used == "2026-11-22 by s3 in us-east-1"
    assert await person.signs_with() == FIRST

    assert (await person.step()).did == "kept"
    await person.home.clock.advance(GRACE.total_seconds())
    assert (await person.step()).did == "deleted"
    assert person.aws() == {FIRST: True}
    assert person.stored() == [FIRST]
    assert person.rotation is None
    assert person.home.iam.users == {"franklin"}


async def test_each_arrow_is_in_the_index(person: Person) -> None:
    """Architecture §6.5: intent, then a pending line, the swap of both, Inactive, and one line; full ids, no secret."""
    seen = []
    for _ in STEPS:
        await person.step()
        lines = person.home.index.load()
        active = next(each for each in lines if each.state == "active")
        stage = active.identity.rotation.stage if active.identity.rotation else ""
        seen.append((stage, active.identity.key_ending, sorted(each.state for each in lines)))
    old, new = KEY_ID[-4:], FIRST[-4:]

    assert seen == [
        ("intent", old, ["active"]),
        *[("pending", old, ["active", "pending"])] * 4,
        ("swapped", new, ["active", "retired"]),
        ("inactive", new, ["active", "retired"]),
    ]
    text = (person.home.path / "identities.json").read_text()
    assert FIRST in text
    assert "canary" not in text


async def test_the_age_is_that_of_the_new_key(person: Person) -> None:
    """The reminder counts from when AWS made the key: the old one's is known from the first list on."""
    await person.step()
    assert person.identity.key_created == person.home.clock.now() - 100 * DAY - timedelta(seconds=120)
    assert person.identity.key_old(person.home.clock.now())

    await person.until("inactive")

    assert person.identity.key_created == person.home.iam.table[FIRST][1]
    assert not person.identity.key_old(person.home.clock.now())


async def test_learning_the_age(person: Person) -> None:
    """ListAccessKeys, once; a key that AWS does not list has no age."""
    now = person.home.clock.now()
    dated = await person.keeper.date("franklin", endpoint=ENDPOINT, handle=person.handle)
    assert dated.key_age(now).days == 100
    person.home.iam.table.clear()
    assert (await person.keeper.date("franklin", endpoint=ENDPOINT, handle=person.handle)) == dated


async def test_no_secret_is_told(person: Person, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the new secret nor a whole key id is logged."""
    with caplog.at_level(logging.DEBUG, logger="vaultd"):
        await person.until("inactive")

    text = caplog.text
    assert "create key identity=franklin" in text or person.home.wired is not None
    assert "canary" not in text
    assert FIRST not in text


# ---- a kill at each point ----


class Killed(BaseException):
    """SIGKILL: nothing of ours runs after it."""


class Life:
    """Counts the moments at which something outside may change, and ends at the `last`-th."""

    def __init__(self) -> None:
        self.last = 0
        self.points: list[str] = []

    def point(self, what: str) -> None:
        self.points.append(what)
        if len(self.points) == self.last:
            raise Killed(what)


class MortalIam(FakeIam):
    def __init__(self, life: Life) -> None:
        super().__init__(SERIAL)
        self.life = life

    async def create(self, source: IdentityKey | MfaSession, *, user: str, endpoint: Endpoint) -> Any:
        self.life.point("before CreateAccessKey")
        made = await super().create(source, user=user, endpoint=endpoint)
        self.life.point("after CreateAccessKey")
        return made

    async def set_status(self, source: Any, key_id: str, *, active: bool, user: str, endpoint: Endpoint) -> None:
        self.life.point("before UpdateAccessKey")
        await super().set_status(source, key_id, active=active, user=user, endpoint=endpoint)
        self.life.point("after UpdateAccessKey")

    async def delete(self, source: Any, key_id: str, *, user: str, endpoint: Endpoint) -> None:
        self.life.point("before DeleteAccessKey")
        await super().delete(source, key_id, user=user, endpoint=endpoint)
        self.life.point("after DeleteAccessKey")


class MortalStore(FakeStore):
    def __init__(self, life: Life) -> None:
        super().__init__()
        self.life = life

    async def save(self, item: str, value: Secret) -> None:
        await super().save(item, value)
        self.life.point("after the new key was stored")

    async def drop(self, item: str) -> None:
        await super().drop(item)
        self.life.point("after an item was dropped")


class MortalDisk:
    """A kill before the rename of identities.json, and after it."""

    def __init__(self, life: Life) -> None:
        self.life = life

    def __call__(self, operation: str, path: Path) -> None:
        if path.name.startswith("identities.json") and operation == "rename":
            self.life.point("before a replace")
        if operation == "fsync_dir" and self.life.points[-1:] == ["before a replace"]:
            self.life.point("after a replace")


def mortal(root: Path, life: Life) -> Home:
    """A home whose daemon dies as `life` says."""
    root.mkdir()
    home = Home(root, FakeClock())
    home.iam, home.keyring = MortalIam(life), MortalStore(life)
    home.files._fault = MortalDisk(life)
    return home


async def whole(person: Person) -> None:
    """Up to the end of the old key."""
    if (await person.until("inactive", "kept", "deleted"))[-1].did != "deleted":
        await person.home.clock.advance(GRACE.total_seconds())
        await person.until("deleted")


async def points(root: Path) -> list[str]:
    life = Life()
    person = await Person(mortal(root, life)).begin()
    life.points.clear()
    await whole(person)
    return list(life.points)


async def test_a_kill_at_every_point_loses_nothing(tmp_path: Path) -> None:
    """Old or new, the key in use is Active at AWS and in the store; going on from there ends with the new one alone.

    Only a kill between AWS's answer and the store costs a key: it is set Inactive and named, and deleted when asked.
    """
    named = await points(tmp_path / "whole")
    assert (len(named), len(set(named))) == (18, 10), named
    strays = []
    for number, name in enumerate(named, 1):
        life = Life()
        person = await Person(mortal(tmp_path / str(number), life)).begin()
        life.points.clear()
        life.last = number
        with pytest.raises(Killed, match=name):
            await whole(person)
        life.last = 0
        await person.restart()

        key = await person.signs_with()
        assert person.aws()[key], f"{number} {name}: the key in use is Active"
        assert key in person.stored()
        if name == "after CreateAccessKey":
            strays.append(name)
            assert FIRST in (await person.refused()).message
            assert person.aws() == {KEY_ID: True, FIRST: False}
            assert not any(verb == "delete" for verb, _ in person.asked()), "never unasked"
            assert (await person.step("abandon")).did == "abandoned"
            assert person.aws() == {KEY_ID: True}
        if person.rotation is not None or KEY_ID in person.aws():
            await whole(person)
        new = SECOND if name in strays else FIRST
        assert person.aws() == {new: True}, f"{number} {name}"
        assert person.stored() == [new]
        assert [each.state for each in person.home.index.load()] == ["active"]

    assert strays == ["after CreateAccessKey"]


# ---- AWS away ----


async def test_an_answer_that_was_lost(person: Person) -> None:
    """A time-out after CreateAccessKey: the key is found by comparing with the intent, set Inactive, named, kept."""
    await person.step()
    person.home.iam.fail("create", AWAY, after=True)
    assert isinstance(await person.refused(), StsUnavailable)

    stopped = await person.refused()

    assert isinstance(stopped, RotationStopped)
    assert stopped.message == (
        f"an earlier rotation of franklin was cut off before the secret of its new key {FIRST} came, so nobody has "
        "that; it is Inactive now, and the old key is in use; to delete it, type `vault-client rotate franklin "
        "--abandon`, then begin anew"
    )
    assert person.aws() == {KEY_ID: True, FIRST: False}
    assert person.rotation is not None
    assert person.rotation.stray == (FIRST,)
    await person.home.clock.advance(3600)
    assert isinstance(await person.refused(), RotationStopped), "an hour later it is still known for what it is"
    assert (await person.step("abandon")).did == "abandoned"
    await person.until("inactive")
    assert person.aws() == {KEY_ID: False, SECOND: True}


async def test_a_call_that_never_came(person: Person) -> None:
    """A time-out before CreateAccessKey leaves no key: the next step writes its intent anew, and makes one."""
    await person.step()
    person.home.iam.fail("create", AWAY)
    await person.refused()

    assert [each.did for each in await person.until("inactive")] == STEPS[1:]
    assert [key for verb, key in person.asked() if verb == "create"] == [FIRST, SECOND]
    assert person.aws() == {KEY_ID: False, SECOND: True}


async def test_a_key_that_a_person_made_meanwhile_is_not_touched(person: Person) -> None:
    """Not listed, and not of the intent's minute: somebody else's. Two keys are AWS's most."""
    await person.step()
    person.home.iam.fail("create", AWAY)
    await person.refused()
    await person.home.clock.advance(600)
    person.home.iam.table[OTHER] = (True, person.home.clock.now())

    stopped = await person.refused()

    assert isinstance(stopped, RotationStopped)
    assert f"beside …{KEY_ID[-4:]} in use there is {OTHER} (Active, made 2026-11-22)" in stopped.message
    assert person.aws() == {KEY_ID: True, OTHER: True}


async def test_the_minute_is_aws_own(person: Person) -> None:
    """This machine's clock is ten minutes ahead: the stray key is known all the same."""
    clock = person.home.clock
    person.home.sts.skew = 600.0
    person.home.iam.now = lambda: clock.now() - timedelta(seconds=600)
    await person.step()
    person.home.iam.fail("create", AWAY, after=True)
    await person.refused()

    assert FIRST in (await person.refused()).message


async def test_two_keys(person: Person) -> None:
    """E2: stops before CreateAccessKey, and says which other key there is; an Inactive one counts, too."""
    person.home.iam.table[OTHER] = (False, person.home.clock.now() - 40 * DAY)

    stopped = await person.refused()

    assert isinstance(stopped, RotationStopped)
    assert stopped.message == (
        f"the user of franklin has two keys already, which is AWS's most: beside …{KEY_ID[-4:]} in use there is "
        f"{OTHER} (Inactive, made 2026-10-13); delete that in IAM if nothing uses it, then type "
        "`vault-client rotate franklin`"
    )
    assert person.asked() == []
    assert person.rotation is None


async def test_the_same_key_under_two_names(person: Person) -> None:
    """The other name would be left with a dead key: told before anything is asked of AWS."""
    key = replace(franklin(), identity="work")
    await person.keeper.add(key, endpoint=ENDPOINT)

    assert (await person.refused()).message == (
        "the key of franklin is stored as work, too, which would be left with a dead one; type `vault-client remove "
        "work`, then `vault-client rotate franklin`"
    )
    assert person.home.iam.asked == []
    await person.keeper.remove("work")
    assert (await person.step()).did == "intent"


@pytest.mark.parametrize("inactive", [True, False])
async def test_a_key_that_is_gone(person: Person, inactive: bool) -> None:
    """E8: deleted or set Inactive elsewhere: the identity is broken, and nothing is made."""
    person.home.iam.table = {KEY_ID: (False, person.home.clock.now())} if inactive else {}

    assert isinstance(await person.refused(), IdentityBroken)
    assert person.asked() == []


# ---- the store and the disk ----


async def test_a_key_that_cannot_be_stored_is_deleted(person: Person) -> None:
    """§2.1 (2): the write fails, so the new key is deleted at AWS again, and all is as before."""
    assert person.home.keyring is not None
    await person.step()
    keyring = person.home.keyring
    keyring.broken = FULL
    refused = await person.refused()
    keyring.broken = None

    assert isinstance(refused, KeyringBusy)
    assert refused.message == (
        "the new key could not be stored (the keyring does not answer; unlock it) and was deleted at AWS again, so the "
        "old one is in use as before; mend that, then type `vault-client rotate franklin`"
    )
    assert person.asked() == [("create", FIRST), ("delete", FIRST)]
    assert (person.aws(), person.stored(), person.rotation) == ({KEY_ID: True}, [KEY_ID], None)
    await person.until("inactive")


async def test_neither_stored_nor_deleted(person: Person) -> None:
    """Both fail: the key is named, and known for what it is afterwards."""
    assert person.home.keyring is not None
    await person.step()
    person.home.keyring.broken = FULL
    person.home.iam.fail("delete", AWAY)
    refused = await person.refused()
    person.home.keyring.broken = None

    assert f"the new key {FIRST} could not be stored" in refused.message
    assert "`vault-client rotate franklin --abandon`" in refused.message
    assert (await person.step("abandon")).did == "abandoned"
    assert person.aws() == {KEY_ID: True}


async def test_a_write_that_landed_late(person: Person) -> None:
    """Given up, and there all the same: the key is dead at AWS, so its item is dropped and signs nothing."""
    assert person.home.keyring is not None
    await person.step()
    rotation = person.rotation
    assert rotation is not None
    item = json.dumps({"v": 1, "uuid": rotation.item, "akid": OTHER, "secret": "late"})
    person.home.iam.fail("create", AWAY)
    await person.refused()
    person.home.keyring.items[f"identity:{rotation.item}"] = item
    await person.home.clock.advance(180)  # IAM may list a key late

    await person.until("inactive")

    assert person.stored() == sorted([KEY_ID, SECOND])


async def test_a_full_disk_after_the_store(person: Person) -> None:
    """The line cannot be written: the key is found under its item, and no second one is made."""
    await person.step()
    person.home.disk.full = True
    assert isinstance(await person.refused(), Unwritable)
    person.home.disk.full = False
    await person.restart()

    assert (await person.step()).did == "pending"
    await person.until("inactive")
    assert person.asked() == [("create", FIRST), ("deactivate", KEY_ID)]


@pytest.mark.parametrize("arrow", range(len(STEPS)))
async def test_a_full_disk_at_each_arrow(person: Person, arrow: int) -> None:
    """Nothing is lost: the key in use works, and with room on the disk it goes on to the same end."""
    for _ in range(arrow):
        await person.step()
    person.home.disk.full = True
    if STEPS[arrow] == "tried":
        await person.step()  # nothing is written
    else:
        assert isinstance(await person.refused(), Unwritable)
    person.home.disk.full = False
    await person.restart()

    key = await person.signs_with()
    assert person.aws()[key]
    await person.until("inactive")
    assert person.aws() == {KEY_ID: False, FIRST: True}


# ---- a new key that takes its time ----


@contextmanager
def unknown(person: Person, times: int) -> Iterator[None]:
    person.home.sts.fail("caller_identity", *[IdentityBroken("AWS does not know the key")] * times)
    yield


async def test_three_in_a_row(person: Person) -> None:
    """E4: known here and not there: a miss begins the count anew, and the old key stays in use."""
    await person.step()
    await person.step()
    await person.step()
    with unknown(person, 2):
        assert [(await person.step()).usable for _ in range(3)] == [0, 0, 1]
    assert await person.signs_with() == KEY_ID
    assert [(await person.step()).usable for _ in range(2)] == [2, 3]
    assert (await person.step()).did == "swapped"


async def test_not_usable_within_a_minute(person: Person) -> None:
    """It stops and says what stands; going on has another minute; asked, the new key is deleted."""
    await person.step()
    await person.step()
    with unknown(person, 2):
        await person.step()
        await person.home.clock.advance(60)
        stopped = await person.refused()

    assert isinstance(stopped, RotationStopped)
    assert stopped.message == (
        f"the new key …{FIRST[-4:]} of franklin is not usable yet after 60 s, and the old one …{KEY_ID[-4:]} is Active "
        "and in use as before; to go on type `vault-client rotate franklin`, to delete the new one "
        "`vault-client rotate franklin --abandon`"
    )
    assert (await person.step()).usable == 1
    assert (await person.step("abandon")).did == "abandoned"
    assert (person.aws(), person.stored()) == ({KEY_ID: True}, [KEY_ID])


async def test_an_outage_is_no_miss(person: Person) -> None:
    """AWS away while looking: the count stands, and nothing is undone."""
    await person.step()
    await person.step()
    assert (await person.step()).usable == 1
    person.home.sts.fail("caller_identity", AWAY)
    assert isinstance(await person.refused(), StsUnavailable)
    assert (await person.step()).usable == 2


async def test_another_users_key(person: Person) -> None:
    """The new key must be the same user's."""
    await person.step()
    await person.step()
    person.home.sts.arn = "arn:aws:iam::123456789012:user/mallory"

    assert "belongs to arn:aws:iam::123456789012:user/mallory" in (await person.refused()).message


async def test_a_key_in_its_first_minutes_may_be_unknown(person: Person) -> None:
    """Row 10: a region that does not know the new key yet is temporary, and no reason to add it again."""
    await person.until("swapped")
    person.home.sts.fail("assume_role", IdentityBroken("AWS does not know the key"))
    person.home.sts.fail("caller_identity", IdentityBroken("AWS does not know the key"))
    with pytest.raises(StsUnavailable, match="rotated a moment ago"):
        await person.keeper.mint(from_handle(None))
    with pytest.raises(StsUnavailable, match="rotated a moment ago"):
        await person.keeper.probe("franklin", endpoint=ENDPOINT)

    await person.home.clock.advance(120)
    person.home.sts.fail("assume_role", IdentityBroken("AWS does not know the key"))
    with pytest.raises(IdentityBroken):
        await person.keeper.mint(from_handle(None))


async def test_a_young_key_of_another_account(person: Person) -> None:
    """security.md §1 T13: AWS knows it, and elsewhere; no minute mends that. Control: the account it was added for."""
    await person.until("swapped")
    await person.keeper.probe("franklin", endpoint=ENDPOINT)
    person.home.sts.arn = "arn:aws:iam::210987654321:user/franklin"

    with pytest.raises(IdentityBroken, match="is of account 210987654321"):
        await person.keeper.probe("franklin", endpoint=ENDPOINT)


async def test_an_index_of_before_a_step_is_told(person: Person) -> None:
    """Each arrow is sealed as the index that was written last: put back, an older one would bring the old key back.
    Control: the newest opens without a word.
    """
    index = person.home.path / "identities.json"
    older = index.read_bytes()
    await person.until("swapped")
    newest = index.read_bytes()
    assert (await person.home.opened())[1].warnings == ()
    index.write_bytes(older)
    (said,) = (await person.home.opened())[1].warnings

    assert said.startswith("identities.json is not the one that sessions.sealed knows")
    assert b"null" not in newest


# ---- the old key ----


async def test_the_old_key_cannot_be_set_inactive(person: Person) -> None:
    """E6: both keys work, nothing is deleted, and it goes on once that is granted. LastUsed denied stops nothing."""
    person.home.iam.fail("last_used", NO)
    person.home.iam.fail("deactivate", NO)
    await person.until("swapped")

    refused = await person.refused()

    assert refused.message == (
        "AWS refused: iam:X on Y; both keys are Active, and the new one is in use: mend that in IAM, then type "
        "`vault-client rotate franklin`"
    )
    assert person.aws() == {KEY_ID: True, FIRST: True}
    assert (await person.step()).did == "inactive"


async def test_undo(person: Person) -> None:
    """Something still has the old key: it works again, the new one stays in use, and nothing is deleted meanwhile."""
    assert isinstance(await person.refused("undo"), RotationStopped)
    await person.until("inactive")

    assert (await person.step("undo")).did == "reactivated"

    assert person.aws() == {KEY_ID: True, FIRST: True}
    assert await person.signs_with() == FIRST
    await person.home.clock.advance(2 * GRACE.total_seconds())
    assert (await person.step()).did == "inactive"
    assert (await person.step()).did == "kept"


async def test_an_old_key_that_works_again_is_not_deleted(person: Person) -> None:
    """Set Active by somebody in the console: he needs it."""
    await person.until("inactive")
    person.home.iam.table[KEY_ID] = (True, person.home.iam.table[KEY_ID][1])
    await person.home.clock.advance(GRACE.total_seconds())

    assert "was set Active again elsewhere, so it is not deleted" in (await person.refused()).message
    assert person.aws() == {KEY_ID: True, FIRST: True}
    assert (await person.step()).did == "inactive"


@pytest.mark.parametrize("stage", ["swapped", "inactive"])
async def test_an_old_key_that_is_gone(person: Person, stage: str) -> None:
    """Deleted by somebody: there is nothing left to do."""
    await person.until(stage)
    del person.home.iam.table[KEY_ID]
    await person.home.clock.advance(GRACE.total_seconds())

    assert (await person.step()).did == "deleted"
    assert person.stored() == [FIRST]


async def test_another_grace(person: Person) -> None:
    """`--grace 0s` deletes at once, by the session that is at hand; given later, it counts from Inactive on."""
    steps = await person.until("deleted", grace=timedelta())
    assert [each.did for each in steps] == [*STEPS, "deleted"]
    assert [each.signed_out for each in steps[-2:]] == [False, True]
    assert person.aws() == {FIRST: True}

    await person.until("inactive")
    assert (await person.step(grace=2 * GRACE)).did == "kept"
    await person.home.clock.advance(GRACE.total_seconds())
    assert (await person.step()).did == "kept"
    assert (await person.step(grace=GRACE)).did == "deleted"


async def test_the_old_keys_sessions_are_dropped(person: Person) -> None:
    """§2.1: M goes once the old key is Inactive, from the disk, too; one that the new key opened stays."""
    steps = await person.until("inactive")
    assert [each.signed_out for each in steps] == [False] * 6 + [True]
    assert [each.living for each in steps] == [None] * 6 + [()]
    with pytest.raises(SessionRejected):
        await person.keeper.mint(from_handle(person.handle))
    await person.restart()
    assert person.handle is None

    await person.sign_in()
    await person.home.clock.advance(GRACE.total_seconds())
    await person.sign_in()
    deleted = await person.step()
    assert (deleted.did, deleted.signed_out, len(deleted.living or ())) == ("deleted", False, 1)
    await person.keeper.mint(from_handle(person.handle))


async def test_after_an_undo_the_new_keys_session_stays(person: Person) -> None:
    """The old key Inactive a second time: the session that --undo cost a code for is the new key's, and lives on, over
    a restart, too. Control: the old key's was ended the first time.
    """
    assert (await person.until("inactive"))[-1].signed_out
    assert (await person.step("undo")).did == "reactivated"
    await person.restart()
    opened = person.handle

    again = await person.step()

    assert (again.did, again.signed_out) == ("inactive", False)
    assert opened is not None
    await person.keeper.mint(from_handle(opened))


async def test_a_code_given_between_swap_and_inactive(person: Person) -> None:
    """The new key's session has taken the old one's place: nothing is dropped, and what lives is told all the same."""
    await person.until("swapped")
    await person.sign_in()

    inactive = await person.step()

    assert (inactive.did, inactive.signed_out, inactive.living) == ("inactive", False, (person.handle,))


async def test_a_session_of_an_earlier_version(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not say which key opened it: what was there when the old key went Inactive goes, as before."""
    sealed = codec.mfa_record

    def earlier(session: MfaSession, *, region: str) -> bytes:
        fields = json.loads(sealed(session, region=region))
        del fields["opened_by"]
        return json.dumps(fields).encode()

    await person.until("inactive")
    with monkeypatch.context() as before:
        before.setattr(codec, "mfa_record", earlier)
        await person.step("undo")
    await person.restart()

    assert (await person.step()).signed_out


async def test_abandon_is_for_what_is_not_in_use(person: Person) -> None:
    """Nothing under way, or the new key in use: refused, and nothing is deleted."""
    assert "none is under way" in (await person.refused("abandon")).message
    await person.until("swapped")
    assert "the new key is in use" in (await person.refused("abandon")).message
    assert person.aws() == {KEY_ID: True, FIRST: True}


# ---- locks, leavers, two at once ----


async def test_a_lock_while_the_key_is_made(home: Home) -> None:
    """What lands after a lock is not stored: the key is deleted at AWS again, and the answer is Locked."""
    person = await Person(home).begin()
    await person.step()
    home.iam.hold = hold = asyncio.Event()
    stepping = asyncio.ensure_future(person.step())
    await home.clock.settle()
    await person.keeper.close(None)
    hold.set()
    with pytest.raises(Locked):
        await stepping
    await home.clock.settle()

    assert person.aws() == {KEY_ID: True}
    assert person.stored() == [KEY_ID]


async def test_who_leaves_stops_nothing(person: Person) -> None:
    """Ctrl-C while AWS makes the key: it is stored all the same."""
    await person.step()
    person.home.iam.hold = hold = asyncio.Event()
    stepping = asyncio.ensure_future(person.step())
    await person.home.clock.settle()
    stepping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stepping
    hold.set()
    await person.home.clock.settle()

    assert [each.state for each in person.home.index.load()] == ["active", "pending"]
    assert person.stored() == sorted([KEY_ID, FIRST])
    assert (await person.step()).did == "tried"


async def test_two_terminals(person: Person) -> None:
    """One step after the other: one key is made."""
    await person.step()
    steps = await asyncio.gather(*(person.step() for _ in range(3)))

    assert [each.did for each in steps] == ["pending", "tried", "tried"]
    assert [verb for verb, _ in person.asked()] == ["create"]


# ---- beside other commands ----


@pytest.mark.parametrize("stage", ["intent", "pending", "swapped", "inactive"])
async def test_remove_takes_all_of_it(person: Person, stage: str) -> None:
    """No key of the name stays in the store, nor a line in the index."""
    await person.until(stage)
    await person.keeper.remove("franklin")

    assert person.stored() == []
    assert person.home.index.load() == ()


async def test_another_key_ends_it(person: Person) -> None:
    """`add --replace`, where the key in use is dead: the rotation is over, and what it had stored goes."""
    await person.until("swapped")
    await person.home.clock.advance(600)  # all of AWS knows the new key by now
    person.home.sts.fail("caller_identity", DEAD)
    await add_franklin(person.keeper, key_id=OTHER, replace=True)

    assert person.rotation is None
    assert person.stored() == [OTHER]


async def test_a_code_that_lands_after_the_swap(person: Person) -> None:
    """A session that the old key was opening while it was swapped out is its user's all the same: nobody is refused."""
    await person.until("tried")
    await person.step()
    await person.step()
    person.home.sts.hold()
    minting = asyncio.ensure_future(person.keeper.mint(with_code("999999")))
    await person.home.clock.settle()
    assert (await person.step()).did == "swapped"
    person.home.sts.release()

    assert handle_of(await minting).identity == "franklin"


async def test_without_a_device(home: Home) -> None:
    """No MFA device, no ForceMFA: the key itself signs, the new one after the swap."""
    person = Person(home)
    home.iam.serials = ()
    home.iam.now = home.clock.now
    home.iam.table = {KEY_ID: (True, home.clock.now())}
    person.keeper = await home.with_franklin()
    did = ""
    while did != "inactive":
        rotated = await person.keeper.rotate("franklin", endpoint=ENDPOINT, handle=None, wish="go", grace=None)
        did = rotated.did

    assert person.aws() == {KEY_ID: False, FIRST: True}
