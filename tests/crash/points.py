"""Every write of a piece of work, failed once each: by a kill in a child, and by each error that a disk gives.

Rule: a point is one system call of vaultd's file layer. A kill comes before it, with writes cut into pieces, so that a
file is also met half written; an error is raised in its place, once or from then on, and the process lives on.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.survey import Findings, survey
from tests.crash.works import WORKS, Work, done, make_homes, prepared
from vaultd.files import Files

WRITING = frozenset({"open", "write", "fsync", "rename", "fsync_dir", "truncate", "unlink", "mkdir", "chmod"})
#: A kill meets each file at about this many places.
PIECE = 256


@dataclass(frozen=True)
class Kind:
    """How a call fails: `number` None is a kill. `lasts`: so does every later one; `only`: calls of this operation."""

    name: str
    number: int | None
    lasts: bool = False
    chunk: int = 1 << 20
    only: str = ""


KINDS = (
    Kind("SIGKILL", None, chunk=PIECE),
    Kind("ENOSPC", errno.ENOSPC, lasts=True),
    Kind("EDQUOT", errno.EDQUOT, lasts=True),
    Kind("EROFS", errno.EROFS, lasts=True),
    Kind("EIO", errno.EIO),
    Kind("short write", errno.ENOSPC, chunk=PIECE, only="write"),
)


class Faults:
    """The file layer's hook: from `arm` on it counts the calls, and fails the `point`-th."""

    def __init__(self, kind: Kind, point: int) -> None:
        self._kind = kind
        self._point = point
        self._armed = False
        self.calls = 0

    def arm(self) -> None:
        self._armed = True

    @property
    def kills(self) -> bool:
        return self._kind.number is None

    @property
    def struck(self) -> bool:
        return self.calls >= self._point

    def __call__(self, operation: str, path: Path) -> None:
        counted = operation == self._kind.only if self._kind.only else operation in WRITING
        if not self._armed or not counted:
            return
        self.calls += 1
        if self.calls == self._point or (self._kind.lasts and self.struck):
            if self._kind.number is None:
                os.kill(os.getpid(), signal.SIGKILL)
            else:
                raise OSError(self._kind.number, os.strerror(self._kind.number))


@dataclass
class Tried:
    """The points of one work by one kind."""

    work: str
    kind: str
    points: int = 0
    findings: Findings = field(default_factory=Findings)


MakeFiles = Callable[[Faults, int], Files]


def plain_files(faults: Faults, chunk: int) -> Files:
    """The product's file layer; a control takes one that is wrong."""
    return Files(fault=faults, chunk=chunk)


class Bench:
    """The homes that every point begins with, and the points themselves."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._told = asyncio.run(make_homes(root))

    def every_point(self, work: Work, kind: Kind, *, files: MakeFiles = plain_files) -> Tried:
        """Until the work gets through untouched."""
        tried = Tried(work.name, kind.name)
        while (found := self._point(work, kind, tried.points + 1, files)) is not None:
            tried.points += 1
            tried.findings.add(found)
        return tried

    def _point(self, work: Work, kind: Kind, point: int, make: MakeFiles) -> Findings | None:
        with self._copy(work.start) as path:
            faults = Faults(kind, point)
            files = make(faults, kind.chunk)
            if kind.number is None:
                told, struck, warned = _in_a_child(work, path, files, faults)
            else:
                told, struck, warned = _in_place(work, path, files, faults)
            if not struck:
                return None
            before = self._told[work.start]
            return asyncio.run(survey(path, told=[*before, *told], warned=warned))

    @contextmanager
    def _copy(self, start: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self._root) as place:
            path = Path(place, "home")
            shutil.copytree(self._root / start, path)
            yield path


async def _life(work: Work, path: Path, files: Files, faults: Faults, tell: Callable[[str], None]) -> str:
    house = await prepared(work, path, files, tell)
    faults.arm()
    failed = await done(work, house)
    if faults.kills:
        faults("fsync", path)  # one point more: a kill right after the last word
    return failed


def _in_place(work: Work, path: Path, files: Files, faults: Faults) -> tuple[list[str], bool, bool]:
    told: list[str] = []
    with _warnings() as warnings:
        failed = asyncio.run(_life(work, path, files, faults, told.append))
    return told, faults.struck, bool(failed or warnings)


def _in_a_child(work: Work, path: Path, files: Files, faults: Faults) -> tuple[list[str], bool, bool]:
    """What it told before it was killed; it tells by a pipe, which outlives it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        outcome = 1
        try:
            failed = asyncio.run(_life(work, path, files, faults, lambda said: _write_line(writing, said)))
            outcome = int(bool(failed))
        finally:
            os._exit(outcome)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read().splitlines()
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or os.waitstatus_to_exitcode(status) == 0, f"{work.name} failed by itself"
    return told, killed, False


def _write_line(descriptor: int, line: str) -> None:
    os.write(descriptor, line.encode() + b"\n")


@contextmanager
def workbench() -> Iterator[Path]:
    """Where the homes lie: in memory where that is a file system, since 30,000 syncs of a disk take a minute."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(
        prefix="vaultd-crash-", dir=memory if os.access(memory, os.W_OK) else None
    ) as root:
        yield Path(root)


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """What vaultd logs as a warning or worse: how a person is told where no command fails."""
    found: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    ear, logger = Ear(logging.WARNING), logging.getLogger("vaultd")
    logger.addHandler(ear)
    try:
        yield found
    finally:
        logger.removeHandler(ear)


def whole_table(root: Path) -> list[Tried]:
    """Every work by every kind."""
    bench = Bench(root)
    return [bench.every_point(work, kind) for work in WORKS for kind in KINDS]


def told_table(tried: list[Tried]) -> str:
    """The crash table: points by work and kind; then what was found, which has to be nothing."""
    names = [kind.name for kind in KINDS]
    head = f"{'':<20}" + "".join(
        f"{name:>12}" for name in (*names, "torn", "lost", "undone", "reset", "resent", "told")
    )
    lines = [head]
    for work in (*(each.name for each in WORKS), "all"):
        mine = [each for each in tried if work in {each.work, "all"}]
        points = [sum(each.points for each in mine if each.kind == name) for name in names]
        findings = Findings()
        for each in mine:
            findings.add(each.findings)
        counts = [*points, *(len(found) for found in findings.found.values()), findings.told]
        lines.append(f"{work:<20}" + "".join(f"{count:>12}" for count in counts))
    total = sum(each.points for each in tried)
    return "\n".join((*lines, f"{total} points tried, {len(breaches(tried))} kinds of breaches"))


def breaches(tried: list[Tried]) -> list[str]:
    """Each sentence once, with the work and the kind of failure that led to it."""
    said = ((each, found) for each in tried for found in each.findings.found.values())
    return sorted({f"{each.work}, {each.kind}: {sentence}" for each, found in said for sentence in found})
