"""Broken set-ups: one row, one remedy each; `--fix` mends the safe ones, after showing and asking, and nothing else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.client import broken
from tests.client.broken import CASES, Broken, bad, doctor, well
from tests.client.conftest import CLIENT
from tests.client.stub import GRANT_ROW, TOKEN, Stub, environment
from tests.client.terminal import OnTerminal
from vault_client.cli import Call
from vault_client.fixes import Mode, Stale

Terminal = Callable[..., OnTerminal]
IDS = [each.title.replace(" ", "-") for each in CASES]


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file and directory: its mode, its bytes."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_mode & 0o7777, path.read_bytes() if path.is_file() else b"")
        for path in [folder, *folder.rglob("*")]
    }


def test_there_are_twelve_at_least() -> None:
    """Issue 6, Shows."""
    assert len(CASES) >= 12
    assert len({each.title for each in CASES}) == len(CASES)


def test_control(stub: Stub) -> None:
    """What is not broken has no row to mend, and `--fix` finds nothing to do and changes nothing."""
    environ = well(stub)
    before = tree(stub.home)
    ended = doctor(stub, environ, "--fix")

    assert bad(stub, environ) == []
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ended.stderr.endswith("nothing is left to mend\n")
    assert tree(stub.home) == before


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_one_row_and_one_remedy(stub: Stub, case: Broken) -> None:
    """Of a line each, which names what to type; no secret is told."""
    (row,) = bad(stub, case.breaks(stub, well(stub)))

    assert row["name"] == case.name
    assert case.remedy in row["remedy"]
    assert "\n" not in row["message"] + row["remedy"]
    assert "canary" not in str(row).lower()


@pytest.mark.parametrize("case", [each for each in CASES if each.safe], ids=lambda each: each.title.replace(" ", "-"))
def test_what_is_safe_is_mended(stub: Stub, case: Broken) -> None:
    """Shown first, then done; afterwards doctor finds nothing. Variables go by a line for eval, all of stdout."""
    environ = case.breaks(stub, well(stub))
    ended = doctor(stub, environ, "--fix", "--yes")

    assert ended.returncode == 0, ended
    assert "\nwhat --fix does:\n  " in ended.stderr
    assert ended.stdout == (f"unset {case.unset}\n" if case.unset else "")
    if case.unset:
        environ = {name: value for name, value in environ.items() if name not in case.unset.split()}
    else:
        shown, _, done = ended.stderr.partition("what --fix does:\n  ")[2].partition("\ndone: ")
        assert done.startswith(shown), "what was done is what was shown"
    assert bad(stub, environ) == []


@pytest.mark.parametrize("case", [each for each in CASES if not each.safe], ids=lambda each: each.title)
def test_the_rest_is_left_to_the_person(stub: Stub, case: Broken) -> None:
    """No byte and no mode is changed, ~/.aws least of all; what is left is told with its remedy, 1 (69: no daemon)."""
    environ = case.breaks(stub, well(stub))
    before = tree(stub.home.parent)
    ended = doctor(stub, environ, "--fix", "--yes")

    assert (ended.returncode, ended.stdout) == (69 if case.name == "port" else 1, "")
    assert "left to you, " in ended.stderr
    assert case.remedy in ended.stderr.partition("left to you, ")[2]
    assert tree(stub.home.parent) == before


def test_it_asks(stub: Stub, terminal: Terminal) -> None:
    """On a terminal: Enter alone is a no, which changes nothing; `y` does it."""
    environ = broken.open_file(stub, well(stub))
    file = stub.home / "state" / "sessions.sealed"
    for answer, status, mode in (("\n", 1, 0o644), ("y\n", 0, 0o600)):
        asked = terminal("doctor", "--fix", **environ)
        shown = asked.until("do it? [y/N] ")
        assert f"chmod 600 {file}    (mode 644 → 600)" in shown
        assert file.stat().st_mode & 0o777 == 0o644
        asked.type(answer)
        assert asked.end().status == status
        assert file.stat().st_mode & 0o777 == mode


def test_nobody_to_ask(stub: Stub) -> None:
    """Without a terminal and without --yes: 3, nothing is changed, and nothing is printed for eval."""
    environ = broken.keys(stub, broken.open_file(stub, well(stub)))
    before = tree(stub.home)
    ended = doctor(stub, environ, "--fix")

    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr.endswith("add --yes\n")
    assert tree(stub.home) == before


def test_ctrl_c_at_the_question(stub: Stub, terminal: Terminal) -> None:
    """Nothing was done, and that is said."""
    environ = broken.open_file(stub, well(stub))
    before = tree(stub.home)
    asked = terminal("doctor", "--fix", **environ)
    asked.until("[y/N] ")
    asked.type("\x03")

    ended = asked.end()
    assert (ended.status, "nothing was changed" in ended.err) == (130, True)
    assert tree(stub.home) == before


def test_variables_on_a_terminal(stub: Stub, terminal: Terminal) -> None:
    """No process changes its parent's variables: what to type is said, and exit 1, as it is not done."""
    asked = terminal("doctor", "--fix", "--yes", **broken.keys(stub, well(stub)))
    ended = asked.end()

    assert ended.status == 1
    assert "only this shell can unset its variables: type unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY" in ended.err


def test_in_a_shell(stub: Stub) -> None:
    """`eval "$(vault-client doctor --fix --yes)"` mends a shell's variables."""
    environ = {**os.environ, **environment(stub), **broken.keys(stub, well(stub))}
    line = f'eval "$({" ".join(CLIENT)} doctor --fix --yes)"; echo "${{AWS_ACCESS_KEY_ID-gone}}"'
    ended = subprocess.run(["bash", "-c", line], env=environ, capture_output=True, text=True, check=True, timeout=60)

    assert ended.stdout == "gone\n"


@pytest.mark.parametrize("how", ["link", "hard link", "another file"])
def test_a_path_that_means_another_file_now(tmp_path: Path, how: str) -> None:
    """What was put there between the look and the change is left alone. Control: the file that was seen is changed."""
    file, other = tmp_path / "file", tmp_path / "other"
    for each in (file, other):
        each.write_text("x")
        each.chmod(0o644)
    call = Call(operands=[], tail=[], options={}, environ={})
    fix = Mode(str(file), file.lstat(), 0o600)
    assert fix.apply(call) == ""
    assert file.stat().st_mode & 0o777 == 0o600
    file.rename(tmp_path / "seen")  # its inode is given to nobody else
    if how == "link":
        file.symlink_to(other)
    elif how == "hard link":
        file.hardlink_to(other)
    else:
        other.rename(file)
        other = file

    assert fix.apply(call) != ""
    assert other.stat().st_mode & 0o777 == 0o644


def test_a_file_with_another_name(stub: Stub) -> None:
    """The other one may be anybody's, so its mode is neither told nor changed. Control: without it, it is."""
    environ = broken.open_file(stub, well(stub))
    file, name = stub.home / "state" / "sessions.sealed", stub.home.parent / "elsewhere"
    seen = file.lstat()
    name.hardlink_to(file)
    call = Call(operands=[], tail=[], options={}, environ={})
    assert bad(stub, environ) == []
    assert Mode(str(file), seen, 0o600).apply(call) != ""
    assert file.stat().st_mode & 0o777 == 0o644
    name.unlink()
    assert [each["name"] for each in bad(stub, environ)] == ["permissions"]


@pytest.mark.parametrize("folder", ["state", "config", "run/grants"])
def test_what_is_behind_a_link(stub: Stub, tmp_path: Path, folder: str) -> None:
    """A directory that is a link leads to files of something else (a repository of dotfiles, a shared disk): none of
    them is told, changed or removed.
    """
    environ = well(stub)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for name in ("gone.token", "notes"):
        (theirs / name).write_text("")
        (theirs / name).chmod(0o666)
    ours = stub.home / folder
    if ours.exists():
        ours.rename(tmp_path / "before")
    ours.symlink_to(theirs)
    before = tree(theirs)
    ended = doctor(stub, environ, "--fix", "--yes")

    assert "theirs" not in ended.stderr
    assert not {"permissions", "tokens"} & {each["name"] for each in bad(stub, environ)}
    assert tree(theirs) == before


def test_a_directory_that_means_another_one_now(stub: Stub, tmp_path: Path) -> None:
    """A token is removed where it was seen. Control: there it is."""
    broken.old_token(stub, well(stub))
    grants, theirs = stub.run / "grants", tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "gone.token").write_text("")
    call = Call(operands=[], tail=[], options={}, environ=stub.environ)
    fix = Stale(str(grants / "gone.token"), (grants / "gone.token").lstat())
    grants.rename(stub.run / "before")
    grants.symlink_to(theirs)
    assert fix.apply(call) != ""
    grants.unlink()
    theirs.rename(grants)
    assert fix.apply(call) == "it is another file now"
    assert (grants / "gone.token").exists()
    grants.rename(theirs)
    (stub.run / "before").rename(grants)
    assert fix.apply(call) == ""
    assert not (grants / "gone.token").exists()


def test_what_a_person_writes_may_be_read(stub: Stub, tmp_path: Path) -> None:
    """config.toml of an ordinary umask is well, one that a group may write is not; links and sockets are left alone."""
    environ = well(stub)
    settings = stub.home / "config" / "config.toml"
    settings.parent.mkdir(0o755)
    settings.write_text("")
    settings.chmod(0o644)
    open_one = tmp_path / "elsewhere"
    open_one.write_text("")
    open_one.chmod(0o666)
    (stub.home / "state" / "link").symlink_to(open_one)
    (stub.run / "control.sock").chmod(0o777)
    assert bad(stub, environ) == []
    settings.chmod(0o664)

    (row,) = bad(stub, environ)
    assert row["message"] == f"{settings} may be written by other users (mode 664)"
    assert row["remedy"] == f"type chmod 644 {settings}"


def test_one_thing_is_one_row(stub: Stub) -> None:
    """What daemon and client both see of a mode is told once; what the daemon alone sees is kept."""
    said = f"{stub.home}/state may be written to by others"
    environ = broken.with_check("permissions", said, "type `chmod 700`")(stub, well(stub))
    assert [each["message"] for each in bad(stub, environ)] == [said]
    (stub.home / "state").chmod(0o777)

    (row,) = bad(stub, environ)
    assert row["message"] == f"{stub.home}/state may be written by other users (mode 777)"


def test_a_grant_that_came_back_keeps_its_token(stub: Stub) -> None:
    """Asked again before the file goes: a grant made meanwhile is not robbed of its token."""
    environ = broken.old_token(stub, well(stub))
    again = {**GRANT_ROW, "id": "gone"}
    stub.answers["GET", "/v1/grants"] = [
        (200, {"grants": [GRANT_ROW]}),
        (200, {"grants": [GRANT_ROW, again]}),
    ]
    ended = doctor(stub, environ, "--fix", "--yes")

    assert ended.returncode == 1
    assert "not done, its grant lives: rm " in ended.stderr
    assert (stub.run / "grants" / "gone.token").exists()
    assert (stub.run / "grants" / "g1.token").read_text() == TOKEN


def test_json_and_fix(stub: Stub) -> None:
    """One asks, the other is for scripts: 2."""
    assert doctor(stub, well(stub), "--fix", "--json").returncode == 2


def test_another_users_file_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even root's own `--fix` changes it. Control: the same file, of this user."""
    file = tmp_path / "file"
    file.write_text("x")
    file.chmod(0o644)
    call = Call(operands=[], tail=[], options={}, environ={})
    fix = Mode(str(file), file.lstat(), 0o600)
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    assert fix.apply(call) == "it is another file now"
    assert file.stat().st_mode & 0o777 == 0o644
    monkeypatch.undo()
    assert fix.apply(call) == ""
