"""Flow 1 behind the guard: what is made in time, who is named, what is kept in memory."""

from __future__ import annotations

import asyncio
import functools
import gc
from dataclasses import replace
from pathlib import Path

from tests.fakes import FakeClock
from tests.web.rig import (
    SECRET,
    StandInBroker,
    StandInPlans,
    _grant,
    _grants,
    nobody,
    plan_of,
    read_reply,
    running,
    session,
)
from vaultd.engine.sightings import Sighting
from vaultd.model.dialects import ecs_reply
from vaultd.web.ecs import PATIENCE, Credentials
from vaultd.web.replies import Reply
from vaultd.web.serving import MOST_KNOWN, NAMING, Served

SIGHTING = Sighting(uid=0, inode=4711, pid=None)


async def test_cold_session_is_made_within_patience(tmp_path: Path) -> None:
    """No session: the broker is asked once, with the process's name and at most 0.8 s."""
    async with running(tmp_path, broker=StandInBroker(later=session())) as rig:
        assert (await rig.get()).status == 200
        ((profile, requester, wait),) = rig.broker.asked
        assert (profile, requester) == ("web-admin", "terraform (pid 4711)")
        assert wait is not None
        assert 0 < wait <= PATIENCE
        assert len(rig.audit.serves) == 1


async def test_warm_session_asks_nobody(tmp_path: Path) -> None:
    """A session that is ready: no flight, no process look-up, and the plan is made once a snapshot."""
    looked: list[int] = []

    async def describe(inode: int) -> str:
        looked.append(inode)
        return "x"

    async with running(tmp_path, describe=describe) as rig:
        for _ in range(5):
            assert (await rig.get()).status == 200
        assert rig.broker.asked == []
        assert looked == []
        assert rig.plans.made == 1
        rig.plans.number += 1
        await rig.get()
        assert rig.plans.made == 2


async def test_cold_callers_share_one_look_up(tmp_path: Path) -> None:
    """100 callers of one profile at once are one scan of /proc, and all of them name whom it found."""
    looked: list[int] = []
    looking, found = asyncio.Event(), asyncio.Event()

    async def describe(inode: int) -> str:
        looked.append(inode)
        looking.set()
        await found.wait()
        return "make (pid 7)"

    broker = StandInBroker(later=session())
    async with running(tmp_path, broker=broker, describe=describe) as rig:
        ends = [await rig.connect() for _ in range(100)]
        for _, writer in ends:
            writer.write(rig.request())
        await looking.wait()
        while rig.clock.sleepers < 100:  # noqa: ASYNC110 - each caller waits for the name, and no time passes meanwhile
            await asyncio.sleep(0)
        found.set()
        for reader, writer in ends:
            assert (await read_reply(reader)).status == 200
            writer.close()
        assert len(looked) == 1
        assert {requester for _, requester, _ in broker.asked} == {"make (pid 7)"}


async def test_look_up_that_hangs_or_fails_costs_the_name_only(tmp_path: Path) -> None:
    """The question then says less; the request goes on."""

    async def hangs(inode: int) -> str:
        await asyncio.Event().wait()
        return ""

    async def fails(inode: int) -> str:
        raise OSError

    for number, describe in enumerate((hangs, fails)):
        folder = tmp_path / str(number)
        folder.mkdir()
        broker = StandInBroker(later=session())
        async with running(folder, broker=broker, describe=describe) as rig:
            asking = asyncio.ensure_future(rig.get())
            if describe is hangs:
                while not rig.clock.sleepers:  # noqa: ASYNC110 - the handshake of FakeClock
                    await asyncio.sleep(0)
                assert broker.asked == []
                await rig.clock.advance(NAMING)
            assert (await asking).status == 200
            assert [requester for _, requester, _ in broker.asked] == ["a process of yours"]


async def test_rendered_bytes_go_with_their_session(tmp_path: Path) -> None:
    """Keys are rendered once a session; when the broker drops it (lock), no copy stays behind."""
    clock = FakeClock()
    grants = _grants(tmp_path, clock)
    grant = grants.find(_grant(grants, "web-admin", plan_of("web-admin").role_arn).encode())
    assert grant is not None
    broker, plans = StandInBroker(ready=session()), StandInPlans()
    credentials = Credentials(plans=lambda: plans, broker=broker, grants=grants, clock=clock, describe=nobody)
    plan = plan_of("web-admin")

    first, second = (credentials.ready(grant, plan, SIGHTING) for _ in range(2))

    assert first is not None
    assert second is not None
    assert first.message is second.message
    assert len(credentials._rendered) == 1
    del first, second
    broker.ready = None
    gc.collect()
    assert len(credentials._rendered) == 0


async def test_a_new_session_is_rendered_anew(tmp_path: Path) -> None:
    """After a renewal the new keys go out, at once."""
    async with running(tmp_path) as rig:
        before = (await rig.get()).body
        rig.broker.ready = None
        rig.broker.ready = session(lives=session().lifetime * 2)
        after = (await rig.get()).body
        assert before != after
        assert b"2026-11-22T14:00:00Z" in after


async def test_no_keys_are_written_once_the_broker_is_locked(tmp_path: Path) -> None:
    """A session that landed in the turn of a lock is not written: the answer is Locked, and nothing was served."""
    for locked in (False, True):
        folder = tmp_path / str(locked)
        folder.mkdir()
        broker = StandInBroker(later=session(), release=asyncio.Event())
        async with running(folder, broker=broker) as rig:
            asking = asyncio.ensure_future(rig.get())
            await broker.was_asked(1)
            assert broker.release is not None
            broker.release.set()
            broker.locked = locked  # before the waiter runs: the broker handed out what it had
            reply = await asking
            assert reply.status == (403 if locked else 200)
            assert (SECRET.encode() in reply.raw) is not locked, "positive control: unlocked, the keys are there"
            assert len(rig.audit.serves) == (0 if locked else 1)


async def test_no_representation_shows_what_goes_out(tmp_path: Path) -> None:
    """security.md §0.5: asyncio's debug mode prints results and arguments of whatever is slow."""
    made = session()
    async with running(tmp_path) as rig:
        (grant,) = rig.grants.list()
        served = Served(grant, rig.plans.plan("web-admin"), made, ecs_reply(made))
        reply = Reply(served.message, sent=functools.partial(print, served))
        assert SECRET not in "".join(map(repr, (served, reply, reply.sent, grant)))
        assert SECRET.encode() in served.message


async def test_grants_that_come_and_go_leave_nothing(tmp_path: Path) -> None:
    """A command a minute under `exec`, and files that nobody touches: what is known of grants stays bounded."""
    async with running(tmp_path) as rig:
        (grant,) = rig.grants.list()
        serving = rig.side._credentials._serving
        for number in range(MOST_KNOWN + 10):
            serving.plan(replace(grant, id=f"{number:010x}"))
        assert 0 < len(serving._known) <= MOST_KNOWN
