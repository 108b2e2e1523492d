"""The locks of a home, in this process: how they are held, and whom running.json is believed of."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path

import pytest

from vaultd.errors import Unwritable
from vaultd.files import Files
from vaultd.layout import Layout
from vaultd.lifecycle.holding import Hold, Holder, holder_of, running_json, state_lock


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    tmp_path.chmod(0o700)
    made = Layout.find({"VAULTD_HOME": str(tmp_path / "v")})
    Files().make_dirs(made)
    return made


def open_for_writing(path: Path) -> list[bool]:
    """Of each descriptor of ours on `path`."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            if each.readlink() == path:
                found.append(fcntl.fcntl(int(each.name), fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY)
        except OSError:  # the listing's own
            continue
    return found


def test_both_locks_are_held_and_let_go(layout: Layout) -> None:
    """Nobody else gets either until the release; neither file is open for writing, or no disk could be remounted."""
    hold = Hold(Files(), layout)
    paths = layout.lock_file, state_lock(layout)
    assert [Files().lock(path) for path in paths] == [None, None]
    assert [open_for_writing(path) for path in paths] == [[False], [False]]
    with pytest.raises(Unwritable) as held:
        Hold(Files(), layout)
    assert held.value.details == {"held": True}
    hold.release()
    Hold(Files(), layout).release()


def test_a_file_system_without_flock(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS wants the file open for writing (flock(2)): then it is."""
    real = fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = Files().lock(layout.lock_file)
    assert lock is not None
    assert Files().lock(layout.lock_file) is None
    assert open_for_writing(layout.lock_file) == [True]
    lock.release()
    assert open_for_writing(layout.lock_file) == []


def test_who_holds_a_home_is_believed_while_it_lives(layout: Layout) -> None:
    """This process is; the same pid of another boot or start is not, nor is what does not read."""
    assert holder_of(layout.state) is None
    hold = Hold(Files(), layout)
    assert holder_of(layout.state) == Holder(os.getpid(), layout.run)
    path = running_json(layout.state)
    good = json.loads(path.read_text())
    for change in ({"boot": "another"}, {"started": 1}, {"pid": "x"}, {"run": None}):
        path.write_text(json.dumps({**good, **change}))
        assert holder_of(layout.state) is None, change
    path.write_text("{")
    assert holder_of(layout.state) is None
    hold.release()
