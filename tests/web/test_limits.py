"""Time, number and the ends of a connection; the durations are injected, so nothing here waits for the real ones."""

from __future__ import annotations

import asyncio
import resource
import socket
from pathlib import Path

import pytest

from tests.web.rig import (
    Rig,
    StandInBroker,
    read_reply,
    running,
    session,
    still_open,
    until_closed,
)
from vaultd.host.peers import ESTABLISHED, Address, Peers, PeerSocket
from vaultd.web.limits import Crowd, Limits

SHORT = 0.15
#: Long enough that the short limits would have struck, had they counted.
LONGER = 0.5
LONG = 30.0


def limits(
    *,
    first_byte: float = LONG,
    headers: float = LONG,
    idle: float = LONG,
    unread: float = LONG,
    connections: int = 1024,
) -> Limits:
    return Limits(
        first_byte=first_byte, headers=headers, idle=idle, unread=unread, linger=SHORT, connections=connections
    )


def test_contract_numbers() -> None:
    """2 s, 3 s, at least 90 s, 1,024 connections (interface.md §4)."""
    real = Limits()
    assert (real.first_byte, real.headers, real.connections) == (2.0, 3.0, 1024)
    assert real.idle >= 90


def test_three_quarters_of_the_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 256 descriptors 192 connections, so that the control socket and the store still work."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    assert Limits().most() == 192
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert Limits().most() == 1024


async def test_first_byte(tmp_path: Path) -> None:
    """A client that connects and says nothing is closed unanswered."""
    async with running(tmp_path, limits=limits(first_byte=SHORT)) as rig:
        reader, writer = await rig.connect()
        assert await until_closed(reader) == b""
        assert len(rig.side) == 0
        writer.close()


async def test_first_byte_is_no_limit_for_the_rest(tmp_path: Path) -> None:
    """Positive control: one that has asked stays, far beyond it, and asks again."""
    async with running(tmp_path, limits=limits(first_byte=SHORT, headers=SHORT)) as rig:
        reader, writer = await rig.connect()
        writer.write(rig.request())
        assert (await read_reply(reader)).status == 200
        assert await still_open(reader, seconds=LONGER)
        writer.write(rig.request())
        assert (await read_reply(reader)).status == 200
        writer.close()


@pytest.mark.parametrize("part", [1, 30, -1])
async def test_headers(part: int, tmp_path: Path) -> None:
    """A head that is not complete in time is closed unanswered, however much of it is there."""
    async with running(tmp_path, limits=limits(headers=SHORT)) as rig:
        reader, writer = await rig.connect()
        writer.write(rig.request()[:part])
        assert await until_closed(reader) == b""
        assert rig.audit.serves == []
        writer.close()


async def test_a_byte_now_and_then_buys_no_time(tmp_path: Path) -> None:
    """The 3 s count from a request's first byte: dribbling does not extend them."""
    async with running(tmp_path, limits=limits(headers=0.3)) as rig:
        reader, writer = await rig.connect()
        began = asyncio.get_running_loop().time()
        for byte in rig.request():
            writer.write(bytes([byte]))
            if not await still_open(reader, seconds=0.03):
                break
        assert asyncio.get_running_loop().time() - began < 3.0
        assert rig.audit.serves == []
        writer.close()


@pytest.mark.parametrize("cut", [1, 20, -1, -2, -3, -4])
async def test_a_head_in_two_parts_is_complete(cut: int, tmp_path: Path) -> None:
    """A request that came in parts leaves no clock running: the connection stays."""
    async with running(tmp_path, limits=limits(first_byte=SHORT, headers=SHORT)) as rig:
        reader, writer = await rig.connect()
        raw = rig.request()
        writer.write(raw[:cut])
        assert await still_open(reader, seconds=0.03)
        writer.write(raw[cut:])
        assert (await read_reply(reader)).status == 200
        assert await still_open(reader, seconds=LONGER)
        writer.close()


async def test_headers_of_a_later_request(tmp_path: Path) -> None:
    """The limit holds for each request of a kept connection, also for one begun behind a whole one."""
    for behind in (False, True):
        folder = tmp_path / str(behind)
        folder.mkdir()
        async with running(folder, limits=limits(headers=SHORT)) as rig:
            reader, writer = await rig.connect()
            writer.write(rig.request() + (b"GET /" if behind else b""))
            assert (await read_reply(reader)).status == 200
            if not behind:
                writer.write(b"GET /")
            assert await until_closed(reader) == b""
            writer.close()


async def test_idle(tmp_path: Path) -> None:
    """A kept connection that asks nothing for its time is closed."""
    async with running(tmp_path, limits=limits(first_byte=SHORT, idle=SHORT)) as rig:
        reader, writer = await rig.connect()
        writer.write(rig.request())
        assert (await read_reply(reader)).status == 200
        assert await until_closed(reader) == b""
        writer.close()


async def test_a_request_that_waits_is_not_idle(tmp_path: Path) -> None:
    """No limit strikes while a session is being made."""
    release = asyncio.Event()
    broker = StandInBroker(later=session(), release=release)
    async with running(tmp_path, broker=broker, limits=limits(first_byte=SHORT, headers=SHORT, idle=SHORT)) as rig:
        reader, writer = await rig.connect()
        writer.write(rig.request())
        assert await still_open(reader, seconds=LONGER)
        release.set()
        # One byte went into still_open's read only if the reply came early; it did not.
        assert (await read_reply(reader)).status == 200
        writer.close()


async def test_client_that_never_reads(tmp_path: Path) -> None:
    """Asking without reading fills no memory: answering stops, and the connection is closed."""
    async with running(tmp_path, limits=limits(unread=SHORT)) as rig:
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", rig.port))
            async with asyncio.timeout(20):
                with pytest.raises(ConnectionError):  # noqa: PT012 (the loop is what raises)
                    while True:
                        await loop.sock_sendall(sock, rig.request() * 100)
        assert len(rig.side) == 0


async def test_slow_reader_gets_everything(tmp_path: Path) -> None:
    """Positive control: one that reads late, but in time, loses nothing of 3,000 replies."""
    async with running(tmp_path, limits=limits(unread=LONG)) as rig:
        reader, writer = await rig.connect()
        writer.write(rig.request() * 3000)
        for _ in range(3000):
            assert (await read_reply(reader)).status == 200
        writer.close()


async def _asked(rig: Rig) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await rig.connect()
    writer.write(rig.request("/healthz"))
    assert (await read_reply(reader)).status == 200
    return reader, writer


async def test_longest_idle_makes_room(tmp_path: Path) -> None:
    """At the limit the connection whose last use is longest ago is closed, not the oldest; the new one is served."""
    async with running(tmp_path, limits=limits(connections=3)) as rig:
        first, second, third = [await _asked(rig) for _ in range(3)]
        first[1].write(rig.request("/healthz"))
        await read_reply(first[0])

        fourth = await _asked(rig)

        assert await until_closed(second[0]) == b""
        assert len(rig.side) == 3
        for reader, writer in (first, third, fourth):
            writer.write(rig.request("/healthz"))
            assert (await read_reply(reader)).status == 200
            writer.close()
        second[1].close()


async def test_none_is_idle(tmp_path: Path) -> None:
    """At the limit, when everyone waits for an answer, the new one is closed and nobody loses his."""
    release = asyncio.Event()
    broker = StandInBroker(later=session(), release=release)
    async with running(tmp_path, broker=broker, limits=limits(connections=2)) as rig:
        ends = [await rig.connect() for _ in range(2)]
        for _, writer in ends:
            writer.write(rig.request())
        await broker.was_asked(2)
        reader, writer = await rig.connect()
        assert await until_closed(reader) == b""
        writer.close()
        release.set()
        for reader, writer in ends:
            assert (await read_reply(reader)).status == 200
            writer.close()


async def test_250_idle_connections_lock_nobody_out(tmp_path: Path) -> None:
    """security.md §0.4 replayed by the owner himself: the next client is served all the same."""
    async with running(tmp_path, limits=limits(connections=192)) as rig:
        held = [await rig.connect() for _ in range(250)]
        assert (await rig.get()).status == 200
        assert len(rig.side) <= 192
        for _, writer in held:
            writer.close()


def test_crowd_forgets_who_left() -> None:
    """A member that was removed is not made to leave again."""

    class Someone:
        busy = False
        left = 0

        def abort(self) -> None:
            self.left += 1

    crowd, one, two = Crowd(1), Someone(), Someone()
    crowd.add(one)
    crowd.remove(one)
    crowd.touch(one)
    assert len(crowd) == 0
    assert crowd.make_room()
    crowd.add(two)
    assert crowd.make_room()
    assert (one.left, two.left) == (0, 1)


# ---- FIN ----


async def test_half_closed_client_is_answered(tmp_path: Path) -> None:
    """A client that closes only its sending half gets its answer, at once or after a wait, and then the end."""
    release = asyncio.Event()
    broker = StandInBroker(ready=session(), later=session(), release=release)
    async with running(tmp_path, broker=broker) as rig:
        for waits in (False, True):
            broker.ready = None if waits else session()
            reader, writer = await rig.connect()
            writer.write(rig.request())
            writer.write_eof()
            if waits:
                assert await still_open(reader, seconds=0.05)
                release.set()
            assert (await read_reply(reader)).status == 200
            assert await until_closed(reader) == b""
            writer.close()


async def test_client_that_left_is_not_answered(tmp_path: Path) -> None:
    """A client that closes while its session is being made has no inode: nothing is written, nothing counted."""
    release = asyncio.Event()
    broker = StandInBroker(later=session(), release=release)
    async with running(tmp_path, broker=broker) as rig:
        _, writer = await rig.connect()
        writer.write(rig.request())
        await broker.was_asked(1)
        writer.close()
        await writer.wait_closed()
        await rig.clock.settle(200)
        assert len(rig.side) == 0  # it is not kept until its session is there
        release.set()
        assert (await rig.get()).status == 200  # and the loop has turned meanwhile
        assert len(rig.audit.serves) == 1
        assert rig.audit.denials == []


async def test_idle_fin_closes(tmp_path: Path) -> None:
    """A FIN with no request open ends the connection, after an answer as before the first byte."""
    async with running(tmp_path) as rig:
        for asks in (True, False):
            reader, writer = await rig.connect()
            if asks:
                writer.write(rig.request())
                await read_reply(reader)
            writer.write_eof()
            assert await until_closed(reader) == b""
            writer.close()


# ---- peers ----


class Changing(Peers):
    """The real look-up, until the test says what the kernel tells from the `after`th on."""

    def __init__(self, *, after: int, then: PeerSocket | None) -> None:
        super().__init__()
        self.after, self.then = after, then
        self.looks = 0

    def uid_of(self, local: Address, remote: Address) -> PeerSocket | None:
        self.looks += 1
        return super().uid_of(local, remote) if self.looks <= self.after else self.then


async def test_stranger_is_cut_off_before_a_byte(tmp_path: Path) -> None:
    """Another uid: closed at accept, audited; not even a 400 or 403 is written."""
    strangers = Peers(own_uid=Peers().own_uid + 1)
    async with running(tmp_path, peers=strangers) as rig:
        for raw in (rig.request(), b"rubbish", b""):
            reader, writer = await rig.connect()
            writer.write(raw)
            assert await until_closed(reader) == b""
            writer.close()
        assert rig.audit.denials == [("ForbiddenPeer", None, Peers().own_uid)] * 3
        assert len(rig.side) == 0


@pytest.mark.parametrize(
    ("then", "denied"),
    [(None, 0), (PeerSocket(0, 0, ESTABLISHED), 0), (PeerSocket(12345, 99, ESTABLISHED), 1)],
)
async def test_peer_is_looked_up_again_before_the_bytes(then: PeerSocket | None, denied: int, tmp_path: Path) -> None:
    """Gone, orphaned or another's between accept and answer: no byte of the keys; a stranger is audited."""
    async with running(tmp_path, peers=Changing(after=1, then=then)) as rig:
        reader, writer = await rig.connect()
        writer.write(rig.request())
        assert await until_closed(reader) == b""
        assert rig.audit.serves == []
        assert len(rig.audit.denials) == denied
        writer.close()


async def test_two_look_ups_a_request(tmp_path: Path) -> None:
    """One at accept, one for each answer that carries keys, none for those that do not."""
    peers = Changing(after=99, then=None)
    async with running(tmp_path, peers=peers) as rig:
        reader, writer = await rig.connect()
        for path in ("/healthz", "/nope", "/v1/credentials/web-admin", "/v1/credentials/web-admin"):
            writer.write(rig.request(path))
            await read_reply(reader)
        assert peers.looks == 3
        writer.close()
