"""What another user can do to the accept queue: hold connections, or connect as fast as he is told or able to.

Rules: an attacker is a process of his own under the other uid; what he did is counted in memory that both see, so that
a test can tell a broken attack from a good defence. `unprotected` is what he meets elsewhere: aiohttp as it comes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import mmap
import resource
import select
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.adversary.people import OTHER, as_process
from tests.process.harness import BIN, ROOT
from vaultd.host.sockets import port_owner

#: Batches a second of a paced attack.
_BEATS = 100
#: Close with a reset: no TIME_WAIT, or a flood runs out of ports before the daemon runs out of anything.
_RESET = struct.pack("ii", 1, 0)


class Tally:
    """Connections made, and connections held now, by an attacker."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, mmap.PAGESIZE)

    @property
    def made(self) -> int:
        return int(struct.unpack_from("q", self._shared, 0)[0])

    @property
    def held(self) -> int:
        return int(struct.unpack_from("q", self._shared, 8)[0])

    def say(self, *, made: int, held: int = 0) -> None:
        struct.pack_into("qq", self._shared, 0, made, held)


@contextmanager
def attack(act: Callable[[Tally], object], *, uid: int = OTHER) -> Iterator[Tally]:
    """The other user at work until the block ends."""
    tally = Tally()
    with as_process(uid, lambda: act(tally)):
        yield tally


def holding(port: int, count: int) -> Callable[[Tally], object]:
    """`count` connections without a byte sent; one that was closed is made again (security.md §0.4)."""

    def act(tally: Tally) -> None:
        held: dict[int, socket.socket] = {}
        poll, made = select.epoll(), 0
        while True:
            while len(held) < count:
                sock = _connect(port)
                made += 1
                held[sock.fileno()] = sock
                poll.register(sock, select.EPOLLIN | select.EPOLLRDHUP)
            tally.say(made=made, held=len(held))
            for number, _ in poll.poll(0.05):
                _drop(held.pop(number))
            tally.say(made=made, held=len(held))

    return act


def connecting(port: int, per_second: int | None) -> Callable[[Tally], object]:
    """So many new connections a second, each dropped at the next beat; None: as many as the machine bears."""

    def act(tally: Tally) -> None:
        made, began = 0, time.monotonic()
        while True:
            if per_second is None:
                due = made + 64
            else:
                time.sleep(1 / _BEATS)
                due = int((time.monotonic() - began) * per_second)
            socks = [_connect(port) for _ in range(due - made)]
            made = due
            tally.say(made=made)
            for sock in socks:
                _drop(sock)

    return act


def _connect(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.connect_ex(("127.0.0.1", port))
    return sock


def _drop(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.close()


# ---- the owner ----


def ask(port: int, request: bytes, *, seconds: float = 10.0) -> float:
    """Seconds of one request on a connection of its own, as SDKs make them; inf when it was not answered with 200."""
    began = time.perf_counter()
    got = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=seconds) as sock:
            sock.sendall(request)
            while len(part := sock.recv(65536)):
                got += part
                if b"\r\n\r\n" in got:
                    break
    except OSError:
        return float("inf")
    return time.perf_counter() - began if got.startswith(b"HTTP/1.1 200 ") else float("inf")


def ask_for(port: int, request: bytes, *, span: float, pause: float = 0.002, most: int = 100_000) -> list[float]:
    """The same, again and again for `span` seconds."""
    taken: list[float] = []
    end = time.monotonic() + span
    while time.monotonic() < end and len(taken) < most:
        taken.append(ask(port, request))
        time.sleep(pause)
    return taken


def healthz(port: int) -> bytes:
    """The route without a token, with the whole guard."""
    return f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()


def ask_unix(path: Path, *, seconds: float = 10.0) -> float:
    """Seconds of one request on the control socket; inf when nothing came."""
    began = time.perf_counter()
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(seconds)
            sock.connect(str(path))
            sock.sendall(b"GET /v1/status HTTP/1.1\r\nHost: vaultd\r\n\r\n")
            got = sock.recv(65536)
    except OSError:
        return float("inf")
    return time.perf_counter() - began if got.startswith(b"HTTP/1.1 ") else float("inf")


def quantile(values: list[float], part: float) -> float:
    """The value below which `part` of them lie; the largest for a short list."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def listener_of(port: int) -> int:
    """The process of ours that listens there."""
    found = port_owner(port)
    assert found is not None
    assert found.pid is not None
    return found.pid


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    return time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3) of that process


# ---- the listener without protection ----


@contextmanager
def unprotected(directory: Path, *, descriptors: int, guarded: bool = False) -> Iterator[tuple[int, Path, Path]]:
    """Plain aiohttp as it comes, on TCP and a unix socket, with so many descriptors: port, socket and log.

    `guarded`: our SDK side on TCP instead, on asyncio's own loop, as where uvloop has no wheels.
    """
    log = directory / "unprotected.log"
    command = [str(BIN / "python"), "-m", "tests.process.floods", "--descriptors", str(descriptors)]
    command += ["--guarded"] if guarded else []
    unix = directory / "unprotected.sock"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [*command, str(unix)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd=ROOT
        ) as process,
    ):
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["port"], unix, log
        finally:
            process.kill()


async def _serve_guarded(folder: Path) -> None:
    from tests.bench.endpoint import one_session
    from tests.bench.stand_ins import sdk_side
    from vaultd import logs
    from vaultd.host.sockets import listen_tcp

    logs.configure()
    asyncio.get_running_loop().set_exception_handler(logs.on_loop_exception)
    side, _, audit = sdk_side(folder, one_session(), slug="web-admin")
    sock = listen_tcp(0)
    await side.start(sock)
    print(json.dumps({"port": sock.getsockname()[1]}), flush=True)
    await audit.run()


async def _serve(unix: Path) -> None:
    from aiohttp import web

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    app = web.Application()
    app.router.add_get("/{any:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
    sock.setblocking(False)
    await web.SockSite(runner, sock, backlog=1024).start()
    await web.UnixSite(runner, str(unix)).start()
    print(json.dumps({"port": sock.getsockname()[1]}), flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """The listener without protection."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--descriptors", type=int, required=True)
    parser.add_argument("unix", type=Path)
    parser.add_argument("--guarded", action="store_true")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (options.descriptors, options.descriptors))
    asyncio.run(_serve_guarded(options.unix.parent) if options.guarded else _serve(options.unix))


if __name__ == "__main__":
    main()
