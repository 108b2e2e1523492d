"""Another user where our daemon should be: a real one, on its port and on its socket (security.md §1 T3)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.client.conftest import Run
from tests.client.stub import STATUS, TOKEN, Stub

pytestmark = pytest.mark.needs("root")
BOB = 65534
_PORT = """
import socket, sys
held = socket.create_server(("127.0.0.1", 0))
print(held.getsockname()[1], flush=True)
sys.stdin.read()
"""
#: Takes over our listening socket's place: whatever comes is written to stdout.
_SOCKET = """
import socket, sys
held = socket.socket(socket.AF_UNIX)
held.bind(sys.argv[1])
held.listen()
print("bound", flush=True)
while True:
    got, _ = held.accept()
    print("heard", got.recv(65536), flush=True)
"""


@contextmanager
def bob(code: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A program of another user, and its first line."""
    command = ["/usr/bin/python3", "-I", "-c", code, *arguments]
    with subprocess.Popen(
        command, user=BOB, group=BOB, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.fixture
def squatted() -> Iterator[int]:
    """A port that another user listens on."""
    with bob(_PORT) as (_, port):
        yield int(port)


def pointed(stub: Stub, port: int) -> dict[str, str]:
    """The daemon of `stub` says that it serves on `port`; what a shell has that believed it."""
    grant = stub.grant()
    grant["set"]["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = f"http://127.0.0.1:{port}/v1/credentials/web-admin"
    stub.answers["POST", "/v1/grants"] = (201, grant)
    return dict(grant["set"])


@pytest.mark.parametrize("command", [("use", "web-admin", "--shell", "sh"), ("exec", "web-admin", "--", "env")])
def test_neither_url_nor_token_for_a_port_of_his(
    stub: Stub, process: Run, squatted: int, command: tuple[str, ...]
) -> None:
    """Nothing on stdout that has either, and the grant is revoked; control: with our own listener both are given."""
    pointed(stub, squatted)
    ended = process(*command)
    assert ended.status == 1
    assert TOKEN not in ended.out
    assert str(squatted) not in ended.out
    assert f"is held by the user with id {BOB}, not by your vaultd, so no token was handed out" in ended.err
    assert stub.asked("DELETE", "/v1/grants/g1") == [None]
    pointed(stub, stub.port)
    given = process(*command)
    assert given.status == 0
    assert TOKEN in given.out


def test_doctor_names_him(stub: Stub, process: Run, squatted: int) -> None:
    """In a shell that was pointed there before; control: the same row with our own listener."""
    for port, ok in ((squatted, False), (stub.port, True)):
        stub.answers["GET", "/v1/status"] = (200, {**STATUS, "port": port})
        found = process("doctor", "--json", **pointed(stub, port))
        (row,) = [each for each in json.loads(found.out)["checks"] if each["name"] == "endpoint"]
        assert row["ok"] is ok
        if not ok:
            assert f"held by the user with id {BOB}" in row["message"]


@pytest.mark.parametrize(
    "command", [("export", "web-admin"), ("use", "web-admin", "--shell", "sh"), ("exec", "web-admin", "--", "env"),
                ("doctor",), ("unlock", "--stdin")]
)  # fmt: skip
def test_nothing_is_said_to_a_control_socket_of_his(process: Run, stub: Stub, command: tuple[str, ...]) -> None:
    """Planted at our path: the client leaves before it has said a word. Control: somebody who does talk is heard."""
    place = Path(stub.environ["VAULTD_HOME"]) / "run/control.sock"
    shared = Path("/tmp") / f"vaultd-squat-{os.getpid()}"
    shared.mkdir(mode=0o777, exist_ok=True)
    shared.chmod(0o777)
    try:
        with bob(_SOCKET, str(shared / "s")) as (process_of_bob, first):
            assert first == "bound"
            (shared / "s").replace(place)
            ended = process(*command, stdin="my passphrase\n")
            assert ended.status != 0
            assert f"the user with id {BOB}, not by you" in ended.err + ended.out
            assert process_of_bob.stdout is not None
            with socket.socket(socket.AF_UNIX) as control:
                control.connect(str(place))
                control.sendall(b"control")
                heard = [process_of_bob.stdout.readline().strip()]
                while "control" not in heard[-1]:
                    heard.append(process_of_bob.stdout.readline().strip())
            assert {*heard[:-1]} <= {"heard b''"}
    finally:
        shared.rmdir()
