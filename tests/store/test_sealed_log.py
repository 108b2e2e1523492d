"""vaultd/store/sealed_log.py: what survives a kill, a flipped bit, a full disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.store.dying import every_death
from vaultd.errors import FileRefused, Locked, Unwritable
from vaultd.files import Files
from vaultd.model.secret import Secret
from vaultd.store.sealed_log import SealedLogFile

KEY = bytes(range(32))


def opened(path: Path, *, files: Files | None = None, key: bytes = KEY) -> tuple[SealedLogFile, dict[str, bytes]]:
    log = SealedLogFile(files or Files(), path)
    return log, log.open(Secret(key))


def put(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.sealed"


def test_the_last_record_of_a_key_wins(path: Path) -> None:
    """Replay gives the living records: rewritten ones once, dropped ones never."""
    log, found = opened(path)
    assert found == {}
    log.append("a", b"1")
    log.append("b", b"2")
    log.append("a", b"3")
    log.append("b", None)
    log.append("c", b"")

    assert opened(path)[1] == {"a": b"3", "c": b""}
    assert log.damaged is False


def test_no_file_is_made_before_there_is_something_to_keep(path: Path) -> None:
    """Opening and dropping nothing writes nothing."""
    log, _ = opened(path)
    log.append("a", None)

    assert not path.exists()


def test_nothing_is_readable_on_disk(path: Path) -> None:
    """Key names are hidden like values: they hold profile fingerprints and serials."""
    log, _ = opened(path)
    log.append("arn:aws:iam::123456789012:mfa/ada", b"SECRETCANARY")
    content = path.read_bytes()

    assert b"123456789012" not in content
    assert b"SECRETCANARY" not in content
    assert path.stat().st_mode & 0o777 == 0o600


def test_dropped_records_leave_the_disk(path: Path) -> None:
    """A compaction rewrites under a new file id: the old cipher text is gone, the living records stay."""
    log, _ = opened(path)
    log.append("a", b"1" * 5000)
    log.append("b", b"2")
    before = path.read_bytes()
    log.append("a", None)
    log.compact()
    after = path.read_bytes()

    assert len(after) < 500 < len(before)
    assert after[8:24] != before[8:24]
    log.append("d", b"4")
    assert opened(path)[1] == {"b": b"2", "d": b"4"}


def test_open_compacts(path: Path) -> None:
    """Dead records are left out at open (architecture.md §5)."""
    log, _ = opened(path)
    for turn in range(50):
        log.append("a", b"%d" % turn)
    before = path.stat().st_size
    opened(path)

    assert path.stat().st_size < before / 20
    assert opened(path)[1] == {"a": b"49"}


def test_a_long_life_does_not_grow_the_file(path: Path) -> None:
    """Renewals of months under one daemon: the log rewrites itself once the dead outnumber the living by far."""
    log, _ = opened(path)
    for turn in range(1200):
        log.append("a", b"%04d" % turn)

    assert path.stat().st_size < 600 * 60
    assert opened(path)[1] == {"a": b"1199"}


def test_a_torn_last_record_is_cut_silently(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A kill -9 in the middle of an append: every shorter length of the last record gives the state before it."""
    log, _ = opened(path)
    log.append("a", b"1")
    whole = path.stat().st_size
    log.append("b", b"2")
    content = path.read_bytes()
    for length in range(whole, len(content)):
        put(path, content[:length])
        log, found = opened(path)
        assert found == {"a": b"1"}
        assert not log.damaged
        log.append("c", b"3")
        assert opened(path)[1] == {"a": b"1", "c": b"3"}

    assert not caplog.records


def test_zeros_at_the_end_are_a_torn_record(path: Path) -> None:
    """A file system may grow a file before its bytes arrive, when the machine loses power."""
    log, _ = opened(path)
    log.append("a", b"1")
    with path.open("ab") as stream:
        stream.write(b"\0" * 700)

    log, found = opened(path)
    assert found == {"a": b"1"}
    assert not log.damaged


def test_every_flipped_byte_is_noticed(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Anything but a torn end: set aside as `sessions.sealed.damaged` with one warning; a new log works at once."""
    log, _ = opened(path)
    log.append("a", b"1")
    log.append("b", b"2")
    content = path.read_bytes()
    aside = path.with_name("sessions.sealed.damaged")
    for position in range(len(content)):
        caplog.clear()
        broken = bytearray(content)
        broken[position] ^= 0x40
        put(path, bytes(broken))
        log, found = opened(path)
        assert found == {}, position
        assert log.damaged
        assert aside.read_bytes() == broken
        assert len(caplog.records) == 1
        assert str(aside) in caplog.text
        log.append("c", b"3")
        assert opened(path)[1] == {"c": b"3"}
        put(path, content)


def _records(content: bytes) -> list[bytes]:
    found, start = [], 24
    while start < len(content):
        end = start + 8 + int.from_bytes(content[start : start + 4], "little")
        found.append(content[start:end])
        start = end
    return found


def test_records_do_not_move(path: Path, tmp_path: Path) -> None:
    """Swapped, repeated, removed or from another file: AAD = file id ‖ seq, and a key per file."""
    log, _ = opened(path)
    for name in ("a", "b", "c"):
        log.append(name, name.encode())
    content = path.read_bytes()
    head, (a, b, c) = content[:24], _records(content)
    other, _ = opened(tmp_path / "other")
    other.append("x", b"x")
    (x,) = _records((tmp_path / "other").read_bytes())
    for forged in (b + a + c, a + a + b, a + c, x + b + c, a + x):
        put(path, head + forged)
        assert opened(path)[0].damaged

    put(path, head + a + b + c)  # positive control
    assert not opened(path)[0].damaged


def test_another_data_key_opens_nothing(path: Path) -> None:
    """The keyring was wiped: old sessions are set aside, not mixed with new ones."""
    log, _ = opened(path)
    log.append("a", b"1")
    log, found = opened(path, key=b"\1" * 32)

    assert found == {}
    assert log.damaged


def test_a_hostile_file_is_refused(path: Path) -> None:
    """interface.md §1: by name, not set aside as if it were ours."""
    path.symlink_to(path.with_name("elsewhere"))
    with pytest.raises(FileRefused, match=r"sessions\.sealed"):
        opened(path)


@given(st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
def test_any_bytes_open(path: Path, content: bytes) -> None:
    """security.md §6.3: a typed error or success, whatever lies there."""
    put(path, b"VAULTDL1" + content)

    assert opened(path)[1] == {}


class Disk:
    """Fails the named operations while `full`."""

    def __init__(self, *operations: str, code: int = errno.ENOSPC) -> None:
        self.full = False
        self._operations, self._code = operations, code

    def __call__(self, operation: str, path: Path) -> None:
        if self.full and operation in self._operations:
            raise OSError(self._code, os.strerror(self._code))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("operation", ["open", "write", "fsync"])
def test_a_full_disk_loses_nothing(path: Path, operation: str, code: int) -> None:
    """Unwritable, the old records stand, and what was refused goes out once there is room."""
    disk = Disk(operation, code=code)
    log, _ = opened(path, files=Files(fault=disk))
    log.append("a", b"1")
    log.append("b", b"2")
    disk.full = True
    with pytest.raises(Unwritable, match=r"sessions\.sealed"):
        log.append("c", b"3")
    with pytest.raises(Unwritable):
        log.append("a", None)
    with pytest.raises(Unwritable):
        log.append("a", None)  # again: it is still on the disk, which must not pass for done
    assert opened(path)[1] == {"a": b"1", "b": b"2"}

    disk.full = False
    log.append("d", b"4")
    assert opened(path)[1] == {"b": b"2", "c": b"3", "d": b"4"}


@pytest.mark.parametrize("operation", ["open", "write", "fsync", "rename"])
def test_a_failed_compaction_keeps_the_log(path: Path, operation: str) -> None:
    """Old file whole, log usable; the drop goes through later."""
    disk = Disk(operation)
    log, _ = opened(path, files=Files(fault=disk))
    log.append("a", b"1")
    log.append("b", b"2")
    log.append("a", None)
    disk.full = True
    with pytest.raises(Unwritable):
        log.compact()
    disk.full = False
    assert opened(path)[1] == {"b": b"2"}

    log.append("c", b"3")
    assert opened(path)[1] == {"b": b"2", "c": b"3"}


def test_a_full_disk_does_not_keep_the_log_shut(path: Path) -> None:
    """Valid sessions are still served on a read-only disk (interface.md §1)."""
    log, _ = opened(path)
    log.append("a", b"1")
    log.append("a", b"2")
    with path.open("ab") as stream:
        stream.write(b"torn")
    disk = Disk("open-for-writing", "write", "rename", "fsync")
    disk.full = True
    log, found = opened(path, files=Files(fault=disk))

    assert found == {"a": b"2"}
    assert not log.damaged
    with pytest.raises(Unwritable):
        log.append("b", b"3")
    disk.full = False
    log.append("c", b"4")
    assert opened(path)[1] == {"a": b"2", "b": b"3", "c": b"4"}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_kill_at_any_call_leaves_a_whole_prefix(path: Path) -> None:
    """What was appended before the kill is there; nothing half, nothing else, nothing set aside."""
    log, _ = opened(path)
    log.append("a", b"1")
    start = path.read_bytes()
    steps = [{"a": b"1"}, {"a": b"1", "b": b"2" * 300}, {"a": b"3", "b": b"2" * 300}, {"a": b"3"}]

    def work(files: Files) -> None:
        inner, _ = opened(path, files=files)
        inner.append("b", b"2" * 300)
        inner.append("a", b"3")
        inner.append("b", None)
        inner.compact()

    seen = []
    for _ in every_death(work):
        log, found = opened(path)
        assert found in steps
        assert not log.damaged
        seen.append(steps.index(found))
        put(path, start)

    assert len(seen) >= 40
    assert seen == sorted(seen)
    assert set(seen) == {0, 1, 2, 3}


def test_a_shut_log_keeps_nothing(path: Path) -> None:
    """close() forgets key and values; a late append is Locked, not written in the clear or lost in silence."""
    key = Secret(KEY)
    log = SealedLogFile(Files(), path)
    log.open(key)
    log.append("a", b"1")
    log.close()
    log.close()

    assert log._living == {}
    assert log._data_key is None
    assert key  # the caller's own secret is the caller's to wipe
    with pytest.raises(Locked, match="unlock"):
        log.append("b", b"2")
    with pytest.raises(Locked):
        log.compact()
    assert opened(path)[1] == {"a": b"1"}
