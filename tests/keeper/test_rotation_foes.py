"""A rotation and whoever gets between its steps: another machine, a clock, an AWS that lags, `remove`, the daemon."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.keeper.rooms import ENDPOINT, KEY_ID, Home, add_franklin, franklin
from tests.keeper.test_rotation import AWAY, DEAD, FIRST, NO, OTHER, STEPS, Person
from vaultd.aws import calls
from vaultd.errors import IdentityBroken, RotationStopped, SessionRejected, StsUnavailable, UnknownIdentity
from vaultd.keeper import remote
from vaultd.model.rotation import GRACE
from vaultd.store import one_call


@pytest.fixture
async def person(home: Home) -> Person:
    return await Person(home).begin()


# ---- the last key that works ----


@pytest.mark.parametrize("stage", ["swapped", "inactive"])
@pytest.mark.parametrize("how", ["deleted", "inactive"])
async def test_the_old_key_stays_while_the_new_one_is_dead(person: Person, stage: str, how: str) -> None:
    """Deleted or set Inactive elsewhere, the new key is none: without the old one the user would have no key at all."""
    await person.until(stage)
    before = person.aws()[KEY_ID]
    if how == "deleted":
        del person.home.iam.table[FIRST]
    else:
        person.home.iam.table[FIRST] = (False, person.home.iam.table[FIRST][1])
    await person.home.clock.advance(GRACE.total_seconds())
    await person.sign_in()

    refused = await person.refused()

    assert isinstance(refused, RotationStopped)
    assert f"…{FIRST[-4:]}" in refused.message
    assert f"…{KEY_ID[-4:]} is left as it is" in refused.message
    assert person.aws()[KEY_ID] is before


@pytest.mark.parametrize("stage", ["tried", "swapped", "inactive"])
async def test_the_old_key_stays_while_the_new_one_is_not_stored(person: Person, stage: str) -> None:
    """The new key's item is gone from the keyring: its secret is nobody's, so nothing is done to the old one."""
    assert person.home.keyring is not None
    await person.until(stage)
    if stage == "tried":
        assert [(await person.step()).usable for _ in range(2)] == [2, 3]
    await person.home.clock.advance(GRACE.total_seconds())
    await person.sign_in()
    rotation, before = person.rotation, person.aws()
    assert rotation is not None
    del person.home.keyring.items[f"identity:{rotation.item}"]

    assert "is not in the store any more" in (await person.refused()).message
    assert person.aws() == before
    assert KEY_ID in person.stored()


async def test_abandon_keeps_the_new_key_when_the_old_one_is_dead(person: Person) -> None:
    """The old key was deleted elsewhere: the new one is all there is, and going on puts it in use."""
    await person.until("tried")
    del person.home.iam.table[KEY_ID]

    assert "is not Active at AWS any more" in (await person.refused("abandon")).message
    assert person.aws() == {FIRST: True}
    await person.until("swapped")
    assert (await person.step()).did == "deleted"
    assert person.stored() == [FIRST]


async def test_a_list_that_lags_at_the_swap(person: Person) -> None:
    """IAM lists a key later than STS knows it: that is temporary, and nothing is done to the old one meanwhile."""
    await person.until("swapped")
    made = person.home.iam.table.pop(FIRST)

    assert isinstance(await person.refused(), StsUnavailable)
    assert person.aws() == {KEY_ID: True}

    person.home.iam.table[FIRST] = made
    assert (await person.step()).did == "inactive"


async def test_an_old_key_that_was_added_under_another_name_meanwhile(person: Person) -> None:
    """Imported as `work` while the rotation was under way: it would be dead there, so it is left Active."""
    await person.until("swapped")
    await person.keeper.add(replace(franklin(), identity="work"), endpoint=ENDPOINT)

    assert "is stored as work, too" in (await person.refused()).message
    assert person.aws() == {KEY_ID: True, FIRST: True}
    await person.keeper.remove("work")
    assert (await person.step()).did == "inactive"


async def test_the_other_key_is_one_that_vaultd_serves(person: Person) -> None:
    """One user's two keys under two names: it does not advise to delete the other's key, and says whose it is."""
    person.home.iam.table[OTHER] = (True, person.home.clock.now())
    await person.keeper.add(replace(franklin(key_id=OTHER), identity="second one"), endpoint=ENDPOINT)

    assert (await person.refused()).message == (
        f"the user of franklin has two keys already, which is AWS's most: beside …{KEY_ID[-4:]} in use there is "
        f"{OTHER} (Active, made 2026-11-22), which vaultd serves as identity second one; if nothing needs that, first "
        "type `vault-client remove 'second one'` and delete the key in IAM, then type `vault-client rotate franklin`"
    )
    await person.keeper.remove("second one")
    assert f"{OTHER} (Active, made 2026-11-22); delete that in IAM" in (await person.refused()).message, "control"
    assert person.asked() == []


async def test_a_key_that_was_stored_is_no_stray(person: Person) -> None:
    """Made by hand in the minute of a lost answer, stored as `second`, used by nobody yet: it is not set Inactive."""
    await person.step()
    person.home.iam.fail("create", AWAY)
    await person.refused()
    person.home.iam.table[OTHER] = (True, person.home.clock.now())
    person.home.iam.used[OTHER] = "never"
    await person.keeper.add(replace(franklin(key_id=OTHER), identity="second"), endpoint=ENDPOINT)

    for wish in ("go", "abandon"):
        if wish == "go":
            assert "serves as identity second" in (await person.refused()).message
        else:
            assert (await person.step("abandon")).did == "abandoned"
        assert person.aws() == {KEY_ID: True, OTHER: True}


# ---- another machine ----


async def test_a_key_of_another_machine_is_not_ours(person: Person) -> None:
    """Two machines rotate one user in one minute: AWS refuses ours a third key, so the one that is there is theirs."""
    await person.step()
    person.home.iam.table[OTHER] = (True, person.home.clock.now())
    person.home.iam.fail("create", NO)
    await person.refused()

    stopped = await person.refused()

    assert "has two keys already" in stopped.message
    assert person.aws() == {KEY_ID: True, OTHER: True}
    assert person.rotation is None, "AWS said no, so no key was made for this intent"
    await person.refused("abandon")
    assert person.aws() == {KEY_ID: True, OTHER: True}


async def test_a_session_that_was_refused_made_nothing(person: Person) -> None:
    """IAM rejects the MFA session: no key can be of that intent, and one of its minute is another machine's."""
    await person.step()
    person.home.iam.fail("create", SessionRejected("dead", expired=True))
    with pytest.raises(SessionRejected):
        await person.keeper.rotate("franklin", endpoint=ENDPOINT, handle=person.handle, wish="go", grace=None)
    person.home.iam.table[OTHER] = (True, person.home.clock.now())
    person.home.iam.fail("create", NO)
    await person.sign_in()
    await person.refused()

    assert person.aws() == {KEY_ID: True, OTHER: True}


async def test_a_key_that_somebody_uses_is_no_stray(person: Person) -> None:
    """Our answer was lost, and the key of that minute was used: whoever does has its secret, so it is not ours."""
    await person.step()
    person.home.iam.fail("create", AWAY)
    await person.refused()
    person.home.iam.table[OTHER] = (True, person.home.clock.now())
    person.home.iam.used[OTHER] = "2026-11-22 by sts in us-east-1"

    assert "has two keys already" in (await person.refused()).message
    assert person.aws() == {KEY_ID: True, OTHER: True}


async def test_abandon_deletes_only_what_was_named(person: Person) -> None:
    """`--abandon` right after a lost answer: the key is set Inactive and named first, and deleted the second time."""
    await person.step()
    person.home.iam.fail("create", AWAY, after=True)
    await person.refused()

    assert FIRST in (await person.refused("abandon")).message
    assert person.aws() == {KEY_ID: True, FIRST: False}
    assert (await person.step("abandon")).did == "abandoned"
    assert person.aws() == {KEY_ID: True}


async def test_aws_gives_the_old_key_as_the_new_one(person: Person) -> None:
    """An answer that is not one: the key in use is not stored anew, and never deleted for it."""
    await person.step()
    person.home.iam.answers_with = KEY_ID
    assert person.home.keyring is not None
    refused = await person.refused()

    assert isinstance(refused, StsUnavailable)
    assert ("delete", KEY_ID) not in person.asked()
    assert person.stored() == [KEY_ID]
    assert person.aws()[KEY_ID]


# ---- the daemon's own task, and two terminals ----


async def test_the_end_of_a_grace_is_nothing_else(person: Person) -> None:
    """The daemon asks for the end alone: it begins nothing, and sets nothing Inactive that a person wants Active."""
    assert (await person.step("end")).did == "kept"
    assert person.rotation is None
    await person.until("inactive")
    assert (await person.step("end")).did == "kept"
    await person.sign_in()
    await person.step("undo")
    await person.home.clock.advance(2 * GRACE.total_seconds())
    await person.sign_in()

    assert (await person.step("end")).did == "kept"
    assert person.aws() == {KEY_ID: True, FIRST: True}

    await person.step()
    await person.home.clock.advance(2 * GRACE.total_seconds())
    assert (await person.step("end")).did == "deleted"


async def test_two_terminals_while_aws_takes_its_time(person: Person) -> None:
    """The second one's step waits for the first one's: one key is asked for, and what was stored is not looked for."""
    await person.step()
    person.home.iam.hold = hold = asyncio.Event()
    both = [asyncio.ensure_future(person.step()) for _ in range(2)]
    await person.home.clock.settle()
    assert [verb for verb, _ in person.home.iam.asked] == ["keys", "create"]
    hold.set()
    await asyncio.wait(both)

    assert [each.result().did for each in both] == ["pending", "tried"]
    assert person.asked() == [("create", FIRST)]


async def test_going_on_begins_nothing(person: Person) -> None:
    """A client that goes on after a lost answer, or beside another one, does not rotate the new key, too."""
    await person.until("deleted", grace=timedelta())

    assert (await person.step("on")).did == "over"
    assert person.rotation is None
    assert person.aws() == {FIRST: True}


# ---- `remove` and `add --replace` ----


async def test_remove_while_the_key_is_made(person: Person) -> None:
    """No key without a line: what was made for a name that is gone is deleted at AWS, and not kept."""
    await person.step()
    person.home.iam.hold = hold = asyncio.Event()
    stepping = asyncio.ensure_future(person.step())
    await person.home.clock.settle()
    await person.keeper.remove("franklin")
    hold.set()
    with pytest.raises(UnknownIdentity):
        await stepping

    assert person.stored() == []
    assert person.aws() == {KEY_ID: True}
    assert person.home.index.load() == ()


async def test_a_key_that_is_stored_while_the_name_is_removed(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new key gets its line while `remove` waits for the keyring: it goes with the rest of the name."""
    keyring, gate, waiting = person.home.keyring, asyncio.Event(), asyncio.Event()
    assert keyring is not None
    drop = keyring.drop

    async def slow(item: str) -> None:
        waiting.set()
        await gate.wait()
        await drop(item)

    await person.step()
    monkeypatch.setattr(keyring, "drop", slow)
    removing = asyncio.ensure_future(person.keeper.remove("franklin"))
    await waiting.wait()
    assert (await person.step()).did == "pending"
    gate.set()
    await removing

    assert person.stored() == []
    assert person.home.index.load() == ()


async def test_another_key_while_the_new_one_is_made(person: Person) -> None:
    """`add --replace` overtakes the rotation of a dead key: the new one goes at AWS, and the line of the other key says
    nothing of it.
    """
    await person.step()
    person.home.iam.hold = hold = asyncio.Event()
    stepping = asyncio.ensure_future(person.step())
    await person.home.clock.settle()
    person.home.sts.fail("caller_identity", DEAD)
    await add_franklin(person.keeper, key_id=OTHER, replace=True)
    hold.set()
    with pytest.raises(RotationStopped, match="another key was stored"):
        await stepping

    assert person.stored() == [OTHER]
    assert person.aws() == {KEY_ID: True}
    assert [each.state for each in person.home.index.load()] == ["active"]
    assert person.rotation is None


async def test_another_key_while_the_old_one_is_set_inactive(person: Person) -> None:
    """The line of the key that was added meanwhile is not made one of the rotation."""
    await person.until("swapped")
    await person.home.clock.advance(600)  # all of AWS knows the new key by now
    person.home.iam.hold = hold = asyncio.Event()
    stepping = asyncio.ensure_future(person.step())
    await person.home.clock.settle()
    person.home.sts.fail("caller_identity", DEAD)
    await add_franklin(person.keeper, key_id=OTHER, replace=True)
    hold.set()
    with pytest.raises(RotationStopped, match="another key was stored"):
        await stepping

    assert person.rotation is None
    assert person.aws()[FIRST]


# ---- AWS lags, clocks jump ----


async def test_a_stored_key_that_is_not_listed_yet(person: Person) -> None:
    """Killed after the store, and IAM lists the key a little later: its secret is not thrown away for that."""
    await person.step()
    person.home.disk.full = True
    await person.refused()
    person.home.disk.full = False
    await person.restart()
    made = person.home.iam.table.pop(FIRST)

    assert isinstance(await person.refused(), StsUnavailable)
    assert person.stored() == sorted([KEY_ID, FIRST])

    person.home.iam.table[FIRST] = made
    assert (await person.step()).did == "pending"
    assert person.asked() == [("create", FIRST)]


async def test_an_intent_is_of_its_minute(person: Person) -> None:
    """Ctrl-C after the intent, on an hour later: it is written anew, so that a key whose answer is lost is known."""
    await person.step()
    await person.home.clock.advance(3600)
    person.home.iam.fail("create", AWAY, after=True)
    await person.refused()

    stopped = await person.refused()
    assert isinstance(stopped, RotationStopped)
    assert "nobody has that" in stopped.message


async def test_a_clock_that_jumps_ends_no_grace(person: Person) -> None:
    """This machine's clock is a year ahead all at once: the grace is AWS's day, not ours."""
    await person.until("inactive")
    await person.sign_in()
    person.home.clock.jump(365 * 86400)
    person.home.sts.skew = 365 * 86400.0
    person.handle = None

    assert (await person.step()).did == "kept"
    assert person.aws() == {KEY_ID: False, FIRST: True}


async def test_a_clock_that_was_behind_gives_the_whole_grace(person: Person) -> None:
    """The clock was a year behind when the old key went Inactive, and is set right: the day is not over for that."""
    await person.until("swapped")
    person.home.sts.skew = -365 * 86400.0
    assert (await person.step()).did == "inactive"
    person.home.clock.jump(365 * 86400)
    person.home.sts.skew = 0.0

    assert (await person.step()).did == "kept"
    await person.home.clock.advance(GRACE.total_seconds())
    assert (await person.step()).did == "deleted"


async def test_a_small_skew_is_none(person: Person) -> None:
    """AWS's dates are of whole seconds: a clock that is 0.6 s behind does not keep `--grace 0s` from its end."""
    person.home.sts.skew = -0.6
    steps = await person.until("deleted", grace=timedelta())
    assert [each.did for each in steps] == [*STEPS, "deleted"]


async def test_a_young_key_at_iam(home: Home) -> None:
    """Without a device the new key signs: an IAM that does not know it yet is temporary, and no broken identity."""
    home.iam.serials = ()
    home.iam.now = home.clock.now
    home.iam.table = {KEY_ID: (True, home.clock.now())}
    keeper = await home.with_franklin()

    async def step() -> Any:
        return await keeper.rotate("franklin", endpoint=ENDPOINT, handle=None, wish="go", grace=None)

    while (await step()).did != "swapped":
        pass
    home.iam.fail("keys", IdentityBroken("AWS does not know the key"), after=True)
    with pytest.raises(StsUnavailable, match="rotated a moment ago"):
        await step()
    assert (await step()).did == "inactive"


def test_a_slow_step_is_no_hang() -> None:
    """A keeper that passes its deadline is killed, which would cost a key that is being made: a step that waits for
    another one has the time of both, whatever keyring and AWS take of theirs.
    """
    keyring, aws = one_call.DEADLINE.total_seconds(), calls.DEADLINE
    assert remote.DEADLINES["rotate"] > 2 * (4 * keyring + 4 * aws)
    assert remote.DEADLINES["add"] > 6 * keyring + 4 * aws
    assert remote.DEADLINES["adopt"] > remote.DEADLINE > 0
