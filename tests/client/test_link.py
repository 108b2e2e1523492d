"""The way to the daemon: away, foreign, squatted, broken (interface.md §3 exit 69; security.md §1 T2, T3)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.client.conftest import Run
from tests.client.stub import SERIAL, Stub, environment
from vault_client import cli, link
from vault_client.errors import Refusal, Stop
from vault_client.link import Link, check_listener, quoted
from vault_client.places import Places
from vaultd.layout import Layout

BASE = {"HOME": "/home/alice"}


@pytest.mark.parametrize("platform", ["linux", "darwin"])
@pytest.mark.parametrize(
    "environ",
    [
        BASE,
        {**BASE, "VAULTD_HOME": "/srv/v"},
        {**BASE, "VAULTD_HOME": "~/v"},
        {**BASE, "VAULTD_HOME": "~"},
        {**BASE, "VAULTD_HOME": "relative/v/../w"},
        {**BASE, "VAULTD_HOME": ""},
        {**BASE, "XDG_RUNTIME_DIR": "/run/user/1000"},
        {**BASE, "XDG_RUNTIME_DIR": "run"},
        {**BASE, "XDG_STATE_HOME": "/s", "XDG_DATA_HOME": "/d/", "XDG_CONFIG_HOME": "/c"},
        {**BASE, "XDG_STATE_HOME": "s", "XDG_DATA_HOME": ""},
        {"HOME": "/"},
        {"HOME": ""},
        {},
    ],
)
def test_places_are_the_daemons(environ: dict[str, str], platform: str) -> None:
    """The client's own paths are those of vaultd.layout.Layout, which it may not import."""
    ours, theirs = Places(environ, platform=platform), Layout.find(environ, platform=platform)

    assert Path(ours.socket) == theirs.control_sock
    assert Path(ours.log) == theirs.log_file
    assert Path(ours.store) == theirs.data / "secrets.sealed"


@pytest.mark.parametrize(
    "arguments", [("list",), ("use", "p", "--shell", "sh"), ("exec", "p", "--", "true"), ("lock",)]
)
def test_daemon_down(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    """69, naming the log and the command that starts it."""
    status = cli.run([*arguments], {"VAULTD_HOME": str(tmp_path), "PATH": os.environ["PATH"]})

    assert status == 69
    assert capsys.readouterr().err == (
        f"vault-client: vaultd is not running (its log is {tmp_path}/state/vaultd.log): type `vaultd start`\n"
    )


def test_stale_socket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A socket that nobody listens on is a daemon that is down."""
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "run" / "control.sock"))

    assert cli.run(["list"], {"VAULTD_HOME": str(tmp_path)}) == 69
    assert "vaultd is not running" in capsys.readouterr().err


def test_a_full_backlog_is_busy_and_not_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """EAGAIN of connect(): it runs, so nobody is sent to start it. Control: with room, the same call is let in."""
    run = tmp_path / "run"
    run.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(run / "control.sock"))
        listener.listen(0)
        waiting = []
        while True:
            waiting.append(socket.socket(socket.AF_UNIX))
            waiting[-1].setblocking(False)
            try:
                waiting[-1].connect(str(run / "control.sock"))
            except BlockingIOError:
                break
        environ = {"VAULTD_HOME": str(tmp_path)}
        assert cli.run(["list"], environ) == 75
        assert capsys.readouterr().err == (
            "vault-client: vaultd is busy, more commands wait than it lets in: type it again in a moment\n"
        )
        listener.accept()[0].close()
        Link(Places(environ)).open("GET", "/v1/status").close()
        for each in waiting:
            each.close()


def test_path_too_long(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """More than 107 characters: said so, with what to set."""
    home = str(tmp_path / ("x" * 120))

    assert cli.run(["list"], {"VAULTD_HOME": home}) == 69
    assert capsys.readouterr().err == (
        f"vault-client: the path {home}/run/control.sock is too long for a socket: set VAULTD_HOME or XDG_RUNTIME_DIR "
        f"to a shorter directory and type `vaultd start`\n"
    )


def test_socket_that_may_not_be_opened(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """EACCES: another user's directory."""

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(link, "_check_owner", refuse)

    assert cli.run(["list"], stub.environ) == 69
    assert capsys.readouterr().err == (
        f"vault-client: {stub.run}/control.sock may not be opened (Permission denied): it belongs to another user or "
        f"another VAULTD_HOME; as yourself, type `vaultd start`\n"
    )


def test_foreign_socket_gets_nothing(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other end is another user's: nothing is sent, not even a request line. Control: the first call."""
    own = os.getuid()
    assert Link(Places(stub.environ)).call("GET", "/v1/profiles")
    stub.requests.clear()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    with pytest.raises(Stop) as stopped:
        Link(Places(stub.environ)).call("POST", "/v1/unlock", {"passphrase": "canary"})

    assert stopped.value.exit_status == 1
    assert stopped.value.message == (
        f"{stub.run}/control.sock is served by the user with id {own}, not by you, so nothing was sent to it: it "
        f"belongs to that user, so type `sudo -u '#{own}'` before the same, or set HOME or VAULTD_HOME to your own"
    )
    assert stub.requests == []


def test_a_socket_planted_in_our_own_directory_is_to_be_removed(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: there it is nobody's daemon."""
    monkeypatch.setattr(link, "peer_uid", lambda sock: os.getuid() + 1)
    with pytest.raises(Stop) as stopped:
        Link(Places(stub.environ)).call("GET", "/v1/profiles")
    assert stopped.value.message.endswith("so nothing was sent to it: remove it and type `vaultd start`")


@pytest.mark.needs("root")
def test_foreign_socket_with_a_real_other_user() -> None:
    """The kernel's answer, not ours: another uid at our socket, made open to the world, gets no byte of theirs in."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name, "v")
        stub = Stub(home)
        try:
            for path in (home.parent, home, stub.run):
                path.chmod(0o755)
            (stub.run / "control.sock").chmod(0o666)
            done = subprocess.run(
                [sys.executable, "-c", _AS_NOBODY], env=environment(stub), capture_output=True, text=True, check=False
            )
        finally:
            stub.close()

    assert done.returncode == 1
    assert done.stderr == (
        f"vault-client: {home}/run/control.sock is served by the user with id 0, not by you, so nothing was sent to "
        f"it: it belongs to that user, so type `sudo -u '#0'` before the same, or set HOME or VAULTD_HOME to your own\n"
    )
    assert stub.requests == []


# Everything is loaded first: the interpreter's own files may be closed to others.
_AS_NOBODY = """
import difflib, getopt, os, sys, vault_client.cli, vault_client.link, vault_client.places, vault_client.show
os.setgid(65534), os.setuid(65534)
sys.exit(vault_client.cli.run(["list"]))
"""


# ---- the TCP port ----


@pytest.mark.needs("linux")
def test_our_own_listener_passes(stub: Stub) -> None:
    """Control for the next three: a port of ours is fine."""
    check_listener(stub.port)


def test_nobody_listens() -> None:
    """The daemon says a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(Stop) as stopped:
        check_listener(port)

    assert stopped.value.message == (
        f"nobody listens on 127.0.0.1:{port}, where vaultd says that it serves: type `vaultd restart`"
    )


def test_a_squatter_gets_no_token(stub: Stub, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another user holds the port: nothing on stdout, and the grant is revoked. The kernel's own table format."""
    foreign = os.getuid() + 7
    row = f"   0: 0100007F:{stub.port:04X} 00000000:0000 0A 00000000:00000000 00:00000000 00000000 {foreign} 0 9\n"
    table = tmp_path / "tcp"
    table.write_text("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n" + row)
    monkeypatch.setattr(link.check_listener, "__kwdefaults__", {"table": str(table), "again": ""})
    ended = run("use", "web-admin", "--shell", "sh")

    assert (ended.status, ended.out) == (1, "false;\n")
    assert ended.err == (
        f"vault-client: port {stub.port} of this machine is held by the user with id {os.getuid() + 7}, not by your "
        f"vaultd, so no token was handed out: end that program or choose another [listen] port, then type `vaultd "
        f"restart`\n"
    )
    assert stub.asked("DELETE", "/v1/grants/g1") == [None]


@pytest.mark.parametrize("ours", [0, 1, 2, None])
def test_every_listener_of_the_port_is_read(tmp_path: Path, ours: int | None) -> None:
    """Strangers may listen there on other devices, before and after our row; without a row of ours it is refused."""
    uids = [os.getuid() if place == ours else os.getuid() + 7 for place in range(3)]
    table = tmp_path / "tcp"
    table.write_text(
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
        + "".join(f" {at}: 0100007F:2390 0:0 0A 0:0 0:0 0 {uid} 0 9\n" for at, uid in enumerate(uids))
        + f" 9: 0100007F:2390 0:0 01 0:0 0:0 0 {os.getuid()} 0 9\n"  # a connection of ours is no listener
    )
    if ours is not None:
        check_listener(0x2390, table=str(table))
        return
    with pytest.raises(Stop, match=f"is held by the user with id {os.getuid() + 7}, not by your vaultd"):
        check_listener(0x2390, table=str(table))


def test_no_table_is_no_proof(tmp_path: Path) -> None:
    """Fail closed: what cannot be looked up is refused."""
    with pytest.raises(Stop, match=r"cannot be read \(No such file or directory\), so nobody can say who owns port 1"):
        check_listener(1, table=str(tmp_path / "none"))


@pytest.mark.parametrize(
    "url", ["http://localhost:{port}/x", "http://10.0.0.1:{port}/x", "https://127.0.0.1:{port}/x", ""]
)
def test_only_the_literal_loopback(stub: Stub, run: Run, url: str) -> None:
    """`localhost` may mean [::1], which another user can hold beside our port (security.md §1 T3)."""
    grant = stub.grant()
    grant["set"]["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = url.format(port=stub.port)
    stub.answers["POST", "/v1/grants"] = (201, grant)
    ended = run("use", "web-admin", "--shell", "sh")

    assert (ended.status, ended.out) == (1, "false;\n")
    assert ended.err == (
        "vault-client: vaultd sent an address that is not on 127.0.0.1, so it was not used: type `vaultd restart`\n"
    )


# ---- answers that are none ----


@contextmanager
def raw(home: Path, answer: bytes) -> Iterator[Link]:
    """A server that says exactly `answer` and closes."""
    (home / "run").mkdir()
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(home / "run" / "control.sock"))
    server.listen()

    def serve() -> None:
        client, _ = server.accept()
        with client:
            client.recv(65536)
            client.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield Link(Places({"VAULTD_HOME": str(home)}))
    finally:
        thread.join()
        server.close()


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (OK + b'Content-Length: 8\r\n\r\n{"a": 1}', {"a": 1}),
        (OK + b'content-LENGTH:8\r\nX: y\r\n\r\n{"a": 1}', {"a": 1}),
        (OK + b'Transfer-Encoding: chunked\r\n\r\n3\r\n{"a\r\n5;x=y\r\n": 1}\r\n0\r\n\r\n', {"a": 1}),
        (OK + b"Content-Length: 0\r\n\r\n", {}),
    ],
)
def test_answers(tmp_path: Path, answer: bytes, body: Any) -> None:
    """Both ways to say where a body ends."""
    with raw(tmp_path, answer) as line:
        assert line.call("GET", "/") == body


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        OK + b"\r\n{}",
        OK + b"Content-Length: 2\r\n\r\nno",
        OK + b"Content-Length: 99999999999\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nffffffff\r\n",
        b"x" * (70 * 1024),
    ],
)
def test_other_programs(tmp_path: Path, answer: bytes) -> None:
    """What is not the control API is said to be none, exit 1."""
    with raw(tmp_path, answer) as line, pytest.raises(Stop) as stopped:
        line.call("GET", "/")

    assert stopped.value.exit_status == 1
    assert stopped.value.message == (
        f"{tmp_path}/run/control.sock answered something that is not the control API: is it another program? Type "
        f"`vaultd restart`"
    )


@pytest.mark.parametrize("answer", [b"", OK, OK + b"Content-Length: 8\r\n\r\n{", b"HTTP/1.1 2"])
def test_daemon_dies_in_the_middle(tmp_path: Path, answer: bytes) -> None:
    """A cut answer: 69, naming the log."""
    with raw(tmp_path, answer) as line, pytest.raises(Stop) as stopped:
        line.call("GET", "/")

    assert stopped.value.exit_status == 69
    assert stopped.value.message == (
        f"vaultd went away in the middle of an answer (its log is {tmp_path}/state/vaultd.log): type `vaultd start`"
    )


def test_daemon_hangs(stub: Stub) -> None:
    """Each wait has an end: 69, and the way out is not a start, which finds it there."""
    said = r"vaultd does not answer \(its log is .*\): type `vaultd stop`, then `vaultd start`"
    with pytest.raises(Stop, match=said) as stopped:
        Link(Places(stub.environ)).call("GET", "/v1/prompts/q1?wait", seconds=0.05)
    assert stopped.value.exit_status == 69


def test_an_error_without_a_reason(tmp_path: Path) -> None:
    """An error status whose body says nothing still names what to do, exit 1."""
    with raw(tmp_path, b"HTTP/1.1 502 X\r\nContent-Length: 2\r\n\r\n[]") as line, pytest.raises(Refusal) as refused:
        line.call("GET", "/")

    assert refused.value.exit_status == 1
    assert refused.value.message == "vaultd answered 502 without a reason: look at it with `vaultd logs`"


def test_quoted() -> None:
    """One path segment, whatever a name holds."""
    assert quoted("team prod/ü?#%") == "team%20prod%2F%C3%BC%3F%23%25"
    assert quoted("a-b._~C9") == "a-b._~C9"
    assert SERIAL not in quoted(SERIAL)
