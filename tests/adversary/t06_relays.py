"""T6: userland relays of the owner's, which make a container or a machine far away look like him."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.adversary import wire
from tests.adversary.case import Attack, Case
from tests.adversary.ground import KEYS_PATH, TOKEN_PATH, TTL, Ground
from tests.adversary.people import OTHER, OWNER, as_process, command_of
from tests.adversary.t05_network import WE, asks
from tests.process.harness import until


def _relay(listener: socket.socket, target: wire.Address) -> None:
    """Bytes to and fro, a process for each connection."""
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            with contextlib.suppress(OSError), wire.connected(target) as onward:
                _both_ways(connection, onward)
            os._exit(0)
        connection.close()


def _both_ways(one: socket.socket, other: socket.socket) -> None:
    while True:
        for ready in select.select([one, other], [], [], 10)[0]:
            part = ready.recv(65536)
            if not part:
                return
            (other if ready is one else one).sendall(part)


@contextmanager
def relay(uid: int, target: wire.Address) -> Iterator[wire.Address]:
    """On the wire's address, by that user."""
    with socket.create_server((WE, 0)) as listener, as_process(uid, lambda: _relay(listener, target)):
        yield listener.getsockname()[:2]


def through(sent: Callable[[Ground], bytes], *, uid: int = OWNER, door: bool = False) -> Attack:
    """From the neighbour, by a relay of that user's; a gain is a 200 alone."""

    def act(ground: Ground) -> bytes:
        with relay(uid, ("127.0.0.1", ground.door) if door else ground.daemon) as address:
            return wire.granted(asks(ground.neighbour, address, sent(ground)))

    return act


def through_socat(*, name: str) -> Attack:
    """The real program, under its own name or another."""

    def act(ground: Ground) -> bytes:
        program = ground.directory / name
        if not program.exists():
            shutil.copy("/usr/bin/socat", program)
        with socket.socket() as probe:
            probe.bind((WE, 0))
            address: wire.Address = probe.getsockname()
        listening = f"TCP-LISTEN:{address[1]},bind={WE},fork,reuseaddr"
        command = [*command_of(OWNER), str(program), listening, f"TCP:127.0.0.1:{ground.home.port}"]
        with subprocess.Popen(command, env={}, cwd="/", stderr=subprocess.DEVNULL) as process:
            try:
                until(lambda: _listens(address), "socat listens")
                reply = asks(ground.neighbour, address, keys()(ground))
            finally:
                process.kill()
        assert wire.status(reply) in {200, 403}, reply  # whichever it is, socat carried it
        return wire.granted(reply)

    return act


def _listens(address: wire.Address) -> bool:
    wanted = f":{address[1]:04X}"
    return any(
        row.split()[1].endswith(wanted) and row.split()[3] == "0A"
        for row in Path("/proc/net/tcp").read_text().splitlines()[1:]
    )


def keys(*more: str, host: str | None = None, token: bool = True) -> Callable[[Ground], bytes]:
    def sent(ground: Ground) -> bytes:
        mine = [f"Authorization: {ground.token}"] if token else []
        return wire.request(f"GET {KEYS_PATH}", *mine, *more, host=host or f"127.0.0.1:{ground.home.port}")

    return sent


def metadata(*more: str, host: str | None = None) -> Callable[[Ground], bytes]:
    return lambda ground: wire.request(f"PUT {TOKEN_PATH}", TTL, *more, host=host or f"127.0.0.1:{ground.door}")


BARE = "a relay that changes nothing, with the token and our own Host, is answered"
_BARE, _BARE_DOOR = through(keys()), through(metadata(), door=True)
_NAMES = ("host.docker.internal:9169", "host.containers.internal", "10.99.0.1:9169", "gateway.docker.internal")
_MARKS = (
    "X-Forwarded-For: 10.99.0.2",
    "X-Forwarded-Host: a",
    "Forwarded: for=10.99.0.2",
    "Via: 1.1 relay",
    "X-Real-IP: 10.99.0.2",
)

CASES = (
    Case(
        "T6-without-token", "T6", "A relay alone gets no keys: a token is needed",
        through(keys(token=False)), BARE, _BARE,
    ),
    *(
        Case(
            f"T6-host-{name.partition(':')[0]}", "T6", "A name that relays are asked by is refused",
            through(keys(host=name)), BARE, _BARE,
        )
        for name in _NAMES
    ),
    *(
        Case(
            f"T6-{mark.partition(':')[0].lower()}", "T6", "What a forward or reverse proxy adds is refused",
            through(keys(mark)), BARE, _BARE,
        )
        for mark in _MARKS
    ),
    Case(
        "T6-door-by-name", "T6", "A door gives no metadata token to who asks by a relay's name",
        through(metadata(host="host.docker.internal"), door=True), BARE, _BARE_DOOR,
    ),
    Case(
        "T6-door-by-proxy", "T6", "A door gives no metadata token through a proxy that says so",
        through(metadata("X-Forwarded-For: 10.99.0.2"), door=True), BARE, _BARE_DOOR,
    ),
    Case(
        "T6-relay-of-another-user", "T6", "A relay of another user's carries no byte",
        through(keys(), uid=OTHER), "the owner's own carries it", _BARE,
    ),
    Case(
        "T6-socat", "T6", "A known relay of the owner's own is refused by its name, though it has token and Host",
        through_socat(name="socat"), "the same program under another name is answered", through_socat(name="renamed"),
    ),
    Case(
        "T6-renamed-relay", "T6", "Not prevented: a known relay under another name", through_socat(name="renamed"),
        "under its own name it is refused", through_socat(name="socat"), residual=True,
    ),
    Case(
        "T6-unlisted-relay", "T6",
        "Not prevented: a relay of the owner's that is no known one, with the token and our Host, is the owner to us",
        through(keys()), "without the token it gets no keys", through(keys(token=False)), residual=True,
    ),
)  # fmt: skip
