"""The keeper on botocore, the emulator and real files: the words between the two rooms fit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tests.aws.rooms import Aws, SkippingClock
from tests.keeper.rooms import ROLE, SERIAL, Home, from_handle, handle_of, session_of, with_code
from tests.strict_sts import FRANKLIN, StrictSts
from vaultd.errors import CodeRefused, CodeSpent, IdentityBroken, SessionRejected, StsUnavailable, Throttled
from vaultd.keeper.keeper import DaemonKeeper
from vaultd.keeper.remote import RemoteKeeper
from vaultd.model.credentials import IdentityKey


@pytest.fixture
def clock() -> SkippingClock:
    return SkippingClock()


class World:
    """franklin added to a keeper that calls the emulator."""

    def __init__(self, strict: StrictSts, aws: Aws, keeper: DaemonKeeper | RemoteKeeper) -> None:
        self.strict = strict
        self.aws = aws
        self.keeper = keeper

    async def mfa(self, code: str | None = None) -> object:
        order = with_code(code or self.strict.totp())
        return handle_of(await self.keeper.mint(replace(order, endpoint=self.aws.endpoint())))

    def codes(self) -> list[int]:
        return [call.code for call in self.strict.calls() if call.code]


@pytest.fixture
async def world(home: Home, clock: SkippingClock) -> AsyncIterator[World]:
    async with StrictSts(clock=clock) as strict:
        aws = Aws(strict, clock)
        home.sts, home.iam = aws.sts, aws.iam  # type: ignore[assignment]  # the same seams
        keeper, _ = await home.opened()
        added = await keeper.add(aws.key(), endpoint=aws.endpoint())
        assert (added.user_arn, added.mfa_serial) == (FRANKLIN, SERIAL)
        yield World(strict, aws, keeper)


async def test_the_story(world: World) -> None:
    """A1's calls: one GetSessionToken with the code, one AssumeRole without."""
    handle = handle_of(await world.keeper.mint(replace(with_code(world.strict.totp()), endpoint=world.aws.endpoint())))
    session = session_of(await world.keeper.mint(replace(from_handle(handle), endpoint=world.aws.endpoint())))

    assert session.role_arn == ROLE.role_arn
    assert world.strict.counts() == {
        "GetCallerIdentity": 1,
        "ListMFADevices": 1,
        "GetSessionToken": 1,
        "AssumeRole": 1,
    }


async def test_a_code_is_never_sent_twice(world: World) -> None:
    """Wrong, lost on the way back, and right: each goes once, whatever is typed again."""
    with pytest.raises(CodeRefused):
        await world.mfa("000000")
    with pytest.raises(CodeSpent):
        await world.mfa("000000")
    world.strict.fault("http", op="GetSessionToken", when="after")
    lost = world.strict.totp()
    with pytest.raises(StsUnavailable):
        await world.mfa(lost)
    with pytest.raises(CodeSpent):
        await world.mfa(lost)
    await world.mfa(world.strict.totp(step=1))

    assert world.codes() == [1, 2, 3]


async def test_a_throttled_code_goes_again_and_works(world: World) -> None:
    """A10: the same code, twice more, once each time it is asked for."""
    world.strict.fault("throttle", op="GetSessionToken", times=2)
    code = world.strict.totp()
    for _ in range(2):
        with pytest.raises(Throttled):
            await world.mfa(code)
    await world.mfa(code)

    assert world.codes() == [1, 1, 1]


async def test_a_deleted_key_is_told_through_its_session(world: World, clock: SkippingClock) -> None:
    """D6 and E8: a session that AWS no longer knows is probed; the key is well, then it is deleted."""
    for deleted, expected in ((False, SessionRejected), (True, IdentityBroken)):
        clock.jump(60)
        order = replace(with_code(world.strict.totp()), endpoint=world.aws.endpoint())
        handle = handle_of(await world.keeper.mint(order))
        key: IdentityKey = world.aws.key()
        world.strict.revoke(user=FRANKLIN, as_="invalid")
        if deleted:
            world.strict.mutate(key={"id": key.access_key_id, "status": "deleted"})
        with pytest.raises(expected):
            await world.keeper.mint(replace(from_handle(handle), endpoint=world.aws.endpoint()))
