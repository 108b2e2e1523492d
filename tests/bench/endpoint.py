"""The guarded GET against a bare aiohttp route and a bare asyncio protocol that answer the same bytes.

Three servers, each in a process of its own and on the same kind of loop, are asked in turns by one client process;
every figure is the median over the rounds of a ratio within one round, because wall times drift with the machine
(performance.md). `python -m tests.bench.endpoint [--loop asyncio] [--rounds N] [--seconds S]` prints the table.

The measured server is the whole SDK side: two peer look-ups, Host and header guard, real grants, the real audit queue
without its process look-ups; only the broker is a stand-in that holds a session.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

#: (name, connections kept open; 0: a new connection for each request, 8 at a time)
LOADS = (("1 kept", 1), ("8 kept", 8), ("64 kept", 64), ("200 kept", 200), ("new", 0))
#: Goals of the issue hold for these loads; the others are shown.
GATED = {"8 kept", "64 kept", "new"}
KINDS = ("vaultd", "route", "raw")
NEW_AT_ONCE = 8
LEAST_SPEED, MOST_CPU = 0.95, 1.05
_SLUG = "web-admin"
_TOKEN_SIZE = 900
_RUNNING: set[asyncio.Future[None]] = set()


@dataclass(frozen=True, slots=True)
class Round:
    """Requests a second, and the server's CPU seconds for each."""

    speed: float
    cpu: float


# ---- the client side ----


def rows(*, loop: str = "uvloop", rounds: int = 21, seconds: float = 0.15) -> list[dict[str, Any]]:
    """The table's rows: {name, value, unit, goal, ok}."""
    with _servers(loop) as servers:
        for server in servers.values():
            server.check()
        measured = [row for name, count in LOADS for row in _load_rows(servers, name, count, rounds, seconds)]
    return [{**row, "name": f"{row['name']} ({loop})"} for row in measured]


def _load_rows(
    servers: dict[str, Served], name: str, count: int, rounds: int, seconds: float
) -> Iterator[dict[str, Any]]:
    taken = [{kind: servers[kind].load(count, seconds) for kind in KINDS} for _ in range(rounds)]
    for other in KINDS[1:]:
        gated = name in GATED and other == "route"
        speed = statistics.median(each["vaultd"].speed / each[other].speed for each in taken)
        cpu = statistics.median(each["vaultd"].cpu / each[other].cpu for each in taken)
        yield _row(f"GET {name}, requests/s against bare {other}", speed, LEAST_SPEED if gated else None, above=True)
        yield _row(f"GET {name}, CPU against bare {other}", cpu, MOST_CPU if gated else None, above=False)
    yield {
        "name": f"GET {name}, for the record",
        "value": round(statistics.median(each["vaultd"].speed for each in taken)),
        "unit": "requests/s",
        "goal": "",
        "ok": True,
    }


def _row(name: str, value: float, goal: float | None, *, above: bool) -> dict[str, Any]:
    met = goal is None or (value >= goal if above else value <= goal)
    sign = "≥" if above else "≤"
    return {
        "name": name,
        "value": round(value, 3),
        "unit": "×",
        "goal": "" if goal is None else f"{sign} {goal}",
        "ok": met,
    }


class Served:
    """One server process, and the load put on it."""

    def __init__(self, kind: str, loop: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.endpoint", "--serve", kind, "--loop", loop],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        told = json.loads(self.process.stdout.readline())
        self.address = ("127.0.0.1", told["port"])
        self.request = _request(told["port"], told["token"])
        self.reply_size = 0

    def check(self) -> None:
        """One GET answers 200 with keys; its size is how a reply's end is known from then on."""
        with socket.create_connection(self.address) as sock:
            sock.sendall(self.request)
            reply = b""
            while b"AWS-HMAC" not in reply or not reply.endswith(b"}"):
                part = sock.recv(65536)
                assert part, reply
                reply += part
        assert reply.startswith(b"HTTP/1.1 200 "), reply
        self.reply_size = len(reply)

    def load(self, connections: int, seconds: float) -> Round:
        """Keep every connection asking for `seconds`; the first tenth is warm-up."""
        turn = _fresh if connections == 0 else _kept
        turn(self, connections, seconds / 10)
        cpu, began = self._cpu(), time.perf_counter()
        done = turn(self, connections, seconds)
        return Round(speed=done / (time.perf_counter() - began), cpu=(self._cpu() - cpu) / done)

    def _cpu(self) -> float:
        return time.clock_gettime((~self.process.pid << 3) | 2)  # clock_getcpuclockid(3) of that process

    def stop(self) -> None:
        """End it and wait."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextmanager
def _servers(loop: str) -> Iterator[dict[str, Served]]:
    servers: dict[str, Served] = {}
    try:
        for kind in KINDS:
            servers[kind] = Served(kind, loop)
        yield servers
    finally:
        for server in servers.values():
            server.stop()


def _request(port: int, token: str) -> bytes:
    """What botocore sends (sdk-facts §2)."""
    return (
        f"GET /v1/credentials/{_SLUG} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept-Encoding: identity\r\n"
        f"Accept: application/json\r\nAuthorization: {token}\r\nUser-Agent: python-urllib3/2.5.0\r\n\r\n"
    ).encode()


def _kept(server: Served, connections: int, seconds: float) -> int:
    """Each connection has one request out; epoll, because the client must not be the bottleneck."""
    poll, socks, missing = select.epoll(), {}, {}
    for _ in range(connections):
        sock = socket.create_connection(server.address)
        socks[sock.fileno()], missing[sock.fileno()] = sock, server.reply_size
        poll.register(sock, select.EPOLLIN)
        sock.send(server.request)
    done, end, request, size = 0, time.perf_counter() + seconds, server.request, server.reply_size
    while time.perf_counter() < end:
        for number, _ in poll.poll():
            missing[number] -= len(socks[number].recv(65536))
            if missing[number] == 0:
                done += 1
                missing[number] = size
                socks[number].send(request)
    poll.close()
    for sock in socks.values():
        sock.close()
    return done


def _fresh(server: Served, _: int, seconds: float) -> int:
    """NEW_AT_ONCE requests at a time, each on a connection of its own that the client closes."""
    poll, socks, missing = select.epoll(), {}, {}

    def begin() -> None:
        sock = socket.create_connection(server.address)
        sock.send(server.request)
        socks[sock.fileno()], missing[sock.fileno()] = sock, server.reply_size
        poll.register(sock.fileno(), select.EPOLLIN)

    for _each in range(NEW_AT_ONCE):
        begin()
    done, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        for number, _event in poll.poll():
            missing[number] -= len(socks[number].recv(65536))
            if missing[number] == 0:
                done += 1
                socks.pop(number).close()
                begin()
    poll.close()
    for sock in socks.values():
        sock.close()
    return done


def latencies(servers: Mapping[str, Served], rounds: int, *, fresh: bool) -> dict[str, list[float]]:
    """Seconds of single requests, one server after the other; the first tenth is warm-up."""
    taken: dict[str, list[float]] = {kind: [] for kind in servers}
    kept = {kind: socket.create_connection(server.address) for kind, server in servers.items()}
    for _ in range(rounds + rounds // 10):
        for kind, server in servers.items():
            began = time.perf_counter()
            sock = socket.create_connection(server.address) if fresh else kept[kind]
            sock.send(server.request)
            missing = server.reply_size
            while missing:
                missing -= len(sock.recv(65536))
            taken[kind].append(time.perf_counter() - began)
            if fresh:
                sock.close()
    for sock in kept.values():
        sock.close()
    return {kind: values[rounds // 10 :] for kind, values in taken.items()}


# ---- the servers ----


def one_session() -> Any:
    """What both servers hand out."""
    from vaultd.model.credentials import RoleSession
    from vaultd.model.secret import Secret

    now = datetime.now(UTC)
    return RoleSession(
        access_key_id="ASIA" + "B" * 16,
        secret_access_key=Secret("s" * 40),
        session_token=Secret("t" * _TOKEN_SIZE),
        issued=now,
        expiration=now + timedelta(hours=1),
        account_id="111122223333",
        role_arn="arn:aws:iam::111122223333:role/WebAdmin",
    )


async def _serve_vaultd(sock: socket.socket, folder: Path) -> str:
    from tests.bench.stand_ins import sdk_side

    side, token, audit = sdk_side(folder, one_session(), slug=_SLUG)
    await side.start(sock)
    _RUNNING.add(asyncio.ensure_future(audit.run()))
    return token


async def _serve_route(sock: socket.socket, _: Path) -> str:
    from aiohttp import web

    from vaultd.model.dialects import ecs_reply

    body = ecs_reply(one_session()).partition(b"\r\n\r\n")[2]
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json", headers=headers)

    app = web.Application()  # a bare one: no middleware, no access log
    app.router.add_get("/v1/credentials/{slug}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.SockSite(runner, sock, backlog=1024).start()
    return "t" * 43


async def _serve_raw(sock: socket.socket, _: Path) -> str:
    from vaultd.model.dialects import ecs_reply

    reply = ecs_reply(one_session())

    class Bare(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast("asyncio.Transport", transport)

        def data_received(self, data: bytes) -> None:
            if data.endswith(b"\r\n\r\n"):
                self.transport.write(reply)

    await asyncio.get_running_loop().create_server(Bare, sock=sock, backlog=1024)
    return "t" * 43


async def _serve(kind: str) -> None:
    serve = {"vaultd": _serve_vaultd, "route": _serve_route, "raw": _serve_raw}[kind]
    sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
    sock.setblocking(False)
    with tempfile.TemporaryDirectory() as folder:
        token = await serve(sock, Path(folder))
        print(json.dumps({"port": sock.getsockname()[1], "token": token}), flush=True)
        await asyncio.to_thread(sys.stdin.read)  # until the client closes it


def _run_server(kind: str, loop: str) -> None:
    if loop == "uvloop":
        import uvloop

        uvloop.run(_serve(kind))
    else:
        asyncio.run(_serve(kind))


def main() -> None:
    """The table, or one server."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--seconds", type=float, default=0.15)
    parser.add_argument("--serve", choices=KINDS)
    options = parser.parse_args()
    if options.serve:
        _run_server(options.serve, options.loop)
        return
    for row in rows(loop=options.loop, rounds=options.rounds, seconds=options.seconds):
        print(f"{'ok  ' if row['ok'] else 'FAIL'} {row['name']:<60} {row['value']:>9} {row['unit']} {row['goal']}")


if __name__ == "__main__":
    main()
