"""The one redirect: for whom, for how often, for how long."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from vault_client.redirect import Redirect, owner_of

TARGET = "https://signin.aws.amazon.com/federation?SigninToken=canary"


class Served:
    """A redirect that waits in a thread."""

    def __init__(self, *, seconds: float = 20.0) -> None:
        self.redirect = Redirect(TARGET)
        self.given: bool | None = None
        self.hopeless = threading.Event()
        self._seconds = seconds
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with self.redirect:
            self.given = self.redirect.given(seconds=self._seconds, failed=self.hopeless.is_set)

    def end(self) -> bool:
        self.hopeless.set()
        self._thread.join(20)
        assert self.given is not None
        return self.given

    @property
    def port(self) -> int:
        return int(urlsplit(self.redirect.address).port or 0)

    @property
    def path(self) -> str:
        return urlsplit(self.redirect.address).path

    def ask(self, line: str | None = None, host: str | None = None) -> bytes:
        """The whole answer."""
        raw = f"{line or f'GET {self.path} HTTP/1.1'}\r\nHost: {host or f'127.0.0.1:{self.port}'}\r\n\r\n"
        with closing(socket.create_connection(("127.0.0.1", self.port), 10)) as sock:
            sock.sendall(raw.encode())
            return b"".join(iter(lambda: sock.recv(4096), b""))


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served()
    yield made
    made.end()


def test_given_once(served: Served) -> None:
    """Then nobody listens any more."""
    answer = served.ask()
    assert answer.startswith(b"HTTP/1.1 303 See Other\r\nLocation: " + TARGET.encode() + b"\r\n")
    assert served.end() is True
    with pytest.raises(ConnectionRefusedError):
        served.ask()


def test_whatever_else_is_asked_learns_nothing(served: Served) -> None:
    """Another path, method or name; then it is still there for the browser."""
    others = [
        served.ask("GET / HTTP/1.1"),
        served.ask(f"GET {served.path}x HTTP/1.1"),
        served.ask(f"GET {served.path[:-1]} HTTP/1.1"),
        served.ask(f"POST {served.path} HTTP/1.1"),
        served.ask(f"HEAD {served.path} HTTP/1.1"),
        served.ask(f"GET {served.path}"),
        served.ask(host="rebound.example"),
        served.ask(host=f"127.0.0.1:{served.port}\r\nHost: x"),
    ]
    assert {answer.split(b"\r\n")[0] for answer in others} == {b"HTTP/1.1 404 Not Found"}
    assert b"canary" not in b"".join(others)
    assert b"303" in served.ask()


def test_connections_that_say_nothing_keep_nobody_out(served: Served) -> None:
    """Browsers open some ahead; more than we hold end the oldest."""
    silent = [socket.create_connection(("127.0.0.1", served.port), 10) for _ in range(40)]
    try:
        assert b"303" in served.ask()
    finally:
        for each in silent:
            each.close()


def test_nobody_comes() -> None:
    """After its time, or at once when the browser has failed."""
    late = Served(seconds=0.01)
    late._thread.join(20)
    assert late.given is False
    hopeless = Served()
    assert hopeless.end() is False


def test_another_users_socket_is_refused(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """He may read the address from argv; the kernel says whose socket it is."""
    with closing(socket.create_connection(("127.0.0.1", served.port), 10)) as before:
        assert b"404" in served.ask("GET / HTTP/1.1")  # the first was accepted by now, as one of ours
        monkeypatch.setattr(os, "getuid", lambda: 4711)
        before.sendall(f"GET {served.path} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n\r\n".encode())
        assert before.recv(4096).startswith(b"HTTP/1.1 404")
    with closing(socket.create_connection(("127.0.0.1", served.port), 10)) as after:
        assert after.recv(4096) == b""
    monkeypatch.undo()
    assert b"303" in served.ask()


def test_the_owner_of_a_socket(tmp_path: Path) -> None:
    """Of the row that leads to us, from its own end; a socket that is gone (inode 0) belongs to nobody."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        ours = server.getsockname()[1]
        with closing(socket.create_connection(("127.0.0.1", ours))) as theirs:
            port = theirs.getsockname()[1]
            assert owner_of(port, ours) == os.getuid()
            assert owner_of(port, ours + 1) == -1
    table = tmp_path / "tcp"
    row = "0: 0100007F:1F90 0100007F:2328 01 0:0 0:0 0 {uid} 0 {inode}\n"
    table.write_text(row.format(uid=1000, inode=0))
    assert owner_of(8080, 9000, tables=(str(table),)) == -1
    table.write_text(row.format(uid=1000, inode=7))
    assert owner_of(8080, 9000, tables=("/nowhere", str(table))) == 1000
    assert owner_of(8080, 9000, tables=("/nowhere",)) == -1


def test_a_browser_on_an_ipv6_socket() -> None:
    """Connected to ::ffff:127.0.0.1, it is in the other table."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server, closing(socket.socket(socket.AF_INET6)) as theirs:
        ours = server.getsockname()[1]
        theirs.connect(("::ffff:127.0.0.1", ours))
        assert owner_of(theirs.getsockname()[1], ours) == os.getuid()
        assert owner_of(theirs.getsockname()[1], ours, tables=("/proc/net/tcp",)) == -1  # control


def test_one_who_breaks_off_ends_nothing(served: Served) -> None:
    """A request without its end is none, however it ends: anybody may read the address from argv, and reset his
    connection before its owner was looked up.
    """
    begun = f"GET {served.path} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}".encode()
    reset = socket.create_connection(("127.0.0.1", served.port), 10)
    reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    reset.sendall(begun)
    assert b"404" in served.ask("GET / HTTP/1.1")  # the first has been read by now
    reset.close()
    with closing(socket.create_connection(("127.0.0.1", served.port), 10)) as half:
        half.sendall(begun)
        half.shutdown(socket.SHUT_WR)
        assert half.recv(4096) == b""
    assert b"303" in served.ask()
    assert served.end() is True


def test_other_users_make_no_browser_lose_its_place(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their connections end as they come, before a byte is read, so that none of ours has to make room."""
    foreign: set[int] = set()
    monkeypatch.setattr("vault_client.redirect.owner_of", lambda theirs, _: 4711 if theirs in foreign else os.getuid())
    with closing(socket.create_connection(("127.0.0.1", served.port), 10)) as ours:
        ours.sendall(f"GET {served.path} HTTP/1.1\r\n".encode())
        for _ in range(40):
            with closing(socket.socket()) as theirs:
                theirs.settimeout(10)
                theirs.bind(("127.0.0.1", 0))
                foreign.add(theirs.getsockname()[1])
                theirs.connect(("127.0.0.1", served.port))
                assert theirs.recv(1) == b""
        ours.sendall(f"Host: 127.0.0.1:{served.port}\r\n\r\n".encode())
        assert ours.recv(4096).startswith(b"HTTP/1.1 303")
