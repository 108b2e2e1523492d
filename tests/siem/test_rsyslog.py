"""examples/siem: a real rsyslogd ships audit.jsonl, through rotation and its own restart, byte for byte."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fakes import FakeClock
from tests.process.harness import ROOT, until
from vaultd.engine.audit import Audit
from vaultd.engine.audit_chain import kept
from vaultd.engine.audit_proof import examine
from vaultd.files import Files

pytestmark = pytest.mark.needs("/usr/sbin/rsyslogd")

RSYSLOGD = "/usr/sbin/rsyslogd"
RECIPE = ROOT / "examples/siem/vaultd-audit.conf"


class Siem:
    """A TCP input that keeps what arrives."""

    def __init__(self) -> None:
        self.content = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                while part := client.recv(1 << 16):
                    self.content += part

    @property
    def lines(self) -> list[bytes]:
        return self.content.splitlines()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def siem() -> Iterator[Siem]:
    made = Siem()
    yield made
    made.close()


@pytest.fixture
def environment(tmp_path: Path, siem: Siem) -> dict[str, str]:
    tmp_path.chmod(0o700)
    spool = tmp_path / "spool"
    spool.mkdir(mode=0o700)
    return {
        "PATH": os.environ["PATH"],
        "VAULTD_AUDIT": str(tmp_path / "audit.jsonl"),
        "SIEM_HOST": "127.0.0.1",
        "SIEM_PORT": str(siem.port),
        "SPOOL": str(spool),
    }


def test_the_steps_of_the_readme_run_in_their_order(tmp_path: Path) -> None:
    """As they are typed, up to the one that stays: the recipe parses with the variables that are set before."""
    text = RECIPE.with_name("README.md").read_text()
    steps = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    typed = [each for each in steps if not each.startswith(("sudo ", "rsyslogd -n "))]
    script = "\n".join(each.replace("rsyslogd", RSYSLOGD) for each in typed) + '\ntest -d "$SPOOL" -a -n "$SIEM_HOST"'
    done = subprocess.run(
        ["/bin/sh", "-ec", script],
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
        cwd=RECIPE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "error" in done.stderr) == (0, False), done
    assert "drop\nrepeats by `seq`" in text


@contextmanager
def agent(environment: dict[str, str]) -> Iterator[None]:
    command = [RSYSLOGD, "-n", "-i", f"{environment['SPOOL']}/pid", "-f", str(RECIPE)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def test_the_recipe_parses(environment: dict[str, str], tmp_path: Path) -> None:
    """Rsyslogd -N1 takes it, and does not take one with an unknown setting (positive control)."""
    broken = tmp_path / "broken.conf"
    broken.write_text(RECIPE.read_text().replace("TCP_Framing=", "TCP_Faming="))
    for recipe, status in ((RECIPE, 0), (broken, 1)):
        ran = subprocess.run([RSYSLOGD, "-N1", "-f", str(recipe)], env=environment, capture_output=True, check=False)
        assert ran.returncode == status, ran.stderr


def test_every_line_arrives_once_and_the_chain_holds(
    environment: dict[str, str], tmp_path: Path, siem: Siem, clock: FakeClock
) -> None:
    """Over three rotations and a restart of the agent: in order, unchanged, so the SIEM's own copy is a whole chain."""
    path = Path(environment["VAULTD_AUDIT"])
    audit = Audit(files=Files(), path=path, clock=clock, max_bytes=2000, keep=9, look=None)
    audit.resume(None)
    audit.record("start")
    with agent(environment):
        until(lambda: len(siem.lines) == 1, "the first line arrives")
        for number in range(2, 14):
            audit.record("lock", reason=f"line {number} " + "ä" * 20)
            until(lambda n=number: len(siem.lines) == n, f"line {number} arrives")  # type: ignore[misc]
    rotations = len(kept(path)) - 1
    audit.record("unlock")
    with agent(environment):
        audit.record("stop")
        until(lambda: len(siem.lines) == 15, "what was written meanwhile arrives")

    copy = tmp_path / "copy" / "audit.jsonl"
    copy.parent.mkdir(mode=0o700)
    copy.write_bytes(siem.content)
    copy.chmod(0o600)
    assert rotations >= 3
    assert examine(Files(), copy, head=audit.head).breaches == ()
    written = b"".join(each.read_bytes() for each in reversed(kept(path)))
    assert siem.content == written


def test_a_rotation_that_the_agent_slept_through_is_a_gap(
    environment: dict[str, str], tmp_path: Path, siem: Siem, clock: FakeClock
) -> None:
    """The new file arrives whole; what it had not read of the old one is seen to be missing by the chain."""
    path = Path(environment["VAULTD_AUDIT"])
    audit = Audit(files=Files(), path=path, clock=clock, max_bytes=2000, keep=9, look=None)
    audit.resume(None)
    audit.record("start")
    with agent(environment):
        until(lambda: len(siem.lines) == 1, "the first line arrives")
    while len(kept(path)) == 1:
        audit.record("lock", reason="nobody looks " + "ä" * 20)
    with agent(environment):
        audit.record("stop")
        until(lambda: b'"event":"stop"' in siem.content, "the last line arrives")

    copy = tmp_path / "copy" / "audit.jsonl"
    copy.parent.mkdir(mode=0o700)
    copy.write_bytes(siem.content)
    copy.chmod(0o600)
    assert siem.content.endswith(path.read_bytes())
    assert [each.kind for each in examine(Files(), copy, head=audit.head).breaches] == ["deleted"]
