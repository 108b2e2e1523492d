"""Held requests through real processes: boto3 and curl wait while a terminal asks for the code (issue 4, Build 5)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pexpect
import pytest

from tests.process.harness import DEADLINE, Emulator, Home, until

pytestmark = pytest.mark.process

#: What boto3's HTTP client says once the head of an answer has come.
HEAD_CAME = 'GET /v1/credentials/web-admin HTTP/1.1" '
KEYS = """\
import logging, boto3
logging.basicConfig(level=logging.WARNING)
logging.getLogger("urllib3.connectionpool").setLevel(logging.DEBUG)
try:
    print(boto3.Session().get_credentials().get_frozen_credentials().access_key)
except Exception as exc:
    raise SystemExit(f"{type(exc).__name__}: {exc}")
"""


@pytest.fixture
def shell(home: Home, emulator: Emulator) -> dict[str, str]:
    """The environment of a shell that uses web-admin, whose sessions are gone: its next request needs a code."""
    used = home.use("web-admin", emulator)
    assert home.client("clear").status == 0
    return {**home.env, **used}


@contextmanager
def asking(home: Home, shell: dict[str, str]) -> Iterator[pexpect.spawn[str]]:
    """A terminal with the question on it, counted as an asker: from then on a request is held."""
    with home.terminal("vault-client", "mfa") as terminal:
        terminal.expect_exact("MFA code: ")
        until(lambda: _is_held(home, shell), "the terminal is counted as an asker")
        yield terminal


def _is_held(home: Home, shell: dict[str, str]) -> bool:
    with _request(home, shell) as sock:
        return _head(sock).startswith(b"HTTP/1.1 200 OK\r\n")


def _request(home: Home, shell: dict[str, str]) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", home.port), timeout=DEADLINE)
    token = shell["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
    fields = f"Host: 127.0.0.1:{home.port}\r\nUser-Agent: curl/8\r\nAuthorization: {token}"
    sock.sendall(f"GET /v1/credentials/web-admin HTTP/1.1\r\n{fields}\r\n\r\n".encode())
    return sock


def _head(sock: socket.socket) -> bytes:
    got = b""
    while b"\r\n\r\n" not in got:
        piece = sock.recv(4096)
        assert piece, got
        got += piece
    return got


@contextmanager
def running(*command: str, env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.kill()


@contextmanager
def boto3(shell: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """boto3 once it has the head of its answer, and what it said of that."""
    with running(sys.executable, "-c", KEYS, env=shell) as process:
        assert process.stderr is not None
        yield process, next(line for line in process.stderr if HEAD_CAME in line)


@contextmanager
def curl(shell: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """The plain reader, once it has printed the first blank of a drip."""
    token, url = shell["AWS_CONTAINER_AUTHORIZATION_TOKEN"], shell["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
    with running("curl", "-sSN", "-H", f"Authorization: {token}", url, env=shell) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == " "
        yield process


def test_boto3_and_curl_wait_for_the_code(home: Home, shell: dict[str, str], emulator: Emulator) -> None:
    """The first call of each succeeds once the code is typed; one code, one GetSessionToken."""
    before = emulator.count("GetSessionToken")
    with asking(home, shell) as terminal, boto3(shell) as (sdk, said), curl(shell) as plain:
        assert '" 200 ' in said
        assert sdk.poll() is None
        terminal.sendline(emulator.code(step=1))
        out, err = sdk.communicate(timeout=DEADLINE)
        assert (sdk.returncode, err.count(HEAD_CAME)) == (0, 0), err
        keys = json.loads(plain.communicate(timeout=DEADLINE)[0])
        assert plain.returncode == 0
    assert keys["AccessKeyId"] == out.strip()
    assert emulator.count("GetSessionToken") == before + 1
    assert home.events("mfa.ask") == 2  # the one of `use`, and this one


def test_a_cancel_ends_it_and_boto3_says_why(home: Home, shell: dict[str, str]) -> None:
    """Ctrl-C: blanks and a clean end, then 403 at once; boto3 gives up within 5 s with the text of it."""
    with asking(home, shell) as terminal, boto3(shell) as (sdk, said), curl(shell) as plain:
        assert '" 200 ' in said
        terminal.sendintr()
        _, err = sdk.communicate(timeout=5)
        blanks = plain.communicate(timeout=5)[0]
    assert sdk.returncode == 1
    assert '" 403 ' in err
    assert "was cancelled" in err
    assert "vault-client mfa identity" in err
    assert blanks.strip() == ""
    assert plain.returncode == 0, "a cut body would be curl's 18"
    refused = home.get(shell["AWS_CONTAINER_AUTHORIZATION_TOKEN"])
    assert (refused.status, refused.code) == (403, "MfaRequired")
    until(lambda: home.events("credentials.deny") > 0, "the denial is in the log")


def test_stop_while_holding(home: Home, shell: dict[str, str]) -> None:
    """Whitespace, a clean end, then the connection is refused."""
    with asking(home, shell), curl(shell) as plain:
        assert home.run("vaultd", "stop").status == 0
        assert plain.communicate(timeout=DEADLINE)[0].strip() == ""
        assert plain.returncode == 0
    with pytest.raises(ConnectionRefusedError):
        _request(home, shell)


def test_lock_while_holding(home: Home, shell: dict[str, str]) -> None:
    """Blank, and the re-request is told."""
    with asking(home, shell), curl(shell) as plain:
        assert home.client("lock").status == 0
        assert plain.communicate(timeout=DEADLINE)[0].strip() == ""
        assert plain.returncode == 0
    refused = home.get(shell["AWS_CONTAINER_AUTHORIZATION_TOKEN"])
    assert (refused.status, refused.code) == (403, "Locked")


def test_a_client_that_dies_takes_nothing_with_it(home: Home, shell: dict[str, str], emulator: Emulator) -> None:
    """Killed in the middle of the drip: the question stays, the next client is held and served."""
    with asking(home, shell) as terminal:
        with curl(shell) as dies:
            dies.kill()
        with curl(shell) as plain:
            terminal.sendline(emulator.code(step=1))
            assert json.loads(plain.communicate(timeout=DEADLINE)[0])["Code"] == "Success"


#: Threads of the loop's own pool, which looks up who calls, however many do (asyncio: processors + 4 at most).
LOOK_UPS = (os.cpu_count() or 1) + 4


def test_a_hundred_held_clients(home: Home, shell: dict[str, str], emulator: Emulator) -> None:
    """All of them are served by one code: one GetSessionToken, one AssumeRole, no thread each."""
    calls = emulator.count("GetSessionToken"), emulator.count("AssumeRole")
    with asking(home, shell) as terminal, ExitStack() as stack:
        threads = _threads(home)
        clients = [stack.enter_context(_request(home, shell)) for _ in range(100)]
        heads = [_head(client) for client in clients]
        assert all(head.startswith(b"HTTP/1.1 200 OK\r\n") for head in heads)
        assert _threads(home) <= threads + LOOK_UPS
        terminal.sendline(emulator.code(step=1))
        bodies = [head.partition(b"\r\n\r\n")[2] + _rest(client) for head, client in zip(heads, clients, strict=True)]
    assert all(b'"Code":"Success"' in body and body.endswith(b"\r\n0\r\n\r\n") for body in bodies)
    assert (emulator.count("GetSessionToken"), emulator.count("AssumeRole")) == (calls[0] + 1, calls[1] + 1)


def _rest(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def _threads(home: Home) -> int:
    return len(list(Path(f"/proc/{home.pid()}/task").iterdir()))


def test_always_holds_before_anybody_asks(directory: Path, emulator: Emulator) -> None:
    """`[prompt] hold = "always"`: the request opens the question, `vault-client mfa` in another terminal answers it."""
    made = Home.make(directory, emulator, settings='[prompt]\nhold = "always"\n')
    with made.daemon() as home:
        assert home.add(emulator).status == 0
        shell = {**home.env, **home.use("web-admin", emulator)}
        assert home.client("clear").status == 0
        with curl(shell) as plain, home.terminal("vault-client", "mfa") as terminal:
            terminal.expect_exact("MFA code: ")
            terminal.sendline(emulator.code(step=1))
            assert json.loads(plain.communicate(timeout=DEADLINE)[0])["Code"] == "Success"
