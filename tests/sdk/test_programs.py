"""The harness itself, without a built program: what a program says, or fails to say, comes back as an answer."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.process.harness import alive
from tests.sdk import build, rows, table
from tests.sdk.play import Findings, Met
from tests.sdk.predictions import PREDICTIONS
from tests.sdk.programs import CARRIED, CLIENTS, Answer, Program, asked
from tests.sdk.rows import Truth

pytestmark = pytest.mark.process

GREETING = """\
import json, os, signal, sys
print(json.dumps({"client": "fake", "version": "1"}), flush=True)
"""
LOOP = """\
for line in sys.stdin:
    word = line.strip()
    if word == "quit": break
"""


def program(directory: Path, body: str) -> Path:
    """An OUTDIR whose program greets, and then does that."""
    (directory / "program.py").write_text(GREETING + body)
    run = directory / "run"
    run.write_text(f"#!/bin/sh\nexec {sys.executable} {directory}/program.py\n")
    run.chmod(0o755)
    return directory


def test_an_answer(tmp_path: Path) -> None:
    """What the line says, what was printed meanwhile and nothing of what was printed before."""
    said = '    sys.stderr.write(f"about {word}\\n"); sys.stderr.flush()\n'
    said += '    print(json.dumps({"ok": word == "call", "text": "a \\"quoted\\" text", "seconds": 1.5}), flush=True)\n'
    with Program.running("fake", os.environ, where=program(tmp_path, LOOP + said)) as fake:
        first, second = fake.call(), fake.fresh()
        assert fake.version == "1"

    assert first == Answer(ok=True, text='a "quoted" text', seconds=1.5, stderr="about call\n")
    assert second.shown == 'a "quoted" text about fresh'


def test_a_program_that_dies(tmp_path: Path) -> None:
    """An SDK that aborts its process is a finding: the signal, what it printed, no exception; so is the next one."""
    body = LOOP + '    sys.stderr.write("Fatal error"); sys.stderr.flush(); os.kill(os.getpid(), signal.SIGABRT)\n'
    with Program.running("fake", os.environ, where=program(tmp_path, body)) as fake:
        died, after = asked([fake, fake], "call", at_once=1)

    assert (died.ok, died.ended, died.stderr) == (False, -6, "Fatal error")
    assert (after.ok, after.ended) == (False, -6)


def test_a_program_that_says_nothing(tmp_path: Path) -> None:
    """After the deadline it is an answer, and the program is gone with what it had started."""
    body = 'import subprocess; child = subprocess.Popen(["sleep", "600"]); open("child", "w").write(str(child.pid))\n'
    body += f'os.rename("child", {str(tmp_path / "child")!r})\n{LOOP}'
    with Program.running("fake", os.environ, where=program(tmp_path, body)) as fake:
        answer = fake.call(deadline=1)

    assert (answer.ok, answer.text) == (False, "no answer in 1 s")
    assert not alive(fake.pid)
    assert not alive(int((tmp_path / "child").read_text()))


def test_a_program_that_is_no_program(tmp_path: Path) -> None:
    """Whoever ends before the greeting is named with what it printed; noise on stdout is an answer."""
    (tmp_path / "run").write_text("#!/bin/sh\necho no such thing >&2\nexit 3\n")
    (tmp_path / "run").chmod(0o755)
    with (
        pytest.raises(AssertionError, match="fake did not start: no such thing"),
        Program.running("fake", os.environ, where=tmp_path),
    ):
        pass
    with Program.running("fake", os.environ, where=program(tmp_path, LOOP + '    print("hm", flush=True)\n')) as fake:
        assert fake.call().text == "not JSON on stdout: 'hm\\n'"


def test_an_outdir_changes_with_its_sources(tmp_path: Path) -> None:
    """Built once for each text of the directory; what programs share counts for those that use it."""
    for name in build.names():
        files = {each.name for each in build.sources(name)}
        assert "build.sh" in files
        assert ("speaking.py" in files) is ("/../" in (build.CLIENTS / name / "build.sh").read_text())
    assert build.outdir("curl", below=tmp_path) == build.outdir("curl", below=tmp_path)
    assert len({build.outdir(name, below=tmp_path) for name in build.names()}) == len(build.names())


def test_every_program_has_its_predictions() -> None:
    """The list of clients, what can be built and what is predicted are one."""
    assert set(CLIENTS) == set(PREDICTIONS)
    assert {*CLIENTS, *CARRIED} == set(build.names())


def test_the_rows_are_all_there() -> None:
    """Every code of interface.md §4 that an SDK can bring about is a row."""
    wanted = {"InvalidToken", "ProfileMismatch", "UnknownProfile", "MfaRequired", "Locked", "RoleDenied"}
    assert {row.codes["ecs"] for row in rows.ROWS} == wanted | {"IdentityBroken", "StsUnavailable", "refused"}


@pytest.mark.parametrize(
    ("text", "shows"),
    [
        ('403 {"code":"Locked","message":"vaultd is locked: type `vault-client unlock`."}', True),
        ("Locked: vaultd is locked:\n  type `vault-client unlock`.", True),
        ('b"{\\"message\\":\\"vaultd is locked: type `vault-client unlock`.\\"}"', True),
        ("vaultd is locked", False),
        ("Could not load credentials from any providers", False),
        ("", False),
    ],
)
def test_what_counts_as_shown(text: str, *, shows: bool) -> None:
    """The whole sentence, however the SDK wraps or escapes it; nothing less."""
    truth = Truth("Locked", "vaultd is locked: type `vault-client unlock`.")
    assert Met(Answer(ok=False, text=text), truth).shows is shows
    assert not Met(Answer(ok=False, text=text), Truth("refused")).shows


def test_half_a_play_is_not_written() -> None:
    """docs/sdk-matrix.md has every client by both dialects, or is left as it was."""
    assert not table.whole(Findings())
