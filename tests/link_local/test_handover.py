"""doors.sock: what is refused by name, what is held, and what follows a grant that ends (issue 4 Build 2)."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.link_local.rig import HandoverRig, descriptors, handing, offer, turns_until
from tests.process.harness import short_directory
from vaultd.web.handover import CONNECTIONS, LINE_LIMIT

UNDERSTOOD = "A socket is handed over as one JSON line"


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_directory() as path:
        yield path


@pytest.fixture
async def rig(folder: Path) -> AsyncIterator[HandoverRig]:
    async with handing(folder) as made:
        yield made


async def gone(rig: HandoverRig) -> None:
    """Wait until no connection is left."""
    await turns_until(lambda: not len(rig.handover))


async def listens(port: int) -> bool:
    """Somebody serves there: a request is answered. The socket listens in any case: its other owner has it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(1):
            writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % port)
            return bool(await reader.read(1))
    except TimeoutError:
        return False
    finally:
        writer.close()


# ---- what is refused ----


def _file(rig: HandoverRig) -> tuple[int, str]:
    return os.open(rig.path.parent / "file", os.O_RDWR | os.O_CREAT), "is no socket"


def _udp(rig: HandoverRig) -> tuple[int, str]:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", rig.port))
    return sock.detach(), "is no TCP socket of IPv4"


def _unix(rig: HandoverRig) -> tuple[int, str]:
    return socket.socket(socket.AF_UNIX).detach(), "is no TCP socket of IPv4"


def _six(rig: HandoverRig) -> tuple[int, str]:
    return socket.socket(socket.AF_INET6).detach(), "is no TCP socket of IPv4"


def _not_listening(rig: HandoverRig) -> tuple[int, str]:
    sock = socket.socket()
    sock.bind(("127.0.0.1", rig.port))
    return sock.detach(), "does not listen"


def _elsewhere(rig: HandoverRig) -> tuple[int, str]:
    sock = rig.listener(0)
    return sock.detach(), "is bound to 127.0.0.1:"


def _everywhere(rig: HandoverRig) -> tuple[int, str]:
    sock = socket.create_server(("0.0.0.0", rig.port))
    return sock.detach(), "is bound to 0.0.0.0:"


@pytest.mark.parametrize("make", [_file, _udp, _unix, _six, _not_listening, _elsewhere, _everywhere])
async def test_a_wrong_descriptor_is_refused_by_name(
    rig: HandoverRig, make: Callable[[HandoverRig], tuple[int, str]]
) -> None:
    """A descriptor that is not the listener of its address is named, closed, and no grant is made of it."""
    descriptor, what = make(rig)
    before = descriptors()
    told = await rig.told(offer(), [descriptor])
    assert (told["code"], told["exit"]) == ("BadRequest", 1)
    assert told["message"].startswith(f"The descriptor that was handed over {what}")
    assert f", not a listener on 127.0.0.1:{rig.port}: install the units again with `vaultd " in told["message"]
    await gone(rig)
    assert (descriptors(), rig.grants.list()) == (before, ())
    os.close(descriptor)


@pytest.mark.parametrize(
    ("line", "count"),
    [
        (b"\n", 1),
        (b"{\n", 1),
        (b"[]\n", 1),
        (b"null\n", 1),
        (b"\xff\xfe\n", 1),
        (b"[" * 4000 + b"\n", 1),
        ({}, 1),
        ({"protocol": 1}, 1),
        (offer("ftp"), 1),
        ({**offer(), "dialect": ["imds"]}, 1),
        (offer(profile=None), 1),
        ({**offer(), "profile": 7}, 1),
        (offer("ecs", "web-admin"), 1),
        (offer(), 0),
        (offer(), 2),
        (offer(), 5),
        ({**offer(), "more": "x" * LINE_LIMIT}, 1),
    ],
    ids=str,
)
async def test_a_wrong_message_is_refused_and_leaves_nothing(rig: HandoverRig, line: object, count: int) -> None:
    """One constant sentence, no echo; every descriptor that came is closed."""
    with rig.listener() as sock:
        before = descriptors()
        told = await rig.told(line, [sock.fileno()] * count)
        assert (told["code"], told["message"].startswith(UNDERSTOOD)) == ("BadRequest", True)
        await gone(rig)
        assert (descriptors(), rig.grants.list()) == (before, ())


async def test_another_protocol_is_named(rig: HandoverRig) -> None:
    """An update of vaultd restarts the daemon; the unit's process is from before."""
    with rig.listener() as sock:
        told = await rig.told({**offer(), "protocol": 2}, [sock.fileno()])
    assert told["message"].startswith("This vaultd takes sockets by protocol 1 and was offered one by another")


async def test_an_unknown_profile_is_refused_and_the_socket_not_kept(rig: HandoverRig) -> None:
    """The profile of the unit has left the config."""
    with rig.listener() as sock:
        before = descriptors()
        told = await rig.told(offer(profile="gone"), [sock.fileno()])
        assert told["code"] == "UnknownProfile"
        await gone(rig)
        assert descriptors() == before


async def test_another_uid_is_closed_unanswered(folder: Path) -> None:
    """Before a byte of it is read."""
    async with handing(folder, own_uid=os.geteuid() + 1) as rig:
        with rig.listener() as sock:
            assert await rig.told(offer(), [sock.fileno()]) == {}
        assert rig.grants.list() == ()


async def test_who_says_nothing_is_closed(folder: Path) -> None:
    """Also who says half of it."""
    async with handing(folder, seconds=0.2) as rig, rig.connected() as silent, rig.connected() as half:
        with rig.listener() as sock:
            half.send(b'{"protocol":', [sock.fileno()])
            assert await silent.closed()
            assert await half.closed()
        await gone(rig)


async def test_a_line_in_pieces_is_one(rig: HandoverRig) -> None:
    """A stream has no messages."""
    async with rig.connected() as giver:
        with rig.listener() as sock:
            giver.send(b'{"protocol": 1, "dialect": "imds", ', [sock.fileno()])
            await asyncio.sleep(0)
            giver.send(b'"profile": "web-admin"}\n', [])
            assert (await giver.line())["grant"] == rig.grants.list()[0].id


async def test_few_connections(rig: HandoverRig) -> None:
    """A further one is closed, and the others go on."""
    async with rig.connected() as one, rig.connected(), rig.connected(), rig.connected():
        await turns_until(lambda: len(rig.handover) == CONNECTIONS)
        async with rig.connected() as late:
            assert await late.closed()
        with rig.listener() as sock:
            one.send(offer(), [sock.fileno()])
            assert "grant" in await one.line()


# ---- what is held ----


async def test_either_end_ends_the_serving_and_not_the_grant(rig: HandoverRig) -> None:
    """Closed by the giver: the listener goes, the grant stays, and is found again with its key."""
    with rig.listener() as sock:
        async with rig.connected() as giver:
            giver.send(offer(), [sock.fileno()])
            first = (await giver.line())["grant"]
            assert await listens(rig.port)
        await gone(rig)
        assert not await listens(rig.port)
        key = rig.grants.get(first).metadata_key

        async with rig.connected() as giver:
            giver.send(offer(), [sock.fileno()])
            assert (await giver.line())["grant"] == first
            assert rig.grants.get(first).metadata_key == key
            await rig.handover.close()
            assert await giver.closed()
        assert [each.id for each in rig.grants.list()] == [first]


async def test_a_socket_that_is_not_bound_to_lo_is_bound_by_us(rig: HandoverRig) -> None:
    """Its address would answer a neighbour's packets; one that is bound already stays so (a capability changes it)."""
    with rig.listener() as sock:

        def device() -> bytes:
            return sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16)

        assert device() == b""
        for _ in range(2):
            assert "grant" in await rig.told(offer(), [sock.fileno()])
            await gone(rig)
            assert device() == b"lo\0"


async def test_more_than_was_to_be_said_ends_it(rig: HandoverRig) -> None:
    """The giver has one line."""
    with rig.listener() as sock:
        async with rig.connected() as giver:
            giver.send(offer(), [sock.fileno()])
            await giver.line()
            giver.send(b"more", [])
            assert await giver.closed()


async def test_a_second_holder_is_refused_by_name(rig: HandoverRig) -> None:
    """One address, one process; when the first leaves, it is free."""
    with rig.listener() as sock:
        async with rig.connected() as giver:
            giver.send(offer(), [sock.fileno()])
            await giver.line()
            told = await rig.told(offer(profile="audit"), [sock.fileno()])
            assert told["message"].startswith("127.0.0.1 is held by another process of yours")
            assert len(rig.grants.list()) == 1
        await gone(rig)
        assert "grant" in await rig.told(offer(), [sock.fileno()])


async def test_the_container_address_is_another_listener_without_a_grant(rig: HandoverRig) -> None:
    """Tokens come and go with their own grants."""
    with rig.listener() as sock:
        async with rig.connected() as giver:
            giver.send(offer("ecs", None), [sock.fileno()])
            assert await giver.line() == {"grant": None}
            assert await listens(rig.port)
        await gone(rig)
        assert not await listens(rig.port)
    assert rig.grants.list() == ()


@pytest.mark.parametrize("end", ["idle", "expired"])
async def test_a_grant_that_ends_by_itself_has_a_successor_with_its_key(rig: HandoverRig, end: str) -> None:
    """Metadata tokens live on; both are in the audit log."""
    with rig.listener() as sock:
        async with rig.connected() as giver:
            giver.send(offer(), [sock.fileno()])
            first = rig.grants.get((await giver.line())["grant"])
            if end == "expired":
                for _ in range(7):
                    await rig.clock.advance(86_399)
                    rig.grants.entered(first.id)
                await rig.clock.advance(7)
            else:
                await rig.clock.advance(86_400)
            rig.grants.sweep()
            assert rig.ended == [(first.id, end)]
            await turns_until(lambda: bool(rig.grants.list()))
            [second] = rig.grants.list()
            assert (second.id == first.id, second.metadata_key == first.metadata_key) == (False, True)
            assert await listens(rig.port)
            assert rig.log.events == [("grant.create", first.id), ("grant.create", second.id)]


async def test_a_revoked_grant_has_none_and_the_giver_is_told(rig: HandoverRig) -> None:
    """`over`, then closed: it is not to come again by itself."""
    with rig.listener() as sock:
        async with rig.connected() as giver:
            giver.send(offer(), [sock.fileno()])
            grant = (await giver.line())["grant"]
            rig.grants.revoke(grant, reason="revoked")
            assert await giver.line() == {"over": "revoked"}
            assert await giver.closed()
        await gone(rig)
        assert not await listens(rig.port)
        assert rig.grants.list() == ()


async def test_a_successor_that_cannot_be_made_is_told(rig: HandoverRig) -> None:
    """The profile has left the config meanwhile."""
    with rig.listener() as sock:
        async with rig.connected() as giver:
            giver.send(offer(), [sock.fileno()])
            await giver.line()
            rig.plans.roles.clear()
            await rig.clock.advance(86_400)
            rig.grants.sweep()
            assert (await giver.line())["over"].startswith("There is no profile web-admin")


async def test_a_successor_that_cannot_be_opened_is_told(rig: HandoverRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """No descriptor is left: the giver is told, instead of keeping an address that nobody serves."""
    with rig.listener() as sock:
        async with rig.connected() as giver:
            giver.send(offer(), [sock.fileno()])
            await giver.line()
            monkeypatch.setattr(socket.socket, "dup", _no_descriptor)
            await rig.clock.advance(86_400)
            rig.grants.sweep()
            assert (await giver.line())["over"] == "its socket could not be opened again"


def _no_descriptor(_: socket.socket) -> socket.socket:
    raise OSError(errno.EMFILE, "Too many open files")


@pytest.mark.parametrize("dialect", ["imds", "ecs"])
async def test_a_socket_that_was_shut_down_is_over(
    rig: HandoverRig, dialect: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever has it too can do that: each accept() fails then, and the loop logged 87,000 of them a second."""
    with rig.listener() as sock:
        async with rig.connected() as giver:
            giver.send(offer(dialect, "web-admin" if dialect == "imds" else None), [sock.fileno()])
            await giver.line()
            sock.shutdown(socket.SHUT_RDWR)
            assert (await giver.line())["over"] == "its socket listens no more"
            assert await giver.closed()
        await gone(rig)
    assert len([each for each in caplog.records if each.levelname == "ERROR"]) < 10


async def test_watching_leaves_no_descriptor(rig: HandoverRig) -> None:
    """However often an address is handed over."""
    before = None
    for _ in range(5):
        with rig.listener() as sock:
            async with rig.connected() as giver:
                giver.send(offer(), [sock.fileno()])
                await giver.line()
            await gone(rig)
        before = before or descriptors()
    assert descriptors() == before


async def test_a_restarted_daemon_finds_the_grant_again_pinned_to_its_role(folder: Path) -> None:
    """A profile that means another role by now is refused by its grant, not followed: no new one is made."""
    async with handing(folder) as rig, rig.connected() as giver:
        with rig.listener() as sock:
            giver.send(offer(), [sock.fileno()])
            first = (await giver.line())["grant"]
    async with handing(folder, port=rig.port) as rig, rig.connected() as giver:
        rig.plans.roles["web-admin"] = "arn:aws:iam::234567890123:role/Other"
        with rig.listener() as sock:
            giver.send(offer(), [sock.fileno()])
            assert (await giver.line())["grant"] == first
        assert rig.grants.get(first).role_arn == "arn:aws:iam::234567890123:role/WebAdmin"
