"""The refresher: renewals ahead of time, through suspend and clocks that are set."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from tests.engine import rig as world
from tests.engine.rig import Rig, chained, direct, plain, web_admin
from vaultd.engine.refresher import Refresher
from vaultd.engine.seams import MintMfa, MintRole
from vaultd.errors import MfaRequired, RoleDenied, StsUnavailable
from vaultd.model.plan import Plan

LIMIT = timedelta(seconds=3600)


@pytest.fixture
def rig() -> Rig:
    return Rig()


@asynccontextmanager
async def refreshing(
    rig: Rig, *plans: Plan, active: Callable[[], list[Plan]] | None = None
) -> AsyncIterator[Refresher]:
    """A running refresher over these active plans."""
    refresher = Refresher(broker=rig.broker, clock=rig.clock, active=active or (lambda: list(plans)))
    task = asyncio.ensure_future(refresher.run())
    await rig.clock.settle()
    try:
        yield refresher
    finally:
        task.cancel()
        await asyncio.wait({task})


async def minutes(rig: Rig, count: int) -> AsyncIterator[int]:
    """One virtual minute after the other."""
    for minute in range(count):
        await rig.clock.advance(60)
        yield minute


async def test_c7_three_hours_with_15_minutes_left_at_every_poll(rig: Rig) -> None:
    """C7: sessions of 3600 s, M good for 12 h: never under 15 min at a poll, and one AssumeRole per half hour."""
    await rig.warm(web_admin())
    async with refreshing(rig, web_admin()):
        async for _ in minutes(rig, 180):
            session = await rig.get(web_admin())
            assert session.left(rig.clock.now()) >= timedelta(minutes=25)

    assert rig.keeper.count(MintMfa) == 1
    assert 5 <= rig.keeper.count(MintRole) <= 8


@pytest.mark.parametrize("known", [LIMIT, None], ids=["configured", "learned"])
@pytest.mark.parametrize("jitter", [0.1, 0.5, 0.99])
async def test_three_hours_against_an_mfa_age_limit(known: timedelta | None, jitter: float) -> None:
    """C7 and the issue's number: a limit of 3600 s: no request fails, exactly 2 codes, a prompt before 15 min."""
    rig = Rig(jitter=(jitter,))
    plan = web_admin(mfa_max_age=known)
    rig.keeper.mfa_limits[world.arn("WebAdmin")] = LIMIT
    await rig.warm(plan)
    async with refreshing(rig, plan):
        async for minute in minutes(rig, 180):
            session = await rig.get(plan)
            pending = rig.desk.open_questions()
            assert session.left(rig.clock.now()) >= timedelta(minutes=15) or pending
            if pending and minute % 5 == 0:  # a person who looks up now and then
                await rig.answer()

    assert len(rig.keeper.codes) == 2
    assert rig.audit.names().count("session.fail") == (0 if known else 1)


async def test_top_up_at_the_edge(rig: Rig) -> None:
    """aws-facts §1.3.3: assumed once more just before M is too old: one code lasts for about two hours."""
    plan = web_admin(mfa_max_age=LIMIT)
    rig.keeper.mfa_limits[world.arn("WebAdmin")] = LIMIT
    start = rig.clock.now()
    await rig.warm(plan)
    async with refreshing(rig, plan):
        await rig.clock.advance(3600)

    session = rig.broker.peek(plan)
    assert session is not None
    assert timedelta(seconds=3480) <= session.issued - start < timedelta(seconds=3540)


async def test_b5_an_idle_profile_is_left_alone(rig: Rig) -> None:
    """B5: not active at top-up time: no AssumeRole for it, and no question either."""
    plan = web_admin(mfa_max_age=LIMIT)
    await rig.warm(plan)
    async with refreshing(rig, active=list):
        await rig.clock.advance(3 * 3600)

    assert rig.keeper.count(MintRole) == 1
    assert rig.audit.names().count("mfa.ask") == 1


async def test_an_early_question_comes_20_minutes_before_the_end_and_stays(rig: Rig) -> None:
    """interface.md §4: not earlier; unanswered it is asked again; when the session has ended nobody is asked."""
    await rig.warm(direct())
    async with refreshing(rig, direct()):
        await rig.clock.advance(7200 - 1201)
        assert rig.desk.open_questions() == ()
        await rig.clock.advance(2)
        assert len(rig.desk.open_questions()) == 1
        for _ in range(19):
            await rig.clock.advance(60)
            assert len(rig.desk.open_questions()) == 1
        await rig.clock.advance(300)
        assert rig.desk.open_questions() == ()


async def test_a_cancelled_early_question_waits_for_the_cool_down(rig: Rig) -> None:
    """A person said no: nothing is asked for 120 s, though the end comes near."""
    await rig.warm(direct())
    async with refreshing(rig, direct()):
        await rig.clock.advance(7200 - 1190)
        rig.desk.cancel(rig.desk.open_questions()[0].id)
        await rig.clock.advance(119)
        assert rig.desk.open_questions() == ()
        await rig.clock.advance(31)
        assert len(rig.desk.open_questions()) == 1


async def test_d2_ten_minutes_of_503(rig: Rig) -> None:
    """D2: the cache is served throughout; at most 20 calls; jittered, so that two daemons do not fall into step."""
    spaced: list[list[float]] = []
    for jitter in (0.0, 0.9):
        rig = Rig(jitter=(jitter,))
        await rig.get(plain())
        await rig.clock.advance(1800)
        rig.keeper.always[MintRole] = StsUnavailable("AWS answered 503.")
        times: list[float] = []
        seen = rig.keeper.count(MintRole)
        async with refreshing(rig, plain()):
            for _ in range(600):
                await rig.clock.advance(1)
                await rig.get(plain())
                times += [rig.clock.boottime()] * (rig.keeper.count(MintRole) - seen)
                seen = rig.keeper.count(MintRole)
        assert 5 <= len(times) <= 20
        spaced.append([after - before for before, after in itertools.pairwise(times)])

    assert spaced[0] != spaced[1]


async def test_a_refused_renewal_is_tried_once_a_minute(rig: Rig) -> None:
    """A final refusal while the old session lives: no tight loop."""
    await rig.get(plain())
    rig.keeper.always[MintRole] = RoleDenied("gone")
    async with refreshing(rig, plain()):
        await rig.clock.advance(1800 + 600)
        assert rig.broker.peek(plain()) is not None

    assert rig.keeper.count(MintRole) - 1 <= 11


async def test_it_recovers_as_soon_as_aws_is_back(rig: Rig) -> None:
    """Back-off never exceeds a minute and a half."""
    first = await rig.get(plain())
    rig.keeper.always[MintRole] = StsUnavailable("AWS answered 503.")
    async with refreshing(rig, plain()):
        await rig.clock.advance(2400)
        rig.keeper.always.clear()
        await rig.clock.advance(91)

    assert rig.broker.peek(plain()) is not first
    assert rig.broker.state(plain()).last_error is None


async def test_the_clock_jumps_eight_hours_ahead(rig: Rig) -> None:
    """Suspend or a clock that is set: noticed within 30 s; what has ended by now() is not served, and is renewed."""
    first = await rig.get(plain())
    async with refreshing(rig, plain()):
        rig.clock.jump(8 * 3600)
        assert rig.broker.peek(plain()) is None
        await rig.clock.advance(30)

        second = rig.broker.peek(plain())
        assert second is not None
        assert second is not first
        assert second.left(rig.clock.now()) > timedelta(minutes=59)


async def test_the_clock_jumps_five_minutes_back(rig: Rig) -> None:
    """Sessions are judged by now(): served on, and renewed by the clock that stands; nothing is called in a loop."""
    await rig.get(plain())
    async with refreshing(rig, plain()):
        await rig.clock.advance(900)
        rig.clock.jump(-300)
        await rig.clock.advance(2400)
        session = rig.broker.peek(plain())

    assert session is not None
    assert rig.keeper.count(MintRole) == 2


async def test_suspend_over_the_limit_asks_when_needed(rig: Rig) -> None:
    """Asleep through the top-up: M is too old, the session has ended: no call, and no question until somebody asks."""
    plan = web_admin(mfa_max_age=LIMIT)
    await rig.warm(plan)
    async with refreshing(rig, plan):
        rig.clock.jump(2 * 3600)
        await rig.clock.advance(60)
        assert rig.keeper.count(MintRole) == 1
        assert rig.desk.open_questions() == ()
        with pytest.raises(MfaRequired):
            await rig.get(plan)

    assert len(rig.desk.open_questions()) == 1


async def test_chains_are_topped_up_parents_first(rig: Rig) -> None:
    """C4 through three hours: the child is always served, and its parent never made from an old M."""
    await rig.warm(chained())
    async with refreshing(rig, chained()):
        async for _ in minutes(rig, 180):
            assert (await rig.get(chained())).left(rig.clock.now()) >= timedelta(minutes=15)

    assert rig.keeper.count(MintMfa) == 1


async def test_no_sleep_above_30_s_and_no_spin(rig: Rig) -> None:
    """With nothing to do it looks twice a minute; nudged a thousand times a second it looks once a second."""
    looks = 0

    def active() -> list[Plan]:
        nonlocal looks
        looks += 1
        return []

    async with refreshing(rig, active=active) as refresher:
        await rig.clock.advance(300)
        assert looks == 11
        looks = 0
        for _ in range(1000):
            refresher.nudge()
            await asyncio.sleep(0)
        assert looks <= 2
        await rig.clock.advance(1)
        assert looks >= 1
        assert not refresher.overdue


async def test_overdue_when_it_does_not_look(rig: Rig) -> None:
    """The watchdog's positive control: a refresher that died is overdue after 90 s."""
    async with refreshing(rig) as refresher:
        assert not refresher.overdue
    await rig.clock.advance(91)

    assert refresher.overdue


async def test_one_bad_plan_does_not_starve_the_others(rig: Rig) -> None:
    """A plan whose renewal cannot even begin fails by itself; the refresher lives and renews the rest."""
    broken = world.plan("broken", world.role_step("broken"))
    object.__setattr__(broken.steps[0], "role", None)
    await rig.get(plain())
    rig.broker._cells.table[broken.last.fingerprint] = rig.broker._cells.get(plain().last.fingerprint)
    async with refreshing(rig, broken, plain()):
        await rig.clock.advance(2400)

    assert rig.keeper.count(MintRole) == 2


async def test_a_cleared_session_is_not_brought_back(rig: Rig) -> None:
    """`clear` was meant: only a request makes it anew."""
    await rig.get(plain())
    async with refreshing(rig, plain()):
        await rig.broker.clear(plain())
        await rig.clock.advance(3600)

    assert rig.keeper.count(MintRole) == 1


async def test_c6_short_sessions_are_renewed_at_half_their_life(rig: Rig) -> None:
    """C6: duration 900, signed once a second for 30 min: at most one AssumeRole in 5 min, and a warning."""
    plan = world.plan("short", world.role_step("short", duration=timedelta(seconds=900)))
    await rig.get(plan)
    async with refreshing(rig, plan):
        for _ in range(1800):
            await rig.clock.advance(1)
            assert (await rig.get(plan)).left(rig.clock.now()) > timedelta(minutes=5)

    assert rig.keeper.count(MintRole) <= 6
    assert "1800 s" in rig.broker.state(plan).warnings[0]
