"""What a command loads: its budget is 3 × `python -I -c pass` (interface.md §3; performance.md, last paragraph)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.client import measure
from tests.client.conftest import CLIENT
from tests.client.stub import PROFILE, Stub, environment

SOURCES = Path(__file__).parents[2] / "client"
#: 20 ms in all (performance.md); the rest of the list are their likely bearers, and argparse by our own measure.
FORBIDDEN = {
    "http", "http.client", "urllib", "urllib.parse", "urllib.request", "pathlib", "dataclasses", "asyncio", "argparse",
    "typing", "subprocess", "ssl", "logging", "datetime", "inspect", "tempfile", "shutil", "email",
    "importlib.metadata", "configparser", "difflib", "getpass", "unicodedata", "vaultd",
}  # fmt: skip
PROBE = """
import os, sys
before = set(sys.modules)
sys.path.insert(0, sys.argv.pop(1))
from vault_client.__main__ import main
def loaded(*_):
    os.write(2, ("loaded: " + " ".join(sorted(set(sys.modules) - before)) + "\\n").encode())
    os._exit(0)
os.execve = loaded
main()
loaded()
"""


def loaded(stub: Stub, *arguments: str) -> set[str]:
    """The modules that a command loads beyond the interpreter's own."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", PROBE, str(SOURCES), *arguments],
        env=environment(stub), capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    return set(done.stderr.rpartition("loaded: ")[2].split())


@pytest.mark.parametrize(
    "line",
    ["list", "status", "grants", "identities", "use web-admin --shell sh", "exec web-admin -- true", "unuse --shell sh",
     "export web-admin", "credential-process web-admin", "log", "lock", "revoke g1", "clear", "--version",
     "list --help", "rotate identity"],
)  # fmt: skip
def test_what_a_command_loads(stub: Stub, line: str) -> None:
    """None of the slow modules, whatever the command does."""
    found = loaded(stub, *line.split())

    assert "vault_client.cli" in found  # control: the probe sees what is loaded
    assert not found & FORBIDDEN


@pytest.mark.parametrize("line", ["use web-admin --shell sh", "exec web-admin -- true", "export web-admin", "lock"])
def test_a_terminal_is_loaded_when_a_question_is_asked(stub: Stub, line: str) -> None:
    """A command that may need a code needs none mostly."""
    found = loaded(stub, *line.split())

    assert "vault_client.ask" in found  # control: what would ask is there
    assert not found & {"vault_client.terminal", "termios"}


def test_the_probe_would_see_them(stub: Stub) -> None:
    """Positive control: a misspelt command loads difflib, and is seen."""
    code = PROBE.replace("main()\n", "main(); import pathlib\n", 1)
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(SOURCES), "lst"],
        env=environment(stub), capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert {"difflib", "pathlib"} <= set(done.stderr.rpartition("loaded: ")[2].split())


def test_version_and_help_need_nothing(stub: Stub) -> None:
    """No json, no socket, no getopt for a word about itself."""
    assert not loaded(stub, "--version") & {"json", "socket", "getopt", "re"}


def test_measure_makes_rows(stub: Stub) -> None:
    """The bench's rows have the shape that its table wants, and each command ended well; no time is asserted here. A
    prompt that says nothing has not done its work, whatever it cost.
    """
    with pytest.raises(AssertionError, match="prompt says nothing of web-admin"):
        measure(client=CLIENT, profile="web-admin", environ=environment(stub), rounds=1)
    stub.answers["GET", "/v1/profiles?profile=web-admin"] = (200, {"profiles": [PROFILE]})
    rows = measure(client=CLIENT, profile="web-admin", environ=environment(stub), rounds=1)

    assert {frozenset(row) for row in rows} == {frozenset({"name", "value", "unit", "goal", "ok"})}
    assert len(rows) == 2 * len({row["name"].partition(",")[0] for row in rows}) >= 8
    assert all(row["ok"] is (row["value"] <= row["goal"]) for row in rows)
    with pytest.raises(AssertionError, match="list ended with 69"):
        measure(client=CLIENT, profile="p", environ={**environment(stub), "VAULTD_HOME": "/nonexistent"}, rounds=1)
