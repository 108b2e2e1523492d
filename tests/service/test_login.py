"""The units as a user has them: in a real `systemd --user` of one, from the first connection to the last stop."""

from __future__ import annotations

import errno
import os
import pwd
import signal
import socket
import stat
import subprocess
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from tests.process.harness import PASSPHRASE, Emulator, alive, until, variables
from tests.service.conftest import Login, needs_systemd, root_of_credentials
from tests.service.probes import CHECKOUT

pytestmark = [pytest.mark.process, needs_systemd]

OTHER_UID = 65533
SHORT = "[Service]\nWatchdogSec=2\nTimeoutStopSec=2\n"


def knock(port: int) -> None:
    """One connection, and nothing else."""
    socket.create_connection(("127.0.0.1", port), timeout=10).close()


def as_other(port: int) -> int:
    """0 when another user gets the port, else the errno."""
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setresgid(OTHER_UID, OTHER_UID, OTHER_UID)
        os.setresuid(OTHER_UID, OTHER_UID, OTHER_UID)
        try:
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                sock.bind(("127.0.0.1", port))
                sock.listen(1)
        except OSError as exc:
            os._exit(exc.errno or 1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_the_first_connection_starts_the_daemon(login: Login) -> None:
    """By TCP, and again by the control socket: until then nobody runs, and `status` and `check` start nobody."""
    shown = login.install().out
    assert f"# ---- {login.units}/vaultd.socket" in shown
    assert f"ListenStream=127.0.0.1:{login.port}" in shown
    status = login.run("vaultd", "status")
    checked = login.run("vaultd", "check")
    assert (status.status, login.said(status)[1]) == (
        69,
        "vaultd is not running; vaultd.socket holds 127.0.0.1:PORT, and the first use starts it: type `vaultd start`\n",
    )
    assert "port         127.0.0.1:PORT is held by vaultd.socket" in login.said(checked)[1]
    assert (login.pid(), login.shown("vaultd.service", "ActiveState")) == (0, "inactive")

    knock(login.port)
    first = login.ran_by_unit()
    assert login.said(login.run("vaultd", "status"))[1].endswith("locked, run by systemd\n")
    assert login.ctl("stop", "vaultd.service").status == 0
    assert login.pid() == 0
    assert login.client("status").status == 0  # by control.sock
    assert login.ran_by_unit() != first


def test_the_sockets_are_nobody_elses(login: Login) -> None:
    """0600 in 0700, on lo, and while the daemon is down another user gets neither port nor socket."""
    login.install()
    control = login.runtime / "vaultd/control.sock"
    uid = pwd.getpwnam("daemon")[2]

    assert (stat.S_IMODE(control.stat().st_mode), control.stat().st_uid) == (0o600, uid)
    assert (stat.S_IMODE(control.parent.stat().st_mode), control.parent.stat().st_uid) == (0o700, uid)
    listening = subprocess.run(
        ["ss", "-tlnH", "sport", "=", str(login.port)], capture_output=True, text=True, check=True
    ).stdout.split()
    assert listening[2:4] == ["1024", f"127.0.0.1%lo:{login.port}"]
    assert as_other(login.port) == errno.EADDRINUSE
    assert login.run("vaultd", "stop").status == 0
    assert not control.exists()
    assert as_other(login.port) == 0  # the control: it is the socket unit that keeps him out


def test_start_stop_and_restart_go_through_the_unit(login: Login) -> None:
    """Stop closes the sockets, so that nothing starts it again; restart keeps them; what a unit cannot take is told."""
    login.install()
    started = login.run("vaultd", "start")
    first = login.pid()
    inode = (login.runtime / "vaultd/control.sock").stat().st_ino
    restarted = login.run("vaultd", "restart", "--debug")
    second = login.pid()

    assert (started.status, restarted.status) == (0, 0), (started, restarted)
    assert login.said(started)[1].startswith("vaultd 0.1.0 serves on http://127.0.0.1:PORT (pid N)\nstore: ")
    assert login.runs()
    assert first != second
    assert (login.runtime / "vaultd/control.sock").stat().st_ino == inode
    assert " DEBUG " in (login.state / "vaultd.log").read_text()
    assert "VAULTD_ONCE" not in login.ctl("show-environment").out
    refused = login.run("vaultd", "restart", "--port", "9999")
    assert refused.status == 78
    assert "type `vaultd service install` and `vaultd restart`" in refused.err
    assert login.pid() == second
    assert login.said(login.run("vaultd", "stop")) == (
        0,
        "vaultd (pid N) has stopped; the sockets of vaultd.socket are closed until `vaultd start` or the next login\n",
    )  # fmt: skip
    assert login.shown("vaultd.socket", "ActiveState") == "inactive"
    assert login.client("status").status == 69
    with pytest.raises(ConnectionRefusedError):
        knock(login.port)
    assert login.run("vaultd", "stop").out == "vaultd is not running\n"
    assert login.run("vaultd", "restart").status == 0
    assert login.runs()


def test_a_daemon_without_units_is_handed_over(login: Login) -> None:
    """Install stops nobody: it says that `restart` hands over, and that does."""
    assert login.run("vaultd", "start").status == 0
    before = login.client("status").out
    installed = login.install()
    assert login.said(installed)[1].endswith("vaultd (pid N) still runs without its units: type `vaultd restart`\n")
    assert login.client("status").out == before
    status = login.said(login.run("vaultd", "status"))[1]
    assert status.endswith(", without vaultd.socket: type `vaultd restart`\n")

    assert login.shown("vaultd.socket", "UnitFileState") == "enabled", "from the next login on they are held anyhow"
    looked = login.said(login.run("vaultd", "service", "status"))[1]
    assert looked.endswith("vaultd: runs without its units (pid N)\nnext: vaultd restart\n")

    assert login.run("vaultd", "restart").status == 0
    assert login.runs()
    assert login.said(login.run("vaultd", "status"))[1].endswith(", run by systemd\n")


def test_a_crash_is_followed_by_a_start(login: Login) -> None:
    """SIGKILL: the port stays the user's, and a connection made meanwhile is answered by the next daemon."""
    login.install()
    assert login.run("vaultd", "start").status == 0
    first = login.pid()
    os.kill(first, signal.SIGKILL)

    assert as_other(login.port) == errno.EADDRINUSE
    assert login.client("status").status == 0
    assert login.ran_by_unit() != first
    assert int(login.shown("vaultd.service", "NRestarts")) == 1


def test_a_keeper_that_dies_is_not_the_units_end(login: Login) -> None:
    """Its daemon goes on and starts another; systemd leaves that to it, also where the kernel was out of memory."""
    login.install()
    assert login.run("vaultd", "start").status == 0
    daemon, keeper = login.pid(), login.client("status", "--json").json()["keeper_pid"]
    os.kill(keeper, signal.SIGKILL)

    until(lambda: login.client("status", "--json").json()["keeper_pid"] not in {keeper, daemon}, "another one is there")
    assert (login.pid(), login.shown("vaultd.service", "NRestarts")) == (daemon, "0")
    assert login.shown("vaultd.service", "OOMPolicy") == "continue"


def test_a_hung_daemon_is_killed_and_started_again(login: Login) -> None:
    """The watchdog: SIGSTOP is a loop that never turns. Before that it lives on for more than its time, being fed."""
    login.install()
    login.drop_in("vaultd.service.d/short.conf", SHORT)
    assert login.run("vaultd", "start").status == 0
    first = login.pid()
    began = login.shown("vaultd.service", "WatchdogTimestampMonotonic")
    until(
        lambda: int(login.shown("vaultd.service", "WatchdogTimestampMonotonic")) > int(began) + 3_000_000,
        "it is fed beyond the 2 s that it has",
    )
    assert login.pid() == first
    os.kill(first, signal.SIGSTOP)

    until(lambda: not alive(first), "the watchdog ends it")
    assert login.ran_by_unit(other_than=first) != first
    assert login.shown("vaultd.service", "NRestarts") == "1"


def test_the_service_managers_credential_opens_the_store(login: Login) -> None:
    """VAULTD_PASSPHRASE_FILE at the install becomes LoadCredential=: a start, and a crash, need nobody."""
    passphrase = login.directory / "passphrase"
    assert f"LoadCredential=vaultd-passphrase:{passphrase}" in login.install(VAULTD_PASSPHRASE_FILE=str(passphrase)).out
    made = login.client("unlock", "--stdin", stdin=PASSPHRASE + "\n")
    assert (made.status, login.run("vaultd", "restart").status) == (0, 0), made
    assert login.said(login.run("vaultd", "status"))[1].endswith(", unlocked, run by systemd\n")
    first = login.pid()
    environ = Path(f"/proc/{first}/environ").read_bytes()
    assert PASSPHRASE.encode() not in environ
    assert b"LISTEN_FDNAMES=vaultd:vaultd" in environ
    os.kill(first, signal.SIGKILL)

    login.ran_by_unit(other_than=first)
    assert "unlocked" in login.run("vaultd", "status").out


def test_a_passphrase_file_that_is_gone_starts_it_locked(login: Login) -> None:
    """interface.md §2: a stick that was pulled out is no reason to start the daemon in a circle for ever."""
    passphrase = login.directory / "passphrase"
    login.install(VAULTD_PASSPHRASE_FILE=str(passphrase))
    passphrase.rename(aside := passphrase.with_name("aside"))
    started = login.run("vaultd", "start")

    assert started.status == 0, (started, login.log())
    said = login.client("status", "--json").json()
    assert (said["locked"], login.shown("vaultd.service", "NRestarts")) == (True, "0")
    assert "LoadCredential=" in said["locked_reason"]
    assert login.client("unlock", "--stdin", stdin=PASSPHRASE + "\n").status == 0
    aside.rename(passphrase)
    assert login.run("vaultd", "restart").status == 0
    assert login.said(login.run("vaultd", "status"))[1].endswith(", unlocked, run by systemd\n"), "control"
    passphrase.chmod(0)  # nor does one that cannot be read, where systemd has nothing to put in its place
    assert login.run("vaultd", "restart").status == 1
    assert login.shown("vaultd.service", "ActiveState") == "failed", "it waits for the next use"


def _asked(port: int, times: int) -> int:
    """How many of so many clients, one after the other, are turned away: closed once a start has failed."""
    for done in range(times):
        with closing(socket.socket()) as sock:
            sock.settimeout(30)
            if sock.connect_ex(("127.0.0.1", port)):
                return done
            with suppress(ConnectionResetError):
                sock.recv(1)
    return times


def test_a_daemon_that_cannot_start_is_tried_again_by_the_next_client(login: Login) -> None:
    """A typing error in config.toml: who connects is turned away, nothing is tried without him, nobody gets the port;
    `start` names the line, and once that is mended the next client is served.
    """
    login.install()
    login.settings("nonsense = 1\n")
    login.own()
    assert _asked(login.port, 2) == 2
    assert as_other(login.port) == errno.EADDRINUSE
    assert login.shown("vaultd.service", "ActiveState") == "failed"
    assert login.shown("vaultd.service", "NRestarts") == "0"
    told = login.run("vaultd", "start")
    assert (told.status, "config.toml:3" in told.err) == (78, True), told

    login.settings()
    login.own()
    assert login.client("status").status == 0
    login.ran_by_unit()


@pytest.mark.parametrize(
    "limit",
    [
        "",
        "vaultd.service.d/limit.conf:[Unit]\nStartLimitIntervalSec=600\nStartLimitBurst=5\n",
        "vaultd.socket.d/limit.conf:[Socket]\nTriggerLimitIntervalSec=600\nTriggerLimitBurst=20\n",
    ],
)
def test_no_limit_gives_the_port_away(login: Login, limit: str) -> None:
    """40 starts of a daemon that ends at once (its Python is gone): the port stays the user's. The controls are
    systemd's own limits, of starts and of activations: at either it closes the socket, and another user has the port.
    """
    login.install()
    login.drop_in("vaultd.service.d/gone.conf", "[Service]\nExecStart=\nExecStart=/bin/sh -c 'exit 78'\n")
    if limit:
        login.drop_in(*limit.split(":", 1))
        assert login.ctl("restart", "vaultd.socket").status == 0

    if limit:
        assert _asked(login.port, 400) < 400  # who comes while one start ends is turned away with it
        until(lambda: as_other(login.port) == 0, "the port is anybody's")
    else:
        starts = set[str]()
        for _ in range(400):  # clients that come while one start ends share it
            assert _asked(login.port, 1) == 1
            starts.add(login.shown("vaultd.service", "InvocationID"))
            if len(starts) == 40:
                break
        assert len(starts) == 40
        assert as_other(login.port) == errno.EADDRINUSE


def test_uninstall_leaves_nothing(login: Login) -> None:
    """Stopped, disabled, removed; then the plain way works again."""
    login.install()
    assert login.run("vaultd", "start").status == 0
    pid = login.pid()
    assert login.said(login.install("--strict"))[1].endswith(
        "vaultd (pid N) goes on as it was: type `vaultd restart`\n"
    )
    assert login.run("vaultd", "service", "status").status == 0
    gone = login.run("vaultd", "service", "uninstall")

    assert gone.status == 0, gone
    assert not alive(pid)
    assert [path for path in login.units.rglob("*") if not path.is_dir()] == []
    assert login.run("vaultd", "service", "status").status == 1
    assert login.run("vaultd", "start").status == 0
    assert login.run("vaultd", "stop").status == 0


@pytest.mark.parametrize("name", ["vaultd.socket", "vaultd.service"])
def test_uninstall_goes_on_from_a_unit_that_was_edited_and_removed(login: Login, name: str) -> None:
    """What is said to type leads to the end: nothing runs, nothing is enabled, nothing of ours is there."""
    login.install()
    assert login.run("vaultd", "start").status == 0
    pid, path = login.pid(), login.units / name
    path.write_text(path.read_text() + "# mine\n")
    refused = login.run("vaultd", "service", "uninstall")
    assert (refused.status, f"run `rm {path}`, then type the same again" in refused.err) == (78, True), refused
    assert alive(pid)
    path.unlink()
    gone = login.run("vaultd", "service", "uninstall")

    assert gone.status == 0, gone
    assert not alive(pid)
    assert [each for each in login.units.rglob("*") if not each.is_dir()] == []
    assert as_other(login.port) == 0
    assert login.run("vaultd", "service", "uninstall").out == "no units of vaultd are installed\n"


@pytest.mark.parametrize("credential", [True, False])
def test_the_strict_drop_in_runs_the_daemon(credential: bool) -> None:
    """It serves from inside a user namespace: files, locks, sockets and the peer check work. Which program a client is,
    it cannot see; its comment says so.
    """
    with ExitStack() as stack:
        if credential:
            stack.enter_context(root_of_credentials())
        login = stack.enter_context(Login.begun("/run"))  # PrivateTmp hides /tmp
        login.install("--strict", VAULTD_PASSPHRASE_FILE=str(login.directory / "passphrase") if credential else "")
        login.drop_in("vaultd.service.d/checkout.conf", f"[Service]\n{CHECKOUT}\n")
        started = login.run("vaultd", "start")
        assert started.status == 0, (started, login.log())
        assert Path(f"/proc/{login.pid()}/uid_map").read_text().split() == ["1", "1", "1"]
        unlocked = login.client("unlock", "--stdin", stdin=PASSPHRASE + "\n")
        assert unlocked.status == 0, unlocked
        url = (
            "-s",
            "--noproxy",
            "*",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            f"http://127.0.0.1:{login.port}/healthz",
        )
        stranger = ("setpriv", f"--reuid={OTHER_UID}", f"--regid={OTHER_UID}", "--clear-groups", "curl", *url)
        assert login.run("curl", *url).out == "200"
        assert subprocess.run(stranger, capture_output=True, text=True, check=False).stdout == "000"
        peers = [
            line["peer"] for line in login.audit() if line["event"] == "unlock"
        ]  # with a credential nobody need do it
        assert [(peer["uid"], peer["exe"]) for peer in peers] == ([] if credential else [(1, None)])
        before = login.pid()
        assert login.run("vaultd", "restart").status == 0
        assert login.said(login.run("vaultd", "status"))[1].count(", unlocked") == credential
        assert login.pid() != before


def test_the_whole_way_works_inside_the_sandbox(login: Login) -> None:
    """A key, a code, a role and an SDK's GET: boto3, cryptography and the file store under every directive."""
    with Emulator.running() as emulator:
        login.install(**emulator.env, VAULTD_PASSPHRASE_FILE=str(login.directory / "passphrase"))
        added = login.add(emulator)
        used = login.client("use", "web-admin", "--shell", "sh", "--token-code", emulator.code())
        assert (added.status, used.status) == (0, 0), (added, used)
        token = variables(used.out)["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
        url = f"http://127.0.0.1:{login.port}/v1/credentials/web-admin"
        served = login.run("curl", "-s", "--noproxy", "*", "-H", f"Authorization: {token}", url)
        assert served.json()["RoleArn"] == "arn:aws:iam::234567890123:role/WebAdmin"
        assert login.shown("vaultd.service", "Result") == "success"
        served_to = next(line["peer"] for line in login.audit() if line["event"] == "grant.create")
        assert served_to["exe"] is not None
