"""Room on the control socket: who waits keeps his place, who idles longest gives his up (interface.md §4)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from vaultd.host import sockets
from vaultd.web.control_connection import CONNECTIONS, IDLE_SECONDS, ControlConnection

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
