from __future__ import annotations

import contextlib
import json
import os
import pwd
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vault_client.errors import Stop
from vault_client.link import check_listener
from vaultd.errors import FileRefused, Misconfigured, Unwritable
from vaultd.host import sockets
from vaultd.model.peer import Peer

REPO = Path(__file__).parents[2]
BOB = 65534
as_root = pytest.mark.needs("root")


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    found = tmp_path / "run"
    found.mkdir(mode=0o700)
    return found


@contextlib.contextmanager
def listening(port: int = 0) -> Iterator[socket.socket]:
    sock = sockets.listen_tcp(port)
    try:
        yield sock
    finally:
        sock.close()


def as_user(uid: int, act: Callable[[], None]) -> int:
    """Run `act` in a forked child of another uid; its exit status is act's OSError number, or 0."""
    pid = os.fork()
    if pid == 0:  # pragma: no cover - the child
        status = 255
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            act()
            status = 0
        except OSError as exc:
            status = exc.errno or 254
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# ---- TCP ----


def test_listen_tcp_is_on_the_loopback_device_only() -> None:
    """127.0.0.1, bound to `lo`, non-blocking, close-on-exec, and not shareable (security.md §0.3, item 6)."""
    with listening() as sock:
        device = sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16)

        assert sock.getsockname()[0] == "127.0.0.1"
        assert device.rstrip(b"\0") == b"lo"
        assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        assert not sock.get_inheritable()
        assert not sock.getblocking()


@pytest.mark.parametrize("soft", [256, 1024, 4096, 65_536])
def test_no_turn_of_a_loop_takes_the_last_descriptor(soft: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """security.md §0.4: asyncio's own loop accepts its backlog in one turn. Four turns' worth fits beside the three
    quarters that connections may hold; what waits for the next turn, the kernel keeps.
    """
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, soft))
    assert sockets.a_turn() >= 8
    assert 4 * sockets.a_turn() <= soft // 4
    assert 4 * sockets.BACKLOG > 256 // 4, "control: the kernel's queue in one turn would not fit"


def test_a_restart_does_not_wait_for_time_wait() -> None:
    """A port with connections in TIME_WAIT is free for us; with a listener it is not."""
    with listening() as sock:
        port = sock.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            sock.setblocking(True)
            server, _ = sock.accept()
            server.close()  # the side that closes first keeps TIME_WAIT
            client.recv(1)
    with listening(port) as again:
        assert again.getsockname()[1] == port


def test_a_taken_port_names_its_owner() -> None:
    """interface.md §2: a clear error naming the owner where known, exit 1."""
    with listening() as sock:
        port = sock.getsockname()[1]
        with pytest.raises(Unwritable) as caught:
            sockets.listen_tcp(port)

    exe = os.path.realpath(sys.executable)
    assert caught.value.message == (
        f"Port {port} is taken by {exe} (pid {os.getpid()}): stop that, or choose another, "
        "for good by `[listen] port` in config.toml, for one start with `vaultd start --port N`."
    )
    assert caught.value.exit == 1


@pytest.mark.parametrize("way", ["IPv6 for every address", "a connection's near end"])
def test_a_port_that_no_listener_of_ipv4_has_names_its_owner(way: str) -> None:
    """What keeps the port from us is in another table, or in another state: named all the same."""
    with contextlib.ExitStack() as held:
        if way.startswith("IPv6"):
            sock = held.enter_context(socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True))
        else:
            server = held.enter_context(socket.create_server(("127.0.0.1", 0)))
            sock = held.enter_context(socket.create_connection(server.getsockname()))
        port = sock.getsockname()[1]
        assert sockets.port_owner(port) is None, "control: no such listener"
        with pytest.raises(Unwritable, match=rf"^Port {port} is taken by \S+ \(pid {os.getpid()}\): stop that"):
            sockets.listen_tcp(port)


@as_root
def test_a_port_that_another_user_took_names_the_user() -> None:
    """A squatter's pid is not ours to see, his name is (security.md T3)."""
    reading, writing = os.pipe()
    done_reading, done_writing = os.pipe()
    pid = os.fork()
    if pid == 0:  # pragma: no cover - the child
        os.setgid(BOB)
        os.setuid(BOB)
        squatter = socket.create_server(("127.0.0.1", 0))
        os.write(writing, str(squatter.getsockname()[1]).encode())
        os.read(done_reading, 1)
        os._exit(0)
    port = int(os.read(reading, 16))
    with pytest.raises(Unwritable, match=f"is taken by a process of user {pwd.getpwuid(BOB).pw_name}: stop that"):
        sockets.listen_tcp(port)
    os.write(done_writing, b"x")
    os.waitpid(pid, 0)
    for each in (reading, writing, done_reading, done_writing):
        os.close(each)


def test_a_port_that_may_not_be_bound_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other refusal names the port and the reason, and leaves no socket behind."""

    def refuse(self: socket.socket, address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(Unwritable, match=r"Port 80 cannot be opened \(permission denied\): choose another"):
        sockets.listen_tcp(80)


def test_where_the_device_may_not_be_bound_it_still_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old kernels want a capability for SO_BINDTODEVICE; the peer look-up denies outsiders there."""
    real = socket.socket.setsockopt

    def refuse(self: socket.socket, level: int, name: int, value: int | bytes) -> None:
        if name == socket.SO_BINDTODEVICE:
            raise PermissionError(1, "Operation not permitted")
        real(self, level, name, value)

    monkeypatch.setattr(socket.socket, "setsockopt", refuse)
    with listening() as sock:
        assert sock.getsockname()[0] == "127.0.0.1"


@contextlib.contextmanager
def stranger_elsewhere(port: int, device: str) -> Iterator[None]:
    """BOB listens on 127.0.0.1:`port` of another device, which the kernel allows beside a listener on `lo`."""
    here, there = socket.socketpair()
    pid = os.fork()
    if pid == 0:  # pragma: no cover - the child
        os.setgid(BOB)
        os.setuid(BOB)
        os.closerange(3, there.fileno())  # the listener of the parent is not his
        os.closerange(there.fileno() + 1, 4096)
        squatter = socket.socket()
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        squatter.bind(("127.0.0.1", port))
        squatter.listen()
        there.send(b"x")
        there.recv(1)
        os._exit(0)
    assert here.recv(1) == b"x"
    try:
        yield
    finally:
        here.send(b"x")
        os.waitpid(pid, 0)
        here.close()
        there.close()


@pytest.mark.needs("root", "device")
def test_a_stranger_on_another_device_does_not_hold_our_port() -> None:
    """With `lo` and SO_BINDTODEVICE two users listen on one address; the row of ours counts, wherever it stands, for
    the daemon and for the client. Control: with the stranger's alone he is the owner, and the client refuses.
    """
    devices = [name for _, name in socket.if_nameindex() if name != "lo"]
    with listening() as sock:
        port = sock.getsockname()[1]
        with stranger_elsewhere(port, devices[0]):
            rows = [row for row in sockets._in_use("tcp") if row[0].endswith(f":{port:04X}")]
            assert sorted(row[2] for row in rows) == [os.geteuid(), BOB]  # control: the kernel lists both
            owner = sockets.port_owner(port)
            assert owner is not None
            assert (owner.uid, owner.pid) == (os.geteuid(), os.getpid())
            check_listener(port)
            sock.close()
            assert sockets.port_owner(port) == Peer(uid=BOB)
            with pytest.raises(Stop, match=f"is held by the user with id {BOB}, not by your vaultd"):
                check_listener(port)


def test_nobody_owns_a_free_port() -> None:
    """Positive control for the owner's name."""
    with listening() as sock:
        port = sock.getsockname()[1]
        assert sockets.port_owner(port) is not None
    assert sockets.port_owner(port) is None


# ---- the control socket ----


def test_listen_unix_is_born_private(run_dir: Path) -> None:
    """0600 from its first moment, whatever the umask was, which is put back (item 2)."""
    before = os.umask(0o000)
    try:
        sock = sockets.listen_unix(run_dir / "control.sock", locked=True)
        umask = os.umask(0o000)
    finally:
        os.umask(before)
    mode = (run_dir / "control.sock").stat().st_mode
    inheritable, blocking = sock.get_inheritable(), sock.getblocking()
    sock.close()

    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    assert umask == 0
    assert (inheritable, blocking) == (False, False)


@as_root
def test_another_user_cannot_connect(run_dir: Path) -> None:
    """Item 2: connect needs the write bit; positive control: with it, the same child gets through."""
    path = run_dir / "control.sock"
    sock = sockets.listen_unix(path, locked=True)

    def connect() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))

    for each in (run_dir, *run_dir.parents[:-2]):
        each.chmod(0o711)
    refused = as_user(BOB, connect)
    path.chmod(0o666)
    let_in = as_user(BOB, connect)
    sock.close()

    assert (refused, let_in) == (13, 0)


def test_a_stale_socket_is_replaced_by_the_holder_of_the_lock(run_dir: Path) -> None:
    """Item 5: after kill -9 the name is there and nobody answers."""
    path = run_dir / "control.sock"
    sockets.listen_unix(path, locked=True).close()
    with pytest.raises(Unwritable, match=r"Another vaultd has .*control.sock: type `vaultd status`."):
        sockets.listen_unix(path, locked=False)
    sockets.listen_unix(path, locked=True).close()


def test_a_living_socket_is_never_removed(run_dir: Path) -> None:
    """Even with the lock: who answers lives. Nor one whose backlog is full."""
    path = run_dir / "control.sock"
    alive = sockets.listen_unix(path, locked=True, backlog=0)
    with pytest.raises(Unwritable, match="Another vaultd"):
        sockets.listen_unix(path, locked=True)
    with pytest.raises(Unwritable, match="Another vaultd"):  # the probe before has filled the backlog
        sockets.listen_unix(path, locked=True)
    still_there = path.exists()
    alive.close()

    assert still_there


@pytest.mark.parametrize("kind", ["file", "link", "directory"])
def test_what_is_no_socket_is_refused_by_name(run_dir: Path, kind: str) -> None:
    """Nothing that is not ours is removed or followed."""
    path = run_dir / "control.sock"
    if kind == "file":
        path.write_text("mine")
    elif kind == "link":
        path.symlink_to("/etc/passwd")
    else:
        path.mkdir()
    with pytest.raises(FileRefused, match=r"control.sock is refused .*run `rm ") as caught:
        sockets.listen_unix(path, locked=True)

    assert caught.value.exit == 78
    assert os.path.lexists(path)


@as_root
def test_a_socket_of_another_user_is_refused_by_name(run_dir: Path) -> None:
    """He planted it where ours belongs: neither removed nor asked, though we hold the lock; ours, left behind, is."""
    path = run_dir / "control.sock"
    for uid, refused in ((BOB, True), (os.geteuid(), False)):
        with socket.socket(socket.AF_UNIX) as planted:
            planted.bind(str(path))
        os.chown(path, uid, uid)
        if refused:
            with pytest.raises(FileRefused, match="not a socket of yours"):
                sockets.listen_unix(path, locked=True)
            path.unlink()
        else:
            sockets.listen_unix(path, locked=True).close()


def test_a_directory_that_others_may_enter_is_refused(run_dir: Path) -> None:
    """Item 1: 0700, ours."""
    run_dir.chmod(0o755)
    with pytest.raises(FileRefused, match="not a directory of yours with mode 0700"):
        sockets.listen_unix(run_dir / "control.sock", locked=True)


def test_a_path_that_is_too_long_says_so(run_dir: Path) -> None:
    """Item 4: before bind, with the cure."""
    with pytest.raises(Misconfigured, match=r"107 are allowed: set VAULTD_HOME"):
        sockets.listen_unix(run_dir / ("x" * 108), locked=True)


def test_a_missing_directory_says_so(run_dir: Path) -> None:
    """Unwritable names the path and ends in what to type."""
    with pytest.raises(Unwritable, match=r"gone/control.sock cannot be made \(no such file or directory\)"):
        sockets.listen_unix(run_dir / "gone" / "control.sock", locked=True)


def test_peer_of_unix_is_the_process_that_connected(run_dir: Path) -> None:
    """SO_PEERCRED: pid and uid as of connect, exe from the process."""
    listener = sockets.listen_unix(run_dir / "control.sock", locked=True)
    listener.setblocking(True)
    code = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-I", "-c", code, str(run_dir / "control.sock")], stdin=subprocess.PIPE)
    server, _ = listener.accept()
    living = sockets.peer_of_unix(server)
    child.communicate()
    gone = sockets.peer_of_unix(server)
    server.close()
    listener.close()

    assert living is not None
    assert (living.uid, living.pid, living.exe) == (os.geteuid(), child.pid, os.path.realpath(sys.executable))
    assert living.started is not None
    assert gone == Peer(uid=os.geteuid(), pid=child.pid)


@as_root
def test_peer_of_unix_sees_through_another_uid(run_dir: Path) -> None:
    """Item 3: with the mode opened by mistake, the uid still tells."""
    path = run_dir / "control.sock"
    listener = sockets.listen_unix(path, locked=True)
    listener.setblocking(True)
    for each in (run_dir, *run_dir.parents[:-2]):
        each.chmod(0o711)
    path.chmod(0o666)

    def connect() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))

    as_user(BOB, connect)
    server, _ = listener.accept()
    peer = sockets.peer_of_unix(server)
    server.close()
    listener.close()

    assert peer is not None
    assert peer.uid == BOB


def test_a_socket_without_a_peer_is_refused() -> None:
    """None: the caller closes it."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.close()

        assert sockets.peer_of_unix(sock) is None


# ---- activation ----

ACTIVATED = """
import json, os, socket, sys
sys.path.insert(0, sys.argv[1])
from vaultd.host import sockets
for target, source in enumerate(sys.argv[3:], start=3):
    os.dup2(int(source), target + 100)
for target in range(3, 3 + len(sys.argv[3:])):
    os.dup2(target + 100, target)
if sys.argv[2] == 'own':
    os.environ['LISTEN_PID'] = str(os.getpid())
found = sockets.activated()
print(json.dumps({
    'found': [[each.name, each.sock.getsockname(), each.sock.get_inheritable()] for each in found],
    'left': [name for name in os.environ if name.startswith('LISTEN')],
}))
"""


def activate(*passed: socket.socket, whose: str = "own", **environ: str) -> dict[str, list[list[object]]]:
    numbers = [str(sock.fileno()) for sock in passed]
    done = subprocess.run(
        [sys.executable, "-I", "-c", ACTIVATED, str(REPO), whose, *numbers],
        env={"LISTEN_PID": "1", **environ},
        pass_fds=[sock.fileno() for sock in passed],
        capture_output=True,
        check=True,
    )
    found: dict[str, list[list[object]]] = json.loads(done.stdout)
    return found


def test_activated_takes_named_listeners_and_closes_them_on_exec(run_dir: Path) -> None:
    """Descriptors arrive inheritable; they are taken by name, and the variables go (security.md §2.3)."""
    control = sockets.listen_unix(run_dir / "c.sock", locked=True)
    with listening() as tcp:
        found = activate(control, tcp, LISTEN_FDS="2", LISTEN_FDNAMES="control:http")
        expected = [["control", str(run_dir / "c.sock"), False], ["http", list(tcp.getsockname()), False]]
    control.close()

    assert found == {"found": expected, "left": []}


def test_activated_is_empty_for_another_process() -> None:
    """LISTEN_PID of a parent means that the descriptors are not ours."""
    with listening() as tcp:
        assert activate(tcp, whose="parent", LISTEN_FDS="1") == {"found": [], "left": []}


@pytest.mark.parametrize("count", ["", "x", "-1", "0"])
def test_activated_survives_nonsense(count: str) -> None:
    """A count that is no number is none."""
    with listening() as tcp:
        assert activate(tcp, LISTEN_FDS=count) == {"found": [], "left": []}


def test_activated_leaves_out_what_does_not_listen() -> None:
    """A connected socket or a file in that place is not a listener."""
    with listening() as tcp, socket.create_connection(tcp.getsockname()) as client:
        found = activate(client, tcp, LISTEN_FDS="2", LISTEN_FDNAMES="a:b")
        expected = [["b", list(tcp.getsockname()), False]]

    assert found["found"] == expected


# ---- the service manager ----


@pytest.mark.parametrize("abstract", [False, True])
def test_notify_reaches_the_service_manager(run_dir: Path, *, abstract: bool) -> None:
    """sd_notify over a path and over an abstract socket."""
    address = f"@vaultd-test-{os.getpid()}" if abstract else str(run_dir / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address.replace("@", "\0", 1))
        told = sockets.notify("READY=1", {"NOTIFY_SOCKET": address})

        assert told
        assert manager.recv(64) == b"READY=1"


@pytest.mark.parametrize("address", [None, "", "relative", "/nowhere/at/all"])
def test_notify_without_a_manager_is_nothing(address: str | None) -> None:
    """No manager, no error."""
    environ = {} if address is None else {"NOTIFY_SOCKET": address}

    assert not sockets.notify("READY=1", environ)
