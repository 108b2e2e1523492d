"""The daemon's own process: what it loads and in what order, what `vaultd start` is told, how it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.process.harness import PASSPHRASE, Emulator, Home, until

_SCRIPT = """
import json, os, sys
from vaultd.lifecycle import foreground
assert "aiohttp" not in sys.modules, "aiohttp came before the keeper"
os.environ["SSL_CERT_FILE"] = "/somebody/chose.pem"
foreground._import_web()
import aiohttp.connector
print(json.dumps({
    "file": os.environ.get("SSL_CERT_FILE"), "directory": os.environ.get("SSL_CERT_DIR"),
    "certificates": len(aiohttp.connector._SSL_CONTEXT_VERIFIED.get_ca_certs()),
    "boto": sorted(name for name in sys.modules if name.partition(".")[0] in {"boto3", "botocore", "keyring"}),
}))
"""


def test_web_is_imported_without_certificates_and_leaves_no_trace() -> None:
    """The unused client of aiohttp gets no CA certificates (2 MB, 50 ms of the start); the user's own choice of them is
    back afterwards. Neither boto3 nor the keyring is loaded by then (issue 3, speed).
    """
    done = subprocess.run([sys.executable, "-I", "-c", _SCRIPT], capture_output=True, text=True, env={}, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "file": "/somebody/chose.pem",
        "directory": None,
        "certificates": 0,
        "boto": [],
    }


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path)


def _log(home: Home) -> str:
    return (home.state / "vaultd.log").read_text()


@pytest.mark.process
def test_a_second_start_says_that_it_runs(home: Home) -> None:
    """interface.md §2: already running: says so, exit 0; two at once end the same way."""
    with home.daemon():
        again = home.run("vaultd", "start")
        assert (again.status, again.err) == (0, "")
        assert again.out == f"vaultd is already running (pid {home.pid()}) on http://127.0.0.1:{home.port}\n"
        other = home.run("vaultd", "start", "--foreground")
        assert other.status == 1
        lock = home.directory / "vaultd/run/vaultd.lock"
        assert f"vaultd: another vaultd holds {lock}: type `vaultd status`" in other.err.splitlines()


@pytest.mark.process
def test_two_starts_at_once_are_one(home: Home) -> None:
    """The one that finds the lock held waits for the other to serve, and says so: both exit 0."""
    command = [str(Path(sys.executable).with_name("vaultd")), "start"]
    both = [subprocess.Popen(command, env=home.env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(each.communicate(timeout=60)[0].split(" ", 3)[2] for each in both)
    try:
        assert [each.returncode for each in both] == [0, 0]
        assert said[0] in {"already", "serves"}
        assert "serves" in said
    finally:
        home.stop()


@pytest.mark.process
def test_a_runtime_directory_of_a_session_that_ended(home: Home, tmp_path: Path) -> None:
    """78, naming the variable; and nothing is made, in its place or elsewhere."""
    variables = {"VAULTD_HOME": "", "XDG_RUNTIME_DIR": str(tmp_path / "gone"), "XDG_STATE_HOME": str(tmp_path / "s")}
    variables |= {"XDG_CONFIG_HOME": str(tmp_path / "c"), "XDG_DATA_HOME": str(tmp_path / "d")}
    started = home.run("vaultd", "start", environment=variables)

    assert (started.status, started.out) == (78, "")
    assert started.err.startswith(f"vaultd: XDG_RUNTIME_DIR names {tmp_path}/gone, which is no directory: type `unset ")
    assert not (tmp_path / "gone").exists()
    assert not (tmp_path / "s").exists()


@pytest.mark.process
@pytest.mark.needs("root")
def test_the_callers_secrets_are_not_given_to_the_daemon(home: Home) -> None:
    """What a process is started with stays in /proc/PID/environ for its life, whatever it drops later. Controls: what
    the contract reads is there, and the canary was the caller's.
    """
    home.extra.update(
        AWS_SECRET_ACCESS_KEY="canary-key", AWS_SESSION_TOKEN="canary-token", UNRELATED="canary-other", NO_PROXY="corp"
    )
    assert "AWS_SECRET_ACCESS_KEY=canary-key" in home.run("env").out
    with home.daemon():
        environ = Path(f"/proc/{home.pid()}/environ").read_bytes()

    assert b"canary" not in environ
    assert b"NO_PROXY=corp\0" in environ
    assert f"VAULTD_HOME={home.directory}/vaultd\0".encode() in environ


@pytest.mark.process
@pytest.mark.needs("root")
def test_the_background_daemon_is_isolated(home: Home, tmp_path: Path) -> None:
    """security.md §2.2 item 20: `python -I`, away from the directory where it was started, with no stream of the
    caller's. Control: the caller was there, and had streams.
    """
    home.inside = ("sh", "-c", 'cd "$0" && exec "$@"', str(tmp_path))
    assert home.run("pwd").out == f"{tmp_path}\n"
    with home.daemon():
        place = Path(f"/proc/{home.pid()}")
        words = place.joinpath("cmdline").read_bytes().split(b"\0")
        streams = {str(place.joinpath("fd", name).readlink()) for name in "012"}
        where = place.joinpath("cwd").readlink()

    assert words[1:5] == [b"-I", b"-m", b"vaultd", b"start"]
    assert (where, streams) == (Path("/"), {os.devnull})


@pytest.mark.process
@pytest.mark.parametrize(("arguments", "variables"), [(["--debug"], {}), ([], {"VAULTD_LOG": "debug"}), ([], {})])
def test_debug_by_flag_or_variable(home: Home, arguments: list[str], variables: dict[str, str]) -> None:
    """`VAULTD_LOG=debug` = `--debug`; control: without either no debug line is written."""
    home.extra.update(variables)
    home.extra["VAULTD_STORE"] = "auto"  # looks for a keyring, and says at debug why it is none
    with home.daemon(*arguments):
        pass
    assert (" DEBUG " in _log(home)) == bool(arguments or variables)


@pytest.mark.process
def test_a_settings_file_that_is_not_there(home: Home) -> None:
    """--config FILE: 78 and one sentence; nothing is left running."""
    started = home.run("vaultd", "start", "--config", "/nowhere/config.toml")

    assert (started.status, started.out) == (78, "")
    assert started.err == "vaultd: there is no /nowhere/config.toml: correct the path after --config\n"


@pytest.mark.process
def test_the_remedy_of_a_rollback_works_while_it_runs_and_while_it_does_not(home: Home) -> None:
    """StoreRolledBack ends in `vaultd start --accept-rollback`: typed, it opens the store, locked daemon or none."""
    sealed = home.directory / "vaultd/data/secrets.sealed"
    older = home.directory / "older"
    passphrase = home.extra["VAULTD_PASSPHRASE_FILE"]
    with home.daemon():
        shutil.copy(sealed, older)
    (home.state / "secrets.seen").write_text(json.dumps({"file": _uuid(home), "generation": 7}) + "\n")
    refused = home.run("vaultd", "start")
    assert refused.status == 78
    assert refused.err.endswith("restore the newer one, or run `vaultd start --accept-rollback`.\n")
    home.extra["VAULTD_PASSPHRASE_FILE"] = ""
    with home.daemon():  # no passphrase: it starts locked, and finds out at unlock
        phrase = Path(passphrase).read_text()
        unlocked = home.client("unlock", "--stdin", stdin=phrase)
        assert unlocked.status == 78
        assert unlocked.err.endswith("restore the newer one, or run `vaultd start --accept-rollback`.\n")
        accepted = home.run("vaultd", "start", "--accept-rollback")
        assert (accepted.status, accepted.err) == (0, "")
        assert "the store is taken as it is found; next: " in accepted.out
        assert home.client("unlock", "--stdin", stdin=phrase).status == 0
        assert json.loads(home.run("vaultd", "status", "--json").out)["locked"] is False


@pytest.mark.process
def test_a_store_that_is_given_up_on_a_terminal_says_whose_key_is_next(home: Home) -> None:
    """The passphrase is asked for here, so what only an open store tells is told after it: whose key is wanted."""
    with Emulator.running() as emulator, home.daemon():
        home.extra.update(emulator.env)
        assert home.run("vaultd", "restart").status == 0
        assert home.add(emulator).status == 0
    (home.directory / "vaultd/data/secrets.sealed").unlink()
    home.extra["VAULTD_PASSPHRASE_FILE"] = ""
    try:
        with home.terminal("vaultd", "start", "--accept-rollback") as child:
            for asked in ("New passphrase for vaultd's store: ", "The same passphrase again: "):
                child.expect_exact(asked)
                child.sendline(PASSPHRASE)
            child.expect_exact("warning: the store holds no key for identity identity; run ")
            child.expect_exact("next: vault-client add identity --replace\r\n")
            assert child.read() == ""
    finally:
        home.stop()


def _uuid(home: Home) -> str:
    return str(json.loads((home.state / "secrets.seen").read_text())["file"])


@pytest.mark.process
def test_an_allowed_program_that_is_not_there_is_told_at_the_start(home: Home) -> None:
    """It lets nobody in, and who wrote it is there to read it; control: one that is there."""
    settings = home.directory / "vaultd/config/config.toml"
    good = settings.read_text()
    wanted = {"/no/such": True, "/bin/sh": False}
    for path, told in wanted.items():
        settings.write_text(f'{good}[profiles.web-admin]\nallow_executables = ["{path}"]\n')
        started = home.run("vaultd", "start")
        home.stop()
        assert (f"warning: [profiles.web-admin] allow_executables lets nobody in by '{path}'" in started.out) is told


#: And its exit status where the daemon hangs.
_TYPED = {"status": 69, "status --json": 69, "start": 69, "restart": 69, "check": 1, "check --audit": 0, "stop": 1}


@pytest.mark.process
def test_a_daemon_that_does_not_answer_is_not_called_stopped(home: Home) -> None:
    """Every command names the process that holds the home and sends its reader to `stop`, which says what ends it."""
    with home.daemon():
        pid = home.pid()
        said = f"vaultd (pid {pid}) runs but does not answer: type "
        os.kill(pid, signal.SIGSTOP)
        try:
            with ThreadPoolExecutor() as at_once:  # each waits for an answer
                ran = at_once.map(lambda name: home.run("vaultd", *name.split()), _TYPED)
                typed = dict(zip(_TYPED, ran, strict=True))
        finally:
            os.kill(pid, signal.SIGCONT)
        assert {name: each.status for name, each in typed.items()} == _TYPED
        assert typed["stop"].err == f"vaultd: {said}`vaultd logs`, then `kill -9 {pid}`\n"
        assert [typed[name].err for name in ("start", "restart")] == [f"vaultd: {said}`vaultd stop`\n"] * 2
        assert typed["status"].out == f"{said}`vaultd stop`\n"
        unknown = {"port": None, "version": None, "locked": None}
        told = {"running": True, "pid": pid, **unknown, "message": f"{said}`vaultd stop`"}
        assert json.loads(typed["status --json"].out) == told
        assert typed["check --audit"].out.endswith(f"; where it should end is not known: {said}`vaultd stop`\n")
        assert f"{said}`vaultd stop`".replace(": type", "\n                  → type") in typed["check"].out
        assert [home.run("vaultd", *name.split()).status for name in _TYPED] == [0] * len(_TYPED), "control: it answers"


@pytest.mark.process
def test_who_starts_may_leave_before_it_serves(home: Home) -> None:
    """The pipe to `vaultd start` is closed when READY comes: the daemon serves all the same."""
    reading, writing = os.pipe()
    command = [sys.executable, "-I", "-m", "vaultd", "start", "--foreground", "--ready-fd", str(writing)]
    process = subprocess.Popen(command, env=home.env, pass_fds=(writing,), stdout=subprocess.DEVNULL)
    os.close(writing)
    os.close(reading)
    try:
        until(lambda: home.run("vaultd", "status").status == 0, "it serves")
    finally:
        process.terminate()
    assert process.wait(30) == 0
    assert not (home.directory / "vaultd/run/endpoint.json").exists()


_DYING = """
import asyncio, sys
from vaultd.lifecycle import foreground
from vaultd.engine.refresher import Refresher
async def run(self): raise RuntimeError("broken on purpose")
Refresher.run = run
sys.exit(foreground.main(port=None, config=None, debug=False, accept_rollback=False, ready_fd=None))
"""


@pytest.mark.process
def test_a_dead_task_ends_the_process_with_a_logged_error(home: Home) -> None:
    """architecture.md §8.7: exit ≠ 0, the traceback in the log, nothing left in the run directory."""
    done = home.run(sys.executable, "-I", "-c", _DYING)

    assert done.status == 1
    assert done.err.splitlines()[-1] == (
        "vaultd: vaultd made an error and has stopped: type `vaultd logs`, then `vaultd start`"
    )
    assert "die daemon" in _log(home)
    assert "RuntimeError" in _log(home)
    assert {each.name for each in (home.directory / "vaultd/run").iterdir()} == {"grants", "vaultd.lock"}
