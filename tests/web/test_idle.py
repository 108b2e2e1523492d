"""A session that was long idle, over the wire: both dialects wait for a new one, and have the old one at the end."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from tests.fakes import FakeClock
from tests.web.control import House, Started, soon
from tests.web.door_rig import KEYS, a_door
from tests.web.rig import StandInBroker, running, session
from vaultd.model.dialects import stamp
from vaultd.web import ecs, imds
from vaultd.web.serving import NAMING

OLD, NEW = session(lives=timedelta(minutes=8)), session(lives=timedelta(hours=2))


@pytest.mark.parametrize("later", [NEW, OLD])
async def test_the_container_endpoint_waits_for_it(tmp_path: Path, later: object) -> None:
    """What is there is passed over once: the broker is asked, with at most 0.8 s, and its answer goes out."""
    broker = StandInBroker(ready=OLD, idle=True)
    broker.later = NEW if later is NEW else OLD
    async with running(tmp_path, broker=broker) as rig:
        reply = await rig.get()
        assert stamp(broker.later.expiration).encode() in reply.body
        ((_, _, wait),) = broker.asked
        assert wait is not None
        assert 0 < wait <= ecs.PATIENCE
        assert len(rig.audit.serves) == 1
        assert rig.broker.used_plans == ["web-admin"]


@pytest.mark.parametrize("later", [NEW, OLD])
async def test_a_door_waits_for_it(tmp_path: Path, later: object) -> None:
    """As above, with at most 0.4 s; the rest of the tree waits for nothing."""
    broker = StandInBroker(ready=OLD, idle=True)
    broker.later = NEW if later is NEW else OLD
    async with a_door(tmp_path, broker=broker) as rig:
        assert (await rig.get(KEYS)).status == 200
        assert broker.asked == []
        reply = await rig.get(f"{KEYS}web-admin")
        assert stamp(broker.later.expiration).encode() in reply.body
        ((_, _, wait),) = broker.asked
        assert wait is not None
        assert 0 < wait <= imds.PATIENCE


async def _shell(started: Started) -> tuple[str, str]:
    made = await started.ok("POST", "/v1/grants", {"profile": "web-admin", "kind": "lease"})
    return made["set"]["AWS_CONTAINER_CREDENTIALS_FULL_URI"], made["set"]["AWS_CONTAINER_AUTHORIZATION_TOKEN"]


async def _asked(uri: str, token: str) -> bytes:
    """One GET on a connection of its own; the whole reply."""
    host, _, path = uri.removeprefix("http://").partition("/")
    reader, writer = await asyncio.open_connection(*host.split(":"))
    lines = [f"GET /{path} HTTP/1.1", f"Host: {host}", f"Authorization: {token}", "Connection: close"]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


async def test_a_hundred_of_them_while_sts_is_slow(tmp_path: Path) -> None:
    """The whole daemon: one call and one patience for all, plain 200s with the old keys; later ones wait not."""
    clock = FakeClock()
    async with House(tmp_path, clock=clock).run() as started:
        await started.with_session()
        uri, token = await _shell(started)
        old = stamp(clock.now() + timedelta(hours=1)).encode()
        clock.jump(50 * 60)
        started.house.sts.hold()
        before = started.house.sts.counts()["assume_role"]
        many = [asyncio.ensure_future(_asked(uri, token)) for _ in range(100)]
        asleep = clock.sleepers
        await soon(lambda: clock.sleepers >= asleep + 100)
        assert not any(each.done() for each in many)
        await clock.advance(ecs.PATIENCE)
        replies = [await each for each in many]
        await clock.advance(2 * NAMING)  # its 0.8 s count from when it was known who asks

        assert all(each.startswith(b"HTTP/1.1 200 ") and old in each for each in replies)
        assert not any(b"chunked" in each for each in replies), "no drip for it"
        for _ in range(20):
            assert old in await _asked(uri, token)  # no time passes
        assert started.house.sts.counts()["assume_role"] == before + 1
        started.house.sts.release()
        await soon(lambda: started.daemon.broker.peek(started.daemon.catalog().plan("web-admin"), patience=1.0))
        assert old not in await _asked(uri, token)
