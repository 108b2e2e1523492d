"""The first request after silence: a session that was idle past its renewal is waited for, within limits (tending.py).

Rule of the tests: a session of an hour falls due at 1,800 s (no jitter), and is untended with less than 25 minutes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest

from tests.engine import rig as world
from tests.engine.rig import Rig, chained, plain, web_admin
from tests.engine.test_refresher import refreshing
from vaultd.engine.broker import LONGEST_PATIENCE
from vaultd.engine.seams import MintMfa, MintRole
from vaultd.errors import IdentityBroken, Locked, RoleDenied, SessionRejected, StsUnavailable, VaultdError
from vaultd.model.credentials import RoleSession
from vaultd.model.plan import Plan

PATIENCE = 0.8
MINUTE = 60.0


@pytest.fixture
def rig() -> Rig:
    return Rig()


def down() -> StsUnavailable:
    return StsUnavailable("AWS cannot be reached: check the network.")


async def waited(rig: Rig, plan: Plan, *, wait: float | None = PATIENCE) -> tuple[RoleSession, float]:
    """One request, and how long it was kept."""

    async def timed() -> tuple[RoleSession, float]:
        began = rig.clock.boottime()
        session = await rig.get(plan, wait=wait)
        return session, round(rig.clock.boottime() - began, 3)

    asking = asyncio.ensure_future(timed())
    await rig.clock.settle()
    while not asking.done():
        await rig.clock.advance(0.1)
    return await asking


@pytest.mark.parametrize("make", [plain, web_admin, chained])
@pytest.mark.parametrize("idle", [36, 45, 52, 59])
async def test_the_first_after_silence_gets_a_whole_session(rig: Rig, make: Callable[[], Plan], idle: int) -> None:
    """§5: what is served has 25 minutes where its lifetime allows; the one renewal is nobody's but the request's."""
    plan = make()
    first = await rig.warm(plan)
    before = rig.keeper.count(MintRole)
    await rig.clock.advance(idle * MINUTE)
    second = await rig.get(plan)

    assert second is not first
    assert second.left(rig.clock.now()) == timedelta(hours=1)
    assert rig.keeper.count(MintRole) == before + len(plan.steps) - (plan.steps[0].kind == "mfa_session")
    assert rig.desk.open_questions() == ()


@pytest.mark.parametrize(("life", "due"), [(3600, 31), (3600, 34), (900, 8)])
async def test_what_is_due_but_not_late_goes_out_at_once(rig: Rig, life: int, due: int) -> None:
    """25 minutes, or 5/6 of half a short life, are enough: no request waits, and the renewal begins behind it."""
    plan = world.plan("r", world.role_step("r", duration=timedelta(seconds=life)))
    first = await rig.get(plan)
    await rig.clock.advance(due * MINUTE)
    assert rig.broker.peek(plan, patience=PATIENCE) is first
    rig.keeper.gate = asyncio.Event()

    assert await rig.get(plan) is first
    await rig.clock.settle()
    assert rig.keeper.count(MintRole) == 2


@pytest.mark.parametrize("life", [900, 1800, 3600, 43200])
@pytest.mark.parametrize("jitter", [0.0, 0.999])
async def test_a_tended_plan_never_waits(life: int, jitter: float) -> None:
    """Asked for every minute, through two lives, AWS answering in 9 s: each is ready at once."""
    rig = Rig(jitter=(jitter,))
    plan = world.plan("r", world.role_step("r", duration=timedelta(seconds=life)))
    await rig.get(plan)
    async with refreshing(rig, plan):
        for _ in range(life // 15):
            rig.keeper.gate = asyncio.Event()
            await rig.clock.advance(9)
            rig.keeper.gate.set()
            await rig.clock.advance(21)
            assert rig.broker.peek(plan, patience=PATIENCE) is rig.broker.peek(plan) is not None

    assert rig.keeper.count(MintRole) >= 3


async def test_a_hundred_at_once_are_one_call_and_one_patience(rig: Rig) -> None:
    """AWS takes long: one flight, each waits 0.8 s, all get the old session; who comes later is not kept at all."""
    first = await rig.get(plain())
    await rig.clock.advance(50 * MINUTE)
    rig.keeper.gate = asyncio.Event()
    many = [asyncio.ensure_future(rig.get(plain())) for _ in range(100)]
    await rig.clock.advance(PATIENCE - 0.01)
    assert not any(each.done() for each in many)
    assert rig.keeper.count(MintRole) == 2
    await rig.clock.advance(0.01)
    assert [await each for each in many] == [first] * 100

    for _ in range(50):
        assert await waited(rig, plain()) == (first, 0.0)
        assert rig.broker.peek(plain(), patience=PATIENCE) is first
    assert rig.keeper.count(MintRole) == 2
    rig.keeper.gate.set()
    await rig.clock.settle()
    assert (await rig.get(plain())).left(rig.clock.now()) > timedelta(minutes=59)


async def test_a_hundred_at_once_get_what_lands(rig: Rig) -> None:
    """AWS answers in half a second: one call, and all have the new session then."""
    first = await rig.get(plain())
    await rig.clock.advance(50 * MINUTE)
    rig.keeper.gate = asyncio.Event()
    many = [asyncio.ensure_future(rig.get(plain())) for _ in range(100)]
    await rig.clock.advance(0.5)
    rig.keeper.gate.set()
    await rig.clock.settle()

    assert len({(await each).access_key_id for each in many} - {first.access_key_id}) == 1
    assert rig.keeper.count(MintRole) == 2


@pytest.mark.parametrize("make", [plain, chained])
@pytest.mark.parametrize(
    ("error", "rests"), [(down(), 91), (RoleDenied("gone"), 61), (IdentityBroken("The key is gone."), 601)]
)
async def test_an_outage_costs_one_request_its_patience(
    rig: Rig, error: VaultdError, rests: float, make: Callable[[], Plan]
) -> None:
    """Repeated requests in an outage: the first is kept 0.8 s at most, all others not at all; none has an error."""
    plan = make()
    first = await rig.warm(plan)
    rig.keeper.always[MintRole] = error
    await rig.clock.advance(50 * MINUTE)
    kept = []
    async with refreshing(rig, plan):
        for _ in range(100):
            session, seconds = await waited(rig, plan)
            assert session is first
            kept.append(seconds)
            await rig.clock.advance(1)

    assert kept[0] <= PATIENCE
    assert set(kept[1:]) == {0.0}
    rig.keeper.always.clear()
    async with refreshing(rig, plan):
        await rig.clock.advance(rests)
    assert rig.broker.peek(plan) not in (None, first), "positive control: AWS is asked on and on"


async def test_a_failure_from_before_it_fell_due_hinders_nobody(rig: Rig) -> None:
    """A `refresh` that failed early in the session's life says nothing of AWS an hour later."""
    first = await rig.get(plain())
    rig.keeper.always[MintRole] = RoleDenied("not now")
    with pytest.raises(RoleDenied):
        await rig.broker.refresh(plain(), requester="tty")
    rig.keeper.always.clear()
    await rig.clock.advance(50 * MINUTE)

    assert await rig.get(plain()) is not first


async def test_nobody_waits_for_a_person(rig: Rig) -> None:
    """The new session would take a code: the old one goes out at once, while it lives."""
    plan = web_admin(mfa_max_age=timedelta(minutes=40))
    first = await rig.warm(plan)
    await rig.clock.advance(50 * MINUTE)

    assert rig.broker.peek(plan, patience=PATIENCE) is first
    assert await waited(rig, plan) == (first, 0.0)
    assert rig.keeper.count(MintRole) == 1


async def test_a_dead_mfa_session_is_no_error_while_the_old_session_lives(rig: Rig) -> None:
    """D6 after silence: the flight ends in "a code is needed"; the old session is the answer."""
    first = await rig.warm(web_admin())
    rig.keeper.outcomes[MintRole] = [SessionRejected("ExpiredToken")]
    await rig.clock.advance(50 * MINUTE)

    assert await waited(rig, web_admin()) == (first, 0.0)
    assert rig.keeper.count(MintMfa) == 1


@pytest.mark.parametrize(
    ("wait", "kept"), [(0.4, 0.4), (0.8, 0.8), (100.0, LONGEST_PATIENCE), (None, LONGEST_PATIENCE)]
)
async def test_nobody_waits_longer_than_its_patience(rig: Rig, wait: float | None, kept: float) -> None:
    """IMDS 0.4 s, the container 0.8 s; a held request and a terminal no longer, while the old session lives."""
    first = await rig.get(plain())
    await rig.clock.advance(50 * MINUTE)
    rig.keeper.gate = asyncio.Event()

    assert await waited(rig, plain(), wait=wait) == (first, kept)


@pytest.mark.parametrize("lands", [True, False])
async def test_the_flight_of_another_is_joined_while_it_is_young(rig: Rig, *, lands: bool) -> None:
    """Under way for 0.5 s: too long for IMDS, not for the container, until 0.8 s; who has no patience is never kept."""
    first = await rig.get(plain())
    await rig.clock.advance(50 * MINUTE)
    rig.keeper.gate = asyncio.Event()
    early = asyncio.ensure_future(rig.get(plain(), wait=0.4))
    await rig.clock.advance(0.5)
    assert await early is first
    assert [rig.broker.peek(plain(), patience=each) for each in (0.0, 0.4, 0.8)] == [first, first, None]
    joined = asyncio.ensure_future(waited(rig, plain()))
    await rig.clock.settle()
    if lands:
        rig.keeper.gate.set()
    session, kept = await joined

    assert (session is not first) is lands
    assert kept == (0.0 if lands else 0.3)
    assert rig.keeper.count(MintRole) == 2


async def test_it_ends_while_it_waits(rig: Rig) -> None:
    """15.5 s are left at the GET and AWS takes its time: what ended meanwhile is not served; an error, in time."""
    await rig.get(plain())
    await rig.clock.advance(3600 - 15.5)
    rig.keeper.gate = asyncio.Event()
    with pytest.raises(StsUnavailable):
        await waited(rig, plain())


async def test_a_lock_ends_the_wait(rig: Rig) -> None:
    """Flow 6: nothing is served once it is locked."""
    await rig.get(plain())
    await rig.clock.advance(50 * MINUTE)
    rig.keeper.gate = asyncio.Event()
    asking = asyncio.ensure_future(rig.get(plain()))
    await rig.clock.settle()
    await rig.broker.lock()
    with pytest.raises(Locked):
        await asking


async def test_who_leaves_leaves_the_flight(rig: Rig) -> None:
    """§8.3: it lands without a waiter."""
    await rig.get(plain())
    await rig.clock.advance(50 * MINUTE)
    rig.keeper.gate = asyncio.Event()
    leaving: Sequence[asyncio.Task[RoleSession]] = [asyncio.ensure_future(rig.get(plain())) for _ in range(3)]
    await rig.clock.settle()
    for each in leaving:
        await rig.gone(each)
    rig.keeper.gate.set()
    await rig.clock.settle()

    session = rig.broker.peek(plain(), patience=PATIENCE)
    assert session is not None
    assert session.left(rig.clock.now()) == timedelta(hours=1)
