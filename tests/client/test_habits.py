"""The client's count of uses: an order and nothing else, so that nothing that happens to the file stops anybody."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from vault_client import habits

DAY = 86400.0
NOW = 1_800_000_000.0


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "state").mkdir()
    return {"VAULTD_HOME": str(tmp_path)}


def file_of(environ: dict[str, str]) -> Path:
    return Path(environ["VAULTD_HOME"]) / "state" / "habits.json"


def test_counted_and_faded(environ: dict[str, str]) -> None:
    """A use counts 1 today and a half in 30 days; what is used now comes before what was used more, long ago."""
    for day in range(4):
        habits.count(environ, "old", now=NOW - (200 - day) * DAY)
    habits.count(environ, "new", now=NOW)
    habits.count(environ, "half", now=NOW - 30 * DAY)
    found = habits.scores(environ, now=NOW)

    assert sorted(found, key=lambda name: -found[name]) == ["new", "half", "old"]
    assert found["new"] == 1.0
    assert found["half"] == pytest.approx(0.5)
    assert stat.S_IMODE(file_of(environ).stat().st_mode) == 0o600
    assert list(file_of(environ).parent.iterdir()) == [file_of(environ)]


def test_a_loop_is_one_use(environ: dict[str, str]) -> None:
    """A script that calls `exec` a hundred times counts once in ten minutes; control: after them it counts again."""
    for turn in range(100):
        habits.count(environ, "p", now=NOW + turn)
    once = habits.scores(environ, now=NOW + 100)["p"]
    habits.count(environ, "p", now=NOW + 700)

    assert once == pytest.approx(1.0, abs=0.001)
    assert habits.scores(environ, now=NOW + 700)["p"] == pytest.approx(2.0, abs=0.001)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", '{"p": 3}', '{"p": ["x", 1]}', '{"p": [NaN, 1]}', '{"p": [1, -1]}', '{"p": [1]}',
     '{"p": [1e99, 1]}', "\x00" * 9, "[" * 5000, '{"p": [1, 1, 1]}', '{"p": null}'],
)  # fmt: skip
def test_a_damaged_file_is_written_anew(environ: dict[str, str], content: str) -> None:
    """Nothing is known from it, nothing fails, and the next use is counted."""
    file_of(environ).write_text(content)

    assert habits.scores(environ, now=NOW) == {}
    habits.count(environ, "q", now=NOW)
    assert habits.scores(environ, now=NOW) == {"q": 1.0}


def test_only_a_plain_file_of_ours(environ: dict[str, str], tmp_path: Path) -> None:
    """A link, a FIFO, a hard link, one that others may write: not read (a FIFO would not come back), and replaced; what
    a link leads to stays as it is. Control: the same content in a plain file is read.
    """
    content = json.dumps({"p": [5.0, NOW]})
    target = tmp_path / "elsewhere"
    target.write_text(content)
    path = file_of(environ)

    def check() -> None:
        assert habits.scores(environ, now=NOW) == {}
        habits.count(environ, "q", now=NOW)
        assert habits.scores(environ, now=NOW) == {"q": 1.0}
        path.unlink()

    path.symlink_to(target)
    check()
    os.mkfifo(path)
    check()
    os.link(target, path)
    check()
    path.write_text(content)
    path.chmod(0o666)
    check()
    assert target.read_text() == content
    path.write_text(content)
    path.chmod(0o600)
    assert habits.scores(environ, now=NOW) == {"p": 5.0}


def test_no_directory_no_file(tmp_path: Path) -> None:
    """A home that vaultd never had is not made, and a directory that takes nothing stops nobody."""
    habits.count({"VAULTD_HOME": str(tmp_path / "none")}, "p", now=NOW)

    assert not (tmp_path / "none").exists()
    (tmp_path / "file").write_text("")
    habits.count({"VAULTD_HOME": str(tmp_path / "file")}, "p", now=NOW)
    assert habits.scores({"VAULTD_HOME": str(tmp_path / "file")}, now=NOW) == {}


def test_at_most_a_thousand(environ: dict[str, str]) -> None:
    """The least used leaves."""
    file_of(environ).write_text(json.dumps({f"p{at}": [at + 1.0, NOW] for at in range(1000)}))
    habits.count(environ, "new", now=NOW)
    found = habits.scores(environ, now=NOW)

    assert len(found) == 1000
    assert "p0" not in found
    assert "new" in found
