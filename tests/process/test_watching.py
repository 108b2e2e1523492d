"""`status --watch`, `log -f`, `explain --check` and `doctor --fix` with the real daemon and the strict STS."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.emulated import Watched
from tests.client.terminal import start
from tests.process.harness import SERIAL, Emulator, Home

pytestmark = pytest.mark.process


@contextlib.contextmanager
def watching(home: Home) -> Iterator[Watched]:
    env = {**home.env, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
    watched = Watched(start(["vault-client", "status", "--watch"], env=env))
    try:
        yield watched
    finally:
        watched.running.close()


@contextlib.contextmanager
def running(home: Home, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A client in the background, without a terminal."""
    with subprocess.Popen(
        ["vault-client", *arguments], env=home.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    ) as child:  # fmt: skip
        try:
            yield child
        finally:
            if child.poll() is None:
                child.kill()


def test_a_code_typed_into_the_table_serves_another_terminal(home: Home, emulator: Emulator) -> None:
    """Who waits is shown; a wrong code is told, the right one opens the session, and the other command runs."""
    env = {**home.env, "TERM": "xterm"}
    asking = start(["vault-client", "exec", "web-admin", "--", "sleep", "60"], env=env)
    try:
        asking.until("MFA code: ")
        with watching(home) as watched:
            watched.shows("1 answers")
            watched.type("1")
            lines = watched.shows("MFA code:")
            assert any("vaultd · web-admin · requested by" in line for line in lines)
            watched.type("000000\r")
            watched.shows("AWS refused that code as invalid (2 left)")
            watched.type(emulator.code() + "\r")
            asking.until("answered elsewhere")
            lines = watched.until(lambda lines: any("sleep (" in line for line in lines))
            assert any(line.startswith("web-admin  █") and " fresh " in line for line in lines), lines
            asking.hang_up()
            watched.until(lambda lines: not any("sleep (" in line for line in lines))
            watched.type("q")
            assert watched.end().status == 0
            assert watched.restored
    finally:
        asking.close()
    assert emulator.count("AssumeRole") == 1


def test_a_restart_and_a_lock(home: Home, emulator: Emulator) -> None:
    """Killed: said, and looked for; started again: said, with the session as it was; locked: nothing is served."""
    home.use("web-admin", emulator)
    with watching(home) as watched:
        watched.until(lambda lines: any(line.startswith("web-admin  █") for line in lines))
        before = home.pid()
        home.kill()
        watched.shows("vaultd is away, and looked for every second")
        assert home.run("vaultd", "start").status == 0
        watched.shows("vaultd is back, pid ")
        assert home.pid() != before
        watched.until(lambda lines: any(line.startswith("web-admin  █") and "fresh" in line for line in lines))
        assert home.client("lock").status == 0
        watched.shows("nothing is served: type `vault-client unlock`")
        watched.type("q")
        assert watched.end().status == 0


def test_log_follows_rotation(directory: Path, emulator: Emulator) -> None:
    """Each line once, in order, while the files turn over; `vaultd stop` ends it with 69, and Ctrl-C with 130."""
    home = Home.make(directory, emulator, settings="[audit]\nmax_bytes = 65536\nkeep = 3\n")
    with home.daemon():
        assert home.add(emulator).status == 0
        home.use("web-admin", emulator)
        with running(home, "log", "-f", "--json", "--profile", "web-admin") as following, \
                running(home, "log", "-f") as other:  # fmt: skip
            assert following.stdout is not None
            assert other.stdout is not None
            first = json.loads(following.stdout.readline())
            other.stdout.readline()
            for _ in range(120):
                made = home.link("POST", "/v1/grants", {"profile": "web-admin", "kind": "lease"})
                home.link("DELETE", f"/v1/grants/{made['id']}")
            assert (home.state / "audit.jsonl.1").exists(), "control: it was rotated"
            other.send_signal(signal.SIGINT)
            assert other.wait(30) == 130
            assert other.stderr is not None
            assert other.stderr.read() == ""
            home.run("vaultd", "stop")
            lines = [first, *(json.loads(line) for line in following.stdout)]
            assert following.wait(30) == 69
    numbers = [line["seq"] for line in lines]
    assert numbers == sorted(set(numbers))
    assert sum(line["event"] == "grant.create" for line in lines) >= 121
    assert {line["profile"] for line in lines} == {"web-admin"}


def test_explain_asks_aws(home: Home, emulator: Emulator) -> None:
    """GetCallerIdentity and ListMFADevices, and nothing that takes a code or opens a question; each value's line."""
    before = emulator.count("GetSessionToken") + emulator.count("AssumeRole")
    told = home.client("explain", "--check", "web-admin")

    assert told.status == 0, told
    assert "ok  GetCallerIdentity: the key is good, and of arn:aws:iam::123456789012:user/franklin" in told.out
    assert "ListMFADevices: " in told.out
    assert f"{SERIAL}" in told.out
    assert "config:4" in told.out
    assert "aws iam simulate-principal-policy --policy-source-arn arn:aws:iam::123456789012:user/franklin" in told.out
    assert emulator.count("GetSessionToken") + emulator.count("AssumeRole") == before
    assert home.asked() == 0


def test_doctor_of_a_home_as_the_daemon_makes_it(home: Home, emulator: Emulator) -> None:
    """No row on modes or tokens; one that is broken is found, mended by --fix, and the daemon goes on."""
    used = home.use("web-admin", emulator)
    told = home.client("doctor", "--json", environment=used)
    wrong = [each for each in told.json()["checks"] if not each["ok"]]
    assert [each for each in wrong if each["name"] in {"permissions", "tokens", "version", "port"}] == []
    sealed = home.state / "sessions.sealed"
    sealed.chmod(0o640)
    (home.directory / "vaultd/run").chmod(0o750)
    ended = home.client("doctor", "--fix", "--yes", environment=used)

    assert f"done: chmod 600 {sealed}" in ended.err
    assert (sealed.stat().st_mode & 0o777, (home.directory / "vaultd/run").stat().st_mode & 0o777) == (0o600, 0o700)
    assert home.get(used["AWS_CONTAINER_AUTHORIZATION_TOKEN"]).status == 200


def test_lines_are_written_as_it_happens(home: Home, emulator: Emulator) -> None:
    """In a pipe: a session, a grant and its end, each a line, by the daemon's own events."""
    with running(home, "status", "--watch") as child:
        assert child.stdout is not None
        next(line for line in child.stdout if line.startswith("identities:"))
        home.use("web-admin", emulator)
        said = [next(line for line in child.stdout if text in line) for text in ("web-admin: fresh", "was made: ")]
        assert home.client("revoke", "--all").status == 0
        next(line for line in child.stdout if "of web-admin has ended" in line)
        os.kill(child.pid, signal.SIGINT)
        assert child.wait(30) == 130
    assert all(line[2:3] == ":" for line in said)
