"""Starts, stops and restarts as a person may type them: from two sessions, with closed or full streams, with Ctrl-C."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.harness import BIN, PASSPHRASE, Home, free_port, short_directory
from vaultd import __version__, cli
from vaultd.command import running, spawning, starting, usage

pytestmark = pytest.mark.process

VAULTD = str(BIN / "vaultd")


@pytest.fixture
def home() -> Iterator[Home]:
    with short_directory() as directory:
        made = Home.make(directory)
        yield made
        made.stop()


def shell(home: Home, line: str, **more: str) -> subprocess.CompletedProcess[str]:
    """A line of sh, since streams are closed and piped there."""
    env = {**home.env, **more}
    return subprocess.run(["/bin/sh", "-c", line], env=env, capture_output=True, text=True, timeout=90, check=False)


def status(home: Home, **more: str) -> dict[str, object]:
    found: dict[str, object] = home.run("vaultd", "status", "--json", environment=more).json()
    return found


def set_port(home: Home, port: int) -> None:
    (home.directory / "vaultd/config/config.toml").write_text(f"[listen]\nport = {port}\n")


# ---- one daemon a state directory ----


@pytest.fixture
def sessions(home: Home) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """A login, another login, and cron, on one HOME without VAULTD_HOME."""
    named = []
    for name in ("r1", "r2"):
        (home.directory / name).mkdir(mode=0o700)
        named.append({"VAULTD_HOME": "", "XDG_RUNTIME_DIR": str(home.directory / name)})
    return named[0], named[1], {"VAULTD_HOME": "", "XDG_RUNTIME_DIR": ""}


def test_a_second_session_starts_no_second_daemon(home: Home, sessions: tuple[dict[str, str], ...]) -> None:
    """Another XDG_RUNTIME_DIR is another run directory, but the same audit chain and store: refused, naming the daemon,
    the directory and what to type; typed, it works.
    """
    one, two, cron = sessions
    port = str(free_port())
    assert home.run("vaultd", "start", "--port", port, environment=one).status == 0
    try:
        pid = status(home, **one)["pid"]
        said = (
            f"your vaultd (pid {pid}) runs with another XDG_RUNTIME_DIR, {one['XDG_RUNTIME_DIR']}: "
            f"type `export XDG_RUNTIME_DIR={one['XDG_RUNTIME_DIR']}`, then the same again"
        )
        for other in (two, cron):
            for command in (["start", "--port", str(free_port())], ["stop"], ["restart"]):
                refused = home.run("vaultd", *command, environment=other)
                assert (refused.status, refused.out, refused.err) == (1, "", f"vaultd: {said}\n"), command
            asked = home.run("vaultd", "status", environment=other)
            assert (asked.status, asked.out) == (69, f"{said}\n")
            unknown = {"port": None, "version": None, "locked": None}
            assert status(home, **other) == {"running": True, "pid": pid, **unknown, "message": said}
            # On the very port that it holds: the cause is the run directory, and no other home.
            taken = home.run("vaultd", "restart", "--port", port, environment=other)
            assert (taken.status, taken.err) == (1, f"vaultd: {said}\n")
            checked = {
                each["name"]: each for each in home.run("vaultd", "check", "--json", environment=other).json()["checks"]
            }
            assert f"{checked['daemon']['message']}: {checked['daemon']['remedy']}" == said
        assert status(home, **one)["pid"] == pid
    finally:
        home.run("vaultd", "stop", environment=one)
    assert home.run("vaultd", "status", environment=two).out == "vaultd is not running: type `vaultd start`\n"
    assert home.run("vaultd", "start", "--port", port, environment=cron).status == 0, "control: it has ended"
    without = home.run("vaultd", "start", "--port", port, environment=two)
    stopped = home.run("vaultd", "stop", environment=cron)
    assert without.err.endswith("type `unset XDG_RUNTIME_DIR`, then the same again\n")
    assert stopped.status == 0


def test_a_daemon_whose_run_directory_went(home: Home, sessions: tuple[dict[str, str], ...]) -> None:
    """A logout may remove it: the daemon cannot be reached any more, so what is typed is `kill`."""
    one = sessions[0]
    assert home.run("vaultd", "start", "--port", str(free_port()), environment=one).status == 0
    pid = int(str(status(home, **one)["pid"]))
    for name in ("vaultd.lock", "control.sock"):
        (home.directory / "r1/vaultd" / name).unlink()
    refused = home.run("vaultd", "start", environment=one)
    assert refused.status == 1
    assert refused.err.endswith(f"type `kill {pid}`, then `vaultd start`\n")
    assert shell(home, f"kill {pid}; while kill -0 {pid}; do sleep 0.05; done").returncode == 0
    assert home.run("vaultd", "status", environment=sessions[1]).out == "vaultd is not running: type `vaultd start`\n"


def test_a_holder_that_died_holds_nothing(home: Home) -> None:
    """What running.json says of a process that is gone is not believed, and the next start serves."""
    with home.daemon():
        home.kill()
        asked = home.run("vaultd", "status")
        assert (asked.status, asked.out) == (69, "vaultd is not running: type `vaultd start`\n")
        assert home.run("vaultd", "start").status == 0


# ---- streams ----


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(home: Home, closed: str) -> None:
    """Every command does what it does with its streams open; `start` returns when it serves."""
    wanted = {"start": 0, "restart": 0, "status": 0, "check": 0, "logs": 0, "stop": 0}
    for command, exit_status in wanted.items():
        done = shell(home, f"{VAULTD} {command} {closed}")
        assert (done.returncode, "Traceback" in done.stderr) == (exit_status, False), (command, done)
        assert status(home)["running"] is (command != "stop")
    assert shell(home, f"{VAULTD} status {closed}").returncode == 69


@pytest.mark.parametrize("closed", ["<&-", "<&- >&- 2>&-"])
def test_closed_streams_in_the_foreground(home: Home, closed: str) -> None:
    """No socket takes the number of a standard stream: uvloop asserts it, and prints would go into it."""
    line = (
        f"{VAULTD} start --foreground {closed} & until {VAULTD} status >/dev/null; do sleep 0.05; done; "
        f"readlink /proc/$!/fd/0; {VAULTD} stop; wait $!"
    )
    done = shell(home, line)
    assert done.returncode == 0, done
    assert done.stdout.startswith("/dev/null\nvaultd (pid ")


@pytest.mark.parametrize(
    ("command", "exit_status"),
    [("start", 0), ("status", 1), ("check", 1), ("restart", 0), ("--help", 1), ("--version", 1), ("stop", 0)],
)
def test_a_full_stdout(home: Home, command: str, exit_status: int) -> None:
    """One sentence; what was done counts, what was only to be shown is not done."""
    home.run("vaultd", "start")
    done = shell(home, f"{VAULTD} {command} >/dev/full")
    assert done.returncode == exit_status
    assert done.stderr.startswith("vaultd: the output cannot be written (No space left on device), ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["status", "check", "logs -f", "restart", "--help"])
def test_a_reader_that_left(home: Home, command: str) -> None:
    """Quiet, and over: as SIGPIPE would have it, or what was done."""
    with home.daemon():
        done = shell(home, f"{{ {VAULTD} {command}; echo $? >&2; }} | head -0; {VAULTD} status >/dev/null")
    assert (done.returncode, done.stderr) == (0, f"{0 if command == 'restart' else 141}\n")


@pytest.mark.parametrize(
    "variables", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_no_character_is_too_strange(home: Home, variables: dict[str, str]) -> None:
    """A terminal that knows ASCII only is shown escapes."""
    (home.directory / ".aws/config").unlink()  # its remedy has an arrow
    done = home.run("vaultd", "check", environment=variables)
    assert (done.status, done.err) == (1, "")
    assert "write `[profile NAME]`" in done.out
    assert "\\u2192" in done.out


# ---- Ctrl-C ----


def test_ctrl_c_at_the_passphrase(home: Home) -> None:
    """130, no traceback, and one sentence: it runs locked, and `unlock` goes on. So after a wrong one."""
    with home.daemon():
        pass
    home.extra["VAULTD_PASSPHRASE_FILE"] = ""
    with home.terminal("vaultd", "start") as child:
        child.expect_exact("Passphrase of vaultd's store: ")
        child.sendintr()
        child.expect(r"vaultd: vaultd \(pid \d+\) runs locked, and `vault-client unlock` goes on from here\r\n")
        assert child.read() == ""
        child.close()
        assert child.exitstatus == 130
    assert status(home)["locked"] is True
    home.run("vaultd", "stop")
    for _ in range(6):  # a wrong one takes 0.1 s to be told: the key may come anywhere in it
        with home.terminal("vaultd", "restart") as child:
            child.expect_exact("Passphrase of vaultd's store: ")
            child.sendline("wrong")
            child.sendintr()
            said = child.read()
            child.close()
        assert "Traceback" not in said
        assert child.exitstatus in {0, 130}
        if child.exitstatus:
            assert said.endswith("runs locked, and `vault-client unlock` goes on from here\r\n")
    with home.terminal("vaultd", "restart") as child:  # control: the right one opens it
        child.expect_exact("Passphrase of vaultd's store: ")
        child.sendline(PASSPHRASE)
        child.expect_exact("next: vault-client add IDENTITY")


def test_ctrl_c_before_anything_starts(home: Home) -> None:
    """While it asks whether one runs already: 130, and nothing else."""
    with socket.socket(socket.AF_UNIX) as never:  # what starts first asks whether one runs; this one does not answer
        (home.directory / "vaultd/run").mkdir(mode=0o700)
        never.bind(str(home.directory / "vaultd/run/control.sock"))
        never.listen()
        with home.terminal("vaultd", "start") as child:
            accepted, _ = never.accept()
            with accepted:
                child.sendintr()
                said = child.read()
                child.close()
    assert (child.exitstatus, "Traceback" in said) == (130, False)


def test_ctrl_c_while_it_starts(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The daemon is not the terminal's: it goes on, and the person is told."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(spawning, "first_line", interrupted)
    monkeypatch.setattr(subprocess, "Popen", lambda *_args, **_options: None)
    monkeypatch.setenv("VAULTD_HOME", str(home.directory / "vaultd"))
    assert cli.main(["start"]) == 130
    assert capsys.readouterr().err == "\nvaultd: vaultd goes on starting in the background: type `vaultd status`\n"


# ---- restart ----


def test_a_restart_that_would_not_come_up_stops_nothing(home: Home) -> None:
    """Bad settings, a passphrase file that is away, a port that is taken: said, and the old daemon goes on."""
    settings = home.directory / "vaultd/config/config.toml"
    phrase = Path(home.extra["VAULTD_PASSPHRASE_FILE"])
    with home.daemon(), socket.create_server(("127.0.0.1", 0)) as other:
        pid, good = home.pid(), settings.read_text()
        kept = f"vaultd: nothing was stopped, vaultd (pid {pid}) goes on: "
        settings.write_text("[listen]\nprot = 1\n")
        refused = home.run("vaultd", "restart")
        assert (refused.status, refused.out) == (78, "")
        assert refused.err.startswith(f"{kept}{settings}:2: ")
        settings.write_text(good)
        phrase.rename(phrase.with_name("away"))
        refused = home.run("vaultd", "restart")
        assert (refused.status, refused.err.startswith(f"{kept}{phrase}, which VAULTD_")) == (78, True)
        phrase.with_name("away").rename(phrase)
        taken = other.getsockname()[1]
        refused = home.run("vaultd", "restart", "--port", str(taken))
        assert (refused.status, refused.err.startswith(f"{kept}Port {taken} is taken")) == (1, True)
        assert (home.pid(), status(home)["locked"]) == (pid, False)
        done = home.run("vaultd", "restart")  # control
        assert (done.status, home.pid() == pid, status(home)["locked"]) == (0, False, False)


def test_a_restart_keeps_the_port_that_it_was_told(home: Home) -> None:
    """--port, else the --port of the running daemon, else config.toml; a move is said; lines are in order in a pipe."""
    told, moved = free_port(), free_port()
    with home.daemon("--port", str(told)):
        for _ in range(2):
            assert home.run("vaultd", "restart").status == 0
            assert status(home)["port"] == told
        done = home.run("vaultd", "restart", "--port", str(moved))
        lines = [line.partition(" ")[0] for line in done.out.splitlines()[:3]]
        assert (status(home)["port"], lines) == (moved, ["vaultd", "it", "vaultd"])
        assert f"it moves from port {told} to {moved}, because --port says so: " in done.out
    with home.daemon():
        set_port(home, moved)
        done = home.run("vaultd", "restart")
        assert f"it moves from port {home.port} to {moved}, because [listen] port says so: " in done.out
        assert status(home)["port"] == moved
        assert "it moves" not in home.run("vaultd", "restart").out


def test_a_restart_keeps_the_settings_file_that_it_was_told(home: Home) -> None:
    """--config, else the --config of the running daemon, and says how to go back; gone, nothing is stopped."""
    port = free_port()
    other = home.directory / "other.toml"
    other.write_text(f"[listen]\nport = {port}\n")
    with home.daemon("--config", str(other)):
        for _ in range(2):
            done = home.run("vaultd", "restart")
            kept = f"it keeps --config {other}: to go back to config.toml, type `vaultd stop`, then `vaultd start`"
            assert (done.status, kept in done.out.splitlines(), status(home)["port"]) == (0, True, port)
        pid = status(home)["pid"]
        other.rename(home.directory / "moved.toml")
        gone = home.run("vaultd", "restart")
        assert (gone.status, status(home)["pid"]) == (78, pid)
        assert f"nothing was stopped, vaultd (pid {pid}) goes on: there is no {other}" in gone.err
        done = home.run("vaultd", "restart", "--config", str(home.directory / "moved.toml"))
        assert (done.status, "it keeps" in done.out) == (0, False), "typed, it is not said"
    with home.daemon():
        assert "it keeps" not in home.run("vaultd", "restart").out, "control: none was given"
        assert status(home)["port"] == home.port


def test_a_port_for_a_daemon_that_runs(home: Home) -> None:
    """It was ignored, is said, and how to move; its own port is no such thing. 0 both times."""
    with home.daemon():
        done = home.run("vaultd", "start", "--port", "80")
        assert done.status == 0
        assert done.out.endswith("\n--port 80 was ignored: to move it, type `vaultd restart --port 80`\n")
        same = home.run("vaultd", "start", "--port", str(home.port))
        assert (same.status, "ignored" in same.out) == (0, False)


def test_a_second_start_of_a_locked_daemon(home: Home) -> None:
    """It runs and serves nothing, so what opens it is the next step; unlocked there is none (control)."""
    with home.daemon():
        again = home.run("vaultd", "start")
        assert (again.status, len(again.out.splitlines())) == (0, 1)
        assert home.client("lock").status == 0
        again = home.run("vaultd", "start")
        assert again.status == 0
        assert again.out.endswith("\nnext: locked by `vault-client lock`: type `vault-client unlock`\n")


def test_a_second_start_after_an_upgrade(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The daemon goes on with the code that it was started with until a restart: said, and the way."""
    found = {"pid": 7, "port": 9169, "locked": False, "version": "0.0.1"}
    monkeypatch.setattr(running, "heard", lambda seconds: found)
    options = usage.parser().parse_args(["start"])

    assert starting.run(options) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"it is vaultd 0.0.1, and this is {__version__}: type `vaultd restart`"
    ]
    found["version"] = __version__
    assert starting.run(options) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1, "control"


def test_a_port_of_another_vaultd_of_ours(home: Home) -> None:
    """Named as such, with its pid, though a daemon's descriptors are nobody's to look at."""
    with home.daemon(), short_directory() as directory:
        other = Home.make(directory)
        refused = other.run("vaultd", "start", "--port", str(home.port))
        assert refused.status == 1
        assert f"Port {home.port} is taken by another vaultd of yours (pid {home.pid()})" in refused.err
