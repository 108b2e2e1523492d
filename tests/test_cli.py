"""The command line of `vaultd`, in this process: usage, what `status` says, the log across rotation, ends of processes.

What needs a daemon is in tests/process/test_messages.py.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vault_client.link import Link
from vaultd import __version__
from vaultd.cli import main
from vaultd.command import following, running, spawning, starting, usage
from vaultd.files import Files
from vaultd.layout import Layout
from vaultd.lifecycle.holding import Hold

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home in which no daemon runs."""
    monkeypatch.setenv("VAULTD_HOME", str(tmp_path / "v"))
    return tmp_path / "v"


def usage_of(arguments: list[str], capsys: Capture) -> tuple[object, str]:
    """Exit status and the last line of stderr of a command line that cannot be meant."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code, capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("port", ["0", "65536", "-1", "٩١٦٩", "9169.0", "http", ""])
def test_a_port_is_a_number_of_ascii_digits(port: str, capsys: Capture) -> None:
    """What is no port is exit 2 before anything starts, naming what it must be."""
    status, line = usage_of(["start", f"--port={port}"], capsys)

    assert status == 2
    assert line == f"vaultd start: error: argument --port: {port!r} is no port: give a number from 1 to 65535"


def test_a_good_port_passes() -> None:
    """Positive control: both ends of the range are ports."""
    assert [usage.port(text) for text in ("1", "9169", "65535")] == [1, 9169, 65535]


@pytest.mark.parametrize("arguments", [[], ["frobnicate"], ["start", "--frob"], ["stop", "now"]])
def test_wrong_usage_is_2(arguments: list[str], capsys: Capture) -> None:
    """As argparse says it, with the usage."""
    status, line = usage_of(arguments, capsys)

    assert status == 2
    assert line.startswith("vaultd")
    assert "error: " in line


@pytest.mark.parametrize(
    "command", [[], ["start"], ["restart"], ["stop"], ["status"], ["logs"], ["check"], ["service"]]
)
def test_every_command_has_help(command: list[str], capsys: Capture) -> None:
    """--help is exit 0, and says what the command is for; `--ready-fd` is between us and ourselves."""
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    shown = capsys.readouterr().out

    assert ended.value.code == 0
    assert shown.startswith(" ".join(["usage: vaultd", *command]))
    assert "ready-fd" not in shown


def test_version(capsys: Capture) -> None:
    """--version is that of the package."""
    with pytest.raises(SystemExit) as ended:
        main(["--version"])

    assert ended.value.code == 0
    assert capsys.readouterr().out == f"vaultd {__version__}\n"


def test_status_when_nothing_runs(capsys: Capture) -> None:
    """69, in words and as the contract's object."""
    assert main(["status"]) == 69
    assert capsys.readouterr() == ("vaultd is not running: type `vaultd start`\n", "")
    assert main(["status", "--json"]) == 69
    assert json.loads(capsys.readouterr().out) == {
        "running": False,
        "pid": None,
        "port": None,
        "version": __version__,
        "locked": None,
    }


@pytest.fixture
def hangs(home: Path) -> Iterator[None]:
    """A daemon that holds this home, takes connections and answers none: this process."""
    home.parent.chmod(0o700)
    layout = Layout.find({"VAULTD_HOME": str(home)})
    Files().make_dirs(layout)
    hold = Hold(Files(), layout)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(home / "run/control.sock"))
        server.listen()
        yield
    hold.release()


@pytest.mark.usefixtures("hangs")
def test_status_of_one_that_hangs(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """69, and it runs, in words and as the object; what only its answer would tell is null. Control: the one above."""
    call = Link.call
    monkeypatch.setattr(Link, "call", lambda *asked, **_: call(*asked, seconds=0.05))
    said = f"vaultd (pid {os.getpid()}) runs but does not answer: type `vaultd stop`"

    assert main(["status"]) == 69
    assert capsys.readouterr() == (f"{said}\n", "")
    assert main(["status", "--json"]) == 69
    told = {"running": True, "pid": os.getpid(), "port": None, "version": None, "locked": None, "message": said}
    assert json.loads(capsys.readouterr().out) == told


def test_stop_when_nothing_runs(capsys: Capture) -> None:
    """Exit 0: what was wanted is so."""
    assert main(["stop"]) == 0
    assert capsys.readouterr() == ("vaultd is not running\n", "")


def test_service_wants_to_know_what_to_do(capsys: Capture) -> None:
    """Exit 2, and what to type instead."""
    assert main(["service"]) == 2
    assert capsys.readouterr().err.endswith("type `vaultd service install`\n")


@pytest.mark.parametrize(
    ("words", "name", "where", "typed"),
    [
        ("install --ecs", "--ecs", " with --link-local", "--link-local PROFILE --ecs"),
        ("uninstall --link-local --ecs", "--ecs", " with --link-local", "--link-local PROFILE --ecs"),
        ("uninstall --strict", "--strict", "", "--strict"),
        ("install --link-local web --strict", "--strict", "", "--strict"),
        ("status --config /x", "--config", "", "--config FILE"),
    ],
)
def test_an_option_of_service_that_would_be_ignored(
    words: str, name: str, where: str, typed: str, capsys: Capture
) -> None:
    """Exit 2, naming it; nobody believes in a sandbox that was not installed."""
    assert main(["service", *words.split()]) == 2
    said = f"{name} counts for an install{where} only: leave it out, or type `vaultd service install {typed}`"
    assert capsys.readouterr() == ("", f"vaultd: {said}\n")


def test_a_link_local_install_without_its_profile(capsys: Capture) -> None:
    """Exit 2, and what to type."""
    assert main(["service", "install", "--link-local"]) == 2
    said = "--link-local needs the PROFILE that 169.254.169.254 is to serve"
    assert capsys.readouterr().err == f"vaultd: {said}: type `vaultd service install --link-local PROFILE`\n"


@pytest.mark.parametrize("words", ["install --strict --config /x", "install --link-local web --ecs", "uninstall"])
def test_an_option_of_service_that_counts(words: str) -> None:
    """Positive control."""
    assert not usage.out_of_place(usage.parser().parse_args(["service", *words.split()]))


def test_logs_without_a_log(home: Path, capsys: Capture) -> None:
    """1, naming the file and the start command."""
    assert main(["logs"]) == 1
    assert capsys.readouterr().err == f"vaultd: there is no {home}/state/vaultd.log yet: type `vaultd start`\n"


def test_logs_prints_the_log(home: Path, capsys: Capture) -> None:
    """All of it, whatever bytes are in it."""
    (home / "state").mkdir(parents=True)
    (home / "state/vaultd.log").write_bytes(b"one\ntwo \xff\n")

    assert main(["logs"]) == 0
    assert capsys.readouterr().out == "one\ntwo \ufffd\n"


def test_a_rotated_log_is_followed(tmp_path: Path, capsys: Capture) -> None:
    """The rest of the old file is printed before the new one is opened; a log that is away for a moment is kept."""
    path = tmp_path / "vaultd.log"
    path.write_text("first\n")
    file = path.open()
    file.read()
    assert following.reopened(file, path) is file
    with path.open("a") as more:
        more.write("last of the old\n")
    path.rename(tmp_path / "vaultd.log.1")
    assert following.reopened(file, path) is file
    path.write_text("first of the new\n")
    new = following.reopened(file, path)

    assert file.closed
    assert capsys.readouterr().out == "last of the old\n"
    assert new.read() == "first of the new\n"
    new.close()


def test_a_start_that_ends_without_a_word(home: Path) -> None:
    """The pipe closed before the line came: said so, naming the log. Control: a line is what was told."""
    silent, told = (_told(code) for code in ("", "import os; os.write(1, b'{\"ok\": true}\\n')"))

    assert silent == {"ok": False, "message": f"the daemon ended before it served: look at {home}/state/vaultd.log"}
    assert told == {"ok": True}


@pytest.mark.parametrize("state", ["not executable", "gone", "no room"])
def test_an_interpreter_that_cannot_be_run(
    state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """One sentence and exit 1, no traceback, and no descriptor is left open."""
    python = tmp_path / "python"
    if state == "not executable":
        python.write_text("#!/bin/sh\n")
        python.chmod(0o600)
    monkeypatch.setattr(sys, "executable", str(python))
    if state == "no room":
        monkeypatch.setattr(subprocess, "Popen", _no_room)
    before = len(list(Path("/proc/self/fd").iterdir()))

    assert main(["start"]) == 1
    told = capsys.readouterr()
    why = {"not executable": "Permission denied", "gone": "No such file or directory"}.get(state)
    assert told == ("", (
        f"vaultd: the Python that runs vaultd, {python}, cannot be run ({why}): look at it with `ls -l {python}`, "
        "give it back, then type `vaultd start`\n"
        if why else "vaultd: no process can be started (Resource temporarily unavailable): end some programs, then "
        "type `vaultd start`\n"
    ))  # fmt: skip
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def _no_room(*_: object, **__: object) -> None:
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def _told(code: str) -> dict[str, object]:
    reading, writing = os.pipe()
    with subprocess.Popen([sys.executable, "-c", code], stdout=writing) as process:
        os.close(writing)
        try:
            return spawning.first_line(reading, process)
        finally:
            process.returncode = None  # `start` lets go of the daemon; a test waits for its child
            os.close(reading)


@pytest.mark.parametrize("watch", [running.polled_end, None], ids=["polled", "pidfd"])
def test_the_end_of_a_process_is_seen(watch: Callable[[int, float], bool] | None) -> None:
    """False while it lives, True once it is gone: by pidfd, and by polling where there is none."""
    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process,
        running.watched(process.pid) as ended,
    ):
        living = ended(0.0) if watch is None else watch(process.pid, 0.0)
        process.kill()
        if watch is not None:
            process.wait()
        gone = ended(20.0) if watch is None else watch(process.pid, 20.0)

    assert (living, gone) == (False, True)


@pytest.mark.parametrize(
    ("told", "lines"),
    [
        ({"identities": 0, "locked": False}, ["store: the OS keyring", "next: vault-client add IDENTITY"]),
        (
            {"identities": 1, "locked": False, "warnings": ["x"]},
            ["store: the OS keyring", "warning: x", "next: vault-"],
        ),
        (
            {"identities": 1, "locked": True, "locked_reason": "type `vault-client unlock`"},
            ["store: the OS keyring, locked", "next: type `vault-client unlock`"],
        ),
    ],
)
def test_what_start_prints(told: dict[str, object], lines: list[str], capsys: Capture) -> None:
    """Endpoint, store in use, warnings, and the next step."""
    starting.introduce({"version": "1", "port": 9169, "pid": 7, "store": "keyring", **told})
    first, *rest = capsys.readouterr().out.splitlines()

    assert first == "vaultd 1 serves on http://127.0.0.1:9169 (pid 7)"
    assert len(rest) == len(lines)
    assert all(found.startswith(wanted) for found, wanted in zip(rest, lines, strict=True))
