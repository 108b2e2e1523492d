"""Room on the control socket: who waits keeps his place, who idles longest gives his up (interface.md §4)."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from vaultd.host import sockets
from vaultd.web.control_connection import CONNECTIONS, IDLE_SECONDS, ControlConnection
from vaultd.web.limits import most_controls

_REQUEST = b"GET / HTTP/1.1\r\nHost: vaultd\r\n\r\n"


async def _answer(request: web.BaseRequest) -> web.Response:
    return web.Response(text="ok")


@contextlib.asynccontextmanager
async def _serving(directory: Path) -> AsyncIterator[tuple[Path, web.Server]]:
    path = directory / "control.sock"  # pytest makes the directory 0700
    loop = asyncio.get_running_loop()
    server = web.Server(_answer)
    sock = sockets.listen_unix(path, locked=True)
    listener = await loop.create_unix_server(lambda: ControlConnection(server, loop=loop), sock=sock)
    try:
        yield path, server
    finally:
        listener.close()
        await server.shutdown(0)


async def _connected(path: Path, stack: contextlib.ExitStack) -> socket.socket:
    sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, str(path))
    return sock


async def _asked(sock: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, _REQUEST)
    return await loop.sock_recv(sock, 4096)


def _members(server: web.Server) -> list[ControlConnection]:
    return [each for each in server.connections if isinstance(each, ControlConnection)]


async def test_a_crowd_that_connects_before_it_speaks_is_answered_whole(tmp_path: Path) -> None:
    """A connection whose first request is still on its way is not idle: none of a crowd is closed (issue 3, speed)."""
    async with _serving(tmp_path) as (path, _):
        with contextlib.ExitStack() as stack:
            crowd = [await _connected(path, stack) for _ in range(CONNECTIONS + 10)]
            for sock in crowd:
                assert (await _asked(sock)).startswith(b"HTTP/1.1 200 ")


async def test_past_the_limit_the_longest_idle_connection_goes(tmp_path: Path) -> None:
    """One too many closes the connection that was silent longest, and no other."""
    async with _serving(tmp_path) as (path, server):
        with contextlib.ExitStack() as stack:
            crowd = [await _connected(path, stack) for _ in range(CONNECTIONS)]
            for sock in crowd:
                await _asked(sock)
            members = _members(server)
            members[3].heard -= IDLE_SECONDS + 1
            members[7].heard -= IDLE_SECONDS
            assert (await _asked(await _connected(path, stack))).startswith(b"HTTP/1.1 200 ")
            assert set(members) - set(_members(server)) == {members[3]}


async def test_silence_past_the_limit_ends_without_another_that_comes(tmp_path: Path) -> None:
    """Who is over the limit and says nothing is closed when his first byte was due; nobody has to connect for it:
    where descriptors are gone, nobody can.
    """
    async with _serving(tmp_path) as (path, server):
        with contextlib.ExitStack() as stack:
            crowd = [await _connected(path, stack) for _ in range(CONNECTIONS + 3)]
            await _settled(server, CONNECTIONS + 3)
            for each in _members(server):
                each.heard -= IDLE_SECONDS
                each._spare_late()  # all in one turn: the ends of connections come in later ones
            await _settled(server, CONNECTIONS)
            assert (await _asked(await _connected(path, stack))).startswith(b"HTTP/1.1 200 ")
            assert len(crowd) > len(_members(server)) - 1


async def test_a_byte_now_and_then_is_no_request(tmp_path: Path) -> None:
    """A writer of one byte a second idles as long as one that says nothing; a whole request ends that."""
    async with _serving(tmp_path) as (path, server):
        with contextlib.ExitStack() as stack:
            sock = await _connected(path, stack)
            await _settled(server, 1)
            (member,) = _members(server)
            member.heard -= IDLE_SECONDS
            for byte in b"GET":
                await asyncio.get_running_loop().sock_sendall(sock, bytes([byte]))
                await asyncio.sleep(0)
            async with asyncio.timeout(10):
                while member._unread():  # noqa: ASYNC110 (there is no event for what the loop has read)
                    await asyncio.sleep(0)
            assert member.idle
            await asyncio.get_running_loop().sock_sendall(sock, _REQUEST[3:])
            assert (await asyncio.get_running_loop().sock_recv(sock, 4096)).startswith(b"HTTP/1.1 200 ")
            assert not member.idle


async def test_what_was_not_read_yet_is_not_silence(tmp_path: Path) -> None:
    """A loop that was late finds the request in the socket: its client is not taken for idle."""
    async with _serving(tmp_path) as (path, server):
        with contextlib.ExitStack() as stack:
            sock = await _connected(path, stack)
            await _settled(server, 1)
            (member,) = _members(server)
            member.heard -= IDLE_SECONDS
            assert member.idle
            sock.send(_REQUEST)
            assert not member.idle


async def test_where_nobody_is_idle_and_descriptors_are_few_the_new_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 256 descriptors the control socket takes 32 and no more; those that are there stay."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))
    assert most_controls(at_least=CONNECTIONS) == 32
    async with _serving(tmp_path) as (path, server):
        with contextlib.ExitStack() as stack:
            crowd = [await _connected(path, stack) for _ in range(CONNECTIONS)]
            await _settled(server, CONNECTIONS)
            refused = await _connected(path, stack)
            assert await asyncio.get_running_loop().sock_recv(refused, 1) == b""
            for sock in crowd:
                assert (await _asked(sock)).startswith(b"HTTP/1.1 200 ")


def test_200_commands_fit_where_descriptors_are_as_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,024 is the least that systems give: 200 `exec` may wait for one code (issue 3, speed)."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    assert most_controls(at_least=CONNECTIONS) >= 200


async def _settled(server: web.Server, count: int) -> None:
    async with asyncio.timeout(10):
        while len(_members(server)) != count:  # noqa: ASYNC110 (the server has no event for its connections)
            await asyncio.sleep(0)
