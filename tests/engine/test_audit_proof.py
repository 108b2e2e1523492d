"""The audit log's proof over rotated files: each tampering, its kind, file, line and number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes import FakeClock
from vaultd.engine.audit import Audit
from vaultd.engine.audit_proof import MOST, examine
from vaultd.engine.seams import Head
from vaultd.files import Files

#: Of four lines each: three files, `audit.jsonl` with the last of twelve lines.
WIDTH = 4
LINES = 12

Tamper = Callable[[dict[str, list[bytes]]], None]


@pytest.fixture
def log(tmp_path: Path, clock: FakeClock) -> tuple[Path, Head]:
    """Twelve lines over `.2`, `.1` and the current file, and the head."""
    tmp_path.chmod(0o700)
    path = tmp_path / "audit.jsonl"
    audit = Audit(files=Files(), path=path, clock=clock, max_bytes=1 << 20, keep=5, look=None)
    audit.resume(None)
    for number in range(1, LINES + 1):
        audit.record("start", reason=f"n{number:02}")
    lines = path.read_bytes().splitlines(keepends=True)
    for part, name in enumerate(("audit.jsonl.2", "audit.jsonl.1", "audit.jsonl")):
        (tmp_path / name).write_bytes(b"".join(lines[part * WIDTH : (part + 1) * WIDTH]))
        (tmp_path / name).chmod(0o600)
    return path, audit.head


def test_an_untouched_log_has_no_breach(log: tuple[Path, Head]) -> None:
    """Three files, twelve lines, the oldest file first; the head agrees."""
    path, head = log
    proof = examine(Files(), path, head=head)

    assert proof.breaches == ()
    assert [each.name for each in proof.files] == ["audit.jsonl.2", "audit.jsonl.1", "audit.jsonl"]
    assert (proof.lines, proof.first, proof.last) == (LINES, 1, LINES)


def _edit(name: str, number: int) -> Tamper:
    def tamper(files: dict[str, list[bytes]]) -> None:
        lines = files[name]
        lines[number - 1] = lines[number - 1].replace(b'"reason":"n', b'"reason":"x')

    return tamper


def _delete(name: str, number: int) -> Tamper:
    def tamper(files: dict[str, list[bytes]]) -> None:
        del files[name][number - 1]

    return tamper


def _swap(files: dict[str, list[bytes]]) -> None:
    lines = files["audit.jsonl.1"]
    lines[1], lines[2] = lines[2], lines[1]


def _swap_files(files: dict[str, list[bytes]]) -> None:
    files["audit.jsonl.2"], files["audit.jsonl.1"] = files["audit.jsonl.1"], files["audit.jsonl.2"]


def _repeat(files: dict[str, list[bytes]]) -> None:
    files["audit.jsonl"].insert(2, files["audit.jsonl"][1])


def _garbage(files: dict[str, list[bytes]]) -> None:
    files["audit.jsonl.1"][2] = b"\xff garbage\n"


def _tear(files: dict[str, list[bytes]]) -> None:
    files["audit.jsonl"][3] = files["audit.jsonl"][3][:30]


def _cut_tail(files: dict[str, list[bytes]]) -> None:
    del files["audit.jsonl"][2:]


def _empty_tail(files: dict[str, list[bytes]]) -> None:
    files["audit.jsonl"].clear()


def _no_middle(files: dict[str, list[bytes]]) -> None:
    del files["audit.jsonl.1"]


TAMPERED: list[tuple[str, Tamper, tuple[str, str, int, int]]] = [
    ("a line of the oldest file edited", _edit("audit.jsonl.2", 2), ("edited", "audit.jsonl.2", 2, 2)),
    ("the first line edited", _edit("audit.jsonl.2", 1), ("edited", "audit.jsonl.2", 1, 1)),
    ("the last line of a file edited", _edit("audit.jsonl.1", 4), ("edited", "audit.jsonl.1", 4, 8)),
    ("the very last line edited", _edit("audit.jsonl", 4), ("edited", "audit.jsonl", 4, 12)),
    ("a line deleted", _delete("audit.jsonl.1", 2), ("deleted", "audit.jsonl.1", 2, 7)),
    ("the first line of a file deleted", _delete("audit.jsonl", 1), ("deleted", "audit.jsonl", 1, 10)),
    ("a whole file deleted", _no_middle, ("deleted", "audit.jsonl", 1, 9)),
    ("two lines swapped", _swap, ("reordered", "audit.jsonl.1", 2, 7)),
    ("two files swapped", _swap_files, ("reordered", "audit.jsonl.1", 1, 1)),
    ("a line twice", _repeat, ("repeated", "audit.jsonl", 3, 10)),
    ("garbage", _garbage, ("damaged", "audit.jsonl.1", 3, 7)),
    ("a torn end", _tear, ("torn", "audit.jsonl", 4, 12)),
    ("the tail cut", _cut_tail, ("truncated", "audit.jsonl", 2, 10)),
    ("the last file emptied", _empty_tail, ("truncated", "audit.jsonl", 0, 8)),
]


@pytest.mark.parametrize(("name", "tamper", "expected"), TAMPERED, ids=[name for name, _, _ in TAMPERED])
def test_each_tampering_is_named(
    log: tuple[Path, Head], name: str, tamper: Tamper, expected: tuple[str, str, int, int]
) -> None:
    """security.md §2.2 item 28: the first breach is the one that was made, where it was made."""
    path, head = log
    files = {each.name: each.read_bytes().splitlines(keepends=True) for each in path.parent.iterdir()}
    tamper(files)
    for each in path.parent.iterdir():
        if each.name in files:
            each.write_bytes(b"".join(files[each.name]))
        else:
            each.unlink()

    first = examine(Files(), path, head=head).breaches[0]

    assert (first.kind, first.file.name, first.line, first.seq) == expected
    assert first.message.endswith(".")
    assert first.wire()["seq"] == expected[3]


@pytest.mark.parametrize("tamper", [_cut_tail, _edit("audit.jsonl", 4)], ids=["cut", "last line"])
def test_without_the_head_the_end_proves_nothing(log: tuple[Path, Head], tamper: Tamper) -> None:
    """A cut tail and an edited last line show by the sealed head alone."""
    path, _ = log
    files = {path.name: path.read_bytes().splitlines(keepends=True)}
    tamper(files)
    path.write_bytes(b"".join(files[path.name]))

    assert examine(Files(), path).breaches == ()


def test_a_log_that_is_gone_is_a_cut_one(log: tuple[Path, Head]) -> None:
    """Every file deleted: the head says how many lines there were."""
    path, head = log
    for each in path.parent.iterdir():
        each.unlink()
    proof = examine(Files(), path, head=head)

    assert (proof.lines, proof.files, [each.kind for each in proof.breaches]) == (0, (), ["truncated"])


def test_a_rewritten_file_is_told_in_twenty_lines(log: tuple[Path, Head]) -> None:
    """Whoever breaks each line gets no report of a thousand; a forged number far away costs nothing."""
    path, head = log
    forged = b"".join(b'{"seq":%d,"prev":"%064d"}\n' % (number * 10**12, number) for number in range(1, 60))
    path.write_bytes(forged)

    assert len(examine(Files(), path, head=head).breaches) == MOST
