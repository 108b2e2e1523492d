"""Whether the audit log is as it was written: every breach of its chain, by kind, file, line and number.

Rules
- A line is bound by its number and by the hash of the line before it, so each edit, deletion and reordering shows
  where it was made; the last line, and a tail that was cut, show by the head only, which is kept sealed.
- The oldest lines may have been rotated away: what is missing before the first line that is kept proves nothing.
- Code of the same user that can read the store can forge chain and head both (security.md §2.2 item 28).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vaultd.engine import audit_chain
from vaultd.engine.audit_chain import FIRST
from vaultd.engine.seams import Head
from vaultd.files import Files

#: More than this many are not told: who has rewritten a file has broken each of its lines.
MOST = 20

#: What to do where there is no log at all.
BEGUN_ANEW = "restore it from a copy, or have another begun with `vaultd start`"

Break = Literal["edited", "deleted", "reordered", "repeated", "damaged", "torn", "truncated"]


@dataclass(frozen=True, slots=True)
class Breach:
    """One breach: at which line of which file, and the number that is or should be there; `said` is what is wrong."""

    kind: Break
    file: Path
    line: int
    seq: int
    said: str

    @property
    def message(self) -> str:
        """The sentence that a person reads."""
        if self.kind == "truncated":
            return f"The audit log {self.file} was cut: {self.said}; see what is left with `vault-client log`."
        remedy = "`vaultd start` cuts it" if self.kind == "torn" else "keep a copy, then see it with `vault-client log`"
        return f"{self.file}:{self.line} (line {self.seq} of the log) {self.said}: {remedy}."

    def wire(self) -> dict[str, Any]:
        """{kind, file, line, seq, message}."""
        return {
            "kind": self.kind,
            "file": str(self.file),
            "line": self.line,
            "seq": self.seq,
            "message": self.message,
        }


@dataclass(frozen=True, slots=True)
class Proof:
    """What was looked at: the files, the oldest first, how many lines from which number to which, the breaches."""

    files: tuple[Path, ...]
    lines: int
    first: int
    last: int
    breaches: tuple[Breach, ...]

    def missing(self, path: Path, *, used: bool) -> str:
        """That a home which was `used` has no line of a log: with a key it has had one since its first start."""
        if self.lines or self.breaches or not used:
            return ""
        return f"the audit log {path} is empty" if self.files else f"there is no audit log at {path}"


@dataclass(frozen=True, slots=True)
class _Line:
    """A line where it stands. `seq` None: it cannot be read."""

    file: Path
    number: int
    seq: int | None
    prev: object
    digest: str


def examine(files: Files, path: Path, *, head: Head | None = None) -> Proof:
    """Read every file of the chain; with `head`, the last line and a cut tail are held against it, too.

    Raises FileRefused and Misconfigured of Files.read.
    """
    there = [each for each in reversed(audit_chain.kept(path)) if files.stat_key(each) is not None]
    lines: list[_Line] = []
    torn: list[Breach] = []
    for each in there:
        content = files.read(each) or b""
        lines += _lines(each, content)
        if content and not content.endswith(b"\n"):
            number, seq = content.count(b"\n") + 1, _last(lines) + 1
            torn.append(Breach("torn", each, number, seq, "is torn"))
    breaches = [*_chain(lines), *torn]
    if head is not None and not breaches:
        breaches += _end(lines, head, path)
    return Proof(tuple(there), len(lines), _first(lines), _last(lines), tuple(breaches[:MOST]))


def _lines(file: Path, content: bytes) -> Iterator[_Line]:
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        found = audit_chain.parsed(line) or {}
        yield _Line(file, number, found.get("seq"), found.get("prev"), audit_chain.digest_of(line))


def _first(lines: list[_Line]) -> int:
    return next((line.seq for line in lines if line.seq is not None), 0)


def _last(lines: list[_Line]) -> int:
    return next((line.seq for line in reversed(lines) if line.seq is not None), 0)


def _chain(lines: list[_Line]) -> Iterator[Breach]:
    counts = Counter(line.seq for line in lines)
    before: _Line | None = None
    for line in lines:
        if line.seq is None:
            yield _at(line, "damaged", "is no line of an audit log", seq=_expected(before))
        elif before is None:
            yield from _beginning(line)
        elif before.seq is None:  # told already; whether this one follows from it cannot be known
            pass
        elif line.seq != before.seq + 1:
            yield from _jump(line, line.seq, before.seq, counts)
        elif line.prev != before.digest:
            yield _at(before, "edited", "is not the one that was written: the next one follows from another")
        before = line


def _expected(before: _Line | None) -> int:
    return (before.seq or 0) + 1 if before is not None else 1


def _at(line: _Line, kind: Break, said: str, *, seq: int | None = None) -> Breach:
    return Breach(kind, line.file, line.number, line.seq if seq is None and line.seq is not None else seq or 0, said)


def _beginning(line: _Line) -> Iterator[Breach]:
    """The oldest that is kept: what was before it has been rotated away, unless it is the very first."""
    if (line.seq or 0) < 1 or (line.seq == 1) != (line.prev == FIRST):
        yield _at(line, "edited", "does not begin the chain")


def _jump(line: _Line, seq: int, before: int, counts: Counter[int | None]) -> Iterator[Breach]:
    """A number that does not follow: lines are missing, stand elsewhere, or stand twice."""
    if counts[seq] > 1 and seq <= before:
        yield _at(line, "repeated", f"stands twice, here after {before}")
        return
    first, last = before + 1, seq - 1
    # Only as many numbers as there are lines can stand elsewhere: a forged number may be far away.
    if seq <= before or (last - before <= len(counts) and all(counts[each] for each in range(first, last + 1))):
        yield _at(line, "reordered", f"stands after {before}")
        return
    missing = f"line {first} is" if first == last else f"lines {first} to {last} are"
    yield _at(line, "deleted", f"follows on {before}: {missing} missing")


def _end(lines: list[_Line], head: Head, path: Path) -> Iterator[Breach]:
    """Against the sealed head, where the chain itself is whole."""
    last = _last(lines)
    if head.seq > last:
        number = lines[-1].number if lines and lines[-1].file == path else 0
        said = f"it ends with line {last}, line {head.seq} had been written"
        yield Breach("truncated", path, number, last, said)
    for line in lines:
        if line.seq == head.seq and line.digest != head.digest:
            yield _at(line, "edited", "is not the one that was sealed")


def verify(files: Files, path: Path, *, head: Head | None = None) -> tuple[str, ...]:
    """Every breach as a sentence, 20 at most."""
    return tuple(each.message for each in examine(files, path, head=head).breaches)
