"""`add --replace` over a rotation: refused while that can be ended, by words that end it; else it is taken."""

from __future__ import annotations

import asyncio
import logging
import re
from datetime import timedelta

import pytest

from tests.keeper.rooms import KEY_ID, Home, add_franklin
from tests.keeper.test_rotation import DEAD, FIRST, OTHER, Person
from vaultd.errors import RotationStopped
from vaultd.model.rotation import Wish

_MADE = ["", "--abandon"]
_TWO = ["--grace 0s"]


@pytest.fixture
async def person(home: Home) -> Person:
    return await Person(home).begin()


async def replaced(person: Person) -> None:
    await add_franklin(person.keeper, key_id=OTHER, replace=True)


async def refusal(person: Person) -> str:
    """What it says; and nothing has changed, nor was AWS told of the other key."""
    before = (person.home.index.load(), person.stored(), person.aws())
    with pytest.raises(RotationStopped) as refused:
        await replaced(person)
    assert (person.home.index.load(), person.stored(), person.aws()) == before
    assert OTHER not in {call.key_id for call in person.home.sts.calls}
    return refused.value.message


def options(said: str) -> list[str]:
    """The `rotate` commands of a sentence, by what follows the name."""
    return [each.strip() for each in re.findall(r"`vault-client rotate franklin([^`]*)`", said)]


async def typed(person: Person, option: str) -> None:
    """As the client does with that option: step by step until there is none for now."""
    wishes: dict[str, Wish] = {"": "go", "--grace 0s": "go", "--abandon": "abandon", "--undo": "undo"}
    did, wish = "", wishes[option]
    while did not in {"kept", "deleted", "reactivated", "abandoned"}:
        did = (await person.step(wish, timedelta() if option == "--grace 0s" else None)).did
    await person.sign_in()


@pytest.mark.parametrize(
    ("stage", "stands", "ways"),
    [
        ("intent", "a new key may have been made in IAM already", _MADE),
        ("pending", f"the new key …{FIRST[-4:]} is Active in IAM and not in use yet", _MADE),
        ("tried", f"the new key …{FIRST[-4:]} is Active in IAM and not in use yet", _MADE),
        ("swapped", f"the old one …{KEY_ID[-4:]} is Active in IAM, too", _TWO),
        ("inactive", f"the old one …{KEY_ID[-4:]} is Inactive in IAM until its grace is over", [*_TWO, "--undo"]),
    ],
)
async def test_it_waits_for_the_end_of_a_rotation(person: Person, stage: str, stands: str, ways: list[str]) -> None:
    """It would forget a key that IAM has. The sentence names identity, keys and the commands that its stage allows."""
    await person.until(stage)
    said = await refusal(person)

    assert said.startswith("the key of identity franklin is being rotated (")
    assert stands in said
    assert options(said) == ways
    assert "`vault-client remove franklin`" in said


@pytest.mark.parametrize(
    ("stage", "option"),
    [
        ("intent", "--abandon"), ("pending", "--abandon"),
        ("swapped", "--grace 0s"), ("inactive", "--grace 0s"), ("inactive", "--undo"),
    ],
)  # fmt: skip
async def test_what_it_says_to_type_ends_it(person: Person, stage: str, option: str) -> None:
    """Then the key is replaced; after an `--undo` it says what ends that."""
    await person.until(stage)
    assert option in options(await refusal(person))
    await typed(person, option)
    if option == "--undo":
        said = await refusal(person)
        assert f"the old one …{KEY_ID[-4:]} was set Active in IAM again" in said
        assert options(said) == _TWO
        await typed(person, "--grace 0s")

    assert len(person.aws()) == 1
    await replaced(person)
    assert person.stored() == [OTHER]


@pytest.mark.parametrize("stage", ["intent", "swapped", "inactive"])
async def test_a_dead_key_is_replaced(person: Person, stage: str, caplog: pytest.LogCaptureFixture) -> None:
    """AWS does not take the key in use any more: no step can be made, every error says `add --replace`, and so that is
    taken. The log names what is left in IAM.
    """
    await person.until(stage)
    await person.home.clock.advance(600)  # all of AWS knows a new key by now
    person.home.sts.fail("caller_identity", DEAD)
    with caplog.at_level(logging.WARNING):
        await replaced(person)

    assert person.rotation is None
    assert person.stored() == [OTHER]
    new = "unknown" if stage == "intent" else FIRST[-4:]
    assert f"overtake rotation identity=franklin stage={stage} old={KEY_ID[-4:]} new={new}" in caplog.messages


async def test_a_key_that_left_the_store_is_replaced(person: Person) -> None:
    """Held in memory it still signs, but there is no way on: the store is asked."""
    assert person.home.keyring is not None
    await person.until("swapped")
    rotation = person.rotation
    assert rotation is not None
    del person.home.keyring.items[f"identity:{rotation.item}"]
    await replaced(person)

    assert person.stored() == [OTHER]


async def test_a_key_of_somebody_else_is_replaced(person: Person) -> None:
    """It was planted or mixed up (security.md §1 T13): it signs nothing of this rotation."""
    await person.until("intent")
    person.home.sts.arn = "arn:aws:iam::999999999999:user/eve"
    await replaced(person)

    assert person.rotation is None


async def test_a_dead_old_key_leaves_the_new_one(person: Person) -> None:
    """Pending, and the old key dead: the new one goes on, so it is not forgotten. Both dead: nothing does."""
    await person.until("pending")
    person.home.sts.fail("caller_identity", DEAD)
    assert options(await refusal(person)) == _MADE

    person.home.sts.fail("caller_identity", DEAD, DEAD)
    await replaced(person)
    assert person.stored() == [OTHER]


async def test_a_new_key_that_is_not_known_everywhere_is_not_dead(person: Person) -> None:
    """In the two minutes after the swap a region may not know it yet (aws-facts §1.5 row 10)."""
    await person.until("swapped")
    person.home.sts.fail("caller_identity", DEAD)

    assert options(await refusal(person)) == _TWO


async def test_a_rotation_that_begins_meanwhile(person: Person) -> None:
    """While AWS is asked about the other key an intent is written: that one is not overtaken, and the key not kept."""
    person.home.sts.hold()
    adding = asyncio.ensure_future(replaced(person))
    await person.home.clock.settle()
    assert (await person.step()).did == "intent"
    person.home.sts.release()
    with pytest.raises(RotationStopped, match="is being rotated"):
        await adding

    assert person.stored() == [KEY_ID]
    assert person.rotation is not None
